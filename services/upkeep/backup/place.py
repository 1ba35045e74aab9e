"""One place of files through fsspec: a folder, or a store of objects such as s3://. Used by target.py and busy.py.

Who may come in there says the environment or fsspec's own configuration, never a setting of ours. In a folder files are written
by ourselves, so that they are synced, private, and whole or not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from models.errors import Full, IncidentManagerError, Malformed, NotFound, Unavailable

#: Names of half written files in a folder: another process may see them, none takes them for whole.
PART = ".part"
#: A foreign error may say a lot; this much of it is told.
_SHOWN_CHARS = 300
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

T = TypeVar("T")


class FilePlace:
    """Files by their path below a URL. Everything it raises is ours: NotFound, Full, Unavailable; Malformed for a URL that
    can't be used."""

    def __init__(self, url: str) -> None:
        _check(url)
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]

            self._fs, root = url_to_fs(url)
        except ImportError as error:
            hint = ': pip install "llm-incident-manager[s3]"' if url.startswith("s3:") else ""
            raise Malformed(f"{url}: {words(error)}{hint}") from None
        except ValueError as error:
            raise Malformed(f"{url}: {words(error)}") from None
        protocols = self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
        self._is_folder = "file" in protocols
        self._root = str(root).rstrip("/")
        self.url = url

    async def names(self, folder: str) -> dict[str, int]:
        """The files in a folder: name -> bytes. None when there is no such folder."""
        return await self._run(lambda: self._names(folder))

    async def read(self, path: str) -> bytes:
        return await self._run(lambda: bytes(self._fs.cat_file(f"{self._root}/{path}")))

    async def write(self, path: str, data: bytes) -> None:
        """Durable and whole when it returns, over what was there; killed before, nothing of it is seen."""
        await self._run(lambda: self._write(f"{self._root}/{path}", data))

    async def remove(self, path: str) -> None:
        """Safe to call twice."""
        with contextlib.suppress(NotFound):
            await self._run(lambda: self._fs.rm_file(f"{self._root}/{path}"))

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except IncidentManagerError:
            raise
        except FileNotFoundError:
            raise NotFound(f"{self.url}: there is no such file") from None
        except OSError as error:
            kind = Full if error.errno in _NO_SPACE else Unavailable
            raise kind(f"{self.url}: {words(error)}") from None
        except Exception as error:  # noqa: BLE001 - every technology behind fsspec has errors of its own
            raise Unavailable(f"{self.url}: {type(error).__name__}: {words(error)}") from None

    def _names(self, folder: str) -> dict[str, int]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(f"{self._root}/{folder}", detail=True)
        except FileNotFoundError:
            return {}
        return {
            str(each["name"]).rpartition("/")[2]: int(each["size"] or 0)
            for each in found
            if each["type"] == "file"
        }

    def _write(self, path: str, data: bytes) -> None:
        if self._is_folder:
            _write_file(Path(path), data)
            return
        # Stores of objects show a whole object or none, and know no folders: to ask for one could make a bucket.
        try:
            self._fs.pipe_file(path, data)
        except FileNotFoundError:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, data)


def _check(url: str) -> None:
    if not url.strip():
        raise Malformed("expected a folder or a URL such as s3://bucket/prefix")
    if "://" in url:
        split = urlsplit(url)
        if "@" in split.netloc or split.query:
            raise Malformed(
                "expected a URL without user, password and query: credentials come from the environment or from fsspec's configuration"
            )


def _write_file(path: Path, data: bytes) -> None:
    """A synced file under another name first, then its name."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid4().hex}{PART}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def words(error: BaseException) -> str:
    """What a foreign error says, in bounds."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text or type(error).__name__)[:_SHOWN_CHARS]
