"""Playbooks as the control partition keeps them: versions that never change, one of which is current. What becomes of them:
models/control/shelf.py. What a playbook says stands in models/playbook/playbook.py.

    apply --> active <--> paused, shadow --> removed --apply--> active

A playbook runs for incidents that open after it became active in its present version. A shadow decides and does nothing.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from models.errors import Malformed, TooLarge
from models.partition.event import Event
from models.playbook.playbook import decode
from models.wire import Wire

#: Playbooks that are not removed. An organization with thousands of services has some dozens.
PLAYBOOKS_MAX = 500
#: Versions of one playbook that can be looked at and gone back to. Of older ones the digest is remembered.
VERSIONS_KEPT = 20
#: Digests of versions that are not kept any more, of one playbook: so long no other text may call itself by their version.
DIGESTS_KEPT = 1000
#: Bytes of one playbook, as it was written and as it was read.
PLAYBOOK_BYTES_MAX = 256 * 1024
#: Bytes of all of them: gateways hold them all, shards those that are current.
BYTES_MAX = 32 * 1024 * 1024
NAME_MAX = 128
VERSION_MAX = 64


class Mode(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    SHADOW = "shadow"
    REMOVED = "removed"


class KeptVersion(msgspec.Struct, frozen=True, array_like=True):
    """A version. `body` is the encoded Playbook, `source` what was written (YAML)."""

    version: str
    digest: str
    body: bytes
    source: str
    applied_at: float
    applied_by: str

    @property
    def size(self) -> int:
        return len(self.body) + len(self.source.encode("utf-8", "surrogatepass"))


class Shelved(msgspec.Struct, frozen=True, array_like=True):
    """A playbook with its versions, the one that was applied last at the end. `current` "": it is removed. `since`: when the current
    version became active, or a shadow. `digests` of versions that are not kept any more."""

    name: str
    mode: Mode
    current: str
    since: float
    changed_by: str
    versions: tuple[KeptVersion, ...] = ()
    digests: dict[str, str] = {}

    def version(self, version: str) -> KeptVersion | None:
        return next((each for each in self.versions if each.version == version), None)

    def digest_of(self, version: str) -> str | None:
        found = self.version(version)
        return self.digests.get(version) if found is None else found.digest

    @property
    def size(self) -> int:
        return sum(each.size for each in self.versions)


class ApplyPlaybook(Wire, frozen=True):
    """Make this version of a playbook the current one. The same again changes nothing. `mode` "": as it is; a new one is active."""

    name: str
    version: str
    digest: str
    body: bytes
    source: str
    actor: str
    mode: str = ""


class SetPlaybookMode(Wire, frozen=True):
    """Pause a playbook, make it a shadow, or active again. Runs under way go on."""

    name: str
    mode: str
    actor: str


class RemovePlaybook(Wire, frozen=True):
    """It is chosen no more. Runs under way go on. Safe to repeat."""

    name: str
    actor: str


class PlaybookApplied(Event, frozen=True):
    """Control partition: a version is the current one from now on. `body` is b"" for one that is kept already."""

    name: str
    version: str
    digest: str
    body: bytes
    source: str
    at: float
    actor: str
    mode: Mode


class PlaybookModeSet(Event, frozen=True):
    """Control partition: a playbook is active, paused or a shadow from now on."""

    name: str
    mode: Mode
    at: float
    actor: str


class PlaybookRemoved(Event, frozen=True):
    """Control partition: a playbook was removed."""

    name: str
    at: float
    actor: str


def check(message: ApplyPlaybook) -> None:
    """Raises Malformed, TooLarge."""
    for field, text, most in (("name", message.name, NAME_MAX), ("version", message.version, VERSION_MAX)):
        if not text.strip() or not text.isprintable() or len(text) > most:
            raise Malformed(f"{field}: expected 1 to {most} printable characters")
    if "/" in message.name:
        raise Malformed("name: expected one without a slash: it is part of a path")
    size = max(len(message.body), len(message.source.encode("utf-8", "surrogatepass")))
    if size > PLAYBOOK_BYTES_MAX:
        raise TooLarge(
            f"a playbook has at most {PLAYBOOK_BYTES_MAX // 1024} KiB, this one has {size:,} bytes"
        )
    try:
        book = decode(message.body)
    except msgspec.MsgspecError as error:
        raise Malformed(f"body: not a playbook: {error}") from None
    if (book.name, book.version, book.digest) != (message.name, message.version, message.digest):
        raise Malformed("body: its name, version and digest differ from those given")
