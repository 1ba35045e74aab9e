"""What a run does next: the one walker of playbooks, for shards (models/shard/runs.py) and for simulations. Pure: it looks at the
playbook, the run and the time, and gives one event, the move to be made. Whoever drives it folds the event (run.fold), does what it
asks for, and asks again until there is none:

    while (move := next_move(book, run, now)) is not None: ...

A ActionAsked means: ask work_of(...) and bring the answer by answered(...). Rules: docs/playbooks.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from models.incidents.notification import retry_at
from models.partition.event import Event
from models.playbook.playbook import ABORT, DONE, FAIL, NEXT, PlannedAction, Playbook, Retry, Step
from models.playbook.run import (
    ABORTED,
    AGAIN,
    ASKED,
    CANCELLED,
    PAUSED,
    RUN_OUTPUTS_MAX,
    UNDOING,
    Deed,
    Run,
    StepRun,
    id_of,
    key_of,
)
from models.playbook.run_events import (
    CHILD,
    ENTRY,
    GATE,
    ActionAnswered,
    ActionAsked,
    ApprovalAsked,
    RoundBegan,
    RunEnded,
    RunEnding,
    StepBegan,
    StepEnded,
    UndoBegan,
)
from models.playbook.work import (
    APPROVAL,
    FAILED,
    REFUSED,
    SKIPPED,
    SUCCEEDED,
    TOLD,
    WAIT,
    Context,
    Do,
    Done,
    Enter,
    IncidentEffect,
    Work,
)

#: What `on_success` and `on_failure` may say where no step has that name.
ESCALATE, RESOLVE = "escalate", "resolve"
#: Steps that a run begins at most: one that jumps in a circle ends.
TURNS_MAX = 200
#: Items that a step is repeated for.
ITEMS_MAX = 100
#: How long what is done at the end of a run (`finally`) may take.
FINALLY_S = 900.0
#: How long somebody has to approve an action that policy wants approved.
APPROVE_WITHIN_S = 900.0
#: Further tries of a question about conditions that could not be answered, and the least time between two of them.
ENTRY_RETRY = Retry(most=2, first_s=1.0)
#: Types of step whose failure is nobody else's: what comes after them starts all the same, and the run goes on.
SOFT = frozenset({"notification", "data_collection"})
NOTIFICATION, APPROVING = "notification", "approval"
IN_DOUBT = "unknown whether it was done"


@dataclass(frozen=True, slots=True)
class ChildWanted:
    """A step is to be done by the run of another playbook."""

    step: str
    playbook: str


Move = Event | ChildWanted


def next_move(book: Playbook, run: Run, now: float, is_open: bool = True) -> Move | None:
    """The next thing that happens in a run; None when it waits for an answer, a person or the time (next_at), or is over.
    `is_open`: the incident goes on, so what changes something still makes sense."""
    if run.is_over:
        return None
    is_late = now >= run.until
    if not run.ends_as:
        if is_late:
            return _ending(run, FAILED, "it took longer than a run may (playbooks.longest)", now)
        for name, at in run.steps.items():
            if at.then == ABORT and at.is_over:
                return _ending(run, ABORTED, f"{name}: {at.detail}", now)
        if run.status == PAUSED:
            return None
        move = _Walk(book, book.steps, run, now, is_open).move()
        if move is not None or any(_under_way(run, book.steps)):
            return move
        return _ending(run, *_outcome(book, run), now)
    if (move := _drop(book, run, book.steps, is_late)) is not None:
        return move
    if any(_under_way(run, book.steps)):
        return None
    final = _Walk(book, book.final, run, now, True)
    move = _drop(book, run, book.final, True) if is_late else final.move()
    if move is not None or any(_under_way(run, book.final)):
        return move
    return RunEnded(run.incident_id, run.id, run.ends_as, run.detail, run.playbook, run.version, run.dry)


def next_at(book: Playbook, run: Run) -> float:
    """When time alone brings it on, 0 when it is over."""
    if run.is_over:
        return 0.0
    first = run.until
    if run.status == PAUSED:
        return first
    for step in (*book.steps, *book.final):
        at = run.steps.get(step.id)
        if at is None or at.is_over:
            continue
        for deed in (*at.deeds.values(), *at.undos.values()):
            if deed.status in (AGAIN, WAIT, APPROVAL) and deed.at:
                first = min(first, deed.at)
        if step.timeout_s and at.status != UNDOING:
            first = min(first, at.began_at + step.timeout_s)
    return first


def questions(book: Playbook, run: Run) -> Iterator[tuple[Step, int, bool, Deed]]:
    """What the responder was asked for and has not answered: step, number, whether it is a rollback, deed."""
    if run.is_over:
        return
    for step in (*book.steps, *book.final):
        at = run.steps.get(step.id)
        if at is None or at.is_over:
            continue
        for undo, deeds in ((False, at.deeds), (True, at.undos)):
            for number, deed in deeds.items():
                if deed.status == ASKED and number != CHILD:
                    yield step, number, undo, deed


def work_of(
    book: Playbook, run: Run, step: Step, number: int, undo: bool, incident: dict[str, Any], again: bool
) -> Work:
    """What to ask the worker."""
    at = run.steps[step.id]
    deed = (at.undos if undo else at.deeds)[number]
    key = key_of(run, at, number, deed.attempt, undo)
    round_, action_number = at.did[number] if undo else (at.round, number)
    context = context_of(book, run, step, incident, round_)
    if number == ENTRY and not undo:
        return Enter(key, step.id, step.condition, step.for_each, context)
    action = step.actions[action_number]
    if undo:
        assert action.rollback is not None
        action = action.rollback
    return Do(
        key,
        step.id,
        action_number,
        # Not deed.attempt: that it waited for an approval is no try.
        deed.failures,
        action,
        context,
        again,
        tuple(deed.approved_by),
        run.dry,
        undo,
        deed.digest,
    )


def context_of(book: Playbook, run: Run, step: Step, incident: dict[str, Any], round_: int = 0) -> Context:
    """What expressions of a step see. `run.last` has what was written for the last action of each type that was done."""
    seen: dict[str, Any] = {}
    last: dict[str, Any] = {}
    for each in (*book.steps, *book.final):
        at = run.steps.get(each.id)
        if at is None:
            seen[each.id] = {"status": "pending", "outputs": {}, "detail": ""}
            continue
        seen[each.id] = {"status": shown(at.status), "outputs": at.outputs, "detail": at.detail}
        for number, deed in sorted(at.deeds.items()):
            if number >= 0 and deed.status in (SUCCEEDED, FAILED):
                last[each.actions[number].type] = each.actions[number].params
    about = about_run(run, last)
    at = run.steps.get(step.id)
    items = None if at is None else at.items
    item = items[round_] if items and round_ < len(items) else None
    return Context(incident, {**book.variables, **step.variables}, seen, about, item, round_)


def about_run(run: Run, last: dict[str, Any]) -> dict[str, Any]:
    """What expressions see as `run`."""
    return {
        "id": id_of(run.id),
        "number": run.number,
        "name": run.playbook,
        "playbook": run.playbook,
        "version": run.version,
        "started_at": run.started_at,
        "by": run.by,
        "dry": run.dry,
        "last": last,
    }


def answered(
    book: Playbook, run: Run, step: Step, number: int, undo: bool, done: Done, now: float
) -> ActionAnswered | ApprovalAsked:
    """The move that an answer of the worker is. Whoever calls made sure that it was asked for."""
    at = run.steps[step.id]
    deed = (at.undos if undo else at.deeds)[number]
    action = None if number == ENTRY and not undo else _action(step, at, number, undo)
    status, again_at, detail, reached = done.status, 0.0, done.detail, False
    if done.status == APPROVAL:
        if not run.dry and not undo and action is not None:
            who, until = list(done.approvers), now + APPROVE_WITHIN_S
            return ApprovalAsked(
                run.incident_id,
                run.id,
                step.id,
                number,
                who,
                max(1, done.needed),
                until,
                detail,
                run.playbook,
                done.digest,
            )
        if run.dry:
            status, words = SUCCEEDED, "would ask for approval"
        else:
            # Whoever is asked would decide about one half of a repair: a person has to look at it.
            status, words = FAILED, "not undone, since a rollback waits for no approval"
        detail = f"{words}: {detail}" if detail else words
    elif done.status == WAIT:
        if done.wait_s > 0 and not run.dry:
            again_at = now + done.wait_s
        else:
            status = SUCCEEDED
    elif done.status in (FAILED, REFUSED):
        status = FAILED
        reached = done.status == FAILED and done.reached and action is not None
        retry = ENTRY_RETRY if action is None else _retry(step, action)
        if reached and action is not None and action.once:
            detail = f"{IN_DOUBT}: {detail}" if detail and IN_DOUBT not in detail else detail or IN_DOUBT
        elif not done.final and done.status == FAILED and deed.failures < retry.most:
            again_at = _again_at(retry, key_of(run, at, number, deed.attempt, undo), deed.failures, now)
            again_at = max(again_at, now + done.retry_after_s)
    outputs = _outputs(run, action, done)
    if done.outputs and outputs is None:
        detail = f"{detail} (its outputs are left out: a run keeps {RUN_OUTPUTS_MAX // 1024} KiB)".strip()
    items = list(done.items[:ITEMS_MAX]) if action is None and step.for_each and status == SUCCEEDED else None
    if items is not None and len(done.items) > ITEMS_MAX:
        status, detail, items = (
            FAILED,
            f"for_each: {len(done.items)} items, at most {ITEMS_MAX} are allowed",
            None,
        )
    told = next((each for each in done.effects if each.what == TOLD), None)
    if told is None or status != SUCCEEDED or run.dry:
        told = IncidentEffect(TOLD)
    return ActionAnswered(
        run.incident_id,
        run.id,
        step.id,
        number,
        deed.attempt,
        status,
        detail,
        "" if action is None else action.type,
        undo,
        again_at,
        reached,
        outputs or {},
        items,
        done.decided,
        run.playbook,
        run.dry,
        done.final,
        told.value,
        told.ref,
    )


def asked_key(run: Run, step: str, number: int, undo: bool) -> str:
    """The key of what is being asked for at a place, "" when nothing is."""
    at = run.steps.get(step)
    deed = None if at is None else (at.undos if undo else at.deeds).get(number)
    if at is None or deed is None or deed.status != ASKED or at.is_over or run.is_over:
        return ""
    return key_of(run, at, number, deed.attempt, undo)


@dataclass(slots=True)
class _Walk:
    """One look at the steps of a run, or at those of its `finally`."""

    book: Playbook
    steps: Sequence[Step]
    run: Run
    now: float
    is_open: bool

    def move(self) -> Move | None:
        run = self.run
        for step in self.steps:
            at = run.steps.get(step.id)
            if at is not None and at.is_under_way and (move := self._within(step, at)) is not None:
                return move
        if run.jump and any(step.id == run.jump for step in self.steps):
            return self._begin(run.jump, run.turns + 1)
        for step in self.steps:
            if step.id not in run.steps and (move := self._may_begin(step)) is not None:
                return move
        return None

    # -- between steps --

    def _may_begin(self, step: Step) -> Move | None:
        run = self.run
        for name in step.needs:
            needed = run.steps.get(name)
            if needed is None:
                return None
            kind = self._step(name).type
            if needed.is_under_way and kind != NOTIFICATION:
                return None
            failed = needed.status == FAILED and kind not in SOFT
            if (failed or needed.blocked) and not step.tolerates:
                return StepEnded(
                    run.incident_id,
                    run.id,
                    step.id,
                    SKIPPED,
                    f"{name} {'was not done' if needed.blocked else 'failed'}",
                    blocked=True,
                    playbook=run.playbook,
                )
        return self._begin(step.id, run.turns + 1)

    def _begin(self, name: str, turn: int) -> Move:
        run = self.run
        if turn > TURNS_MAX:
            return _ending(
                run,
                FAILED,
                f"it began {TURNS_MAX} steps, the most of a run: does it go in a circle?",
                self.now,
            )
        skipped: list[str] = []
        anew: list[str] = []
        if run.jump == name:
            after = self._after(name)
            if name in run.steps:
                anew = [each for each in after if each in run.steps and run.steps[each].is_over]
            else:
                # What would have come before it in the order that was written is jumped over.
                source = self._source()
                between = self._after(source) if source else set()
                skipped = [
                    step.id
                    for step in self.steps
                    if step.id in between
                    and step.id not in run.steps
                    and step.id != name
                    and step.id not in after
                ]
        return StepBegan(run.incident_id, run.id, name, turn, skipped, anew)

    def _source(self) -> str:
        """The step that jumped: the last that ended."""
        ended = [
            (at.ended_at, at.turn, name) for name, at in self.run.steps.items() if at.is_over and at.turn
        ]
        mine = {step.id for step in self.steps}
        return max((each for each in ended if each[2] in mine), default=(0.0, 0, ""))[2]

    def _after(self, name: str) -> set[str]:
        """The steps that need this one, if only through others."""
        found: set[str] = set()
        grew = True
        while grew:
            grew = False
            for step in self.steps:
                if (
                    step.id not in found
                    and step.id != name
                    and any(each == name or each in found for each in step.needs)
                ):
                    found.add(step.id)
                    grew = True
        return found

    def _step(self, name: str) -> Step:
        return next(step for step in (*self.book.steps, *self.book.final) if step.id == name)

    # -- within a step --

    def _within(self, step: Step, at: StepRun) -> Move | None:
        if at.status == UNDOING:
            return self._undo(step, at)
        if step.timeout_s and self.now >= at.began_at + step.timeout_s:
            return self._fail(step, at, f"it took longer than {step.timeout_s:g} s")
        if step.condition or step.for_each:
            entry = at.deeds.get(ENTRY)
            if entry is None or not entry.is_over:
                return self._ask(step, at, ENTRY, entry)
            if entry.status == FAILED:
                return self._fail(step, at, entry.detail or "its condition can't be evaluated")
            if entry.status == SKIPPED:
                return self._end(step, SKIPPED, entry.detail or "its condition does not hold")
        if at.items is not None and not at.items:
            return self._end(step, SUCCEEDED, "there is nothing to repeat it for")
        gate = at.deeds.get(GATE)
        if step.approval is not None and (gate is None or gate.status != SUCCEEDED):
            return self._gate(step, at, gate)
        if step.playbook:
            return self._child(step, at)
        return self._all(step, at) if step.parallel else self._in_order(step, at)

    def _gate(self, step: Step, at: StepRun, gate: Deed | None) -> Move | None:
        run, approval = self.run, step.approval
        assert approval is not None
        if gate is None:
            if run.refused and any(action.changes for action in step.actions):
                # Nobody is asked to agree to what is not done.
                return self._said(step, GATE, SUCCEEDED, "nobody is asked: its actions are refused")
            if run.dry:
                return self._said(step, GATE, SUCCEEDED, "would ask for approval")
            return ApprovalAsked(
                run.incident_id,
                run.id,
                step.id,
                GATE,
                list(approval.who),
                approval.needed,
                self.now + approval.within_s,
                approval.message,
                run.playbook,
            )
        if gate.status == FAILED:
            jump, then = self._target(approval.otherwise) if not gate.denied_by else ("", "")
            return self._fail(step, at, gate.detail, jump, then)
        if gate.denied_by:
            return self._said(step, GATE, FAILED, f"denied by {gate.denied_by}")
        if len(gate.approved_by) >= gate.needed:
            return self._said(step, GATE, SUCCEEDED, f"approved by {', '.join(gate.approved_by)}")
        if self.now >= gate.at:
            approves = approval.otherwise == "approve"
            detail = f"not approved within {approval.within_s:g} s"
            return self._said(step, GATE, SUCCEEDED if approves else FAILED, detail)
        return None

    def _child(self, step: Step, at: StepRun) -> Move | None:
        child = at.deeds.get(CHILD)
        if child is None:
            return ChildWanted(step.id, step.playbook)
        if not child.is_over:
            return None
        if child.status == FAILED:
            return self._fail(step, at, child.detail)
        return self._round_over(step, at)

    def _in_order(self, step: Step, at: StepRun) -> Move | None:
        number, is_guarded = 0, False
        while number < len(step.actions):
            action, deed = step.actions[number], at.deeds.get(number)
            if deed is None and is_guarded:
                return self._said(step, number, SKIPPED, "not needed: the check before it succeeded", action)
            if deed is None or not deed.is_over:
                return self._act(step, at, number, action, deed)
            said = _said_next(step, action, deed)
            if said != NEXT:
                return self._follow(step, at, action, deed, said)
            is_guarded = action.guards and deed.status == SUCCEEDED
            number += 1
        return self._round_over(step, at)

    def _all(self, step: Step, at: StepRun) -> Move | None:
        """Its actions at the same time."""
        for number, action in enumerate(step.actions):
            deed = at.deeds.get(number)
            if deed is None or not deed.is_over:
                move = self._act(step, at, number, action, deed)
                if move is not None:
                    return move
        pairs = [(action, at.deeds.get(number)) for number, action in enumerate(step.actions)]
        if any(deed is None or not deed.is_over for _action, deed in pairs):
            return None
        for action, deed in pairs:
            assert deed is not None
            said = _said_next(step, action, deed)
            if deed.status == FAILED and said != NEXT:
                return self._follow(step, at, action, deed, said)
        return self._round_over(step, at)

    def _act(
        self, step: Step, at: StepRun, number: int, action: PlannedAction, deed: Deed | None
    ) -> Move | None:
        if deed is None and action.changes and not self.is_open and not self.run.dry:
            return self._said(step, number, SKIPPED, "not done: the incident is over", action)
        if deed is None and action.changes and self.run.refused and not self.run.dry:
            return self._said(step, number, FAILED, self.run.refused, action)
        if deed is not None and deed.status == WAIT:
            return self._said(step, number, SUCCEEDED, deed.detail, action) if self.now >= deed.at else None
        if deed is not None and deed.status == APPROVAL:
            if deed.denied_by:
                return self._said(step, number, FAILED, f"denied by {deed.denied_by}", action)
            if len(deed.approved_by) < deed.needed:
                if self.now >= deed.at:
                    return self._said(step, number, FAILED, "nobody approved it in time", action)
                return None
        changes = action.changes and not self.run.dry
        return self._ask(step, at, number, deed, changes=changes, once=action.once)

    def _ask(
        self,
        step: Step,
        at: StepRun,
        number: int,
        deed: Deed | None,
        *,
        undo: bool = False,
        changes: bool = False,
        once: bool = False,
    ) -> Move | None:
        run = self.run
        if deed is None or not deed.status:
            return ActionAsked(run.incident_id, run.id, step.id, number, 0, undo, changes)
        if deed.status == ASKED or (deed.status == AGAIN and self.now < deed.at):
            return None
        # A try that reached nobody is made again by the same key: one before it with that key may have, and its answer was lost.
        # What is marked once has a new one: its responder remembers the keys that it was given.
        anew = once or deed.status != AGAIN or deed.reached
        return ActionAsked(run.incident_id, run.id, step.id, number, deed.attempt + anew, undo, changes)

    def _follow(self, step: Step, at: StepRun, action: PlannedAction, deed: Deed, said: str) -> Move | None:
        """An action is over, and says how its step goes on."""
        if said == DONE:
            return self._round_over(step, at)
        detail = f"{action.type}: {deed.detail}" if deed.detail else action.type
        if said == FAIL:
            return self._fail(step, at, detail)
        jump, then = self._target(said)
        if deed.status == SUCCEEDED and said != ABORT:
            return self._end(step, SUCCEEDED, detail, jump, then)
        return self._fail(step, at, detail, jump, then)

    def _target(self, said: str) -> tuple[str, str]:
        """The step to go on with, or what is done where no step has that name."""
        if any(step.id == said for step in self.steps):
            return said, ""
        return "", said if said in (ESCALATE, RESOLVE, ABORT) else ""

    def _round_over(self, step: Step, at: StepRun) -> Move:
        run = self.run
        if at.items is not None and at.round + 1 < len(at.items):
            return RoundBegan(run.incident_id, run.id, step.id, at.round + 1)
        return self._end(step, SUCCEEDED, "")

    def _fail(self, step: Step, at: StepRun, detail: str, jump: str = "", then: str = "") -> Move:
        run = self.run
        if any(step.actions[number].rollback is not None for _round, number in at.did):
            return UndoBegan(run.incident_id, run.id, step.id, detail, jump, then)
        return self._end(step, FAILED, detail, jump, then)

    def _undo(self, step: Step, at: StepRun) -> Move | None:
        """What it did is rolled back, the last first. One that can't be is no reason to leave out the others."""
        for place in reversed(range(len(at.did))):
            action = step.actions[at.did[place][1]]
            if action.rollback is None:
                continue
            deed = at.undos.get(place)
            if deed is not None and deed.is_over:
                continue
            if deed is not None and deed.status == WAIT:
                return (
                    self._said(step, place, SUCCEEDED, deed.detail, action.rollback, undo=True)
                    if self.now >= deed.at
                    else None
                )
            return self._ask(
                step,
                at,
                place,
                deed,
                undo=True,
                once=action.rollback.once,
                changes=action.rollback.changes and not self.run.dry,
            )
        failed = [deed.detail for deed in at.undos.values() if deed.status == FAILED]
        detail = f"{at.detail}; rollback failed: {failed[0]}" if failed else f"{at.detail}; rolled back"
        return self._end(step, FAILED, detail, at.jump, at.then)

    def _end(self, step: Step, status: str, detail: str, jump: str = "", then: str = "") -> Move:
        run = self.run
        target = run.steps.get(jump)
        if target is not None and target.is_under_way and jump != step.id:
            jump = ""  # it is being done already, and must not be done twice at once
        return StepEnded(run.incident_id, run.id, step.id, status, detail, False, jump, then, run.playbook)

    def _said(
        self,
        step: Step,
        number: int,
        status: str,
        detail: str,
        action: PlannedAction | None = None,
        *,
        undo: bool = False,
    ) -> Move:
        run = self.run
        at = run.steps[step.id]
        deed = (at.undos if undo else at.deeds).get(number)
        return ActionAnswered(
            run.incident_id,
            run.id,
            step.id,
            number,
            0 if deed is None else deed.attempt,
            status,
            detail,
            "" if action is None else action.type,
            undo,
            playbook=run.playbook,
            dry=run.dry,
        )


def _said_next(step: Step, action: PlannedAction, deed: Deed) -> str:
    """What an action that is over says about how its step goes on."""
    if deed.status == SKIPPED:
        return NEXT
    if action.guards and deed.status == FAILED and deed.is_final:
        return FAIL  # it could not be checked at all, which does not mean that something is wrong
    said = action.on_success if deed.status == SUCCEEDED else action.on_failure
    return NEXT if said == FAIL and step.type in SOFT else said


def _retry(step: Step, action: PlannedAction) -> Retry:
    """How often an action that failed is tried again. The failure of a guard is no failure."""
    if action.guards:
        return Retry()
    return action.retry if action.retry.most else step.retry


def _again_at(retry: Retry, key: str, failures: int, now: float) -> float:
    if retry.backoff == "exponential":
        return retry_at(failures + 1, now, retry.first_s, retry.max_s, key)
    first_s = retry.first_s * (failures + 1 if retry.backoff == "linear" else 1)
    return retry_at(1, now, min(first_s, retry.max_s), retry.max_s, key)


def _action(step: Step, at: StepRun, number: int, undo: bool) -> PlannedAction:
    if not undo:
        return step.actions[number]
    action = step.actions[at.did[number][1]].rollback
    assert action is not None
    return action


def _outputs(run: Run, action: PlannedAction | None, done: Done) -> dict[str, Any] | None:
    """What is kept of an action's outputs; None when there is no room."""
    if action is None or not done.outputs:
        return {}
    if run.outputs_bytes + len(msgspec.json.encode(done.outputs)) > RUN_OUTPUTS_MAX:
        return None
    return {action.output: done.outputs} if action.output else dict(done.outputs)


def _under_way(run: Run, steps: Sequence[Step]) -> Iterator[StepRun]:
    for step in steps:
        at = run.steps.get(step.id)
        if at is not None and at.is_under_way:
            yield at


def _drop(book: Playbook, run: Run, steps: Sequence[Step], is_late: bool) -> Move | None:
    """A run ends: what of these steps is under way is given up. What the responder was asked for is waited for, so that the log
    says what became of it, but not for ever."""
    for step in steps:
        at = run.steps.get(step.id)
        if at is None or at.is_over:
            continue
        asked = [deed for deed in (*at.deeds.values(), *at.undos.values()) if deed.status == ASKED]
        if asked and not is_late:
            continue
        why = f"{IN_DOUBT}: no answer before the run ended" if asked else f"the run {_words(run.ends_as)}"
        return StepEnded(run.incident_id, run.id, step.id, FAILED, why, playbook=run.playbook)
    return None


def _words(ends_as: str) -> str:
    return "was cancelled" if ends_as == CANCELLED else "ended"


def _ending(run: Run, status: str, detail: str, now: float) -> RunEnding:
    return RunEnding(run.incident_id, run.id, status, detail, now + FINALLY_S)


def _outcome(book: Playbook, run: Run) -> tuple[str, str]:
    """How a run ends whose steps are all over."""
    kinds = {step.id: step.type for step in book.steps}
    for step in book.steps:
        at = run.steps.get(step.id)
        if at is not None and at.status == FAILED and kinds[step.id] not in SOFT:
            return FAILED, f"{step.id} failed" + (f": {at.detail}" if at.detail else "")
    return SUCCEEDED, ""


def shown(status: str) -> str:
    """The status of a step as playbooks write it."""
    if status == SUCCEEDED:
        return "success"
    return status if status in (FAILED, SKIPPED) else "running"
