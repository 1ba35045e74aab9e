"""Who handles each effect of a shard: one method for each effect, named in a row of actors/lanes.py. Each tries once,
raises Unavailable or Busy if it failed, and is safe to repeat. Nothing is kept here except when a classifier was last
replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from structlog.typing import FilteringBoundLogger

from actors.working import WorkAsked
from models.alerts.view import alert_view
from models.errors import NotOwner, Unavailable
from models.incidents.incident import Incident, IncidentState
from models.incidents.query import AlertView
from models.metrics import Meter
from models.ports import Archive as ArchivePort
from models.ports import ArchivedIncident, Peers
from models.shard.assembly import decode_message
from models.shard.effects import Act, Archive, Classify, Effect, Forget, SendPeerMessage
from models.shard.escalation import Page, Paged
from models.shard.inhibitors import InhibitorsHeard, SendInhibitors
from models.shard.messages import (
    ActionOutcome,
    Archived,
    Classified,
    Failed,
    Message,
    PeerMessageAnswered,
    PeerMessageArrived,
    Reply,
    decode_reply,
    encode,
)
from models.shard.runs import Perform, Performed, Runs
from models.shard.shard import Shard
from models.shard.verification import Recheck, Rechecked

#: A classifier that answered nothing in all of its time hangs and is replaced; at most this often, in case that does
#: not help.
REPLACE_EVERY_S = 60.0
#: Archived incidents deleted at once, and the pause after that: incidents being archived meanwhile wait some
#: milliseconds.
FORGET_BATCH = 1000
FORGET_PAUSE_S = 0.1
#: Alerts of an archived incident made in one go: 1 ms.
ARCHIVE_SLICE = 500

#: How long a responder may take to say which of its lives it is in.
LIFE_TIMEOUT_S = 5.0

M = TypeVar("M", Classified, ActionOutcome, Paged)


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of some effects: a message for the shard, if any, and the effects that must be retried."""

    message: Message | None = None
    left: Sequence[Effect] = ()


@dataclass(slots=True)
class Answerers:
    """What the answerers of one shard work with. `shard_of` gives the actor that has an incident, by its id, and `actor_of` the
    one that has a partition. `settled` gives the state at a moment when the log holds all of it, until
    the next await."""

    peers: Peers
    archive: ArchivePort
    meter: Meter
    log: FilteringBoundLogger
    classifiers: Sequence[str]
    responders: Sequence[str]
    replace: Callable[[str], Awaitable[None]]
    shard_of: Callable[[bytes], str]
    actor_of: Callable[[str], str]
    settled: Callable[[], Awaitable[Shard]]
    _replaced_at: dict[str, float] = field(default_factory=dict)
    #: In which life of its responder an action was asked for that must not be done twice, by its key, until it is answered.
    _lives: dict[str, bytes] = field(default_factory=dict)

    # -- Classify ------------------------------------------------------------------------------------------

    def classifier_of(self, question: Classify) -> str:
        """Any classifier can answer any question; the id spreads them."""
        if not self.classifiers:
            return ""
        return self.classifiers[question.incident_id[-1] % len(self.classifiers)]

    async def classify(self, questions: Sequence[Classify], timeout_s: float) -> Answer:
        """Questions to one classifier, in one call."""
        name = self.classifier_of(questions[0])
        if not name:
            raise Unavailable("no classifier is configured")
        asked_at = asyncio.get_running_loop().time()
        try:
            said = await self.peers.call(name, "classify", _encoder.encode(questions), timeout_s)
        except Unavailable:
            await self._replace_silent(name, asked_at, timeout_s)
            raise
        classified = _expect(name, said, Classified)
        # It stops after a while so that it can answer: what it did not get to is asked again.
        judged = {verdict.incident_id for verdict in classified.verdicts}
        left = [question for question in questions if question.incident_id not in judged]
        if len(left) == len(questions):
            raise Unavailable(f"{name} answered none of {len(questions)} questions")
        return Answer(classified, left)

    async def _replace_silent(self, name: str, asked_at: float, timeout_s: float) -> None:
        """Restart a classifier that did not answer in time. One that is down fails much sooner."""
        now = asyncio.get_running_loop().time()
        replaced_at = self._replaced_at.get(name, -REPLACE_EVERY_S)
        if now - asked_at < timeout_s / 2 or now - replaced_at < REPLACE_EVERY_S:
            return
        self._replaced_at[name] = now
        self.meter.count("llm_im_classifiers_replaced_total")
        self.log.error("classifier did not answer, restarting it", classifier=name, after_s=timeout_s)
        await self.replace(name)

    # -- Act -----------------------------------------------------------------------------------------------

    async def act(self, acts: Sequence[Act], timeout_s: float) -> Answer:
        """One action, to the responder that the incident's id names."""
        (act,) = acts
        if not self.responders:
            raise Unavailable("no responder is configured")
        name = self.responders[act.incident_id[-1] % len(self.responders)]
        said = await self.peers.call(name, "act", _encoder.encode(act), timeout_s)
        return Answer(_expect(name, said, ActionOutcome))

    # -- Page ----------------------------------------------------------------------------------------------

    async def page(self, effects: Sequence[Page], timeout_s: float) -> Answer:
        """One level of an escalation, to the responder that the incident's id names."""
        (effect,) = effects
        name = self.performer_of(effect)
        if not name:
            raise Unavailable("no responder is configured")
        said = await self.peers.call(name, "page", _encoder.encode(effect), timeout_s)
        return Answer(_expect(name, said, Paged))

    # -- Perform -------------------------------------------------------------------------------------------

    def performer_of(self, effect: Perform | Recheck | Page) -> str:
        """The responder that the incident's id names, "" if there is none, which perform() then reports."""
        if not self.responders:
            return ""
        return self.responders[effect.incident_id[-1] % len(self.responders)]

    async def perform(self, effects: Sequence[Perform], timeout_s: float) -> Answer:
        """One thing that a run asks for. What must not be done twice is asked of one life of the responder: it knows what it was
        asked for in that life, and does nothing that was meant for another one."""
        (effect,) = effects
        name = self.performer_of(effect)
        if not name:
            raise Unavailable("no responder is configured")
        if effect.once and not effect.again and effect.key not in self._lives:
            self._lives[effect.key] = await self.peers.call(name, "life", b"", LIFE_TIMEOUT_S)
        life = self._lives.get(effect.key, b"")
        asked = WorkAsked(effect.key, effect.work, effect.once, life, effect.trace)
        said = await self.peers.call(name, "work", _encoder.encode(asked), timeout_s)
        self._lives.pop(effect.key, None)
        return Answer(
            Performed(
                effect.incident_id, effect.run, effect.step, effect.number, effect.undo, effect.key, said
            )
        )

    async def recheck(self, effects: Sequence[Recheck], timeout_s: float) -> Answer:
        """A check that is asked again after its run."""
        (effect,) = effects
        name = self.performer_of(effect)
        if not name:
            raise Unavailable("no responder is configured")
        asked = WorkAsked(effect.key, effect.work, False, b"", effect.trace)
        said = await self.peers.call(name, "work", _encoder.encode(asked), timeout_s)
        return Answer(Rechecked(effect.incident_id, effect.number, effect.key, said))

    # -- SendPeerMessage -----------------------------------------------------------------------------------

    def home_of(self, message: SendPeerMessage) -> str:
        """The shard that a peer message goes to; "" while that is unknown, which send() then reports."""
        try:
            return self.shard_of(message.to)
        except (Unavailable, LookupError):
            return ""

    async def send(self, messages: Sequence[SendPeerMessage], timeout_s: float) -> Answer:
        """One message to another incident, to the shard that has it."""
        (message,) = messages
        told = PeerMessageArrived(
            message.tenant, message.sender, message.number, message.to, message.message, message.trace
        )
        reply = await self._tell(self.shard_of(message.to), told, timeout_s)
        refused = reply.detail if isinstance(reply, Failed) else ""
        return Answer(PeerMessageAnswered(message.sender, message.number, refused))

    async def _tell(self, name: str, message: Message, timeout_s: float) -> Reply:
        """What another shard replies to a message."""
        payload = _encoder.encode([encode(message)])
        try:
            said = await self.peers.call(name, "tell", payload, timeout_s)
        except NotOwner as error:
            said = await self.peers.call(error.owner, "tell", payload, timeout_s)
        try:
            (reply,) = map(decode_reply, _list_decoder.decode(said))
        except (msgspec.MsgspecError, ValueError) as error:
            raise Unavailable(
                f"{name} answered a peer message with something that is not a reply: {error}"
            ) from None
        return reply

    # -- SendInhibitors ------------------------------------------------------------------------------------

    async def send_inhibitors(self, effects: Sequence[SendInhibitors], timeout_s: float) -> Answer:
        """Which alerts inhibit others, to another shard."""
        (effect,) = effects
        reply = await self._tell(self.actor_of(effect.to), effect.news, timeout_s)
        return Answer(InhibitorsHeard(effect.to, effect.news.number, isinstance(reply, Failed)))

    # -- Archive, Forget -----------------------------------------------------------------------------------

    async def put_away(self, effects: Sequence[Archive], _timeout_s: float) -> Answer:
        """Closed incidents into the archive, as the log holds them."""
        (effect,) = effects
        entries, versions = [], []
        for identity in effect.incident_ids:
            entry = await self._read_closed(identity)
            if entry is not None:
                entries.append(entry[0])
                versions.append(entry[1])
        await self.archive.put(entries)
        self.meter.count("llm_im_archived_total", len(entries))
        return Answer(Archived([entry.incident_id for entry in entries], versions))

    async def _read_closed(self, identity: bytes) -> tuple[ArchivedIncident, int] | None:
        """A closed incident as the log holds it, and its version; None when it is not closed, or gone, by the time that its
        alerts are read."""
        shard = await self.settled()
        incident = shard.state.incidents.get(identity)
        if incident is None or incident.state is not IncidentState.CLOSED:
            return None
        alerts: list[AlertView] = []
        for place, number in enumerate(shard.state.members[identity]):
            if place % ARCHIVE_SLICE == ARCHIVE_SLICE - 1:
                await asyncio.sleep(0)
                now = await self.settled()
                # Its series do not change while it is closed. It may have been reopened, or be in the archive already.
                if (
                    now.state.incidents.get(identity) is not incident
                    or incident.state is not IncidentState.CLOSED
                ):
                    return None
            alerts.append(alert_view(shard.state.series, number))
        # Nothing was awaited since the last check, so what is written here is what the log holds.
        entry = ArchivedIncident(
            incident.id,
            incident.tenant,
            incident.service,
            incident.state,
            incident.severity,
            incident.type,
            incident.created_at,
            incident.closed_at,
            incident.updated_at,
            _encoder.encode(_with_runs(shard, incident)),
            _encoder.encode(alerts),
        )
        return entry, incident.version

    async def forget(self, effects: Sequence[Forget], _timeout_s: float) -> Answer:
        """Delete what closed before then from the archive, some at a time."""
        (effect,) = effects
        dropped, now = 0, FORGET_BATCH
        while now >= FORGET_BATCH:
            now = await self.archive.drop_before(effect.closed_before, FORGET_BATCH)
            dropped += now
            await asyncio.sleep(FORGET_PAUSE_S)
        if dropped:
            self.log.info(
                "archived incidents deleted after their retention",
                incidents=dropped,
                closed_before=effect.closed_before,
            )
        return Answer()


def _with_runs(shard: Shard, incident: Incident) -> Incident:
    """As the archive keeps it: with its runs, which a shard keeps beside it."""
    carried = shard.of(Runs).store.carried(incident.id)
    return incident if carried is None else msgspec.structs.replace(incident, runs=carried)


def _expect(name: str, said: bytes, kind: type[M]) -> M:
    try:
        message = decode_message(said)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"{name} answered with something that is not a message: {error}") from None
    if not isinstance(message, kind):
        raise Unavailable(f"{name} answered with {type(message).__name__}, expected {kind.__name__}")
    return message


_encoder = msgspec.msgpack.Encoder()
_list_decoder = msgspec.msgpack.Decoder(list[bytes])
