"""`llm-im incidents list|show`: what is wrong now, and how one incident came about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

import typer

from services.cli import look
from services.cli.client import Client
from services.cli.exits import EPILOG, ExitCode, Failure
from services.cli.where import AsJson, TokenFile, Url, url_of

PATH = "/v1/incidents"
#: The largest page the server gives (models/query.py, PAGE_MAX).
PAGE_MAX = 1000
#: How far back a shortened id is looked for: ten pages, a second or two.
LOOKED_THROUGH = 10 * PAGE_MAX
#: Shorter ones would name several incidents sooner or later.
SHORTEST_ID = 4
#: Alerts that `show` fetches; an incident may hold thousands, and a person reads the first few.
ALERTS_SHOWN = 50

app = typer.Typer(help="See incidents.", no_args_is_help=True, epilog=EPILOG)


@app.command("list", epilog=EPILOG)
def list_incidents(
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Detected, Triaged, Investigating, Remediating, Resolved, Closed; may be repeated."
        ),
    ] = None,
    severity: Annotated[list[str] | None, typer.Option(help="P0 to P4; may be repeated.")] = None,
    service: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most so many.")
    ] = 50,
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List incidents, newest first."""
    client = Client(url_of(url), token_file=token_file)
    given = {"state": state, "severity": severity, "service": service}
    query = [(name, value) for name, values in given.items() for value in values or ()]
    found: list[dict[str, Any]] = []
    more = False
    for incident in _walk(client, query, limit + 1):
        more = len(found) == limit
        if not more:
            found.append(incident)
    if as_json:
        typer.echo(json.dumps({"items": found, "more": more}))
        return
    if not found:
        typer.echo("no incidents" + (" like that" if query else ""))
        return
    table = look.table(
        "ID", "SEV", "STATE", "AGE", "FIRING", "SERVICE", "TITLE", right=("AGE", "FIRING"), wide=("TITLE",)
    )
    for incident in found:
        table.add_row(
            look.short_id(incident["id"]),
            look.severity(incident["severity"]),
            incident["state"],
            look.since(incident["created_at"]),
            f"{incident['alerts_firing']}/{incident['alerts']}",
            look.plain(incident["service"]),
            look.plain(incident["title"]),
        )
    look.console().print(table)
    if more:
        typer.echo(f"there are more than these {limit}: --limit", err=True)


@app.command(epilog=EPILOG)
def show(
    incident: Annotated[
        str, typer.Argument(metavar="ID", help="The whole id, or enough of its beginning or end.")
    ],
    url: Url = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one incident: its alerts, why each is there, and what happened."""
    client = Client(url_of(url), token_file=token_file)
    identity = _find(client, incident)
    body = client.get_json(f"{PATH}/{identity}")
    alerts = client.get_json(f"{PATH}/{identity}/alerts", [("limit", str(ALERTS_SHOWN))])
    timeline = client.get_json(f"{PATH}/{identity}/timeline")
    if as_json:
        body = {
            "incident": body,
            "alerts": alerts["items"],
            "more_alerts": alerts["next"] is not None,
            "timeline": timeline["items"],
        }
        typer.echo(json.dumps(body))
        return
    _show_head(body)
    _show_alerts(body, alerts)
    _show_timeline(timeline)


def _walk(client: Client, query: list[tuple[str, str]], limit: int) -> Iterator[dict[str, Any]]:
    """Up to `limit` incidents, page by page."""
    cursor: str | None = None
    left = limit
    while left > 0:
        page = client.get_json(
            PATH, [*query, ("limit", str(min(left, PAGE_MAX))), *([("cursor", cursor)] if cursor else [])]
        )
        yield from page["items"]
        left -= len(page["items"])
        cursor = page["next"]
        if cursor is None:
            return


def _find(client: Client, given: str) -> str:
    """The whole id. A part of one is looked for among the newest incidents."""
    try:
        return str(UUID(given))
    except ValueError:
        pass
    part = given.lower().strip()
    if len(part) < SHORTEST_ID or not set(part) <= set("0123456789abcdef-"):
        raise Failure(
            f"{given!r} is no incident id: expected a UUID, or at least {SHORTEST_ID} characters of one",
            ExitCode.USAGE,
        )
    found = [
        str(incident["id"])
        for incident in _walk(client, [], LOOKED_THROUGH)
        if incident["id"].startswith(part) or incident["id"].endswith(part)
    ]
    if not found:
        raise Failure(
            f"none of the newest {LOOKED_THROUGH:,} incidents has an id with {given!r} at its beginning or end"
        )
    if len(found) > 1:
        shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise Failure(f"{given!r} may be any of {len(found)} incidents: {shown}", ExitCode.USAGE)
    return found[0]


def _show_head(incident: dict[str, Any]) -> None:
    from rich.text import Text

    out = look.console()
    out.print(
        Text.assemble(look.severity(incident["severity"]), " ", (look.plain(incident["title"]), "bold"))
    )
    by = f"  (by {look.plain(incident['classified_by'])}, confidence {incident['confidence']:.2f})"
    lines = [
        ("id", incident["id"]),
        ("state", incident["state"]),
        ("severity", incident["severity"] + (by if incident["classified_by"] else "  (not classified yet)")),
        ("type", incident["incident_type"]),
        ("impact", incident["impact"]),
        ("service", incident["service"]),
        ("group", look.pairs(incident["group_labels"])),
        ("description", incident["description"]),
        ("opened", f"{incident['created_at']}  ({look.since(incident['created_at'])} ago)"),
        ("changed", f"{incident['updated_at']}  ({look.since(incident['updated_at'])} ago)"),
        ("alerts", f"{incident['alerts_firing']} firing of {incident['alerts']}"),
        ("reopened", f"{incident['reopened']} times" if incident["reopened"] else ""),
        ("assignees", ", ".join(incident["assignees"])),
    ]
    if resolution := incident["resolution"]:
        lines.append(
            ("resolved", f"{resolution['resolved_at']} by {resolution['resolved_by']}: {resolution['notes']}")
        )
    if overflow := incident["overflow"]:
        lines.append(("overflow", f"stands for {overflow['count']} groups: {', '.join(overflow['members'])}"))
    for name, text in lines:
        if text:
            out.print(f"  {name:<12}{look.plain(text)}")


def _show_alerts(incident: dict[str, Any], alerts: dict[str, Any]) -> None:
    out = look.console()
    out.print("\nAlerts", style="bold")
    for alert in alerts["items"]:
        ended = "firing" if alert["firing"] else "ended "
        out.print(
            f"  {ended}  {look.pairs(alert['labels'])}  (since {look.since(alert['starts_at'])}, "
            f"last seen {look.since(alert['last_seen_at'])} ago, from {look.plain(alert['source'])})",
            style=None if alert["firing"] else "dim",
        )
        for name, text in sorted(alert["annotations"].items()):
            out.print(f"          {look.plain(name)}: {look.plain(text)}")
        for why in alert["why"]:
            times = f" x{why['count']:,}" if why["count"] > 1 else ""
            out.print(f"          why: {why['decision']}{times}: {look.plain(why['reason'])}")
    if alerts["next"] is not None:
        out.print(f"  and {incident['alerts'] - len(alerts['items']):,} more")


def _show_timeline(timeline: dict[str, Any]) -> None:
    out = look.console()
    out.print("\nTimeline", style="bold")
    if timeline["dropped"]:
        out.print(f"  ({timeline['dropped']:,} earlier entries are no longer kept)")
    for entry in timeline["items"]:
        out.print(
            f"  {look.plain(entry['timestamp'])}  {look.plain(entry['event_type']):<16}  "
            f"{look.plain(entry['description'])}  ({look.plain(entry['actor'])})"
        )
