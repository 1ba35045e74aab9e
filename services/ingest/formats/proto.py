"""Alerts as protobuf messages, for a format that has them as JSON too (llm_sentinel.py, llm_shield.py): both forms of an alert become
the same drafts, and so the same series. A request is a batch: its messages in field 2, as AlertBatch has them.

What was sent before is known by the digest of a message's bytes, and is not decoded again. Maps have no order in protobuf, and
most clients write one another way each time (Go on purpose, Rust by a hash of chance, Python in each process): such a message is
parsed, and known by the digest of how protobuf writes it in order, which is a tenth of reading it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nsmallest
from typing import Any, TypeVar

import msgspec

from models.alerts.alert import Content
from models.alerts.relabel import Relabelling
from models.errors import Malformed, TooLarge
from models.shard.messages import Claim
from models.trace import context_of
from services.ingest.formats.format import Request
from services.ingest.formats.items import ALERTS_MAX
from services.ingest.formats.json_arrays import SLICE_ALERTS
from services.ingest.formats.reading import Fault, Reading
from services.ingest.formats.remembered import Memory, encode_body, seen_digest
from services.ingest.formats.values import BODY_MAX_BYTES, FLAT_MAX, Fields
from services.ingest.formats.webhook import Draft, WebhookFormat
from services.ingest.rules import Rules

#: The content type of a request in this form: its body is a batch.
PROTO = "application/grpc+proto"
#: Services that one message may name, each of which has an alert of its own: 20 ms of work.
SERVICES_MAX = 1000
#: What the alerts of one message, or of one request of JSON, may hold together beyond what was sent, when services share what is said of
#: them: as much as the largest body. Without it 1 MiB would become 1 GiB in memory and in the log.
SPREAD_MAX_BYTES = 16 * 1024 * 1024
#: The same of all messages of a batch.
BATCH_SPREAD_MAX_BYTES = 4 * SPREAD_MAX_BYTES
#: Bytes of messages that count as much as one alert, when others get a turn: a message may be of a million small labels.
ALERT_BYTES = 4096
#: Of a larger message each part of reading it is a step of its own: 50,000 labels are parsed in 30 ms, and put in order in as many.
LARGE_BYTES = 64 * 1024
#: Digests that are remembered, in each of two generations, about 250 bytes each: one of a message, or two if it did not come in order.
#: Two thirds of what a gateway remembers of alerts.
MESSAGES_MAX = 131_072
#: Fields of a message that text_in() looks at: writers begin with the first.
LOOKED_AT_MAX = 1000
#: The fields of a batch, with their wire type: its id, and its messages.
_BATCH_ID, _MESSAGE = 0x0A, 0x12
#: AlertMessage.trace_context as it begins: a traceparent has 55 characters, the version first.
_TRACED = b"\x62\x3700-"
#: Nobody can make a message that is taken for another one.
_seen = blake2b(os.urandom(32), digest_size=16)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MessagesRead(Reading):
    """`ids` is what the sender calls each message. `places` may name a message several times: once for each of its alerts."""

    ids: Sequence[str] = ()


class Known(msgspec.Struct):
    """What is remembered of a message: where each of its alerts goes, what it says of its end, the digest of its bytes as they came
    last, and how many bytes its services share, times their number but one."""

    memories: tuple[Memory, ...]
    is_resolved: bool
    ends: float
    name: str
    sent: bytes
    spread: int


class ProtoReader:
    """Reads the messages of one format. `kind` is their class; `values` makes of a message the object that its JSON would be, and raises
    Malformed; `drafts` makes alerts of that; `name` is the field by which its sender names it."""

    def __init__(
        self,
        form: WebhookFormat,
        kind: Callable[[], type[Any]],
        values: Callable[[Any], dict[str, object]],
        drafts: Callable[[Fields], Draft | Iterable[Draft]],
        name: str,
    ) -> None:
        self._form = form
        self._kind = kind
        self._values = values
        self._drafts = drafts
        self._name = name
        #: By the digest of a message, as it came and in order.
        self._young: dict[bytes, Known] = {}
        self._old: dict[bytes, Known] = {}
        self._rules: Rules | None = None

    def steps(self, request: Request) -> Generator[None, None, MessagesRead]:
        """As Format.steps()."""
        now = request.received_at
        default_end = self._form.default_end(now)
        rules = self._form.shared.remembered.rules
        if rules is not self._rules:
            # What was learned by other rules is forgotten, as Remembered does.
            self._rules, self._young, self._old = rules, {}, {}
        _batch_id, messages = cut(request.body)
        places: list[int] = []
        #: Which of its message's alerts a column is.
        parts: list[int] = []
        memories: list[Memory] = []
        ends: list[float] = []
        ids: list[str] = []
        learned: dict[int, bytes] = {}
        claims: dict[int, Claim] = {}
        faults: list[Fault] = []
        work = spread = 0
        for place, message in enumerate(messages):
            if work >= SLICE_ALERTS:
                work = 0
                yield
            work += 1 + len(message) // ALERT_BYTES
            digest = _seen.copy()
            digest.update(message)
            seen = digest.digest()
            known = self._young.get(seen) or self._again(seen)
            if known is None:
                try:
                    known = yield from self._in_order(seen, message, len(places), learned)
                except Malformed as error:
                    faults.append(Fault(place, str(error), joined([message])))
                    ids.append(self._id_of(message))
                    continue
            ids.append(known.name)
            work += len(known.memories) - 1
            if len(places) + len(known.memories) > ALERTS_MAX:
                # A message may name many services, each of which has an alert of its own.
                raise TooLarge(f"over {ALERTS_MAX} alerts in one request")
            spread += known.spread
            if spread > BATCH_SPREAD_MAX_BYTES:
                raise TooLarge(
                    f"messages that name several services come to over {BATCH_SPREAD_MAX_BYTES} bytes of alerts in one "
                    "request: send fewer of them at once"
                )
            for part, memory in enumerate(known.memories):
                end = known.ends
                if known.is_resolved:
                    claims[len(places)] = Claim.RESOLVED if 0.0 < end <= now else Claim.RESOLVED_NOW
                    end = min(end or now, now)
                places.append(place)
                parts.append(part)
                memories.append(memory)
                ends.append(end or default_end)

        held: tuple[int, list[Draft]] = (-1, [])

        def draft(column: int) -> Draft:
            # The alerts of one message are asked for one after the other, and reading it gives them all.
            nonlocal held
            place = places[column]
            if held[0] != place:
                held = (place, [*self._drafted(self._parsed(messages[place]))])
            return held[1][parts[column]]

        def body_of(column: int) -> bytes:
            if (body := learned.get(column)) is not None:
                return body
            return encode_body(self._form.content_again(draft(column), memories[column]))

        def content_by(column: int, relabelling: Relabelling) -> Content | None:
            return self._form.content_by(draft(column), relabelling)

        def said_end(column: int) -> bytes:
            return self._form.said_end(draft(column))

        said = bytes(claims.get(column, Claim.NOTHING) for column in range(len(places))) if claims else b""
        return MessagesRead(
            len(messages), places, memories, ends, body_of, faults, said_end, said, "", content_by, ids=ids
        )

    def _again(self, seen: bytes) -> Known | None:
        known = self._old.get(seen)
        if known is not None:
            self._put(seen, known)
        return known

    def _put(self, seen: bytes, known: Known) -> None:
        if len(self._young) >= MESSAGES_MAX:
            self._old, self._young = self._young, {}
        self._young[seen] = known

    def _in_order(
        self, seen: bytes, message: bytes, column: int, learned: dict[int, bytes]
    ) -> Generator[None, None, Known]:
        """What is known of a message whose bytes are new. Raises Malformed."""
        is_large = len(message) > LARGE_BYTES
        said = self._parsed(message)
        if is_large:
            yield
        digest = _seen.copy()
        digest.update(said.SerializeToString(deterministic=True))
        ordered = digest.digest()
        if is_large:
            yield
        known = self._young.get(ordered) or self._again(ordered)
        if known is None:
            known = yield from self._learn(seen, said, len(message), column, learned)
            self._put(ordered, known)
        elif known.sent != ordered:
            # One other order of each is enough: a client that has one keeps to it, or to none.
            self._young.pop(known.sent, None)
            known.sent = seen
        if seen != ordered:
            self._put(seen, known)
        return known

    def _parsed(self, message: bytes) -> Any:
        """Raises Malformed."""
        if len(message) > BODY_MAX_BYTES:
            raise Malformed(f"a message of {len(message)} bytes, at most {BODY_MAX_BYTES} are allowed")
        return parsed(self._kind(), message)

    def _drafted(self, said: Any) -> Iterable[Draft]:
        """The alerts of a message, at least one, each made when it is asked for. Raises Malformed."""
        found = self._drafts(Fields(self._values(said)))
        return [found] if isinstance(found, Draft) else found

    def _learn(
        self, seen: bytes, said: Any, size: int, column: int, learned: dict[int, bytes]
    ) -> Generator[None, None, Known]:
        """`size` is that of the message, in bytes. Raises Malformed."""
        remembered = self._form.shared.remembered
        memories: list[Memory] = []
        bodies: dict[int, bytes] = {}
        is_resolved, ends, shared, work = False, 0.0, 0, 0
        for part, draft in enumerate(self._drafted(said)):
            if work >= SLICE_ALERTS:
                work = 0
                yield
            work += 1 + size // ALERT_BYTES
            if not part:
                is_resolved, ends = draft.resolved, draft.ends
                pairs = (*draft.labels.items(), *draft.annotations.items())
                shared = sum(len(name) + len(text) for name, text in pairs)
            # By the draft, as its JSON is remembered: one alert is one memory.
            drafted = seen_digest(self._form.take(draft)[1])
            memory = remembered.find(drafted)
            if memory is None:
                content, ruled = self._form.ruled(draft)
                bodies[column + part] = body = encode_body(content)
                memory = remembered.learn(drafted, content, len(body), ruled)
            memories.append(memory)
        learned.update(bodies)
        spread = shared * (len(memories) - 1)
        return Known(tuple(memories), is_resolved, ends, getattr(said, self._name), seen, spread)

    def _id_of(self, message: bytes) -> str:
        try:
            name: str = getattr(parsed(self._kind(), message), self._name)
            return name
        except Malformed:
            return ""


def in_order(pairs: Mapping[str, str]) -> dict[str, str]:
    """A map of the protocol as an object of JSON, with as many names as are looked at of one."""
    if len(pairs) <= FLAT_MAX:
        return dict(sorted(pairs.items()))
    return {name: pairs[name] for name in nsmallest(FLAT_MAX, pairs)}


def cut(batch: bytes) -> tuple[str, list[bytes]]:
    """A batch's id, and its messages as they are. What else it holds is ignored, as protobuf has it. Raises Malformed, and TooLarge for
    more than ALERTS_MAX fields: a large body of empty ones would keep all others waiting for seconds."""
    batch_id, messages = "", []
    at, end, fields = 0, len(batch), 0
    try:
        while at < end:
            if batch[at] == _MESSAGE and batch[at + 1] > 127 and batch[at + 2] < 128:
                # Nearly all of a batch: a message of 128 to 16,383 bytes.
                size = batch[at + 1] & 127 | batch[at + 2] << 7
                at += 3 + size
                messages.append(batch[at - size : at])
                continue
            fields += 1
            if fields > ALERTS_MAX + 1:
                break
            tag, at = _varint(batch, at)
            kind = tag & 7
            if kind == 2:
                size, at = _varint(batch, at)
                found = batch[at : at + size]
                at += size
                if tag == _MESSAGE:
                    messages.append(found)
                elif tag == _BATCH_ID:
                    batch_id = found.decode()
            elif kind == 0:
                _, at = _varint(batch, at)
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                raise ValueError
        if at > end:
            raise ValueError
    except (IndexError, ValueError):
        raise Malformed("expected a batch of messages, as the protocol has it") from None
    if fields > ALERTS_MAX + 1 or len(messages) > ALERTS_MAX:
        raise TooLarge(f"over {ALERTS_MAX} alerts in one request")
    return batch_id, messages


def text_in(message: bytes, number: int) -> str:
    """A text among the first fields of a message, by its number, without reading the rest; "" if it is not there."""
    at = 0
    try:
        for _ in range(LOOKED_AT_MAX):
            tag, at = _varint(message, at)
            kind = tag & 7
            if kind == 2:
                size, at = _varint(message, at)
                if tag >> 3 == number:
                    return message[at : at + size].decode()
                at += size
            elif kind == 0:
                _, at = _varint(message, at)
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                break
    except (IndexError, ValueError):
        pass
    return ""


def joined(messages: Sequence[bytes]) -> bytes:
    """A batch of these."""
    parts = []
    for message in messages:
        size = len(message)
        parts.append(b"\x12%c" % size if size < 128 else b"\x12" + _written(size))
        parts.append(message)
    return b"".join(parts)


def trace_in(message: bytes) -> str | None:
    """The trace context that an AlertMessage bears, None without one."""
    if _TRACED not in message:
        return None
    # Here, as in the formats: its import takes a tenth of a second, and most gateways never need it.
    from services.proto.incident_pb2 import AlertMessage

    try:
        said = parsed(AlertMessage, message).trace_context
    except Malformed:
        return None
    return context_of([(b"traceparent", said.encode())])


def parsed(kind: type[T], message: bytes) -> T:
    """A message of the protocol. Raises Malformed."""
    from google.protobuf.message import DecodeError

    try:
        found: T = kind.FromString(message)  # type: ignore[attr-defined]
        return found
    except DecodeError:
        raise Malformed(f"expected a message {kind.__name__} of protobuf") from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends. Raises IndexError, ValueError."""
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    value = shift = 0
    while True:
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError
        byte = data[at]


def _written(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
