"""Templates and expressions, as playbooks, routes and messages have them: `render`, `render_value`, `holds`.

The language is Jinja2's, in a sandbox (models/playbook/sandbox.py): it reads the plain data that it is given, and does nothing else.
Every rendering is bounded by counting, so that the worst template ends in some 30 ms with an error that says why. Compiled ones are
kept. A name that is not there is an error, never an empty text.

Called where playbooks run and messages are made (responders, the CLI); a shard or gateway never imports it.

All errors are Refused: Malformed for what can't be read, is not known or does not fit together; TooLarge for what is over a bound.
They name what is wrong, never a value.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateAssertionError, TemplateSyntaxError, UndefinedError
from jinja2.runtime import Undefined

from models.errors import Malformed, Refused, TooLarge
from models.playbook.budget import TEXT_MAX, Budget
from models.playbook.filters import BUDGET, FILTERS, TESTS, WRITTEN
from models.playbook.sandbox import Sandbox, bound

#: Characters of one template. The longest message template that we know of (a Slack message with fields) has 4,000.
SOURCE_MAX = 16 * 1024
#: Compiled templates that are kept: all of some fifty playbooks.
_KEPT = 1024
#: Levels of lists and objects in a value that is rendered: what the reading of playbooks allows, and a little.
_DEPTH_MAX = 40
#: What an expression's value is called in the compiled template. No template can read it: it is set last.
_VALUE = "value_of_the_expression"

_SANDBOX = Sandbox()
_MARKS = ("{{", "{%", "{#")


def is_template(text: str) -> bool:
    """Whether it has anything to render."""
    return any(mark in text for mark in _MARKS)


def render(
    text: str,
    context: Mapping[str, Any],
    *,
    written: Callable[[str], str] | None = None,
    budget: Budget | None = None,
) -> str:
    """The text with its templates filled in: at most TEXT_MAX characters. `context` is plain data (numbers, texts, lists, objects
    by key). What each `{{ }}` gives goes through `written`, as to escape it; the template's own text does not. Raises Malformed,
    TooLarge."""
    if not is_template(text):
        return text
    with _told():
        template = _text(text)
        budget = budget or Budget()
        pieces, chars = [], 0
        for piece in template.root_render_func(_context(template, context, budget, written)):
            pieces.append(piece)
            chars += len(piece)
            if chars > TEXT_MAX:
                raise TooLarge(f"template: it writes more than {TEXT_MAX:,} characters")
        return "".join(pieces)


def render_value(value: Any, context: Mapping[str, Any]) -> Any:
    """The value with all templates within it filled in; keys of objects stay. A text that is one `{{ }}` and nothing else becomes
    what that gives, a number or a list too; within a list, a list that it gives is put in item by item. All of it together is
    bounded as one rendering is. Raises Malformed, TooLarge."""
    return _filled(value, context, Budget(), 0)


def evaluate(expression: str, context: Mapping[str, Any], *, budget: Budget | None = None) -> Any:
    """What an expression gives: `a.b == 1`, or the same in `{{ }}`. Raises Malformed, TooLarge."""
    with _told():
        template = _expression(expression)
        budget = budget or Budget()
        running = _context(template, context, budget)
        for _ in template.root_render_func(running):
            pass
        value = running.vars[_VALUE]
        if isinstance(value, Undefined):
            str(value)  # raises, and says what is missing
        budget.look_through(value)
        return budget.made(value)


def holds(expression: str, context: Mapping[str, Any]) -> bool:
    """Whether a condition holds: `a.b == 1`, or the same in `{{ }}`. A text counts by what it says: "", "false", "no" and "0" do not
    hold. Raises Malformed, TooLarge."""
    value = evaluate(expression, context)
    if isinstance(value, str):
        return value.strip().lower() not in _NO
    return bool(value)


def check(text: str) -> None:
    """Raises Malformed or TooLarge when a text can't be rendered whatever the context is."""
    if is_template(text):
        with _told():
            _text(text)


def check_expression(expression: str) -> None:
    """Raises Malformed or TooLarge when an expression can't be evaluated whatever the context is."""
    with _told():
        _expression(expression)


def names_in(text: str, *, expression: bool = False) -> list[tuple[str, ...]]:
    """The paths that a template reads, as ("steps", "a", "status"), as far as they are written out. Raises Malformed, TooLarge."""
    if not expression and not is_template(text):
        return []
    with _told():
        tree = _SANDBOX.parse(_within(text) if expression else text)
        paths, inner = [], set()
        for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Name)):
            if id(node) in inner:
                continue
            path: list[str] = []
            at: nodes.Node = node
            while True:
                inner.add(id(at))
                if isinstance(at, nodes.Getattr):
                    path.append(at.attr)
                    at = at.node
                elif isinstance(at, nodes.Getitem):
                    if not (isinstance(at.arg, nodes.Const) and isinstance(at.arg.value, str)):
                        path.clear()
                    else:
                        path.append(at.arg.value)
                    at = at.node
                else:
                    break
            if isinstance(at, nodes.Name) and at.ctx == "load":
                paths.append((at.name, *reversed(path)))
        own = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"} | {
            "loop",
            *_SANDBOX.globals,
        }
        return [path for path in paths if path[0] not in own]


_NO = frozenset(("", "false", "no", "0", "none", "off"))


def _filled(value: Any, context: Mapping[str, Any], budget: Budget, depth: int) -> Any:
    budget.spend(1)
    if depth > _DEPTH_MAX:
        raise TooLarge(f"template: lists and objects more than {_DEPTH_MAX} levels deep")
    if isinstance(value, str):
        if not is_template(value):
            return value
        return (
            evaluate(value, context, budget=budget)
            if _is_one(value)
            else render(value, context, budget=budget)
        )
    if isinstance(value, Mapping):
        return {key: _filled(each, context, budget, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        filled: list[Any] = []
        for each in value:
            made = _filled(each, context, budget, depth + 1)
            if isinstance(made, list | tuple) and isinstance(each, str):
                filled.extend(made)
            else:
                filled.append(made)
        return filled
    return value


@functools.lru_cache(_KEPT)
def _is_one(text: str) -> bool:
    """Whether it is one `{{ }}` and nothing else."""
    with _told():
        _bounded(text)
        return _lone(_SANDBOX.parse(text)) is not None


def _lone(tree: nodes.Template) -> nodes.Expr | None:
    match tree.body:
        case [nodes.Output(nodes=[nodes.Expr() as only])] if not isinstance(only, nodes.TemplateData):
            return only
    return None


def _within(expression: str) -> str:
    bare = expression.strip()
    return bare if bare.startswith("{{") else "{{ " + bare + " }}"


@functools.lru_cache(_KEPT)
def _text(text: str) -> Template:
    _bounded(text)
    return _compiled(bound(_SANDBOX.parse(text)))


@functools.lru_cache(_KEPT)
def _expression(expression: str) -> Template:
    _bounded(expression)
    if not expression.strip():
        raise Malformed("template: an expression was expected, not an empty text")
    only = _lone(_SANDBOX.parse(_within(expression).strip()))
    if only is None:
        raise Malformed("template: one expression was expected, as in {{ steps.restart.status == 'failed' }}")
    tree = nodes.Template([nodes.Assign(nodes.Name(_VALUE, "store"), only, lineno=1)], lineno=1)
    tree.set_environment(_SANDBOX)
    return _compiled(bound(tree))


def _compiled(tree: nodes.Template) -> Template:
    code = _SANDBOX.compile(tree)
    return Template.from_code(_SANDBOX, code, dict(_SANDBOX.globals))


def _bounded(source: str) -> None:
    if len(source) > SOURCE_MAX:
        raise TooLarge(f"template: more than {SOURCE_MAX:,} characters")


def _context(
    template: Template,
    context: Mapping[str, Any],
    budget: Budget,
    written: Callable[[str], str] | None = None,
) -> Any:
    return template.new_context({**context, BUDGET: budget, WRITTEN: written})


@contextmanager
def _told() -> Iterator[None]:
    """Foreign errors in our words."""
    try:
        yield
    except Refused:
        raise
    except TemplateAssertionError as error:
        raise Malformed(
            f"template: line {error.lineno}: {error.message}{_near(error.message or '')}"
        ) from error
    except TemplateSyntaxError as error:
        raise Malformed(f"template: line {error.lineno}: {error.message}") from error
    except UndefinedError as error:
        raise Malformed(f"template: {error.message}") from error
    except SecurityError as error:
        raise Malformed(f"template: {error.message}") from error
    except AttributeError as error:  # only names with underscores get so far
        raise Malformed("template: access to a name with underscores is not allowed") from error
    except (
        RecursionError,
        MemoryError,
        SyntaxError,
    ) as error:  # Python's compiler has its own limits of nesting
        raise TooLarge("template: it is nested too deeply") from error
    except OverflowError as error:
        raise TooLarge("template: a number is too large") from error
    except ZeroDivisionError as error:
        raise Malformed("template: division by zero") from error
    except Exception as error:
        # Whatever a filter or operator says of values that do not fit: the kind of error, without the values.
        why = (
            str(error).splitlines()[0][:200]
            if isinstance(error, TypeError) and str(error)
            else type(error).__name__
        )
        raise Malformed(f"template: the values do not fit together: {why}") from error


def _near(message: str) -> str:
    """`No filter named 'uper'.` is near `upper`."""
    parts = message.split("'")
    if len(parts) < 2:
        return ""
    near = difflib.get_close_matches(
        parts[1], [name for name in (*FILTERS, *TESTS) if name.isidentifier()], 1
    )
    return f" Did you mean {near[0]!r}?" if near else ""
