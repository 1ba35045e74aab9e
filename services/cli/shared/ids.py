"""Which incidents are meant: whole ids, parts of them, `-` for a list on stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any
from uuid import UUID

import typer

from services.cli.shared.client import Client
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.where import client_of

PATH = "/v1/incidents"
#: The largest page the server gives (models/incidents/query.py, PAGE_MAX).
PAGE_MAX = 1000
#: How far back a shortened id is looked for: ten pages, a second or two.
LOOKED_THROUGH = 10 * PAGE_MAX
#: Shorter ones would name several incidents sooner or later.
SHORTEST_ID = 4
#: A shell completes while a person waits with a finger on the key.
_COMPLETION_TIMEOUT_S = 1.0
_COMPLETIONS = 100

_HELP = "The whole id, or four or more characters of its beginning or end"


def _complete(incomplete: str) -> list[tuple[str, str]]:
    """Ids of the newest incidents, with their titles; none when nobody answers at once."""
    from services.cli.shared.terminal import plain

    try:
        client = client_of(None, None, timeout_s=_COMPLETION_TIMEOUT_S)
        body = client.get(PATH, [("limit", str(_COMPLETIONS))]).json()
        items = [(str(each["id"]), plain(each["title"])) for each in body["items"]]
    except (Failure, KeyError, TypeError):
        return []
    # A part that fits the end is completed to the whole id; the shell shows only those that begin so.
    return [(identity, title) for identity, title in items if identity.startswith(incomplete.lower())]


OneId = Annotated[str, typer.Argument(metavar="ID", help=f"{_HELP}.", autocompletion=_complete)]
ManyIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        help=f"{_HELP}; - reads ids from stdin.",
        show_default=False,
        autocompletion=_complete,
    ),
]


def walk(
    client: Client, query: Sequence[tuple[str, str]], limit: int, path: str = PATH
) -> Iterator[dict[str, Any]]:
    """Up to `limit` items of a list, page by page."""
    cursor: str | None = None
    left = limit
    while left > 0:
        page = client.get_json(
            path, [*query, ("limit", str(min(left, PAGE_MAX))), *([("cursor", cursor)] if cursor else [])]
        )
        is_page = isinstance(page, dict) and isinstance(page.get("items"), list)
        if not is_page or (
            cursor is not None and page.get("next") == cursor
        ):  # a page after itself has no end
            raise Failure(
                f"{client.url}{path} answers, but not as LLM-Incident-Manager does: is the URL right?"
            )
        yield from page["items"][:left]
        left -= len(page["items"])
        cursor = page.get("next")
        if cursor is None:
            return


def find(client: Client, words: Sequence[str]) -> list[str]:
    """The whole ids, each once, in the order they were given. Raises Failure when a word names none, or several."""
    newest: list[str] | None = None
    found: dict[str, None] = {}
    for word in with_stdin(words):
        identity = whole(word)
        if identity is None:
            part = _part(word)
            if newest is None:
                # Parts of merged incidents too: they are unmerged by their ids.
                newest = [str(each["id"]) for each in walk(client, [("merged", "true")], LOOKED_THROUGH)]
            identity = _only(word, [each for each in newest if each.startswith(part) or each.endswith(part)])
        found[identity] = None
    return list(found)


def find_one(client: Client, word: str) -> str:
    """The whole id of one incident."""
    found = find(client, [word])
    if len(found) != 1:
        raise Failure(f"expected one incident, not {len(found)}", ExitCode.USAGE)
    return found[0]


def with_stdin(words: Sequence[str]) -> list[str]:
    """The words, with what stdin holds in place of `-`."""
    try:
        return [each for word in words for each in (sys.stdin.read().split() if word == "-" else [word])]
    except UnicodeDecodeError as error:
        raise Failure("stdin is not UTF-8 text", ExitCode.USAGE) from error


def whole(word: str) -> str | None:
    """The id when it is written whole, as the server writes it."""
    try:
        return str(UUID(word))
    except ValueError:
        return None


def _part(word: str) -> str:
    part = word.lower().strip()
    if len(part) < SHORTEST_ID or not set(part) <= set("0123456789abcdef-"):
        raise Failure(
            f"{word!r} is not an incident id: expected a UUID, or at least {SHORTEST_ID} characters of one",
            ExitCode.USAGE,
        )
    return part


def _only(word: str, found: list[str]) -> str:
    if not found:
        raise Failure(
            f"none of the newest {LOOKED_THROUGH:,} incidents has an id that begins or ends with {word!r}",
            ExitCode.NOT_FOUND,
        )
    if len(found) > 1:
        shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise Failure(f"{word!r} may be any of {len(found)} incidents: {shown}", ExitCode.USAGE)
    return found[0]
