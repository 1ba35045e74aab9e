"""A gateway's line to one shard: concurrent requests share actor calls and messages, and wait out a restart. Used by submit.py.

While calls are under way what comes next gathers; the call after them carries all. A call costs its shard a commit, 0.26 ms
whatever it carries, so this is what makes many small requests cheap.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from actors.runtime.host import rebuild
from models.errors import Broken, Busy, IncidentManagerError, NotOwner, Refused, Unavailable
from models.ports import Clock, Peers
from models.shard.messages import Failed, Reply, decode_reply
from services.ingest.shares import Shares
from services.ingest.turns import Turns

log = structlog.get_logger()

#: Calls to one shard at once: one is being made durable while the next is being decoded.
CALLS_IN_FLIGHT = 2
#: Alerts in one call: a larger one would hold up those behind it.
CALL_ALERTS_MAX = 8192
#: Alerts in one message to a shard; a larger request goes as several, one after the other. Making a message of so
#: many new ones takes 20 ms, and its shard as long: nobody behind it waits for all 100,000 of a request.
MESSAGE_ALERTS_MAX = 2048
#: An actor that does not answer a call for this long is asked again; appends take milliseconds.
CALL_TIMEOUT_S = 5.0
#: All shards get a beat together, once a second: one that hangs must not make the others think that no gateway is up.
BEAT_TIMEOUT_S = 1.0
#: Wait between tries while a shard restarts: a fraction of the second that it takes at best.
RETRY_S = 0.05


class Waiting(ABC):
    """What a shard is told, from put() until it is answered: exactly one call of answered() or failed().

    alerts  how many it counts for
    sender  whose it is: each has its turn, and its share of what may wait; "" for what people ask for
    share   it may travel in one message with what has the same; None: alone, and nothing of its sender's overtakes it
    """

    __slots__ = ("alerts", "deadline", "sender", "share")

    alerts: int
    deadline: float
    sender: str
    share: Hashable | None

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more."""
        return False

    @abstractmethod
    def message(self, together: Sequence[Waiting]) -> bytes:
        """The message that carries all of these, of which it is the first. Makes a new call id."""

    @abstractmethod
    def answered(self, reply: Reply, place: int) -> None:
        """The reply to its message, where it begins with alert number `place`."""

    @abstractmethod
    def failed(self, error: IncidentManagerError) -> None:
        """It may have been stored, or not."""


class _Alone(Waiting):
    """A message that somebody made, and a future for its reply."""

    __slots__ = ("answer", "encoded")

    def __init__(self, encoded: bytes, alerts: int) -> None:
        self.encoded = encoded
        self.alerts = alerts
        self.sender = ""
        self.share = None
        self.answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    @property
    def is_over(self) -> bool:
        return self.answer.done()

    def message(self, together: Sequence[Waiting]) -> bytes:
        return self.encoded

    def answered(self, reply: Reply, place: int) -> None:
        self.answer.set_result(reply)

    def failed(self, error: IncidentManagerError) -> None:
        self.answer.set_exception(error)


@dataclass(slots=True)
class _Message:
    """A message, and who waits for its reply, each with the place of its first alert there. Tried again it is the same to the
    byte, by its call id, whoever has given up meanwhile."""

    encoded: bytes
    waiting: list[tuple[Waiting, int]]


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
        self._waiting: Turns[Waiting] = Turns()
        self._shares = Shares()
        self._calls: set[asyncio.Task[None]] = set()
        #: Calls that wait out a restart: while there are any, later messages stay behind them, in their order.
        self._away: set[asyncio.Task[None] | None] = set()
        self._starts = False
        self.alerts = 0

    def put(self, waiting: Waiting) -> None:
        """Have the shard told, together with what else comes in this turn of the loop; its methods say what came of it.

        failed() gets Unavailable when the shard stays away for longer than `hold`. Raises Busy when too much waits already, of all
        or of this sender.
        """
        if self.alerts and self.alerts + waiting.alerts > self._max_alerts:
            raise Busy(f"{self.alerts} alerts are waiting for {self.owner} already", retry_after_s=1.0)
        sender = waiting.sender
        if not self._shares.take(sender, waiting.alerts, self._max_alerts - self.alerts):
            held = self._shares.held_by(sender)
            raise Busy(f"{held} alerts of {sender} are waiting for {self.owner} already", retry_after_s=1.0)
        waiting.deadline = self._clock.monotonic() + self._hold_s
        self._waiting.put(waiting)
        self.alerts += waiting.alerts
        if not self._starts and len(self._calls) < CALLS_IN_FLIGHT and not self._away:
            self._starts = True
            asyncio.get_running_loop().call_soon(self._start)

    async def tell(self, message: bytes, alerts: int) -> Reply:
        """The shard's reply, once durable. Safe to repeat with the same message (its call_id tells).

        Raises what put() does, what failed() gets, and what the shard refuses; the message may then have been stored, or not.
        """
        waiting = _Alone(message, alerts)
        self.put(waiting)
        return await waiting.answer

    async def ask(self, query: bytes, timeout_s: float) -> bytes:
        """The shard's answer to a query. Raises Unavailable."""
        return await self._addressed(lambda owner: self._peers.call(owner, "ask", query, timeout_s))

    async def beat(self) -> None:
        """Tell the shard that a gateway is up. Failures do not matter: the shard notices silence."""
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
        self._starts = False
        while self._waiting and len(self._calls) < CALLS_IN_FLIGHT and not self._away:
            batch = self._waiting.take(CALL_ALERTS_MAX)
            task = asyncio.get_running_loop().create_task(self._call(batch))
            self._calls.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._away.discard(task)
        self._start()

    async def _call(self, batch: Sequence[Waiting]) -> None:
        """Call until answered, or until nobody in the batch waits any longer."""
        try:
            messages = _messages(batch)
            payload = _encoder.encode([each.encoded for each in messages])
        except Exception as error:
            self._fail(batch, Broken(repr(error)))
            raise
        while messages:
            try:
                answered = await self._peers.call(self.owner, "tell", payload, CALL_TIMEOUT_S)
                answers = [*zip(messages, map(decode_reply, _decoder.decode(answered)), strict=True)]
            except NotOwner as error:
                self.owner = error.owner
                why: IncidentManagerError = error
            except Refused as error:
                # Without what it was raised from: see submit.py.
                self._fail_all(messages, error.with_traceback(None))
                return
            except IncidentManagerError as error:
                why = error
            except Exception as error:
                # A bug, or an unreadable answer: a retry would get the same.
                self._fail_all(messages, Unavailable(f"{self.owner}: {error!r}"))
                raise
            else:
                for message, reply in answers:
                    self._answer(message, reply)
                return
            self._away.add(asyncio.current_task())
            await asyncio.sleep(RETRY_S)
            down = Unavailable(f"{self.owner} is down: {why}")
            if self._give_up(messages, down):
                # What one request of a message still waits for is sent whole: its call id stands for all of it.
                messages = [message for message in messages if message.waiting]
                payload = _encoder.encode([each.encoded for each in messages])

    def _give_up(self, messages: Iterable[_Message], why: IncidentManagerError) -> bool:
        """Tell those whose time is over. Whether nobody waits for one of the messages any more."""
        now = self._clock.monotonic()
        for message in messages:
            late = [each for each, _place in message.waiting if each.deadline <= now or each.is_over]
            if late:
                over = set(map(id, late))
                message.waiting = [entry for entry in message.waiting if id(entry[0]) not in over]
                self._fail(late, why)
        self._fail([*self._waiting.overdue(now)], why)
        return not all(message.waiting for message in messages)

    def _answer(self, message: _Message, reply: Reply) -> None:
        if isinstance(reply, Failed):
            self._fail([each for each, _place in message.waiting], rebuild(reply.kind, reply.detail))
            return
        if not message.waiting:
            return
        alerts = sum([each.alerts for each, _place in message.waiting])
        self.alerts -= alerts
        # What shares a message has one sender.
        self._shares.drop(message.waiting[0][0].sender, alerts)
        for each, place in message.waiting:
            if not each.is_over:
                try:  # a bug in one must not leave the others waiting, nor itself
                    each.answered(reply, place)
                except Exception as error:
                    log.exception("bug: a request could not be told its answer", shard=self.owner)
                    with contextlib.suppress(Exception):
                        each.failed(Broken(repr(error)))

    def _fail_all(self, messages: Iterable[_Message], error: IncidentManagerError) -> None:
        for message in messages:
            self._fail([each for each, _place in message.waiting], error)

    def _fail(self, these: Iterable[Waiting], error: IncidentManagerError) -> None:
        for each in these:
            self.alerts -= each.alerts
            self._shares.drop(each.sender, each.alerts)
            if not each.is_over:
                try:
                    each.failed(error)
                except Exception:
                    log.exception("bug: a request could not be told its answer", shard=self.owner)


def _messages(batch: Iterable[Waiting]) -> list[_Message]:
    """As few messages as these can travel in, none larger than MESSAGE_ALERTS_MAX unless one of them is."""
    groups: list[list[tuple[Waiting, int]]] = []
    begun: dict[Hashable, list[tuple[Waiting, int]]] = {}
    for each in batch:
        if each.share is None:
            # What came after it may depend on it: it goes behind.
            begun.clear()
            groups.append([(each, 0)])
            continue
        group = begun.get(each.share)
        if group:
            last, at = group[-1]
            place = at + last.alerts
            if place + each.alerts <= MESSAGE_ALERTS_MAX:
                group.append((each, place))
                continue
        begun[each.share] = group = [(each, 0)]
        groups.append(group)
    return [_Message(group[0][0].message([each for each, _place in group]), group) for group in groups]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[bytes])
