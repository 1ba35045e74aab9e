"""Rows in the form that was asked for: a table for people, CSV and JSON and bare ids for programs.

Each list says its columns once; every form is made of them.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli import look

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

Row = dict[str, Any]
#: What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Output(StrEnum):
    """The forms."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    CSV = "csv"
    ID = "id"


Form = Annotated[
    Output, typer.Option("--output", "-o", help="table, wide (more columns), json, csv, or id (ids only).")
]


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `cell` is for people, `value` for programs; `value` None: not in CSV. `wide`: in wide tables only."""

    name: str
    cell: Callable[[Row], str | Text] | None
    value: Callable[[Row], object] | None = None
    wide: bool = False
    right: bool = False
    gives_way: bool = False


def form_of(output: Output, as_json: bool) -> Output:
    """The form: --json is short for --output json."""
    return Output.JSON if as_json else output


def table(columns: Sequence[Column], rows: Sequence[Row], wide: bool = False) -> Table:
    """The rows as people see them."""
    shown = [each for each in columns if each.cell is not None and (wide or not each.wide)]
    made = look.table(
        *(each.name.upper() for each in shown),
        right=tuple(each.name.upper() for each in shown if each.right),
        wide=tuple(each.name.upper() for each in shown if each.gives_way),
    )
    for row in rows:
        made.add_row(*(each.cell(row) for each in shown if each.cell is not None))
    return made


def write_json(body: object) -> None:
    """One line of JSON. It is ASCII, so nothing in it steers a terminal."""
    typer.echo(json.dumps(body))


def write_ids(rows: Sequence[Row], key: str = "id") -> None:
    """One id a line, for `-` of another command."""
    for row in rows:
        typer.echo(look.plain(row[key]))


def write_csv(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """RFC 4180, one record a line, whole texts. A text that a spreadsheet would run as a formula gets an apostrophe."""
    kept = [each for each in columns if each.value is not None]
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([each.name for each in kept])
    for row in rows:
        out.writerow([_csv(each.value(row)) for each in kept if each.value is not None])


def _csv(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return value
    text = look.plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
