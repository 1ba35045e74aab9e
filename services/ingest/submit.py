"""The single way in: a Reading becomes messages to shards and comes back as one decision per alert. Every door calls
submit(); what it returns is durable. Alerts that were sent before go without their bodies (32 bytes and an end time); a
shard that has forgotten a key says so and gets the whole alert at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from models.alerts.alert import key_digest
from models.errors import Broken, Busy, Conflict, Full, IncidentManagerError, ShareUsedUp
from models.partition.sharding import SlotMap
from models.shard.messages import REASONS, AlertsArrived, AlertsReply, Decision, Reply, encode
from models.trace import trace_id_of
from services.ingest.arrival import Arrival
from services.ingest.formats.reading import Reading
from services.ingest.line import MESSAGE_ALERTS_MAX, ShardLine, Waiting

log = structlog.get_logger()

#: A decision after which the shard knows the key.
_KNOWN = frozenset(
    {
        Decision.OPENED,
        Decision.JOINED,
        Decision.REPEATED,
        Decision.CHANGED,
        Decision.REFIRED,
        Decision.REOPENED,
        Decision.OVERFLOWED,
    }
)
#: What a sender is told about alerts that their shard refused.
_REFUSED: dict[Decision, type[IncidentManagerError]] = {
    Decision.COLLIDED: Conflict,
    Decision.SENDER_FULL: ShareUsedUp,
    Decision.SHARD_FULL: Full,
}
_ALL_REPEATED = bytes([Decision.REPEATED])
_encoder = msgspec.msgpack.Encoder()


@dataclass(slots=True)
class Receipt:
    """The results for a Reading's columns: a decision and an incident id (b"" if there is none, or it was not
    requested), or the error of the shard part that failed. A part (at most MESSAGE_ALERTS_MAX of them) is stored whole
    or not at all."""

    decisions: list[Decision | None]
    incident_ids: list[bytes]
    errors: dict[int, IncidentManagerError]

    @property
    def error(self) -> IncidentManagerError | None:
        """The first part's error, if any part failed."""
        return next(iter(self.errors.values()), None)


class Submitter:
    """One a gateway process. `slots` is replaced whole when the control partition has a newer map."""

    def __init__(self, lines: Sequence[ShardLine], slots: SlotMap) -> None:
        self.lines = lines
        self.slots = slots
        self._ids = CallIds()

    async def submit(self, reading: Reading, arrival: Arrival) -> Receipt:
        """Store every column of `reading`, or say which part could not be. Never raises for a shard's faults."""
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

        def done(receipt: Receipt) -> None:
            if not answer.done():
                answer.set_result(receipt)

        for part in self._parts(reading, arrival, done):
            part.go_on()
            if len(reading.memories) > MESSAGE_ALERTS_MAX:
                await asyncio.sleep(0)  # each makes its first message now: others get a turn between
        return await answer

    def begin(self, reading: Reading, arrival: Arrival, done: Callable[[Receipt], object]) -> None:
        """submit() of up to MESSAGE_ALERTS_MAX alerts without a task: done() gets the receipt, perhaps before this returns; what it
        raises is logged."""
        for part in self._parts(reading, arrival, done):
            part.go_on()

    def _parts(
        self, reading: Reading, arrival: Arrival, done: Callable[[Receipt], object]
    ) -> Sequence[_Part]:
        owners = self.slots.owners
        columns: dict[int, list[int]] = {}
        for column, memory in enumerate(reading.memories):
            shard = owners[memory.slot]
            found = columns.get(shard)
            if found is None:
                columns[shard] = [column]
            else:
                found.append(column)
        count = len(reading.memories)
        receipt = Receipt([None] * count, [b""] * count if arrival.want_ids else [], {})
        request = _Request(reading, arrival, receipt, len(columns), done)
        if not columns:
            request.over()
            return ()
        return [_Part(request, self.lines[shard], self._ids, its) for shard, its in columns.items()]


@dataclass(slots=True, eq=False)
class _Request:
    """A request whose parts are on their way to their shards."""

    reading: Reading
    arrival: Arrival
    receipt: Receipt
    parts_left: int
    done: Callable[[Receipt], object]

    def part_over(self) -> None:
        self.parts_left -= 1
        if not self.parts_left:
            self.over()

    def over(self) -> None:
        try:
            self.done(self.receipt)
        except Exception:
            # A bug of who waits: it must not look like one of the shard, nor be told again.
            log.exception("bug: a request could not be told its answer", door=self.arrival.format)


class _Part(Waiting):
    """What of a request goes to one shard, a message's worth of it at a time.

    Where all of it fires, and its sender named neither delivery nor trace, it shares a message with the like of it from other
    requests: such alerts depend neither on their order nor on the moment at which each request was read.
    """

    __slots__ = (
        "_bodies", "_columns", "_ends", "_first", "_ids", "_keys", "_line", "_memories", "_now", "_request", "_said", "_scoped",
    )  # fmt: skip

    def __init__(self, request: _Request, line: ShardLine, ids: Iterator[bytes], columns: list[int]) -> None:
        self._request = request
        self._line = line
        self._ids = ids
        self.sender = request.arrival.sender.name
        self._columns = columns
        #: Where in them the next message begins, and which of them are on their way.
        self._first = 0
        self._now: list[int] = []
        self._scoped: str | None = None

    def go_on(self) -> None:
        """Send what comes next of it, if there is more."""
        first = self._first
        if first >= len(self._columns):
            self._request.part_over()
            return
        self._first = first + MESSAGE_ALERTS_MAX
        arrival = self._request.arrival
        if arrival.delivery_id is not None:
            self._scoped = _scoped(arrival)
            if first:
                # The same request sent again is cut at the same places. No key holds a line end.
                self._scoped += f"\n{first}"
        self._send(self._columns[first : self._first])

    def _send(self, columns: list[int]) -> None:
        self._now = columns
        try:
            self._make(columns)
            self._line.put(self)
        except Busy as error:
            # Its traceback holds this part, which holds the error: a flood of refused bodies would wait for the garbage collector.
            self.failed(error.with_traceback(None))
        except Exception as error:
            # A bug: its sender is told, and may send it again.
            log.exception("bug: alerts could not be sent to their shard", shard=self._line.owner)
            self.failed(Broken(repr(error)))

    def _make(self, columns: list[int]) -> None:
        """What put() and message() need."""
        reading, arrival = self._request.reading, self._request.arrival
        whole = self._scoped is not None
        memories = [reading.memories[column] for column in columns]
        ends = [reading.ends[column] for column in columns]
        self._memories, self._ends = memories, ends
        self._keys = [memory.key for memory in memories]
        self._said = bytes([reading.said[column] for column in columns]) if reading.said else b""
        only_fires = not self._said and min(ends) > arrival.received_at
        # A delivery is remembered with its answer, so its shard decides all of it at once: with all bodies, if there is anything
        # to decide.
        spares = not whole or (only_fires and all([memory.is_known for memory in memories]))
        self._bodies = [
            b"" if memory.is_known and spares else reading.body(column)
            for memory, column in zip(memories, columns, strict=True)
        ]
        self.alerts = len(columns)
        if whole or arrival.trace is not None or not only_fires:
            self.share = None
        else:
            # What all repeats is decided at once, which one new alert among them would prevent.
            is_news = any(self._bodies)
            self.share = (arrival.tenant, arrival.format, arrival.sender.name, arrival.want_ids, is_news)

    def message(self, together: Sequence[Waiting]) -> bytes:
        request, keys, ends, bodies = self._request, self._keys, self._ends, self._bodies
        received_at = request.arrival.received_at
        if len(together) > 1:
            keys, ends, bodies = [], [], []
            for part in together:
                assert isinstance(part, _Part)  # only these share anything
                keys += part._keys
                ends += part._ends
                bodies += part._bodies
                received_at = min(received_at, part._request.arrival.received_at)
        arrival = request.arrival
        return encode(
            AlertsArrived(
                next(self._ids),
                arrival.tenant,
                arrival.format,
                keys,
                ends,
                bodies,
                arrival.want_ids,
                self._scoped,
                trace_id=trace_id_of(arrival.trace),
                trace=arrival.trace,
                sender=arrival.sender.name,
                content=b"" if self._scoped is None else _said(request.reading, self._now),
                received_at=received_at,
                said=self._said,
            )
        )

    def answered(self, reply: Reply, place: int) -> None:
        line, receipt, want_ids = self._line, self._request.receipt, self._request.arrival.want_ids
        if not isinstance(reply, AlertsReply):
            self.failed(Broken(f"{line.owner} answered AlertsArrived with {type(reply).__name__}"))
            return
        if reply.decisions == _ALL_REPEATED:
            for column, memory in zip(self._now, self._memories, strict=True):
                receipt.decisions[column] = Decision.REPEATED
                memory.is_known = True
            if want_ids:
                for column, identity in zip(self._now, reply.incident_ids[place:], strict=False):
                    receipt.incident_ids[column] = identity
            self.go_on()
            return
        again: list[int] = []
        for at, (column, memory) in enumerate(zip(self._now, self._memories, strict=True), place):
            decision = reply.decision(at)
            memory.is_known = is_known = decision in _KNOWN
            if not is_known:
                if decision is Decision.BODY_WANTED:
                    again.append(column)
                    continue
                if decision is Decision.UNREADABLE:
                    receipt.errors[column] = Broken(f"{line.owner}: {REASONS[decision]}")
                    continue
                if (refused := _REFUSED.get(decision)) is not None:
                    sender = self._request.arrival.sender.name
                    receipt.errors[column] = refused(f"{line.owner}, sender {sender!r}: {REASONS[decision]}")
                    continue
            receipt.decisions[column] = decision
            # A delivery id that comes again with other alerts gets the answer of the first, which may be shorter.
            if want_ids and at < len(reply.incident_ids):
                receipt.incident_ids[column] = reply.incident_ids[at]
        if again:
            self._send(again)
        else:
            self.go_on()

    def failed(self, error: IncidentManagerError) -> None:
        # What failed once would fail again, after `hold` each time.
        receipt = self._request.receipt
        for column in (*self._now, *self._columns[self._first :]):
            if receipt.decisions[column] is None:
                receipt.errors[column] = error
        self._request.part_over()


def _scoped(arrival: Arrival) -> str:
    """A delivery id as stores hold it. A token's are told from everybody's by the line end, which no key holds."""
    if arrival.sender.id:
        return f"{arrival.tenant}/{arrival.format}\n{arrival.sender.id}\n{arrival.delivery_id}"
    return f"{arrival.tenant}/{arrival.format}/{arrival.delivery_id}"


def _said(reading: Reading, columns: Sequence[int]) -> bytes:
    """A digest of all that these alerts say, as they were written: what arrives later fills in other times."""
    said = [(reading.memories[column].key, reading.said_end(column)) for column in columns]
    return key_digest(_encoder.encode(said))


class CallIds:
    """16 bytes that never come twice: chance for the process, a count within it. 0.2 us."""

    def __init__(self) -> None:
        self._process = os.urandom(8)
        self._count = 0

    def __iter__(self) -> CallIds:
        return self

    def __next__(self) -> bytes:
        self._count += 1
        return self._process + self._count.to_bytes(8, "big")
