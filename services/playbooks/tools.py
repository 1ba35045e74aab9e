"""What the actions of playbooks reach the world with: the guarded HTTP client, the receivers, services and how each is changed, and
where metrics and logs are. Made from the settings in open.py.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from models.ports import Channel, Clock
from services.actions.outbound import Outbound

if TYPE_CHECKING:
    from services.playbooks.means.means import Means

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


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver of the settings: its name, its type, and how it is told."""

    name: str
    type: str
    channel: Channel


@dataclass(slots=True)
class Tools:
    """`means` by what a service is changed by ("kubernetes", "http")."""

    outbound: Outbound
    clock: Clock
    receivers: Mapping[str, Receiver] = field(default_factory=dict)
    services: Services = field(default_factory=lambda: Services({}))
    means: Mapping[str, Means] = field(default_factory=dict)
    prometheus: SourceGiven = field(default_factory=SourceGiven)
    loki: SourceGiven = field(default_factory=SourceGiven)
    scripts: Mapping[str, ScriptGiven] = field(default_factory=dict)
    war_room: WarRoomGiven = field(default_factory=WarRoomGiven)

    def means_of(self, service: str) -> tuple[Means, ServiceGiven] | str:
        """How a service is changed, or why it can't be."""
        if not service:
            return "service: expected a name, and neither the action nor the incident has one"
        found = self.services.find(service)
        if found is None:
            return f"service {service[:100]!r} is not known: name it, or a pattern, in [playbooks.services]"
        return self.means[found.by], found

    async def close(self) -> None:
        for each in self.means.values():
            await each.close()
        await self.outbound.close()


def plain(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A table of what the settings give."""
    found: dict[str, Any] = given.get(name) or {}
    return found
