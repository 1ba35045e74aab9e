"""Answers effect Act with message ActionOutcome, at the receiver that it names, tells people on call (actors/paging.py), and does the
work of playbooks (actors/working.py).
Stateless but for the calls under way, its counters and what it learnt of its targets (targets.py).

The shard calls it through Peers and keeps the action pending until an event has its result, so whatever is lost here is
requested again. Each call sends at most once; retrying is the shard's decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from uuid import UUID

import msgspec

from actors.control_tail import ControlTail
from actors.lanes import URGENT
from actors.paging import Paging, without_address
from actors.runtime.clock import SystemClock
from actors.runtime.ending import end
from actors.runtime.host import Host
from actors.runtime.untraced import NoTracer
from actors.targets import Targets, encode_views, receiver_target, result_of
from actors.working import NoWorker, Working
from models.errors import Busy, Malformed
from models.metrics import Meter
from models.metrics import encode as encode_metrics
from models.ports import REF_MAX, ActionResult, Channel, Clock, Tracer, Worker
from models.response.target import Limits, NotNow, Why
from models.shard.effects import Act
from models.shard.escalation import Page
from models.shard.messages import ActionOutcome, Said, Say
from models.shard.messages import encode as encode_message
from models.trace import Attribute

#: Concurrent calls to each target, unless settings say otherwise (Notify.concurrency).
CONCURRENCY = 32
#: The last resort behind an action's own timeout: no call is held longer than this.
DEADLINE_S = 120.0

_act_decoder = msgspec.msgpack.Decoder(Act)
_page_decoder = msgspec.msgpack.Decoder(Page)
_say_decoder = msgspec.msgpack.Decoder(Say)
_encoder = msgspec.msgpack.Encoder()


class ResponderActor:
    def __init__(
        self,
        host: Host,
        receivers: Mapping[str, Channel],
        *,
        control: ControlTail | None = None,
        targets: Targets | None = None,
        concurrency: int = CONCURRENCY,
        deadline_s: float = DEADLINE_S,
        tracer: Tracer | None = None,
        worker: Worker | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`receivers` by the name that Act.target bears; which there are may change while it runs. Owns them, `worker` and
        `control`: stop() closes them. `targets` bounds the calls; without it each target has `concurrency` places. `clock` says who
        is on call."""
        self.meter = Meter(host.name)
        self._receivers = receivers
        self._control = control
        self._targets = targets or Targets(SystemClock(), limits=Limits(max_in_flight=concurrency))
        self._deadline_s = deadline_s
        self._tracer = tracer or NoTracer()
        self._working = Working(worker or NoWorker(), self.meter, self._tracer)
        self._paging = Paging(receivers, control, clock or SystemClock(), self.meter)
        self._under_way: dict[tuple[str, str, str], asyncio.Task[ActionResult]] = {}

    async def act(self, payload: bytes) -> bytes:
        """MessagePack of effects.Act in, of messages.ActionOutcome out.

        A call with the key of a running one joins it and gets the same result: one request is sent. A target that is broken or
        was called too often is not called, and the outcome says when to try again. Raises Busy when all places of the
        target are taken, Malformed when `payload` is no Act. If the caller goes
        away, the call still finishes.
        """
        try:
            effect = _act_decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise Malformed(f"expected MessagePack of an Act: {error}") from error
        channel = self._receivers.get(effect.target)
        if channel is None:
            result = self._unknown(effect.target)
        else:
            result = await self._send(channel, effect)

        outcome = "succeeded" if result.ok else "refused" if result.final else "failed"
        self.meter.count("llm_im_actions_total", action=effect.action[:40], outcome=outcome)
        return encode_message(
            ActionOutcome(
                incident_id=effect.incident_id,
                number=effect.number,
                attempt=effect.attempt,
                ok=result.ok,
                detail=result.detail,
                final=result.final,
                retry_after_s=result.retry_after_s,
                reached=result.reached,
                receiver=effect.target,
                ref=result.ref[:REF_MAX],
            )
        )

    async def page(self, payload: bytes) -> bytes:
        """MessagePack of escalation.Page in, of escalation.Paged out: tells the people of a level, within the bounds of act(). Raises
        Malformed, and Unavailable while it is not known who there is."""
        try:
            effect = _page_decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise Malformed(f"expected MessagePack of a Page: {error}") from error
        return encode_message(await self._paging.page(effect, self._send))

    async def life(self, _payload: bytes) -> bytes:
        """Which life this is: another one after each start."""
        return self._working.life

    async def work(self, payload: bytes) -> bytes:
        """Do what a run asks for: MessagePack of working.WorkAsked in, of playbook.work.Done out. The same key while it is under way
        joins it. Raises Busy, Malformed. If the caller goes away, the work goes on."""
        return await self._working.ask(payload)

    async def say(self, payload: bytes) -> bytes:
        """MessagePack of messages.Say in, of messages.Said out: a note for one receiver. Sent once, whatever comes of it."""
        try:
            asked = _say_decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise Malformed(f"expected MessagePack of a Say: {error}") from error
        channel = self._receivers.get(asked.receiver)
        if channel is None:
            result = self._unknown(asked.receiver)
        else:
            result = await self._bounded(asked.receiver, channel.say(asked.key, asked.note))
        return _encoder.encode(Said(result.ok, result.detail))

    def _unknown(self, receiver: str) -> ActionResult:
        known = ", ".join(sorted(self._receivers)) or "none"
        detail = f"there is no receiver {receiver!r} here (known: {known})"
        return ActionResult(ok=False, detail=detail, reached=False)

    async def metrics(self, _payload: bytes) -> bytes:
        """This actor's reading, encoded."""
        self.meter.set("incident_processing_queue_depth", len(self._under_way) + self._working.under_way)
        self._targets.measure(self.meter)
        return encode_metrics(self.meter.read())

    async def targets(self, _payload: bytes) -> bytes:
        """The targets of this process and their state: actors.targets.decode_views() reads it."""
        return encode_views(self._targets.views())

    async def start(self) -> None:
        """An action connects when it is first asked."""
        if self._control is not None:
            self._control.start()

    async def stop(self) -> None:
        """Cancel running calls (the shard still has them pending) and close the actions. Safe to call twice."""
        await end([*self._under_way.values()])
        await self._working.stop()
        for channel in self._receivers.values():
            await channel.close()
        if self._control is not None:
            await self._control.close()
        await self._tracer.close()

    async def _send(self, channel: Channel, effect: Act) -> ActionResult:
        key = (effect.action, effect.target, effect.key)
        task = self._under_way.get(key)
        if task is None:
            target = receiver_target(effect.target)
            period = self._targets.may_i(target, is_urgent=effect.urgency <= URGENT)
            if isinstance(period, NotNow):
                if period.why is Why.BUSY:
                    raise Busy(f"{effect.target}: {period.detail}", period.wait_s)
                return result_of(period)
            task = asyncio.create_task(self._traced(channel, effect))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._over(key, target, period, done))
        # Shielded: two callers may wait for one send, and neither may cancel it for the other.
        return await asyncio.shield(task)

    def _over(
        self, key: tuple[str, str, str], target: str, period: int, done: asyncio.Task[ActionResult]
    ) -> None:
        self._under_way.pop(key, None)
        is_known = not done.cancelled() and done.exception() is None
        self._targets.over(target, period, done.result() if is_known else None)

    async def _traced(self, channel: Channel, effect: Act) -> ActionResult:
        about: dict[str, Attribute] = {
            "llm_im.incident_id": str(UUID(bytes=effect.incident_id)),
            "llm_im.notice": effect.number,
            "llm_im.attempt": effect.attempt,
        }
        with self._tracer.span(f"act {effect.action}", effect.trace, about, kind="client") as span:
            result = await self._bounded(effect.target, channel.act(effect.key, effect.facts, span.trace))
            if effect.facts.to:
                # Before anybody keeps it: the last error of a target is shown, logged, and said to the next one who can't be told.
                result = replace(result, detail=without_address(result.detail, effect.facts.to))
            span.note("llm_im.outcome", result.detail)
            if not result.ok:
                span.fail(result.detail)
            return result

    async def _bounded(self, receiver: str, call: Coroutine[None, None, ActionResult]) -> ActionResult:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await call
        except TimeoutError:
            return ActionResult(ok=False, detail=f"{receiver}: no result within {self._deadline_s:g} s")
        # An adapter broke its promise; the text may hold a secret, so only the kind is told
        except Exception as error:  # noqa: BLE001
            return ActionResult(ok=False, detail=f"{receiver}: failed with {type(error).__name__}")
