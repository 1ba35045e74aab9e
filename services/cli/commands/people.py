"""`llm-im people list|show|set|delete|apply|export`: who can be told, and how; and all of on-call from one file."""

from __future__ import annotations

import tomllib
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from models.errors import Refused
from services.cli.shared import confirm, output, terminal
from services.cli.shared.entries import answered, write_all
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.options import Asked, DryRun, Yes, with_options
from services.cli.shared.output import Column, Form, Output, Row

PATH, ROSTER = "/v1/people", "/v1/roster"
#: Characters of a file: what a request may bring.
FILE_CHARS = 256 * 1024
SEE = "llm-im people list"
_SECTIONS = ("people", "schedules", "escalations")

app = typer.Typer(help="Who can be told, and how.", no_args_is_help=True, epilog=EPILOG)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="As shown by llm-im people list.", show_default=False)
]


def _ways(row: Row) -> str:
    return ", ".join(
        f"{each['receiver']}={each['address']}" if each["address"] else each["receiver"]
        for each in row["contacts"]
    )


COLUMNS = (
    Column("name", lambda row: terminal.plain(row["name"]), lambda row: row["name"]),
    Column(
        "full name",
        lambda row: terminal.plain(row["full_name"]),
        lambda row: row["full_name"],
        gives_way=True,
    ),
    Column("time zone", lambda row: terminal.plain(row["time_zone"]), lambda row: row["time_zone"]),
    Column("contacts", lambda row: terminal.plain(_ways(row)) or "none", _ways, gives_way=True),
)


@app.command("list", epilog=EPILOG)
@with_options
def list_people(form: Form = Output.TABLE, *, asked: Asked) -> None:
    """List people, and how each is reached.

    llm-im people list
    """
    rows = asked.client().get_json(PATH)["items"]
    write_all(
        COLUMNS, rows, form, asked, "no people; make them with llm-im people set or llm-im people apply"
    )


@app.command(epilog=EPILOG)
@with_options
def show(name: Name, *, asked: Asked) -> None:
    """Show one person.

    llm-im people show ana
    """
    client = asked.client()
    _write(answered(client, client.get(_path(name)), 200, see=SEE), asked)


@app.command("set", epilog=EPILOG)
@with_options
def set_person(
    name: Name,
    full_name: Annotated[
        str | None, typer.Option("--full-name", metavar="TEXT", help="For people.", show_default=False)
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option("--time-zone", metavar="ZONE", help="Such as Europe/Madrid.", show_default=False),
    ] = None,
    contacts: Annotated[
        list[str] | None,
        typer.Option(
            "--contact",
            "-c",
            metavar="RECEIVER=ADDRESS",
            help="A way to reach the person, by a receiver of the settings. Repeatable; replaces those before.",
            show_default=False,
        ),
    ] = None,
    *,
    asked: Asked,
) -> None:
    """Make a person, or change what you name of one.

    llm-im people set ana --full-name "Ana Alvarez" --contact mail=ana@example.org
    """
    client = asked.client()
    before = client.get(_path(name))
    known: Row = answered(client, before, 200) if before.status != 404 else {}
    fields: tuple[str, ...] = ("full_name", "time_zone", "contacts")
    body = {field: known[field] for field in fields if field in known}
    given: dict[str, Any] = {
        "full_name": full_name,
        "time_zone": time_zone,
        "contacts": None if contacts is None else [_contact(each) for each in contacts],
    }
    body.update({field: value for field, value in given.items() if value is not None})
    _write(answered(client, client.put_json(_path(name), body), 200, 201), asked)


@app.command(epilog=EPILOG)
@with_options
def delete(name: Name, *, asked: Asked) -> None:
    """Delete a person whom no schedule and no policy names any more.

    llm-im people delete ana
    """
    client = asked.client()
    answered(client, client.delete(_path(name)), 204, see=SEE)
    if asked.as_json:
        output.write_json({"deleted": [name]})
    else:
        typer.echo(f"{terminal.plain(name)} is deleted")


@app.command(epilog=EPILOG)
@with_options
def apply(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML, JSON or TOML with people, schedules, escalations.")
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove what the file does not name; overrides stay.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    *,
    asked: Asked,
) -> None:
    """Make people, schedules and escalation policies as a file says: all of it, or nothing. The same file again changes nothing.

    llm-im people apply oncall.yaml --dry-run
    """
    body = {**_read(file), "prune": prune}
    client = asked.client()
    if not dry_run and prune and not yes:
        plan = answered(client, client.put_json(ROSTER, {**body, "dry_run": True}), 200)
        if plan["removed"] and not _agrees(plan["removed"]):
            raise Failure("nothing was changed", ExitCode.FAILED)
    plan = answered(client, client.put_json(ROSTER, {**body, "dry_run": dry_run}), 200)
    if asked.as_json:
        output.write_json(plan)
        return
    for sign, what in (("+", "created"), ("~", "changed"), ("-", "removed")):
        for key in plan[what]:
            typer.echo(f"{sign} {terminal.plain(key)}")
    count = sum(len(plan[each]) for each in ("created", "changed", "removed"))
    if not count:
        typer.echo("nothing to change")
    elif dry_run:
        typer.echo(f"{count} would change, {len(plan['unchanged'])} would stay as they are", err=True)
    for each in plan["problems"]:
        typer.echo(f"note: {terminal.plain(each)}", err=True)


@app.command(epilog=EPILOG)
@with_options
def export(*, asked: Asked) -> None:
    """Write all people, schedules and escalation policies as JSON, which llm-im people apply reads.

    llm-im people export > oncall.json
    """
    client = asked.client()
    found = {
        section: {
            row["name"]: {field: value for field, value in row.items() if field not in ("name", "version")}
            for row in client.get_json(f"/v1/{section}")["items"]
        }
        for section in _SECTIONS
    }
    if any(each["address"] == "***" for row in found["people"].values() for each in row["contacts"]):
        raise Failure("addresses are shown to tokens with the scope respond only", ExitCode.FORBIDDEN)
    output.write_json(found)


def _read(file: Path) -> dict[str, Any]:
    # Here, because every command would wait for the reader of YAML.
    from models.playbook.document import read_document

    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(
            f"can't read {file}: {getattr(error, 'strerror', None) or error}", ExitCode.USAGE
        ) from error
    if len(text) > FILE_CHARS:
        raise Failure(f"{file}: over {FILE_CHARS:,} characters", ExitCode.USAGE)
    try:
        found = (
            tomllib.loads(text)
            if file.suffix == ".toml"
            else read_document(text, str(file), what="roster", chars_max=FILE_CHARS).plain()
        )
    except (tomllib.TOMLDecodeError, Refused) as error:
        raise Failure(
            f"{file}: {error}" if isinstance(error, ValueError) else str(error), ExitCode.USAGE
        ) from error
    if not isinstance(found, dict) or not found.keys() <= set(_SECTIONS):
        raise Failure(f"{file}: expected {', '.join(_SECTIONS)}, and nothing else", ExitCode.USAGE)
    plain: dict[str, Any] = _plain({name: each for name, each in found.items() if each is not None})
    return plain


def _plain(value: Any) -> Any:
    """TOML has times of its own: as they are written."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, datetime | date) else value


def _agrees(removed: list[str]) -> bool:
    place = confirm.terminal()
    if place is None:
        raise Failure(
            f"{len(removed)} would be removed: {', '.join(removed[:10])}; say so with --yes", ExitCode.USAGE
        )
    for key in removed:
        typer.echo(f"- {terminal.plain(key)}")
    return typer.confirm(f"Remove {len(removed)}?")


def _contact(text: str) -> dict[str, str]:
    receiver, _, address = text.partition("=")
    if not receiver:
        raise Failure(
            f"--contact: {text!r} is not valid; expected RECEIVER or RECEIVER=ADDRESS", ExitCode.USAGE
        )
    return {"receiver": receiver, "address": address}


def _write(found: Row, asked: Asked) -> None:
    if asked.as_json:
        output.write_json(found)
        return
    out = terminal.console()
    for name, text in (
        ("name", found["name"]),
        ("full name", found["full_name"]),
        ("time zone", found["time_zone"]),
        ("contacts", _ways(found) or "none"),
    ):
        if text:
            out.print(f"  {name:<12}{terminal.plain(text)}")


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"
