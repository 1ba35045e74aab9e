"""`llm-im tokens create|list|rotate|revoke`: who may do what, by HTTP as an admin, or --local as who owns the files.

A secret goes to stdout, or into a file that only its owner reads, and nothing else does: what is for people goes to
stderr. So `llm-im tokens create ... > FILE` holds the token and no more.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from services.cli.shared import terminal
from services.cli.shared.client import Client, Reply
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.options import System, with_options
from services.cli.shared.where import (
    STORES,
    AsJson,
    Config,
    Data,
    settings_of,
)

if TYPE_CHECKING:
    from services.identity.tokens import TokenDesk

PATH = "/v1/tokens"

Local = Annotated[
    bool,
    typer.Option(
        "--local",
        help="Write directly to the data folder on this machine: needs no token, and works whether the system runs or not.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Write the secret to this file (mode 0600) instead of stdout.", show_default=False
    ),
]
Which = Annotated[
    str, typer.Argument(metavar="NAME|ID", help="Id or name, as shown by `tokens list`.", show_default=False)
]

app = typer.Typer(help="API tokens: who may do what.", no_args_is_help=True, epilog=EPILOG)


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """Where the tokens are: in a system that is asked, or, with --local, in its control log on this machine."""

    local: Local = False
    config: Config = None
    data: Data = None
    system: System = field(default_factory=System)


@app.command(epilog=EPILOG)
@with_options
def create(
    name: Annotated[
        str,
        typer.Argument(
            help="Who will use it; shown as the actor of everything done with it.", show_default=False
        ),
    ],
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            help="ingest:alertmanager, ingest:v1, ingest:*, read, respond (includes read), admin (everything). "
            "Repeatable.",
            show_default=False,
        ),
    ],
    match: Annotated[
        list[str] | None,
        typer.Option(
            "--match",
            metavar="MATCHER",
            help='Limits what it may send and resolve to alerts with labels such as team="payments". Repeatable; all '
            "must match.",
            show_default=False,
        ),
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option(
            help="How long it is valid, such as 90d. Default: until it is revoked.", show_default=False
        ),
    ] = None,
    out: Out = None,
    *,
    place: TokenPlace,
    as_json: AsJson = False,
) -> None:
    """Make a token and show its secret, once. The first token needs the scope admin; from then on, every request needs a token.

    llm-im tokens create --local admin --scope admin --out ~/.llm-im-token

    llm-im tokens create prometheus --scope ingest:alertmanager --scope read > prometheus.token

    llm-im tokens create payments-ci --scope ingest:v1 --match 'team="payments"' > payments-ci.token
    """
    _refuse_taken(out)
    if place.local:
        made = _locally(
            place.config,
            place.data,
            lambda desk: desk.create(name, scope, _span("expires_in", expires_in), _actor(), match or []),
        )
    else:
        client = place.system.client()
        body = {"name": name, "scopes": scope, "expires_in": expires_in, "match": match or []}
        made = _json(client, client.post(PATH, json.dumps(body).encode(), "application/json"), 201)
    words = f"token {made['id']} ({terminal.plain(made['name'])}) may {', '.join(made['scopes'])}"
    if made.get("match"):
        words += f", only alerts with {terminal.plain(', '.join(made['match']))}"
    _show_secret(made, out, as_json, words)


@app.command("list", epilog=EPILOG)
@with_options
def list_tokens(
    *,
    place: TokenPlace,
    as_json: AsJson = False,
) -> None:
    """List all tokens that are not revoked, by name. Secrets are never shown."""
    found = _listed(place)
    if as_json:
        typer.echo(json.dumps({"items": found}))
        return
    if not found:
        typer.echo("no tokens", err=True)
        return
    table = terminal.table("ID", "NAME", "SCOPES", "AGE", "BY", "EXPIRES", "LAST USED", "MATCH")
    for each in found:
        table.add_row(
            each["id"],
            terminal.plain(each["name"]),
            ",".join(each["scopes"]),
            terminal.since(each["created_at"]),
            terminal.plain(each["created_by"]),
            each["expires_at"] or "never",
            each["last_used_at"] or "never",
            terminal.plain(", ".join(each.get("match", []))) or "-",
        )
    terminal.console().print(table)


@app.command(epilog=EPILOG)
@with_options
def rotate(
    token: Which,
    overlap: Annotated[
        str, typer.Option(help="How long the old secret stays valid, such as 1h. 0s: invalid at once.")
    ] = "24h",
    out: Out = None,
    *,
    place: TokenPlace,
    as_json: AsJson = False,
) -> None:
    """Give a token a new secret and show it, once. Old and new secret are both valid during the overlap."""
    _refuse_taken(out)
    token_id = _id_of(token, _listed(place))
    if place.local:
        made = _locally(
            place.config, place.data, lambda desk: desk.rotate(token_id, _span("overlap", overlap), _actor())
        )
    else:
        client = place.system.client()
        path = f"{PATH}/{quote(token_id, safe='')}/rotate"
        made = _json(
            client, client.post(path, json.dumps({"overlap": overlap}).encode(), "application/json"), 200
        )
    _show_secret(
        made,
        out,
        as_json,
        f"the old secret of {terminal.plain(made['name'])} is good until {made['previous_until']}",
    )


@app.command(epilog=EPILOG)
@with_options
def revoke(
    token: Which,
    force: Annotated[
        bool, typer.Option("--force", help="Revoke it even if it is the last token with the scope admin.")
    ] = False,
    *,
    place: TokenPlace,
) -> None:
    """Revoke a token; it stops working within about a second. Revoking the last one with the scope admin requires
    --force."""
    token_id = _id_of(token, _listed(place))
    if place.local:

        async def at(desk: TokenDesk) -> None:
            await desk.revoke(token_id, _actor(), force=force)

        _locally(place.config, place.data, at)
    else:
        client = place.system.client()
        reply = client.delete(f"{PATH}/{quote(token_id, safe='')}{'?force=true' if force else ''}")
        if reply.status != 204:
            raise client.failure(reply)
    typer.echo(f"token {token_id} is revoked")


def _listed(place: TokenPlace) -> list[dict[str, Any]]:
    if not place.local:
        found: list[dict[str, Any]] = place.system.client().get_json(PATH)["items"]
        return found

    async def all_of(desk: TokenDesk) -> list[Any]:
        return desk.all()

    listed: list[dict[str, Any]] = _locally(place.config, place.data, all_of)
    return listed


def _id_of(wanted: str, tokens: list[dict[str, Any]]) -> str:
    """The id of a token that was named by id or by name; of several with one name (expired ones), the newest."""
    found = [each for each in tokens if wanted in (each["id"], each["name"])]
    if not found:
        raise Failure(f"there is no token {wanted!r}; all there are: llm-im tokens list", ExitCode.NOT_FOUND)
    return str(max(found, key=lambda each: str(each["created_at"]))["id"])


def _locally(config: Path | None, data: Path | None, do: Callable[[TokenDesk], Awaitable[Any]]) -> Any:
    """What `do` gives, as JSON would have it."""
    from services.cli.shared import local_control, which_store

    settings = settings_of(config, data, only=STORES)
    which_store.say(settings)

    async def run() -> Any:
        async with local_control.desk(settings) as desk:
            return await do(desk)

    _quiet()
    found = asyncio.run(run())
    if isinstance(found, list):
        return [asdict(each) for each in found]
    return None if found is None else asdict(found)


def _quiet() -> None:
    """The writer's log lines are for a service's log."""
    from services.machine.logs import configure

    configure("ERROR", "console")


def _actor() -> str:
    from services.cli.shared.local_control import actor

    return actor()


def _span(field: str, given: str | None) -> float:
    from models.durations import duration_s

    try:
        return 0.0 if given is None else float(str(duration_s(given)))
    except ValueError as error:
        raise Failure(f"{field}: {error}", ExitCode.USAGE) from error


def _json(client: Client, reply: Reply, status: int) -> Any:
    if reply.status != status:
        raise client.failure(reply)
    return reply.json()


def _refuse_taken(out: Path | None) -> None:
    if out is not None and out.exists():
        raise Failure(f"{out} is there already; name a new file, or remove it", ExitCode.USAGE)


def _show_secret(made: dict[str, Any], out: Path | None, as_json: bool, words: str) -> None:
    secret = str(made["token"])
    if out is not None:
        try:
            with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{secret}\n")
        except OSError as error:
            # Better shown than lost: it is good already, and nothing can show it again.
            typer.echo(secret)
            raise Failure(f"can't write {out}: {error.strerror}; the secret is on stdout") from error
        made = {name: value for name, value in made.items() if name != "token"}
    if as_json:
        typer.echo(json.dumps(made))
        return
    typer.echo(words, err=True)
    if out is not None:
        typer.echo(f"its secret is in {out}", err=True)
    else:
        typer.echo("its secret, shown this once:", err=True)
        typer.echo(secret)
