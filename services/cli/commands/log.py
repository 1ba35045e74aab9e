"""`llm-im log verify|stats|tail`: the event log as it lies on disk, read beside a live writer or without one.

Nothing here writes, so it is safe at any time. It needs the data folder, not a running system.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.shared import terminal, which_store
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.where import STORES, AsJson, Config, Data, settings_of

if TYPE_CHECKING:
    from models.partition.frames import Frame
    from models.ports import EventLog
    from models.settings.all import Settings
    from services.upkeep.verifying import Check

#: How often `tail --follow` looks for new frames.
POLL_S = 0.5

Partition = Annotated[
    str | None,
    typer.Argument(metavar="PARTITION", help='"control", "shard/0000" ... Default: all.', show_default=False),
]

app = typer.Typer(help="Read the event log on disk.", no_args_is_help=True, epilog=EPILOG)


@app.command(epilog=EPILOG)
def verify(
    partition: Partition = None, config: Config = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Check every log entry (checksum, digest chain, events) and every snapshot record.

    Exit code 1 if anything is damaged; says where.
    """
    import asyncio

    from services.upkeep.verifying import check_logs

    settings, names = _partitions(partition, config, data)
    checks = asyncio.run(check_logs(settings, names))
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks]))
    for check in () if as_json else checks:
        snapshots = f", {check.snapshots} snapshots with {check.records:,} records" if check.snapshots else ""
        what = f"{check.frames:,} frames ({check.first_seq:,} to {check.last_seq:,}), {terminal.size(check.bytes)}{snapshots}"
        if check.damage:
            typer.echo(f"{check.partition:<12}  DAMAGED  {check.damage}\n{'':<23}good before it: {what}")
        else:
            typer.echo(
                f"{check.partition:<12}  ok       {what if check.frames or check.snapshots else 'empty'}"
            )
        if check.uncounted:
            typer.echo(
                f"{'':<23}not checked: whether records are missing in snapshots of an older version"
                f" ({check.uncounted}; the next ones are counted)"
            )
    raise typer.Exit(ExitCode.FAILED if any(check.damage for check in checks) else ExitCode.OK)


@app.command(epilog=EPILOG)
def stats(
    partition: Partition = None, config: Config = None, data: Data = None, as_json: AsJson = False
) -> None:
    """Show what the log contains: entries, events by type, bytes, snapshots."""
    import asyncio

    from services.upkeep.verifying import check_logs

    settings, names = _partitions(partition, config, data)
    checks = asyncio.run(check_logs(settings, names))
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks]))
    else:
        _show_stats(checks)
    raise typer.Exit(ExitCode.FAILED if any(check.damage for check in checks) else ExitCode.OK)


@app.command(epilog=EPILOG)
def tail(
    partition: Partition = None,
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many events to show.")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep showing new events, until Ctrl-C.")
    ] = False,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show the last events as text, oldest first."""
    import asyncio

    settings, names = _partitions(partition, config, data)
    asyncio.run(_tail(settings, names, count, follow, as_json))


def _show_stats(checks: list[Check]) -> None:
    out = terminal.console()
    numbers = ("FRAMES", "FIRST", "LAST", "EVENTS", "LOG", "ON DISK")
    table = terminal.table("PARTITION", *numbers, "SNAPSHOTS AT", right=numbers)
    for check in checks:
        table.add_row(
            check.partition,
            f"{check.frames:,}",
            f"{check.first_seq:,}",
            f"{check.last_seq:,}",
            f"{sum(check.events.values()):,}",
            terminal.size(check.bytes),
            terminal.size(check.disk_bytes),
            ", ".join(f"{seq:,}" for seq in check.snapshot_seqs) or "none",
        )
    out.print(table)
    total: Counter[str] = Counter()
    for check in checks:
        total.update(check.events)
    if total:
        out.print()
        types = terminal.table("EVENT", "COUNT", right=("COUNT",))
        for name, count in total.most_common():
            types.add_row(name, f"{count:,}")
        out.print(types)
    for check in checks:
        if check.damage:
            typer.echo(f"{check.partition} is damaged {check.damage}; counted up to there", err=True)


async def _tail(settings: Settings, names: list[str], count: int, follow: bool, as_json: bool) -> None:
    import asyncio

    from services.cli.shared import events

    ends: dict[str, int] = {}
    found: list[tuple[float, str, events.Line]] = []
    for name in names:
        async with _open(settings, name) as log:
            last = await log.last_seq()
            ends[name] = last
            lines = [
                line
                async for frame in _frames(log, max(0, last - max(count, 1)))
                for line in events.lines(name, frame)
            ]
            ends[name] = max(ends[name], lines[-1].seq if lines else 0)
            found += [(line.at, name, line) for line in lines]
    # Sorting is stable, and a partition's events come in order: only partitions are mixed, by time.
    found.sort(key=lambda entry: entry[0])
    for _, _, line in found[len(found) - count :] if count < len(found) else found:
        typer.echo(line.as_json() if as_json else line.as_text())
    while follow:
        await asyncio.sleep(POLL_S)
        for name in names:
            async with _open(settings, name) as log:
                async for frame in _frames(log, ends[name]):
                    ends[name] = frame.seq
                    for line in events.lines(name, frame):
                        typer.echo(line.as_json() if as_json else line.as_text())


async def _frames(log: EventLog, after: int) -> AsyncIterator[Frame]:
    from models.partitions import decode_frame

    while page := await log.read(after):
        for seq, stored in page:
            yield decode_frame(log.partition, stored, seq, None)
            after = seq


@asynccontextmanager
async def _open(settings: Settings, name: str) -> AsyncIterator[EventLog]:
    from services.wiring.bootstrap import open_log

    log = open_log(settings, name)
    try:
        yield log
    finally:
        await log.close()


def _partitions(partition: str | None, config: Path | None, data: Path | None) -> tuple[Settings, list[str]]:
    from models.partitions import names
    from services.wiring.slots import partitions_of

    settings = settings_of(config, data, only=STORES)
    if settings.state.backend == "sqlite" and not Path(settings.state.path).is_dir():
        raise Failure(
            f"there is no log: {settings.state.path} does not exist. Another folder: --data",
            ExitCode.NOT_FOUND,
        )
    which_store.say(settings)
    there = names(partitions_of(settings))
    if partition is None:
        return settings, there
    if partition not in there:
        raise Failure(
            f"there is no partition {partition!r}; there are {', '.join(there)}", ExitCode.NOT_FOUND
        )
    return settings, [partition]
