"""`llm-im stats`: how much there is, by state, severity and service, and how long it takes."""

from __future__ import annotations

from collections.abc import Iterator

from services.cli import look, output
from services.cli.where import AsJson, InContext, Url, client_of

PATH = "/v1/stats"


def stats(url: Url = None, context: InContext = None, as_json: AsJson = False) -> None:
    """Show how many incidents there are, of what kind, and how long they take.

    llm-im stats
    """
    body = client_of(url, context).get_json(PATH)
    if as_json:
        output.write_json(body)
        return
    lines = list(_lines("", body))
    width = max((len(name) for name, _ in lines), default=0) + 2
    out = look.console()
    for name, value in lines:
        out.print(f"{name:<{width}}{value}")


def _lines(prefix: str, body: object) -> Iterator[tuple[str, str]]:
    """Every figure with the names that lead to it."""
    match body:
        case dict():
            for name, value in body.items():
                yield from _lines(f"{prefix} {look.plain(name)}".strip(), value)
        case list():
            for place, value in enumerate(body, 1):
                yield from _lines(f"{prefix} {place}", value)
        case bool() | None:
            yield prefix, "-" if body is None else str(body).lower()
        case int():
            yield prefix, f"{body:,}"
        case float():
            yield prefix, f"{body:,.2f}"
        case _:
            yield prefix, look.plain(body)
