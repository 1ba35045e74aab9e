"""What a playbook expects of an HTTP answer: a status (200), a class of them ("2xx"), or a list of these."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from services.actions.outbound import Answer

_CLASS = re.compile(r"([1-5])xx", re.IGNORECASE)


def statuses_of(expect: Any) -> Callable[[int], bool]:
    """Which statuses are meant. Raises ValueError."""
    if isinstance(expect, list | tuple):
        meant = [statuses_of(each) for each in expect]
        if not meant:
            raise ValueError("expect: expected at least one status")
        return lambda status: any(each(status) for each in meant)
    text = str(expect).strip()
    if (found := _CLASS.fullmatch(text)) is not None:
        first = int(found[1]) * 100
        return lambda status: first <= status < first + 100
    if text.isascii() and text.isdigit() and 100 <= int(text) <= 599:
        exact = int(text)
        return lambda status: status == exact
    raise ValueError(f"expect: expected a status such as 200 or 2xx, or a list of them, not {text[:40]!r}")


def why_unexpected(answer: Answer, expect: Any, contains: str) -> str:
    """What about an answer is not as expected, "" if all is. Raises ValueError for an `expect` that can't be read."""
    if not statuses_of(expect)(answer.status):
        redirect = ", a redirect, which is not followed" if 300 <= answer.status < 400 else ""
        return f"answered {answer.status}{redirect}, not {_written(expect)}"
    if contains and contains not in answer.text:
        return f"answered {answer.status} without {contains[:60]!r}"
    return ""


def _written(expect: Any) -> str:
    return " or ".join(map(str, expect)) if isinstance(expect, list | tuple) else str(expect)
