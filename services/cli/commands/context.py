"""`llm-im context add|use|list|show|remove`: names for the systems that one works with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from services.cli.shared import context_file as contexts
from services.cli.shared import output, terminal
from services.cli.shared.client import Client
from services.cli.shared.context_file import CONTEXT_VARIABLE, Context
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.output import Column, Form, Output, Row

app = typer.Typer(help="Names for the systems you work with.", no_args_is_help=True, epilog=EPILOG)

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", autocompletion=lambda: sorted(contexts.read().named), show_default=False),
]

COLUMNS = (
    Column(
        "used", lambda row: "*" if row["current"] else "", lambda row: "true" if row["current"] else "false"
    ),
    Column("name", lambda row: row["name"], lambda row: row["name"]),
    Column("url", lambda row: terminal.plain(row["url"]), lambda row: row["url"], gives_way=True),
    Column("token", lambda row: terminal.plain(row["token"]), lambda row: row["token"]),
)


@app.command(epilog=EPILOG)
def add(
    name: Name,
    url: Annotated[str, typer.Option("--url", help="URL of the system.", show_default=False)],
    token_file: Annotated[
        Path | None, typer.Option(help="File that contains the token.", show_default=False)
    ] = None,
    token_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE", help="Environment variable that contains the token.", show_default=False
        ),
    ] = None,
    store_token: Annotated[
        bool,
        typer.Option("--store-token", help="Read the token from stdin and store it in the contexts file."),
    ] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", help="For https: file with the authorities to trust.", show_default=False),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option("--cert", help="File with our client certificate.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="File with its key, if it is not in the same one.", show_default=False),
    ] = None,
    use_it: Annotated[bool, typer.Option("--use", help="Also switch to this context.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing context of that name.")] = False,
) -> None:
    """Add a system under a name. The first one becomes the current context.

    llm-im context add prod --url https://incidents.example.org --token-file ~/.secrets/llm-im

    llm-im context add laptop --url http://127.0.0.1:8080
    """
    contexts.check_name(name)
    if sum((token_file is not None, token_env is not None, store_token)) > 1:
        raise Failure("--token-file, --token-env and --store-token: give one", ExitCode.USAGE)
    url = url if "://" in url else f"http://{url}"
    Client(url)  # says when it is no URL
    known = contexts.read()
    if name in known.named and not force:
        raise Failure(f"there is a context {name!r} already; replace it with --force", ExitCode.CONFLICT)
    made = Context(
        url,
        token_file=_absolute(token_file),
        token_env=token_env or "",
        token=_from_stdin() if store_token else "",
        ca_file=_absolute(ca_file),
        cert=_absolute(cert),
        key=_absolute(key),
    )
    known.named[name] = made
    known.current = name if use_it or len(known.named) == 1 else known.current
    contexts.write(known)
    typer.echo(
        f"context {name}: {terminal.plain(url)}, token: {terminal.plain(made.token_from)}"
        + _is_used(known, name)
    )
    if made.has_token and _is_open(url):
        typer.echo("llm-im: http sends the token unencrypted over the network; https would not", err=True)


def _absolute(file: Path | None) -> str:
    return os.path.abspath(os.path.expanduser(file)) if file else ""


@app.command(epilog=EPILOG)
def use(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|-",
            help="Name of the context, or - for none.",
            autocompletion=lambda: sorted(contexts.read().named),
            show_default=False,
        ),
    ],
) -> None:
    """Switch to a context. --url, --context and environment variables still override it; - for none.

    llm-im context use prod
    """
    known = contexts.read()
    if name != "-":
        known.get(name, ExitCode.NOT_FOUND)
    known.current = "" if name == "-" else name
    contexts.write(known)
    typer.echo(f"context {name} is now in use" if known.current else "no context is now in use")
    if other := os.environ.get(CONTEXT_VARIABLE):
        typer.echo(f"llm-im: but {CONTEXT_VARIABLE} is set to {terminal.plain(other)}", err=True)


@app.command("list", epilog=EPILOG)
def list_contexts(form: Form = Output.TABLE) -> None:
    """List the contexts. The current one has a star.

    llm-im context list
    """
    known = contexts.read()
    rows = [_row(known, name) for name in sorted(known.named)]
    match form:
        case Output.JSON:
            output.write_json({"items": rows})
        case Output.CSV:
            output.write_csv(COLUMNS, rows)
        case Output.ID:
            output.write_ids(rows, "name")
        case _ if rows:
            output.write_table(COLUMNS, rows)
        case _:
            typer.echo("no contexts; make one: llm-im context add NAME --url URL")


@app.command(epilog=EPILOG)
def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Default: the current context.",
            autocompletion=lambda: sorted(contexts.read().named),
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show one context, or the current one. Its token is never shown.

    llm-im context show
    """
    known = contexts.read()
    name = name or os.environ.get(CONTEXT_VARIABLE) or known.current
    if not name:
        raise Failure("no context is in use; choose one: llm-im context use NAME", ExitCode.NOT_FOUND)
    known.get(name, ExitCode.NOT_FOUND)
    for key, value in _row(known, name).items():
        typer.echo(f"{key:<9}{terminal.plain(value)}")


@app.command(epilog=EPILOG)
def remove(name: Name) -> None:
    """Remove a context. The files and variables it refers to stay.

    llm-im context remove laptop
    """
    known = contexts.read()
    known.get(name, ExitCode.NOT_FOUND)
    del known.named[name]
    known.current = "" if known.current == name else known.current
    contexts.write(known)
    typer.echo(f"context {name} is removed" + ("" if known.current else "; none is in use"))


def _row(known: contexts.Contexts, name: str) -> Row:
    made = known.named[name]
    return {"name": name, "url": made.url, "token": made.token_from, "current": name == known.current}


def _is_used(known: contexts.Contexts, name: str) -> str:
    return "; it is now in use" if known.current == name else f"; use it: llm-im context use {name}"


def _from_stdin() -> str:
    """A token that is in no argument: those can be read by everybody on the machine."""
    if sys.stdin.isatty():
        import getpass

        found = getpass.getpass("Token: ")
    else:
        found = sys.stdin.readline()
    return contexts.token_of(found, "stdin")


def _is_open(url: str) -> bool:
    """Whether others on the way can read what is sent."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "http" and not (host in ("localhost", "::1") or host.startswith("127."))
