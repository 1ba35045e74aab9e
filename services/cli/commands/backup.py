"""`llm-im backup create|list|verify|restore`: the whole state, beside a running system, in a folder or a store of objects.

Needs the settings and what they name, not a running system, and no token: who may read the store may copy it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.shared import moments, terminal, which_store
from services.cli.shared.exits import EPILOG, ExitCode, Failure, code_of_error
from services.cli.shared.where import STORES, AsJson, Config, Data, options, settings_of

if TYPE_CHECKING:
    from models.backup import Backup, Until
    from models.settings.all import Settings
    from services.upkeep.backup.retention import Entry
    from services.upkeep.backup.signing import Signature, Signing
    from services.upkeep.backup.target import Target
    from services.upkeep.backup.verify import Check, Checked

#: All that these commands look at in the settings.
_NEEDED = (*STORES, "disaster_recovery")

Where = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="URL",
        help="Folder, or URL such as s3://bucket/prefix. Default: disaster_recovery.backup_target.",
        show_default=False,
    ),
]

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        help="File with the signing key of the system that made it. Default: disaster_recovery.backup_key_file, else backup.key in the "
        "data folder.",
        show_default=False,
    ),
]
AcceptUnsigned = Annotated[
    bool,
    typer.Option(
        "--accept-unsigned",
        help="Accept a backup that is unsigned, was made by an older version, or is signed with another key. Anybody could have made it.",
    ),
]

app = typer.Typer(help="Make and restore backups of the whole state.", no_args_is_help=True, epilog=EPILOG)


@app.command(epilog=EPILOG)
def create(
    target: Where = None,
    retention: Annotated[
        str | None,
        typer.Option(
            help="Afterwards delete backups older than this, such as 30d. Default: disaster_recovery.backup_retention, "
            "else none are deleted.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make a backup, whether the system runs or not. Data that an earlier backup in the target already has is not written again.

    llm-im backup create --target /mnt/backup/llm-im
    """
    settings = settings_of(config, data, only=_NEEDED)
    which_store.say(settings)
    older_s = settings.disaster_recovery.backup_retention if retention is None else float(moments.span_s(retention, "--retention"))  # fmt: skip

    async def work() -> tuple[Backup, int, list[str], Failure | None]:
        from actors.runtime.clock import SystemClock
        from models.errors import IncidentManagerError
        from services.machine.instance import refuse_other_user
        from services.upkeep.backup.create import create as make
        from services.upkeep.backup.retention import retain
        from services.upkeep.backup.signing import Signing, found_key, key_of

        key = found_key(settings)
        if key is None:  # another user's key could not be read by the system itself
            refuse_other_user(Path(settings.state.path), "backup create ...")
        place, found = await _target(settings, target, Signing(key, make=lambda: key_of(settings)))
        made = await make(
            _stores(settings),
            found,
            SystemClock(),
            backend=str(place["backend"]),
            progress=_progress(as_json),
        )
        removed: list[str] = []
        failure: Failure | None = None
        if older_s is not None:
            try:
                done = await retain(found, SystemClock().now(), older_s, progress=_progress(as_json))
                removed = done.backups
            except IncidentManagerError as error:
                why = f"the backup is made, but older ones were not removed: {error}"
                failure = Failure(why, code_of_error(error))
        return made.backup, made.written_bytes, removed, failure

    backup, written, removed, failure = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps({**_row(backup), "written_bytes": written, "removed": removed}))
    else:
        typer.echo(
            f"backup {backup.id}: {len(backup.parts)} partitions, {terminal.size(sum(backup.files().values()))},"
            f" of which {terminal.size(written)} were new, in {backup.took_s:.1f} s"
        )
    if failure is not None:
        raise failure


@app.command("list", epilog=EPILOG)
def list_backups(
    target: Where = None,
    key_file: KeyFile = None,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List backups, newest last: what each contains, which times it can restore, and whether all its files are present.

    Exit code 1 if one is broken. To check the contents of the files, use `llm-im backup verify`.
    """
    from models.backup import shown, time_of

    settings = settings_of(config, data, only=_NEEDED)

    async def work() -> list[Entry]:
        from services.upkeep.backup.retention import Pool

        signing = _checking(settings, key_file, takes_any=False)
        return (await Pool.read((await _target(settings, target, signing))[1])).entries

    entries = asyncio.run(work())
    if as_json:
        rows = [
            {
                "id": each.id,
                **({} if each.backup is None else {**_row(each.backup), "signature": each.signature}),
                "broken": each.why,
            }
            for each in entries
        ]
        typer.echo(json.dumps({"items": rows}))
    elif not entries:
        typer.echo("no backups", err=True)
    else:
        table = terminal.table("ID", "AGE", "SIZE", "FROM", "UP TO", "SEQS", "STATE", right=("SIZE",))
        for each in entries:
            age = terminal.since(shown(time_of(each.id)))
            if each.backup is None:
                table.add_row(each.id, age, "-", "-", "-", "-", f"BROKEN {terminal.plain(each.why)}")
                continue
            backup = each.backup
            table.add_row(
                each.id,
                age,
                terminal.size(sum(backup.files().values())),
                shown(backup.first_at),
                shown(backup.cut_at),
                " ".join(f"{part.name}:{part.first_seq}-{part.last_seq}" for part in backup.parts),
                _state(each),
            )
        terminal.console().print(table)
    raise typer.Exit(ExitCode.OK if all(each.is_whole for each in entries) else ExitCode.FAILED)


@app.command(epilog=EPILOG)
def verify(
    backup: Annotated[
        str | None, typer.Argument(metavar="ID", help="Backup id. Default: the newest.", show_default=False)
    ] = None,
    target: Where = None,
    key_file: KeyFile = None,
    accept_unsigned: AcceptUnsigned = False,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Check a whole backup: the checksum of every file, the digest chain of every log, and the state rebuilt from it.

    Exit code 1 if anything is broken; names the file or the place in the log.
    """
    settings = settings_of(config, data, only=_NEEDED)

    async def work() -> tuple[str, Signature, Checked]:
        from services.upkeep.backup.verify import verify as check

        signing = _checking(settings, key_file, takes_any=accept_unsigned)
        found = (await _target(settings, target, signing))[1]
        identity = backup or await _newest(found)
        chosen = await found.read(identity)
        signature = (await found.read_any(identity))[1]
        return identity, signature, await check(found, chosen, progress=_progress(as_json))

    identity, signature, checked = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps({"id": identity, "whole": checked.is_whole, "signature": signature, "wrong": checked.wrong, "parts": [_checked(each) for each in checked.parts]}))  # fmt: skip
    else:
        for each in checked.parts:
            typer.echo(f"{each.partition:<12}  {'BROKEN' if each.wrong else 'ok':<7}  {terminal.plain(each.wrong) or _found(each)}")  # fmt: skip
        if checked.wrong:
            typer.echo(f"{'all':<12}  BROKEN   {checked.wrong}")
        typer.echo(f"backup {identity} is {'whole' if checked.is_whole else 'BROKEN'}, {signature}")
    raise typer.Exit(ExitCode.OK if checked.is_whole else ExitCode.FAILED)


@app.command(epilog=EPILOG)
def restore(
    at: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Backup id. Default: the newest complete one; with --until-time the oldest that contains that time.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PARTITION=SEQ",
            help="Restore this partition up to this seq. Repeatable.",
            show_default=False,
        ),
    ] = None,
    until_time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Restore all partitions up to this time, or this long ago.",
            show_default=False,
        ),
    ] = None,
    target: Where = None,
    key_file: KeyFile = None,
    accept_unsigned: AcceptUnsigned = False,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into the empty store that the settings name. The system must be stopped. Safe to repeat after a kill.

    llm-im backup restore --target /mnt/backup/llm-im --data /srv/llm-im/var

    llm-im backup restore --target s3://bucket/llm-im --until-time 2026-01-31T12:00:00Z
    """
    from models.backup import Until

    if until and until_time:
        raise Failure("give either --until or --until-time, not both", ExitCode.USAGE)
    settings = settings_of(config, data, only=_NEEDED)
    moment = (
        datetime.fromisoformat(moments.past(until_time, "--until-time")).timestamp() if until_time else None
    )
    wanted = Until(moment, _seqs(until or []) or None)
    _refuse_running(settings)
    which_store.say(settings)

    async def work() -> dict[str, Any]:
        from actors.runtime.clock import SystemClock
        from services.upkeep.backup.restore import restore as write

        signing = _checking(settings, key_file, takes_any=accept_unsigned)
        found = (await _target(settings, target, signing))[1]
        chosen = await _chosen(found, at, wanted)
        _progress(as_json)(f"restoring backup {chosen.id}")
        done = await write(
            _stores(settings), found, chosen, SystemClock(), until=wanted, progress=_progress(as_json)
        )  # fmt: skip
        return {
            "id": chosen.id,
            "partitions": {
                name: {"seq": each.seq, "at": each.now, **each.counts} for name, each in done.reached.items()
            },
        }

    told = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps(told))
    else:
        open_now = sum(each["open"] for each in told["partitions"].values())
        up = f"llm-im up{options(config, data)}"
        typer.echo(f"backup {told['id']} is restored, {open_now} incidents are open in it; now: {up}")
        typer.echo(f"to look at it without sending notifications, as in a drill: {up} --no-notify")


def _checking(settings: Settings, key_file: Path | None, *, takes_any: bool) -> Signing:
    from services.upkeep.backup.signing import Signing, found_key

    return Signing(found_key(settings, key_file), takes_any)


def _state(entry: Entry) -> str:
    if not entry.is_whole:
        return f"BROKEN {terminal.plain(entry.why)}"
    return "whole" if entry.is_ours else f"whole, {entry.signature}"


async def _target(settings: Settings, given: str | None, signing: Signing) -> tuple[Any, Target]:
    """Where the state is, and where its backups are."""
    from services.stores.choice import place_of
    from services.upkeep.backup.target import Target
    from services.wiring.bootstrap import backup_target

    if given is None and settings.disaster_recovery.backup_target is None:
        raise Failure("no target: give --target URL, or set disaster_recovery.backup_target", ExitCode.USAGE)
    url = backup_target(settings, given)
    return place_of(settings), await asyncio.to_thread(Target, url, signing)


def _stores(settings: Settings) -> Any:
    from services.stores.choice import open_stores, place_of

    return open_stores(place_of(settings))


async def _newest(target: Target) -> str:
    ids = await target.ids()
    if not ids:
        raise Failure(f"there is no backup in {target.url}", ExitCode.NOT_FOUND)
    return ids[-1]


async def _chosen(target: Target, at: str | None, until: Until) -> Backup:
    from models.backup import covering, time_of
    from services.upkeep.backup.retention import Pool, newest_whole

    if at is not None:
        time_of(at)
        return await target.read(at)
    if until.at is not None:
        return covering((await Pool.read(target)).whole(), until.at)
    found = await newest_whole(target, await target.files())
    if found is None:
        ids = await target.ids()
        if ids:
            await target.read(ids[-1])  # says what is wrong with it, when it is not ours
        raise Failure(f"there is no complete backup in {target.url}", ExitCode.NOT_FOUND)
    return found


def _seqs(given: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in given:
        name, _, seq = each.rpartition("=")
        if not name or not seq.isascii() or not seq.isdecimal() or name in found:
            raise Failure(
                f"--until: {each!r}; expected PARTITION=SEQ once each, like shard/0000=1200", ExitCode.USAGE
            )
        found[name] = int(seq)
    return found


def _refuse_running(settings: Settings) -> None:
    """A system of this data folder would open what is half restored."""
    from services.machine import launch
    from services.machine.instance import refuse_other_user

    if launch.running(Path(settings.state.path)) is not None:
        down = f"llm-im down{options(data=settings.state.path)}"
        raise Failure(f"a system runs on {settings.state.path}; stop it first: {down}", ExitCode.CONFLICT)
    refuse_other_user(Path(settings.state.path), "backup restore ...")


def _row(backup: Backup) -> dict[str, Any]:
    from models.backup import shown

    return {
        "id": backup.id,
        "from": shown(backup.first_at) if backup.first_at else None,
        "up_to": shown(backup.cut_at),
        "seconds": backup.took_s,
        "bytes": sum(backup.files().values()),
        "backend": backup.backend,
        "program": backup.program,
        "partitions": {
            part.name: {"first_seq": part.first_seq, "last_seq": part.last_seq} for part in backup.parts
        },
    }


def _checked(check: Check) -> dict[str, Any]:
    found = asdict(check)
    reached = found.pop("reached") or {}
    return {**found, **found.pop("kept"), **reached, **reached.pop("counts", {})}


def _found(check: Check) -> str:
    assert check.reached is not None
    reached = check.reached
    return (
        f"up to seq {reached.seq:,}: {terminal.counted({**reached.counts, **check.kept})};"
        f" {reached.frames:,} frames, {check.files:,} files, {terminal.size(check.bytes)}"
    )


def _progress(as_json: bool) -> Any:
    """To stderr, so that stdout holds the result alone; for programs nothing."""
    return (
        (lambda _text: None) if as_json else (lambda text: typer.echo(f"  {terminal.plain(text)}", err=True))
    )
