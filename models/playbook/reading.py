"""From what people write to a `Playbook`: `read(text)`. The language is described in fields.py and docs/playbooks.md; kinds of
actions stand in catalog.py.

Used by whoever applies, checks and tries playbooks (gateways on request, the CLI); shards get the Playbook that it makes. Raises
Malformed with everything that is wrong, a line each, as `FILE:LINE: step restart, action 2: ...`; TooLarge over a bound of
document.py.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from cronsim import CronSim, CronSimError

from models.alerts.matchers import MatcherTuple, compile_matchers, parse_matcher
from models.durations import duration_s
from models.errors import Refused
from models.incidents.incident import IncidentType, Severity
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
from models.playbook.template import check_expression, names_in

#: Steps of a playbook, and actions of a step. Our longest playbook has seven steps.
STEPS_MAX = 100
ACTIONS_MAX = 50
#: Characters of names and ids, and of a version.
NAME_MAX = 128
VERSION_MAX = 64
#: Further tries of one action.
RETRIES_MAX = 100
#: People who must agree.
NEEDED_MAX = 20
#: The longest duration: a week. What takes longer is two playbooks.
LONGEST_S = 7 * 86_400.0

_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: Any moment: whether a schedule can be read does not depend on it.
_SOME_DAY = datetime(2026, 1, 1)


class _Wrong(Exception):
    """Line, where, what: a value that can't be used."""


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
                    given[name] = getattr(self, f"_{field.kind}")(value, place)
                except _Wrong as wrong:
                    self.mistakes.wrong(*wrong.args)
            elif not rest:
                self.mistakes.wrong(node.lines[name], where, f"there is no field {name!r}{near(name, known)}")
        for field in table:
            if field.required and field.name not in node.entries:
                self.mistakes.wrong(node.line, where, f"{field.name} was expected, and is missing")
        return given

    # -- kinds of fields, as fields.py names them: the value; raises _Wrong --

    def _text(self, node: Node, where: str) -> str:
        if node.kind != "scalar" or not node.text.strip() or (node.value is None):
            raise self._expected(node, where, "a text")
        if len(node.text) > NAME_MAX and where in ("name", "playbook"):
            raise self._expected(node, where, f"a text of at most {NAME_MAX} characters")
        return node.text

    def _version(self, node: Node, where: str) -> str:
        text = self._text(node, where)
        if len(text) > VERSION_MAX:
            raise self._expected(node, where, f"a text of at most {VERSION_MAX} characters")
        return text

    def _id(self, node: Node, where: str) -> str:
        if node.kind != "scalar" or not _ID.match(node.text) or len(node.text) > NAME_MAX:
            hint = f", as {node.text.replace('-', '_')}" if node.kind == "scalar" and "-" in node.text else ""
            raise self._expected(
                node, where, f"letters, digits and underscores{hint}, so that steps.ID can be read"
            )
        if node.text in fields.RESERVED:
            raise self._expected(node, where, f"another name: {node.text} says how a step goes on")
        return node.text

    def _flag(self, node: Node, where: str) -> bool:
        if not isinstance(node.value, bool):
            hint = (
                " (YAML 1.2: yes, no, on and off are texts)"
                if node.text.lower() in ("yes", "no", "on", "off")
                else ""
            )
            raise self._expected(node, where, f"true or false{hint}")
        return node.value

    def _integer(self, node: Node, where: str) -> int:
        if isinstance(node.value, bool) or not isinstance(node.value, int) or abs(node.value) > 1_000_000:
            raise self._expected(node, where, "a whole number")
        return node.value

    def _count(self, node: Node, where: str) -> int:
        count = self._integer(node, where)
        if not 0 <= count <= RETRIES_MAX:
            raise self._expected(node, where, f"a number from 0 to {RETRIES_MAX}")
        return count

    def _positive(self, node: Node, where: str) -> int:
        count = self._integer(node, where)
        if not 1 <= count <= NEEDED_MAX:
            raise self._expected(node, where, f"a number from 1 to {NEEDED_MAX}")
        return count

    def _duration(self, node: Node, where: str) -> float:
        try:
            seconds = duration_s(node.value) if node.kind == "scalar" else None
        except ValueError:
            seconds = None
        if not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_S:
            raise self._expected(node, where, 'a duration from 1ms to 7d, such as "30s" or "5m"')
        return float(seconds)

    def _map(self, node: Node, where: str) -> dict[str, Any]:
        if node.kind != "map":
            raise self._expected(node, where, "a map of names and values")
        plain: dict[str, Any] = node.plain()
        return plain

    def _texts(self, node: Node, where: str) -> tuple[str, ...]:
        nodes = node.items if node.kind == "list" else [node]
        if not nodes:
            raise self._expected(node, where, "at least one text")
        return tuple(self._text(each, where) for each in nodes)

    def _ids(self, node: Node, where: str) -> tuple[str, ...]:
        if node.kind == "list" and not node.items:
            return ()
        return self._texts(node, where)

    def _severities(self, node: Node, where: str) -> tuple[Severity, ...]:
        return self._choices(node, where, {each.name: each for each in Severity})

    def _types(self, node: Node, where: str) -> tuple[IncidentType, ...]:
        return self._choices(node, where, {each.value: each for each in IncidentType})

    def _choices(self, node: Node, where: str, known: Mapping[str, Any]) -> tuple[Any, ...]:
        texts = self._texts(node, where)
        by_case = {name.lower(): value for name, value in known.items()}
        for text in texts:
            if text.lower() not in by_case:
                raise _Wrong(node.line, where, f"{text!r} is unknown{near(text, known)}")
        return tuple(dict.fromkeys(by_case[text.lower()] for text in texts))

    def _matchers(self, node: Node, where: str) -> tuple[MatcherTuple, ...]:
        found: list[MatcherTuple] = []
        if node.kind == "map":
            for name, each in node.entries.items():
                if each.kind != "scalar":
                    raise self._expected(each, f"{where}.{name}", "a text")
                found.append((name, "=", each.text))
        else:
            for each in node.items if node.kind == "list" else [node]:
                try:
                    found.append(parse_matcher(each.text))
                except Refused as error:
                    what = f'a matcher such as team="ml" or env=~"prod.*" ({error})'
                    raise self._expected(each, where, what) from error
        try:
            compile_matchers(found)
        except Refused as error:
            raise _Wrong(node.line, where, str(error)) from error
        return tuple(found)

    def _expression(self, node: Node, where: str) -> str:
        if isinstance(node.value, bool):
            return node.text
        text = self._text(node, where)
        try:
            check_expression(text)
        except Refused as error:
            raise _Wrong(node.line, where, str(error)) from error
        return text

    def _schedule(self, node: Node, where: str) -> str:
        text = self._text(node, where)
        try:
            next(CronSim(text, _SOME_DAY))
        except (CronSimError, StopIteration) as error:
            why = str(error) or "it never comes due"
            raise self._expected(node, where, f'a cron expression such as "0 3 * * 1" ({why})') from error
        return text

    def _backoff(self, node: Node, where: str) -> str:
        if node.text not in fields.BACKOFFS:
            raise _Wrong(node.line, where, f"{node.text!r} is unknown{near(node.text, fields.BACKOFFS)}")
        return node.text

    def _retry(self, node: Node, where: str) -> Retry:
        if node.kind != "map":
            return Retry(self._count(node, where))
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

    def _target(self, node: Node, where: str) -> str:
        return self._text(node, where)

    _otherwise = _target

    def _trigger(self, node: Node, where: str) -> Trigger:
        if node.kind != "map":
            raise self._expected(
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
            raise self._expected(node, where, "a map of who, needed, within, otherwise, message")
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
            raise self._expected(node, where, "a list of steps")
        if len(node.items) > STEPS_MAX:
            raise self._expected(node, where, f"at most {STEPS_MAX} steps")
        return [
            step for number, each in enumerate(node.items, 1) if (step := self._step(each, where, number))
        ]

    def _step(self, node: Node, where: str, number: int) -> Written:
        if node.kind != "map":
            raise self._expected(node, f"{where}, number {number}", "a step (id, type, actions)")
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

    def _step_type(self, node: Node, where: str) -> str:
        if node.text not in fields.STEP_TYPES:
            raise _Wrong(node.line, where, f"{node.text!r} is unknown{near(node.text, fields.STEP_TYPES)}")
        return node.text

    def _actions(self, node: Node, where: str) -> tuple[PlannedAction, ...]:
        if node.kind != "list" or not node.items:
            raise self._expected(node, where, "a list of at least one action")
        if len(node.items) > ACTIONS_MAX:
            raise self._expected(node, where, f"at most {ACTIONS_MAX} actions")
        step = where.rpartition(", ")[0]
        actions: list[PlannedAction] = []
        for number, each in enumerate(node.items, 1):
            try:
                actions.append(
                    self._action(each, f"{step}, action {number}", is_last=number == len(node.items))
                )
            except _Wrong as wrong:
                self.mistakes.wrong(*wrong.args)
        return tuple(actions)

    def _action(self, node: Node, where: str, *, is_last: bool, is_rollback: bool = False) -> PlannedAction:
        if node.kind != "map":
            raise self._expected(node, where, "an action (type, and what it takes)")
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
        raise _Wrong(node.line, where, f"there is no action {node.text!r}{near(node.text, self.kinds)}")

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

    def _expected(self, node: Node, where: str, what: str) -> Any:
        """Notes what was expected. Returns None: there is no value."""
        raise _Wrong(node.line, where, f"{what} was expected, not {node.kind_in_words}" + _shown(node))


def _shown(node: Node) -> str:
    if node.kind != "scalar" or not node.text:
        return ""
    return f" ({node.text[:40]!r})"


def _with(trigger: Trigger, name: str, value: Any) -> Trigger:
    return msgspec.structs.replace(trigger, **{name: value})
