"""How an event reads: each is described once, by the component that owns it, and the timeline, the live stream and the
summaries beside it follow from that description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from models.incidents.incident import Verdict, id_text, settled
from models.incidents.query import Summary
from models.partition.event import Event

SYSTEM = "system"
#: The kind for changes that are not in the timeline: sent to all clients if the labels changed, since the incident may
#: enter or leave a filter; any other change only to those that ask for all of them. Not a kind of line.
CHANGED = "Changed"

E = TypeVar("E", bound=Event)


class Line(msgspec.Struct, frozen=True):
    """One thing that happened to an incident. `details` is for programs."""

    kind: str
    actor: str
    text: str
    reason: str = ""
    details: dict[str, str] = {}

    @property
    def all_details(self) -> dict[str, str]:
        """With the reason, as a timeline has them."""
        return {"reason": self.reason, **self.details} if self.reason else dict(self.details)


class Seen(Protocol):
    """What a line may use of its incident: both an incident of a shard and its summary have it."""

    @property
    def counts(self) -> Verdict: ...
    @property
    def is_classified(self) -> bool: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


class Glance(msgspec.Struct, frozen=True, gc=False):
    """An incident as it was before an event."""

    counts: Verdict
    is_classified: bool
    labels: dict[str, str]


class Around(NamedTuple):
    """What stands around an event, of a frame made at `now`: which of its lines is wanted, and the incident before and after
    it. Without `before` (nobody knows it, or there was nothing) what would need it is left out."""

    now: float
    nth: int
    before: Seen | None
    after: Seen


@dataclass(frozen=True, slots=True)
class Description(Generic[E]):
    """How one type of event reads.

    kinds     every kind of line that it may be
    line      the `nth` line that an event is, None when it is none after all
    about     the incidents that it may tell of, one for each line, known without looking at any state, so that the place
              of a line in its frame never changes; None: of `incident_id`
    summary   the summary of `incident_id` after it (models/incidents/summaries.py); None: as before
    compares  its line looks at what the incident was before
    sifts     it can make an incident leave or enter a filter, and what the incident was before may not be known
    """

    kinds: tuple[str, ...]
    line: Callable[[E, Around], Line | None]
    about: Callable[[E], tuple[bytes, ...]] | None = None
    summary: Callable[[Summary, E, float], Summary] | None = None
    compares: bool = False
    sifts: bool = False

    def of(self, event: Any) -> tuple[bytes, ...]:
        """The incidents that this event may tell of."""
        return (event.incident_id,) if self.about is None else self.about(event)


def line_of(kind: str, actor: str, text: str, reason: str = "", **details: str) -> Line:
    """A line; empty details are left out."""
    return Line(kind, actor, text, reason, {name: value for name, value in details.items() if value})


def about_another(kind: str, actor: str, other: bytes, reason: str, direction: str = "") -> Line:
    """A line about what an incident has to do with another: "into <the other's id>: <the reason>"."""
    identity = id_text(other)
    text = f"{direction} {identity}".strip() + (f": {reason}" if reason else "")
    return line_of(kind, actor, text, reason, incident=identity, direction=direction)


def counted_anew(summary: Summary) -> Summary:
    """A summary after severity, type or impact may have changed."""
    return msgspec.structs.replace(
        summary, counts=settled(summary.verdict, summary.override, summary.children)
    )


def touched(summary: Summary, _event: Event, now: float) -> Summary:
    """A summary after something that makes no new version."""
    return msgspec.structs.replace(summary, updated_at=now)


def noted(summary: Summary, _event: Event, now: float) -> Summary:
    """A summary after something of which it shows only the new version."""
    return changed(summary, now)


def changed(summary: Summary, now: float, **fields: object) -> Summary:
    """A summary after something that people see as a new version."""
    return msgspec.structs.replace(summary, version=summary.version + 1, updated_at=now, **fields)
