"""Brings a shard's effects to whoever handles them, and the answers back. One per shard, used by actors/shard.py.

LANES is the table: one row for each kind of effect. Each row's effects wait by their bulkhead key (a receiver, a
classifier, a shard), and each key has its own places: a receiver that hangs uses up only its own.

An effect stays pending in the shard's state until an event says it was done. So nothing here is durable: what fails is
handed back (`undelivered`), and what a crash loses is requested again by the recovered shard.

Each recovery begins a new generation (begin_anew). An answer to an older generation is dropped: the recovered state has
requested everything again, and may reuse the numbers and versions of what was lost for something else.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Generic, TypeVar

import structlog

from actors.answerers import Answer, Answerers
from actors.runtime.ending import end
from models.errors import Busy, IncidentManagerError
from models.metrics import Meter
from models.ports import Archive as ArchivePort
from models.ports import Peers
from models.shard.effects import Act, Archive, Classify, Effect, Forget, SendPeerMessage
from models.shard.escalation import Page
from models.shard.inhibitors import SendInhibitors
from models.shard.messages import Message
from models.shard.runs import Perform
from models.shard.shard import Shard
from models.shard.verification import Recheck
from models.trace import trace_id_of

log = structlog.get_logger()

#: An effect of this urgency or a smaller one (P0, P1) may take any place; others leave `kept` places free.
URGENT = 1
#: Wait before a failed effect is retried, unless its row or a Busy answer says otherwise.
AGAIN_S = 1.0
#: The same after a bug of ours, which a retry will hardly fix: each try logs an error.
AGAIN_AFTER_BUG_S = 30.0

E = TypeVar("E", bound=Effect)


@dataclass(frozen=True, slots=True)
class Lane(Generic[E]):
    """How one kind of effect gets to whoever handles it.

    `key`: whose places it takes; the keys are as many as what is configured (receivers, classifiers, shards). `places`:
    calls under way at once for each key, of which `kept` are for urgent ones. `batch`: effects in one call. `same`: a newer
    effect that is the same takes the place of one that still waits. `rest_s`: pause after an answer, unless a whole batch
    waits. `again_s`: wait after a call that failed. `outlives`: a call goes on, and keeps its place, while the shard recovers.
    """

    effect: type[E]
    answer: Callable[[Answerers, Sequence[E], float], Awaitable[Answer]]
    key: Callable[[Answerers, E], str]
    places: int = 1
    kept: int = 0
    urgency: Callable[[E], int] = lambda _effect: URGENT
    batch: int = 1
    same: Callable[[E], object] | None = None
    rest_s: float = 0.0
    timeout_s: float = 5.0
    again_s: float = AGAIN_S
    outlives: bool = False


LANES: tuple[Lane[Any], ...] = (
    # One call per classifier: while it runs, the next questions gather, 10 ms of its work. Each answer is an append of
    # its own: in a flood of new incidents they were half of all appends, with three incidents each; hence the short rest.
    # Three times what a classifier gives itself for a batch (actors/classifier.py).
    Lane(
        Classify,
        Answerers.classify,
        key=Answerers.classifier_of,
        batch=256,
        same=lambda effect: effect.incident_id,
        rest_s=0.02,
        timeout_s=10.0,
    ),
    # By receiver. A slow one with a thousand small notifications must not delay its own P0. The responder itself gives up
    # earlier than in two minutes, longer than any webhook's timeout, and says so.
    Lane(
        Act,
        Answerers.act,
        key=lambda _with, effect: effect.target,
        places=32,
        kept=8,
        urgency=lambda effect: effect.urgency,
        timeout_s=120.0,
    ),
    # By responder, which bounds each target by itself. One that takes longer than this is asked for again, and the call that is
    # under way is joined.
    Lane(
        Perform,
        Answerers.perform,
        key=Answerers.performer_of,
        places=256,
        kept=32,
        urgency=lambda effect: effect.urgency,
        timeout_s=120.0,
    ),
    # The same responder, which looks up who is meant and bounds each receiver by itself.
    Lane(
        Page,
        Answerers.page,
        key=Answerers.performer_of,
        places=64,
        kept=16,
        urgency=lambda effect: effect.urgency,
        timeout_s=120.0,
    ),
    # The same responder, beside what repairs: a check of what is well already can wait.
    Lane(
        Recheck,
        Answerers.recheck,
        key=Answerers.performer_of,
        places=32,
        kept=4,
        urgency=lambda effect: effect.urgency,
        timeout_s=120.0,
    ),
    # By shard: a merge of a hundred is done within a tenth of a second.
    Lane(SendPeerMessage, Answerers.send, key=Answerers.home_of, places=8),
    # One at a time to each shard, which is all that a shard owes another.
    Lane(SendInhibitors, Answerers.send_inhibitors, key=lambda _with, effect: effect.to),
    # One at a time, also over a recovery: a put that came late must not overwrite a newer one.
    Lane(Archive, Answerers.put_away, key=lambda _with, _effect: "archive", outlives=True),
    Lane(
        Forget,
        Answerers.forget,
        key=lambda _with, _effect: "archive",
        same=lambda _effect: None,
        outlives=True,
    ),
)


@dataclass(slots=True)
class _Queue:
    """What waits for the places of one key of a lane, the most urgent first, and what is in progress."""

    #: [urgency, order, effect]
    waiting: list[list[Any]] = field(default_factory=list)
    by_same: dict[object, list[Any]] = field(default_factory=dict)
    under_way: set[asyncio.Task[None]] = field(default_factory=set)


class Errands:
    """owe() returns at once. `answered` gets an answer, `undelivered` an effect that must be retried."""

    def __init__(
        self,
        actor: str,
        peers: Peers,
        archive: ArchivePort,
        meter: Meter,
        *,
        classifiers: Sequence[str],
        responders: Sequence[str],
        replace: Callable[[str], Awaitable[None]],
        shard_of: Callable[[bytes], str],
        settled: Callable[[], Awaitable[Shard]],
        answered: Callable[[Message], None],
        undelivered: Callable[[Effect], None],
        actor_of: Callable[[str], str] = str,
        lanes: Sequence[Lane[Any]] | None = None,
    ) -> None:
        self._log = log.bind(actor=actor)
        self._answerers = Answerers(
            peers, archive, meter, self._log, classifiers, responders, replace, shard_of, actor_of, settled
        )
        self._meter = meter
        self._answered = answered
        self._undelivered = undelivered
        self._lanes = {lane.effect: lane for lane in (LANES if lanes is None else lanes)}
        self._generation = 0
        self._order = count()
        self._queues: dict[tuple[type[Effect], str], _Queue] = {}

    @property
    def waiting(self) -> int:
        """Effects that wait for their turn, and calls under way."""
        return sum(len(queue.waiting) + len(queue.under_way) for queue in self._queues.values())

    def owe(self, effects: Sequence[Effect]) -> None:
        """Accept effects of a state that is in the log."""
        touched = dict.fromkeys(place for effect in effects if (place := self._queue(effect)) is not None)
        for kind, key in touched:
            self._start(kind, key)

    def begin_anew(self) -> None:
        """The state is rebuilt from the log and will request everything pending again. Waiting effects are dropped,
        running ones abandoned: a responder continues with them anyway, and a new request with the same key joins it.
        Only lanes that outlive a recovery keep running."""
        self._drop_waiting()
        for (kind, _key), queue in self._queues.items():
            if not self._lanes[kind].outlives:
                for task in queue.under_way:
                    task.cancel()

    async def stop(self) -> None:
        """End all. Safe to call twice."""
        self._drop_waiting()
        await end([task for queue in self._queues.values() for task in queue.under_way])

    def _drop_waiting(self) -> None:
        self._generation += 1
        for queue in self._queues.values():
            queue.waiting.clear()
            queue.by_same.clear()

    def _queue(self, effect: Effect) -> tuple[type[Effect], str] | None:
        """Let an effect wait for its turn. Where that is."""
        kind = type(effect)
        lane = self._lanes.get(kind)
        if lane is None:
            self._log.error("no actor handles this effect", effect=kind.__name__)
            return None
        key = lane.key(self._answerers, effect)
        place = kind, key
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = _Queue()
        same = None if lane.same is None else lane.same(effect)
        if lane.same is not None and (before := queue.by_same.get(same)) is not None:
            before[2] = effect
            return place
        entry = [lane.urgency(effect), next(self._order), effect]
        heapq.heappush(queue.waiting, entry)
        if lane.same is not None:
            queue.by_same[same] = entry
        return place

    def _start(self, kind: type[Effect], key: str) -> None:
        lane, queue = self._lanes[kind], self._queues.get((kind, key))
        while queue is not None and queue.waiting:
            free = lane.places - len(queue.under_way)
            if free <= (lane.kept if queue.waiting[0][0] > URGENT else 0):
                return
            size = min(lane.batch, len(queue.waiting))
            effects = [heapq.heappop(queue.waiting)[2] for _ in range(size)]
            if lane.same is not None:
                for effect in effects:
                    del queue.by_same[lane.same(effect)]
            work = self._deliver(lane, queue, effects, self._generation)
            task = asyncio.get_running_loop().create_task(work)
            queue.under_way.add(task)
            task.add_done_callback(partial(self._over, kind, key))

    def _over(self, kind: type[Effect], key: str, task: asyncio.Task[None]) -> None:
        queue = self._queues[kind, key]
        queue.under_way.discard(task)
        self._start(kind, key)
        if not queue.waiting and not queue.under_way:
            del self._queues[kind, key]

    async def _deliver(
        self, lane: Lane[Any], queue: _Queue, effects: Sequence[Effect], generation: int
    ) -> None:
        try:
            answer = await lane.answer(self._answerers, effects, lane.timeout_s)
        except IncidentManagerError as error:
            self._meter.count("llm_im_effects_failed_total", len(effects))
            self._log.warning(
                "effect not delivered, will be retried",
                why=str(error),
                effects=len(effects),
                **_trace_of(effects),
            )
            await self._again(
                effects, error.retry_after_s if isinstance(error, Busy) else lane.again_s, generation
            )
            return
        except Exception:  # noqa: BLE001  # an effect that is owed is asked again, whatever failed
            self._meter.count("llm_im_effects_failed_total", len(effects))
            self._log.exception(
                "bug: effect not delivered, will be retried",
                effects=len(effects),
                **_trace_of(effects),
            )
            await self._again(effects, AGAIN_AFTER_BUG_S, generation)
            return
        if generation != self._generation:
            return
        for effect in answer.left:
            self._undelivered(effect)
        if answer.message is not None:
            self._answered(answer.message)
        if lane.rest_s and len(queue.waiting) < lane.batch:
            await asyncio.sleep(lane.rest_s)

    async def _again(self, effects: Sequence[Effect], after_s: float, generation: int) -> None:
        if generation == self._generation:
            await asyncio.sleep(after_s)
        if generation == self._generation:
            for effect in effects:
                self._undelivered(effect)


def _trace_of(effects: Sequence[Effect]) -> dict[str, str]:
    """The trace id for a log line about these effects, if all have the same."""
    found = {trace_id_of(getattr(effect, "trace", None)) for effect in effects}
    only = found.pop() if len(found) == 1 else None
    return {} if only is None else {"trace_id": only}
