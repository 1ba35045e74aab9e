"""`llm-im playbooks history|stats|tasks`: what runs did, how they ended, and what is left to do."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any
from urllib.parse import quote

import typer

from services.cli.commands.playbooks.remote import REPAIRS, RUN_COLUMNS, RUNS, TASKS, find_run
from services.cli.shared import ids, output, terminal
from services.cli.shared.client import Client
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.output import Form, Output
from services.cli.shared.where import AsJson, InContext, TokenFile, Url, client_of

#: Runs that are counted.
COUNTED = 10_000


def history(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="Show this run with all that its steps did: its id, or four or more characters of it.",
            show_default=False,
        ),
    ] = None,
    playbook: Annotated[
        str | None,
        typer.Option("--playbook", metavar="NAME", help="Only runs of this playbook.", show_default=False),
    ] = None,
    incident: Annotated[
        str | None,
        typer.Option(
            "--incident", metavar="ID", help="The runs of one incident, archived or not.", show_default=False
        ),
    ] = None,
    capture: Annotated[
        str | None,
        typer.Option(
            "--capture",
            metavar="ID",
            help="Of one run: print the text of what an action recorded, by its id or name.",
            show_default=False,
        ),
    ] = None,
    active: Annotated[bool, typer.Option("--active", help="Only runs under way.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most this many.")
    ] = 50,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    form: Form = Output.TABLE,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first; or show one, step by step.

    llm-im playbooks history --active

    llm-im playbooks history a91c07d2e5b4

    llm-im playbooks history a91c07d2e5b4 --capture "logs of llm-api"
    """
    client = client_of(url, context, token_file)
    if capture is not None and run is None:
        raise Failure("--capture: of which run? llm-im playbooks history RUN --capture ID", ExitCode.USAGE)
    if run is not None:
        found = client.get_json(f"{RUNS}/{find_run(client, run)}")
        if capture is not None:
            _show_capture(client, found, capture, as_json)
        elif as_json:
            output.write_json(found)
        else:
            _show(found)
        return
    if incident is not None:
        rows = client.get_json(f"{ids.PATH}/{ids.find_one(client, incident)}/runs")["items"][:limit]
    else:
        query = [("playbook", playbook)] if playbook else []
        query += [("active", "true")] if active else []
        rows = list(ids.walk(client, query, limit + 1, RUNS))
    output.write_list(RUN_COLUMNS, rows, limit, output.form_of(form, as_json), "no runs")


def _show(run: dict[str, Any]) -> None:
    out = terminal.console()
    for label, text in (
        ("run", run["id"]),
        ("playbook", f"{run['playbook']} {run['version']}"),
        ("incident", f"{run['incident']}  {run['title']}"),
        ("status", run["status"] + (" (shadow)" if run["shadow"] else "")),
        ("detail", run["detail"]),
        ("by", f"{run['by']}: {run['why']}"),
        ("started", f"{run['started_at']}  ({terminal.when(run['started_at'])})"),
        ("ended", run["ended_at"] or ""),
    ):
        if text:
            out.print(f"  {label:<10}{terminal.plain(text)}")
    for each in run["waits_for"]:
        who = " or ".join(each["who"]) or "anybody who may respond"
        out.print(
            f"  waits for {terminal.plain(who)} at {terminal.plain(each['step'])} until {each['until']}: "
            f"{terminal.plain(each['message'])}"
        )
        if each.get("question"):
            out.print(f"    to answer only this: --question {terminal.plain(each['question'])}")
    for step in run["steps"]:
        out.print(f"  {terminal.plain(step['id'])}: {step['status']}  {terminal.plain(step['detail'])}")
        for deed in step["actions"]:
            what = f"undo {deed['action']}" if deed["undo"] else deed["action"]
            out.print(f"    {terminal.plain(what)}: {deed['status']}  {terminal.plain(deed['detail'])}")
    for each in run["captures"]:
        cut = ", cut" if each["cut"] else ""
        out.print(f"  captured {terminal.plain(each['name'])} ({each['size']:,} bytes{cut}): {each['id']}")
    if run["captures"]:
        out.print(f"  to read one: llm-im playbooks history {run['id']} --capture {run['captures'][0]['id']}")


def _show_capture(client: Client, run: dict[str, Any], word: str, as_json: bool) -> None:
    """The text of what an action recorded, by its id, four or more characters of that, or its name."""
    found = [
        each
        for each in run["captures"]
        if word in (each["id"], each["name"]) or (len(word) >= 4 and each["id"].startswith(word.lower()))
    ]
    if len(found) != 1:
        known = ", ".join(f"{terminal.plain(each['name'])} ({each['id']})" for each in run["captures"])
        many = f"{len(found)} captures are" if found else "no capture is"
        raise Failure(
            f"{many} called {terminal.plain(word)!r}: "
            + (f"there are {known}" if known else "the run has none"),
            ExitCode.USAGE if found else ExitCode.NOT_FOUND,
        )
    capture = client.get_json(f"{RUNS}/{run['id']}/captures/{quote(found[0]['id'], safe='')}")
    if as_json:
        output.write_json(capture)
        return
    for line in str(capture["text"]).split("\n"):
        typer.echo(terminal.plain(line.expandtabs()))
    if capture["cut"]:
        typer.echo("there was more, which was not kept", err=True)


def stats(
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Count how the runs of each playbook ended, and what came of its repairs.

    Of the newest 10,000 runs whose incidents are not archived; of all repairs.

    llm-im playbooks stats
    """
    counts: dict[str, Counter[str]] = {}
    client = client_of(url, context, token_file)
    for each in ids.walk(client, [], COUNTED, RUNS):
        name = f"{each['playbook']} (shadow)" if each["shadow"] else str(each["playbook"])
        counts.setdefault(name, Counter())[each["status"] if each["ended_at"] else "under way"] += 1
    repairs = client.get_json(REPAIRS)["items"]
    if as_json:
        runs = {name: dict(found) for name, found in sorted(counts.items())}
        output.write_json({"runs": runs, "repairs": repairs})
        return
    if not counts and not repairs:
        typer.echo("no runs")
        return
    out = terminal.console()
    kinds = ("succeeded", "failed", "aborted", "cancelled", "under way")
    table = terminal.table(
        "PLAYBOOK", "RUNS", *(kind.upper() for kind in kinds), right=("RUNS", *map(str.upper, kinds))
    )
    for name, found in sorted(counts.items()):
        table.add_row(terminal.plain(name), f"{found.total():,}", *(f"{found[kind]:,}" for kind in kinds))
    if counts:
        out.print(table)
    if repairs:
        _repairs(repairs)


def _repairs(repairs: list[dict[str, Any]]) -> None:
    names = ("REPAIRS", "HEALED", "AFTER", "ALERTS ENDED", "HELD", "REGRESSED", "SIDE EFFECTS")
    table = terminal.table("PLAYBOOK", "VERSION", *names, right=names)
    for each in repairs:
        seconds = each["seconds_to_heal"]
        table.add_row(
            terminal.plain(each["playbook"]),
            terminal.plain(each["version"]),
            f"{each['runs']:,}",
            f"{each['healed']:,}",
            "" if seconds is None else f"{seconds:,.0f} s",
            *(f"{each[key]:,}" for key in ("alerts_ended", "held", "regressed", "side_effects")),
        )
    terminal.console().print(table)


def tasks(
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List what people are to do after incidents that are not archived, the one due first at the top.

    llm-im playbooks tasks
    """
    found = client_of(url, context, token_file).get_json(TASKS)["items"]
    if as_json:
        output.write_json({"items": found})
        return
    if not found:
        typer.echo("no tasks")
        return
    table = terminal.table("INCIDENT", "DUE", "TASK", "TITLE")
    for each in found:
        table.add_row(
            terminal.short_id(each["incident"]),
            "now" if each["due"] else each["due_at"],
            terminal.plain(each["text"]),
            terminal.plain(each["title"]),
        )
    terminal.console().print(table)
