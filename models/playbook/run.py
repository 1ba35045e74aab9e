"""A run of a playbook: what it is at, and how its events change that. Folding needs no playbook: all that a fold needs stands in the
event. Kept by models/shard/runs.py; walk.py says what comes next.

    run:   running <-> paused    -> ending (its `finally`) -> succeeded | failed | aborted | cancelled
    step:  entering -> running -> (undoing) -> succeeded | failed | skipped
    deed:  asked -> again | wait | approval -> asked ... -> succeeded | failed | skipped
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any
from uuid import UUID

import msgspec

from models.partition.event import Event
from models.playbook.run_events import (
    CHILD,
    ENTRY,
    GATE,
    ActionAnswered,
    ActionAsked,
    ApprovalAsked,
    ApprovalGiven,
    RoundBegan,
    RunEnded,
    RunEnding,
    RunHeld,
    RunStarted,
    StepBegan,
    StepEnded,
    UndoBegan,
)
from models.playbook.work import APPROVAL, FAILED, SKIPPED, SUCCEEDED, WAIT

RUNNING, PAUSED = "running", "paused"
#: How a run may end, beside SUCCEEDED and FAILED.
ABORTED, CANCELLED = "aborted", "cancelled"
ENTERING, UNDOING = "entering", "undoing"
#: Of a deed: the responder was asked; it is tried again later.
ASKED, AGAIN = "asked", "again"
OVER = frozenset({SUCCEEDED, FAILED, SKIPPED})
#: Bytes of the outputs that a run keeps, as JSON: its later steps get all of them with each action.
RUN_OUTPUTS_MAX = 64 * 1024
#: Characters of a detail that are kept: a line of a timeline.
DETAIL_MAX = 1000


class Deed(msgspec.Struct, array_like=True):
    """One thing that is done: an action, or a place of a step beside them. `at`: when it is tried again, its wait is over, or
    nobody may approve it any more. `failures` counts tries that failed; `reached`: the last one may have had an effect. `digest`: what was
    asked to be approved."""

    status: str = ""
    attempt: int = 0
    at: float = 0.0
    asked_at: float = 0.0
    failures: int = 0
    detail: str = ""
    who: list[str] = []
    needed: int = 1
    message: str = ""
    approved_by: list[str] = []
    denied_by: str = ""
    decided: str = ""
    is_final: bool = False
    action: str = ""
    reached: bool = False
    digest: str = ""

    @property
    def is_over(self) -> bool:
        return self.status in OVER


class StepRun(msgspec.Struct, array_like=True):
    """A step that was begun. `deeds` of the present round by their number; `did`, in their order, what may have had an effect, as
    (round, number); `undos` by the place in `did`."""

    status: str
    turn: int = 0
    began_at: float = 0.0
    ended_at: float = 0.0
    detail: str = ""
    blocked: bool = False
    items: list[Any] | None = None
    round: int = 0
    deeds: dict[int, Deed] = {}
    did: list[tuple[int, int]] = []
    undos: dict[int, Deed] = {}
    outputs: dict[str, Any] = {}
    jump: str = ""
    then: str = ""

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    @property
    def is_under_way(self) -> bool:
        return not self.is_over


class Run(msgspec.Struct, array_like=True):
    """One run. `until`: by then it is over, whatever it is at. `ends_as`: it is ending, and as what. `jump`: the step that it goes
    on with. `turns` counts the steps it began. `changed`: it did something that changes the world. `refused`: why it may not."""

    id: bytes
    incident_id: bytes
    number: int
    playbook: str
    version: str
    digest: str
    by: str
    why: str
    started_at: float
    until: float
    dry: bool = False
    parent: bytes = b""
    parent_step: str = ""
    status: str = RUNNING
    ends_as: str = ""
    detail: str = ""
    ended_at: float = 0.0
    steps: dict[str, StepRun] = {}
    jump: str = ""
    turns: int = 0
    changed: bool = False
    outputs_bytes: int = 0
    book: str = ""
    refused: str = ""

    @property
    def is_over(self) -> bool:
        return self.ended_at > 0

    @property
    def waits_for(self) -> list[tuple[str, int, Deed]]:
        """The approvals that it waits for: step, number, deed."""
        return [
            (name, number, deed)
            for name, step in self.steps.items()
            if step.is_under_way
            for number, deed in step.deeds.items()
            if deed.status == APPROVAL
        ]


def id_of(run: bytes) -> str:
    """A run's id as people write it."""
    return str(UUID(bytes=run))


def question_of(run: Run, step: str, number: int, deed: Deed) -> str:
    """What an approval asks, and of whom, as a digest: whoever answers says by it which question they read."""
    asked = (run.id, step, number, deed.asked_at, deed.who, deed.needed, deed.message, deed.digest)
    return blake2b(msgspec.json.encode(asked), digest_size=8).hexdigest()


def key_of(run: Run, step: StepRun, number: int, attempt: int, undo: bool = False) -> str:
    """The idempotency key of one try: the same whenever it is asked for again. Everything before the last dash is the same for all
    tries of one action."""
    place = f"undo{number}" if undo else "enter" if number == ENTRY else str(number)
    return f"{id_of(run.id)}.{step.turn}.{step.round}.{place}-{attempt}"


def begun(event: RunStarted, now: float) -> Run:
    return Run(
        event.run,
        event.incident_id,
        event.number,
        event.playbook,
        event.version,
        event.digest,
        event.by,
        event.why,
        now,
        event.until,
        event.dry,
        event.parent,
        event.parent_step,
        book=event.book,
        refused=event.refused,
    )


def fold(run: Run, event: Event, now: float) -> None:
    """Change a run by one of its events."""
    _FOLDS[type(event)](run, event, now)


def child_began(run: Run, event: RunStarted, now: float) -> None:
    """The run of a sub-playbook began as a step of this one."""
    run.steps[event.parent_step].deeds[CHILD] = Deed(ASKED, asked_at=now)


def child_ended(run: Run, child: Run) -> None:
    """It is over."""
    step = run.steps.get(child.parent_step)
    if step is not None and CHILD in step.deeds:
        step.deeds[CHILD].status = SUCCEEDED if child.status == SUCCEEDED else FAILED
        step.deeds[CHILD].detail = f"{child.playbook} {child.status}" + (
            f": {child.detail}" if child.detail else ""
        )


def _step_began(run: Run, event: StepBegan, now: float) -> None:
    for name in event.anew:
        run.steps.pop(name, None)
    for name in event.skipped:
        run.steps[name] = StepRun(SKIPPED, ended_at=now, detail="jumped over")
    run.steps.pop(event.step, None)
    run.steps[event.step] = StepRun(ENTERING, event.turn, now)
    run.turns = event.turn
    run.jump = ""


def _round_began(run: Run, event: RoundBegan, now: float) -> None:
    step = run.steps[event.step]
    step.round = event.round
    step.deeds = {number: deed for number, deed in step.deeds.items() if number in (ENTRY, GATE)}


def _deed(run: Run, event: ActionAsked | ActionAnswered) -> tuple[StepRun, Deed]:
    step = run.steps[event.step]
    deeds = step.undos if event.undo else step.deeds
    return step, deeds.setdefault(event.number, Deed())


def _asked(run: Run, event: ActionAsked, now: float) -> None:
    step, deed = _deed(run, event)
    deed.status, deed.attempt, deed.asked_at, deed.at = ASKED, event.attempt, now, 0.0
    run.changed = run.changed or event.changes
    if event.number >= 0 and not event.undo:
        step.status = RUNNING


def _answered(run: Run, event: ActionAnswered, now: float) -> None:
    step, deed = _deed(run, event)
    deed.detail, deed.at = event.detail[:DETAIL_MAX], event.at
    deed.decided = event.decided or deed.decided
    deed.is_final, deed.action = event.final, event.action or deed.action
    deed.failures += event.status == FAILED
    deed.reached = event.reached
    deed.status = AGAIN if event.at and event.status == FAILED else event.status
    if event.items is not None:
        step.items = list(event.items)
    if event.number == ENTRY:
        step.status = RUNNING
    elif (
        event.number >= 0 and not event.undo and not event.at and (event.status == SUCCEEDED or event.reached)
    ):
        step.did.append((step.round, event.number))
    if event.outputs:
        step.outputs = {**step.outputs, **event.outputs}
        run.outputs_bytes += len(msgspec.json.encode(event.outputs))


def _approval_asked(run: Run, event: ApprovalAsked, now: float) -> None:
    step = run.steps[event.step]
    deed = step.deeds.setdefault(event.number, Deed())
    deed.status, deed.at, deed.asked_at = APPROVAL, event.until, now
    deed.who, deed.needed, deed.message = list(event.who), event.needed, event.message
    deed.approved_by, deed.denied_by, deed.digest = [], "", event.digest


def _approval_given(run: Run, event: ApprovalGiven, now: float) -> None:
    deed = run.steps[event.step].deeds[event.number]
    if event.denied:
        deed.denied_by = event.actor
    elif event.actor not in deed.approved_by:
        deed.approved_by = [*deed.approved_by, event.actor]


def _undo_began(run: Run, event: UndoBegan, now: float) -> None:
    step = run.steps[event.step]
    step.status, step.detail = UNDOING, event.detail[:DETAIL_MAX]
    step.jump, step.then = event.jump, event.then


def _step_ended(run: Run, event: StepEnded, now: float) -> None:
    step = run.steps.setdefault(event.step, StepRun(event.status))
    step.status, step.detail, step.blocked = event.status, event.detail[:DETAIL_MAX], event.blocked
    step.ended_at, step.then = now, event.then
    run.jump = event.jump or run.jump


def _held(run: Run, event: RunHeld, now: float) -> None:
    run.status = PAUSED if event.paused else RUNNING


def _ending(run: Run, event: RunEnding, now: float) -> None:
    run.ends_as, run.detail, run.until, run.jump = event.status, event.detail[:DETAIL_MAX], event.until, ""
    run.status = RUNNING


def _ended(run: Run, event: RunEnded, now: float) -> None:
    run.status, run.ended_at = event.status, now
    run.detail = event.detail[:DETAIL_MAX]


_FOLDS: dict[type[Event], Callable[[Run, Any, float], None]] = {
    StepBegan: _step_began,
    RoundBegan: _round_began,
    ActionAsked: _asked,
    ActionAnswered: _answered,
    ApprovalAsked: _approval_asked,
    ApprovalGiven: _approval_given,
    UndoBegan: _undo_began,
    StepEnded: _step_ended,
    RunHeld: _held,
    RunEnding: _ending,
    RunEnded: _ended,
}

__all__ = ["WAIT", "Deed", "Run", "StepRun", "begun", "fold", "id_of", "key_of", "question_of"]
