"""`llm-im incidents show|alerts|timeline`: how one incident came about, and what was done."""

from __future__ import annotations

import http.client
from typing import Annotated, Any

import typer

from services.cli.commands import alerts
from services.cli.commands.incidents import heading
from services.cli.shared import ids, output, terminal
from services.cli.shared.client import Client
from services.cli.shared.ids import OneId
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Output, Row

#: Alerts that `show` fetches; an incident may hold thousands, and a person reads the first few.
ALERTS_SHOWN = 50

#: What of an entry's details people must see, and how it is said.
_SAID = (
    ("reason", "{}"),
    ("audience", "to {}"),
    ("until", "until {}"),
    ("root_cause", "root cause: {}"),
)


def in_words(text: str, details: dict[str, str]) -> str:
    """An entry of a timeline in a line: its text, and why, to whom, until when where that does not say so."""
    said = [
        how.format(details[name]) for name, how in _SAID if details.get(name) and details[name] not in text
    ]
    return terminal.plain(f"{text} ({'; '.join(said)})" if said else text)


TIMELINE = (
    Column("timestamp", lambda row: terminal.plain(row["timestamp"]), lambda row: row["timestamp"]),
    Column("event", lambda row: terminal.plain(row["event_type"]), None),
    Column("event_type", None, lambda row: row["event_type"]),
    Column("actor", lambda row: terminal.plain(row["actor"]), lambda row: row["actor"]),
    Column(
        "details",
        lambda row: terminal.pairs(row["metadata"]),
        lambda row: terminal.pairs(row["metadata"]),
        wide=True,
        gives_way=True,
    ),
    Column(
        "description",
        lambda row: in_words(row["description"], row["metadata"]),
        lambda row: row["description"],
        gives_way=True,
    ),
)


@with_options
def show(
    incident: OneId,
    *,
    asked: Asked,
) -> None:
    """Show one incident: its alerts, why each of them is in it, and its timeline.

    llm-im incidents show 4e5f60718293
    """
    client = asked.client()
    identity = ids.find_one(client, incident)
    body = _get(client, identity)
    found, more = _alerts(client, identity, ALERTS_SHOWN)
    timeline = client.get_json(f"{ids.PATH}/{identity}/timeline")
    if asked.as_json:
        whole = {
            "incident": body,
            "alerts": found,
            "more_alerts": more,
            "timeline": timeline["items"],
        }
        output.write_json(whole)
        return
    heading.write(body)
    _show_alerts(body, found, more)
    _show_timeline(timeline)


@with_options
def show_alerts(
    incident: OneId,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most this many.")
    ] = ALERTS_SHOWN,
    form: Form = Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """List the alerts of an incident, firing ones first. `-o id` prints their fingerprints, for split.

    llm-im incidents alerts 4e5f60718293 -o wide
    """
    client = asked.client()
    identity = ids.find_one(client, incident)
    found, more = _alerts(client, identity, limit)
    alerts.write(found, more, output.form_of(form, asked.as_json))


@with_options
def show_timeline(
    incident: OneId,
    form: Form = Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """Show the timeline of an incident, oldest first.

    llm-im incidents timeline 4e5f60718293
    """
    client = asked.client()
    identity = ids.find_one(client, incident)
    found = client.get_json(f"{ids.PATH}/{identity}/timeline")
    match output.form_of(form, asked.as_json):
        case Output.JSON:
            output.write_json(found)
            return
        case Output.CSV:
            output.write_csv(TIMELINE, found["items"])
        case Output.ID:
            output.write_ids([{"id": identity}])
        case wanted:
            output.write_table(TIMELINE, found["items"], wanted is Output.WIDE)
    if found["dropped"]:
        typer.echo(f"{found['dropped']:,} entries in between are no longer kept", err=True)


def _get(client: Client, identity: str) -> dict[str, Any]:
    reply = client.get(f"{ids.PATH}/{identity}")
    found = reply.json()
    if reply.status != http.client.OK or not isinstance(found, dict):
        hint = "to list them: llm-im incidents list" if reply.status == http.client.NOT_FOUND else ""
        raise client.failure(reply, hint)
    return found


def _alerts(client: Client, identity: str, limit: int) -> tuple[list[Row], bool]:
    """Up to `limit` alerts of an incident, those that fire before those that ended, and whether there are more."""
    found: dict[str, Row] = {}
    for firing in ("true", "false"):
        query = [("firing", firing)]
        for alert in ids.walk(client, query, limit + 1 - len(found), f"{ids.PATH}/{identity}/alerts"):
            # One that ended in between is in both.
            found.setdefault(alert["fingerprint"], alert)
    return list(found.values())[:limit], len(found) > limit


def _show_alerts(incident: dict[str, Any], alerts: list[Row], more: bool) -> None:
    out = terminal.console()
    out.print("\nAlerts", style="bold")
    for alert in alerts:
        style = None if alert["firing"] else "dim"
        out.print(
            f"  {'firing' if alert['firing'] else 'ended '}  {terminal.pairs(alert['labels'])}", style=style
        )
        out.print(
            f"          since {terminal.since(alert['starts_at'])}, last seen {terminal.since(alert['last_seen_at'])} ago, "
            f"from {terminal.plain(alert['source'])}",
            style=style,
        )
        if alert["generator_url"]:
            # Whole, for who copies it.
            out.print(f"          link: {terminal.plain(alert['generator_url'])}", soft_wrap=True)
        for name, text in sorted(alert["annotations"].items()):
            out.print(f"          {terminal.plain(name)}: {terminal.plain(text)}")
        for why in alert["why"]:
            times = f" x{why['count']:,}" if why["count"] > 1 else ""
            out.print(f"          why: {why['decision']}{times}: {terminal.plain(why['reason'])}")
    if more:
        out.print(
            f"  and {incident['alerts'] - len(alerts):,} more: llm-im incidents alerts {incident['id']} -n 1000"
        )


def _show_timeline(timeline: dict[str, Any]) -> None:
    out = terminal.console()
    out.print("\nTimeline", style="bold")
    if timeline["dropped"]:
        out.print(f"  ({timeline['dropped']:,} earlier entries are no longer kept)")
    for entry in timeline["items"]:
        out.print(
            f"  {terminal.plain(entry['timestamp'])}  {terminal.plain(entry['event_type']):<16}  "
            f"{in_words(entry['description'], entry.get('metadata') or {})}  ({terminal.plain(entry['actor'])})"
        )
