"""How a run would go: `simulate` walks a playbook with the outcomes that somebody gives, `rehearse` says what each step would do for an
incident. Nothing is done, nobody is asked, no time passes. Used by `llm-im playbooks simulate|dry-run`.

The walker is the one of real runs (models/playbook/walk.py), so what is shown is what happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.errors import Malformed, Refused
from models.partition.event import Event
from models.playbook.mistakes import near
from models.playbook.playbook import PlannedAction, Playbook, Step
from models.playbook.run import Run, begun, child_began, child_ended, fold
from models.playbook.run_events import (
    CHILD,
    ENTRY,
    ActionAnswered,
    ActionAsked,
    ApprovalAsked,
    ApprovalGiven,
    RoundBegan,
    RunEnded,
    RunEnding,
    RunStarted,
    StepBegan,
    StepEnded,
    UndoBegan,
)
from models.playbook.template import evaluate, holds, render_value
from models.playbook.walk import ChildWanted, answered, next_at, next_move, questions, work_of
from models.playbook.work import FAILED, SKIPPED, SUCCEEDED, WAIT, Context, Do, Done, Enter, Work

#: What somebody may say of an approval, or of a sub-playbook.
DENY, EXPIRE = "deny", "expire"
#: Moves of one simulation: a hundred steps with fifty actions, each tried a few times.
_MOVES_MAX = 50_000
_FOREVER = 1e12
_TICK_S = 1e-6


@dataclass(frozen=True, slots=True)
class Script:
    """What happens in a simulation. `fails` holds "step.action" and "step.action:N" (N counts from 1); a step alone for an approval
    that is denied or a sub-playbook that fails. `expires`: approvals that nobody answers. `incident` is what conditions see; without
    one, those that ask about it hold."""

    fails: frozenset[str] = frozenset()
    expires: frozenset[str] = frozenset()
    incident: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happens: `step` is "" for the run. `what` is for people; `status` for programs."""

    step: str
    what: str
    status: str = ""
    params: Any = None


def simulate(book: Playbook, script: Script) -> list[Line]:
    """The path that a run takes. Raises Malformed when the script names a step or an action that the playbook does not have."""
    _check(book, script)
    return list(_Simulation(book, script).lines())


def rehearse(book: Playbook, script: Script) -> list[Line]:
    """What each step would do for the incident of the script: its condition, and the parameters of its actions with their templates
    filled in, as far as they can be without what other steps find out. Raises Malformed as simulate() does."""
    _check(book, script)
    return list(_Simulation(book, script, shows_params=True).lines())


def _check(book: Playbook, script: Script) -> None:
    known: list[str] = []
    for step in (*book.steps, *book.final):
        known.append(step.id)
        for number, action in enumerate(step.actions, 1):
            known += [f"{step.id}.{action.type}", f"{step.id}.{action.type}:{number}"]
    for name in sorted(script.fails | script.expires):
        if name not in known:
            hint = near(name, known, all_of=False)
            raise Malformed(
                f"{name}: there is no such step or action in {book.name!r}{hint}; STEP.ACTION was expected"
            )


@dataclass(slots=True)
class _Simulation:
    book: Playbook
    script: Script
    shows_params: bool = False
    now: float = 0.0
    run: Run = field(init=False)

    def lines(self) -> Iterator[Line]:
        book = self.book
        started = RunStarted(
            b"\0" * 16, b"\0" * 16, 1, book.name, book.version, book.digest, "simulation", "simulation", _FOREVER
        )  # fmt: skip
        self.run = begun(started, 0.0)
        for _ in range(_MOVES_MAX):
            self.now += _TICK_S  # what is asked first is answered first
            move = next_move(book, self.run, self.now)
            if move is not None:
                yield from self._made(move)
                if isinstance(move, RunEnded):
                    return
            elif not (yield from self._answer()):
                self.now = max(next_at(book, self.run), self.now)
        yield Line("", f"it did not end within {_MOVES_MAX:,} moves", FAILED)

    def _made(self, move: Event | ChildWanted) -> Iterator[Line]:
        """Folds a move, and says it."""
        if isinstance(move, ChildWanted):
            yield from self._child(move)
            return
        fold(self.run, move, self.now)
        yield from _said(self.book, move)

    def _answer(self) -> Iterator[Line] | Any:
        """Answers one question or approval. Returns whether there was one."""
        asked = min(questions(self.book, self.run), key=lambda each: each[3].asked_at, default=None)
        if asked is not None:
            step, number, undo, _deed = asked
            work = work_of(self.book, self.run, step, number, undo, dict(self.script.incident or {}), False)
            done, more = self._done(work, step, number)
            move = answered(self.book, self.run, step, number, undo, done, self.now)
            fold(self.run, move, self.now)
            if more is not None:
                yield more
            if more is None or done.status != SUCCEEDED:
                yield from _said(self.book, move)
            return True
        for name, number, deed in self.run.waits_for:
            if name in self.script.expires:
                self.now = max(deed.at, self.now)
                return False
            denied = name in self.script.fails
            given = ApprovalGiven(
                self.run.incident_id, self.run.id, name, number, f"person-{len(deed.approved_by) + 1}", denied
            )
            fold(self.run, given, self.now)
            return True
        return False

    def _done(self, work: Work, step: Step, number: int) -> tuple[Done, Line | None]:
        match work:
            case Enter():
                return self._entered(work)
            case Do(action=action, context=context, undo=undo):
                line = self._params(step, action, context) if self.shows_params else None
                key = f"{step.id}.{action.type}"
                if not undo and (key in self.script.fails or f"{key}:{number + 1}" in self.script.fails):
                    return Done(FAILED, "as told"), line
                # Nobody waits here; a real wait ends the same way.
                return Done(SUCCEEDED), line
        return Done(SUCCEEDED), None

    def _entered(self, work: Enter) -> tuple[Done, Line | None]:
        seen = _seen(work.context)
        if work.condition:
            try:
                if not holds(work.condition, seen):
                    return Done(SKIPPED, f"its condition does not hold: {work.condition}"), None
            except Refused as error:
                if self.script.incident is not None:
                    return Done(FAILED, str(error), final=True), None
        if not work.for_each:
            return Done(SUCCEEDED), None
        try:
            items = evaluate(work.for_each, seen)
        except Refused as error:
            if self.script.incident is not None:
                return Done(FAILED, str(error), final=True), None
            items = ["an item"]
        if not isinstance(items, list | tuple):
            return Done(FAILED, "for_each: a list was expected", final=True), None
        return Done(SUCCEEDED, items=tuple(items)), None

    def _params(self, step: Step, action: PlannedAction, context: Context) -> Line:
        """What an action would be done with. What depends on the outputs of other steps is not known yet."""
        seen = _seen(context)
        filled: dict[str, Any] = {}
        wrong: list[str] = []
        for name, value in action.params.items():
            try:
                filled[name] = render_value(value, seen)
            except Refused as error:
                filled[name] = value
                wrong.append(f"{name}: {error}")
        what = f"{action.type}: {'; '.join(wrong)}" if wrong else action.type
        return Line(step.id, what, "unknown" if wrong else "rendered", filled)

    def _child(self, wanted: ChildWanted) -> Iterator[Line]:
        parent = self.run
        status = FAILED if wanted.step in self.script.fails else SUCCEEDED
        started = RunStarted(
            parent.incident_id, b"\1" * 16, 2, wanted.playbook, "", "", "simulation", "", _FOREVER, False, parent.id, wanted.step
        )  # fmt: skip
        child_began(parent, started, self.now)
        child = begun(started, self.now)
        child.status = status
        child_ended(parent, child)
        yield Line(wanted.step, f"runs playbook {wanted.playbook!r}", status)


def _seen(context: Context) -> dict[str, Any]:
    return {
        "incident": context.incident,
        "variables": context.variables,
        "steps": context.steps,
        "run": context.run,
        "item": context.item,
        "index": context.index,
    }


def _said(book: Playbook, move: Event) -> Iterator[Line]:
    """A move in words; nothing for what only prepares another."""
    match move:
        case StepBegan(step=step, skipped=skipped):
            for each in skipped:
                yield Line(each, "is jumped over", SKIPPED)
            yield Line(step, "begins", "began")
        case RoundBegan(step=step, round=round_):
            yield Line(step, f"goes on with item {round_ + 1}", "began")
        case ActionAsked(step=step, attempt=attempt) if attempt:
            yield Line(step, f"tries again (try {attempt + 1})", "again")
        case ActionAnswered(step=step, number=number, status=status, detail=detail) if (
            number >= 0 and status != WAIT
        ):
            undo = "rollback " if move.undo else ""
            yield Line(step, f"{undo}{move.action} {status}" + (f": {detail}" if detail else ""), status)
        case ApprovalAsked(step=step, needed=needed, who=who):
            yield Line(
                step, f"asks for {needed} of {', '.join(who) or 'those who may respond'} to approve", "asked"
            )
        case ActionAnswered(step=step, number=number, status=status, detail=detail) if (
            number not in (ENTRY, CHILD) and detail
        ):
            yield Line(step, detail, status)
        case UndoBegan(step=step, detail=detail):
            yield Line(step, f"failed, and is rolled back: {detail}", FAILED)
        case StepEnded(step=step, status=status, detail=detail, jump=jump, then=then):
            goes = f", goes on with {jump}" if jump else f", then: {then}" if then else ""
            yield Line(step, status + goes + (f" ({detail})" if detail else ""), status)
        case RunEnding(status=status, detail=detail) if book.final:
            yield Line("", f"ends as {status}" + (f" ({detail})" if detail else "") + "; finally:", status)
        case RunEnded(status=status, detail=detail):
            yield Line("", status + (f": {detail}" if detail else ""), status)
