"""Response targets: how long it may take until an incident is acknowledged, and until it is resolved. The timeline
reports when half of that time and all of it have passed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from models.errors import Broken
from models.incidents.incident import Incident, TimelineEntry
from models.incidents.lines import SYSTEM, Around, Description, Line, line_of
from models.partition.event import Event
from models.shard.changes import Overdue
from models.shard.component import Component, on
from models.shard.events import ClockSetBack
from models.shard.settings import ShardSettings


class TargetPassed(Event, frozen=True):
    """Half (`percent` 50) or all (100) of the time passed that a response target allows. `target`: acknowledge, resolve."""

    incident_id: bytes
    target: str
    percent: int
    due_at: float


ACKNOWLEDGE, RESOLVE = "acknowledge", "resolve"
#: Which bit of `targets_told` says that a share (percent) of a target passed.
_BITS = {(ACKNOWLEDGE, 50): 1, (ACKNOWLEDGE, 100): 2, (RESOLVE, 50): 4, (RESOLVE, 100): 8}
_HALF = "50 %"


def _line(event: TargetPassed, around: Around) -> Line:
    text = f"time to {event.target} has passed"
    if event.percent < 100:
        left_s = math.ceil(max(0.0, event.due_at - around.now))
        text = f"{event.percent} % of the {text}, {left_s} s are left"
    return line_of("TargetPassed", SYSTEM, text, target=event.target, percent=str(event.percent))


class Targets(Component):
    name = "targets"

    def next_at(self, incident: Incident) -> float:
        if not incident.counts_as_open:
            return 0.0
        handling = incident.handling
        answered = handling is not None and bool(handling.answered_at)
        return _next_target(incident, self.shard.settings, answered=answered)

    def due(self, incident: Incident, now: float) -> None:
        for at, target, percent, due_at in [*_targets(incident, self.shard.settings)]:
            if at <= now:
                self.shard.do(TargetPassed(incident.id, target, percent, due_at), now)
                if (target, percent) == (ACKNOWLEDGE, 100):
                    self.shard.report(Overdue(incident), now)

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        for line in incident.timeline:
            if line.at > event.after:
                # A target that passed only by the wrong time is reported when it really passes.
                incident.targets_told &= ~_told_by(line)

    def _fold(self, event: TargetPassed, now: float) -> None:
        # Nothing that people edit changes, so the incident's version stays.
        incident = self.state.changing(event.incident_id)
        bit = _BITS.get((event.target, event.percent))
        if bit is None:
            raise Broken(f"there is no target {event.target} {event.percent} %")
        incident.targets_told |= bit

    events = (on(TargetPassed, _fold, Description(("TargetPassed",), _line)),)


def has_passed(incident: Incident, target: str) -> bool:
    """Whether all of the time that a target allows has passed since the incident opened, and that was told."""
    return bool(incident.targets_told & _BITS[target, 100])


def acknowledge_due(incident: Incident, settings: ShardSettings) -> float:
    """When somebody must have acknowledged it or been assigned, in seconds since the epoch; 0 if nobody need: it is
    answered, over, a child of another, or its severity has no target."""
    handling = incident.handling
    within_s = settings.acknowledge_within_s[incident.severity]
    if not within_s or not incident.counts_as_open or (handling is not None and handling.answered_at):
        return 0.0
    return (incident.opened_at or incident.created_at) + within_s


def resolve_due(incident: Incident, settings: ShardSettings) -> float:
    """When it must be resolved; 0 if it need not: it is over, a child of another, or its severity has no target."""
    within_s = settings.resolve_within_s[incident.severity]
    if not within_s or not incident.counts_as_open:
        return 0.0
    return (incident.opened_at or incident.created_at) + within_s


def _told_by(line: TimelineEntry) -> int:
    """The bits of `targets_told` that a line of a timeline stands for."""
    if line.kind != "TargetPassed":
        return 0
    return _BITS[line.details["target"], 50 if line.text.startswith(_HALF) else 100]


def _next_target(incident: Incident, settings: ShardSettings, *, answered: bool) -> float:
    """The first time of _targets(), 0 when there is none."""
    told, begun = incident.targets_told, incident.opened_at or incident.created_at
    acknowledge_s = 0.0 if answered or told & 2 else settings.acknowledge_within_s[incident.severity]
    resolve_s = 0.0 if told & 8 else settings.resolve_within_s[incident.severity]
    if acknowledge_s and not told & 1:
        acknowledge_s /= 2
    if resolve_s and not told & 4:
        resolve_s /= 2
    if acknowledge_s and resolve_s:
        return begun + min(acknowledge_s, resolve_s)
    return begun + (acknowledge_s or resolve_s) if acknowledge_s or resolve_s else 0.0


def _targets(incident: Incident, settings: ShardSettings) -> Iterator[tuple[float, str, int, float]]:
    """What was not yet reported about the targets: when to report it, the target, the share, and when all of it is
    due."""
    begun = incident.opened_at or incident.created_at
    for target, due_at in (
        (ACKNOWLEDGE, acknowledge_due(incident, settings)),
        (RESOLVE, resolve_due(incident, settings)),
    ):
        if due_at:
            for percent in (50, 100):
                if not incident.targets_told & _BITS[target, percent]:
                    yield begun + (due_at - begun) * percent / 100, target, percent, due_at
