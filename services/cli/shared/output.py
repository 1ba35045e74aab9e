"""Rows in the form that was asked for: a table for people, CSV and JSON and bare ids for programs.

Each list says its columns once; every form is made of them.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.shared import terminal

if TYPE_CHECKING:
    from rich.text import Text

Row = dict[str, Any]
_GAP = "  "
#: A column that gives way keeps this much: enough to know a service or a title again.
_NARROWEST = 8
#: What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


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
    """One column. `cell` is for people, `value` for programs; None: not in that form. `wide`: in wide tables only.

    What `gives_way` is cut where a terminal has no room for it, down to `least`. Where even that is too much, columns
    are left out: those that `leaves` has a number for, the highest first. With `roomy`, a wide table keeps it that wide.
    """

    name: str
    cell: Callable[[Row], str | Text] | None
    value: Callable[[Row], object] | None = None
    wide: bool = False
    right: bool = False
    gives_way: bool = False
    least: int = _NARROWEST
    leaves: int = 0
    roomy: int = 0


def form_of(output: Output, as_json: bool) -> Output:
    """The form: --json is short for --output json."""
    return Output.JSON if as_json else output


def write_table(columns: Sequence[Column], rows: Sequence[Row], wide: bool = False) -> None:
    """The rows as people see them."""
    out = terminal.console()
    out.print(table(columns, rows, wide, out.width if out.is_terminal else None), soft_wrap=True)


def table(columns: Sequence[Column], rows: Sequence[Row], wide: bool, room: int | None) -> Text:
    """The rows in columns, at most `room` wide when those that give way can make it so. Ids, states and numbers are
    never cut: past that a terminal wraps the line."""
    from rich.cells import cell_len
    from rich.text import Text

    shown = [(each, each.cell) for each in columns if each.cell is not None and (wide or not each.wide)]
    lines = [[Text(each.name.upper(), "bold") for each, _ in shown]]
    for row in rows:
        lines.append([found if isinstance(found := cell(row), Text) else Text(found) for _, cell in shown])
    widths = [max(cell_len(line[place].plain) for line in lines) for place in range(len(shown))]
    if room is not None:
        asked = [
            replace(each, least=each.roomy, leaves=0) if wide and each.roomy else each for each, _ in shown
        ]
        kept = _that_fit(asked, widths, room)
        shown, widths = [shown[place] for place in kept], [widths[place] for place in kept]
        lines = [[line[place] for place in kept] for line in lines]
        _make_room(widths, [asked[place] for place in kept], room)
    made = Text(no_wrap=True)
    for number, line in enumerate(lines):
        if number:
            made.append("\n")
        for place, cell in enumerate(line):
            width = 0 if place == len(line) - 1 and cell_len(cell.plain) <= widths[place] else widths[place]
            cell.truncate(widths[place], overflow="ellipsis")
            left = " " * (width - cell_len(cell.plain))
            made.append_text(
                Text.assemble(left, cell) if shown[place][0].right else Text.assemble(cell, left)
            )
            made.append("" if place == len(line) - 1 else _GAP)
    return made


def _that_fit(columns: Sequence[Column], widths: Sequence[int], room: int) -> list[int]:
    """The places of the columns that a terminal has room for, when those that give way are as narrow as they may be."""
    kept = list(range(len(columns)))
    narrowest = [min(width, each.least) if each.gives_way else width for each, width in zip(columns, widths)]
    while sum(narrowest[place] for place in kept) + len(_GAP) * (len(kept) - 1) > room:
        last = max(kept, key=lambda place: columns[place].leaves)
        if not columns[last].leaves:
            break
        kept.remove(last)
    return kept


def _make_room(widths: list[int], columns: Sequence[Column], room: int) -> None:
    """Narrow the widest of those that give way, until all fit or none can give more."""
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    while over > 0:
        spare, place = max(
            (width if each.gives_way and width > each.least else 0, place)
            for place, (width, each) in enumerate(zip(widths, columns))
        )
        if not spare:
            return
        widths[place] -= 1
        over -= 1


def write_list(
    columns: Sequence[Column],
    found: Sequence[Row],
    limit: int,
    form: Output,
    nothing: str,
    key: str = "id",
) -> None:
    """The first `limit` of the rows in the form that was asked for, and whether there are more; `nothing` is what a table says when there
    are none. `key` is what a program names a row by."""
    shown, more = found[:limit], len(found) > limit
    match form:
        case Output.JSON:
            write_json({"items": shown, "more": more})
            return
        case Output.CSV:
            write_csv(columns, shown)
        case Output.ID:
            write_ids(shown, key)
        case _ if shown:
            write_table(columns, shown, form is Output.WIDE)
        case _:
            typer.echo(nothing)
    if more:
        typer.echo(f"there are more than these {len(shown):,}: raise --limit", err=True)


def write_json(body: object) -> None:
    """One line of JSON. It is ASCII, so nothing in it steers a terminal."""
    typer.echo(json.dumps(body))


def write_ids(rows: Sequence[Row], key: str = "id") -> None:
    """One id a line, for `-` of another command."""
    for row in rows:
        typer.echo(terminal.plain(row[key]))


def write_csv(columns: Sequence[Column], rows: Sequence[Row], *, head: bool = True) -> None:
    """RFC 4180, one record a line, whole texts, behind their names if `head`. A text that a spreadsheet would run as a formula gets an
    apostrophe."""
    kept = [each for each in columns if each.value is not None]
    # All quoted: a spreadsheet of another country splits at ; and would see a formula behind one.
    out = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_ALL)
    if head:
        out.writerow([each.name for each in kept])
    for row in rows:
        out.writerow([_csv(each.value(row)) for each in kept if each.value is not None])


def _csv(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return value
    text = terminal.plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
