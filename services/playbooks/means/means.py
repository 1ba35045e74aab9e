"""What a way of changing services promises. Used by services/playbooks/actions/changes.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from models.playbook.work import Done
from services.playbooks.given import ServiceGiven

#: What may be changed. A hook is told these words.
RESTART, ROLLBACK, SCALE, CONFIGURE, SHIFT, ISOLATE = (
    "restart", "rollback", "scale", "config_change", "traffic_shift", "isolate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one service. `key` is the same when it is asked for again."""

    what: str
    key: str
    service: str
    given: ServiceGiven
    params: Mapping[str, Any]
    incident_id: str
    timeout_s: float
    again: bool = False

    @property
    def identity(self) -> str:
        """By what it is known whether it was made. Each try of a restart restarts again. But going back, or so many replicas more, is
        made once for all tries of an action, whose keys differ behind the last dash: another rollback would go forward again."""
        is_relative = self.what == ROLLBACK or (self.what == SCALE and self.params.get("by") is not None)
        return self.action_key if is_relative else self.key

    @property
    def action_key(self) -> str:
        """The same for all tries of one action."""
        return self.key.rpartition("-")[0] or self.key


class Means(Protocol):
    """Raises Refused for what will not be done later either, Unavailable for what may be."""

    def why_not(self, change: Change) -> str:
        """Why it can't be done this way, "" if it can. Asks nobody."""

    def target(self, change: Change) -> str:
        """The name of the target (actors/targets.py) that is called for it, "" if that is not known."""

    async def make(self, change: Change) -> Done:
        """Make it once: one that was made with this key is not made again, as far as this way can tell."""

    async def settled(self, change: Change) -> str:
        """Why the service is not yet as it should be after it, "" when it is. Raises Refused when it will not become so."""

    def knows_when_settled(self, change: Change) -> bool:
        """Whether settled() has anything to ask."""

    async def snapshot(self, service: str, given: ServiceGiven, timeout_s: float) -> dict[str, Any]:
        """The service's configuration as plain data, without the values of secrets."""

    async def close(self) -> None: ...
