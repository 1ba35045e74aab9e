"""What the server of the commands' tests answers about routes, receivers, playbooks and their runs. Bodies are the product's own
types, and what is asked is read by the product's own requests, so that a command that asks for what nobody answers fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from pydantic import BaseModel, ValidationError

from models.control.playbooks import Mode
from models.playbook.reading import read
from models.settings.all import Settings
from services.api.v1.playbooks import ApplyRequest, ModeRequest
from services.api.v1.repairs import RepairsBody, TasksBody
from services.api.v1.routing import RouteTestRequest, TriedBody, choice_body, receivers_body, routes_body
from services.api.v1.run_bodies import (
    AppliedBody,
    ApprovalBody,
    CaptureBody,
    PlaybookBody,
    PlaybooksBody,
    RunBody,
    RunsBody,
    VersionBody,
)
from services.api.v1.runs import ApproveRequest, StartRequest, SteerRequest
from services.playbooks.table import all_specs

if TYPE_CHECKING:
    from tests.cli.incident_server import Asked

NOW = "2026-01-31T12:00:00.000Z"
OVER = ("succeeded", "failed", "aborted", "cancelled")
#: What a run is at after each verb.
STEERED = {
    "pause": "paused",
    "resume": "running",
    "cancel": "cancelled",
    "approve": "running",
    "deny": "failed",
}

Told = tuple[int, Any]


def run_of(playbook: str, incident: dict[str, Any], identity: str, **changes: Any) -> RunBody:
    """A run that waits for an approval at step `ask`."""
    waits = ApprovalBody("ask", [], 1, [], NOW, "restart it?", "6f1d2a0c4b3e9857")
    logs = CaptureBody("5c11aa", "look", "logs of llm-api", "text/plain", NOW, 12, False, None)
    made = RunBody(
        UUID(identity), UUID(incident["id"]), incident["service"], incident["title"], 1, playbook, "1", "waiting", "", "system",
        "severity P1", False, NOW, None, NOW, None, [waits], [], [logs],
    )  # fmt: skip
    return replace(made, **changes)


@dataclass
class Response:
    """Playbooks, their runs, and settings with receivers and routes."""

    settings: Settings = field(default_factory=Settings)
    books: dict[str, PlaybookBody] = field(default_factory=dict)
    runs: dict[str, RunBody] = field(default_factory=dict)

    def apply(self, source: str, file: str = "playbook", mode: str = "") -> AppliedBody:
        """Raises Malformed with what is wrong with it."""
        found = read(source, file, all_specs())
        book, was = found.playbook, self.books.get(found.playbook.name)
        version = VersionBody(book.version, book.digest, NOW, "alice")
        shown = PlaybookBody(
            book.name, Mode(mode or (was.mode if was else "active")), book.version, book.digest, NOW, "alice",
            str(book.metadata.get("description", "")), book.priority, [step.id for step in (*book.steps, *book.final)], [version],
            source, book.trigger.schedule, None,
        )  # fmt: skip
        self.books[book.name] = shown
        return AppliedBody(shown, shown != was, [*found.warnings], True)

    def answer(self, asked: Asked, incidents: dict[str, dict[str, Any]]) -> Told | None:
        """A status and a body, or None: what is asked is none of this."""
        try:
            found = self._routing(asked) or self._playbook(asked) or self._run(asked, incidents)
        except ValidationError as error:
            return 400, {"title": "Malformed", "status": 400, "detail": str(error)}
        return None if found is None else (found[0], msgspec.to_builtins(found[1], str_keys=True))

    def _routing(self, asked: Asked) -> Told | None:
        notify = self.settings.notify
        match asked.method, _words(asked):
            case "GET", ["routes"]:
                return 200, routes_body(notify)
            case "POST", ["routes", "test"]:
                return 200, choice_body(notify, RouteTestRequest.model_validate(asked.body))
            case "GET", ["receivers"]:
                return 200, receivers_body(notify)
            case "POST", ["receivers", name, "test"] if name in notify.all_receivers:
                return 200, TriedBody(name, True, "it answered 200")
        return None

    def _playbook(self, asked: Asked) -> Told | None:
        match asked.method, _words(asked):
            case "GET", ["playbooks"]:
                return 200, PlaybooksBody([replace(each, source=None) for each in self.books.values()])
            case "POST", ["playbooks"]:
                new = ApplyRequest.model_validate(asked.body)
                return 200, self.apply(new.source, new.file, new.mode)
            case "GET", ["playbooks", name] if name in self.books:
                return 200, self.books[name]
            case "POST", ["playbooks", name, "mode"] if name in self.books:
                mode = Mode(ModeRequest.model_validate(asked.body).mode)
                self.books[name] = replace(self.books[name], mode=mode)
                return 200, self.books[name]
            case "DELETE", ["playbooks", name] if name in self.books:
                del self.books[name]
                return 204, None
        return None

    def _run(self, asked: Asked, incidents: dict[str, dict[str, Any]]) -> Told | None:
        def page(wanted: Callable[[RunBody], bool]) -> Told:
            found = [each for each in self.runs.values() if wanted(each)]
            return 200, RunsBody(sorted(found, key=lambda each: str(each.id), reverse=True), None)

        match asked.method, _words(asked):
            case "GET", ["repairs"]:
                return 200, RepairsBody([])
            case "GET", ["tasks"]:
                return 200, TasksBody([])
            case "GET", ["runs"]:
                query = dict(asked.query)
                active, book = query.get("active"), query.get("playbook")
                return page(
                    lambda each: (
                        (active is None or (each.ended_at is None) is (active == "true"))
                        and book in (None, each.playbook)
                    )
                )
            case "GET", ["incidents", of, "runs"] if of in incidents:
                return page(lambda each: str(each.incident) == of)
            case "POST", ["incidents", of, "runs"] if of in incidents:
                wanted = StartRequest.model_validate(asked.body)
                if wanted.playbook not in self.books:
                    return None
                made = run_of(
                    wanted.playbook, incidents[of], f"01994f3b-0000-7a2b-8c3d-{len(self.runs):012x}",
                    status="running", waits_for=[], by="alice", why=wanted.reason, shadow=wanted.shadow,
                )  # fmt: skip
                self.runs[str(made.id)] = made
                return 201, made
            case "GET", ["runs", identity] if identity in self.runs:
                return 200, self.runs[identity]
            case "GET", ["runs", identity, "captures", wanted] if identity in self.runs:
                for each in self.runs[identity].captures:
                    if each.id == wanted:
                        return 200, replace(each, text="line 1\nline 2")
            case "POST", ["runs", identity, verb] if identity in self.runs and verb in STEERED:
                request: type[BaseModel] = ApproveRequest if verb in ("approve", "deny") else SteerRequest
                request.model_validate(asked.body)
                status = STEERED[verb]
                ended = NOW if status in OVER else None
                self.runs[identity] = replace(
                    self.runs[identity], status=status, ended_at=ended, waits_for=[]
                )
                return 200, self.runs[identity]
        return None


def _words(asked: Asked) -> list[str]:
    return asked.path.strip("/").split("/")[1:]
