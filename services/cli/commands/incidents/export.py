"""`llm-im incidents export`: incidents as flat rows, for spreadsheets, notebooks and warehouses."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.shared import filters, ids, moments, output
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Row

PATH = "/v1/analytics/rows"
#: More are asked for in several windows.
ROWS_MAX = 1_000_000
#: The fields of a row (services/api/v1/analytics.py, RowBody). A test compares.
FIELDS = (
    "id", "title", "service", "severity", "type", "state", "created_at", "resolved_at", "closed_at", "detect_s", "notify_s",
    "acknowledge_s", "resolve_s", "alerts", "reopened", "answered", "told", "muted", "noise", "resolution_method",
    "repaired_by", "labels",
)  # fmt: skip


class Form(StrEnum):
    """The forms."""

    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"


def _column(name: str) -> Column:
    def value(row: Row) -> object:
        found = row[name]
        return json.dumps(found, sort_keys=True) if name == "labels" else found

    return Column(name, None, value)


COLUMNS = tuple(map(_column, FIELDS))


@with_options
def export(
    matchers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MATCHER", help="Matchers, as for `incidents list`; all must match.", show_default=False
        ),
    ] = None,
    form: Annotated[
        Form,
        typer.Option(
            "--format", "-f", help="csv, ndjson (a JSON object a line), or parquet (needs --to and polars)."
        ),
    ] = Form.CSV,
    window: Annotated[
        str | None,
        typer.Option(
            "--window",
            metavar="DURATION",
            help="Incidents created in this time until now. Default: all.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FILE", help="Write to this file instead of stdout.", show_default=False
        ),
    ] = None,
    *,
    asked: Asked,
) -> None:
    """Write all matching incidents as flat rows, archived ones too, newest first.

    llm-im incidents export --window 30d > incidents.csv

    llm-im incidents export service=llm-api --format parquet --to incidents.parquet
    """
    if form is Form.PARQUET and to is None:
        raise Failure("--format parquet: it is no text; give --to FILE", ExitCode.USAGE)
    query = [
        *filters.read(matchers or ()).query,
        *([("window", moments.span(window, "--window"))] if window is not None else []),
    ]
    found = _rows(ids.walk(asked.client(), query, ROWS_MAX + 1, PATH))
    if form is Form.PARQUET and to is not None:
        from services.cli.shared.parquet import write_parquet

        write_parquet(to, list(found))
        return
    if to is None:
        _write(found, form)
        return
    with to.open("w", encoding="utf-8", newline="") as file, contextlib.redirect_stdout(file):
        _write(found, form)


def _rows(found: Iterator[Row]) -> Iterator[Row]:
    """At most ROWS_MAX of them, and a word about what is missing."""
    yield from islice(found, ROWS_MAX)
    if next(found, None) is not None:
        typer.echo(f"there are more than {ROWS_MAX:,}: export them by --window or by service", err=True)


def _write(found: Iterator[dict[str, Any]], form: Form) -> None:
    if form is Form.NDJSON:
        for row in found:
            typer.echo(json.dumps(row))
        return
    # A page at a time, so that a long list begins at once and is never held whole.
    output.write_csv(COLUMNS, list(islice(found, ids.PAGE_MAX)))
    while rows := list(islice(found, ids.PAGE_MAX)):
        output.write_csv(COLUMNS, rows, head=False)
