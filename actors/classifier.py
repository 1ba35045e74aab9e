"""Answers effect Classify with message Classified, many incidents a call. A pool of these runs (`classifier-0` ...).

Stateless but for its counters: asking twice, or asking another of the pool, gives the same verdicts. The shard
calls it through Peers; services/wiring/bootstrap.py builds it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from uuid import UUID

import msgspec

from actors.control_tail import ControlTail
from actors.runtime.host import Host
from actors.runtime.untraced import NoTracer
from models.classification.rules import failed_verdict
from models.errors import Malformed
from models.learned.compared import Compared, encode_compared
from models.metrics import Meter
from models.metrics import encode as encode_metrics
from models.ports import Tracer
from models.shard.effects import Classify
from models.shard.messages import Classification, Classified
from models.shard.messages import encode as encode_message
from models.trace import Attribute

#: How long a call works before others get a turn: 300 incidents at 30 us each.
TURN_S = 0.01
#: And how long in total: a batch with very slow rules is answered in parts, so that it does not look like a classifier
#: that hangs.
BATCH_S = 3.0

#: Where Classify keeps what an answer to an unreadable question needs: [tag, incident_id, ..., asked].
_INCIDENT_ID_AT = 1 + Classify.__struct_fields__.index("incident_id")
_ASKED_AT = 1 + Classify.__struct_fields__.index("asked")

_batch_decoder = msgspec.msgpack.Decoder(list[Classify])
_items_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_item_decoder = msgspec.msgpack.Decoder(Classify)


class Judge(Protocol):
    """What classifies: models.classification.rules.Classifier, or actors.judging.Judging, which asks models too."""

    def classify(self, effect: Classify) -> Classification: ...


class Models(Protocol):
    """The models that a judge asks: actors.judging.Judging."""

    def look(self) -> None:
        """Called before a batch, and often: go by what is known by now."""

    def why(self) -> dict[str, str]:
        """What can't be done, and why."""

    def compared(self) -> dict[int, Compared]:
        """How often each model that is only asked said what counted."""


class ClassifierActor:
    def __init__(
        self,
        host: Host,
        judge: Judge,
        tracer: Tracer | None = None,
        *,
        control: ControlTail | None = None,
        models: Models | None = None,
        meter: Meter | None = None,
    ) -> None:
        """This actor follows and closes `control`, by which `models` go."""
        self.judge = judge
        self._models = models
        self._tracer = tracer or NoTracer()
        self.meter = meter or Meter(host.name)
        self._control = control

    async def classify(self, payload: bytes) -> bytes:
        """MessagePack of list[effects.Classify] in, of messages.Classified out; verdicts in the order asked, of the first ones
        alone when all would take longer than BATCH_S.

        A question that can't be read or fails gets the default verdict, whose `by` names the error; one without
        even an incident id gets none, and is counted. Raises Malformed when `payload` is no list at all.
        """
        verdicts: list[Classification] = []
        clock = asyncio.get_running_loop().time
        began = turn = clock()
        if self._models is not None:
            self._models.look()
        for question in self._read(payload):
            if (now := clock()) - turn > TURN_S:
                if now - began > BATCH_S:
                    break
                await asyncio.sleep(0)
                turn = clock()
            verdicts.append(question if isinstance(question, Classification) else self._traced(question))
        self.meter.count("llm_im_classified_total", len(verdicts))
        return encode_message(Classified(verdicts))

    async def start(self) -> None:
        if self._control is not None:
            self._control.start()

    async def stop(self) -> None:
        """Send the spans that wait. Safe to call twice."""
        if self._control is not None:
            await self._control.close()
        await self._tracer.close()

    async def metrics(self, _payload: bytes) -> bytes:
        """This actor's reading, encoded."""
        return encode_metrics(self.meter.read())

    async def status(self, _payload: bytes) -> bytes:
        """JSON of what can't be done, with why; empty when all is well."""
        if self._models is None:
            return b"{}"
        self._models.look()
        return msgspec.json.encode(self._models.why())

    async def compared(self, _payload: bytes) -> bytes:
        """How often shadows said what counted (models/learned/compared.py), since this process started."""
        return encode_compared({} if self._models is None else self._models.compared())

    def _traced(self, question: Classify) -> Classification:
        if not self._tracer.wants(question.trace):
            return self._judged(question)
        about: dict[str, Attribute] = {"llm_im.incident_id": str(UUID(bytes=question.incident_id))}
        with self._tracer.span("classify", question.trace, about) as span:
            verdict = self._judged(question)
            span.note("llm_im.severity", verdict.severity.name)
            span.note("llm_im.type", verdict.type)
            span.note("llm_im.classified_by", verdict.by)
            return verdict

    def _judged(self, question: Classify) -> Classification:
        try:
            return self.judge.classify(question)
        # A verdict is owed for every incident, whatever a rule or model does
        except Exception as error:  # noqa: BLE001
            self.meter.count("llm_im_classify_failed_total")
            return failed_verdict(question.incident_id, question.asked, type(error).__name__)

    def _read(self, payload: bytes) -> list[Classify | Classification]:
        """The questions; in place of one that can't be read, its verdict."""
        try:
            return list(_batch_decoder.decode(payload))
        except msgspec.MsgspecError:
            pass  # at least one is bad: read them one by one
        try:
            items = _items_decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise Malformed(f"expected MessagePack of a list of Classify: {error}") from error
        questions: list[Classify | Classification] = []
        for item in items:
            try:
                questions.append(_item_decoder.decode(item))
            except msgspec.MsgspecError as error:
                verdict = _verdict_of_unreadable(item, error)
                self.meter.count("llm_im_classify_failed_total")
                if verdict is not None:
                    questions.append(verdict)
        return questions


def _verdict_of_unreadable(item: msgspec.Raw, error: msgspec.MsgspecError) -> Classification | None:
    try:
        fields = msgspec.msgpack.decode(item)
    except msgspec.MsgspecError:
        return None
    if not isinstance(fields, list) or len(fields) <= _INCIDENT_ID_AT:
        return None
    incident_id = fields[_INCIDENT_ID_AT]
    if not isinstance(incident_id, bytes):
        return None
    asked = fields[_ASKED_AT] if len(fields) > _ASKED_AT and isinstance(fields[_ASKED_AT], int) else 0
    return failed_verdict(incident_id, asked, f"{type(error).__name__}: {error}")
