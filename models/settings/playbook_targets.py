"""What the actions of playbooks act upon: services and how each is changed, where metrics and logs are, which scripts may run, and
which policy is asked. Nested in the section of playbooks (models/settings/playbooks.py).

All URLs here are the operator's own, and may be private. Those that come with alerts are not: `[outbound] allow` says which of
them may be called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from models.settings.secrets import Secret
from models.settings.values import AbsolutePath, Duration, Section, wrong_url

#: Services and patterns of services.
SERVICES_MAX = 10_000
SCRIPTS_MAX = 1_000


def _url(value: str | None) -> str | None:
    if value and (wrong := _wrong_pattern(value)):
        raise ValueError(wrong)
    return value


def _wrong_pattern(url: str) -> str:
    """What is wrong with a URL in which {service} and {action} may stand, "" if nothing is."""
    if wrong := wrong_url(url.replace("{service}", "x").replace("{action}", "x")):
        return wrong
    host = re.split(r"[/?#]", url.partition("://")[2])[0].rpartition("@")[2].partition(":")[0]
    _, service, domain = host.rpartition("{service}")
    if service and "." not in domain:
        # Services are named by whoever sends alerts: that must never be the whole of a host.
        return "expected a fixed domain behind {service} in the host, as in {service}.llm.svc"
    return ""


class PrometheusSource(Section):
    """Where `metrics_snapshot` and `verify_resolution` with `check: metric` ask."""

    url: str | None = Field(None, description="Base URL of a Prometheus, or of what speaks its HTTP API.")
    token: Secret | None = Field(None, description="Bearer token. Secret.")
    timeout: Duration = Field(10.0, ge=0.1, le=60, description="Longest time for one query.")

    _is_url = field_validator("url")(_url)


class LokiSource(Section):
    """Where `logs_capture` asks."""

    url: str | None = Field(None, description="Base URL of a Loki.")
    token: Secret | None = Field(None, description="Bearer token. Secret.")
    tenant: str = Field("", description="Sent as `X-Scope-OrgID`. Empty: not sent.")
    page: int = Field(
        5000, ge=1, le=100_000, description="Lines of one query: Loki's own `max_entries_limit_per_query`."
    )
    timeout: Duration = Field(10.0, ge=0.1, le=60, description="Longest time for one query.")

    _is_url = field_validator("url")(_url)


class Kubernetes(Section):
    """The Kubernetes API that services with `by = "kubernetes"` are changed by. Without `api`, the cluster that we run in."""

    api: str | None = Field(
        None, description="URL of the API server. None: from the environment and the pod's service account."
    )
    token: Secret | None = Field(None, description="Bearer token. Secret. None: that of `token_file`.")
    token_file: str = Field(
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        description="File with the token, read for each request: Kubernetes renews it.",
    )
    ca_file: str = Field(
        "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        description="Certificates that the API server's is checked by. Used if the file exists.",
    )
    timeout: Duration = Field(10.0, ge=0.1, le=60, description="Longest time for one request.")

    _is_url = field_validator("api")(_url)


class ServiceTarget(Section):
    """How one service, or those that a pattern covers, are changed. `{service}` in a text is the service's name."""

    by: Literal["kubernetes", "http", "edge"] = Field(
        "kubernetes",
        description="`kubernetes`: by the Kubernetes API. `http`: by POSTing each change to `url`. `edge`: by the edge agent `agent`.",
    )
    namespace: str = Field("default", description="Kubernetes: namespace.")
    kind: Literal["deployment", "statefulset", "daemonset"] = Field(
        "deployment", description="Kubernetes: what runs it."
    )
    name: str = Field("{service}", description="Kubernetes: its name there.")
    config_map: str = Field("", description="Kubernetes: the ConfigMap that `config_change` writes into.")
    http_route: str = Field(
        "", description="Kubernetes: the HTTPRoute of the Gateway API whose weights `traffic_shift` sets."
    )
    url: Secret | None = Field(
        None,
        description="http: where each change is POSTed, as JSON; `{action}` is what is to be done. Secret.",
    )
    status_url: Secret | None = Field(
        None,
        description="http: asked with `?key=` whether a change was made, when that is not known after a crash. Secret.",
    )
    token: Secret | None = Field(None, description="http: bearer token. Secret.")
    health_url: str = Field("", description="What tells whether it is well, by answering 200.")
    agent: str = Field("", description="edge: the id of the agent that changes it.")
    max_replicas: int = Field(100, ge=1, description="`scale` never goes beyond.")
    min_replicas: int = Field(1, ge=0, description="`scale` never goes below.")

    _is_url = field_validator("health_url")(_url)

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> ServiceTarget:
        if self.by == "http" and self.url is None:
            raise ValueError('by = "http" needs a url')
        if self.by == "edge" and not self.agent:
            raise ValueError('by = "edge" needs an agent')
        for name, value in (("url", self.url), ("status_url", self.status_url)):
            wrong = "" if value is None else _wrong_pattern(value.get_secret_value())
            if wrong:
                raise ValueError(f"{name}: {wrong}")
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas: expected at most max_replicas")
        return self


class Script(Section):
    """A program that playbooks may run by its name. It gets no shell, no input but its arguments and `stdin`, and an environment
    with nothing in it but what stands here."""

    path: AbsolutePath = Field(min_length=1, description="Absolute path of the program.")
    args: list[str] = Field([], max_length=100, description="Arguments before those that a playbook gives.")
    allow_args: bool = Field(True, description="Whether a playbook may add arguments.")
    environment: dict[str, str] = Field({}, description="Its environment variables, beside PATH and LANG.")
    secrets: dict[str, Secret] = Field(
        {}, description="Environment variables with secrets: taken out of all that it writes. Secret."
    )
    folder: AbsolutePath = Field("/", min_length=1, description="Its working directory.")
    timeout: Duration = Field(
        60.0, ge=0.1, le=3600, description="Then it is killed, with all that it started."
    )
    memory_mib: int = Field(
        512, ge=16, le=65_536, description="Most address space (RLIMIT_AS) of each of its processes, in MiB."
    )
    output_kib: int = Field(
        256, ge=1, le=4096, description="Most output that is kept, in KiB; the rest is dropped."
    )


class WarRoom(Section):
    """What `create_war_room` opens."""

    links: dict[str, str] = Field(
        {},
        description="By platform, the link to a meeting: a template, as in `https://meet.example.org/{{ incident.id }}`.",
    )
    slack_token: Secret | None = Field(
        None,
        description="Bot token of Slack with `channels:manage`, `users:read.email` and `chat:write`. Secret.",
    )
    slack_api: str = Field("https://slack.com/api", description="Base URL of Slack's Web API.")

    _is_url = field_validator("slack_api")(_url)


class PolicyFiles(Section):
    """Policies in Rego, evaluated here: for those who run no policy server. With
    `integrations.llm_governance_core.enabled` that server is asked instead."""

    files: list[AbsolutePath] = Field(
        [],
        max_length=1000,
        description="Files with policies (`.rego`) and data (`.json`), by absolute path. Empty: no policy is asked.",
    )
    rule: str = Field(
        "incidents",
        pattern=r"^[A-Za-z_]\w*([./][A-Za-z_]\w*)*$",
        description="The package, or the rule in it, whose value is the decision: `incidents` is `data.incidents`.",
    )


class PlaybookTargets(Section):
    """What actions act upon."""

    environment: str = Field(
        "",
        description="What policies are told as `context.environment` (`prod`, `staging`). Empty: the incident's label `environment` or `env`.",
    )
    prometheus: PrometheusSource = PrometheusSource()
    loki: LokiSource = LokiSource()
    kubernetes: Kubernetes = Kubernetes()
    services: dict[str, ServiceTarget] = Field(
        {},
        max_length=SERVICES_MAX,
        description="Services that actions may change, by name or pattern (`llm-*`); see [a service](#playbooksservices-each).",
    )
    scripts: dict[str, Script] = Field(
        {},
        max_length=SCRIPTS_MAX,
        description="Programs that actions may run; see [a script](#playbooksscripts-each).",
    )
    war_room: WarRoom = WarRoom()
    policy: PolicyFiles = PolicyFiles()

    def given_to_responder(self) -> Mapping[str, object]:
        """What a responder's Worker goes by: plain values, secrets as Secret."""
        targets = {
            "environment": self.environment,
            "prometheus": _plain(self.prometheus),
            "loki": _plain(self.loki),
            "kubernetes": _plain(self.kubernetes),
            "services": {name: _plain(each) for name, each in self.services.items()},
            "scripts": {name: _plain(each) for name, each in self.scripts.items()},
            "war_room": _plain(self.war_room),
            "policy": _plain(self.policy),
        }
        return {"playbook_targets": targets}


def _plain(section: Section) -> dict[str, object]:
    return {name: getattr(section, name) for name in type(section).model_fields}
