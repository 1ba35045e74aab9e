"""`llm-im dead-letters list|show|replay|drop`: what could not be read, and reading it again."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from services.cli.shared import ids, moments, output, terminal
from services.cli.shared.client import Client, Reply
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Output, Row

PATH = "/v1/dead-letters"
#: Letters of one request to replay several.
REPLAY_PAGE = 100
#: How long one answer may take: the server goes on for 15 s, and tries what can't be stored for some more.
REPLAY_TIMEOUT_S = 60.0

app = typer.Typer(
    help="What could not be read: list it, replay it after a fix, or drop it.",
    no_args_is_help=True,
    epilog=EPILOG,
)

Which = Annotated[
    int,
    typer.Argument(metavar="ID", min=1, help="As shown by llm-im dead-letters list.", show_default=False),
]
Several = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...", help="As shown by llm-im dead-letters list; - reads stdin.", show_default=False
    ),
]
All = Annotated[bool, typer.Option("--all", help="All of them: needed without an id and without a filter.")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters, by what they say."""

    door: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Only those that came by this format.", show_default=False),
    ] = None
    sender: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those of this sender.", show_default=False)
    ] = None
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only those that came since: 2h, or RFC 3339.", show_default=False),
    ] = None
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only those that came before: 2h, or RFC 3339.", show_default=False
        ),
    ] = None
    reason: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Only those whose reason contains this.", show_default=False),
    ] = None

    def query(self) -> list[tuple[str, str]]:
        """Raises Failure."""
        given = {
            "door": self.door,
            "sender": self.sender,
            "since": None if self.since is None else moments.past(self.since, "--since"),
            "until": None if self.until is None else moments.past(self.until, "--until"),
            "reason": self.reason,
        }
        return [(name, value) for name, value in given.items() if value is not None]


def _replays(row: Row) -> str:
    return f"{row['replays']:,}" if row["replays"] else "-"


COLUMNS = (
    Column("id", lambda row: terminal.plain(row["id"]), lambda row: row["id"], right=True),
    Column(
        "received", lambda row: terminal.when(row["received_at"]), lambda row: row["received_at"], right=True
    ),
    Column("door", lambda row: terminal.plain(row["door"]), lambda row: row["door"]),
    Column(
        "sender",
        lambda row: terminal.plain(row["sender"]),
        lambda row: row["sender"],
        gives_way=True,
        leaves=2,
    ),
    Column(
        "place", lambda row: terminal.plain(row["place"]), lambda row: row["place"], gives_way=True, leaves=3
    ),
    Column(
        "bytes",
        lambda row: f"{row['size']:,}{'+' if row['truncated'] else ''}",
        lambda row: row["size"],
        right=True,
    ),
    Column("replays", _replays, lambda row: row["replays"], right=True, leaves=1),
    Column("truncated", None, lambda row: row["truncated"]),
    Column("reason", lambda row: terminal.plain(row["reason"]), lambda row: row["reason"], gives_way=True),
)


@app.command("list", epilog=EPILOG)
@with_options
def list_letters(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most this many.")
    ] = 50,
    form: Form = Output.TABLE,
    *,
    wanted: Wanted,
    asked: Asked,
) -> None:
    """List what could not be read, the newest first, and why.

    llm-im dead-letters list --door mapped --since 2h
    """
    found = list(ids.walk(asked.client(), wanted.query(), limit + 1, PATH))
    output.write_list(
        COLUMNS,
        found,
        limit,
        output.form_of(form, asked.as_json),
        "no matching dead letters" if wanted.query() else "no dead letters",
    )


@app.command(epilog=EPILOG)
@with_options
def show(
    letter: Which,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write its bytes to stdout, as they are, and nothing else.")
    ] = False,
    *,
    asked: Asked,
) -> None:
    """Show one dead letter with its bytes.

    llm-im dead-letters show 17 --raw > body.json
    """
    client = asked.client()
    found = _json(client, client.get(f"{PATH}/{letter}"))
    if asked.as_json:
        output.write_json(found)
        return
    if raw:
        from base64 import b64decode

        text = found["text"]
        sys.stdout.flush()
        typer.get_binary_stream("stdout").write(b64decode(found["base64"]) if text is None else text.encode())
        return
    out = terminal.console()
    tried = f"{found['replays']:,}, last {terminal.when(found['tried_at'])}" if found["replays"] else ""
    kept = f"{found['size']:,} bytes" + (": only the beginning was kept" if found["truncated"] else "")
    for name, text in (
        ("id", str(found["id"])),
        ("received", f"{found['received_at']}  ({terminal.when(found['received_at'])})"),
        ("door", found["door"]),
        ("sender", found["sender"]),
        ("request", f"{found['method']} {found['path']}" if found["path"] else ""),
        ("query", found["query"]),
        ("type", found["content_type"]),
        ("place", found["place"]),
        ("reason", found["reason"]),
        ("replays", tried),
        ("kept", kept),
    ):
        if text:
            out.print(f"  {name:<10}{terminal.plain(text)}", soft_wrap=True)
    body = found["text"] if found["text"] is not None else f"base64: {found['base64']}"
    for line in body.splitlines():
        out.print(f"  | {terminal.plain(line)}", soft_wrap=True)


@app.command(epilog=EPILOG)
@with_options
def replay(
    letters: Several = None,
    as_format: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="FORMAT",
            help="Read them as this format (see llm-im formats list).",
            show_default=False,
        ),
    ] = "",
    every: All = False,
    *,
    wanted: Wanted,
    asked: Asked,
) -> None:
    """Read dead letters again, after a mapping, a setting or the program was mended. What is stored leaves the dead letters; what still
    can't be taken stays, with the new reason. Safe to repeat. Exit code 1: some were refused; 4: some can't be stored now.

    llm-im dead-letters replay 17

    llm-im dead-letters replay --door mapped --since 1d
    """
    client, given = asked.client(REPLAY_TIMEOUT_S), _ids(letters, wanted, every, "replay")
    done: list[Row] = []
    if given is not None:
        for each in given:
            reply = client.post_json(f"{PATH}/{each}/replay", {"format": as_format})
            done.append(_json(client, reply))
            if not asked.as_json:
                _say(done[-1])
    else:
        body: dict[str, Any] = {**dict(wanted.query()), "format": as_format, "limit": REPLAY_PAGE}
        while True:
            some = _json(client, client.post_json(f"{PATH}/replay", body))
            done += some["items"]
            if not asked.as_json:
                for each in some["items"]:
                    _say(each)
            if some["next"] is None or some["waiting"]:
                break
            body["cursor"] = some["next"]
    outcomes = [each["outcome"] for each in done]
    stored, refused, waiting = (outcomes.count(each) for each in ("stored", "refused", "waiting"))
    if asked.as_json:
        output.write_json({"items": done, "stored": stored, "refused": refused, "waiting": waiting})
    elif not done:
        typer.echo("no matching dead letters")
    elif len(done) > 1:
        typer.echo(f"{stored:,} stored, {refused:,} refused, {waiting:,} waiting", err=True)
    if waiting:
        raise typer.Exit(ExitCode.DEGRADED)
    if refused:
        raise typer.Exit(ExitCode.FAILED)


@app.command(epilog=EPILOG)
@with_options
def drop(
    letters: Several = None,
    every: All = False,
    *,
    wanted: Wanted,
    asked: Asked,
) -> None:
    """Drop dead letters for good.

    llm-im dead-letters drop 17

    llm-im dead-letters drop --sender staging --until 1d
    """
    client, given = asked.client(), _ids(letters, wanted, every, "drop")
    dropped = 0
    if given is not None:
        for each in given:
            dropped += _json(client, client.delete(f"{PATH}/{each}"))["dropped"]
    else:
        from urllib.parse import urlencode

        query = urlencode([*wanted.query(), *([("all", "true")] if every else [])])
        while True:
            some = _json(client, client.delete(f"{PATH}?{query}"))
            dropped += some["dropped"]
            if not some["more"]:
                break
    if asked.as_json:
        output.write_json({"dropped": dropped})
    else:
        typer.echo(f"{dropped:,} dropped")


def _ids(letters: list[str] | None, wanted: Wanted, every: bool, verb: str) -> list[int] | None:
    """The ids that were given; None when a filter says which. Raises Failure."""
    if letters == ["-"]:
        letters = typer.get_text_stream("stdin").read().split()
    elif not letters:
        if not wanted.query() and not every:
            raise Failure(
                f"name the dead letters to {verb}: ids, a filter such as --door, or --all", ExitCode.USAGE
            )
        return None
    if wanted.query() or every:
        raise Failure("give ids or a filter, not both", ExitCode.USAGE)
    for each in letters:
        if not (each.isascii() and each.isdigit()):
            raise Failure(
                f"{each!r} is not the id of a dead letter; see llm-im dead-letters list", ExitCode.USAGE
            )
    return [int(each) for each in letters]


def _say(done: Row) -> None:
    what = f"{terminal.plain(done['id'])} {terminal.plain(done['outcome'])}"
    alerts = "1 alert" if done["stored"] == 1 else f"{done['stored']:,} alerts"
    how = f" as {terminal.plain(done['format'])}, {alerts}" if done["outcome"] == "stored" else ""
    why = f": {terminal.plain(done['reason'])}" if done["reason"] else ""
    typer.echo(f"{what}{how}{why}")


def _json(client: Client, reply: Reply) -> Any:
    if reply.status == 200:
        return reply.json()
    raise client.failure(reply, "see llm-im dead-letters list" if reply.status == 404 else "")
