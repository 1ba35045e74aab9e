"""`llm-im stats`: how many incidents there are, of what kind, and how fast people answer and end them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from services.cli.shared import filters, moments, output, terminal
from services.cli.shared.options import Asked, with_options

PATH = "/v1/stats"


@with_options
def stats(
    matchers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MATCHER", help="Matchers, as for `incidents list`; all must match.", show_default=False
        ),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            "--window",
            metavar="DURATION",
            help="How far back to count opened and resolved incidents and response times.",
        ),
    ] = "1d",
    *,
    asked: Asked,
) -> None:
    """Show how many incidents there are, of what kind, and how fast they are acknowledged and resolved.

    llm-im stats

    llm-im stats service=~"llm-.*" --window 7d
    """
    query = [*filters.read(matchers or ()).query, ("window", moments.span(window, "--window"))]
    body = asked.client().get_json(PATH, query)
    if asked.as_json:
        output.write_json(body)
        return
    lines = list(_lines(body))
    width = max(len(name) for name, _ in lines) + 2
    out = terminal.console()
    for name, value in lines:
        out.print(f"{name:<{width}}{value}")


def _lines(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "open", f"{body['open']:,}"
    for name in ("acknowledged", "unassigned", "overdue"):
        yield f"  {name}", f"{body[name]:,}"
    for name in ("severity", "type", "state"):
        yield f"by {name}", _counts(body[f"by_{name}"])
    services = {each["service"]: each["open"] for each in body["by_service"]}
    yield (
        "by service",
        _counts({**services, **({"others": rest} if (rest := body["other_services"]) else {})}),
    )
    window = terminal.duration(body["window_s"])
    yield f"in {window}", f"{body['opened']:,} opened, {body['resolved']:,} resolved"
    for name in ("acknowledge", "resolve"):
        yield f"  time to {name}", _times(body[f"time_to_{name}"])
    alerts = body["alerts"]
    ratio = "" if alerts["dedup_ratio"] is None else f"  ({alerts['dedup_ratio']:.1%} repeats)"
    yield "alerts", _counts(alerts["by_decision"]) + ratio
    if not body["complete"]:
        yield (
            "not complete",
            "more incidents were archived in this time than are counted: take a shorter --window",
        )


def _counts(found: dict[str, int]) -> str:
    return "  ".join(f"{terminal.plain(name)} {count:,}" for name, count in found.items() if count) or "none"


def _times(found: dict[str, Any]) -> str:
    if not found["count"]:
        return "-"
    parts = [f"{name} {terminal.duration(found[f'{name}_s'])}" for name in ("p50", "p90", "p99")]
    return "  ".join(parts) + f"  (of {found['count']:,})"
