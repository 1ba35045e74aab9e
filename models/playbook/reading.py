"""From what people write to a `Playbook`: `read(text)`. The language is described in fields.py and docs/playbooks.md; kinds of
actions stand in catalog.py.

Used by whoever applies, checks and tries playbooks (gateways on request, the CLI); shards get the Playbook that it makes. Raises
Malformed with everything that is wrong, a line each, as `FILE:LINE: step restart, action 2: ...`; TooLarge over a bound of
document.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from models.durations import duration_s
from models.errors import Refused
from models.playbook import fields
from models.playbook.catalog import CATALOG, ActionSpec, is_template, wrong_params
from models.playbook.checking import Written, check
from models.playbook.document import Node, read_document
from models.playbook.fields import Field
from models.playbook.mistakes import Mistakes, near
from models.playbook.parameters import TIMEOUT, names_of
from models.playbook.playbook import (
    FAIL,
    NEXT,
    Approval,
    PlannedAction,
    Playbook,
    Retry,
    Step,
    Trigger,
)
from models.playbook.template import check as check_template
from models.playbook.template import names_in
from models.playbook.values import VALUES, Wrong, expected

#: Steps of a playbook, and actions of a step. Our longest playbook has seven steps.
STEPS_MAX = 100
ACTIONS_MAX = 50


@dataclass(frozen=True, slots=True)
class Read:
    """A playbook, and what is odd about it but no mistake, a line each."""

    playbook: Playbook
    warnings: tuple[str, ...]


def read(text: str, file: str = "playbook", kinds: Mapping[str, ActionSpec] = CATALOG) -> Read:
    """The playbook that a YAML text says. `kinds` are the kinds of actions that there are
    (services/playbooks/table.py has those of other packages too)."""
    document = read_document(text, file)
    mistakes = Mistakes(file)
    playbook = _Reader(mistakes, kinds).playbook(document)
    mistakes.raise_any()
    assert playbook is not None
    return Read(playbook, mistakes.warnings)


def digest_of(document: Node) -> str:
    """Of what was written, whatever its comments and layout are."""
    plain = json.dumps(document.plain(), sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(plain.encode(), digest_size=16).hexdigest()


@dataclass(slots=True)
class _Reader:
    """Goes through the tree once. A value that is wrong is noted and left out, so that the rest is still looked at."""

    mistakes: Mistakes
    kinds: Mapping[str, ActionSpec]
    #: What an action does when it failed and nothing is written, in the step that is read.
    failing: str = FAIL

    def playbook(self, document: Node) -> Playbook | None:
        if document.kind != "map":
            what = f"a playbook was expected (name, version, steps), not {document.kind_in_words}"
            self.mistakes.wrong(document.line, "", what)
            return None
        given = self._fields(document, fields.PLAYBOOK, "")
        steps, final = given.get("steps", []), given.get("finally", [])
        if "steps" in document.entries and not steps and not self.mistakes.found:
            self.mistakes.wrong(document.lines["steps"], "steps", "at least one step was expected")
        trigger = given.get("trigger", Trigger())
        for name, short in (("severities", "severity_trigger"), ("types", "type_trigger")):
            if short in given:
                if getattr(trigger, name):
                    self.mistakes.wrong(
                        document.lines[short], short, "the trigger says it too; keep one of the two"
                    )
                trigger = _with(trigger, name, given[short])
        variables = given.get("variables", {})
        main = check(steps, final, variables, self.mistakes)
        self._templates(document.entries.get("variables"), "variables")
        if self.mistakes.found:
            return None
        return Playbook(
            given["name"],
            given["version"],
            digest_of(document),
            trigger,
            main.steps,
            main.final,
            variables,
            given.get("metadata", {}),
            given.get("shadow", False),
            given.get("priority", 0),
        )

    def _fields(
        self, node: Node, table: tuple[Field, ...], where: str, *, rest: bool = False
    ) -> dict[str, Any]:
        """What a map says, by field. With `rest` other names are somebody else's."""
        known = {field.name: field for field in table}
        given: dict[str, Any] = {}
        for name, value in node.entries.items():
            field = known.get(name)
            place = f"{where}, {name}" if where else name
            if field is not None:
                try:
                    given[name] = self._value(field.kind, value, place)
                except Wrong as wrong:
                    self.mistakes.wrong(*wrong.args)
            elif not rest:
                self.mistakes.wrong(node.lines[name], where, f"there is no field {name!r}{near(name, known)}")
        for field in table:
            if field.required and field.name not in node.entries:
                self.mistakes.wrong(node.line, where, f"{field.name} was expected, and is missing")
        return given

    def _value(self, kind: str, node: Node, where: str) -> Any:
        read = VALUES.get(kind) or getattr(self, f"_{kind}")
        return read(node, where)

    # -- kinds of fields that have fields of their own, as fields.py names them: the value; raises Wrong --

    def _retry(self, node: Node, where: str) -> Retry:
        if node.kind != "map":
            return Retry(VALUES["count"](node, where))
        given = self._fields(node, fields.RETRY, where)
        retry = Retry(
            given.get("most", 0),
            given.get("backoff", "exponential"),
            given.get("first", 1.0),
            given.get("max", 60.0),
        )
        if retry.first_s > retry.max_s:
            self.mistakes.wrong(
                node.line, where, f"first ({retry.first_s:g}s) is longer than max ({retry.max_s:g}s)"
            )
        return retry

    def _trigger(self, node: Node, where: str) -> Trigger:
        if node.kind != "map":
            raise expected(
                node, where, "a map of severity, type, source, service, labels, expression, schedule"
            )
        given = self._fields(node, fields.TRIGGER, where)
        return Trigger(
            given.get("severity", ()),
            given.get("type", ()),
            given.get("source", ()),
            given.get("service", ()),
            given.get("labels", ()),
            given.get("expression", ""),
            given.get("schedule", ""),
        )

    def _approval(self, node: Node, where: str) -> Approval:
        if node.kind != "map":
            raise expected(node, where, "a map of who, needed, within, otherwise, message")
        given = self._fields(node, fields.APPROVAL, where)
        self._templates(node.entries.get("message"), where)
        return Approval(
            given.get("who", ()),
            given.get("needed", 1),
            given.get("within", 900.0),
            given.get("otherwise", FAIL),
            given.get("message", ""),
        )

    # -- steps and actions --

    def _steps(self, node: Node, where: str) -> list[Written]:
        if node.kind != "list":
            raise expected(node, where, "a list of steps")
        if len(node.items) > STEPS_MAX:
            raise expected(node, where, f"at most {STEPS_MAX} steps")
        steps: list[Written] = []
        for number, each in enumerate(node.items, 1):
            try:
                steps.append(self._step(each, where, number))
            except Wrong as wrong:
                self.mistakes.wrong(*wrong.args)
        return steps

    def _step(self, node: Node, where: str, number: int) -> Written:
        if node.kind != "map":
            raise expected(node, f"{where}, number {number}", "a step (id, type, actions)")
        id_node = node.entries.get("id")
        name = f"step {id_node.text}" if id_node is not None and id_node.text else f"{where}, number {number}"
        type_node = node.entries.get("type")
        # When help is called for, somebody who can't be reached is no reason to leave out the others.
        self.failing = NEXT if type_node is not None and type_node.text == "escalation" else FAIL
        given = self._fields(node, fields.STEP, name)
        kind = given.get("type", "")
        actions = given.get("actions", ())
        self._must_have(kind, given, node, name)
        self._templates(node.entries.get("variables"), f"{name}, variables")
        retry = self._backed_off(given, node, name)
        condition = given.get("condition", "")
        step = Step(
            given.get("id", ""),
            kind,
            actions,
            given.get("needs", ()),
            condition,
            given.get("for_each", ""),
            given.get("parallel", False),
            kind == "escalation" or (bool(condition) and any(path[0] == "steps" for path in names_in(condition, expression=True))),
            given.get("timeout", 0.0),
            retry,
            given.get("approval"),
            given.get("playbook", ""),
            given.get("variables", {}),
        )  # fmt: skip
        return Written(step, node, needs_written="needs" in node.entries)

    def _must_have(self, kind: str, given: Mapping[str, Any], node: Node, where: str) -> None:
        """What a step of this type must have."""
        if kind == "playbook" or "playbook" in node.entries:
            if kind != "playbook":
                self.mistakes.wrong(
                    node.lines["playbook"], where, "only a step of type playbook runs another one"
                )
            elif "playbook" not in node.entries:
                self.mistakes.wrong(node.line, where, "playbook was expected: the name of the one to run")
            for name in ("actions", "for_each", "parallel"):
                if name in node.entries:
                    self.mistakes.wrong(
                        node.lines[name], where, f"a step that runs another playbook has no {name}"
                    )
        elif kind == "approval" and "approval" not in node.entries:
            self.mistakes.wrong(node.line, where, "approval was expected: who must agree, until when")
        elif kind != "approval" and not given.get("actions") and not self._has_wrong(node, "actions"):
            self.mistakes.wrong(node.line, where, "actions: at least one was expected")

    def _has_wrong(self, node: Node, name: str) -> bool:
        line = node.lines.get(name)
        return line is not None and any(found >= line for found, _ in self.mistakes.found)

    def _actions(self, node: Node, where: str) -> tuple[PlannedAction, ...]:
        if node.kind != "list" or not node.items:
            raise expected(node, where, "a list of at least one action")
        if len(node.items) > ACTIONS_MAX:
            raise expected(node, where, f"at most {ACTIONS_MAX} actions")
        step = where.rpartition(", ")[0]
        actions: list[PlannedAction] = []
        for number, each in enumerate(node.items, 1):
            try:
                actions.append(
                    self._action(each, f"{step}, action {number}", is_last=number == len(node.items))
                )
            except Wrong as wrong:
                self.mistakes.wrong(*wrong.args)
        return tuple(actions)

    def _action(self, node: Node, where: str, *, is_last: bool, is_rollback: bool = False) -> PlannedAction:
        if node.kind != "map":
            raise expected(node, where, "an action (type, and what it takes)")
        # What takes a template may be one: it is rendered, and checked, when the action is about to be done.
        timeout = node.entries.get(TIMEOUT)
        own = tuple(
            field
            for field in fields.ACTION
            if not (field.name == TIMEOUT and timeout is not None and is_template(timeout.plain()))
        )
        given = self._fields(node, own, where, rest=True)
        names = {field.name for field in own}
        params = {name: each.plain() for name, each in node.entries.items() if name not in names}
        kind = given.get("type", "")
        changes = self._parameters(kind, params, node, where)
        for name, each in node.entries.items():
            if name not in names or name == TIMEOUT:
                self._templates(each, f"{where}, {name}")
        if is_rollback:
            for name in ("on_success", "on_failure", "rollback"):
                if name in node.entries:
                    self.mistakes.wrong(node.lines[name], where, f"a rollback has no {name}")
        self._fits(params, given.get(TIMEOUT, 60.0), node, where)
        on_success, on_failure = given.get("on_success", NEXT), given.get("on_failure", self.failing)
        return PlannedAction(
            kind,
            params,
            on_success,
            on_failure,
            given.get("timeout", 60.0),
            self._backed_off(given, node, where),
            changes,
            given.get("once", False),
            given.get("rollback"),
            given.get("output", ""),
            kind in fields.CHECKS and on_failure == NEXT and "on_success" not in node.entries and not is_last,
        )

    def _rollback(self, node: Node, where: str) -> PlannedAction:
        return self._action(node, where, is_last=True, is_rollback=True)

    def _action_type(self, node: Node, where: str) -> str:
        if node.text in self.kinds:
            return node.text
        raise Wrong(node.line, where, f"there is no action {node.text!r}{near(node.text, self.kinds)}")

    def _parameters(self, kind: str, params: Mapping[str, Any], node: Node, where: str) -> bool:
        """Checks an action's parameters; says whether it changes something."""
        spec = self.kinds.get(kind)
        if spec is None:  # told already
            return True
        wrong = wrong_params(spec, params)
        if wrong:
            name = wrong.partition(":")[0]
            line = node.lines.get(name, node.line)
            known = [*names_of(spec.params), *(field.name for field in fields.ACTION)]
            hint = near(name, known, all_of=False) if "no such parameter" in wrong else ""
            self.mistakes.wrong(line, f"{where} ({kind})", wrong + hint)
        return spec.changes_with(params)

    def _fits(self, params: Mapping[str, Any], timeout_s: float, node: Node, where: str) -> None:
        """What an action waits for by itself ends before its time is over."""
        try:
            within = duration_s(params.get("within", 0.0))
        except ValueError:
            return
        if isinstance(within, int | float) and within >= timeout_s and not is_template(params.get(TIMEOUT)):
            self.mistakes.warn(
                node.lines["within"],
                f"{where}, within",
                f"it is cut off by timeout ({timeout_s:g}s); make that longer",
            )

    def _backed_off(self, given: Mapping[str, Any], node: Node, where: str) -> Retry:
        """`retry: 3` with `backoff` beside it."""
        retry: Retry = given.get("retry", Retry())
        if "backoff" in given:
            if "retry" in node.entries and node.entries["retry"].kind == "map":
                self.mistakes.wrong(
                    node.lines["backoff"], where, "backoff stands within retry when that is a map"
                )
            elif "retry" not in node.entries:
                self.mistakes.wrong(
                    node.lines["backoff"], where, "backoff without retry: how often is it tried again?"
                )
            return Retry(retry.most, given["backoff"], retry.first_s, retry.max_s)
        return retry

    def _templates(self, node: Node | None, where: str) -> None:
        """Every template within a value can be read."""
        waiting = [] if node is None else [node]
        while waiting:
            at = waiting.pop()
            waiting.extend((*at.items, *at.entries.values()))
            if at.kind == "scalar" and isinstance(at.value, str):
                try:
                    check_template(at.value)
                except Refused as error:
                    self.mistakes.wrong(at.line, where, str(error))


def _with(trigger: Trigger, name: str, value: Any) -> Trigger:
    return msgspec.structs.replace(trigger, **{name: value})
