"""An answer too large for memory: its pieces are kept in a file until all are there, then streamed in any order.
Nothing is sent before that, because an answer that fails half-way can't take its 200 back. Used by Alertmanager's reads
(services/api/alertmanager/), whose answers have no pages.
"""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from starlette.responses import Response, StreamingResponse

from models.errors import Busy, TooLarge, Unavailable

#: Answers up to this never see a disk: 10,000 common alerts.
MEMORY_BYTES = 8 * 1024 * 1024
#: The largest answer, and all answers in progress in one gateway together: they take room where temporary files are.
ANSWER_BYTES_MAX = 1024**3
ANSWERS_BYTES_MAX = 2 * ANSWER_BYTES_MAX
#: Sent at once.
CHUNK_BYTES = 256 * 1024
#: A disk, where there is one: /tmp may be memory.
FOLDER = Path("/var/tmp")  # noqa: S108 - the file has no name, from the moment it is made

#: Where a piece is: offset and length.
Piece = tuple[int, int]
#: What an answer is made of: bytes as they are, or a piece that was added.
Part = bytes | Piece
A = TypeVar("A")
R = TypeVar("R")


class Spool:
    """The pieces of one answer. Raises TooLarge, Busy and Unavailable (a full disk) if there is no room for one more."""

    #: Of all spools of this process.
    _waiting = 0

    def __init__(self) -> None:
        folder = str(FOLDER) if FOLDER.is_dir() else None
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES, dir=folder)  # noqa: SIM115
        self._size = 0

    async def add(self, pieces: Sequence[bytes]) -> list[Piece]:
        """Keep these; where they are."""
        places: list[Piece] = []
        size = self._size
        for piece in pieces:
            places.append((size, len(piece)))
            size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise TooLarge(f"the answer is larger than {ANSWER_BYTES_MAX} bytes: narrow the filter")
        if Spool._waiting + size - self._size > ANSWERS_BYTES_MAX:
            raise Busy(f"answers under way hold more than {ANSWERS_BYTES_MAX} bytes: try again")
        Spool._waiting += size - self._size
        self._size = size
        try:
            await self._do(self._file.write, b"".join(pieces))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise Unavailable(f"no room for the answer: the disk of {FOLDER} is full") from error
        return places

    def answer(self, parts: Iterable[Part], size: int) -> Response:
        """The answer of these parts, `size` bytes together. It closes the spool."""
        return StreamingResponse(
            self._stream(parts), media_type="application/json", headers={"Content-Length": str(size)}
        )

    def close(self) -> None:
        """Safe to call twice."""
        Spool._waiting -= self._size
        self._size = 0
        self._file.close()

    def __del__(self) -> None:
        # An answer whose client left before it began is never streamed, and nobody is told.
        self.close()

    async def _stream(self, parts: Iterable[Part]) -> AsyncIterator[bytes]:
        try:
            waiting: list[Part] = []
            size = 0
            for part in parts:
                waiting.append(part)
                size += len(part) if isinstance(part, bytes) else part[1]
                if size >= CHUNK_BYTES:
                    yield await self._do(self._read, waiting)
                    waiting, size = [], 0
            yield await self._do(self._read, waiting)
        finally:
            self.close()

    def _read(self, parts: Sequence[Part]) -> bytes:
        found: list[bytes] = []
        for part in parts:
            if isinstance(part, bytes):
                found.append(part)
            else:
                self._file.seek(part[0])
                found.append(self._file.read(part[1]))
        return b"".join(found)

    async def _do(self, work: Callable[[A], R], given: A) -> R:
        # What is in memory is quick; a disk may not be.
        return work(given) if self._size <= MEMORY_BYTES else await asyncio.to_thread(work, given)
