"""The values of single fields of a playbook: what each kind of field (fields.py) takes, and what was expected where it is something
else. Used by reading.py, which reads what is made of several fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cronsim import CronSim, CronSimError

from models.alerts.matchers import MatcherTuple, compile_matchers, parse_matcher
from models.durations import duration_s
from models.errors import Refused
from models.incidents.incident import IncidentType, Severity
from models.playbook import fields
from models.playbook.document import Node
from models.playbook.mistakes import near
from models.playbook.template import check_expression

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


class Wrong(Exception):
    """Line, where, what: a value that can't be used."""


def _text(node: Node, where: str) -> str:
    if node.kind != "scalar" or not node.text.strip() or (node.value is None):
        raise expected(node, where, "a text")
    if len(node.text) > NAME_MAX and where in ("name", "playbook"):
        raise expected(node, where, f"a text of at most {NAME_MAX} characters")
    return node.text


def _version(node: Node, where: str) -> str:
    text = _text(node, where)
    if len(text) > VERSION_MAX:
        raise expected(node, where, f"a text of at most {VERSION_MAX} characters")
    return text


def _id(node: Node, where: str) -> str:
    if node.kind != "scalar" or not _ID.match(node.text) or len(node.text) > NAME_MAX:
        hint = f", as {node.text.replace('-', '_')}" if node.kind == "scalar" and "-" in node.text else ""
        raise expected(node, where, f"letters, digits and underscores{hint}, so that steps.ID can be read")
    if node.text in fields.RESERVED:
        raise expected(node, where, f"another name: {node.text} says how a step goes on")
    return node.text


def _flag(node: Node, where: str) -> bool:
    if not isinstance(node.value, bool):
        hint = (
            " (YAML 1.2: yes, no, on and off are texts)"
            if node.text.lower() in ("yes", "no", "on", "off")
            else ""
        )
        raise expected(node, where, f"true or false{hint}")
    return node.value


def _integer(node: Node, where: str) -> int:
    if isinstance(node.value, bool) or not isinstance(node.value, int) or abs(node.value) > 1_000_000:
        raise expected(node, where, "a whole number")
    return node.value


def _count(node: Node, where: str) -> int:
    count = _integer(node, where)
    if not 0 <= count <= RETRIES_MAX:
        raise expected(node, where, f"a number from 0 to {RETRIES_MAX}")
    return count


def _positive(node: Node, where: str) -> int:
    count = _integer(node, where)
    if not 1 <= count <= NEEDED_MAX:
        raise expected(node, where, f"a number from 1 to {NEEDED_MAX}")
    return count


def _duration(node: Node, where: str) -> float:
    try:
        seconds = duration_s(node.value) if node.kind == "scalar" else None
    except ValueError:
        seconds = None
    if not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_S:
        raise expected(node, where, 'a duration from 1ms to 7d, such as "30s" or "5m"')
    return float(seconds)


def _map(node: Node, where: str) -> dict[str, Any]:
    if node.kind != "map":
        raise expected(node, where, "a map of names and values")
    plain: dict[str, Any] = node.plain()
    return plain


def _texts(node: Node, where: str) -> tuple[str, ...]:
    nodes = node.items if node.kind == "list" else [node]
    if not nodes:
        raise expected(node, where, "at least one text")
    return tuple(_text(each, where) for each in nodes)


def _ids(node: Node, where: str) -> tuple[str, ...]:
    if node.kind == "list" and not node.items:
        return ()
    return _texts(node, where)


def _severities(node: Node, where: str) -> tuple[Severity, ...]:
    return _choices(node, where, {each.name: each for each in Severity})


def _types(node: Node, where: str) -> tuple[IncidentType, ...]:
    return _choices(node, where, {each.value: each for each in IncidentType})


def _choices(node: Node, where: str, known: Mapping[str, Any]) -> tuple[Any, ...]:
    texts = _texts(node, where)
    by_case = {name.lower(): value for name, value in known.items()}
    for text in texts:
        if text.lower() not in by_case:
            raise Wrong(node.line, where, f"{text!r} is unknown{near(text, known)}")
    return tuple(dict.fromkeys(by_case[text.lower()] for text in texts))


def _matchers(node: Node, where: str) -> tuple[MatcherTuple, ...]:
    found: list[MatcherTuple] = []
    if node.kind == "map":
        for name, each in node.entries.items():
            if each.kind != "scalar":
                raise expected(each, f"{where}.{name}", "a text")
            found.append((name, "=", each.text))
    else:
        for each in node.items if node.kind == "list" else [node]:
            try:
                found.append(parse_matcher(each.text))
            except Refused as error:
                what = f'a matcher such as team="ml" or env=~"prod.*" ({error})'
                raise expected(each, where, what) from error
    try:
        compile_matchers(found)
    except Refused as error:
        raise Wrong(node.line, where, str(error)) from error
    return tuple(found)


def _expression(node: Node, where: str) -> str:
    if isinstance(node.value, bool):
        return node.text
    text = _text(node, where)
    try:
        check_expression(text)
    except Refused as error:
        raise Wrong(node.line, where, str(error)) from error
    return text


def _each(node: Node, where: str) -> str:
    """A list as it is written, or an expression that gives one."""
    if node.kind != "list":
        return _expression(node, where)
    text = repr(node.plain())
    try:
        check_expression(text)
    except Refused as error:
        raise expected(node, where, "a list of texts, numbers and maps of these, or an expression") from error
    return text


def _schedule(node: Node, where: str) -> str:
    text = _text(node, where)
    try:
        next(CronSim(text, _SOME_DAY))
    except (CronSimError, StopIteration) as error:
        why = str(error) or "it never comes due"
        raise expected(node, where, f'a cron expression such as "0 3 * * 1" ({why})') from error
    return text


def _backoff(node: Node, where: str) -> str:
    if node.text not in fields.BACKOFFS:
        raise Wrong(node.line, where, f"{node.text!r} is unknown{near(node.text, fields.BACKOFFS)}")
    return node.text


def _step_type(node: Node, where: str) -> str:
    if node.text not in fields.STEP_TYPES:
        raise Wrong(node.line, where, f"{node.text!r} is unknown{near(node.text, fields.STEP_TYPES)}")
    return node.text


def expected(node: Node, where: str, what: str) -> Any:
    """Notes what was expected. Returns None: there is no value."""
    raise Wrong(node.line, where, f"{what} was expected, not {node.kind_in_words}" + _shown(node))


def _shown(node: Node) -> str:
    if node.kind != "scalar" or not node.text:
        return ""
    return f" ({node.text[:40]!r})"


#: How each kind is read. Each takes the node and where it stands, and raises Wrong.
VALUES: dict[str, Callable[[Node, str], Any]] = {
    "text": _text, "version": _version, "id": _id, "flag": _flag, "integer": _integer, "count": _count, "positive": _positive, "duration": _duration, "map": _map, "texts": _texts, "ids": _ids, "severities": _severities, "types": _types, "matchers": _matchers, "expression": _expression, "each": _each, "schedule": _schedule, "backoff": _backoff, "step_type": _step_type, "target": _text, "otherwise": _text,
}  # fmt: skip
