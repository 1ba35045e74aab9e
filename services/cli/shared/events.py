"""Events of the log as a person reads them, for `llm-im log tail`. Identities become UUIDs, bodies what they hold."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import msgspec

from models.alerts.alert import Content
from models.partition.event import Event
from models.partition.frames import Frame
from models.shard.messages import Decision
from services.cli.shared import terminal

#: Fields of events that hold packed u32s: told by how many there are.
_PACKED = {"numbers": 4, "owners": 2}
_UUID_BYTES = 16
_content = msgspec.msgpack.Decoder(Content)


@dataclass(frozen=True, slots=True)
class Line:
    """One event, with the frame it came in."""

    partition: str
    seq: int
    at: float
    tenant: str
    trace_id: str | None
    type: str
    fields: dict[str, object]

    def as_text(self) -> str:
        """One line, without anything that a terminal would obey."""
        # Empty fields are left out: most say that something is not there.
        told = " ".join(
            f"{name}={_word(value)}" for name, value in self.fields.items() if value not in (None, "", {}, [])
        )
        return f"{terminal.clock_time(self.at)}  {self.partition}  {self.seq}  {self.type}  {told}".rstrip()

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(
            {
                "partition": self.partition,
                "seq": self.seq,
                "at": self.at,
                "tenant": self.tenant,
                "trace_id": self.trace_id,
                "type": self.type,
                "event": self.fields,
            }
        )


def lines(partition: str, frame: Frame) -> Iterator[Line]:
    """A frame's events, in order."""
    for event in frame.events:
        yield Line(
            partition, frame.seq, frame.now, frame.tenant, frame.trace_id, type(event).__name__, _told(event)
        )


def _told(event: Event) -> dict[str, object]:
    return {name: _value(name, value) for name, value in msgspec.structs.asdict(event).items()}


def _value(name: str, value: object) -> object:
    """Something JSON can hold, in words where the log has numbers."""
    match value:
        case bytes() if name in _PACKED:
            return f"{len(value) // _PACKED[name]} numbers"
        case bytes() if name == "decisions":
            return [_decision(number) for number in value]
        case bytes() if name == "body":
            return _body(value)
        case bytes() if name == "incident_id" and len(value) == _UUID_BYTES:
            return str(UUID(bytes=value))
        case bytes() if name in ("key", "call_id"):
            return value.hex()
        case bytes():
            return f"{len(value)} bytes"
        case list():
            return [_value("body" if name == "bodies" else name.removesuffix("s"), item) for item in value]
        case dict():
            return {key: _value("", item) for key, item in value.items()}
        case int() if name == "decision":
            return _decision(value)
        case float() if not math.isfinite(value):
            return None  # "inf": it has no end
    if hasattr(value, "name") and name == "severity":
        return value.name
    return value


def _decision(number: int) -> str:
    try:
        return Decision(number).name.lower()
    except ValueError:
        return f"decision {number}"


def _body(body: bytes) -> object:
    if not body:
        return None
    try:
        return msgspec.structs.asdict(_content.decode(body))
    except msgspec.MsgspecError:
        return f"{len(body)} bytes"


def _word(value: object) -> str:
    if isinstance(value, str):
        text = terminal.plain(value)
        return json.dumps(text, ensure_ascii=False) if " " in text or '"' in text or not text else text
    return terminal.plain(json.dumps(value, ensure_ascii=False))
