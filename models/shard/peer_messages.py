"""Messages from one incident to another, across shards. Each stays pending in its sender's shard (Incident.owed) until
the other has answered; models/shard/children.py says what each leads to.

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
    """The sender is linked to you or, with `gone`, no longer."""

    actor: str
    reason: str
    gone: bool = False


class MergeAsked(PeerMessage, frozen=True):
    """You become a child of the sender."""

    actor: str
    reason: str


class UnmergeAsked(PeerMessage, frozen=True):
    """You are no longer a child of the sender."""

    actor: str
    reason: str


class ChildState(PeerMessage, frozen=True, tag="PartSaid"):
    """The present state of the sender, your child. `heard` is the number of your last message that it had received."""

    is_open: bool
    severity: Severity
    heard: int = 0


class EndAsked(PeerMessage, frozen=True):
    """A person resolved the sender, and with it you."""

    actor: str
    method: str
    reason: str


AnyPeerMessage = LinkAsked | MergeAsked | UnmergeAsked | ChildState | EndAsked

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyPeerMessage] = msgspec.msgpack.Decoder(AnyPeerMessage)


def encode(note: AnyPeerMessage) -> bytes:
    """MessagePack of a peer message."""
    return _encoder.encode(note)


def decode(data: bytes) -> AnyPeerMessage:
    """The peer message in `data`. Raises msgspec.ValidationError or DecodeError when it is none."""
    return _decoder.decode(data)


def written(identity: bytes) -> str:
    """An incident's id as people write it."""
    return str(UUID(bytes=identity))
