"""Applies the playbooks of a folder when a gateway starts. Every gateway does: the same playbook again changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from models.control.playbooks import PLAYBOOK_BYTES_MAX
from models.errors import Refused, TooLarge, Unavailable
from services.api.playbooks import PlaybookDesk

log = structlog.get_logger()

SUFFIXES = (".yaml", ".yml")
#: Who applied them, for people.
ACTOR = "playbooks.folder"
#: Between two tries while the control partition is away.
AGAIN_S = 5.0


async def apply_folder(desk: PlaybookDesk, folder: str) -> None:
    """Apply all of it, in the order of the names. One that can't be applied is named in the log, and the others are applied."""
    try:
        files = await asyncio.to_thread(_files, folder)
    except OSError as error:
        log.error("folder of playbooks can't be read", folder=folder, why=error.strerror)
        return
    for file in files:
        await _apply(desk, file)


async def _apply(desk: PlaybookDesk, file: Path) -> None:
    while True:
        try:
            applied = await desk.apply(await asyncio.to_thread(_read, file), file.name, ACTOR)
        except Unavailable:
            await asyncio.sleep(AGAIN_S)
            continue
        except (Refused, OSError, UnicodeDecodeError) as error:
            log.error("playbook of the folder not applied", file=str(file), why=str(error))
            return
        if applied.changed:
            log.info(
                "playbook applied", name=applied.shelved.name, version=applied.shelved.current, file=str(file)
            )
        return


def _files(folder: str) -> list[Path]:
    return sorted(each for each in Path(folder).iterdir() if each.suffix in SUFFIXES and each.is_file())


def _read(file: Path) -> str:
    with file.open("rb") as source:
        data = source.read(PLAYBOOK_BYTES_MAX + 1)
    if len(data) > PLAYBOOK_BYTES_MAX:
        raise TooLarge(f"a playbook has at most {PLAYBOOK_BYTES_MAX // 1024} KiB")
    return data.decode("utf-8-sig")
