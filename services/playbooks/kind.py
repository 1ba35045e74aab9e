"""What a row of the table of actions says (services/playbooks/table.py): what a kind of action takes, and how it is done. Packages of
others add rows by an entry point.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.playbook.catalog import ActionSpec
from models.playbook.work import FAILED, SUCCEEDED, Capture, Done, IncidentEffect

if TYPE_CHECKING:
    from services.playbooks.tools import Tools

#: Characters of a detail: it becomes a line of the incident's timeline.
DETAIL_MAX = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """One action to be done. `seen` is what templates see: `incident`, `variables`, `steps`, `run`, `item`, `index`. `timeout_s` is
    what is left for it. `again`: an earlier request with this key may have been carried out."""

    key: str
    type: str
    seen: Mapping[str, Any]
    timeout_s: float
    attempt: int = 0
    again: bool = False
    trace: str | None = None

    @property
    def incident(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.seen["incident"]
        return found

    def service_or(self, service: str) -> str:
        """The service that an action is about: the one it names, else the incident's."""
        return service or str(self.incident.get("service") or "")


@dataclass(frozen=True, slots=True)
class PlaybookAction:
    """A kind of action.

    `do(tools, asked, params)` does it once and never raises for the target's faults; a Refused or Unavailable that it raises all the
    same becomes its failure. `params` are of `spec.params`. Asked again with the same key it must not do what was done already where
    the target can tell (`asks`); where nobody can, an action that is marked `once` is not asked to be done again. `check` says why
    it can't be done here, before anything is: an unknown service, a script that the settings do not allow; "" when it can.
    `calls` names the target that it would call, so that a dry run can say that the target is being left alone.
    """

    spec: ActionSpec
    do: Callable[[Tools, Asked, Any], Awaitable[Done]]
    check: Callable[[Tools, Asked, Any], str] | None = None
    asks: bool = False
    calls: Callable[[Tools, Asked, Any], str] | None = None


def succeeded(
    detail: str,
    outputs: Mapping[str, Any] | None = None,
    *,
    captures: tuple[Capture, ...] = (),
    effects: tuple[IncidentEffect, ...] = (),
) -> Done:
    return Done(SUCCEEDED, detail, dict(outputs or {}), captures=captures, effects=effects)


def failed(
    detail: str,
    *,
    final: bool = False,
    reached: bool = True,
    retry_after_s: float = 0.0,
    outputs: Mapping[str, Any] | None = None,
    captures: tuple[Capture, ...] = (),
) -> Done:
    return Done(
        FAILED,
        detail,
        dict(outputs or {}),
        captures=captures,
        final=final,
        reached=reached,
        retry_after_s=retry_after_s,
    )
