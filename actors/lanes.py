"""Brings a shard's effects to who answers them, and the answers back. One a shard, used by actors/shard.py.

Five lanes, so that a slow webhook never holds up a classification and a P4 never a P0:

    questions   Classify, many a call, to one of the classifier pool; an incident's newest question only
    acts        Act, the most urgent first; a quarter of the places is kept for P0 and P1
    archives    Archive, one at a time
    forgetting  Forget, beside them: the newest only, some incidents at a time
    notes       Tell, from one incident to another, to the shard that has it

An effect stays owed in the shard's state until an event says it was done. So this keeps nothing durable: what
fails is handed back (`undelivered`), and what a crash loses is asked again by the recovered shard.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import count
from typing import TypeVar

import msgspec
import structlog

from actors.runtime.ending import end
from models.alerts.view import alert_view
from models.errors import Busy, IncidentManagerError, NotOwner, Unavailable
from models.incidents.incident import Incident, IncidentState
from models.incidents.query import AlertView
from models.metrics import Meter
from models.ports import Archive as ArchivePort
from models.ports import ArchivedIncident, Peers
from models.shard.assembly import decode_message
from models.shard.effects import Act, Archive, Classify, Effect, Forget, SendPeerMessage
from models.shard.messages import (
    ActionOutcome,
    Archived,
    Classified,
    Failed,
    Message,
    PeerMessageAnswered,
    PeerMessageArrived,
    decode_reply,
    encode,
)
from models.shard.shard import Shard
from models.trace import trace_id_of

log = structlog.get_logger()

#: Incidents asked of a classifier in one call: 10 ms of its work.
CLASSIFY_BATCH = 256
#: A classifier rests so long after an answer unless a whole batch waits. Each answer is an append of its own: in a flood
#: of new incidents they were half of all appends, with three incidents each. A first question waits for nobody.
CLASSIFY_PAUSE_S = 0.02
ACTS_IN_FLIGHT = 32
#: Of those, what P2 and below may not take: a slow receiver with a thousand small notices must not delay a P0.
ACTS_KEPT_FOR_URGENT = 8
URGENT = 1
ARCHIVES_IN_FLIGHT = 1
#: Notes on their way at once: a merge of a hundred is done within a tenth of a second.
NOTES_IN_FLIGHT = 8
NOTE_TIMEOUT_S = 5.0
#: Three times what a classifier gives itself for a batch (actors/classifier.py).
CLASSIFY_TIMEOUT_S = 10.0
#: A classifier that answered nothing for all of that hangs, and is replaced; so often at most, should that not help.
REPLACE_EVERY_S = 60.0
#: Longer than any webhook timeout: the responder itself gives up earlier and says so.
ACT_TIMEOUT_S = 120.0
#: Wait before an effect that could not be delivered is owed anew.
AGAIN_S = 1.0
#: The same after a bug of ours, which will hardly be gone by then: each try is an error in the log.
AGAIN_AFTER_BUG_S = 30.0
#: Archived incidents forgotten at once, and the pause after: what is put away meanwhile waits some milliseconds.
FORGET_BATCH = 1000
FORGET_PAUSE_S = 0.1
#: Alerts of an archived incident made in one go: 1 ms.
ARCHIVE_SLICE = 500

M = TypeVar("M", Classified, ActionOutcome)


class Errands:
    """owe() returns at once. `answered` takes an answer, `undelivered` an effect that must be asked again."""

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
        answered: Callable[[Message], None],
        undelivered: Callable[[Effect], None],
    ) -> None:
        self._peers = peers
        self._archive = archive
        self._meter = meter
        self._classifiers = classifiers
        self._responders = responders
        self._replace = replace
        self._replaced_at: dict[str, float] = {}
        self._shard_of = shard_of
        self._answered = answered
        self._undelivered = undelivered
        self._log = log.bind(actor=actor)
        self._order = count()
        self._questions: OrderedDict[bytes, Classify] = OrderedDict()
        self._acts: list[tuple[int, int, Act]] = []
        self._archives: deque[tuple[Archive, Shard]] = deque()
        self._forgetting: Forget | None = None
        self._notes: deque[SendPeerMessage] = deque()
        self._lanes: dict[str, set[asyncio.Task[None]]] = {
            "questions": set(),
            "acts": set(),
            "archives": set(),
            "forgetting": set(),
            "notes": set(),
        }

    @property
    def waiting(self) -> int:
        """Effects on their way or waiting for their turn."""
        under_way = sum(len(lane) for lane in self._lanes.values())
        waiting = len(self._questions) + len(self._acts) + len(self._archives) + len(self._notes)
        return waiting + (self._forgetting is not None) + under_way

    def owe(self, effects: Sequence[Effect], shard: Shard) -> None:
        """Take effects on. `shard` is read for what an archived incident was."""
        for effect in effects:
            match effect:
                case Classify():
                    # A newer question of an incident knows more than one that still waits, and takes its turn.
                    self._questions[effect.incident_id] = effect
                case Act():
                    heapq.heappush(self._acts, (effect.urgency, next(self._order), effect))
                case Archive():
                    self._archives.append((effect, shard))
                case Forget():
                    self._forgetting = effect
                case SendPeerMessage():
                    self._notes.append(effect)
                case _:
                    self._log.error("nobody answers this effect", effect=type(effect).__name__)
        self._start()

    def forget(self) -> None:
        """Drop what waits: the state that owed it is being made anew and will ask again. What is under way goes on."""
        self._questions.clear()
        self._acts.clear()
        self._archives.clear()
        self._forgetting = None
        self._notes.clear()

    async def stop(self) -> None:
        """End all. Safe to call twice."""
        self.forget()
        await end([task for lane in self._lanes.values() for task in lane])

    def _start(self) -> None:
        questions, acts = self._lanes["questions"], self._lanes["acts"]
        archives, notes = self._lanes["archives"], self._lanes["notes"]
        # One call a classifier: while it is under way the next questions gather.
        while self._questions and len(questions) < max(1, len(self._classifiers)):
            size = min(CLASSIFY_BATCH, len(self._questions))
            batch = [self._questions.popitem(last=False)[1] for _ in range(size)]
            self._spawn(questions, self._ask_classifier(batch), batch)
        while self._acts and len(acts) < ACTS_IN_FLIGHT:
            if self._acts[0][0] > URGENT and len(acts) >= ACTS_IN_FLIGHT - ACTS_KEPT_FOR_URGENT:
                break
            _urgency, _order, act = heapq.heappop(self._acts)
            self._spawn(acts, self._ask_responder(act), [act])
        while self._archives and len(archives) < ARCHIVES_IN_FLIGHT:
            effect, shard = self._archives.popleft()
            self._spawn(archives, self._put_away(effect, shard), [effect])
        if self._forgetting is not None and not self._lanes["forgetting"]:
            forget, self._forgetting = self._forgetting, None
            self._spawn(self._lanes["forgetting"], self._drop(forget), [forget])
        while self._notes and len(notes) < NOTES_IN_FLIGHT:
            note = self._notes.popleft()
            self._spawn(notes, self._tell(note), [note])

    def _spawn(
        self,
        lane: set[asyncio.Task[None]],
        work: Coroutine[None, None, Message | None],
        effects: Sequence[Effect],
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._deliver(work, effects))
        lane.add(task)
        task.add_done_callback(lambda done: self._over(lane, done))

    def _over(self, lane: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        lane.discard(task)
        if not task.cancelled():
            self._start()

    async def _deliver(self, work: Coroutine[None, None, Message | None], effects: Sequence[Effect]) -> None:
        try:
            message = await work
        except IncidentManagerError as error:
            self._meter.count("llm_im_effects_failed_total", len(effects))
            self._log.warning(
                "effect not delivered, will be asked again",
                why=str(error),
                effects=len(effects),
                **_trace_of(effects),
            )
            await self._again(effects, error.retry_after_s if isinstance(error, Busy) else AGAIN_S)
            return
        except Exception:  # noqa: BLE001  # an effect that is owed is asked again, whatever failed
            self._meter.count("llm_im_effects_failed_total", len(effects))
            self._log.exception(
                "effect not delivered by a bug, will be asked again",
                effects=len(effects),
                **_trace_of(effects),
            )
            await self._again(effects, AGAIN_AFTER_BUG_S)
            return
        if message is None:
            return
        self._answered(message)
        if isinstance(message, Classified) and len(self._questions) < CLASSIFY_BATCH:
            await asyncio.sleep(CLASSIFY_PAUSE_S)

    async def _again(self, effects: Sequence[Effect], after_s: float) -> None:
        await asyncio.sleep(after_s)
        for effect in effects:
            self._undelivered(effect)

    async def _ask_classifier(self, questions: list[Classify]) -> Message:
        if not self._classifiers:
            raise Unavailable("no classifier is wired")
        # Any classifier can answer any question; the id spreads them.
        name = self._classifiers[questions[0].incident_id[-1] % len(self._classifiers)]
        asked_at = asyncio.get_running_loop().time()
        try:
            said = await self._peers.call(name, "classify", _encoder.encode(questions), CLASSIFY_TIMEOUT_S)
        except Unavailable:
            await self._replace_silent(name, asked_at)
            raise
        classified = _expect(name, said, Classified)
        # It stops after a while, so that it is heard: what it did not come to is asked anew.
        judged = {verdict.incident_id for verdict in classified.verdicts}
        left = [question for question in questions if question.incident_id not in judged]
        if len(left) == len(questions):
            raise Unavailable(f"{name} answered none of {len(questions)} questions")
        for question in left:
            self._undelivered(question)
        return classified

    async def _replace_silent(self, name: str, asked_at: float) -> None:
        """Have a classifier started anew that did not answer in time. One that is away says so much sooner."""
        now = asyncio.get_running_loop().time()
        replaced_at = self._replaced_at.get(name, -REPLACE_EVERY_S)
        if now - asked_at < CLASSIFY_TIMEOUT_S / 2 or now - replaced_at < REPLACE_EVERY_S:
            return
        self._replaced_at[name] = now
        self._meter.count("llm_im_classifiers_replaced_total")
        self._log.error(
            "classifier did not answer: starting it anew", classifier=name, after_s=CLASSIFY_TIMEOUT_S
        )
        await self._replace(name)

    async def _ask_responder(self, act: Act) -> Message:
        if not self._responders:
            raise Unavailable("no responder is wired")
        name = self._responders[act.incident_id[-1] % len(self._responders)]
        return _expect(
            name, await self._peers.call(name, "act", _encoder.encode(act), ACT_TIMEOUT_S), ActionOutcome
        )

    async def _tell(self, tell: SendPeerMessage) -> Message:
        told = PeerMessageArrived(tell.tenant, tell.sender, tell.number, tell.to, tell.note, tell.trace)
        payload = _encoder.encode([encode(told)])
        name = self._shard_of(tell.to)
        try:
            said = await self._peers.call(name, "tell", payload, NOTE_TIMEOUT_S)
        except NotOwner as error:
            said = await self._peers.call(error.owner, "tell", payload, NOTE_TIMEOUT_S)
        try:
            (reply,) = map(decode_reply, _list_decoder.decode(said))
        except (msgspec.MsgspecError, ValueError) as error:
            raise Unavailable(f"{name} answered a note with something that is no reply: {error}") from None
        return PeerMessageAnswered(
            tell.sender, tell.number, reply.detail if isinstance(reply, Failed) else ""
        )

    async def _put_away(self, effect: Archive, shard: Shard) -> Message:
        entries, versions = [], []
        for identity in effect.incident_ids:
            incident = shard.state.incidents.get(identity)
            alerts = None if incident is None else await _alerts_of(shard, incident)
            if incident is None or alerts is None:
                continue
            versions.append(incident.version)
            entries.append(
                ArchivedIncident(
                    incident.id,
                    incident.tenant,
                    incident.service,
                    incident.state,
                    incident.severity,
                    incident.type,
                    incident.created_at,
                    incident.closed_at,
                    incident.updated_at,
                    _encoder.encode(incident),
                    _encoder.encode(alerts),
                )
            )
        await self._archive.put(entries)
        self._meter.count("llm_im_archived_total", len(entries))
        return Archived([entry.incident_id for entry in entries], versions)

    async def _drop(self, effect: Forget) -> None:
        dropped, now = 0, FORGET_BATCH
        while now >= FORGET_BATCH:
            now = await self._archive.drop_before(effect.closed_before, FORGET_BATCH)
            dropped += now
            await asyncio.sleep(FORGET_PAUSE_S)
        if dropped:
            self._log.info("archive: forgotten", incidents=dropped, closed_before=effect.closed_before)


async def _alerts_of(shard: Shard, incident: Incident) -> list[AlertView] | None:
    """The alerts of a closed incident; None when it is not closed, or is gone, by the time that they are read."""
    alerts: list[AlertView] = []
    if incident.state is not IncidentState.CLOSED:
        return None
    for place, number in enumerate(shard.state.members[incident.id]):
        if place % ARCHIVE_SLICE == ARCHIVE_SLICE - 1:
            await asyncio.sleep(0)
            # Its series stand still while it is closed. It may have been reopened, or be in the archive already.
            if (
                incident.state is not IncidentState.CLOSED
                or shard.state.incidents.get(incident.id) is not incident
            ):
                return None
        alerts.append(alert_view(shard.state.series, number))
    return alerts


def _trace_of(effects: Sequence[Effect]) -> dict[str, str]:
    """What a log line about these effects says of their trace, if they have one and the same."""
    found = {trace_id_of(getattr(effect, "trace", None)) for effect in effects}
    only = found.pop() if len(found) == 1 else None
    return {} if only is None else {"trace_id": only}


def _expect(name: str, said: bytes, kind: type[M]) -> M:
    try:
        message = decode_message(said)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"{name} answered with something that is no message: {error}") from None
    if not isinstance(message, kind):
        raise Unavailable(f"{name} answered with {type(message).__name__}, expected {kind.__name__}")
    return message


_encoder = msgspec.msgpack.Encoder()
_list_decoder = msgspec.msgpack.Decoder(list[bytes])
