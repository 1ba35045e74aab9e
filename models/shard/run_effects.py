"""What runs do to their incident, by the moves and events that there are: severity, assignees, resolution, comments."""

from __future__ import annotations

import msgspec

from models.errors import Refused
from models.incidents.incident import AUTOMATED, Incident, IncidentState, Override, Severity
from models.incidents.verbs import TEXT_MAX, Assign, Comment
from models.playbook.run import Run
from models.playbook.run_events import StepEnded, TaskPlanned
from models.playbook.walk import ESCALATE, RESOLVE
from models.playbook.work import IncidentEffect
from models.shard import attention, clock, lifecycle, people
from models.shard.changes import Escalated
from models.shard.core import Core
from models.shard.events import ClockSetBack
from models.shard.run_lines import by

_REMEDIABLE = (IncidentState.DETECTED, IncidentState.TRIAGED, IncidentState.INVESTIGATING)
#: Characters of what a task is.
TASK_MAX = 500


def remediating(shard: Core, incident: Incident, run: Run, now: float) -> None:
    """A run is about to change something."""
    if incident.state in _REMEDIABLE:
        actor = by(run.playbook)
        lifecycle.move(shard, incident, IncidentState.REMEDIATING, actor, f"{actor} begins a repair", now)


def follow(shard: Core, incident: Incident, run: Run, event: StepEnded, now: float) -> None:
    """What a step said is to become of its incident."""
    if run.dry:
        return
    if event.then == ESCALATE:
        escalate(shard, incident, run, f"{event.step} failed", now)
    elif event.then == RESOLVE:
        apply(shard, incident, run, IncidentEffect("resolve", f"{event.step}: {event.detail}"), now)


def escalate(shard: Core, incident: Incident, run: Run, why: str, now: float) -> None:
    """Severity one up, and more people told."""
    worse = Severity(max(0, incident.severity - 1))
    apply(shard, incident, run, IncidentEffect("severity", worse.name), now, why)
    shard.report(Escalated(incident), now)


def apply(
    shard: Core, incident: Incident, run: Run, effect: IncidentEffect, now: float, reason: str = ""
) -> None:
    """Do what an action stands for. What can't be done, because the incident is over or full, is left out: the action itself was
    done."""
    actor = by(run.playbook)
    try:
        match effect.what:
            case "severity":
                _severity(shard, incident, actor, effect.value, reason, now)
            case "assign":
                names = [each.strip() for each in effect.value.split(",") if each.strip()]
                attention.assign(shard, incident, Assign(add=names), actor, reason, now)
            case "resolve" if incident.is_open and not incident.merged_into:
                lifecycle.resolve(shard, incident, actor, AUTOMATED, effect.value[:TEXT_MAX], now)
            case "comment":
                people.comment(shard, incident, Comment(effect.value[:TEXT_MAX]), actor, now)
            case "link":
                people.comment(shard, incident, Comment(f"link: {effect.value}"[:TEXT_MAX]), actor, now)
            case "task":
                text = effect.value[:TASK_MAX]
                shard.do(TaskPlanned(incident.id, run.id, text, effect.due_at, run.playbook), now)
            case _:
                pass
    except Refused:
        return


def _severity(shard: Core, incident: Incident, actor: str, value: str, reason: str, now: float) -> None:
    if value not in Severity.__members__ or not incident.is_open:
        return
    wanted = Severity[value]
    said = Override() if incident.handling is None else incident.handling.override
    if incident.severity != wanted:
        people.override(shard, incident, msgspec.structs.replace(said, severity=wanted), actor, reason, now)


def set_back(run: Run, event: ClockSetBack) -> None:
    """The clock had been ahead: correct the times of a run."""
    run.started_at = clock.then(run.started_at, event)
    run.ended_at = clock.then(run.ended_at, event)
    run.until = clock.due(run.until, event) if run.until > event.before else run.until
    for step in run.steps.values():
        step.began_at, step.ended_at = clock.then(step.began_at, event), clock.then(step.ended_at, event)
        for deed in (*step.deeds.values(), *step.undos.values()):
            if deed.asked_at > event.after or deed.at <= event.before:
                deed.at = clock.due(deed.at, event)
            deed.asked_at = clock.then(deed.asked_at, event)
