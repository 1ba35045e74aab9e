"""Doing something to incidents: who they are, asking first where it can't be taken back, one request or a bulk one, and
what became of each.

What is shown, asked about and then done is one list of ids: an incident that comes to match in between is not touched.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.shared import confirm, filters, ids, output
from services.cli.shared import terminal as look
from services.cli.shared.client import Client, Reply
from services.cli.shared.exits import ExitCode, Failure, code_of
from services.cli.shared.refusals import changed_by, instead_of
from services.cli.shared.where import client_of

#: Incidents in one bulk request: each is a verb of its own, answered well within the time a call may take.
BULK_MAX = 100
#: Incidents that one --where may mean; past it a narrower one is asked for.
WHERE_MAX = 10_000

#: What is said of an incident to which nothing had to be done: "reopened" of one that was open would be false.
UNCHANGED = "needed no change"

Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="MATCHER",
        help="Instead of ids: every incident that matches, as for `incidents list`. Repeatable; all must match.",
        show_default=False,
    ),
]
Reason = Annotated[
    str | None,
    typer.Option(
        "--reason", "-r", metavar="TEXT", help="Why you do it; shown in the timeline.", show_default=False
    ),
]
IfVersion = Annotated[
    int | None,
    typer.Option(
        "--if-version",
        min=0,
        help="Only if the incident still has this version (see `incidents show`); else exit code 6.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, without doing it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@dataclass(frozen=True, slots=True)
class Deed:
    """What is done. `done` is the word for it afterwards, `joint` the one before the other incident where there is one.

    With `asks` it is asked about before it is done to several.
    """

    verb: str
    done: str
    body: dict[str, Any]
    joint: str = ""
    asks: bool = False

    def done_with(self, its: dict[str, Any]) -> str:
        """What is said to be done by this body."""
        return f"{self.done} {self.joint} {its['incident']}" if self.joint else self.done


@dataclass(frozen=True, slots=True)
class Manner:
    """How a command was asked to go about it: the options that all of these take."""

    url: str | None
    context: str | None
    token_file: Path | None
    as_json: bool
    dry_run: bool = False
    yes: bool = False
    if_version: int | None = None
    where: Sequence[str] | None = None


def body(**given: Any) -> dict[str, Any]:
    """A verb's body of what was given."""
    return {name: value for name, value in given.items() if value not in (None, [], {})}


def do(deed: Deed, words: Sequence[str] | None, manner: Manner) -> None:
    """Do it to every incident that is meant, and exit."""
    client = client_of(manner.url, manner.context, manner.token_file)
    meant, rows = _meant(client, words, manner)
    if manner.if_version is not None and len(meant) != 1:
        raise Failure(f"--if-version is for one incident, not {len(meant)}", ExitCode.USAGE)
    do_each(client, deed, [(identity, deed.body) for identity in meant], manner, rows)


def do_each(
    client: Client,
    deed: Deed,
    acts: Sequence[tuple[str, dict[str, Any]]],
    manner: Manner,
    rows: Sequence[output.Row] = (),
) -> None:
    """Do it to each incident with a body of its own, and exit."""
    if manner.dry_run:
        _say_what_would_be(client, deed, acts, manner, rows)
        raise typer.Exit
    if not manner.yes and (manner.where or (deed.asks and len(acts) > 1)):
        _ask_first(client, deed, [identity for identity, _ in acts], manner, rows)
    if len(acts) == 1:
        _do_one(client, deed, *acts[0], manner)
    else:
        _do_many(client, deed, acts, manner)


def call(
    client: Client, deed: Deed, identity: str, its: dict[str, Any], if_version: int | None = None
) -> Reply:
    """One verb of one incident. Raises Failure with what to do instead when it is refused."""
    headers = {} if if_version is None else {"If-Match": f'"{if_version}"'}
    reply = client.post_json(f"{ids.PATH}/{identity}/{deed.verb}", its, headers)
    if reply.status in (http.client.OK, http.client.CREATED) and isinstance(reply.json(), dict):
        return reply
    if reply.status == http.client.CONFLICT:
        raise client.failure(reply, instead_of(reply.problem, identity))
    if reply.status == http.client.PRECONDITION_FAILED:
        raise client.failure(reply, changed_by(client, identity))
    if reply.status == http.client.NOT_FOUND:
        raise client.failure(reply, "see which there are: llm-im incidents list")
    raise client.failure(reply)


def say(incident: output.Row, done: str) -> None:
    """One line for what was done to an incident."""
    look.console().print(
        look.short_id(look.plain(incident["id"])),
        f" {done} ",
        look.severity(incident["severity"]),
        look.plain(incident["state"]),
        "",
        look.plain(incident["title"]),
    )


def _meant(client: Client, words: Sequence[str] | None, manner: Manner) -> tuple[list[str], list[output.Row]]:
    """The incidents that are meant, and what is known of them."""
    if words and manner.where:
        raise Failure("give ids or --where, not both", ExitCode.USAGE)
    if words:
        found = ids.find(client, words)
        if not found:
            raise Failure("no ids came on stdin; nothing was changed", ExitCode.USAGE)
        return found, []
    if not manner.where:
        raise Failure("which incidents? give ids, - for stdin, or --where MATCHER", ExitCode.USAGE)
    wanted = filters.read(manner.where)
    if not wanted.query:
        raise Failure("--where leaves all incidents: expected a matcher that narrows it", ExitCode.USAGE)
    rows = list(ids.walk(client, wanted.query, WHERE_MAX + 1))
    if len(rows) > WHERE_MAX:
        raise Failure(
            f"more than {WHERE_MAX:,} incidents match; narrow it, for example by --where service=NAME"
        )
    if not rows:
        hint = wanted.hint()
        raise Failure(
            "no incidents like that; nothing was changed" + (f" ({hint})" if hint else ""), ExitCode.NOT_FOUND
        )
    return [str(row["id"]) for row in rows], rows


def _rows(client: Client, acts: Sequence[str], rows: Sequence[output.Row], limit: int) -> list[output.Row]:
    return list(rows[:limit]) or [client.get_json(f"{ids.PATH}/{identity}") for identity in acts[:limit]]


def _say_what_would_be(
    client: Client,
    deed: Deed,
    acts: Sequence[tuple[str, dict[str, Any]]],
    manner: Manner,
    rows: Sequence[output.Row],
) -> None:
    if manner.as_json:
        would = [{"incident": identity, "verb": deed.verb, "body": its} for identity, its in acts]
        output.write_json({"dry_run": True, "items": would})
        return
    known = _rows(client, [identity for identity, _ in acts], rows, len(acts))
    for row, (_, its) in zip(known, acts):
        say(row, f"would be {deed.done_with(its)}:")
    typer.echo(f"nothing was changed: {len(acts):,} would be {deed.done}", err=True)


def _ask_first(
    client: Client, deed: Deed, acts: Sequence[str], manner: Manner, rows: Sequence[output.Row]
) -> None:
    """Raises Failure when the answer is no, or when nobody can be asked what --where means."""
    place = confirm.terminal()
    if place is not None:
        if not confirm.agrees(place, deed.verb, len(acts), _rows(client, acts, rows, confirm.SHOWN)):
            raise Failure("nothing was changed")
    elif manner.where:
        raise Failure(f"--where means {len(acts):,} incidents: add --yes to confirm", ExitCode.USAGE)


def _do_one(client: Client, deed: Deed, identity: str, its: dict[str, Any], manner: Manner) -> None:
    reply = call(client, deed, identity, its, manner.if_version)
    incident = reply.json()
    if manner.as_json:
        output.write_json(incident)
    else:
        say(incident, UNCHANGED if _is_unchanged(reply) else deed.done_with(its))


def _do_many(client: Client, deed: Deed, acts: Sequence[tuple[str, dict[str, Any]]], manner: Manner) -> None:
    items: list[dict[str, Any]] = []
    stopped: Failure | None = None
    same = all(its == acts[0][1] for _, its in acts)
    try:
        for item in _bulk(client, deed, acts) if same else _one_by_one(client, deed, acts):
            items.append(item)
            if not manner.as_json:
                _say_item(deed, item)
    except Failure as failure:
        stopped = failure
    failed = sum(1 for item in items if item["status"] >= http.client.BAD_REQUEST)
    same_as_before = sum(1 for item in items if _is_same(item))
    if manner.as_json:
        output.write_json({"items": items})
    else:
        typer.echo(
            f"{len(items) - failed - same_as_before:,} of {len(acts):,} incidents {deed.done}"
            + (f", {same_as_before:,} {UNCHANGED}" if same_as_before else "")
            + (f", {failed:,} refused" if failed else ""),
            err=True,
        )
    if stopped is not None:
        left = len(acts) - len(items)
        raise Failure(
            f"{stopped}; nothing is known of the last {left:,}: look before you repeat it", stopped.code
        )
    raise typer.Exit(ExitCode.FAILED if failed else ExitCode.OK)


def _bulk(client: Client, deed: Deed, acts: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for first in range(0, len(acts), BULK_MAX):
        asked = [identity for identity, _ in acts[first : first + BULK_MAX]]
        reply = client.post_json(
            f"{ids.PATH}/bulk", {"verb": deed.verb, "incidents": asked, "body": acts[0][1]}
        )
        found = reply.json()
        if reply.status not in (http.client.OK, http.client.MULTI_STATUS) or not isinstance(found, dict):
            raise client.failure(reply)
        yield from found["items"]


def _one_by_one(
    client: Client, deed: Deed, acts: Sequence[tuple[str, dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """Each as a request of its own, with the other incident that it is about. A refusal of one is an item; what would
    refuse them all ends it."""
    for identity, its in acts:
        reply = client.post_json(f"{ids.PATH}/{identity}/{deed.verb}", its)
        if code_of(reply.status) in (ExitCode.FORBIDDEN, ExitCode.DEGRADED):
            raise client.failure(reply)
        refused = reply.status >= http.client.BAD_REQUEST
        yield {
            "incident": identity,
            "other": its["incident"],
            "status": reply.status,
            "detail": reply.problem if refused else "",
            "changed": not (refused or _is_unchanged(reply)),
        }


def _is_unchanged(reply: Reply) -> bool:
    return bool(reply.headers.get("incident-changed") == "no")


def _is_same(item: dict[str, Any]) -> bool:
    """It was not refused, and all was so already."""
    return item["status"] < http.client.BAD_REQUEST and item.get("changed") is False


def _say_item(deed: Deed, item: dict[str, Any]) -> None:
    identity = look.plain(item["incident"])
    if item["status"] < http.client.BAD_REQUEST:
        done = UNCHANGED if _is_same(item) else deed.done_with({"incident": item.get("other")})
        typer.echo(f"{look.short_id(identity)}  {done}")
        return
    instead = ""
    if item["status"] == http.client.CONFLICT:
        instead = f"; {instead_of(str(item.get('detail')), identity)}"
    other = f" and {item['other']}" if "other" in item else ""
    typer.echo(f"{identity}{other}: {look.plain(item.get('detail') or item['status'])}{instead}", err=True)
