"""`llm-im incidents watch`: what happens to incidents, as it happens."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from services.cli.commands.incidents.show import in_words
from services.cli.shared import filters, ids, output, sse, terminal
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.options import Asked, with_options

PATH = "/v1/stream/incidents"


@with_options
def watch(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID|MATCHER",
            help="Incident ids, or matchers as for `incidents list`. Default: all incidents.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this kind of event, as in the timeline: Resolved, CommentAdded. Repeatable.",
            show_default=False,
        ),
    ] = None,
    after: Annotated[
        str,
        typer.Option(
            "--after",
            metavar="CURSOR",
            help="Continue after this event (`cursor` in the JSON output).",
            show_default=False,
        ),
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Stop after this many events; 0: never.")
    ] = 0,
    *,
    asked: Asked,
) -> None:
    """Show what happens to incidents as it happens, until Ctrl-C. Reconnects without a gap if the connection is lost.

    llm-im incidents watch severity=P0 service=~"llm-.*"

    llm-im incidents watch 4e5f60718293 --json
    """
    client = asked.client()
    query = filters.read([word for word in words or () if filters.is_matcher(word)]).query
    if any(name == "assignee" for name, _ in query):
        raise Failure("watch can't filter by assignee", ExitCode.USAGE)
    query += [("kind", each) for each in kind or ()]
    only = set(ids.find(client, [word for word in words or () if not filters.is_matcher(word)]))
    told = 0
    for event in sse.follow(client, PATH, query, after, _note):
        body = _body(event)
        if event.name != "incident":
            _word(event.name, body)
            continue
        if only and body["incident"]["id"] not in only:
            continue
        if asked.as_json:
            output.write_json(body)
        else:
            _show(body)
        told += 1
        if told == limit:
            return


def _body(event: sse.ServerEvent) -> dict[str, Any]:
    try:
        body = json.loads(event.data)
    except ValueError:
        body = None
    if not isinstance(body, dict) or (
        event.name == "incident" and not isinstance(body.get("incident"), dict)
    ):
        raise Failure(
            f"the stream sent something that is not an event: {terminal.plain(event.data[:80])}",
            ExitCode.FAILED,
        )
    return body


def _show(body: dict[str, Any]) -> None:
    incident = body["incident"]
    actor = body.get("actor") or ""
    terminal.console().print(
        terminal.plain(body["at"]),
        terminal.severity(incident["severity"]),
        f"{terminal.plain(incident['state']):<13}",
        terminal.short_id(terminal.plain(incident["id"])),
        f"{terminal.plain(body['kind'])}:",
        in_words(body.get("text") or incident["title"], _details(body)),
        f"({terminal.plain(actor)})" if actor else "",
        f"[{terminal.plain(incident['service'])}: {terminal.plain(incident['title'])}]",
        soft_wrap=True,
    )


def _details(body: dict[str, Any]) -> dict[str, str]:
    found = body.get("details")
    return {"reason": str(body.get("reason") or ""), **(found if isinstance(found, dict) else {})}


def _word(name: str, body: dict[str, Any]) -> None:
    """What the server says about the stream itself. That it is there, or still there, is no news."""
    why = ": ".join(str(body[key]) for key in ("reason", "detail") if body.get(key))
    match name:
        case "reset":
            _note(f"events were missed ({why}); for the present state: llm-im incidents list")
        case "dropped":
            _note(f"the server closed the stream ({why})")
        case "heartbeat" if body.get("stalled"):
            _note(
                "can't be followed now: "
                + ", ".join(f"{each} ({said})" for each, said in body["stalled"].items())
            )


def _note(text: str) -> None:
    typer.echo(f"llm-im: {terminal.plain(text)}", err=True)
