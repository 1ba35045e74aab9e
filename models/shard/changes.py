"""What has become of an incident, and what else components tell each other: whoever decided it reports it, and the components
that it concerns react in the order in which models/shard/assembly.py lists them. Only live: what follows is in the log as
events of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from models.incidents.incident import OPEN_STATES, Incident, IncidentState, Severity


class Change(msgspec.Struct, frozen=True, gc=False):
    """Something is otherwise than before."""


class IncidentChange(Change, frozen=True, gc=False):
    """Something became of `incident`, which is as it is now."""

    incident: Incident


class Opened(IncidentChange, frozen=True, gc=False):
    """It is new: alerts opened it, or a person."""


class SplitOff(IncidentChange, frozen=True, gc=False):
    """It is new: a person split it off another, and something of it fires."""


class Signalled(IncidentChange, frozen=True, gc=False):
    """An alert that joined says something new of how severe it is."""


class Moved(IncidentChange, frozen=True, gc=False):
    """Its state is another than `before`."""

    before: IncidentState

    @property
    def ends(self) -> bool:
        return self.before in OPEN_STATES and not self.incident.is_open

    @property
    def reopens(self) -> bool:
        return self.before not in OPEN_STATES and self.incident.is_open


class ResolvedByPerson(IncidentChange, frozen=True, gc=False):
    """A person resolved it, and with it what it is made of."""

    actor: str
    method: str
    notes: str


class Rerated(IncidentChange, frozen=True, gc=False):
    """Its severity is another than `before`."""

    before: Severity


class Judged(IncidentChange, frozen=True, gc=False):
    """Somebody has said what it is; it is open, and counted as `before` until then."""

    before: Severity


class Unattended(IncidentChange, frozen=True, gc=False):
    """The time of its acknowledgement has passed: as far as anyone knows nobody looks after it."""


class Merging(IncidentChange, frozen=True, gc=False):
    """It is about to become a child of another incident, which is told of in its place."""


class Unmerged(IncidentChange, frozen=True, gc=False):
    """Its parent spoke for it, and does not any more."""


class Paid(IncidentChange, frozen=True, gc=False):
    """Something that it owed is owed no more."""


class SeriesFires(IncidentChange, frozen=True, gc=False):
    """Series `number` began to fire in it, or, with `again`, after it had ended. `labels` are its own, where they are at hand."""

    number: int
    again: bool = False
    labels: Mapping[str, str] | None = None


class SeriesEnded(IncidentChange, frozen=True, gc=False):
    """Series `number` fires no more."""

    number: int


class MutersChanged(Change, frozen=True, gc=False):
    """These series may be muted by something else than before, any series when None."""

    numbers: Collection[int] | None = None


class SilenceOver(Change, frozen=True, gc=False):
    """A silence mutes nothing any more."""

    silence: str


class Muted(IncidentChange, frozen=True, gc=False):
    """All that fires of it is muted. Said again whenever its alerts or what mutes them changed."""


class Unmuted(IncidentChange, frozen=True, gc=False):
    """Not all that fires of it is muted, or nothing of it fires. Said again like Muted."""
