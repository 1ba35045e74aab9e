"""Manifests are signed, so that who can write the target can't make a backup of his own, or change one, unseen: a manifest names
every file by its digest. The key lies elsewhere, in the data folder unless the settings name another file. Used by target.py.

A backup of an older version is not signed, and one of another system is signed by another key. Neither is taken for ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import Malformed, Unavailable
from services.stores.sqlite.files import sync_directory

if TYPE_CHECKING:
    from models.settings.all import Settings

#: As long as the digest, which is as strong as HMAC gets.
KEY_BYTES = 32
#: In the data folder, unless disaster_recovery.backup_key_file names another one.
KEY_FILE = "backup.key"


class Signature(StrEnum):
    """What is known of who made a backup; values are for people."""

    GOOD = "signed"
    NONE = "not signed"
    OTHER = "signed by another key"
    WRONG = "changed since it was signed"


@dataclass(frozen=True, slots=True)
class Signing:
    """The key at hand, None when there is none; `make` makes the first when something is to be signed. `takes_any`: who asks
    knows that a backup is not signed by it, and takes it."""

    key: bytes | None = None
    takes_any: bool = False
    make: Callable[[], bytes] | None = None

    def sign(self, body: bytes) -> tuple[str, str]:
        """Which key, and the signature; empty without one."""
        key = self.make() if self.key is None and self.make is not None else self.key
        return ("", "") if key is None else (_name_of(key), _mac(key, body))

    def look_at(self, body: bytes, key_name: str, signature: str) -> Signature:
        if not signature:
            return Signature.NONE
        if self.key is None or key_name != _name_of(self.key):
            return Signature.OTHER
        is_good = hmac.compare_digest(signature.encode(), _mac(self.key, body).encode())
        return Signature.GOOD if is_good else Signature.WRONG

    def takes(self, signature: Signature) -> bool:
        return signature is Signature.GOOD or (self.takes_any and signature is not Signature.WRONG)


def key_path(settings: Settings) -> Path:
    """Where the key of this system is."""
    given = settings.disaster_recovery.backup_key_file
    return Path(given).expanduser() if given else Path(settings.state.path) / KEY_FILE


def key_of(settings: Settings) -> bytes:
    """The key to sign by: made now, readable by its owner alone, when there is none in the data folder. Raises Malformed for a
    file that holds none, Unavailable."""
    path = key_path(settings)
    if settings.disaster_recovery.backup_key_file is None:
        with contextlib.suppress(FileExistsError):
            _make(path)
    return read_key(path)


def found_key(settings: Settings, given: Path | None = None) -> bytes | None:
    """The key to check by; None when there is none at hand. Raises Malformed for one that was named and is not there."""
    path = given or key_path(settings)
    is_named = given is not None or settings.disaster_recovery.backup_key_file is not None
    return read_key(path) if is_named or path.exists() else None


def read_key(path: Path) -> bytes:
    """Raises Malformed, which never repeats what it read; Unavailable."""
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except FileNotFoundError:
        raise Malformed(f"backup key: there is no file {path}") from None
    except ValueError:
        key = b""
    except OSError as error:
        raise Unavailable(f"backup key: {path}: {error.strerror}") from None
    if len(key) != KEY_BYTES:
        raise Malformed(f"backup key: {path}: expected {2 * KEY_BYTES} hexadecimal digits and nothing else")
    return key


def _make(path: Path) -> None:
    """Whole or not there, also for who looks just now. Raises FileExistsError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            raise FileExistsError
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        finally:
            part.unlink()
        sync_directory(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise Unavailable(f"backup key: {path}: {error.strerror}") from None


def _name_of(key: bytes) -> str:
    """Tells keys apart, and says nothing of them."""
    return hashlib.blake2b(key, digest_size=8, person=b"backup key name").hexdigest()


def _mac(key: bytes, body: bytes) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()
