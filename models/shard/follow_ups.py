"""What people are to do when a repair did not help, and after an incident: a run that changed something and failed escalates, what was
urgent is to be reviewed a while after it was resolved, and a task that is due is told of once, in the timeline."""

from __future__ import annotations

import msgspec

from models.incidents.incident import Incident, IncidentState, Severity
from models.incidents.lines import SYSTEM, Around, Description, Line, line_of
from models.incidents.notification import rfc3339
from models.partition.event import Event
from models.playbook.playbook import Playbook
from models.playbook.run import Run
from models.playbook.run_events import TaskPlanned
from models.playbook.walk import ESCALATE
from models.playbook.work import FAILED
from models.shard import clock, run_effects
from models.shard.changes import Moved, Paid, RunOver
from models.shard.component import Component, on
from models.shard.events import ClockSetBack
from models.shard.rechecks import changed_something
from models.shard.runs import Runs

REVIEW = "review: what happened, what helped, what is to change"
#: Incidents that were not that urgent are reviewed if people want to.
REVIEWED = (Severity.P0, Severity.P1)
#: Closed incidents of a shard that wait for their task to be due; of more, the archive has the task, and no line tells of it.
HELD_MAX = 1000
#: Types of actions that call for more help themselves.
_ESCALATING = frozenset(("pagerduty_escalate", "severity_increase"))


class TaskDue(Event, frozen=True):
    """A task (`text`) of an incident is due."""

    incident_id: bytes
    text: str
    due_at: float


def _line(event: TaskDue, _around: Around) -> Line:
    return line_of("TaskDue", SYSTEM, event.text, due_at=rfc3339(event.due_at))


class FollowUps(Component):
    name = "follow-ups"

    def _run_over(self, change: RunOver, now: float) -> None:
        incident, run, book = change.incident, change.run, change.book
        is_of_people = run.dry or bool(run.parent) or not incident.is_open or bool(incident.merged_into)
        if is_of_people or run.status != FAILED or not changed_something(self.shard, incident, run):
            return
        if not escalates_itself(book, run):
            run_effects.escalate(self.shard, incident, run, f"{run.playbook} did not help", now)

    def _moved(self, change: Moved, now: float) -> None:
        incident, after_s = change.incident, self.shard.settings.review_after_s
        if not change.ends or incident.state is not IncidentState.RESOLVED or incident.merged_into:
            return
        # One is enough, whoever planned it.
        if after_s and incident.severity in REVIEWED and not self._dated(incident):
            self.shard.do(TaskPlanned(incident.id, b"", REVIEW, now + after_s), now)

    def _dated(self, incident: Incident) -> bool:
        return any(each.due_at for each in self.shard.of(Runs).store.of(incident.id).tasks)

    def next_at(self, incident: Incident) -> float:
        store = self.shard.of(Runs).store
        if incident.id not in store.planned:
            return 0.0
        return min(each.due_at for each in store.of(incident.id).tasks if each.is_to_be_told)

    def due(self, incident: Incident, now: float) -> None:
        tasks = self.shard.of(Runs).store.of(incident.id).tasks
        due = {(each.text, each.due_at): None for each in tasks if each.is_to_be_told and each.due_at <= now}
        for text, due_at in due:
            self.shard.do(TaskDue(incident.id, text, due_at), now)
        self.shard.report(Paid(incident), now)

    def owes(self, incident: Incident) -> bool:
        planned = self.shard.of(Runs).store.planned
        return incident.id in planned and len(planned) <= HELD_MAX

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        store = self.shard.of(Runs).store
        if incident.id not in store.planned or incident.resolved_at <= event.after:
            return
        mine = store.changing(incident.id)
        mine.tasks = [
            msgspec.structs.replace(each, due_at=clock.due(each.due_at, event)) for each in mine.tasks
        ]

    def _fold_due(self, event: TaskDue, now: float) -> None:
        self.state.changing(event.incident_id)
        store = self.shard.of(Runs).store
        mine = store.changing(event.incident_id)
        mine.tasks = [
            msgspec.structs.replace(each, told_at=now)
            if (each.text, each.due_at) == (event.text, event.due_at)
            else each
            for each in mine.tasks
        ]
        store.plans(event.incident_id)

    reactions = {RunOver: _run_over, Moved: _moved}
    events = (on(TaskDue, _fold_due, Description(("TaskDue",), _line)),)


def escalates_itself(book: Playbook, run: Run) -> bool:
    """Whether a playbook says by itself what is done when it does not help."""
    return any(each.then == ESCALATE for each in run.steps.values()) or any(
        step.type == "escalation"
        or step.id == ESCALATE
        or any(action.type in _ESCALATING or action.on_failure == ESCALATE for action in step.actions)
        for step in (*book.steps, *book.final)
    )
