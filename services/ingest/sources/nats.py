"""NATS JetStream: one durable pull consumer of a stream that is there already.

Messages that a lost connection left unacknowledged are delivered again after ACK_WAIT_S, behind newer ones. So that an end does not
overtake its beginning, nothing newer is begun before they are back.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from models.errors import Malformed
from services.brokers.common import CONNECT_S
from services.brokers.nats import NatsLink
from services.ingest.sources.lane import Lane
from services.ingest.sources.messages import Message
from services.ingest.sources.queue import (
    HELD_MAX_BYTES,
    LAG_S,
    QueueSource,
    header_bytes,
)

#: What was delivered and is neither acknowledged nor reported as in progress for so long is delivered again: the time for which
#: a restarted collector waits for what the one before it held.
ACK_WAIT_S = 10.0
#: How often messages that are held are reported as in progress.
PROGRESS_S = 3.0
#: Most messages of one fetch.
FETCH_MAX = 100
FETCH_S = 1.0
#: While there is no room for more.
FULL_S = 0.02


class NatsSource(QueueSource):
    name = "nats"

    async def read(self) -> None:
        from nats import errors

        _take_messages_with_a_status()
        link = NatsLink(self.messaging, self.password, self.needs.name)
        await link.open()
        try:
            await self._consume(link)
        except (errors.Error, OSError) as error:
            raise link.in_words(error) from None
        finally:
            await link.close()

    async def _consume(self, link: NatsLink) -> None:
        from nats.js import api

        subject, durable = self.messaging.ingest, self.messaging.consumer_group
        stream = await link.stream_of(subject)
        stream_api = link.client.jetstream(timeout=CONNECT_S)
        subscription = await stream_api.pull_subscribe(
            subject,
            durable,
            stream,
            api.ConsumerConfig(
                ack_policy=api.AckPolicy.EXPLICIT, ack_wait=ACK_WAIT_S, max_ack_pending=self.prefetch
            ),
        )
        info = await subscription.consumer_info()
        if info.config.ack_policy != api.AckPolicy.EXPLICIT:
            # Somebody else made it. Without acknowledgements NATS forgets what we could not store.
            raise Malformed(
                f"{self.where}: the consumer {durable} is not one with explicit acknowledgements. "
                f"Remove it, and it is made anew: nats consumer rm {stream} {durable}"
            )
        self.connected()
        reader = _Reader(self, link.client, subscription, self.lane, stream, info)
        await reader.run()


def _take_messages_with_a_status() -> None:
    """Have the library give us messages whose sender has a header `Status` too: it takes them for the server's own words, leaves
    them out, and they would come again for ever. What is to be acknowledged is a message."""
    from nats.js import JetStreamContext

    def status_of(_class: type[JetStreamContext], found: Any) -> str | None:
        if found is None or found.headers is None or found.reply.startswith("$JS.ACK."):
            return None
        status: str | None = found.headers.get("Status")
        return status

    JetStreamContext.is_status_msg = classmethod(status_of)  # type: ignore[assignment]


class _Reader:
    """What one connection reads."""

    def __init__(
        self, source: NatsSource, client: Any, subscription: Any, lane: Any, stream: str, info: Any
    ) -> None:
        self._source = source
        self._client = client
        self._subscription = subscription
        self._stream = stream
        self._lane: Lane = lane(self._settled)
        #: What an earlier connection left behind: so many messages, up to this sequence number of the stream.
        self._left = int(info.num_ack_pending or 0)
        self._left_until = int(info.delivered.stream_seq) if info.delivered else 0
        self._first: dict[int, Any] = {}
        self._later: list[Any] = []
        self._give_up_at = time.monotonic() + 2 * ACK_WAIT_S
        #: The highest sequence number that went to the lane.
        self._put = 0
        self._acks: list[Any] = []
        self._pending = int(info.num_pending or 0) + self._left

    async def run(self) -> None:
        source = self._source
        loop = asyncio.get_running_loop()
        others = [loop.create_task(each) for each in (self._report(), self._measure())]
        try:
            while not source.leaving.is_set():
                await self._acknowledge()
                room = source.prefetch - self._lane.held - len(self._later) - len(self._first)
                if room <= 0 or self._lane.held_bytes >= HELD_MAX_BYTES:
                    await source.pause(FULL_S)
                    continue
                await self._fetch(min(room, FETCH_MAX))
            await source.end_lane(self._lane, finish=True)
            await self._acknowledge()
            await self._client.flush(int(CONNECT_S))
        finally:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _fetch(self, most: int) -> None:
        leaving = asyncio.ensure_future(self._source.leaving.wait())
        fetch = asyncio.ensure_future(self._subscription.fetch(most, timeout=FETCH_S))
        try:
            while not fetch.done() and not leaving.done():
                # What is stored meanwhile is acknowledged meanwhile.
                await asyncio.wait((fetch, leaving), timeout=FULL_S, return_when=asyncio.FIRST_COMPLETED)
                await self._acknowledge()
            if fetch.done():
                self._arrived(fetch.result())
        except TimeoutError:
            # Nothing was there. The library raises its own TimeoutError or, when the time was just over, Python's.
            self._arrived([])
        finally:
            for task in (fetch, leaving):
                task.cancel()
            await asyncio.gather(fetch, leaving, return_exceptions=True)

    def _arrived(self, found: list[Any]) -> None:
        """Sort out what comes a second time, and hold newer messages back until those are there that were left behind.

        One that is older than others and not held is stored, whatever was acknowledged meanwhile: another connection had it until now,
        or our acknowledgement got lost, and then it is told by its name."""
        fresh = []
        held: set[int] | None = None
        for message in found:
            sequence = message.metadata.sequence.stream
            if self._left and sequence <= self._left_until:
                self._first[sequence] = message
            elif sequence > self._put:
                fresh.append(message)
            else:
                if held is None:
                    held = self._held()
                if sequence not in held:
                    held.add(sequence)
                    fresh.append(message)
        if self._left:
            self._later += fresh
            if len(self._first) < self._left and time.monotonic() < self._give_up_at:
                return
            fresh = [self._first[sequence] for sequence in sorted(self._first)] + self._later
            self._left, self._first, self._later = 0, {}, []
        if fresh:
            self._put = max(self._put, *(each.metadata.sequence.stream for each in fresh))
            self._lane.put(map(self._message, fresh))

    def _held(self) -> set[int]:
        """Sequence numbers of what is not acknowledged yet."""
        lane: list[Any] = [message.handle for message in self._lane.unsettled]
        return {each.metadata.sequence.stream for each in (*lane, *self._acks, *self._later)}

    def _message(self, found: Any) -> Message:
        sequence = found.metadata.sequence.stream
        return Message(
            found.data,
            header_bytes(found.headers),
            f"{self._stream} {found.subject} {sequence}",
            f"{self._stream}-{sequence}",
            found,
        )

    def _settled(self, message: Message) -> None:
        self._acks.append(message.handle)

    async def _acknowledge(self) -> None:
        acks, self._acks = self._acks, []
        for found in acks:
            if not found.is_acked:
                await found.ack()

    async def _report(self) -> None:
        """Say that what is held is being worked on: else it would be delivered again."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            held: list[Any] = [message.handle for message in self._lane.unsettled]
            for found in (*held, *self._first.values(), *self._later):
                if not found.is_acked:
                    await found.in_progress()

    async def _measure(self) -> None:
        while True:
            info = await self._subscription.consumer_info()
            self._source.set_lag(
                self._source.messaging.ingest, int(info.num_pending or 0) + int(info.num_ack_pending or 0)
            )
            await asyncio.sleep(LAG_S)
