"""Where backups are kept. Used by all of services/upkeep/backup.

files/<digest>          immutable, named by what is in it, shared by the backups that need it
backups/<id>.json       what a backup is made of, written last: without it there is no backup
busy/<name>.json        who writes or removes here just now
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager

import msgspec

from models.backup import DIGEST_BYTES, Backup, File, known_format
from models.errors import Broken, Conflict, NotFound
from services.upkeep.backup.busy import alone
from services.upkeep.backup.place import PART, FilePlace, words
from services.upkeep.backup.signing import Signature, Signing

FILES, BACKUPS = "files", "backups"


class _Sealed(msgspec.Struct, frozen=True):
    """A manifest as stored: what is checked comes before it is read. The digest finds damage, the signature who made it:
    HMAC-SHA256 over the same bytes, by the key of that name."""

    blake2b: str
    backup: msgspec.Raw
    key: str = ""
    hmac_sha256: str = ""


class Target:
    """One place of backups. Raises Unavailable when it can't be reached; Malformed for a URL that can't be used. Without
    `signing` nothing is signed, and nobody asks who made a backup."""

    def __init__(self, url: str, signing: Signing | None = None) -> None:
        self._place = FilePlace(url)
        self._signing = signing
        self.url = url

    def busy(self, what: str) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Nobody else writes or removes here meanwhile: see busy.alone()."""
        return alone(self._place, what)

    # -- files --

    async def put(self, data: bytes, known: dict[str, int] | None = None) -> File:
        """Keep bytes under their digest; durable when it returns. What is in `known` (name -> bytes) is there already."""
        file = await asyncio.to_thread(lambda: File(_digest(data), len(data)))
        if known is None or known.get(file.digest) != file.size:
            await self._place.write(f"{FILES}/{file.digest}", data)
            if known is not None:
                known[file.digest] = file.size
        return file

    async def get(self, file: File) -> bytes:
        """The bytes of a file. Raises Broken, naming it, when it is not there or not what it was."""
        try:
            data = await self._place.read(f"{FILES}/{file.digest}")
        except NotFound:
            raise Broken(f"file {FILES}/{file.digest} is missing") from None
        if len(data) != file.size:
            raise Broken(f"file {FILES}/{file.digest} has {len(data)} bytes, not {file.size}")
        if await asyncio.to_thread(_digest, data) != file.digest:
            raise Broken(f"file {FILES}/{file.digest} is damaged: its checksum does not match")
        return data

    async def files(self) -> dict[str, int]:
        """All whole files: name -> bytes."""
        return {
            name: size for name, size in (await self._place.names(FILES)).items() if not name.endswith(PART)
        }

    async def remove_files(self, names: Iterable[str]) -> None:
        """Safe to call twice."""
        for name in names:
            await self._place.remove(f"{FILES}/{name}")

    async def half_written(self) -> list[str]:
        """What a writer that was killed left in a folder."""
        return [name for name in await self._place.names(FILES) if name.endswith(PART)]

    # -- backups --

    async def ids(self) -> list[str]:
        """The backups there are, oldest first."""
        return sorted(
            name.removesuffix(".json") for name in await self._place.names(BACKUPS) if name.endswith(".json")
        )

    def takes(self, signature: Signature) -> bool:
        """Whether a backup of this signature counts as one of ours."""
        return self._signing is None or self._signing.takes(signature)

    async def read(self, identity: str) -> Backup:
        """Raises NotFound; Broken for one that is damaged or of a newer program; Conflict for one that is not ours."""
        backup, signature = await self.read_any(identity)
        if not self.takes(signature):
            raise Conflict(
                f"backup {identity} is {signature}, so it is unknown who made it: give the key of the system that did (--key-file), or accept it anyway (--accept-unsigned)"
            )
        return backup

    async def read_any(self, identity: str) -> tuple[Backup, Signature]:
        """Also one that is not ours. Raises NotFound, Broken as read()."""
        place = f"{BACKUPS}/{identity}.json"
        try:
            data = await self._place.read(place)
        except NotFound:
            raise NotFound(f"there is no backup {identity} in {self.url}; see: llm-im backup list") from None
        try:
            sealed = msgspec.json.decode(data, type=_Sealed)
            if _digest(bytes(sealed.backup)) != sealed.blake2b:
                raise Broken(f"{place} is damaged: its checksum does not match")
            backup = known_format(msgspec.json.decode(sealed.backup, type=Backup), place)
            if backup.id != identity:
                raise Broken(f"{place} is damaged: it is the manifest of {backup.id}")
            signing = self._signing or Signing()
            signature = signing.look_at(bytes(sealed.backup), sealed.key, sealed.hmac_sha256)
            if signature is Signature.WRONG:
                raise Broken(f"{place} was {signature}: somebody without the key wrote it")
            return backup, signature
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Broken(f"{place} can't be read: {words(error)}") from None

    async def write(self, backup: Backup) -> None:
        """From now on there is this backup."""
        body = msgspec.json.encode(backup)
        key, signature = (self._signing or Signing()).sign(body)
        sealed = msgspec.json.encode(_Sealed(_digest(body), msgspec.Raw(body), key, signature))
        await self._place.write(f"{BACKUPS}/{backup.id}.json", sealed)

    async def remove(self, identity: str) -> None:
        """From now on there is no such backup. Safe to call twice."""
        await self._place.remove(f"{BACKUPS}/{identity}.json")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()
