"""The entry point of `llm-im`: which commands there are, and how their errors reach a person."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from models import VERSION
from models.errors import IncidentManagerError
from services.cli import (
    alerts,
    backup,
    completion,
    config,
    context,
    down,
    log,
    look,
    send,
    stats,
    status,
    store,
    tokens,
    up,
)
from services.cli.exits import EPILOG, Failure, code_of_error
from services.cli.incidents import group as incidents


def main() -> None:
    """Run `llm-im` with this process's arguments, and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A title in letters that the locale has not is no reason to show nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    completion.answer_shells()
    app(prog_name="llm-im")


class Commands(TyperGroup):
    """Says our own errors in one line; a traceback is for bugs."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            typer.echo(f"llm-im: {look.plain(failure)}", err=True)
            raise typer.Exit(failure.code) from failure
        except IncidentManagerError as error:
            typer.echo(f"llm-im: {look.plain(error)}", err=True)
            raise typer.Exit(code_of_error(error)) from error


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llm-im {VERSION}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version and exit."),
    ] = False,
) -> None:
    """A durable incident manager: alerts in, incidents out, nothing lost."""


app.add_typer(incidents.app, name="incidents")
app.add_typer(alerts.app, name="alerts")
app.command(epilog=EPILOG)(stats.stats)
app.command(epilog=EPILOG)(send.send)
app.command(epilog=EPILOG)(up.up)
app.command(epilog=EPILOG)(down.down)
app.command(epilog=EPILOG)(status.status)
app.add_typer(log.app, name="log")
app.add_typer(store.app, name="store")
app.add_typer(backup.app, name="backup")
app.add_typer(config.app, name="config")
app.add_typer(tokens.app, name="tokens")
app.add_typer(context.app, name="context")
app.command(epilog=EPILOG)(completion.completion)
