"""`llm-im routes show|test`: which receivers are told of what, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli.shared import output, terminal
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.options import Asked, with_options

PATH = "/v1/routes"

app = typer.Typer(help="Show who is told of what, and why.", no_args_is_help=True, epilog=EPILOG)


@app.command(epilog=EPILOG)
@with_options
def show(*, asked: Asked) -> None:
    """Show the tree of routes, each with its receivers and timings.

    llm-im routes show
    """
    body = asked.client().get_json(PATH)
    if asked.as_json:
        output.write_json(body)
        return
    for row in body["items"]:
        typer.echo(terminal.plain(_line(row)))


@app.command(epilog=EPILOG)
@with_options
def test(
    labels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LABEL=VALUE...",
            help="Labels that all firing alerts of the incident share.",
            show_default=False,
        ),
    ] = None,
    severity: Annotated[str, typer.Option("--severity", "-s", metavar="P0..P4", help="Its severity.")] = "P2",
    kind: Annotated[
        str, typer.Option("--type", "-t", metavar="TYPE", help="Its type, such as Availability.")
    ] = "Unknown",
    service: Annotated[
        str,
        typer.Option(
            "--service", metavar="NAME", help="Its service; else the label service.", show_default=False
        ),
    ] = "",
    *,
    asked: Asked,
) -> None:
    """Say which receivers would be told of an incident, and why. Nobody is told.

    llm-im routes test team=db severity=critical --severity P1 --service vector-db
    """
    wanted: dict[str, Any] = {"labels": dict(map(_pair, labels or [])), "severity": severity}
    wanted |= {"incident_type": kind, **({"service": service} if service else {})}
    client = asked.client()
    reply = client.post_json(f"{PATH}/test", wanted)
    if reply.status != 200:
        raise client.failure(reply)
    body = reply.json()
    if asked.as_json:
        output.write_json(body)
        return
    for step in body["steps"]:
        mark = "+" if step["took"] else "-"
        typer.echo(terminal.plain(f"{'  ' * step['depth']}{mark} {step['route']}: {_why(step)}"))
    typer.echo("")
    for each in body["told"]:
        typer.echo(terminal.plain(f"{each['receiver']} is told, by {each['why']}"))
    for each in body["escalate_to"]:
        typer.echo(terminal.plain(f"{each['receiver']} is told as well if nobody acknowledges it in time"))
    if body.get("escalation"):
        policy = terminal.plain(body["escalation"])
        typer.echo(f"people on call are paged by policy {policy}: llm-im escalation show {policy}")
    if body["discarded_by"] is not None:
        typer.echo(terminal.plain(f"nobody is told: route {body['discarded_by']} discards it"))


def _why(step: dict[str, Any]) -> str:
    return str(step["why"]).partition(": ")[2] if step["took"] else str(step["why"])


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise Failure(f"expected LABEL=VALUE, not {word!r}", ExitCode.USAGE)
    return name, value


def _line(row: dict[str, Any]) -> str:
    """A route: how deep, what it asks, who is told, and its timings."""
    whom = "nobody (discarded)" if row["discards"] else ", ".join(row["receivers"]) or "nobody"
    after = f"after {terminal.duration(row['wait_s'])}, " if row["wait_s"] else ""
    again = f", again after {terminal.duration(row['repeat_s'])}" if row["repeat_s"] else ""
    words = [f"{row['name']}: {row['asks']} -> {whom}"]
    if not row["discards"]:
        words.append(f"{after}at most every {terminal.duration(row['interval_s'])}{again}")
        if not row["send_resolved"]:
            words.append("no resolves")
        if row["escalate_to"]:
            words.append(f"escalates to {', '.join(row['escalate_to'])}")
        if row.get("escalation"):
            words.append(f"pages by {row['escalation']}")
    if row["continues"]:
        words.append("continues")
    depth: int = row["depth"]
    return "  " * depth + "; ".join(words)
