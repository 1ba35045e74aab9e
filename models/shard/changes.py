"""What has become of an incident, as lifecycle and intake report it to the components, which react to it in the order in
which models/shard/assembly.py lists them. Only live: what follows is in the log as events of its own."""

from __future__ import annotations

import msgspec

from models.incidents.incident import OPEN_STATES, Incident, IncidentState, Severity


class Change(msgspec.Struct, frozen=True, gc=False):
    """Something became of `incident`, which is as it is now."""

    incident: Incident


class Opened(Change, frozen=True, gc=False):
    """It is new: alerts opened it, or a person."""


class SplitOff(Change, frozen=True, gc=False):
    """It is new: a person split it off another, and something of it fires."""


class Signalled(Change, frozen=True, gc=False):
    """An alert that joined says something new of how severe it is."""


class Moved(Change, frozen=True, gc=False):
    """Its state is another than `before`."""

    before: IncidentState

    @property
    def ends(self) -> bool:
        return self.before in OPEN_STATES and not self.incident.is_open

    @property
    def reopens(self) -> bool:
        return self.before not in OPEN_STATES and self.incident.is_open


class ResolvedByPerson(Change, frozen=True, gc=False):
    """A person resolved it, and with it what it is made of."""

    actor: str
    method: str
    notes: str


class Rerated(Change, frozen=True, gc=False):
    """Its severity is another than `before`."""

    before: Severity


class Judged(Change, frozen=True, gc=False):
    """Somebody has said what it is; it is open, and counted as `before` until then."""

    before: Severity


class Unattended(Change, frozen=True, gc=False):
    """The time of its acknowledgement has passed: as far as anyone knows nobody looks after it."""


class Merging(Change, frozen=True, gc=False):
    """It is about to become a child of another incident, which is told of in its place."""


class Unmerged(Change, frozen=True, gc=False):
    """Its parent spoke for it, and does not any more."""


class Paid(Change, frozen=True, gc=False):
    """Something that it owed is owed no more."""


class SeriesFires(Change, frozen=True, gc=False):
    """Series `number` began to fire in it, or, with `again`, after it had ended."""

    number: int
    again: bool = False


class SeriesEnded(Change, frozen=True, gc=False):
    """Series `number` fires no more."""

    number: int
