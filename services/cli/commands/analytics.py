"""`llm-im analytics`: how fast incidents are answered and end, how many are noise, by severity, service, team, day."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from services.cli.shared import filters, moments, output, terminal
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Output, Row

PATH = "/v1/analytics/incidents"


class By(StrEnum):
    """What the server can group by (models/analytics/figures.py, which takes as long to import as a command). A test compares."""

    NOTHING = "nothing"
    SEVERITY = "severity"
    TYPE = "type"
    SERVICE = "service"
    LABEL = "label"
    DAY = "day"
    WEEK = "week"


def _took(name: str, percentile: str) -> Column:
    def value(row: Row) -> Any:
        return row[f"time_to_{name}"][f"{percentile}_s"]

    def cell(row: Row) -> str:
        found = value(row)
        return "-" if found is None else terminal.duration(found)

    return Column(f"{name}_{percentile}", cell, value, wide=percentile != "p50", right=True, leaves=4)


def _count(name: str, called: str = "", *, wide: bool = False) -> Column:
    return Column(
        called or name, lambda row: f"{row[name]:,}", lambda row: row[name], wide=wide, right=True, leaves=3
    )


def _share(row: Row) -> str:
    found = row["noise_share"]
    return "-" if found is None else f"{found:.0%}"


COLUMNS = (
    Column("group", lambda row: terminal.plain(row["key"]) or "-", lambda row: row["key"], gives_way=True),
    _count("incidents"),
    _count("over", wide=True),
    _count("answered"),
    _count("told", wide=True),
    _count("muted", wide=True),
    _count("ended_alone", wide=True),
    _count("noise", wide=True),
    Column("noise_share", _share, lambda row: row["noise_share"], right=True),
    _count("reopened", wide=True),
    _count("flapping"),
    Column(
        "alerts_each",
        lambda row: f"{row['alerts_per_incident']:g}",
        lambda row: row["alerts_per_incident"],
        right=True,
        leaves=5,
    ),
    _count("repaired"),
    Column(
        "saved",
        lambda row: "-" if row["saved_s"] is None else terminal.duration(row["saved_s"]),
        lambda row: row["saved_s"],
        wide=True,
        right=True,
    ),
    *(
        _took(name, percentile)
        for name in ("detect", "notify", "acknowledge", "resolve")
        for percentile in ("p50", "p90")
    ),
)


@with_options
def analytics(
    matchers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MATCHER", help="Matchers, as for `incidents list`; all must match.", show_default=False
        ),
    ] = None,
    by: Annotated[
        By, typer.Option("--by", help="What to group by; `label` takes --label. Times are in UTC.")
    ] = By.SEVERITY,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="NAME", help="Group by this label: team.", show_default=False),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            "--window", metavar="DURATION", help="Incidents created in this time until now; up to 92d."
        ),
    ] = "7d",
    form: Form = Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """Show how fast incidents are answered and resolved, how many are noise, and what playbooks repair.

    llm-im analytics --by service --window 30d

    llm-im analytics --label team -o csv
    """
    if form is Output.ID:
        raise Failure("-o id: figures have no ids; expected table, wide, json or csv", ExitCode.USAGE)
    if label is None and by is By.LABEL:
        raise Failure("--by label: which one? give --label NAME", ExitCode.USAGE)
    by = by if label is None else By.LABEL
    query = [
        *filters.read(matchers or ()).query,
        ("window", moments.span(window, "--window")),
        ("by", str(by)),
        *([("label", label)] if label is not None else []),
    ]
    body = asked.client().get_json(PATH, query)
    total = {**body["total"], "key": "all"}
    rows = [*body["groups"], total]
    match output.form_of(form, asked.as_json):
        case Output.JSON:
            output.write_json(body)
            return
        case Output.CSV:
            output.write_csv(COLUMNS, rows)
        case wanted:
            output.write_table(COLUMNS, rows, wanted is Output.WIDE)
    if body["other_groups"]:
        typer.echo(f"and {body['other_groups']:,} smaller groups: narrow it with a matcher", err=True)
    if not body["complete"]:
        typer.echo("there are more incidents than are counted: take a shorter --window", err=True)
