"""The kinds of processes that settings are for, and how what a section's for_process() says travels to them: with the start
of an actor, and in SettingsChanged when a live setting changed. Imports no pydantic: an actor must start again fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from models.control.events import SettingsChanged

CONTROL = "control"
BACKUP = "backup"
CLASSIFIER = "classifier"
RESPONDER = "responder"
SHARD = "shard"
PUBLISHER = "publisher"
ANNOUNCER = "announcer"
GATEWAY = "gateway"
#: Goes by the same settings as a gateway.
COLLECTOR = "collector"
CORRELATOR = "correlator"
#: Runs only while a model is trained.
TRAINER = "trainer"

_encoder = msgspec.msgpack.Encoder()


def encode_given(given: Mapping[str, object]) -> bytes:
    """Settings of a process, without a Secret in them."""
    return _encoder.encode(given)


def decode_given(encoded: bytes) -> dict[str, object]:
    return msgspec.msgpack.decode(encoded, type=dict[str, object])


def given_by(changed: SettingsChanged, kind: str) -> dict[str, object]:
    """What processes of this kind go by from now on. An event from before there was a map of kinds has a field for each that
    was told of anything."""
    if kind in changed.processes:
        return decode_given(changed.processes[kind])
    given: dict[str, object] = {"level": changed.level}
    if kind == SHARD and changed.shard:
        given |= decode_given(changed.shard)
    if kind == CLASSIFIER and changed.classifier:
        given["rules"], given["builtin_rules"] = msgspec.msgpack.decode(changed.classifier)
    return given
