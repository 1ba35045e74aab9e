"""`llm-im store verify|migrate|reshard`: all that is kept, checked, copied to other stores, dealt to other partitions.

Nothing here needs a running system; migrate and reshard need that none runs. All may be typed again after anything.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli import look
from services.cli.exits import EPILOG, ExitCode, Failure
from services.cli.where import STORES, AsJson, Config, Data, options, settings_of

if TYPE_CHECKING:
    from models.config import Settings
    from services.copying import Copied
    from services.resharding import Resharded

#: Progress is for people: a line a second.
SAY_EVERY_S = 1.0

app = typer.Typer(help="What is kept: check it, move it.", no_args_is_help=True, epilog=EPILOG)


@app.command(epilog=EPILOG)
def verify(config: Config = None, data: Data = None, as_json: AsJson = False) -> None:
    """Check everything: every frame, that the state can be made of them and fits together, that every incident is in
    the partition that the slot map says, every archived incident.

    Reads only, beside a running system or without one. Exit code 1 when something is wrong; says what.
    """
    from services.slots import partitions_of
    from services.verifying import verify as verify_all

    settings = settings_of(config, data, only=STORES)
    found = asyncio.run(verify_all(settings, partitions_of(settings)))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
    for each in () if as_json else found:
        counted = f"{each.frames:,} frames, {each.incidents:,} incidents, {each.series:,} series, {each.archived:,} archived"
        typer.echo(f"{each.partition:<12}  {'WRONG' if each.problems else 'ok':<7}  {counted}")
        for problem in each.problems:
            typer.echo(f"{'':<12}  {look.plain(problem)}")
    raise typer.Exit(ExitCode.FAILED if any(each.problems for each in found) else ExitCode.OK)


@app.command(epilog=EPILOG)
def migrate(
    to: Annotated[
        Path,
        typer.Option("--to", help="Settings file whose [state] says where to.", show_default=False),
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Settings file whose [state] says where from; else the usual ones.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is to copy.")] = False,
) -> None:
    """Copy all that is kept into other, empty stores, and prove by the digest chain that it is the same.

    Killed or failed, the same command goes on where it was. The source stays as it is: end the system first, start it
    with the new settings after.
    """
    from services.stores.choice import open_stores, place_of

    here, there = settings_of(source, data), settings_of(to)
    if place_of(here) == place_of(there):
        raise Failure(f"both are the same store: [state] of {to} says where to", ExitCode.USAGE)
    ours, theirs = open_stores(place_of(here)), open_stores(place_of(there))
    if dry_run:
        from services.copying import sizes

        for each in asyncio.run(sizes(ours, theirs)):
            typer.echo(
                f"{each.partition:<12}  {each.frames:,} frames ({each.there:,} there), "
                f"{each.archived:,} archived ({each.archived_there:,} there)"
            )
        return
    _refuse_running(here)
    _refuse_running(there)
    began = time.monotonic()
    done = asyncio.run(_migrate(here, there, _sayer()))
    typer.echo(
        f"copied in {time.monotonic() - began:.1f} s: {done.frames:,} frames, {done.records:,} snapshot records, "
        f"{done.archived:,} archived incidents, {done.dead_letters:,} dead letters; all the same in both"
    )
    typer.echo(f"start it there: llm-im up{options(to)}")


@app.command(epilog=EPILOG)
def reshard(
    partitions: Annotated[
        int,
        typer.Option("--partitions", min=1, max=4096, help="How many there are to be.", show_default=False),
    ],
    config: Config = None,
    data: Data = None,
) -> None:
    """Deal the services to another number of partitions. Ids stay.

    The system must be down; meanwhile its port answers 503 with Retry-After. Killed or failed, the same command goes on
    where it was, and nothing can be started before it is done.
    """
    settings = settings_of(config, data)
    _refuse_running(settings)
    began = time.monotonic()
    done = asyncio.run(_reshard(settings, partitions, _sayer()))
    typer.echo(
        f"{done.partitions} partitions after {time.monotonic() - began:.1f} s: {done.incidents:,} incidents of "
        f"{done.slots:,} slots moved, {done.archived:,} archived"
    )


async def _migrate(here: Settings, there: Settings, say: Callable[[str], None]) -> Copied:
    from actors.clock import SystemClock
    from services.bootstrap import open_dead_letters
    from services.copying import copy
    from services.stores.choice import open_stores, place_of

    said = (
        f"{here.state.backend} ({here.state.path})" if here.state.backend == "sqlite" else here.state.backend
    )
    letters = open_dead_letters(here), open_dead_letters(there)
    try:
        ours, theirs = open_stores(place_of(here)), open_stores(place_of(there))
        return await copy(ours, theirs, said, SystemClock(), say, letters)
    finally:
        for each in letters:
            await each.close()


async def _reshard(settings: Settings, partitions: int, say: Callable[[str], None]) -> Resharded:
    from actors.clock import SystemClock
    from services.bootstrap import shard_settings
    from services.closed_door import closed_door
    from services.resharding import reshard
    from services.stores.choice import open_stores, place_of

    server = settings.server
    async with closed_door(server.http_host, server.http_port) as is_ours:
        if not is_ours:
            say(f"port {server.http_port} is taken: nobody tells senders to try again")
        return await reshard(
            open_stores(place_of(settings)), shard_settings(settings), partitions, SystemClock(), say
        )


def _refuse_running(settings: Settings) -> None:
    """Sooner than its leases would say it."""
    from services import launch

    folder = Path(settings.state.path)
    if launch.running(folder) is not None:
        raise Failure(
            f"a system runs on {folder}; first: llm-im down{options(data=folder)}", ExitCode.CONFLICT
        )


def _sayer() -> Callable[[str], None]:
    began = said = time.monotonic()

    def say(text: str) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= SAY_EVERY_S:
            said = now
            typer.echo(f"{now - began:6.1f} s  {text}")

    return say
