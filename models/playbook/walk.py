"""What comes next in a run: the rules of steps, actions, jumps, rollback and the end, in one place. Used by the runs of shards, and by
`llm-im playbooks simulate`.

`Progress` is what is known of a run, plain data. `Walk.moves(progress)` says what is to happen now, from nothing but the playbook and
the progress. Whoever drives the run records each move as begun (`record`), carries it out, and records the outcome (`Entered`,
`Acted`, `Decided`, `Undone`); End and Over are outcomes themselves. Then it asks again, until there are no moves: the run waits for an
outcome, or is over. Retries, timers and pauses are the driver's: an action is Acted once, when no further try will be made.

The rules in words: docs/use/playbooks.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from models.playbook.playbook import (
    DONE,
    ENDINGS,
    FAIL,
    NEXT,
    NOTIFICATION,
    ROLLBACK,
    SKIP_NEXT,
    SOFT_TYPES,
    PlannedAction,
    Playbook,
    Step,
)  # fmt: skip

#: Where a step is. What conditions compare `steps.ID.status` with.
WAITING, ENTERING, RUNNING = "waiting", "entering", "running"
#: How it ended. SKIPPED: its condition did not hold, or it was passed over. BLOCKED: one that it needs failed.
SUCCESS, FAILED, SKIPPED, BLOCKED, CANCELLED = "success", "failed", "skipped", "blocked", "cancelled"
OVER = frozenset((SUCCESS, FAILED, SKIPPED, BLOCKED, CANCELLED))
#: Why a run was stopped: an action said so, or a person.
ABORTED = "aborted"
#: Turns of one `for_each`.
TURNS_MAX = 100


class Act(msgspec.Struct, array_like=True):
    """One action of a step, in one turn of its loop (`turn` is 0 without one). `ok` is None while it is under way. `reached`: it failed,
    and may have had its effect all the same. `undone`: None before its rollback, then whether that is over."""

    turn: int
    number: int
    ok: bool | None = None
    reached: bool = False
    undone: bool | None = None


class StepProgress(msgspec.Struct, array_like=True):
    """One step. `turns` is how often its actions are done; `acts` in the order in which they were begun. `goto` is where the run went
    on from it. `asked`: people were asked, or its sub-playbook begun; `agreed` is the answer."""

    status: str = WAITING
    turns: int = 1
    acts: list[Act] = []
    goto: str = ""
    why: str = ""
    asked: bool = False
    agreed: bool | None = None
    expired: bool = False


class Progress(msgspec.Struct, array_like=True):
    """A run as far as it went. `done` holds what had, or may have had, an effect, in that order: (step, turn, number). `stopped` is
    ABORTED, ROLLBACK or CANCELLED, "" while it goes on. `status` is "" until the run is over."""

    steps: dict[str, StepProgress] = {}
    done: list[tuple[str, int, int]] = []
    stopped: str = ""
    status: str = ""

    def at(self, step: str) -> StepProgress:
        """Where a step is. One that nothing was recorded of is not kept."""
        return self.steps.get(step) or StepProgress()

    def status_of(self, step: str) -> str:
        return self.at(step).status


class Enter(msgspec.Struct, frozen=True, tag=True):
    """Find out whether the step is to be done, and how often: Entered, or End with SKIPPED or FAILED. One without `condition` and
    `for_each` is Entered at once."""

    step: str


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Do this action: Acted."""

    step: str
    turn: int
    number: int


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Ask people: Decided."""

    step: str


class Call(msgspec.Struct, frozen=True, tag=True):
    """Run the step's sub-playbook: Decided."""

    step: str


class Undo(msgspec.Struct, frozen=True, tag=True):
    """Do the rollback of this action: Undone."""

    step: str
    turn: int
    number: int


class End(msgspec.Struct, frozen=True, tag=True):
    """The step is over. `goto` is a step, or ABORT or ROLLBACK."""

    step: str
    status: str
    why: str = ""
    goto: str = ""


class Over(msgspec.Struct, frozen=True, tag=True):
    """The run is over: SUCCESS, FAILED, ABORTED or CANCELLED."""

    status: str


class Entered(msgspec.Struct, frozen=True, tag=True):
    """The step is to be done, its actions `turns` times."""

    step: str
    turns: int = 1


class Acted(msgspec.Struct, frozen=True, tag=True):
    """What became of an action when no further try will be made. One that was skipped by its own rules counts as ok."""

    step: str
    turn: int
    number: int
    ok: bool
    reached: bool = False


class Decided(msgspec.Struct, frozen=True, tag=True):
    """What people said, or how the sub-playbook ended. `expired`: nobody answered in time (`agreed` is then not looked at)."""

    step: str
    agreed: bool
    expired: bool = False


class Undone(msgspec.Struct, frozen=True, tag=True):
    """A rollback is over, whether it succeeded or not."""

    step: str
    turn: int
    number: int


class TimedOut(msgspec.Struct, frozen=True, tag=True):
    """The step took longer than it may: what is under way is waited for, then it fails."""

    step: str


class Stopped(msgspec.Struct, frozen=True, tag=True):
    """A person cancelled the run: what is under way is waited for, nothing is rolled back, `finally` is done."""


Move = Enter | Begin | Ask | Call | Undo | End | Over
Fact = Move | Entered | Acted | Decided | Undone | TimedOut | Stopped


def record(progress: Progress, fact: Fact) -> None:
    """Write down that a move was begun, or what became of one. Plain bookkeeping: all decisions are in `Walk.moves`. Rollbacks of a whole
    run concern steps that are over; anything else about such a step is left out."""
    match fact:
        case Over(status):
            progress.status = status
            return
        case Stopped():
            progress.stopped = progress.stopped or CANCELLED
            return
        case _:
            at = progress.steps.setdefault(fact.step, StepProgress(acts=[]))
            if at.status in OVER and not isinstance(
                fact, Undo | Undone
            ):  # an answer that came after the end of the step
                return
    match fact:
        case Enter():
            at.status = ENTERING
        case Entered(turns=turns):
            at.status, at.turns = RUNNING, turns
        case Begin(turn=turn, number=number):
            at.acts.append(Act(turn, number))
        case Acted(step=step, turn=turn, number=number, ok=ok, reached=reached):
            act = _act(at, turn, number)
            act.ok, act.reached = ok, reached
            if ok or reached:
                progress.done.append((step, turn, number))
        case Ask() | Call():
            at.asked = True
        case Decided(agreed=agreed, expired=expired):
            at.agreed, at.expired = agreed, expired
        case Undo(turn=turn, number=number):
            _act(at, turn, number).undone = False
        case Undone(turn=turn, number=number):
            _act(at, turn, number).undone = True
        case TimedOut():
            at.why = "it took too long"
        case End(status=status, why=why, goto=goto):
            at.status, at.why, at.goto = status, why, goto
            if goto in ENDINGS:
                progress.stopped = progress.stopped or (ROLLBACK if goto == ROLLBACK else ABORTED)


class Walk:
    """The rules, for one playbook. Keeps nothing of any run: safe to share."""

    def __init__(self, playbook: Playbook) -> None:
        self.playbook = playbook
        self.steps = {step.id: step for step in (*playbook.steps, *playbook.final)}
        self._after = {step.id: _after(step.id, playbook.steps) for step in playbook.steps}

    def moves(self, progress: Progress) -> list[Move]:
        """What is to happen now, in order; nothing that was recorded as begun. Empty: the run waits for outcomes, or is over. After
        the moves are recorded there may be more."""
        if progress.status:
            return []
        moves = [move for step in self.playbook.steps for move in self._of(step, progress)]
        if moves or not self._are_over(self.playbook.steps, progress):
            return moves
        if progress.stopped == ROLLBACK and (undo := self._undo(progress, "")) is not None:
            return undo
        moves = [move for step in self.playbook.final for move in self._of(step, progress, final=True)]
        if moves or not self._are_over(self.playbook.final, progress):
            return moves
        return [Over(self._outcome(progress))]

    def action(self, step: str, number: int) -> PlannedAction:
        """The action that Begin or Undo names; for Undo, its `rollback` is what to do."""
        return self.steps[step].actions[number]

    def statuses(self, progress: Progress) -> dict[str, str]:
        """Of each step, by id: what conditions see."""
        return {id: progress.status_of(id) for id in self.steps}

    def _of(self, step: Step, progress: Progress, *, final: bool = False) -> Iterator[Move]:
        at = progress.at(step.id)
        stopped = "" if final else progress.stopped
        if at.status == WAITING:
            yield from self._waiting(step, progress, stopped, final=final)
        elif at.status == ENTERING and stopped:
            yield End(step.id, CANCELLED, f"the run was {_said(stopped)}")
        elif at.status == RUNNING:
            yield from self._running(step, at, progress, stopped)

    def _waiting(self, step: Step, progress: Progress, stopped: str, *, final: bool) -> Iterator[Move]:
        if stopped:
            yield End(step.id, CANCELLED, f"the run was {_said(stopped)}")
            return
        called = any(progress.at(other).goto == step.id for other in step.needs)
        if not called and (by := self._passed_over_by(step, progress)):
            yield End(step.id, SKIPPED, f"{by} went on with {progress.at(by).goto}")
            return
        if not all(self._lets_go_on(need, progress) for need in step.needs):
            return
        if step.handler and not called:
            yield End(step.id, SKIPPED, "no action named it")
            return
        if not (called or final or step.tolerates):
            for need in step.needs:
                status = progress.status_of(need)
                if status in (BLOCKED, CANCELLED) or (
                    status == FAILED and self.steps[need].type not in SOFT_TYPES
                ):
                    yield End(step.id, BLOCKED, f"{need} {'failed' if status == FAILED else f'was {status}'}")
                    return
        yield Enter(step.id)

    def _lets_go_on(self, need: str, progress: Progress) -> bool:
        status = progress.status_of(need)
        return status in OVER or (status == RUNNING and self.steps[need].type == NOTIFICATION)

    def _passed_over_by(self, step: Step, progress: Progress) -> str:
        """The step before this one that went on with another one that does not lead here; "" if none did."""
        for other, at in progress.steps.items():
            target = self.steps.get(at.goto)
            if target is None or step.id not in self._after.get(other, ()):
                continue
            if target.id == step.id or step.id in self._after.get(target.id, ()):
                continue
            if not (target.handler and step.tolerates):
                return other
        return ""

    def _running(self, step: Step, at: StepProgress, progress: Progress, stopped: str) -> Iterator[Move]:
        status, why, goto, begins = self._state(step, at)
        if stopped and not status:
            # What it would do next is not done. It ends as cancelled once what is under way is over.
            status, why, goto, begins = CANCELLED, f"the run was {_said(stopped)}", "", []
        if not status:
            yield from begins
            return
        if any(act.ok is None for act in at.acts):
            return
        if status == FAILED or (status == CANCELLED and stopped != CANCELLED):
            undo = self._undo(progress, step.id)
            if undo is not None:
                yield from undo
                return
        yield End(step.id, status, why, goto)

    def _state(self, step: Step, at: StepProgress) -> tuple[str, str, str, list[Move]]:
        """How the step ends, why, and where the run goes on; or "" and what it begins now."""
        if at.why:  # it took too long
            return FAILED, at.why, "", []
        if step.approval is not None or step.playbook:
            if not at.asked:
                return "", "", "", [Call(step.id) if step.playbook else Ask(step.id)]
            if at.agreed is None:
                return "", "", "", []
            if (refused := _refused(step, at)) is not None:
                return FAILED, *refused, []
        soft, failed, begins, busy = step.type in SOFT_TYPES, "", list[Move](), False
        for turn, numbers in _lanes(step, at.turns):
            result = _follow(step, at, turn, numbers, soft=soft)
            if isinstance(result, End):
                if result.goto or (result.status == FAILED and not soft):
                    return result.status, result.why, result.goto, []
                failed = failed or result.why
                continue
            busy = True
            if result is not None:
                begins.append(result)
            if not step.parallel:
                break
        if busy:
            return "", "", "", begins
        return (FAILED, failed, "", []) if failed else (SUCCESS, "", "", [])

    def _undo(self, progress: Progress, step: str) -> list[Move] | None:
        """The next rollback of a step, or of the whole run: one at a time, the newest first. None: there is nothing left."""
        for name, turn, number in reversed(progress.done):
            if step and name != step:
                continue
            act = _act(progress.steps[name], turn, number)
            if self.action(name, number).rollback is None or act.undone:
                continue
            return [] if act.undone is False else [Undo(name, turn, number)]
        return None

    def _are_over(self, steps: tuple[Step, ...], progress: Progress) -> bool:
        return all(progress.status_of(step.id) in OVER for step in steps)

    def _outcome(self, progress: Progress) -> str:
        if progress.stopped:
            return CANCELLED if progress.stopped == CANCELLED else ABORTED
        failed = any(
            progress.status_of(step.id) == FAILED and step.type not in SOFT_TYPES
            for step in self.playbook.steps
        )
        return FAILED if failed else SUCCESS


def _follow(step: Step, at: StepProgress, turn: int, numbers: range, *, soft: bool) -> End | Begin | None:
    """One turn: how it ended, the action to begin, or None while one is under way. A turn that ended well and goes nowhere has no
    `why`."""
    number, failed = numbers.start, ""
    while number in numbers:
        act = next((act for act in at.acts if (act.turn, act.number) == (turn, number)), None)
        if act is None:
            return Begin(step.id, turn, number)
        if act.ok is None:
            return None
        action = step.actions[number]
        goes = action.on_success if act.ok else action.on_failure
        if goes == NEXT:
            number += 1
        elif goes == SKIP_NEXT:
            number += 2
        elif goes == DONE:
            break
        elif goes == FAIL:
            failed = failed or f"{action.type} failed"
            if not soft:
                break
            number += 1
        else:
            said = "succeeded" if act.ok else "failed"
            return End(step.id, SUCCESS if act.ok else FAILED, f"{action.type} {said}", goes)
    return End(step.id, FAILED if failed else SUCCESS, failed)


def _lanes(step: Step, turns: int) -> list[tuple[int, range]]:
    """What is done one after the other: all actions of a turn, or each by itself in a parallel step without a loop."""
    count = len(step.actions)
    if step.parallel and not step.for_each:
        return [(0, range(number, number + 1)) for number in range(count)]
    return [(turn, range(count)) for turn in range(turns)]


def _refused(step: Step, at: StepProgress) -> tuple[str, str] | None:
    """Why nobody agreed, and where the run goes on; None when somebody did."""
    if step.approval is None:
        return None if at.agreed else (f"playbook {step.playbook} failed", "")
    otherwise = step.approval.otherwise
    goto = "" if otherwise in (FAIL, "approve") else otherwise
    if at.expired:
        return None if otherwise == "approve" else ("nobody approved in time", goto)
    return None if at.agreed else ("it was rejected", goto)


def _act(at: StepProgress, turn: int, number: int) -> Act:
    return next(act for act in at.acts if (act.turn, act.number) == (turn, number))


def _after(start: str, steps: tuple[Step, ...]) -> frozenset[str]:
    """All that come after a step, by what they need."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        at = waiting.pop()
        more = [step.id for step in steps if at in step.needs and step.id not in found]
        found.update(more)
        waiting.extend(more)
    return frozenset(found)


def _said(stopped: str) -> str:
    return {CANCELLED: "cancelled", ROLLBACK: "rolled back"}.get(stopped, "aborted")
