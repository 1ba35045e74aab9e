"""What one incident tells another, across shards. A note is owed by its sender's shard (Incident.owed) until the other
has answered; models/shard/children.py says what each leads to.

    target                                   source
      | IncidentMerged (pending)               |
      |---------------- MergeAsked ----------->|  IncidentMergedInto: it is a part now
      |<--------------- ChildState --------------|  and says how it is, now and whenever that changes
      |  ...                                   |
      |---------------- EndAsked ------------->|  a person resolved the target
      |---------------- UnmergeAsked --------->|  it is its own again
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from models.incidents.incident import Severity


class PeerMessage(msgspec.Struct, frozen=True, array_like=True, tag=True, tag_field="note"):
    """A field is only added at the end, with a default."""


class LinkAsked(PeerMessage, frozen=True):
    """The sender has to do with you, or, with `gone`, no longer."""

    actor: str
    reason: str
    gone: bool = False


class MergeAsked(PeerMessage, frozen=True):
    """You become a part of the sender."""

    actor: str
    reason: str


class UnmergeAsked(PeerMessage, frozen=True):
    """You are no part of the sender any more."""

    actor: str
    reason: str


class ChildState(PeerMessage, frozen=True, tag="PartSaid"):
    """How the sender, a part of you, is now. `heard` is the number of your last note that it knew of."""

    is_open: bool
    severity: Severity
    heard: int = 0


class EndAsked(PeerMessage, frozen=True):
    """A person resolved the sender, and so you."""

    actor: str
    method: str
    reason: str


AnyPeerMessage = LinkAsked | MergeAsked | UnmergeAsked | ChildState | EndAsked

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyPeerMessage] = msgspec.msgpack.Decoder(AnyPeerMessage)


def encode(note: AnyPeerMessage) -> bytes:
    """MessagePack of a note."""
    return _encoder.encode(note)


def decode(data: bytes) -> AnyPeerMessage:
    """The note in `data`. Raises msgspec.ValidationError or DecodeError when it is none."""
    return _decoder.decode(data)


def written(identity: bytes) -> str:
    """An incident's id as people write it."""
    return str(UUID(bytes=identity))
