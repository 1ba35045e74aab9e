"""The filters and tests of templates: those of Jinja2 that can be bounded, and our own of the same name where theirs can't.

Each asks the budget first, gives a list instead of something that is made while it is read, and leaves what it was given as it
was. Left out are those that write HTML, that depend on chance, and `format`, whose widths nobody can bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2 import pass_context
from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.tests import TESTS as DEFAULT_TESTS

from models.errors import Malformed
from models.playbook.budget import ITEMS_MAX, Budget

#: Where the budget of a rendering lies in its context: no template can name it.
BUDGET = " budget"
#: And what every value that is written goes through.
WRITTEN = " written"

#: Those whose cost is that of reading what they are given, and of what they return.
_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "filesizeformat", "first", "float", "groupby", "int", "items", "last", "length",
    "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "title",
    "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
)  # fmt: skip
_TESTS = (
    "!=", "<", "<=", "==", ">", ">=", "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "float", "ge", "greaterthan", "gt", "in",
    "integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none", "number", "odd", "sameas", "sequence", "string", "true",
    "undefined", "upper",
)  # fmt: skip
#: Sorting is some ten times the work of reading.
_SORTING = frozenset({"dictsort", "groupby", "max", "min", "sort", "unique"})
#: Decimal places of a number: more than a float has.
_PLACES_MAX = 20

Function = Callable[..., Any]


def budget_of(context: Context) -> Budget:
    budget = context.get(BUDGET)
    assert isinstance(budget, Budget)
    return budget


def text_of(budget: Budget, value: object) -> str:
    """A value as text, as `{{ }}` writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, Undefined):
        return str(value)  # says what is missing
    budget.text(budget.look_through(value))
    return str(value)


def _center(budget: Budget, value: Any, width: int = 80) -> str:
    text = text_of(budget, value)
    budget.text(max(width, len(text)))
    return text.center(width)


def _indent(budget: Budget, value: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
    lines = text_of(budget, value).splitlines() or [""]
    budget.text(sum(map(len, lines)) + len(lines) * (max(width, 0) + 1))
    space = " " * width
    return "\n".join(
        space + line if (line or blank) and (number or first) else line for number, line in enumerate(lines)
    )


def _join(budget: Budget, value: Any, d: str = "", attribute: str | None = None) -> str:
    budget.look(value)
    texts = [text_of(budget, each if attribute is None else _attribute(each, attribute)) for each in value]
    budget.text(sum(map(len, texts)) + len(d) * len(texts))
    return d.join(texts)


def _replace(budget: Budget, value: Any, old: str, new: str, count: int = -1) -> str:
    text = text_of(budget, value)
    found = text.count(old)
    found = found if count is None or count < 0 else min(found, count)
    budget.text(len(text) + found * max(len(new) - len(old), 0))
    return text.replace(old, new, found)


def _round(budget: Budget, value: float, precision: int = 0, method: str = "common") -> float:
    if abs(precision) > _PLACES_MAX:
        raise Malformed(f"template: round: a precision of at most {_PLACES_MAX} places was expected")
    rounded: float = DEFAULT_FILTERS["round"](value, precision, method)
    return rounded


def _sum(budget: Budget, value: Any, attribute: str | None = None, start: float = 0) -> float:
    budget.look(value)
    total = start
    for each in value:
        number = each if attribute is None else _attribute(each, attribute)
        if isinstance(number, Undefined):
            str(number)
        if not isinstance(number, int | float):
            raise Malformed("template: sum: numbers were expected")
        total += number
    return total


def _batch(budget: Budget, value: Any, linecount: int, fill_with: Any = None) -> list[Any]:
    budget.items(linecount)
    budget.look(value)
    return list(DEFAULT_FILTERS["batch"](list(value), linecount, fill_with))


def _slice(budget: Budget, value: Any, slices: int, fill_with: Any = None) -> list[Any]:
    budget.items(slices)
    budget.look(value)
    parts = list(value)
    size, more = divmod(len(parts), slices)
    out, at = [], 0
    for number in range(slices):
        upto = at + size + (number < more)
        out.append(
            parts[at:upto] + ([fill_with] if fill_with is not None and more and number >= more else [])
        )
        at = upto
    return out


def _string(budget: Budget, value: Any) -> str:
    return text_of(budget, value)


def _tojson(budget: Budget, value: Any, indent: int | None = None) -> str:
    budget.text(budget.look_through(value))
    if indent is not None and not 0 <= indent <= 8:
        raise Malformed("template: tojson: an indent from 0 to 8 was expected")
    return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)


def _split(budget: Budget, value: Any, sep: str | None = None) -> list[str]:
    text = text_of(budget, value)
    budget.items(text.count(sep) + 1 if sep else len(text) // 2 + 1)
    return text.split(sep)


_OURS: dict[str, Function] = {
    "batch": _batch, "center": _center, "indent": _indent, "join": _join, "replace": _replace, "round": _round, "slice": _slice,
    "split": _split, "string": _string, "sum": _sum, "tojson": _tojson,
}  # fmt: skip


def _attribute(of: Any, name: str) -> Any:
    """`labels.severity` of each, as the other filters read `attribute`."""
    for part in name.split("."):
        if not isinstance(of, Mapping) or part not in of:
            raise Malformed(f"template: an item has no {part!r}")
        of = of[part]
    return of


def _asked(name: str, function: Any) -> Function:
    """A filter or test of Jinja2, as one that asks the budget."""
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", "")
    weight = 10 if name in _SORTING else 1

    @pass_context
    def ask(context: Context, *args: Any, **named: Any) -> Any:
        budget = budget_of(context)
        texts, items, path = 1, 0, 1
        for value in (*args, *named.values()):
            if isinstance(value, str):
                # What looks for one text in another may take as long as both lengths multiplied.
                texts *= 1 + len(value) // 256
                # `attribute` is a path that is followed for each item.
                path = max(path, 1 + value.count("."))
            elif isinstance(value, list | tuple | Mapping):
                items += len(value)
        budget.spend(texts + weight * items * path)
        first = {
            "context": context,
            "eval_context": context.eval_ctx,
            "environment": context.environment,
        }.get(passed)
        made = function(*args, **named) if first is None else function(first, *args, **named)
        if isinstance(made, Iterator):
            made = _listed(budget, made)
        if (
            name == "groupby"
        ):  # a list in a list: made again and again it would grow without a longer list anywhere
            return budget.made(made)
        if isinstance(made, str):
            budget.text(len(made))
        elif isinstance(made, int):
            budget.integer(made.bit_length())
        elif isinstance(made, list | tuple):
            budget.look(made)
        return made

    return ask


def _listed(budget: Budget, items: Iterator[Any]) -> list[Any]:
    listed: list[Any] = []
    for item in items:
        listed.append(item)
        if len(listed) > ITEMS_MAX:
            budget.items(len(listed))
    return listed


def _ours(function: Function) -> Function:
    @pass_context
    def ask(context: Context, *args: Any, **named: Any) -> Any:
        return budget_of(context).made(function(budget_of(context), *args, **named))

    return ask


FILTERS: dict[str, Function] = {name: _asked(name, DEFAULT_FILTERS[name]) for name in _FILTERS} | {
    name: _ours(function) for name, function in _OURS.items()
}
TESTS: dict[str, Function] = {name: _asked(name, DEFAULT_TESTS[name]) for name in _TESTS}
