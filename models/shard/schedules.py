"""Playbooks that run by the clock. When one is due, the shard that has its slot opens an incident for the run, of severity P4 and of
which nobody is told; it is resolved when the run has succeeded. When the run fails, or never begins, it becomes a P3 (a P2 if a
repair failed) and is told of
like any other.

The last time for which each was begun is in the log, in the step that opens the incident: a writer that starts begins none twice, and
one that came due while there was none is begun by the next, once, unless that is more than LATE_MAX_S ago.
"""

from __future__ import annotations

import math

import msgspec

from models.incidents.incident import AUTOMATED, Incident, IncidentType, Severity, incident_id
from models.incidents.lines import SYSTEM, Around, Description, Line, line_of
from models.incidents.notification import rfc3339
from models.partition.checkpoint import RecordKind
from models.partition.event import Event
from models.partition.sharding import TENANT, slot_of
from models.playbook.playbook import Playbook
from models.playbook.run import CANCELLED
from models.playbook.run_events import Chosen, PlaybooksChosen
from models.playbook.schedule import last_due, next_due
from models.playbook.work import SUCCEEDED
from models.shard import classification, clock, lifecycle
from models.shard.changes import Moved, Opened, Paid, RunOver
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core, Whose
from models.shard.events import ClockSetBack, IncidentOpened
from models.shard.known_playbooks import KnownPlaybooks, Offered, PlaybooksKnown
from models.shard.messages import Classification, Tick
from models.shard.openings import SIGNALS_MAX
from models.shard.runs import Runs

#: There is one record.
BEGUN = RecordKind("schedules")
#: What was due longer ago, because nothing ran then, is left out: a report of 3 in the morning helps nobody in the afternoon.
LATE_MAX_S = 3600.0
#: What such an incident is, and what it becomes when its run fails.
QUIET, FAILED = Severity.P4, Severity.P3
#: Why nobody is told of one.
RUNS_BY_THE_CLOCK = "a scheduled run: people are told if it fails"
#: IncidentOpened.source of one. No alert's incident is without a group.
SOURCE = "schedule"


class SchedulesFollowed(Event, frozen=True):
    """The playbooks whose schedules this shard goes by. One that is new is due after now."""

    playbooks: list[str]


class RunScheduled(Event, frozen=True):
    """An incident was opened for the run of a playbook that was due at `due_at`."""

    incident_id: bytes
    playbook: str
    due_at: float


class RunLeftOut(Event, frozen=True):
    """A playbook does not run for the time that was due at `due_at`. `incident_id` is that of its run that is still under way; b"":
    it was due too long ago."""

    incident_id: bytes
    playbook: str
    due_at: float


def _scheduled_line(event: RunScheduled, _around: Around) -> Line:
    return line_of("Scheduled", SYSTEM, f"{event.playbook} was due at {rfc3339(event.due_at)}")


class Schedules(Component):
    name = "schedules"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: By name: the last time it was begun for, or since when it is followed.
        self.begun: dict[str, float] = {}
        #: By name: when it is due next. In memory only.
        self._next: dict[str, float] = {}
        self._soonest = math.inf
        #: How many times were left out since that was counted last. In memory only: for metrics.
        self.left_out = 0

    # -- when ----------------------------------------------------------------------------------------------

    def _known(self, _change: PlaybooksKnown, now: float) -> None:
        """Other playbooks, or other slots, than before."""
        known = self.shard.of(KnownPlaybooks)
        names = [each.name for each in known.offered.values() if known.book(each).trigger.schedule]
        mine = [name for name in names if name in known.own]
        if self.begun.keys() != {*mine}:
            self.shard.do(SchedulesFollowed(sorted(mine)), now)
        self._look_ahead()

    def _look_ahead(self) -> None:
        known = self.shard.of(KnownPlaybooks)
        self._next = {}
        for name, begun in self.begun.items():
            offered = known.offered.get(name)
            if offered is not None and offered.mode != "paused":
                schedule = known.book(offered).trigger.schedule
                self._next[name] = next_due(schedule, max(begun, known.heard_at(offered))) or math.inf
        self._soonest = min(self._next.values(), default=math.inf)

    def started(self, now: float, is_set_back: bool) -> None:
        self._look_ahead()

    def tick(self, tick: Tick, now: float) -> None:
        known = self.shard.of(KnownPlaybooks)
        if now < self._soonest or not known.is_told or not self.shard.settings.playbooks:
            return
        for name in sorted(name for name, at in self._next.items() if at <= now):
            offered = known.offered[name]
            self._due(offered, known.book(offered), known.heard_at(offered), now)
        self._look_ahead()

    def _due(self, offered: Offered, book: Playbook, heard_at: float, now: float) -> None:
        at = last_due(book.trigger.schedule, max(self.begun[offered.name], heard_at), now)
        under_way = self._under_way(offered.name, service_of(book))
        if under_way is not None or now - at > LATE_MAX_S:
            self.left_out += 1
            self.shard.do(RunLeftOut(b"" if under_way is None else under_way.id, offered.name, at), now)
        elif self.state.open_count < self.shard.settings.max_open:
            self._open(offered, book, at, now)

    def _under_way(self, name: str, service: str) -> Incident | None:
        for identity in self.state.by_label.get(("service", service), ()):
            incident = self.state.incidents[identity]
            if is_scheduled(incident) and incident.is_open:
                mine = self.shard.of(Runs).store.of(identity)
                if name in (
                    *(each.playbook for each in mine.active),
                    *(each.playbook for each in mine.chosen),
                ):
                    return incident
        return None

    # -- what is done --------------------------------------------------------------------------------------

    def _open(self, offered: Offered, book: Playbook, at: float, now: float) -> None:
        service = service_of(book)
        slot = slot_of(TENANT, service)
        identity = incident_id(slot, now, self.shard.epoch, self.shard.seq, f"{offered.name} at {at:.0f}")
        title = f"Scheduled run of {offered.name}"
        self.shard.do(
            IncidentOpened(
                identity, slot, TENANT, service, "", {"service": service}, title, "", SOURCE, {}, {}
            ),
            now,
        )
        incident = self.state.incidents[identity]
        self.shard.do(RunScheduled(identity, offered.name, at), now)
        self.shard.report(Opened(incident), now)
        verdict = Classification(
            identity, QUIET, IncidentType.UNKNOWN, "minor", "its schedule", 1.0, SIGNALS_MAX
        )
        classification.judge(self.shard, verdict, now)
        why = f"its schedule {book.trigger.schedule}"
        chosen = Chosen(offered.name, offered.version, offered.digest, why, offered.mode == "shadow")
        self.shard.do(PlaybooksChosen(identity, incident.severity, [chosen]), now)
        self.shard.of(Runs).look_at(identity)

    def withholds(self, incident: Incident) -> str | None:
        return RUNS_BY_THE_CLOCK if is_quiet(incident) else None

    def _over(self, change: RunOver, now: float) -> None:
        incident, run = change.incident, change.run
        if not is_quiet(incident) or run.parent or not incident.is_open:
            return
        if run.status in (SUCCEEDED, CANCELLED):
            notes = f"the scheduled run of {run.playbook} {run.status}"
            lifecycle.resolve(self.shard, incident, SYSTEM, AUTOMATED, notes, now)
        else:
            self._raise(incident, f"the scheduled run of {run.playbook} {run.status}", now)

    def _paid(self, change: Paid, now: float) -> None:
        """It may be that nothing runs for it."""
        incident = change.incident
        if is_quiet(incident) and incident.is_open:
            mine = self.shard.of(Runs).store.of(incident.id)
            if not mine.runs and not mine.chosen:
                self._raise(incident, "the scheduled run did not begin", now)

    def _moved(self, change: Moved, now: float) -> None:
        if change.reopens and is_quiet(change.incident):
            self._raise(change.incident, "what the scheduled run did has not held", now)

    def _raise(self, incident: Incident, why: str, now: float) -> None:
        classification.rate(self.shard, incident, FAILED, why, now)

    # -- folding -------------------------------------------------------------------------------------------

    def _fold_followed(self, event: SchedulesFollowed, now: float) -> None:
        self.state.checkpoint.touch(BEGUN, 0)
        self.begun = {name: self.begun.get(name, now) for name in event.playbooks}

    def _fold_begun(self, event: RunScheduled | RunLeftOut, _now: float) -> None:
        self.state.checkpoint.touch(BEGUN, 0)
        self.begun[event.playbook] = event.due_at

    def _fold_set_back(self, event: ClockSetBack, _now: float) -> None:
        self.state.checkpoint.touch(BEGUN, 0)
        # What was begun by a clock that was a little ahead is not begun again when its time really comes.
        self.begun = {
            name: at if at - event.after <= LATE_MAX_S else clock.then(at, event)
            for name, at in self.begun.items()
        }

    def _capture(self, _number: int | bytes) -> bytes | None:
        return _encoder.encode(self.begun) if self.begun else None

    def _load(self, _number: int | bytes, record: bytes, _version: int) -> None:
        self.begun = _decoder.decode(record)

    reactions = {PlaybooksKnown: _known, RunOver: _over, Paid: _paid, Moved: _moved}
    follows = {ClockSetBack: _fold_set_back}
    records = (RecordOf(BEGUN, _capture, _load),)
    events = (
        on(SchedulesFollowed, _fold_followed, whose=Whose.SHARD),
        on(RunScheduled, _fold_begun, Description(("Scheduled",), _scheduled_line)),
        on(RunLeftOut, _fold_begun, whose=Whose.SHARD),
    )


def is_scheduled(incident: Incident) -> bool:
    """Whether it was opened for a run by the clock."""
    return incident.is_by_hand and incident.source == SOURCE


def is_quiet(incident: Incident) -> bool:
    """Whether nobody is told of it: its run has not failed, and nobody has given it another severity."""
    return incident.severity is QUIET and is_scheduled(incident)


def service_of(book: Playbook) -> str:
    """The service of such an incident: the only one that the trigger names, else the playbook's name."""
    services = book.trigger.services
    return services[0] if len(services) == 1 else book.name


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, float])
