"""What every door does with a request, once it knows the sender: read it by its format, keep what can't be read, refuse
what the sender may not send, and store the rest. Called by doors/*.py; submit.py comes next.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import structlog

from models.errors import Broken, Full, Malformed, NotFound, ShareUsedUp, TooLarge
from models.metrics import Meter
from models.ports import Span
from services.ingest.arrival import Arrival, Sender
from services.ingest.bound import Bounds
from services.ingest.dead_letters import DeadLetterBox
from services.ingest.formats.format import Format, Request, at_once
from services.ingest.formats.reading import Fault, Reading
from services.ingest.formats.remembered import Remembered
from services.ingest.heartbeats import BeatLine
from services.ingest.limits import Limits
from services.ingest.rules import Rules
from services.ingest.sifting import Ends, former_ends, merge, sifted, unnamed
from services.ingest.skew import Skews
from services.ingest.submit import Receipt, Submitter

log = structlog.get_logger()

#: A larger body is read in steps. Below it 64 alerts of Prometheus are read at once in 0.1 ms, and what a sender
#: makes up for the purpose in 80 ms.
AT_ONCE_BYTES = 64 * 1024
#: Steps of a body that are done at once: four of 256 alerts. A small one may still be of many, as one message that names services.
AT_ONCE_STEPS = 4
Steps = Generator[None, None, Reading]
#: Bodies larger than this are read one at a time: the steps of many at once would add up.
ALONE_BYTES = 1024 * 1024


class Intake:
    """One per gateway, for all its doors."""

    def __init__(
        self,
        submitter: Submitter,
        remembered: Remembered,
        dead_letters: DeadLetterBox,
        meter: Meter,
        limits: Limits,
    ) -> None:
        self._submitter = submitter
        self._remembered = remembered
        self._dead_letters = dead_letters
        self._meter = meter
        self.limits = limits
        self._alone = asyncio.Lock()
        self._bounds = Bounds()
        self._skews = Skews(meter)
        #: Where alerts go that are beats of heartbeats; None: none are.
        self.beats: BeatLine | None = None

    @property
    def tenant(self) -> str:
        """Whose alerts these are."""
        return self._remembered.tenant

    def admit(self, sender: Sender) -> None:
        """Asked before anything of a request is read. Raises RateLimited when its sender is to wait."""
        if self.limits.is_on:
            self.limits.check(sender)

    async def admitted(self, sender: Sender) -> None:
        """admit() for streams and queues: returns once the sender may send."""
        if self.limits.is_on:
            await self.limits.admitted(sender)

    def standing(self, sender: Sender) -> Sequence[tuple[bytes, bytes]]:
        """What a sender may still send, as headers of its answer; none where nothing is limited."""
        return self.limits.standing(sender) if self.limits.is_on else ()

    async def take(
        self, form: Format, request: Request, arrival: Arrival, span: Span
    ) -> tuple[Reading, Receipt]:
        """What a request contained, and the result: what the receipt says is stored is durable. Raises Malformed (its
        body is then a dead letter) and TooLarge if it can't be read at all, RateLimited, and what `Format.prepare`
        raises; never for a shard's faults."""
        try:
            reading = await self.read(form, request)
        except (Malformed, TooLarge) as error:
            if self.limits.is_on:
                self.limits.charge(arrival.sender, 1)
            if isinstance(error, Malformed):
                self.bury(form, request, [Fault(-1, str(error), request.body)])
            raise
        self._count(reading, arrival)
        span.note("llm_im.alerts", reading.count)
        self._skews.look(reading, self._remembered, arrival.received_at)
        if reading.faults:
            span.note("llm_im.refused", len(reading.faults))
            self._meter.count("llm_im_alerts_refused_total", len(reading.faults), door=form.name)
            self.bury(form, request, reading.faults)
        return await self.store(reading, arrival)

    async def read(self, form: Format, request: Request) -> Reading:
        """What a request holds. Raises as take() does, and keeps nothing."""
        if form.prepares:
            await form.prepare(request)
        steps = form.steps(request)
        if len(request.body) <= AT_ONCE_BYTES and (reading := _begun(steps)) is not None:
            return reading
        return await self._in_steps(steps, len(request.body))

    async def store(self, reading: Reading, arrival: Arrival) -> tuple[Reading, Receipt]:
        """The rest of take(), once it is known what a request holds: what its sender may send, and rules let through, is stored."""
        if arrival.sender.match:
            reading = await self._within_bounds(reading, arrival)
        if beats := self.beats_among(reading, arrival.received_at):
            reading = await self._beaten(beats, reading)
        rules = self._remembered.rules
        if rules is not None:
            reading = sifted(reading, arrival, self._meter)
        receipt = await self._submitter.submit(reading, arrival)
        if rules is not None and rules.former:
            await self._end_former(rules, reading, receipt, arrival)
        if receipt.errors:
            self._tell_full(receipt, arrival)
        return reading, receipt

    def read_at_once(self, form: Format, request: Request) -> Reading | None:
        """What a small request holds, when nothing is wrong with it, and it is not of very many alerts. None: take() says what is."""
        try:
            reading = _begun(form.steps(request))
        except Exception:  # noqa: BLE001 - a bug too: HttpDoor meets it again, logs it and answers 500
            return None
        return (
            None
            if reading is None or reading.faults or self.beats_among(reading, request.received_at)
            else reading
        )

    def begin(self, reading: Reading, arrival: Arrival, done: Callable[[Reading, Receipt], None]) -> None:
        """take() of what read_at_once() gave, from a sender who may send anything, without a task: done() is called once, perhaps
        before this returns. Raises RateLimited, and then it is not; nothing else, because a stream would wait for done() for ever."""
        self._count(reading, arrival)
        rules = self._remembered.rules
        try:
            self._skews.look(reading, self._remembered, arrival.received_at)
            if rules is not None:
                reading = sifted(reading, arrival, self._meter)
        except Exception as error:
            log.exception("bug: request failed", door=arrival.format)
            self._fail(reading, arrival, Broken(repr(error)), done)
            return

        def over(receipt: Receipt) -> None:
            done(reading, receipt)
            if receipt.errors:
                self._tell_full(receipt, arrival)

        def stored(receipt: Receipt) -> None:
            assert rules is not None
            try:
                ends = at_once(former_ends(reading, arrival, rules, self._remembered))
            except Exception as error:
                log.exception("bug: request failed", door=arrival.format)
                self._fail(reading, arrival, Broken(repr(error)), done)
                return
            if ends is None:
                over(receipt)
                return

            def told(found: Receipt) -> None:
                try:
                    merge(receipt, ends, found, rules, arrival.received_at)
                except Exception as error:
                    log.exception("bug: request failed", door=arrival.format)
                    self._fail(reading, arrival, Broken(repr(error)), done)
                    return
                over(receipt)

            self._submitter.begin(ends.reading, unnamed(arrival), told)

        self._submitter.begin(reading, arrival, over if rules is None or not rules.former else stored)

    @staticmethod
    def _fail(
        reading: Reading, arrival: Arrival, error: Broken, done: Callable[[Reading, Receipt], None]
    ) -> None:
        """Say that nobody knows whether any of it is stored."""
        count = len(reading.memories)
        ids = [b""] * count if arrival.want_ids else []
        try:
            done(reading, Receipt([None] * count, ids, dict.fromkeys(range(count), error)))
        except Exception:
            log.exception("bug: a request could not be told its answer", door=arrival.format)

    def bury(self, form: Format, request: Request, faults: Sequence[Fault]) -> None:
        """Keep what can't be read of a request, each fault with the bytes that it is about."""
        self._dead_letters.put(self.tenant, form, request, faults)

    async def buried(self) -> None:
        """Until what was kept so far is stored, for those who then tell their side that they need not keep it any more."""
        await self._dead_letters.written()

    def measure(self, now: float) -> None:
        """Set the gauges."""
        self._skews.measure(now)

    def _count(self, reading: Reading, arrival: Arrival) -> None:
        """Count what a request holds against its sender's limit, before anything becomes of it. An empty one is work as well. Raises
        RateLimited."""
        if self.limits.is_on:
            # A message of gRPC may be several alerts: `count` is of messages.
            self.limits.take(arrival.sender, max(1, reading.count, len(reading.memories)))

    async def _end_former(self, rules: Rules, reading: Reading, receipt: Receipt, arrival: Arrival) -> None:
        """Tell the ends of a request to what began by former rules."""
        steps = former_ends(reading, arrival, rules, self._remembered)
        while True:
            try:
                next(steps)
            except StopIteration as over:
                ends: Ends | None = over.value
                break
            await asyncio.sleep(0)
        if ends is not None:
            found = await self._submitter.submit(ends.reading, unnamed(arrival))
            merge(receipt, ends, found, rules, arrival.received_at)

    async def _within_bounds(self, reading: Reading, arrival: Arrival) -> Reading:
        """`reading` without what its sender may not send, which becomes part of its faults."""
        sender = arrival.sender
        reading, outside = await self._bounds.within(sender, reading)
        if not outside:
            return reading
        self._meter.count(
            "llm_im_alerts_forbidden_total", len(outside), door=arrival.format, token=sender.name
        )
        log.warning(
            "alerts refused: their token is bound to other labels",
            token=sender.name,
            door=arrival.format,
            alerts=len(outside),
            first=outside[0].message,
        )
        return replace(reading, faults=[*reading.faults, *outside])

    def beats_among(self, reading: Reading, now: float) -> dict[int, tuple[str, ...]]:
        """The alerts that are beats, by column."""
        beats = self.beats
        return beats.among(reading, now) if beats is not None and beats.by_alert else {}

    async def _beaten(self, beats: dict[int, tuple[str, ...]], reading: Reading) -> Reading:
        """Say these beats; `reading` without them, which is told in `filtered`. Raises Busy."""
        assert self.beats is not None
        # One that was deleted in this moment is waited for by nobody.
        with contextlib.suppress(NotFound):
            await self.beats.beat([name for names in beats.values() for name in names])
        self._meter.count("llm_im_heartbeat_alerts_total", len(beats))
        why = {
            reading.places[column]: f"it is the beat of {', '.join(names)}" for column, names in beats.items()
        }
        kept = [column for column in range(len(reading.memories)) if column not in beats]
        return replace(reading.only(kept), filtered={**reading.filtered, **why})

    def _tell_full(self, receipt: Receipt, arrival: Arrival) -> None:
        """Count and log what there was no room for."""
        sender = arrival.sender
        for bound, kind in (("sender", ShareUsedUp), ("shard", Full)):
            found = [error for error in receipt.errors.values() if isinstance(error, kind)]
            if found:
                self._meter.count(
                    "llm_im_alerts_no_room_total",
                    len(found),
                    door=arrival.format,
                    bound=bound,
                    token=sender.name,
                )
                log.warning(
                    "alerts refused: no room", token=sender.name, alerts=len(found), why=str(found[0])
                )

    async def _in_steps(self, steps: Steps, size: int) -> Reading:
        """The rest of what is read of a body of so many bytes, with a turn for the others after each step."""
        async with self._alone if size > ALONE_BYTES else contextlib.nullcontext():
            while True:
                try:
                    next(steps)
                except StopIteration as over:
                    reading: Reading = over.value
                    return reading
                await asyncio.sleep(0)


def _begun(steps: Steps) -> Reading | None:
    """What steps come to, if they are few."""
    try:
        for _ in range(AT_ONCE_STEPS):
            next(steps)
    except StopIteration as over:
        reading: Reading = over.value
        return reading
    return None
