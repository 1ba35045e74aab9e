"""The entry point of `llm-im`: which commands there are, and how their errors reach a person."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from models import VERSION
from models.errors import IncidentManagerError
from services.cli.commands import (
    alerts,
    analytics,
    backup,
    completion,
    config,
    context,
    dead_letters,
    down,
    edge,
    escalation,
    formats,
    heartbeats,
    ingest,
    learn,
    log,
    notify,
    oncall,
    people,
    policy,
    routes,
    send,
    silences,
    situations,
    stats,
    status,
    store,
    targets,
    tokens,
    topology,
    up,
)
from services.cli.commands.incidents import group as incidents
from services.cli.commands.playbooks import group as playbooks
from services.cli.shared import terminal
from services.cli.shared.client import last_answered
from services.cli.shared.exits import EPILOG, ExitCode, Failure, code_of_error
from services.cli.shared.where import TRACEBACK_VARIABLE

_OUTPUT = "the output"


def main() -> None:
    """Run `llm-im` with this process's arguments, and exit."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was started with this one closed
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _Output.of(sys.stdout)
    try:
        completion.answer_shells()
        app(prog_name="llm-im")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        _say(
            f"a bug in llm-im: {type(error).__name__}: {error} ({where.name}, line {where.lineno} of "
            f"{where.filename}). For a report: {TRACEBACK_VARIABLE}=1 shows the traceback"
        )
        sys.exit(ExitCode.FAILED)
    finally:
        _write_out()


class _Output(io.TextIOWrapper):
    """Stdout, whose errors say that they are its own."""

    @classmethod
    def of(cls, stream: io.TextIOWrapper) -> _Output:
        """Takes the place of the stream."""
        encoding, buffered, through = stream.encoding, stream.line_buffering, stream.write_through
        # A title in letters that the locale has not is no reason to show nothing.
        return cls(
            stream.detach(), encoding, "backslashreplace", line_buffering=buffered, write_through=through
        )

    def write(self, text: str, /) -> int:
        with _told():
            return super().write(text)

    def flush(self) -> None:
        with _told():
            super().flush()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, _OUTPUT) from error


class Commands(TyperGroup):
    """Says in one line what went wrong, whatever a person typed and however the machine is; a traceback is for bugs."""

    def main(self, *args: Any, **more: Any) -> Any:
        try:
            return super().main(*args, **more)
        except OSError as error:
            _say(_words_of(error))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if not (url := last_answered()):
                raise
            _say(
                f"{url} answers, but not as this version of llm-im understands "
                f"({type(error).__name__}: {error}): is the URL right, and the version the same?"
            )
        sys.exit(ExitCode.FAILED)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for place, word in enumerate(args, 1):
            if not word.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in word):
                _say(f"argument {place} is not UTF-8: {word!r}")
                raise typer.Exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            _say(str(failure))
            raise typer.Exit(failure.code) from failure
        except IncidentManagerError as error:
            # Several mistakes are told one a line.
            _say(*str(error).split("\n"))
            raise typer.Exit(code_of_error(error)) from error


def _say(*lines: str) -> None:
    """On stderr, in a way that steers no terminal. Where that can't be written either, the exit code has to do."""
    first, *more = map(terminal.plain, lines)
    with contextlib.suppress(OSError):
        typer.echo("\n".join([f"llm-im: {first}", *(f"  {each.strip()}" for each in more)]), err=True)


def _words_of(error: OSError) -> str:
    why = error.strerror or str(error)
    if error.filename is not None:
        return f"can't write {_OUTPUT}: {why}" if error.filename == _OUTPUT else f"{error.filename}: {why}"
    return why if os.path.isdir(os.curdir) else f"the working folder is gone: {why}"


def _write_out() -> None:
    """What is still to be written, while somebody can be told that it can't be."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # who closed a pipe wants no more
            _say(_words_of(error))
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)


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
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """A durable incident manager: alerts in, incidents out, nothing lost."""


app.add_typer(incidents.app, name="incidents")
app.add_typer(alerts.app, name="alerts")
app.add_typer(playbooks.app, name="playbooks")
app.add_typer(silences.app, name="silences")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(heartbeats.app, name="heartbeats")
app.add_typer(people.app, name="people")
app.add_typer(oncall.app, name="oncall")
app.add_typer(escalation.app, name="escalation")
app.add_typer(routes.app, name="routes")
app.add_typer(notify.app, name="notify")
app.add_typer(edge.app, name="edge")
app.add_typer(learn.app, name="learn")
app.add_typer(situations.app, name="situations")
app.add_typer(topology.app, name="topology")
app.command(epilog=EPILOG)(stats.stats)
app.command(epilog=EPILOG)(analytics.analytics)
app.command(epilog=EPILOG)(targets.targets)
app.command(epilog=EPILOG)(send.send)
app.command(epilog=EPILOG)(up.up)
app.command(epilog=EPILOG)(down.down)
app.command(epilog=EPILOG)(status.status)
app.add_typer(log.app, name="log")
app.add_typer(store.app, name="store")
app.add_typer(backup.app, name="backup")
app.add_typer(config.app, name="config")
app.add_typer(formats.app, name="formats")
app.add_typer(ingest.app, name="ingest")
app.add_typer(policy.app, name="policy")
app.add_typer(tokens.app, name="tokens")
app.add_typer(context.app, name="context")
app.command(epilog=EPILOG)(completion.completion)
