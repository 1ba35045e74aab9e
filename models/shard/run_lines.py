"""How the events of runs read in a timeline."""

from __future__ import annotations

from models.incidents.lines import SYSTEM, Around, Description, Line, line_of
from models.incidents.notification import rfc3339
from models.playbook.run import id_of
from models.playbook.run_events import (
    ActionAnswered,
    ApprovalAsked,
    ApprovalGiven,
    RunEnded,
    RunHeld,
    RunNotStarted,
    RunStarted,
    StepEnded,
    TaskPlanned,
)
from models.playbook.work import FAILED, SKIPPED, SUCCEEDED

#: Behind the words about a run that decides everything and does nothing.
SHADOW = " (shadow: does nothing)"


def by(playbook: str) -> str:
    """Who does what a playbook does; without one it is us."""
    return f"playbook {playbook}" if playbook else SYSTEM


def _started(event: RunStarted, _around: Around) -> Line:
    text = f"{event.playbook} {event.version}: {event.why}" + (SHADOW if event.dry else "")
    if event.refused:
        text += f" (changes nothing: {event.refused})"
    return line_of(
        "PlaybookStarted",
        event.by,
        text,
        run=id_of(event.run),
        playbook=event.playbook,
        version=event.version,
    )


def _not_started(event: RunNotStarted, _around: Around) -> Line:
    text = f"{event.playbook}: {event.why}" if event.playbook else event.why
    return line_of("PlaybookNotStarted", SYSTEM, text, event.why, playbook=event.playbook)


def _answered(event: ActionAnswered, _around: Around) -> Line | None:
    if not event.action:
        return None
    what = f"{'would do ' if event.dry else ''}{'rollback: ' if event.undo else ''}{event.action}"
    said = "tried again later" if event.at and event.status == FAILED else event.status
    text = f"{event.step}, {what}: {said}" + (f": {event.detail}" if event.detail else "")
    return line_of(
        "ActionExecuted",
        by(event.playbook),
        text,
        run=id_of(event.run),
        step=event.step,
        action=event.action,
        status=event.status,
        policy=event.decided,
    )


def _asked(event: ApprovalAsked, _around: Around) -> Line:
    who = " or ".join(event.who) or "anybody who may respond"
    many = f"{event.needed} of {who}" if event.needed > 1 else who
    text = f"{event.step}: {many} until {rfc3339(event.until)}" + (
        f": {event.message}" if event.message else ""
    )
    return line_of(
        "ApprovalAsked",
        by(event.playbook),
        text,
        run=id_of(event.run),
        step=event.step,
        until=rfc3339(event.until),
    )


def _given(event: ApprovalGiven, _around: Around) -> Line:
    kind, word = ("ApprovalDenied", "denied") if event.denied else ("ApprovalGiven", "approved")
    text = f"{event.step} of {event.playbook} {word}" + (f": {event.reason}" if event.reason else "")
    return line_of(kind, event.actor, text, event.reason, run=id_of(event.run), step=event.step)


def _ended(event: StepEnded, _around: Around) -> Line | None:
    if event.status in (SUCCEEDED, SKIPPED):
        return None
    text = event.step + (f": {event.detail}" if event.detail else "")
    return line_of(
        "StepFailed", by(event.playbook), text, event.detail, run=id_of(event.run), step=event.step
    )


def _held(event: RunHeld, _around: Around) -> Line:
    kind = "PlaybookPaused" if event.paused else "PlaybookResumed"
    text = event.playbook + (f": {event.reason}" if event.reason else "")
    return line_of(kind, event.actor, text, event.reason, run=id_of(event.run))


def _completed(event: RunEnded, _around: Around) -> Line:
    text = f"{event.playbook} {event.version}: {event.status}" + (f": {event.detail}" if event.detail else "")
    return line_of(
        "PlaybookCompleted",
        by(event.playbook),
        text,
        event.detail,
        run=id_of(event.run),
        status=event.status,
    )


def _task(event: TaskPlanned, _around: Around) -> Line:
    text = f"{event.text}, due {rfc3339(event.due_at)}" if event.due_at else event.text
    run = id_of(event.run) if event.run else ""
    return line_of("TaskPlanned", by(event.playbook), text, run=run, due_at=rfc3339(event.due_at))


STARTED = Description(("PlaybookStarted",), _started)
NOT_STARTED = Description(("PlaybookNotStarted",), _not_started)
ANSWERED = Description(("ActionExecuted",), _answered)
ASKED = Description(("ApprovalAsked",), _asked)
GIVEN = Description(("ApprovalGiven", "ApprovalDenied"), _given)
STEP_ENDED = Description(("StepFailed",), _ended)
HELD = Description(("PlaybookPaused", "PlaybookResumed"), _held)
COMPLETED = Description(("PlaybookCompleted",), _completed)
TASK = Description(("TaskPlanned",), _task)
