"""The single way in: a Reading becomes messages to shards and comes back as one decision per alert. Every door calls
submit(); what it returns is durable. Alerts that were sent before go without their bodies (32 bytes and an end time); a
shard that has forgotten a key says so and gets the whole alert at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from models.alerts.alert import key_digest
from models.errors import Broken, Conflict, Full, IncidentManagerError, ShareUsedUp
from models.partition.sharding import SlotMap
from models.shard.messages import REASONS, AlertsArrived, AlertsReply, Decision, encode
from models.trace import trace_id_of
from services.ingest.arrival import Arrival
from services.ingest.formats.reading import Reading
from services.ingest.line import ShardLine

#: Alerts in one message to a shard; a larger request goes as several, one after the other. Making a message of so
#: many new ones takes 20 ms, and its shard as long: nobody behind it waits for all 100,000 of a request.
MESSAGE_ALERTS_MAX = 2048
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
        count = len(reading.memories)
        owners = self.slots.owners
        parts: dict[int, list[int]] = {}
        for column, memory in enumerate(reading.memories):
            shard = owners[memory.slot]
            found = parts.get(shard)
            if found is None:
                parts[shard] = [column]
            else:
                found.append(column)
        receipt = Receipt([None] * count, [b""] * count if arrival.want_ids else [], {})
        work = [self._part(reading, arrival, shard, columns, receipt) for shard, columns in parts.items()]
        if len(work) == 1:
            await work[0]
        elif count <= MESSAGE_ALERTS_MAX:
            await asyncio.gather(*work)
        else:
            begun = []
            for part in work:
                begun.append(asyncio.ensure_future(part))
                await asyncio.sleep(0)  # each makes its first message now: others get a turn between
            await asyncio.gather(*begun)
        return receipt

    async def _part(
        self, reading: Reading, arrival: Arrival, shard: int, columns: list[int], receipt: Receipt
    ) -> None:
        delivery_id = None if arrival.delivery_id is None else _scoped(arrival)
        for first in range(0, len(columns), MESSAGE_ALERTS_MAX):
            part = columns[first : first + MESSAGE_ALERTS_MAX]
            scoped = delivery_id
            if scoped is not None and first:
                # The same request sent again is cut at the same places. No key holds a line end.
                scoped += f"\n{first}"
            error = await self._message(reading, arrival, scoped, shard, part, receipt)
            if error is not None:
                # What failed once would fail again, after `hold` each time.
                for column in columns[first:]:
                    if receipt.decisions[column] is None:
                        receipt.errors[column] = error
                return

    async def _message(
        self,
        reading: Reading,
        arrival: Arrival,
        scoped: str | None,
        shard: int,
        columns: list[int],
        receipt: Receipt,
    ) -> IncidentManagerError | None:
        """Store columns of one shard, and note in `receipt` what became of them. `scoped`: their delivery's id."""
        line = self.lines[shard]
        want_ids = arrival.want_ids
        # A delivery is remembered with its answer, so it must be answered at once: with all bodies.
        whole = scoped is not None
        while columns:
            memories = [reading.memories[column] for column in columns]
            message = AlertsArrived(
                next(self._ids),
                arrival.tenant,
                arrival.format,
                [memory.key for memory in memories],
                [reading.ends[column] for column in columns],
                [
                    b"" if memory.is_known and not whole else reading.body(column)
                    for memory, column in zip(memories, columns, strict=True)
                ],
                want_ids,
                scoped,
                trace_id=trace_id_of(arrival.trace),
                trace=arrival.trace,
                sender=arrival.sender.name,
                content=_said(reading, columns) if whole else b"",
                received_at=arrival.received_at,
                said=bytes([reading.said[column] for column in columns]) if reading.said else b"",
            )
            try:
                reply = await line.tell(encode(message), len(columns))
            except IncidentManagerError as error:
                return error
            if not isinstance(reply, AlertsReply):
                raise Broken(f"{line.owner} answered AlertsArrived with {type(reply).__name__}")
            again: list[int] = []
            if reply.decisions == _ALL_REPEATED and not want_ids:
                for column, memory in zip(columns, memories, strict=True):
                    receipt.decisions[column] = Decision.REPEATED
                    memory.is_known = True
                return None
            for place, (column, memory) in enumerate(zip(columns, memories, strict=True)):
                decision = reply.decision(place)
                memory.is_known = decision in _KNOWN
                if decision is Decision.BODY_WANTED:
                    again.append(column)
                    continue
                if decision is Decision.UNREADABLE:
                    receipt.errors[column] = Broken(f"{line.owner}: {REASONS[decision]}")
                    continue
                if (refused := _REFUSED.get(decision)) is not None:
                    receipt.errors[column] = refused(
                        f"{line.owner}, sender {arrival.sender.name!r}: {REASONS[decision]}"
                    )
                    continue
                receipt.decisions[column] = decision
                # A delivery id that comes again with other alerts gets the answer of the first, which may be shorter.
                if want_ids and place < len(reply.incident_ids):
                    receipt.incident_ids[column] = reply.incident_ids[place]
            columns = again
        return None


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

    def __next__(self) -> bytes:
        self._count += 1
        return self._process + self._count.to_bytes(8, "big")
