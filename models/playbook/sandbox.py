"""The sandbox in which all templates run: Jinja2's own, reduced to what can be bounded.

Before a template is compiled its tree is checked and changed. Statements that define or load something (macros, imports, blocks)
are refused, and each place where much can be made from little asks the budget: loops pay for their whole body before the first
turn, literals, comparisons and joined texts for their size. Operators, filters, methods and what is written ask for themselves.

A template sees plain data only: numbers, texts, lists, and objects by key. It can call nothing but the methods listed here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from models.errors import Malformed, TooLarge
from models.playbook.budget import ITEMS_MAX
from models.playbook.filters import FILTERS, TESTS, WRITTEN, budget_of, text_of

#: Parts of one template's tree. A long message has two hundred; compiling so many takes some 50 ms.
NODES_MAX = 1_000

_ALLOWED = (
    nodes.Template, nodes.Output, nodes.For, nodes.If, nodes.Assign, nodes.With, nodes.Expr, nodes.Pair, nodes.Keyword, nodes.Operand,
)  # fmt: skip
#: Methods that may be called, by the type they belong to. What could make much from little has a filter instead.
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        ("upper", "lower", "title", "capitalize", "strip", "lstrip", "rstrip", "startswith", "endswith", "split", "rsplit",
         "partition", "rpartition", "splitlines", "removeprefix", "removesuffix", "find", "count", "isdigit", "isalpha", "isalnum"),
    ),
    dict: frozenset(("get", "keys", "values", "items")),
    list: frozenset(("index", "count")),
    tuple: frozenset(("index", "count")),
    float: frozenset(("is_integer",)),
}  # fmt: skip
#: What Jinja2 gives each call beside what was written, for functions that take a context.
_CALL_EXTRAS = frozenset(("_loop_vars", "_block_vars"))
_LOOP = frozenset(
    ("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "depth", "cycle", "changed")
)  # fmt: skip


#: What Jinja2 says of a name that is not within something.
_NOTHING = Undefined()._undefined_obj


class Missing(StrictUndefined):
    """A name that is not there. Using it says which, and the nearest one that is."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        name, of = self._undefined_name, self._undefined_obj
        if of is _NOTHING:  # it is a name by itself
            return f"{name!r} is not known here"
        if isinstance(of, Mapping):
            near = difflib.get_close_matches(str(name), [str(key) for key in list(of)[:1000]], 1)
            return f"there is no {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        return f"{_kind(of)} has no {name!r}"


class Sandbox(ImmutableSandboxedEnvironment):
    """One for all templates: it keeps nothing of any of them."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            undefined=Missing, autoescape=False, optimized=False, cache_size=0, finalize=_written
        )
        self.filters = {**FILTERS, **_INNER}
        self.tests = dict(TESTS)
        self.globals = {"range": _range}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What an object has under this key comes before its methods: a label may be called `items`."""
        if isinstance(obj, Mapping):
            try:
                return obj[attribute]
            except KeyError:
                pass
        if attribute in _METHODS.get(dict if isinstance(obj, Mapping) else type(obj), ()):
            return getattr(obj, attribute)
        if isinstance(obj, Undefined) or (isinstance(obj, LoopContext) and attribute in _LOOP):
            return getattr(obj, attribute)
        if isinstance(obj, tuple) and attribute in getattr(obj, "_fields", ()):
            return getattr(obj, attribute)
        if attribute.startswith("_"):
            return self.undefined(
                f"access to {attribute!r} is not allowed", name=attribute, exc=SecurityError
            )
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            return obj[argument]  # says what is missing
        try:
            if isinstance(obj, Mapping | list | tuple | str):
                return obj[argument]
        except (TypeError, LookupError):
            pass
        return (
            self.getattr(obj, argument)
            if isinstance(argument, str)
            else self.undefined(obj=obj, name=argument)
        )

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        kwargs = {name: value for name, value in kwargs.items() if name not in _CALL_EXTRAS}
        budget, owner = budget_of(__context), getattr(__obj, "__self__", None)
        name = getattr(__obj, "__name__", "")
        if __obj is _range:
            return budget.made(_range(*args, **kwargs))
        if isinstance(owner, LoopContext) and name in _LOOP:
            budget.spend(1)
            return __obj(*args, **kwargs)
        if name not in _METHODS.get(dict if isinstance(owner, Mapping) else type(owner), ()):
            raise SecurityError(f"{name or 'this'} can't be called")
        steps = 1 + (len(owner) if isinstance(owner, Mapping | list | tuple) else 0)
        for value in (owner, *args):
            if isinstance(value, str):
                steps *= 1 + len(value) // 256
            elif isinstance(owner, list | tuple):
                steps *= 1 + budget.look_through(value)
        budget.spend(steps)
        made = __obj(*args, **kwargs)
        if isinstance(owner, Mapping) and name != "get":
            return list(made)
        return budget.made(made) if isinstance(owner, str) else made

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = budget_of(context)
        both = (left, right)
        for value in both:
            if isinstance(value, Undefined):
                str(value)  # says what is missing
        if all(isinstance(value, int | float) for value in both):
            budget.integer(_bits(operator, left, right))
        elif operator == "+" and all(isinstance(value, str) for value in both):
            budget.text(len(left) + len(right))
        elif operator == "+" and all(isinstance(value, list) for value in both):
            budget.items(len(left) + len(right))
        elif operator == "*" and isinstance(left, str) and isinstance(right, int):
            budget.text(len(left) * max(right, 0))
        else:
            raise Malformed(
                f"template: {_kind(left)} {operator} {_kind(right)} is not possible; numbers were expected"
            )
        return self.binop_table[operator](left, right)


def bound(tree: nodes.Template) -> nodes.Template:
    """The same tree, in which everything that can grow asks the budget. Raises Malformed for a statement that templates may not
    use, TooLarge for a tree of too many parts."""
    _bound(tree)
    return tree


def _bound(node: nodes.Node) -> int:
    """Changes what lies within a node, and returns how many parts it has: what one turn of a loop costs."""
    if isinstance(node, nodes.TemplateData):
        return 1 + len(node.data) // 256
    if not isinstance(node, _ALLOWED) or isinstance(node, nodes.NSRef):
        raise Malformed(f"template: line {node.lineno}: {_statement(node)} can't be used in a template here")
    parts = 1
    for field, value in list(node.iter_fields()):
        if isinstance(value, nodes.Node):
            parts += _bound(value)
            setattr(node, field, _asking(value))
        elif isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, nodes.Node):
                    parts += _bound(each)
                    value[index] = _asking(each)
    if isinstance(node, nodes.For):
        if node.recursive:
            raise Malformed(
                f"template: line {node.lineno}: a recursive loop can't be used in a template here"
            )
        node.iter = _filter(node.iter, "(each)", nodes.Const(parts, lineno=node.lineno))
    elif isinstance(node, nodes.Operand | nodes.Compare):
        node.expr = _filter(node.expr, "(compared)")
    if parts > NODES_MAX:
        raise TooLarge(f"template: more than {NODES_MAX:,} parts in one template")
    return parts


def _asking(node: Any) -> Any:
    """What stands in the place of an expression that makes something: the same, and the budget is asked."""
    if isinstance(node, nodes.Concat):
        return _filter(node.nodes[0], "(joined)", *node.nodes[1:])
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        if isinstance(node.node, nodes.Const):  # Python warns of `5[1:]` when it compiles it
            node.node = _filter(node.node, "(made)")
        return _filter(node, "(made)")
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict) and getattr(node, "ctx", "load") == "load":
        return _filter(node, "(made)")
    return node


def _filter(of: Any, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(of, name, list(args), [], None, None, lineno=of.lineno)


@pass_context
def _each(context: Context, value: Any, parts: int) -> Any:
    budget = budget_of(context)
    if not isinstance(value, str | list | tuple | Mapping):
        if isinstance(value, Undefined):
            str(value)
        raise Malformed(f"template: a list was expected to loop over, not {_kind(value)}")
    budget.spend(1 + len(value) * parts)
    return value


@pass_context
def _compared(context: Context, value: Any) -> Any:
    if isinstance(value, list | tuple | Mapping | str):
        budget_of(context).look_through(value)
    return value


@pass_context
def _made(context: Context, value: Any) -> Any:
    return budget_of(context).made(value)


@pass_context
def _joined(context: Context, *values: Any) -> str:
    budget = budget_of(context)
    texts = [text_of(budget, value) for value in values]
    budget.text(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def _written(context: Context, value: Any) -> str:
    """What `{{ }}` writes."""
    text = text_of(budget_of(context), value)
    through: Callable[[str], str] | None = context.get(WRITTEN)
    return text if through is None else through(text)


_INNER: dict[str, Callable[..., Any]] = {
    "(each)": _each, "(compared)": _compared, "(made)": _made, "(joined)": _joined,
}  # fmt: skip


def _range(start: int, stop: int | None = None, step: int = 1) -> list[int]:
    first, end = (0, start) if stop is None else (start, stop)
    numbers = range(first, end, step)
    if len(numbers) > ITEMS_MAX:
        raise TooLarge(f"template: range: at most {ITEMS_MAX:,} numbers")
    return list(numbers)


def _bits(operator: str, left: Any, right: Any) -> int:
    """How many bits the result may have. A float is as large as it is, and raises OverflowError by itself."""
    if isinstance(left, float) or isinstance(right, float):
        return 1
    bits: int = max(left.bit_length(), right.bit_length())
    if operator == "**":
        bits = left.bit_length() * max(right, 1)
    elif operator == "*":
        bits = left.bit_length() + right.bit_length()
    return bits


def _kind(value: object) -> str:
    names: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "a yes or no"), ((int, float), "a number"), (str, "a text"), ((list, tuple), "a list"), (Mapping, "an object"),
        (type(None), "nothing"),
    ]  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), "this")


def _statement(node: nodes.Node) -> str:
    return {"Macro": "a macro", "CallBlock": "a call block", "FilterBlock": "a filter block", "AssignBlock": "a set block",
            "NSRef": "a namespace"}.get(type(node).__name__, f"`{type(node).__name__.lower()}`")  # fmt: skip
