"""A gateway's line to one shard: concurrent requests share actor calls, and wait out a restart. Used by submit.py.

While calls are under way the next messages gather; the call after them carries all. An actor call costs 0.65 ms
whatever it carries, so this is what makes many small requests cheap.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from actors.runtime.host import rebuild
from models.errors import Busy, IncidentManagerError, NotOwner, Refused, Unavailable
from models.ports import Clock, Peers
from models.shard.messages import Failed, Reply, decode_reply

#: Calls to one shard at once: one is being made durable while the next is being decoded.
CALLS_IN_FLIGHT = 2
#: Alerts in one call: a larger one would hold up those behind it.
CALL_ALERTS_MAX = 8192
#: An actor that does not answer a call for this long is asked again; appends take milliseconds.
CALL_TIMEOUT_S = 5.0
#: All shards are told together, once a second: one that hangs must not make the others think that nobody is there.
BEAT_TIMEOUT_S = 1.0
#: Wait between tries while a shard restarts: a fraction of the second that it takes at best.
RETRY_S = 0.05


@dataclass(slots=True)
class _Waiting:
    message: bytes
    alerts: int
    deadline: float
    answer: asyncio.Future[Reply]


class ShardLine:
    """Messages to one shard. `owner` is the actor asked first; an answer NotOwner corrects it."""

    def __init__(
        self,
        owner: str,
        peers: Peers,
        clock: Clock,
        *,
        hold_s: float,
        max_alerts: int,
    ) -> None:
        self.owner = owner
        self._peers = peers
        self._clock = clock
        self._hold_s = hold_s
        self._max_alerts = max_alerts
        self._waiting: deque[_Waiting] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        #: Calls that wait out a restart: while there are any, later messages stay behind them, in their order.
        self._away: set[asyncio.Task[None] | None] = set()
        self.alerts = 0

    async def tell(self, message: bytes, alerts: int) -> Reply:
        """The shard's reply, once durable. Safe to repeat with the same message (its call_id tells).

        Raises Busy when too much waits already, Unavailable when the shard stays away for longer than `hold`;
        the message may then have been stored, or not.
        """
        if self.alerts and self.alerts + alerts > self._max_alerts:
            raise Busy(f"{self.alerts} alerts are waiting for {self.owner} already", retry_after_s=1.0)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(message, alerts, self._clock.monotonic() + self._hold_s, answer))
        self.alerts += alerts
        self._start()
        try:
            reply = await answer
        finally:
            self.alerts -= alerts
        if isinstance(reply, Failed):
            raise rebuild(reply.kind, reply.detail)
        return reply

    async def ask(self, query: bytes, timeout_s: float) -> bytes:
        """The shard's answer to a query. Raises Unavailable."""
        return await self._addressed(lambda owner: self._peers.call(owner, "ask", query, timeout_s))

    async def beat(self) -> None:
        """Tell the shard that somebody is there. Failures do not matter: silence is what it listens for."""
        try:
            await self._addressed(lambda owner: self._peers.call(owner, "beat", b"", BEAT_TIMEOUT_S))
        except IncidentManagerError:
            return

    async def _addressed(self, call: Callable[[str], Awaitable[bytes]]) -> bytes:
        try:
            return await call(self.owner)
        except NotOwner as error:
            self.owner = error.owner
            return await call(self.owner)

    def _start(self) -> None:
        while self._waiting and len(self._calls) < CALLS_IN_FLIGHT and not self._away:
            batch = [self._waiting.popleft()]
            alerts = batch[0].alerts
            while self._waiting and alerts + self._waiting[0].alerts <= CALL_ALERTS_MAX:
                batch.append(self._waiting.popleft())
                alerts += batch[-1].alerts
            task = asyncio.get_running_loop().create_task(self._call(batch))
            self._calls.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._away.discard(task)
        self._start()

    async def _call(self, batch: list[_Waiting]) -> None:
        """Call until answered, or until nobody in the batch waits any longer."""
        payload = _encoder.encode([each.message for each in batch])
        while batch:
            try:
                answered = await self._peers.call(self.owner, "tell", payload, CALL_TIMEOUT_S)
                answers = [*zip(batch, map(decode_reply, _decoder.decode(answered)), strict=True)]
            except NotOwner as error:
                self.owner = error.owner
                why: IncidentManagerError = error
            except Refused as error:
                for each in batch:
                    _fail(each, error)
                return
            except IncidentManagerError as error:
                why = error
            except Exception as error:
                # A bug, or an answer that can't be read: it comes again with the same question.
                for each in batch:
                    _fail(each, Unavailable(f"{self.owner}: {error!r}"))
                raise
            else:
                for each, reply in answers:
                    if not each.answer.done():
                        each.answer.set_result(reply)
                return
            self._away.add(asyncio.current_task())
            await asyncio.sleep(RETRY_S)
            now = self._clock.monotonic()
            late = [each for each in batch if each.deadline <= now or each.answer.done()]
            for each in late:
                _fail(each, Unavailable(f"{self.owner} is down: {why}"))
            while self._waiting and self._waiting[0].deadline <= now:
                # All wait equally long, so the first in the queue is the first to give up.
                _fail(self._waiting.popleft(), Unavailable(f"{self.owner} is down: {why}"))
            if late:
                batch = [each for each in batch if not each.answer.done()]
                payload = _encoder.encode([each.message for each in batch])


def _fail(waiting: _Waiting, error: IncidentManagerError) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[bytes])
