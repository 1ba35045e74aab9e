"""`llm-im store verify|migrate|take-up|reshard|accept-loss`: all that is kept, checked, copied to other stores, dealt to other
partitions.

Nothing here needs a running system; all but verify need that none runs. All may be typed again after anything.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from services.cli.shared import terminal, which_store
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.where import STORES, AsJson, Config, Data, options, settings_of

if TYPE_CHECKING:
    from models.ports import Clock
    from models.settings.all import Settings
    from services.stores.choice import Stores
    from services.upkeep.copying import Copied
    from services.upkeep.resharding import Resharded
    from services.upkeep.verifying import Verified

#: Progress is for people: a line a second.
SAY_EVERY_S = 1.0

T = TypeVar("T")

app = typer.Typer(help="Check, copy and reshard the stored data.", no_args_is_help=True, epilog=EPILOG)


@app.command(epilog=EPILOG)
def verify(config: Config = None, data: Data = None, as_json: AsJson = False) -> None:
    """Check everything: every log entry, that the state can be rebuilt and is consistent, that every incident is in
    the partition given by the slot map, and every archived incident.

    Read-only; works whether the system runs or not. Exit code 1 if something is wrong; says what.
    """
    from services.upkeep.verifying import verify as verify_all
    from services.wiring.slots import partitions_of

    settings = settings_of(config, data, only=STORES)
    which_store.say(settings)
    found = asyncio.run(verify_all(settings, partitions_of(settings)))
    if as_json:
        typer.echo(json.dumps([_verified(each) for each in found]))
    for each in () if as_json else found:
        counted = terminal.counted({"frames": each.frames, **each.counts})
        typer.echo(f"{each.partition:<12}  {'WRONG' if each.problems else 'ok':<7}  {counted}")
        for problem in each.problems:
            typer.echo(f"{'':<12}  {terminal.plain(problem)}")
    raise typer.Exit(ExitCode.FAILED if any(each.problems for each in found) else ExitCode.OK)


@app.command(epilog=EPILOG)
def migrate(
    to: Annotated[
        Path,
        typer.Option("--to", help="Settings file whose [state] is the destination.", show_default=False),
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Settings file whose [state] is the source. Default: the current settings.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be copied, and what would be refused.")
    ] = False,
) -> None:
    """Copy everything to another, empty store, and verify the copy by its digest chain.

    If it is killed or fails, run the same command again to continue. Stop the system first; start it with the new settings afterwards. The
    source is marked as moved and can't be started any more; its data stays as it is (see `store take-up`).
    """
    from services.stores.choice import described, open_stores, place_of

    here, there = settings_of(source, data), settings_of(to)
    if place_of(here) == place_of(there):
        raise Failure(
            f"source and destination are the same store: set the destination in [state] of {to}",
            ExitCode.USAGE,
        )
    ours, theirs = open_stores(place_of(here)), open_stores(place_of(there))
    typer.echo(f"from      {described(here)}\nto        {described(there)}", err=True)
    if dry_run:
        from services.machine import launch
        from services.upkeep.copying import sizes

        for each_folder in {here.state.path, there.state.path}:
            if launch.running(Path(each_folder)) is not None:
                typer.echo(f"notice    a system runs on {each_folder}; first: llm-im down", err=True)

        for each in asyncio.run(sizes(ours, theirs, described(there))):
            typer.echo(
                f"{each.partition:<12}  "
                + ", ".join(
                    f"{here:,} {what} ({there:,} there)"
                    for what, (here, there) in {"frames": (each.frames, each.there), **each.counts}.items()
                )
            )
        return
    _refuse_running(here)
    _refuse_running(there)
    began = time.monotonic()
    done = asyncio.run(_migrate(here, there, _sayer()))
    typer.echo(
        f"copied in {time.monotonic() - began:.1f} s: "
        + terminal.counted({"frames": done.frames, "snapshot records": done.records, **done.counts})
        + f", {done.dead_letters:,} dead letters; all the same in both"
    )
    typer.echo(f"moved to {described(there)}; start it there: llm-im up{options(to)}")


@app.command("take-up", epilog=EPILOG)
def take_up(config: Config = None, data: Data = None) -> None:
    """Use a store again after it was moved to another one. It lacks whatever the other one received since.

    The other one must not run, or two systems send notifications for the same incidents.
    """
    from services.upkeep.copying import take_up as taking_up

    settings = settings_of(config, data, only=STORES)
    which_store.say(settings)
    _refuse_running(settings)
    moved = asyncio.run(_by_clock(settings, taking_up))
    typer.echo(
        f"in use again; what arrived at {moved} since then is not here. Start it: llm-im up{options(config, data)}"
    )


@app.command("accept-loss", epilog=EPILOG)
def accept_loss(
    partition: Annotated[
        str, typer.Argument(metavar="PARTITION", help='"control", "shard/0000" ...', show_default=False)
    ],
    config: Config = None,
    data: Data = None,
) -> None:
    """Continue without the lost log of a partition, if no backup has it. The system must be stopped.

    For a shard, its incidents are lost. For control, the API tokens and the reloaded settings are lost: the slot map is
    rebuilt from where the incidents are, and nobody gets in until a new token is made.
    """
    from services.upkeep.lost import accept_loss as accepting
    from services.wiring.bootstrap import shard_settings

    settings = settings_of(config, data, only=STORES)
    which_store.say(settings)
    _refuse_running(settings)
    at_least = settings.state.partitions
    done = asyncio.run(
        _by_clock(
            settings,
            lambda stores, clock: accepting(stores, shard_settings(settings), partition, clock, at_least),
        )
    )
    if not done.partitions:
        typer.echo(
            f"{partition} starts empty; what it held is lost. Start it: llm-im up{options(config, data)}"
        )
        return
    typer.echo(
        f"a new control log: {done.partitions} partitions, the slots of {done.incidents:,} incidents where these are. The API tokens are gone, and without one nobody gets in; create the first: llm-im tokens create admin --scope admin --local"
    )


@app.command(epilog=EPILOG)
def reshard(
    partitions: Annotated[
        int,
        typer.Option(
            "--partitions", min=1, max=4096, help="The new number of partitions.", show_default=False
        ),
    ],
    config: Config = None,
    data: Data = None,
) -> None:
    """Distribute the services over a different number of partitions. Ids stay the same.

    The system must be stopped; meanwhile its port answers 503 with Retry-After. If it is killed or fails, run the same command
    again to continue; nothing can be started until it is done.
    """
    settings = settings_of(config, data, only=STORES)
    which_store.say(settings)
    _refuse_running(settings)
    began = time.monotonic()
    done = asyncio.run(_reshard(settings, partitions, _sayer()))
    typer.echo(
        f"{done.partitions} partitions after {time.monotonic() - began:.1f} s: {done.incidents:,} incidents of "
        f"{done.slots:,} slots moved, {terminal.counted(done.counts)}"
    )


def _verified(found: Verified) -> dict[str, object]:
    told = asdict(found)
    return {**told, **told.pop("counts")}


async def _by_clock(settings: Settings, work: Callable[[Stores, Clock], Awaitable[T]]) -> T:
    from actors.runtime.clock import SystemClock
    from services.stores.choice import open_stores, place_of

    return await work(open_stores(place_of(settings)), SystemClock())


async def _migrate(here: Settings, there: Settings, say: Callable[[str], None]) -> Copied:
    from actors.runtime.clock import SystemClock
    from services.cli.shared.local_control import actor
    from services.stores.choice import described, open_stores, place_of
    from services.upkeep.copying import Moves, copy
    from services.wiring.bootstrap import open_dead_letters

    said = (
        f"{here.state.backend} ({here.state.path})" if here.state.backend == "sqlite" else here.state.backend
    )
    letters = open_dead_letters(here), open_dead_letters(there)
    try:
        ours, theirs = open_stores(place_of(here)), open_stores(place_of(there))
        return await copy(ours, theirs, said, SystemClock(), say, letters, Moves(described(there), actor()))
    finally:
        for each in letters:
            await each.close()


async def _reshard(settings: Settings, partitions: int, say: Callable[[str], None]) -> Resharded:
    from actors.runtime.clock import SystemClock
    from services.machine.closed_door import closed_door
    from services.stores.choice import open_stores, place_of
    from services.upkeep.resharding import reshard
    from services.wiring.bootstrap import shard_settings

    server = settings.server
    async with closed_door(server.http_host, server.http_port) as is_ours:
        if not is_ours:
            say(f"port {server.http_port} is taken: senders are not told to try again")
        return await reshard(
            open_stores(place_of(settings)), shard_settings(settings), partitions, SystemClock(), say
        )


def _refuse_running(settings: Settings) -> None:
    """Sooner than its leases would say it."""
    from services.machine import launch
    from services.machine.instance import refuse_other_user

    folder = Path(settings.state.path)
    if launch.running(folder) is not None:
        raise Failure(
            f"a system runs on {folder}; first: llm-im down{options(data=folder)}", ExitCode.CONFLICT
        )
    refuse_other_user(folder, "store ...")


def _sayer() -> Callable[[str], None]:
    began = said = time.monotonic()

    def say(text: str) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= SAY_EVERY_S:
            said = now
            typer.echo(f"{now - began:6.1f} s  {text}")

    return say
