"""GitHub's webhooks: failed workflow runs, jobs, deployments and checks, which the next good one of the same kind ends; and alerts of
Dependabot and of scanning. Other events are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from models.errors import Malformed
from services.ingest.arrival import Sender
from services.ingest.formats.answers import Answer, encode_json
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.signatures import header_of, signed_by
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat

SIGNATURE = "X-Hub-Signature-256"
FAILED = ("failure", "timed_out", "startup_failure", "action_required", "error")
_RUNS = ("workflow_run", "workflow_job", "check_run", "check_suite")
_ALERTS = ("dependabot_alert", "code_scanning_alert", "secret_scanning_alert")
EVENTS = (*_RUNS, "deployment_status", *_ALERTS)
_OVER = frozenset({"fixed", "dismissed", "auto_dismissed", "resolved", "closed_by_user", "auto_closed"})


class GitHubFormat(WebhookFormat):
    name = "github"
    path = "/v1/events/github"
    summary = "GitHub's webhooks: failures of Actions, deployments, checks; security alerts"
    shape = "repository and one of workflow_run, workflow_job, check_run, check_suite, deployment_status; or alert and sender"
    severities = {
        **dict.fromkeys(FAILED, "P2"),
        **{"critical": "P1", "high": "P1", "medium": "P2", "moderate": "P2", "low": "P3", "": "P3"},
    }

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._secret = shared.settings.formats.github_secret
        self.is_signed = self._secret is not None

    def verify(self, request: Request) -> Sender:
        assert self._secret is not None
        given = header_of(request, SIGNATURE).removeprefix("sha256=")
        return signed_by(self._secret, request, SIGNATURE, [given], self.name)

    def handshake(self, request: Request) -> Answer | None:
        if header_of(request, "X-GitHub-Event") != "ping":
            return None
        return Answer(200, b"application/json", encode_json({"format": self.name, "message": "pong"}))

    def rereads(self) -> Iterable[bytes]:
        return (b"x-github-event",)

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        event = Fields(body)
        kind = next((each for each in EVENTS if each in event), "")
        if any(each in event for each in ("alert",)) and not kind:
            kind = header_of(request, "X-GitHub-Event") or "alert"
            return self.each([(body, "")], lambda one: self._alert(one, kind))
        if not kind:
            if "repository" in event or "zen" in event or "hook_id" in event:
                return []
            raise Malformed(f"expected one of {', '.join(EVENTS)} in the body, as GitHub's webhooks have it")
        if kind == "deployment_status":
            return self.each([(body, "")], self._deployment)
        return self.each([(body, "")], lambda one: self._run(one, kind))

    def _run(self, event: Fields, kind: str) -> Draft | list[Draft]:
        run = event.need_inner(kind)
        verdict = run.text("conclusion").lower()
        if verdict not in (*FAILED, "success"):
            return []  # it goes on, or nobody knows whether it was well: cancelled, skipped, neutral
        name = run.text("name", "app.name") or event.text("workflow.name") or kind
        branch = run.text("head_branch") or run.text("check_suite.head_branch")
        repository = _repository(event)
        labels = {"repository": repository, "branch": branch, "kind": kind}
        if kind == "workflow_job":
            labels["workflow"] = run.text("workflow_name")
        over = verdict == "success"
        return self.alert(
            name,
            repository.rpartition("/")[2],
            title=f"{name} failed on {branch or repository}"
            if not over
            else f"{name} succeeded on {branch or repository}",
            text=run.text("display_title", "output.title", "head_commit.message"),
            severity=verdict,
            resolved=over,
            labels=labels,
            notes={
                "conclusion": verdict,
                "run": run.text("run_number", "id"),
                "attempt": run.text("run_attempt"),
                "commit": run.text("head_sha"),
                "actor": run.text("actor.login") or event.text("sender.login"),
                "trigger": run.text("event"),
            },
            starts=run.time("run_started_at", "started_at", "created_at") if not over else 0.0,
            url=run.text("html_url", "url"),
        )

    def _deployment(self, event: Fields) -> Draft | list[Draft]:
        status = event.need_inner("deployment_status")
        state = status.text("state").lower()
        if state not in (*FAILED, "success"):
            return []
        environment, repository = (
            status.text("environment") or event.text("deployment.environment"),
            _repository(event),
        )
        return self.alert(
            "DeploymentFailed",
            repository.rpartition("/")[2],
            title=f"Deployment of {repository} to {environment}: {state}",
            text=status.text("description"),
            severity=state,
            resolved=state == "success",
            labels={"repository": repository, "environment": environment},
            notes={"ref": event.text("deployment.ref"), "creator": status.text("creator.login")},
            url=status.text("target_url", "log_url"),
        )

    def _alert(self, event: Fields, kind: str) -> Draft:
        alert, repository = event.need_inner("alert"), _repository(event)
        words = ("security_advisory.summary", "rule.description", "secret_type_display_name", "secret_type")
        title = alert.text(*words) or kind
        return self.alert(
            kind,
            repository.rpartition("/")[2],
            title=title,
            text=alert.text("security_advisory.description", "rule.full_description"),
            severity=alert.text(
                "security_advisory.severity", "rule.security_severity_level", "rule.severity"
            ),
            resolved=event.text("action").lower() in _OVER or alert.text("state").lower() in _OVER,
            labels={"repository": repository, "number": alert.text("number"), "category": "security"},
            notes={"package": alert.text("dependency.package.name"), "action": event.text("action")},
            starts=alert.time("created_at"),
            url=alert.text("html_url"),
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        if not isinstance(body, dict) or "repository" not in body:
            return b"x-github-event" in headers
        return any(each in body for each in EVENTS) or {"alert", "sender"} <= body.keys()


def _repository(event: Fields) -> str:
    return event.need_inner("repository").need("full_name", "name")
