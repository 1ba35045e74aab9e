"""What has become of an incident, and what else components tell each other: whoever decided it reports it, and the components
that it concerns react in the order in which models/shard/assembly.py lists them. Only live: what follows is in the log as
events of its own."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from models.alerts.alert import Content
from models.incidents.incident import OPEN_STATES, Incident, IncidentState, Severity
from models.playbook.playbook import Playbook
from models.playbook.run import Run


class Change(msgspec.Struct, frozen=True, gc=False):
    """Something is otherwise than before."""


class IncidentChange(Change, frozen=True, gc=False):
    """`incident` has changed; it is shown as it is now."""

    incident: Incident


class Opened(IncidentChange, frozen=True, gc=False):
    """It is new: opened by alerts or by a person. `content` is what the alert says that opened it."""

    content: Content | None = None


class SplitOff(IncidentChange, frozen=True, gc=False):
    """It is new: a person split it off another, and some of its alerts fire."""


class Signalled(IncidentChange, frozen=True, gc=False):
    """An alert that joined brings a new severity word."""


class Moved(IncidentChange, frozen=True, gc=False):
    """Its state has changed from `before`."""

    before: IncidentState

    @property
    def ends(self) -> bool:
        return self.before in OPEN_STATES and not self.incident.is_open

    @property
    def reopens(self) -> bool:
        return self.before not in OPEN_STATES and self.incident.is_open


class ResolvedByPerson(IncidentChange, frozen=True, gc=False):
    """A person resolved it, and with it its children."""

    actor: str
    method: str
    notes: str


class Rerated(IncidentChange, frozen=True, gc=False):
    """Its severity has changed from `before`."""

    before: Severity


class Judged(IncidentChange, frozen=True, gc=False):
    """It was classified or overridden; it is open, and counted as `before` until now."""

    before: Severity


class Acknowledged(IncidentChange, frozen=True, gc=False):
    """`actor` acknowledged it until `until` (0: until it ends)."""

    actor: str
    until: float


class Released(IncidentChange, frozen=True, gc=False):
    """`actor` took its acknowledgement back."""

    actor: str


class Unattended(IncidentChange, frozen=True, gc=False):
    """Its acknowledgement has expired: as far as we know nobody is on it."""


class Relabelled(IncidentChange, frozen=True, gc=False):
    """Its labels are others: its alerts share others, or a person changed them."""


class Overdue(IncidentChange, frozen=True, gc=False):
    """The time that it may take until somebody acknowledges it has passed, and nobody has."""


class Escalated(IncidentChange, frozen=True, gc=False):
    """A playbook gave up on it and wants more people."""


class RunOver(IncidentChange, frozen=True, gc=False):
    """`run` of a playbook is over. `book` is what it went by."""

    run: Run
    book: Playbook


class ToldByRun(IncidentChange, frozen=True, gc=False):
    """It is over, and at time `at` a playbook had told `receiver` of it, which calls what it opened `ref`."""

    receiver: str
    at: float
    ref: str


class Merging(IncidentChange, frozen=True, gc=False):
    """It is about to become a child of another incident, which sends notifications in its place."""


class Unmerged(IncidentChange, frozen=True, gc=False):
    """It is no longer a child of its parent."""


class Paid(IncidentChange, frozen=True, gc=False):
    """Something that was pending for it is done."""


class SeriesFires(IncidentChange, frozen=True, gc=False):
    """Series `number` began to fire in it, or, with `again`, after it had ended; with `opens` it was opened for it. `content` is
    what the series says, where that is at hand."""

    number: int
    again: bool = False
    opens: bool = False
    content: Content | None = None


class SeriesSaysElse(IncidentChange, frozen=True, gc=False):
    """Series `number` fires on and says something else, by the same labels: `before` was its body, `content` is what it says."""

    number: int
    before: bytes
    content: Content


class SeriesEnded(IncidentChange, frozen=True, gc=False):
    """Series `number` has ended."""

    number: int


class AlertDue(Change, frozen=True, gc=False):
    """An alert of our own fires: `content`, whose key is `key`. Where there is no room for it, nothing comes of it."""

    tenant: str
    key: bytes
    content: Content


class SeriesOver(Change, frozen=True, gc=False):
    """Series `number`, which fires, is one of our own and ends now."""

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
