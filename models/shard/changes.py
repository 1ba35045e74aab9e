"""Changes of an incident, as lifecycle and intake report them to the components, which react in the order of
models/shard/assembly.py. Only live: their reactions are in the log as events of their own."""

from __future__ import annotations

import msgspec

from models.incidents.incident import OPEN_STATES, Incident, IncidentState, Severity


class Change(msgspec.Struct, frozen=True, gc=False):
    """`incident` has changed; it is shown as it is now."""

    incident: Incident


class Opened(Change, frozen=True, gc=False):
    """It is new: opened by alerts or by a person."""


class SplitOff(Change, frozen=True, gc=False):
    """It is new: a person split it off another, and some of its alerts fire."""


class Signalled(Change, frozen=True, gc=False):
    """An alert that joined brings a new severity word."""


class Moved(Change, frozen=True, gc=False):
    """Its state has changed from `before`."""

    before: IncidentState

    @property
    def ends(self) -> bool:
        return self.before in OPEN_STATES and not self.incident.is_open

    @property
    def reopens(self) -> bool:
        return self.before not in OPEN_STATES and self.incident.is_open


class ResolvedByPerson(Change, frozen=True, gc=False):
    """A person resolved it, and with it its children."""

    actor: str
    method: str
    notes: str


class Rerated(Change, frozen=True, gc=False):
    """Its severity has changed from `before`."""

    before: Severity


class Judged(Change, frozen=True, gc=False):
    """It was classified or overridden; it is open, and counted as `before` until now."""

    before: Severity


class Unattended(Change, frozen=True, gc=False):
    """Its acknowledgement has expired: as far as we know nobody is on it."""


class Merging(Change, frozen=True, gc=False):
    """It is about to become a child of another incident, which sends notifications in its place."""


class Unmerged(Change, frozen=True, gc=False):
    """It is no longer a child of its parent."""


class Paid(Change, frozen=True, gc=False):
    """Something that was pending for it is done."""


class SeriesFires(Change, frozen=True, gc=False):
    """Series `number` began to fire in it, or, with `again`, after it had ended."""

    number: int
    again: bool = False


class SeriesEnded(Change, frozen=True, gc=False):
    """Series `number` has ended."""

    number: int
