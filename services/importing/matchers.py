"""Matchers of Alertmanager's three spellings, as ours."""

from __future__ import annotations

from models.alerts.matchers import parse_filters, write_matcher
from models.errors import Malformed, TooLarge
from services.importing.given import Given


def matchers_of(given: Given, plain: str, pattern: str, newer: str) -> list[str] | None:
    """What stands under `match`, `match_re` and `matchers`, by the keys they have here; all must hold. None if one can't be
    written here, which is reported: without it, what it belongs to would take what it should not."""
    found: list[str] = []
    is_good = True
    for key, operator in ((plain, "="), (pattern, "=~")):
        for name, node in given.pairs(key):
            is_good &= _add(found, given, node.line, write_matcher((name, operator, node.text)))
    for node in given.items(newer):
        bare = node.text.strip()
        # In one text there may be several, in braces or without.
        inner = bare[1:-1] if bare.startswith("{") and bare.endswith("}") else bare
        if inner.strip():
            is_good &= _add(found, given, node.line, "{" + inner + "}")
    return found if is_good else None


def _add(found: list[str], given: Given, line: int, text: str) -> bool:
    try:
        found += map(write_matcher, parse_filters([text]))
    except (Malformed, TooLarge) as error:
        given.report.say(line, f"matcher {text.strip('{}')!r} can't be used: {error}")
        return False
    return True
