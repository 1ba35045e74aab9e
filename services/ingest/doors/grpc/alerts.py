"""SentinelAlerts and ShieldIncidents: alerts one at a time, in batches, and in streams of both. An acknowledgement goes out when the
log has its alert, in the order of the messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import structlog

from models.errors import Broken, Forbidden, IncidentManagerError, Malformed, RateLimited, TooLarge
from models.shard.messages import Decision
from services.ingest.arrival import Arrival
from services.ingest.bound import FORBIDDEN
from services.ingest.doors.door import Needs
from services.ingest.doors.grpc.call import Call
from services.ingest.doors.grpc.service import Handler, Service
from services.ingest.doors.grpc.status import Ended, is_passing, retry_after_s
from services.ingest.formats.format import Request
from services.ingest.formats.proto import PROTO, MessagesRead, cut, joined, trace_in
from services.ingest.formats.reading import Fault, Reading
from services.ingest.formats.received import incident_text
from services.ingest.headers import IDEMPOTENCY_KEY_MAX_BYTES
from services.ingest.intake import AT_ONCE_BYTES
from services.ingest.line import MESSAGE_ALERTS_MAX
from services.ingest.submit import Receipt
from services.proto.incident_pb2 import (
    ACK_STATUS_ACCEPTED,
    ACK_STATUS_DROPPED,
    ACK_STATUS_DUPLICATE,
    ACK_STATUS_RETRY,
    AlertAck,
    AlertBatchAck,
)

log = structlog.get_logger()

#: Messages of one stream whose acknowledgements are not sent yet, alerts or batches. Past it nothing more is taken, and HTTP/2
#: slows the sender down: a few more than come in the time of an append.
WINDOW_ALERTS, WINDOW_BATCHES = 2048, 16
#: Alerts of a stream that are stored together: what came at once.
TOGETHER_MAX = 256
SHOWN_CHARS = 36
_STORED_BEFORE = frozenset({Decision.REPEATED, Decision.DUPLICATE})


class AlertService(Service):
    """What both have in common: one format's messages."""

    one: ClassVar[str]
    stream: ClassVar[str]

    def __init__(self, needs: Needs) -> None:
        self.needs = needs
        self.form = needs.formats[self.scope]

    def methods(self) -> Mapping[str, Handler]:
        return {self.one: self._one, self.stream: self._stream}

    async def _one(self, call: Call) -> None:
        self.needs.intake.admit(call.sender)
        message = await call.only()
        trace = call.trace or trace_in(message)
        reading, receipt = await self.store(call, joined([message]), None, trace)
        _raise_if_none_is_stored(reading, receipt)
        call.send(*written(reading, receipt))

    async def _stream(self, call: Call) -> None:
        await AlertStream(self, call).serve()

    async def store(
        self, call: Call, batch: bytes, delivery: str | None, trace: str | None
    ) -> tuple[MessagesRead, Receipt]:
        """Raises Malformed when it can't be read at all, TooLarge."""
        needs, form = self.needs, self.form
        begun, now = needs.clock.monotonic(), needs.clock.now()
        with needs.tracer.span(
            call.path[1:], trace, {"rpc.system": "grpc", "rpc.service": self.name}, kind="server"
        ) as span:
            arrival = Arrival(needs.intake.tenant, form.name, call.sender, now, True, delivery, span.trace)
            request = self.request(call, batch, now)
            reading, receipt = await needs.intake.take(form, request, arrival, span)
        self.observe(begun)
        return cast(MessagesRead, reading), receipt

    def delivery(self, call: Call, batch: bytes) -> str | None:
        """What a batch calls itself. Raises Malformed, TooLarge; that counts against its sender's limit, and what can't be read is kept."""
        try:
            return delivery_of(cut(batch)[0])
        except (Malformed, TooLarge) as error:
            intake = self.needs.intake
            if intake.limits.is_on:
                intake.limits.charge(call.sender, 1)
            if isinstance(error, Malformed):
                request = self.request(call, batch, self.needs.clock.now())
                intake.bury(self.form, request, [Fault(-1, str(error), batch)])
            raise

    def request(self, call: Call, batch: bytes, now: float) -> Request:
        return Request(self.form.path, batch, now, content_type=PROTO, sender=call.sender)

    def observe(self, begun: float) -> None:
        needs = self.needs
        needs.meter.observe("llm_im_ingest_seconds", needs.clock.monotonic() - begun, door="grpc")


class SentinelAlerts(AlertService):
    name = "llm.incident.v1.SentinelAlerts"
    scope = "llm-sentinel"
    one, stream = "SubmitAlert", "StreamAlerts"

    def methods(self) -> Mapping[str, Handler]:
        return {**super().methods(), "SubmitBatch": self._batch, "StreamBatches": self._batches}

    async def _batch(self, call: Call) -> None:
        self.needs.intake.admit(call.sender)
        batch = await call.only()
        delivery = self.delivery(call, batch)
        reading, receipt = await self.store(call, batch, delivery, call.trace)
        _raise_if_none_is_stored(reading, receipt)
        call.send(_batch_ack(delivery, reading, receipt))

    async def _batches(self, call: Call) -> None:
        await BatchStream(self, call).serve()


class ShieldIncidents(AlertService):
    name = "llm.incident.v1.ShieldIncidents"
    scope = "llm-shield"
    one, stream = "SubmitIncident", "StreamIncidents"


class _Unit:
    """What of a stream is stored together: of how many messages, and its answers, once they are known."""

    __slots__ = ("answers", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self.answers: Sequence[bytes] | None = None


class AlertStream:
    """One call with a stream of alerts. What only fires may overlap with what came before it; all else waits for that, so that an
    end never overtakes its beginning."""

    window = WINDOW_ALERTS
    together = TOGETHER_MAX

    def __init__(self, service: AlertService, call: Call) -> None:
        self._service = service
        self._call = call
        self._units: deque[_Unit] = deque()
        self._unanswered = 0
        #: Units on their way to their shards that nobody waits for.
        self._under_way = 0
        self._changed = asyncio.Event()

    async def serve(self) -> None:
        """Until the client has said all, and has its answers. What was taken is answered whatever comes after it."""
        why: Exception | None = None
        try:
            await self._read()
        except (Ended, IncidentManagerError) as error:
            why = error
        while self._units:
            await self._change()
        if why is not None:
            raise why

    async def _read(self) -> None:
        call = self._call
        while True:
            while self._unanswered >= self.window:
                await self._change()
            await call.has_read()
            # Nothing is taken meanwhile, and HTTP/2 slows the sender down.
            await self._service.needs.intake.admitted(call.sender)
            messages = await call.take(min(self.together, self.window - self._unanswered))
            if not messages:
                return
            await self.take(messages)

    async def take(self, messages: list[bytes]) -> None:
        """Have messages stored that came together."""
        traces = [trace_in(message) for message in messages]
        if not any(traces):
            await self._store(joined(messages), len(messages), None, self._call.trace)
            return
        for message, trace in zip(messages, traces, strict=True):
            # A trace is of one request, so each has its own.
            await self._store(joined([message]), 1, None, trace or self._call.trace)

    async def _store(self, batch: bytes, count: int, delivery: str | None, trace: str | None) -> None:
        service, call, needs = self._service, self._call, self._service.needs
        unit = _Unit(count)
        self._units.append(unit)
        self._unanswered += count
        if trace is None and len(batch) <= AT_ONCE_BYTES and not call.sender.match:
            begun, now = needs.clock.monotonic(), needs.clock.now()
            reading = needs.intake.read_at_once(service.form, service.request(call, batch, now))
            if (
                reading is not None
                and not reading.said
                and len(reading.memories) <= MESSAGE_ALERTS_MAX
                and min(reading.ends, default=0.0) > now
            ):
                self._under_way += 1

                def stored(reading: Reading, receipt: Receipt) -> None:
                    self._under_way -= 1
                    try:
                        found = self.answers(delivery, cast(MessagesRead, reading), receipt)
                    except Exception as error:
                        # Without an answer the stream would wait for it for ever.
                        log.exception("bug: a request could not be told its answer", door=service.form.name)
                        found = self.refused(delivery, count, Broken(repr(error)))
                    self._answer(unit, found)
                    service.observe(begun)

                arrival = Arrival(needs.intake.tenant, service.form.name, call.sender, now, True, delivery)
                try:
                    needs.intake.begin(reading, arrival, stored)
                except RateLimited as error:
                    self._under_way -= 1
                    self._answer(unit, self.refused(delivery, count, error))
                return
        while self._under_way:
            await self._change()
        try:
            found = self.answers(delivery, *await service.store(call, batch, delivery, trace))
        except TooLarge as error:
            # Each may name many services, and is not too large by itself.
            found = await self._apart(batch, trace) if count > 1 else self.refused(delivery, count, error)
        except IncidentManagerError as error:
            found = self.refused(delivery, count, error)
        self._answer(unit, found)

    async def _apart(self, batch: bytes, trace: str | None) -> Sequence[bytes]:
        """The answers of messages that are too much to be stored together."""
        found: list[bytes] = []
        for message in cut(batch)[1]:
            try:
                stored = await self._service.store(self._call, joined([message]), None, trace)
                found += self.answers(None, *stored)
            except IncidentManagerError as error:
                found += self.refused(None, 1, error)
        return found

    def answers(self, delivery: str | None, reading: MessagesRead, receipt: Receipt) -> Sequence[bytes]:
        """What is answered to a unit."""
        return written(reading, receipt)

    def refused(self, delivery: str | None, count: int, error: IncidentManagerError) -> Sequence[bytes]:
        """What is answered to one that could not be taken at all."""
        return [_failed(error).SerializeToString()] * count

    def _answer(self, unit: _Unit, answers: Sequence[bytes]) -> None:
        unit.answers = answers
        units, call = self._units, self._call
        while units and (found := units[0].answers) is not None:
            count = units.popleft().count
            self._unanswered -= count
            call.send(*found)
            call.release(count)
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class BatchStream(AlertStream):
    """The same of batches: each is stored and answered by itself."""

    window = WINDOW_BATCHES
    together = 1

    async def take(self, messages: list[bytes]) -> None:
        (batch,) = messages
        try:
            delivery = self._service.delivery(self._call, batch)
        except (Malformed, TooLarge) as error:
            unit = _Unit(1)
            self._units.append(unit)
            self._unanswered += 1
            self._answer(unit, self.refused(None, 1, error))
            return
        await self._store(batch, 1, delivery, self._call.trace)

    def answers(self, delivery: str | None, reading: MessagesRead, receipt: Receipt) -> Sequence[bytes]:
        return [_batch_ack(delivery, reading, receipt)]

    def refused(self, delivery: str | None, count: int, error: IncidentManagerError) -> Sequence[bytes]:
        return [AlertBatchAck(batch_id=delivery or "", acks=[_failed(error)]).SerializeToString()]


def delivery_of(batch_id: str) -> str | None:
    """A batch's id as the id of its delivery; None without one. Raises Malformed."""
    if not batch_id:
        return None
    if len(batch_id.encode()) > IDEMPOTENCY_KEY_MAX_BYTES or not batch_id.isprintable():
        raise Malformed(f"batch_id: expected at most {IDEMPOTENCY_KEY_MAX_BYTES} printable characters")
    return batch_id


def acks(reading: MessagesRead, receipt: Receipt) -> list[AlertAck]:
    """One for each message. Of several alerts of one message the worst counts: what must be sent again, then what never can be."""
    found: list[AlertAck | None] = [None] * reading.count
    for fault in reading.faults:
        found[fault.index] = AlertAck(
            alert_id=reading.ids[fault.index], status=ACK_STATUS_DROPPED, reason=fault.message
        )
    for column, place in enumerate(reading.places):
        decision = receipt.decisions[column]
        if decision is None:
            ack = _failed(receipt.errors[column])
        else:
            identity = receipt.incident_ids[column]
            ack = AlertAck(
                incident_id=incident_text(identity).decode(),
                status=ACK_STATUS_DUPLICATE if decision in _STORED_BEFORE else ACK_STATUS_ACCEPTED,
            )
        first = found[place]
        if first is None:
            ack.alert_id = reading.ids[place]
            found[place] = ack
        elif _RANK[ack.status] > _RANK[first.status]:
            first.status, first.reason, first.retry_after_ms = ack.status, ack.reason, ack.retry_after_ms
    for place, why in reading.filtered.items():
        if found[place] is None:
            found[place] = AlertAck(alert_id=reading.ids[place], status=ACK_STATUS_DROPPED, reason=why)
    return [each or AlertAck(status=ACK_STATUS_DROPPED) for each in found]


def written(reading: MessagesRead, receipt: Receipt) -> list[bytes]:
    """acks() as bytes. What is plain is written here: a third of what making objects of it takes."""
    count = reading.count
    if reading.faults or reading.filtered or receipt.errors or len(reading.places) != count:
        return [ack.SerializeToString() for ack in acks(reading, receipt)]
    found = []
    for name, identity, decision in zip(reading.ids, receipt.incident_ids, receipt.decisions, strict=True):
        raw = name.encode()
        if len(raw) > 127 or not raw or not identity:
            return [ack.SerializeToString() for ack in acks(reading, receipt)]
        status = ACK_STATUS_DUPLICATE if decision in _STORED_BEFORE else ACK_STATUS_ACCEPTED
        found.append(
            b"\x0a%c%b\x12%c%b\x18%c" % (len(raw), raw, SHOWN_CHARS, incident_text(identity), status)
        )
    return found


_RANK = {ACK_STATUS_DUPLICATE: 0, ACK_STATUS_ACCEPTED: 1, ACK_STATUS_DROPPED: 2, ACK_STATUS_RETRY: 3}


def _failed(error: IncidentManagerError) -> AlertAck:
    if not is_passing(error):
        return AlertAck(status=ACK_STATUS_DROPPED, reason=str(error))
    wait_ms = int(1000 * (retry_after_s(error) or 1.0))
    return AlertAck(status=ACK_STATUS_RETRY, reason=str(error), retry_after_ms=wait_ms)


def _batch_ack(delivery: str | None, reading: MessagesRead, receipt: Receipt) -> bytes:
    head: bytes = AlertBatchAck(batch_id=delivery or "").SerializeToString()
    return head + joined(written(reading, receipt))


def _raise_if_none_is_stored(reading: MessagesRead, receipt: Receipt) -> None:
    """A call of which nothing is stored fails, so that a client that looks at nothing but its status learns of it. Raises what a
    retry may fix, if anything failed for such a reason, else the first that is wrong. What a filter drops is no failure."""
    if not reading.count or any(decision is not None for decision in receipt.decisions):
        return
    if receipt.errors:
        raise max(receipt.errors.values(), key=is_passing)
    if reading.filtered:
        return
    fault = reading.faults[0]
    raise Forbidden(fault.message) if fault.status == FORBIDDEN else Malformed(fault.message)
