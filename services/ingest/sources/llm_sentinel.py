"""LLM-Sentinel, to which we connect: SentinelFeed of the protocol (services/proto). It streams alerts, and we acknowledge each once it
is durable. What it was not acknowledged it sends again on the next stream; the same alert again changes nothing.

Alerts are stored side by side, but an end waits for all that came before it, and what comes after it waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from actors.runtime.ending import end
from models.errors import Unavailable
from services.ingest.formats.format import Request
from services.ingest.formats.proto import PROTO, MessagesRead, joined, text_in
from services.ingest.formats.reading import Fault
from services.ingest.sources.dialling import MESSAGE_MAX_BYTES, Stream
from services.ingest.sources.fetching import Fetcher, Fetchers
from services.ingest.sources.lease import LEASE_S
from services.ingest.sources.source import SourceNeeds

if TYPE_CHECKING:
    from services.proto import incident_pb2 as pb

FORMAT = "llm-sentinel"
METHOD = "/llm.incident.v1.SentinelFeed/Subscribe"
#: Bytes of alerts that are under way, beside their number (`buffer_size`): the server decides how large one is.
UNDER_WAY_MAX_BYTES = 32 * 1024 * 1024
#: A larger alert than MESSAGE_MAX_BYTES is dropped by its name; to learn that, it has to come in. One larger than this breaks the
#: stream, with its size in words: to hold more of a single message would be a way to use up our memory.
RECEIVED_MAX_BYTES = 64 * 1024 * 1024
#: Characters of its name that the dead letter tells.
NAME_CHARS = 100
#: AlertMessage.alert_id
_ALERT_ID = 1
#: Alerts stored side by side: enough to fill the time of an append.
AT_ONCE = 64
#: A stream that still stands after this was not refused.
STANDS_S = 1.0


class SentinelFeed(Fetcher):
    def __init__(self, needs: SourceNeeds, settings: Mapping[str, Any], *, lease_s: float = LEASE_S) -> None:
        super().__init__(needs, "llm-sentinel", pause_s=settings["pause_s"], lease_s=lease_s)
        self._settings = settings
        self._buffer_size: int = settings["buffer_size"]

    async def fetch(self) -> None:
        endpoint = self._settings["endpoint"]
        async with Stream(endpoint, METHOD, self._settings, RECEIVED_MAX_BYTES) as stream:
            await _Subscription(self, stream, self._buffer_size).run()
        raise Unavailable(f"{endpoint}: it closed the stream")

    async def store(self, message: bytes) -> pb.AlertAck:
        """Returns once it is durable or never can be."""
        from services.ingest.doors.grpc.alerts import acks

        if len(message) > MESSAGE_MAX_BYTES:
            return await self._drop(message)
        # The same message again is the same delivery: one that began and ended does not begin again.
        delivery = f"{self.name}/{blake2b(message, digest_size=16).hexdigest()}"
        reading, receipt = await self.give(
            FORMAT, joined([message]), content_type=PROTO, delivery_id=delivery, want_ids=True
        )
        assert isinstance(reading, MessagesRead)
        [ack] = acks(reading, receipt)
        return ack

    async def _drop(self, message: bytes) -> pb.AlertAck:
        """Keep the beginning of an alert that is too large as a dead letter, and tell its sender."""
        from services.proto import incident_pb2 as pb

        needs, form = self._needs, self._needs.formats[FORMAT]
        name = text_in(message, _ALERT_ID)
        why = f"a message of {len(message)} bytes, at most {MESSAGE_MAX_BYTES} are allowed"
        place = f"{self._settings['endpoint']} {name[:NAME_CHARS]}"
        request = Request(
            form.path, message, needs.clock.now(), content_type=PROTO, sender=self._sender, place=place
        )
        needs.intake.bury(form, request, [Fault(-1, why, message)])
        await needs.intake.buried()
        return pb.AlertAck(alert_id=name, status=pb.ACK_STATUS_DROPPED, reason=why)


class _Subscription:
    """One stream."""

    def __init__(self, feed: SentinelFeed, stream: Stream, buffer_size: int) -> None:
        self._feed = feed
        self._stream = stream
        self._coming: asyncio.Queue[bytes] = asyncio.Queue()
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
            self._coming.put_nowait(raw)

    async def _store(self) -> None:
        under_way: set[asyncio.Task[None]] = set()
        try:
            while True:
                message = await self._coming.get()
                is_end = _is_end(message)
                while under_way and (is_end or len(under_way) >= AT_ONCE):
                    done, under_way = await asyncio.wait(
                        under_way,
                        return_when=asyncio.ALL_COMPLETED if is_end else asyncio.FIRST_COMPLETED,
                    )
                    for each in done:
                        each.result()
                if is_end:
                    await self._one(message)
                else:
                    under_way.add(asyncio.get_running_loop().create_task(self._one(message)))
        finally:
            await end(under_way)

    async def _one(self, message: bytes) -> None:
        try:
            ack = await self._feed.store(message)
        except Exception as error:  # noqa: BLE001 - a bug: it ends the stream there
            self._acks.put_nowait((0, error))
            return
        self._feed.reached()
        # One without an id would be taken for the one that opens the stream.
        self._acks.put_nowait((len(message), ack.SerializeToString() if ack.alert_id else None))

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


def _is_end(message: bytes) -> bool:
    """Whether an alert is over; also of what can't be read, which may be one."""
    from services.proto import incident_pb2 as pb

    if len(message) > MESSAGE_MAX_BYTES:
        return True
    try:
        return pb.AlertMessage.FromString(message).resolved
    except Exception:  # noqa: BLE001 - DecodeError, and whatever else a library says to a stranger's bytes
        return True


class SentinelFeeds(Fetchers):
    name = "llm-sentinel"

    def open(self, needs: SourceNeeds) -> list[SentinelFeed]:
        return [SentinelFeed(needs, needs.given["dial_sentinel"])]
