"""What the settings say of the targets of actions (models/settings/playbook_targets.py), as a responder gets it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping

import msgspec

#: A service's name comes with alerts. Where a pattern covers it, it is put into URLs and names of Kubernetes: only what both take.
_SERVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


class ServiceGiven(msgspec.Struct, frozen=True):
    """models.settings.playbook_targets.ServiceTarget, as a responder gets it."""

    by: str = "kubernetes"
    namespace: str = "default"
    kind: str = "deployment"
    name: str = "{service}"
    config_map: str = ""
    http_route: str = ""
    url: str | None = None
    status_url: str | None = None
    token: str | None = None
    health_url: str = ""
    max_replicas: int = 100
    min_replicas: int = 1
    agent: str = ""

    def of(self, service: str) -> ServiceGiven:
        """With its name where `{service}` stands."""
        return msgspec.structs.replace(
            self,
            **{
                name: value.replace("{service}", service)
                for name in (
                    "namespace",
                    "name",
                    "config_map",
                    "http_route",
                    "url",
                    "status_url",
                    "health_url",
                    "agent",
                )
                if (value := getattr(self, name))
            },
        )


class Services:
    """The services that may be changed, by name or pattern."""

    def __init__(self, given: Mapping[str, ServiceGiven]) -> None:
        self._named = {name: each for name, each in given.items() if not _is_pattern(name)}
        # The longest first: what says more of a name goes before what says less.
        self._patterns = sorted(
            ((name, each) for name, each in given.items() if _is_pattern(name)),
            key=lambda row: (-len(row[0].replace("*", "")), row[0]),
        )

    def find(self, service: str) -> ServiceGiven | None:
        """How it is changed, None when the settings do not know it."""
        if (found := self._named.get(service)) is not None:
            return found.of(service)
        if _SERVICE.fullmatch(service):
            for pattern, each in self._patterns:
                if fnmatch.fnmatchcase(service, pattern):
                    return each.of(service)
        return None

    @property
    def known(self) -> list[str]:
        return [*self._named, *(pattern for pattern, _ in self._patterns)]


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


class SourceGiven(msgspec.Struct, frozen=True):
    """Where metrics or logs are."""

    url: str | None = None
    token: str | None = None
    tenant: str = ""
    page: int = 5000
    timeout: float = 10.0

    def headers(self) -> dict[str, str]:
        made = {"Accept": "application/json"}
        if self.token:
            made["Authorization"] = f"Bearer {self.token}"
        if self.tenant:
            made["X-Scope-OrgID"] = self.tenant
        return made


class ScriptGiven(msgspec.Struct, frozen=True):
    path: str
    args: list[str] = []
    allow_args: bool = True
    environment: dict[str, str] = {}
    secrets: dict[str, str] = {}
    folder: str = "/"
    timeout: float = 60.0
    memory_mib: int = 512
    output_kib: int = 256


class WarRoomGiven(msgspec.Struct, frozen=True):
    links: dict[str, str] = {}
    slack_token: str | None = None
    slack_api: str = "https://slack.com/api"
