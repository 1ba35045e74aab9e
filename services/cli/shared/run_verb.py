"""Doing something to incidents: who they are, asking first where it can't be taken back, one request or a bulk one, and
what became of each.

What is shown, asked about and then done is one list of ids: an incident that comes to match in between is not touched.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from services.cli.shared import confirm, filters, ids, output
from services.cli.shared import terminal as look
from services.cli.shared.client import Client, Reply
from services.cli.shared.exits import ExitCode, Failure, code_of
from services.cli.shared.options import VerbOptions
from services.cli.shared.refusals import changed_by, instead_of

#: Incidents in one bulk request: each is a verb of its own, answered well within the time a call may take.
BULK_MAX = 100
#: Incidents that one --where may mean; past it a narrower one is asked for.
WHERE_MAX = 10_000

#: What is said of an incident to which nothing had to be done: "reopened" of one that was open would be false.
UNCHANGED = "needed no change"


@dataclass(frozen=True, slots=True)
class Action:
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


def body(**given: Any) -> dict[str, Any]:
    """A verb's body of what was given."""
    return {name: value for name, value in given.items() if value not in (None, [], {})}


def do(action: Action, words: Sequence[str] | None, options: VerbOptions) -> None:
    """Do it to every incident that is meant, and exit."""
    client = options.asked.client()
    meant, rows = _meant(client, words, options)
    if options.if_version is not None and len(meant) != 1:
        raise Failure(f"--if-version is for one incident, not {len(meant)}", ExitCode.USAGE)
    do_each(client, action, [(identity, action.body) for identity in meant], options, rows)


def do_each(
    client: Client,
    action: Action,
    acts: Sequence[tuple[str, dict[str, Any]]],
    options: VerbOptions,
    rows: Sequence[output.Row] = (),
) -> None:
    """Do it to each incident with a body of its own, and exit."""
    if options.dry_run:
        _say_what_would_be(client, action, acts, options, rows)
        raise typer.Exit
    if not options.yes and (options.where or (action.asks and len(acts) > 1)):
        _ask_first(client, action, [identity for identity, _ in acts], options, rows)
    if len(acts) == 1:
        _do_one(client, action, *acts[0], options)
    else:
        _do_many(client, action, acts, options)


def do_with(action: Action, incident: str, others: Sequence[str] | None, options: VerbOptions) -> None:
    """The verb once for each other one; always to the first."""
    client = options.asked.client()
    target = ids.find_one(client, incident)
    named = ids.find(client, others or ())
    if not named:
        raise Failure(
            f"no other incident given: list their ids, or - for stdin: {action.verb} ID OTHER...",
            ExitCode.USAGE,
        )
    if target in named:
        raise Failure(f"{target} was given twice: an incident can't be joined with itself", ExitCode.USAGE)
    if options.if_version is not None and len(named) > 1:
        raise Failure(
            "--if-version works with one other incident only: each one changes the version", ExitCode.USAGE
        )
    acts: list[tuple[str, dict[str, Any]]] = [(target, {"incident": other, **action.body}) for other in named]
    do_each(client, action, acts, options)


def call(
    client: Client, action: Action, identity: str, its: dict[str, Any], if_version: int | None = None
) -> Reply:
    """One verb of one incident. Raises Failure with what to do instead when it is refused."""
    headers = {} if if_version is None else {"If-Match": f'"{if_version}"'}
    reply = client.post_json(f"{ids.PATH}/{identity}/{action.verb}", its, headers)
    if reply.status in (http.client.OK, http.client.CREATED) and isinstance(reply.json(), dict):
        return reply
    if reply.status == http.client.CONFLICT:
        raise client.failure(reply, instead_of(reply.problem, identity))
    if reply.status == http.client.PRECONDITION_FAILED:
        raise client.failure(reply, changed_by(client, identity))
    if reply.status == http.client.NOT_FOUND:
        raise client.failure(reply, "to list them: llm-im incidents list")
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


def _meant(
    client: Client, words: Sequence[str] | None, options: VerbOptions
) -> tuple[list[str], list[output.Row]]:
    """The incidents that are meant, and what is known of them."""
    if words and options.where:
        raise Failure("give ids or --where, not both", ExitCode.USAGE)
    if words:
        found = ids.find(client, words)
        if not found:
            raise Failure("no ids came on stdin; nothing was changed", ExitCode.USAGE)
        return found, []
    if not options.where:
        raise Failure("which incidents? give ids, - for stdin, or --where MATCHER", ExitCode.USAGE)
    wanted = filters.read(options.where)
    if not wanted.query:
        raise Failure("--where matches all incidents: add a matcher that narrows it", ExitCode.USAGE)
    rows = list(ids.walk(client, wanted.query, WHERE_MAX + 1))
    if len(rows) > WHERE_MAX:
        raise Failure(
            f"more than {WHERE_MAX:,} incidents match; narrow it, for example by --where service=NAME"
        )
    if not rows:
        hint = wanted.hint()
        raise Failure(
            "no incident matches; nothing was changed" + (f" ({hint})" if hint else ""), ExitCode.NOT_FOUND
        )
    return [str(row["id"]) for row in rows], rows


def _rows(client: Client, acts: Sequence[str], rows: Sequence[output.Row], limit: int) -> list[output.Row]:
    return list(rows[:limit]) or [client.get_json(f"{ids.PATH}/{identity}") for identity in acts[:limit]]


def _say_what_would_be(
    client: Client,
    action: Action,
    acts: Sequence[tuple[str, dict[str, Any]]],
    options: VerbOptions,
    rows: Sequence[output.Row],
) -> None:
    if options.asked.as_json:
        would = [{"incident": identity, "verb": action.verb, "body": its} for identity, its in acts]
        output.write_json({"dry_run": True, "items": would})
        return
    known = _rows(client, [identity for identity, _ in acts], rows, len(acts))
    for row, (_, its) in zip(known, acts):
        say(row, f"would be {action.done_with(its)}:")
    typer.echo(f"nothing was changed: {len(acts):,} would be {action.done}", err=True)


def _ask_first(
    client: Client, action: Action, acts: Sequence[str], options: VerbOptions, rows: Sequence[output.Row]
) -> None:
    """Raises Failure when the answer is no, or when nobody can be asked what --where means."""
    place = confirm.terminal()
    if place is not None:
        if not confirm.agrees(place, action.verb, len(acts), _rows(client, acts, rows, confirm.SHOWN)):
            raise Failure("nothing was changed")
    elif options.where:
        raise Failure(f"--where means {len(acts):,} incidents: add --yes to confirm", ExitCode.USAGE)


def _do_one(client: Client, action: Action, identity: str, its: dict[str, Any], options: VerbOptions) -> None:
    reply = call(client, action, identity, its, options.if_version)
    incident = reply.json()
    if options.asked.as_json:
        output.write_json(incident)
    else:
        say(incident, UNCHANGED if _is_unchanged(reply) else action.done_with(its))


def _do_many(
    client: Client, action: Action, acts: Sequence[tuple[str, dict[str, Any]]], options: VerbOptions
) -> None:
    items: list[dict[str, Any]] = []
    stopped: Failure | None = None
    same = all(its == acts[0][1] for _, its in acts)
    try:
        for item in _bulk(client, action, acts) if same else _one_by_one(client, action, acts):
            items.append(item)
            if not options.asked.as_json:
                _say_item(action, item)
    except Failure as failure:
        stopped = failure
    failed = sum(1 for item in items if item["status"] >= http.client.BAD_REQUEST)
    same_as_before = sum(1 for item in items if _is_same(item))
    if options.asked.as_json:
        output.write_json({"items": items})
    else:
        typer.echo(
            f"{len(items) - failed - same_as_before:,} of {len(acts):,} incidents {action.done}"
            + (f", {same_as_before:,} {UNCHANGED}" if same_as_before else "")
            + (f", {failed:,} refused" if failed else ""),
            err=True,
        )
    if stopped is not None:
        left = len(acts) - len(items)
        raise Failure(
            f"{stopped}; it is unknown whether the last {left:,} were changed: check before you repeat it",
            stopped.code,
        )
    raise typer.Exit(ExitCode.FAILED if failed else ExitCode.OK)


def _bulk(
    client: Client, action: Action, acts: Sequence[tuple[str, dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    for first in range(0, len(acts), BULK_MAX):
        asked = [identity for identity, _ in acts[first : first + BULK_MAX]]
        reply = client.post_json(
            f"{ids.PATH}/bulk", {"verb": action.verb, "incidents": asked, "body": acts[0][1]}
        )
        found = reply.json()
        if reply.status not in (http.client.OK, http.client.MULTI_STATUS) or not isinstance(found, dict):
            raise client.failure(reply)
        yield from found["items"]


def _one_by_one(
    client: Client, action: Action, acts: Sequence[tuple[str, dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """Each as a request of its own, with the other incident that it is about. A refusal of one is an item; what would
    refuse them all ends it."""
    for identity, its in acts:
        reply = client.post_json(f"{ids.PATH}/{identity}/{action.verb}", its)
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


def _say_item(action: Action, item: dict[str, Any]) -> None:
    identity = look.plain(item["incident"])
    if item["status"] < http.client.BAD_REQUEST:
        done = UNCHANGED if _is_same(item) else action.done_with({"incident": item.get("other")})
        typer.echo(f"{look.short_id(identity)}  {done}")
        return
    instead = ""
    if item["status"] == http.client.CONFLICT:
        instead = f"; {instead_of(str(item.get('detail')), identity)}"
    other = f" and {item['other']}" if "other" in item else ""
    typer.echo(f"{identity}{other}: {look.plain(item.get('detail') or item['status'])}{instead}", err=True)
