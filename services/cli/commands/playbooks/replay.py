"""`llm-im playbooks replay`: past incidents through another version of a playbook."""

from __future__ import annotations

import http.client
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.commands.playbooks.dry_run import sample_of, seen_of
from services.cli.commands.playbooks.files import OneFile, read_file
from services.cli.commands.playbooks.remote import path_of
from services.cli.shared import ids, moments, output, terminal
from services.cli.shared.client import Client
from services.cli.shared.options import System, with_options
from services.cli.shared.where import AsJson

if TYPE_CHECKING:
    from models.playbook.playbook import Playbook


@with_options
def replay(
    file: OneFile,
    since: Annotated[
        str, typer.Option("--since", metavar="DURATION|TIME", help="Incidents opened since.")
    ] = "7d",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, help="At most this many incidents, the newest.")
    ] = 100,
    as_json: AsJson = False,
    *,
    options: System,
) -> None:
    """Compare a playbook with the version that is applied, by past incidents: which would have been chosen, and how its runs would have gone
    with the outcomes that the recorded ones had. Nothing is done.

    llm-im playbooks replay embedder.yaml --since 30d
    """  # fmt: skip
    new = read_file(file).playbook
    client = options.client()
    old = _applied(client, new.name)
    rows = [
        _compared(client, each, old, new)
        for each in ids.walk(client, [("created_after", moments.past(since, "--since"))], limit)
    ]
    summary = _summary(rows)
    if as_json:
        output.write_json(
            {
                "name": new.name,
                "version": new.version,
                "applied": None if old is None else old.version,
                "items": rows,
                "summary": summary,
            }
        )
        return
    _show(rows, old, new, summary)


def _applied(client: Client, name: str) -> Playbook | None:
    """The version that the running system has, None when it has none that can be read."""
    from models.errors import IncidentManagerError
    from models.playbook.reading import read
    from services.playbooks.table import all_specs

    reply = client.get(path_of(name))
    if reply.status == http.client.NOT_FOUND:
        return None
    if reply.status != http.client.OK:
        raise client.failure(reply)
    try:
        return read(str(reply.json()["source"]), name, all_specs()).playbook
    except IncidentManagerError:
        return None


def _compared(client: Client, listed: dict[str, Any], old: Playbook | None, new: Playbook) -> dict[str, Any]:
    from models.playbook.retelling import outcomes_of, retell

    identity = str(listed["id"])
    seen = seen_of(client.get_json(f"{ids.PATH}/{identity}"))
    runs = client.get_json(f"{ids.PATH}/{identity}/runs")["items"]
    ran = next((each for each in reversed(runs) if each["playbook"] == new.name and not each["shadow"]), None)
    before, why_before = (False, "it was not applied") if old is None else _chosen(old, seen)
    after, why_after = _chosen(new, seen)
    row: dict[str, Any] = {
        "incident": identity,
        "title": str(listed["title"]),
        "severity": seen["severity"],
        "service": seen["service"],
        "old": {
            "chosen": before,
            "why": why_before,
            "version": "" if ran is None else ran["version"],
            "status": "" if ran is None else ran["status"],
        },
        "new": {"chosen": after, "why": why_after, "status": "", "assumed": [], "path": []},
    }
    if after:
        told = retell(new, seen, [] if ran is None else outcomes_of(ran))
        path = [{"step": line.step, "status": line.status, "what": line.what} for line in told.lines]
        row["new"] |= {"status": told.status, "assumed": [*told.assumed], "path": path}
    return row


def _chosen(book: Playbook, seen: dict[str, Any]) -> tuple[bool, str]:
    from models.errors import Refused
    from models.playbook.select import match
    from models.playbook.template import holds

    found = match(book.trigger, sample_of(seen))
    if not found.matches or not found.expression:
        return found.matches, found.why
    try:
        holding = holds(found.expression, {"incident": seen})
    except Refused as error:
        return False, f"its expression: {error}"
    return holding, f"its expression {'holds' if holding else 'does not hold'}: {found.expression}"


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = Counter((row["old"]["chosen"], row["new"]["chosen"]) for row in rows)
    both = [row for row in rows if row["old"]["status"] and row["new"]["chosen"]]
    return {
        "incidents": len(rows),
        "old_chosen": pairs[True, True] + pairs[True, False],
        "new_chosen": pairs[True, True] + pairs[False, True],
        "only_old": pairs[True, False],
        "only_new": pairs[False, True],
        "ends_otherwise": sum(row["old"]["status"] != row["new"]["status"] for row in both),
        "with_assumed": sum(bool(row["new"]["assumed"]) for row in rows),
    }


def _show(rows: list[dict[str, Any]], old: Playbook | None, new: Playbook, summary: dict[str, Any]) -> None:
    if not rows:
        typer.echo("no incidents in that time")
        return
    then = "not applied" if old is None else old.version
    table = terminal.table("INCIDENT", "SEVERITY", "SERVICE", f"THEN ({then})", f"NOW ({new.version})", "WHY")
    for row in rows:
        was, now = row["old"], row["new"]
        table.add_row(
            terminal.short_id(terminal.plain(row["incident"])),
            terminal.plain(row["severity"]),
            terminal.plain(row["service"]),
            terminal.plain(was["status"] or ("chosen" if was["chosen"] else "-")),
            terminal.plain((now["status"] + ("*" if now["assumed"] else "")) if now["chosen"] else "-"),
            terminal.plain(now["why"]),
        )
    terminal.console().print(table)
    typer.echo(
        f"{summary['incidents']:,} incidents: chosen for {summary['new_chosen']:,}, not {summary['old_chosen']:,} "
        f"({summary['only_new']:,} more, {summary['only_old']:,} fewer); {summary['ends_otherwise']:,} of the recorded runs "
        "would have ended otherwise"
    )
    if summary["with_assumed"]:
        typer.echo("* with actions whose outcome nobody knows: they are taken to succeed (--json names them)")
