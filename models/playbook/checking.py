"""What no single field of a playbook shows: ids that exist, an order without circles, jumps that lead forward, names that templates
can know, steps and actions that are never reached. Called by reading.py, with everything that could be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from models.errors import Refused
from models.playbook import fields
from models.playbook.document import Node
from models.playbook.mistakes import Mistakes, near
from models.playbook.playbook import DONE, FAIL, NEXT, PlannedAction, Step
from models.playbook.template import is_template, names_in
from models.playbook.walk import NOTIFICATION

#: What an expression may begin with.
ROOTS = ("incident", "variables", "steps", "run", "item", "index")
#: What the worker shows of an incident (models/shard/run_context.py): another name is most likely a mistake.
INCIDENT = frozenset((
    "acknowledged_by", "affected_resources", "alerts", "alerts_firing", "annotations", "assignees", "confidence", "created_at", "description",
    "group_key", "group_labels", "id", "impact", "incident_type", "is_open", "labels", "metadata", "opened_at", "related_incidents", "reopened",
    "roles", "service", "severity", "source", "state", "tenant", "title", "type", "updated_at",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """A step as it was read, with what was written for it."""

    step: Step
    node: Node
    needs_written: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """The steps, with what the order that was written fills in."""

    steps: tuple[Step, ...]
    final: tuple[Step, ...]


def check(
    steps: Sequence[Written], final: Sequence[Written], variables: Mapping[str, Any], mistakes: Mistakes
) -> Checked:
    """Fills in `needs`, `tolerates` of `finally`, and where guards are none; notes what is wrong."""
    _unique([*steps, *final], mistakes)
    main, last = _ordered(steps, final=False), _ordered(final, final=True)
    for each in (main, last):
        list_ = _Steps(each, mistakes)
        list_.check_needs()
        list_.check_targets()
        if not mistakes.found:
            list_.check_reached()
    _check_names(main, last, variables, mistakes)
    return Checked(tuple(each.step for each in main), tuple(each.step for each in last))


def _unique(steps: Sequence[Written], mistakes: Mistakes) -> None:
    lines: dict[str, int] = {}
    for each in steps:
        line = each.node.lines.get("id", each.node.line)
        if each.step.id in lines:
            mistakes.wrong(
                line,
                f"step {each.step.id}",
                f"a step of this id stands in line {lines[each.step.id]} already",
            )
        elif each.step.id:
            lines[each.step.id] = line


def _ordered(steps: Sequence[Written], *, final: bool) -> list[Written]:
    """Steps without `needs` run in the order written, each after the one before."""
    ordered: list[Written] = []
    for number, each in enumerate(steps):
        step = each.step
        before = steps[number - 1].step.id if number else ""
        if not each.needs_written and before:
            step = msgspec.structs.replace(step, needs=(before,))
        if final:
            step = msgspec.structs.replace(step, tolerates=True)
        if step.parallel:  # all of its actions are begun at once: none waits for a check
            actions = tuple(msgspec.structs.replace(action, guards=False) for action in step.actions)
            step = msgspec.structs.replace(step, actions=actions)
        ordered.append(Written(step, each.node, each.needs_written))
    return ordered


class _Steps:
    """The steps of a playbook, or those of its `finally`, with who comes before whom."""

    def __init__(self, steps: Sequence[Written], mistakes: Mistakes) -> None:
        self.mistakes = mistakes
        self.steps = steps
        self.by_id = {each.step.id: each for each in steps if each.step.id}
        self.needs = {
            id: [need for need in each.step.needs if need in self.by_id] for id, each in self.by_id.items()
        }
        self.next: dict[str, list[str]] = {id: [] for id in self.by_id}
        for id, needs in self.needs.items():
            for need in needs:
                self.next[need].append(id)

    def check_needs(self) -> None:
        for each in self.steps:
            for need in each.step.needs if each.needs_written else ():
                line = each.node.lines["needs"]
                if need not in self.by_id:
                    self.mistakes.wrong(
                        line,
                        f"step {each.step.id}, needs",
                        f"there is no step {need!r}{near(need, self.by_id)}",
                    )
        if (circle := self._circle()) is not None:
            each = self.by_id[circle[0]]
            line = each.node.lines.get("needs", each.node.line)
            path = " needs ".join([*circle, circle[0]])
            self.mistakes.wrong(line, "needs", f"the steps wait for each other: {path}")

    def check_targets(self) -> None:
        for each in self.steps:
            for action, node, where in _actions(each):
                for name in ("on_success", "on_failure"):
                    if name not in node.lines:
                        continue
                    target = getattr(action, name)
                    self._check_target(
                        each, target, node.lines[name], f"{where}, {name}", tuple(fields.TARGETS)
                    )
                    if each.step.parallel and name == "on_success":
                        self.mistakes.wrong(
                            node.lines[name],
                            f"{where}, {name}",
                            "the actions of a parallel step go on together; leave it out",
                        )
            if each.step.approval is not None and "approval" in each.node.entries:
                inner = each.node.entries["approval"]
                line = inner.lines.get("otherwise", inner.line)
                known = (FAIL, "approve", "abort", "escalate", "resolve")
                self._check_target(
                    each,
                    each.step.approval.otherwise,
                    line,
                    f"step {each.step.id}, approval, otherwise",
                    known,
                )

    def _check_target(
        self, each: Written, target: str, line: int, where: str, known: tuple[str, ...]
    ) -> None:
        if target in known and target not in self.by_id:
            return
        if target not in self.by_id:
            names = list(dict.fromkeys((*known, *self.by_id)))
            self.mistakes.wrong(line, where, f"there is no step {target!r}{near(target, names)}")
        elif target == each.step.id or each.step.id in self._after(target):
            path = [target, *self._path(target, each.step.id)[1:]] if target != each.step.id else [target]
            self.mistakes.wrong(line, where, f"a run would go in a circle: {' -> '.join([*path, target])}")
        elif each.step.type == NOTIFICATION:
            self.mistakes.wrong(
                line,
                where,
                "a notification lets the next step start at once, so it can't say which; leave it out",
            )

    def check_reached(self) -> None:
        """Warns of what no run ever does."""
        for each in self.steps:
            exits = self._exits(each)
            if exits is None or None in exits or not each.step.id:
                continue
            targets = {target for target in exits if target in self.by_id}
            led_to = targets.union(*(self._after(target) for target in targets)) if targets else set()
            after = self._after(each.step.id)
            for other in self.steps:
                if other.step.id in after and other.step.id not in led_to:
                    leads = " or ".join(sorted(targets)) or "elsewhere"
                    self.mistakes.warn(
                        other.node.line,
                        f"step {other.step.id}",
                        f"it is never reached: {each.step.id} always goes on with {leads}",
                    )
        for each in self.steps:
            for action, node, where in _actions(each):
                step = self.by_id.get(action.on_failure)
                if (
                    step is not None
                    and not step.step.condition
                    and not step.step.approval
                    and each.step.id in self.before(step.step.id)
                ):
                    self.mistakes.warn(
                        node.lines["on_failure"],
                        f"{where}, on_failure",
                        f"{action.on_failure} has no condition: it is also done when nothing failed",
                    )

    def _exits(self, each: Written) -> set[str | None] | None:
        """Where a step goes on: ids, words, or None for what comes next. None for a step that has no actions to follow."""
        actions = each.step.actions
        if (
            not actions
            or each.step.parallel
            or each.step.approval is not None
            or each.step.condition
            or each.step.for_each
        ):
            return None
        exits: set[str | None] = set()
        reached, waiting = set[int](), [0]
        while waiting:
            number = waiting.pop()
            if number >= len(actions):
                exits.add(None)
                continue
            if number in reached:
                continue
            reached.add(number)
            action = actions[number]
            for said, succeeded in ((action.on_success, True), (action.on_failure, False)):
                if said == NEXT:
                    waiting.append(number + (2 if succeeded and action.guards else 1))
                elif said in (DONE, FAIL):
                    exits.add(None)
                else:
                    exits.add(said)
        for number, (_action, node, where) in enumerate(_actions(each)):
            if number not in reached:
                self.mistakes.warn(
                    node.line, where, "it is never done: every action before it leads elsewhere"
                )
        return exits

    def _after(self, start: str) -> set[str]:
        """All that come after a step, by what they need."""
        return _reachable(start, self.next)

    def before(self, start: str) -> set[str]:
        """All that come before a step."""
        return _reachable(start, self.needs)

    def _path(self, start: str, end: str) -> list[str]:
        """The steps from one to another that comes after it."""
        came: dict[str, str] = {}
        waiting = [start]
        while waiting:
            at = waiting.pop(0)
            for after in self.next[at]:
                if after not in came:
                    came[after] = at
                    waiting.append(after)
        path = [end]
        while path[-1] != start and path[-1] in came:
            path.append(came[path[-1]])
        return path[::-1]

    def _circle(self) -> list[str] | None:
        """Steps that need each other in a circle, from the first that was written."""
        left = dict(self.needs)
        while free := [id for id, needs in left.items() if not any(need in left for need in needs)]:
            for id in free:
                del left[id]
        if not left:
            return None
        path = [next(iter(left))]
        while (after := next(need for need in left[path[-1]] if need in left)) not in path:
            path.append(after)
        return path[path.index(after) :]


def _reachable(start: str, arrows: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        more = [name for name in arrows.get(waiting.pop(), ()) if name not in found]
        found.update(more)
        waiting.extend(more)
    return found


def _actions(each: Written) -> Iterator[tuple[PlannedAction, Node, str]]:
    """The actions of a step with what was written for them; none when one of them could not be read."""
    node = each.node.entries.get("actions")
    if node is None or len(node.items) != len(each.step.actions):
        return
    for number, (action, written) in enumerate(zip(each.step.actions, node.items, strict=True), 1):
        yield action, written, f"step {each.step.id}, action {number} ({action.type})"


def _check_names(
    main: Sequence[Written], last: Sequence[Written], variables: Mapping[str, Any], mistakes: Mistakes
) -> None:
    """What conditions and templates of steps read is there."""
    ids = {each.step.id for each in (*main, *last) if each.step.id}
    order = _Steps(main, mistakes)
    for each in (*main, *last):
        before = order.before(each.step.id) | {each.step.id} if each in main else ids
        known = {*variables, *each.step.variables}
        for text, line, where, is_expression in _written_texts(each):
            try:
                paths = names_in(text, expression=is_expression)
            except Refused:
                continue  # reading.py says so
            for path in paths:
                _check_path(path, ids, before, known, bool(each.step.for_each), line, where, mistakes)


def _check_path(
    path: tuple[str, ...],
    ids: set[str],
    before: set[str],
    variables: set[str],
    in_loop: bool,
    line: int,
    where: str,
    mistakes: Mistakes,
) -> None:
    root, name = path[0], path[1] if len(path) > 1 else ""
    if root not in ROOTS:
        mistakes.wrong(line, where, f"{root!r} is not known here{near(root, ROOTS)}")
    elif root in ("item", "index") and not in_loop:
        mistakes.wrong(line, where, f"{root} is only known in a step with for_each")
    elif root == "steps" and name and name not in ids:
        mistakes.wrong(line, where, f"there is no step {name!r}{near(name, ids)}")
    elif root == "steps" and name and name not in before:
        mistakes.warn(line, where, f"step {name} may not be over then; say needs: [{name}]")
    elif root == "variables" and name and name not in variables:
        mistakes.wrong(line, where, f"there is no variable {name!r}{near(name, variables)}")
    elif root == "incident" and name and name not in INCIDENT:
        mistakes.warn(line, where, f"an incident has no {name!r}{near(name, sorted(INCIDENT), all_of=False)}")


def _written_texts(each: Written) -> Iterator[tuple[str, int, str, bool]]:
    """Every text of a step that is an expression or holds templates: text, line, where, whether it is an expression."""
    name = f"step {each.step.id}"
    for field in ("condition", "for_each"):
        node = each.node.entries.get(field)
        if node is not None and isinstance(node.value, str) and node.text.strip():
            yield node.text, node.line, f"{name}, {field}", True
    for field in ("variables", "approval", "actions"):
        node = each.node.entries.get(field)
        waiting = [] if node is None else [(node, field)]
        while waiting:
            at, where = waiting.pop()
            if at.kind == "list":
                waiting.extend((item, f"{where} {number}") for number, item in enumerate(at.items, 1))
            elif at.kind == "map":
                waiting.extend((value, f"{where}, {key}") for key, value in at.entries.items())
            elif isinstance(at.value, str) and is_template(at.value):
                yield at.value, at.line, f"{name}, {where.replace('actions ', 'action ')}", False
