"""LLM-Sentinel, to which we connect: SentinelFeed of the protocol (services/proto). It streams alerts, and we acknowledge each once it
is durable. What it was not acknowledged it sends again on the next stream; the same alert again changes nothing.

Alerts are stored side by side, but an end waits for all that came before it, and what comes after it waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from actors.runtime.ending import end
from models.errors import Malformed, TooLarge, Unavailable
from models.incidents.incident import id_text
from models.shard.messages import Decision
from services.ingest.formats.answers import encode_json
from services.ingest.formats.reading import Fault, Reading
from services.ingest.sources.dialling import Stream
from services.ingest.sources.fetching import Fetcher, Fetchers
from services.ingest.sources.lease import LEASE_S
from services.ingest.sources.source import SourceNeeds
from services.ingest.submit import Receipt

if TYPE_CHECKING:
    from services.proto import incident_pb2 as pb

FORMAT = "llm-sentinel"
METHOD = "/llm.incident.v1.SentinelFeed/Subscribe"
#: Bytes of alerts that are under way, beside their number (`buffer_size`): the server decides how large one is.
UNDER_WAY_MAX_BYTES = 32 * 1024 * 1024
#: Alerts stored side by side: enough to fill the time of an append.
AT_ONCE = 64
#: A stream that still stands after this was not refused.
STANDS_S = 1.0
#: Stored before.
_AGAIN = frozenset({Decision.REPEATED, Decision.DUPLICATE})
#: Characters of a reason in an acknowledgement.
REASON_CHARS = 500


@dataclass(frozen=True, slots=True)
class Coming:
    """A message, and what it was read as; None when it could not be."""

    raw: bytes
    alert: pb.AlertMessage | None


class SentinelFeed(Fetcher):
    def __init__(self, needs: SourceNeeds, settings: Mapping[str, Any], *, lease_s: float = LEASE_S) -> None:
        super().__init__(needs, "llm-sentinel", pause_s=settings["pause_s"], lease_s=lease_s)
        self._settings = settings
        self._buffer_size: int = settings["buffer_size"]

    async def fetch(self) -> None:
        async with Stream(self._settings["endpoint"], METHOD, self._settings) as stream:
            await _Subscription(self, stream, self._buffer_size).run()
        raise Unavailable(f"{self._settings['endpoint']}: it closed the stream")

    async def store(self, coming: Coming) -> pb.AlertAck | None:
        """Returns once it is durable or never can be. None where nothing can be acknowledged."""
        from services.proto import incident_pb2 as pb

        alert = coming.alert
        if alert is None:
            fault = Fault(-1, "expected an AlertMessage of the protocol", coming.raw)
            self._needs.intake.bury(self._needs.formats[FORMAT], [fault], "application/grpc+proto")
            return None
        delivery = f"{self.name}/{blake2b(coming.raw, digest_size=16).hexdigest()}"
        ack = pb.AlertAck(alert_id=alert.alert_id, status=pb.ACK_STATUS_ACCEPTED)
        try:
            reading, receipt = await self.give(
                FORMAT, encode_json(values_of(alert)), delivery_id=delivery, want_ids=True
            )
        except (Malformed, TooLarge) as error:
            ack.status, ack.reason = pb.ACK_STATUS_DROPPED, str(error)[:REASON_CHARS]
        else:
            _say(ack, reading, receipt)
        return ack if alert.alert_id else None


class _Subscription:
    """One stream."""

    def __init__(self, feed: SentinelFeed, stream: Stream, buffer_size: int) -> None:
        self._feed = feed
        self._stream = stream
        self._coming: asyncio.Queue[Coming] = asyncio.Queue()
        self._acks: asyncio.Queue[tuple[int, bytes | Exception | None]] = asyncio.Queue()
        self._left, self._left_bytes = buffer_size, UNDER_WAY_MAX_BYTES
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Until the server ends it. Raises Unavailable when it breaks."""
        from services.proto import incident_pb2 as pb

        # An acknowledgement of nothing opens the stream.
        await self._stream.write(pb.AlertAck().SerializeToString())
        loop = asyncio.get_running_loop()
        reading = loop.create_task(self._read())
        tasks = [reading, loop.create_task(self._store()), loop.create_task(self._acknowledge())]
        try:
            done, _ = await asyncio.wait(tasks, timeout=STANDS_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._feed.reached()
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Who reads knows best why it broke.
            for task in sorted(done, key=lambda task: task is not reading):
                task.result()
        finally:
            await end(tasks)

    async def _read(self) -> None:
        from services.proto import incident_pb2 as pb

        while True:
            while self._left <= 0 or self._left_bytes <= 0:
                # Not read, the stream fills up, and the server waits.
                self._room.clear()
                await self._room.wait()
            raw = await self._stream.read()
            if raw is None:
                return
            self._left -= 1
            self._left_bytes -= len(raw)
            try:
                alert = pb.AlertMessage.FromString(raw)
            except Exception:  # noqa: BLE001 - DecodeError, and whatever else a library says to a stranger's bytes
                alert = None
            self._coming.put_nowait(Coming(raw, alert))

    async def _store(self) -> None:
        under_way: set[asyncio.Task[None]] = set()
        try:
            while True:
                coming = await self._coming.get()
                is_end = coming.alert is not None and coming.alert.resolved
                while under_way and (is_end or len(under_way) >= AT_ONCE):
                    done, under_way = await asyncio.wait(
                        under_way,
                        return_when=asyncio.ALL_COMPLETED if is_end else asyncio.FIRST_COMPLETED,
                    )
                    for each in done:
                        each.result()
                if is_end:
                    await self._one(coming)
                else:
                    under_way.add(asyncio.get_running_loop().create_task(self._one(coming)))
        finally:
            await end(under_way)

    async def _one(self, coming: Coming) -> None:
        try:
            ack = await self._feed.store(coming)
        except Exception as error:  # noqa: BLE001 - a bug: it ends the stream there
            self._acks.put_nowait((0, error))
            return
        self._feed.reached()
        self._acks.put_nowait((len(coming.raw), None if ack is None else ack.SerializeToString()))

    async def _acknowledge(self) -> None:
        while True:
            size, ack = await self._acks.get()
            if isinstance(ack, Exception):
                raise ack
            if ack is not None:
                await self._stream.write(ack)
            self._left += 1
            self._left_bytes += size
            self._room.set()


def values_of(alert: pb.AlertMessage) -> dict[str, object]:
    """An AlertMessage as the object that its JSON would be."""
    return {
        "alert_id": alert.alert_id,
        "source": alert.source,
        "timestamp": alert.timestamp or None,
        "type": _TYPES.get(alert.type, ""),
        "severity": _SEVERITIES.get(alert.severity, ""),
        "labels": dict(alert.labels),
        "description": alert.description,
        "runbook_url": alert.runbook_url,
        "affected_services": [*alert.affected_services],
        "status": "resolved" if alert.resolved else "",
        "annotations": dict(alert.annotations),
    }


_TYPES = {1: "Infrastructure", 2: "Application", 3: "Security", 4: "Data", 5: "Performance", 6: "Availability", 7: "Compliance", 8: "Unknown"}  # fmt: skip
_SEVERITIES = {1: "P0", 2: "P1", 3: "P2", 4: "P3", 5: "P4"}


def _say(ack: pb.AlertAck, reading: Reading, receipt: Receipt) -> None:
    """What became of it: of several services the first one's incident."""
    from services.proto import incident_pb2 as pb

    if reading.faults or receipt.error is not None:
        why = reading.faults[0].message if reading.faults else str(receipt.error)
        ack.status, ack.reason = pb.ACK_STATUS_DROPPED, why[:REASON_CHARS]
        return
    if receipt.decisions and all(each in _AGAIN for each in receipt.decisions):
        ack.status = pb.ACK_STATUS_DUPLICATE
    if receipt.incident_ids and receipt.incident_ids[0]:
        ack.incident_id = id_text(receipt.incident_ids[0])


class SentinelFeeds(Fetchers):
    name = "llm-sentinel"

    def open(self, needs: SourceNeeds) -> list[SentinelFeed]:
        return [SentinelFeed(needs, needs.given["dial_sentinel"])]
