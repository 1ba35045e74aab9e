"""The judge of a run: folds what is durable of one partition, apart from its actor, and checks every law on the way.

feed() is called at the very moment an append became durable, before the actor knows it. So the mirror is at any
time what a replay from the empty beginning would give, with nothing truncated.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from uuid import UUID

import msgspec

from models.control.heartbeats import identity
from models.edge.agent import QUEUED
from models.edge.questions import EdgeWork, EdgeWorkPage, GetEdgeWork
from models.errors import Damaged
from models.incidents.incident import LEGAL_MOVES, Incident
from models.incidents.notification import idempotency_key
from models.incidents.query import decode_answer, decode_query
from models.incidents.views import answer
from models.partition.event import Event
from models.partition.frames import EVERYONE, NO_DIGEST, Frame
from models.partitions import decode_frame
from models.ports import Clock
from models.shard.archiving import ArchiveExpired, IncidentArchived
from models.shard.assembly import decode_message
from models.shard.edge_messages import (
    AnswerEdge,
    AskEdge,
    CheckEdge,
    ConfigureEdge,
    ConnectEdge,
    DeliverEdge,
    DisconnectEdge,
    EdgeActionQueued,
    HoldEdges,
    ReportEdge,
    TellEdge,
    WithdrawEdge,
)
from models.shard.edge_outbox import EdgeOutbox
from models.shard.events import (
    ActionFailed,
    ActionSucceeded,
    AlertsObserved,
    AlertsSetAside,
    CallAnswered,
    ClockSetBack,
    IncidentOpened,
    IncidentStateChanged,
    NotificationDropped,
    NotificationOwed,
    SeriesChanged,
    SeriesOpened,
    SeriesRefired,
    SeriesResolved,
    ShardStarted,
)
from models.shard.heartbeats import Beats, HeartbeatsOfShard
from models.shard.inhibitors import Inhibitors, InhibitorsChanged
from models.shard.known_playbooks import PlaybooksHeard
from models.shard.messages import (
    AlertsArrived,
    AlertsReply,
    Command,
    CommandDone,
    Decision,
    Done,
    Failed,
    PeerMessageArrived,
    decode_reply,
)
from models.shard.reception import ReceptionGap
from models.shard.relations import Related, Relations
from models.shard.runs import Runs
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from models.shard.state import CALL_WINDOW_S
from models.shard.telling import AT_ONCE, BY_PLAYBOOK, ESCALATED
from models.stream.happenings import about
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.simulation.dump import difference, dump, unsound

#: What is told about edge agents; what must hold of the answers is in areas/edge.py, but for what is said to be in the log.
EDGE_MESSAGES = (
    AnswerEdge, AskEdge, CheckEdge, ConfigureEdge, ConnectEdge, DeliverEdge, DisconnectEdge, HoldEdges, ReportEdge, TellEdge, WithdrawEdge,
)  # fmt: skip
_list_decoder = msgspec.msgpack.Decoder(list[bytes])
_NOT_KEPT = {Decision.BODY_WANTED, Decision.DUPLICATE}


class Watcher:
    """What the durable log of one partition says. `fail(law, how)` is told of every broken law."""

    def __init__(
        self,
        partition: str,
        settings: ShardSettings,
        store: MemoryStore,
        clock: Clock,
        fail: Callable[[str], None],
        *,
        may_expire: Callable[[bytes, float], str],
        was_ended: Callable[[bytes, float], bool],
        was_received: Callable[[str, str], bool],
        seen: Callable[[Watcher, Event], None],
    ) -> None:
        self.partition = partition
        self.settings = settings
        self.store = store
        self.clock = clock
        self.mirror = Shard(partition, settings)
        self.seq = 0
        self.digest = NO_DIGEST
        self.frames: list[Frame] = []
        self.answered: dict[bytes, tuple[float, bytes]] = {}
        self.delivered: set[str] = set()
        self.known: set[bytes] = set()
        self.ended: set[bytes] = set()
        self.set_aside: set[bytes] = set()
        self.gone: dict[bytes, Incident] = {}
        self.counts: dict[str, int] = {}
        self.decided = [0] * (max(Decision) + 1)
        #: What a receiver was told last of an incident, "" when it is in doubt, and when.
        self.believed: dict[tuple[bytes, str], str] = {}
        #: Incidents that a playbook escalated.
        self.escalated_by_playbook: set[bytes] = set()
        self.heard_at: dict[tuple[bytes, str], float] = {}
        #: Incidents of which the log says that a failed try may have been heard: it had been asked for before, too.
        self.doubted: set[tuple[bytes, str]] = set()
        self.hurried: set[tuple[bytes, str, int]] = set()
        self._fail = fail
        self._may_expire = may_expire
        self._was_ended = was_ended
        self._was_received = was_received
        self._seen = seen

    def fail(self, how: str) -> None:
        self._fail(f"{self.partition} at seq {self.seq}: {how}")

    # -- the log -------------------------------------------------------------------------------------------

    def feed(self) -> None:
        """Fold what became durable since the last time."""
        stored = self.store.partition(self.partition)
        if stored.last_seq < self.seq:
            self.fail(f"the log ends at {stored.last_seq}: durable frames are gone")
            return
        fresh = []
        for append in reversed(stored.appends):
            if append.last_seq <= self.seq:
                break
            fresh.append(append)
        for append in reversed(fresh):
            for offset, frame in enumerate(append.frames or ()):
                self._frame(append.first_seq + offset, frame)

    def _frame(self, seq: int, stored: bytes) -> None:
        if seq != self.seq + 1:
            self.fail(f"frame {seq} follows")
            return
        try:
            frame = decode_frame(self.partition, stored, seq, self.digest)
        except Damaged as error:
            self.fail(str(error))
            return
        first = frame.events[0] if frame.events else None
        is_set_back = isinstance(first, ClockSetBack) and first.after == frame.now
        if self.frames and frame.now < self.frames[-1].now and not is_set_back:
            self.fail(f"now went back from {self.frames[-1].now} to {frame.now}")
        if not frame.events:
            self.fail("a frame without events")
        self.seq, self.digest = seq, frame.digest
        self.frames.append(frame)
        moved = False
        for event in frame.events:
            name = type(event).__name__
            self.counts[name] = self.counts.get(name, 0) + 1
            self._before(event, frame)
            self.mirror.apply(event, frame.now)
            self._seen(self, event)
            moved = moved or isinstance(event, IncidentOpened | IncidentStateChanged)
            if (owners := self._owners(event)) - {frame.tenant}:
                self.fail(f"a frame of {frame.tenant!r} has a {name} of {owners}")
        self.mirror.seq = seq
        if moved and (why := unsound(self.mirror)):
            self.fail(why)

    def _before(self, event: Event, frame: Frame) -> None:
        """Laws about one event, given the state it meets."""
        mirror, now = self.mirror, frame.now
        match event:
            case ShardStarted():
                if mirror.state.incidents and event.no_expiry_before < now + self.settings.expiry_grace_s:
                    self.fail("a start without grace")
            case IncidentStateChanged():
                incident = mirror.state.incidents[event.incident_id]
                if event.before != incident.state or event.after not in LEGAL_MOVES[incident.state]:
                    self.fail(
                        f"{incident.state} -> {event.after} (said to be from {event.before}) is no legal move"
                    )
                if not event.actor or not event.reason:
                    self.fail("a move without actor or reason")
            case SeriesResolved():
                if event.expired:
                    key = mirror.state.series.keys[event.number]
                    if now < mirror.state.no_expiry_before:
                        self.fail(
                            f"series {event.number} expired {mirror.state.no_expiry_before - now:.1f} s too early"
                        )
                    if mirror.state.series.ends[event.number] > now:
                        self.fail(f"series {event.number} expired before its end")
                    if why := self._may_expire(key[:16], mirror.state.series.starts[event.number]):
                        self.fail(why)
                elif not self._was_ended(mirror.state.series.keys[event.number][:16], event.ended_at):
                    self.fail(
                        f"series {event.number} ended at {event.ended_at}, and its sender never said so"
                    )
                self.ended.add(mirror.state.series.keys[event.number][:16])
                self.known.add(event.key)
            case ClockSetBack():
                if event.no_expiry_before < now + self.settings.expiry_grace_s:
                    self.fail("a clock set back without grace")
                for call, (at, reply) in self.answered.items():
                    self.answered[call] = (min(at, event.after), reply)
                for identity, at in self.heard_at.items():
                    if at > event.after:
                        self.heard_at[identity] = at - (event.before - event.after)
                # What waited when the time was false comes sooner rather than never.
                self.hurried.update(
                    (each.id, name, notification.number)
                    for each in mirror.state.incidents.values()
                    for name, notification in each.notifications.items()
                    if notification.reason
                )
            case SeriesOpened() | SeriesChanged() | SeriesRefired():
                self.known.add(event.key)
            case AlertsSetAside():
                self.set_aside.update(event.keys)
            case CallAnswered():
                before = self.answered.get(event.call_id)
                if before is not None and now - before[0] < CALL_WINDOW_S:
                    self.fail(f"call {event.call_id.hex()} made events twice")
                self.answered[event.call_id] = (now, event.reply)
                if event.delivery_id is not None:
                    if event.delivery_id in self.delivered:
                        self.fail(f"delivery {event.delivery_id} was counted twice")
                    self.delivered.add(event.delivery_id)
            case ActionSucceeded():
                sent_as = idempotency_key(event.incident_id, event.number, event.attempt, event.receiver)
                if not self._was_received(event.receiver, sent_as):
                    self.fail(
                        f"notification {event.reason} of {UUID(bytes=event.incident_id)} was never received"
                    )
                self._told(event, now)
            case NotificationDropped():
                self._settled(event)
            case NotificationOwed():
                self._owed(event, now)
                notification = mirror.state.incidents[event.incident_id].notification_of(event.receiver)
                if event.number == notification.number and event.due_at < notification.due_at:
                    # It got more severe while a notification waited.
                    self.hurried.add((event.incident_id, event.receiver, event.number))
            case ActionFailed() if event.reached:
                self.doubted.add((event.incident_id, event.receiver))
                self._told(event, now)
            case IncidentArchived():
                if event.incident_id not in self.store.partition(self.partition).incidents:
                    self.fail(f"{event.incident_id.hex()} left its shard and is not in the archive")
                self.gone[event.incident_id] = mirror.state.incidents[event.incident_id]
            case _:
                pass

    def _owners(self, event: Event) -> set[str]:
        """Whose an event is that was just applied: of all that it names; empty when it names nothing."""
        if isinstance(event, ShardStarted | ReceptionGap | ClockSetBack | ArchiveExpired | PlaybooksHeard):
            return {EVERYONE}
        if isinstance(event, EdgeActionQueued):
            # Its incident may be another shard's: the agent's place says which shard has this.
            return {event.tenant}
        state = self.mirror.state
        names = {getattr(event, "incident_id", b""), *about(event)} - {b""}
        owners = {(state.incidents.get(name) or self.gone[name]).tenant for name in names}
        match event:
            case AlertsObserved():
                numbers = [*array("I", event.numbers)]
            case SeriesChanged() | SeriesResolved() | SeriesRefired():
                numbers = [event.number]
            case _:
                numbers = []
        found = [state.series.incidents[number] for number in numbers]
        return owners | {each.tenant for each in found if each is not None}

    def _owed(self, event: NotificationOwed, now: float) -> None:
        """Nobody is told anew of what somebody is on, and only whom routes escalate to is told of what nobody is."""
        incident = self.mirror.state.incidents[event.incident_id]
        name, key = UUID(bytes=incident.id), (incident.id, event.receiver)
        is_new = event.number != incident.notification_of(event.receiver).number
        if event.heard_at:
            # The end of what a page of a playbook opened since it was last told of an end.
            if event.receiver not in self.mirror.of(Runs).store.of(incident.id).told or incident.is_open:
                self.fail(f"{name} is owed to {event.receiver} as resolved, and no playbook told it")
            if self.believed.get(key) == "resolved" and event.heard_at < self.heard_at.get(key, 0.0):
                self.fail(f"{name} is owed to {event.receiver} as resolved again")
            self.believed[key] = "firing"
        elif event.reason == "still unacknowledged" and not event.queued and is_new:
            since_s = event.due_at - self.heard_at.get(key, -math.inf)
            if incident.is_attended or since_s < self.settings.interval_s:
                self.fail(
                    f"{name} is told again {since_s:.2f} s after the last word; {incident.is_attended=}"
                )
        elif event.reason == BY_PLAYBOOK:
            if not self.mirror.of(Runs).store.of(incident.id).runs:
                self.fail(f"{name} is escalated by a playbook, and none ran")
            self.escalated_by_playbook.add(incident.id)
        elif event.receiver == "boss" and is_new and self.believed.get(key) is None and not event.queued:
            if incident.id not in self.escalated_by_playbook and (
                not incident.targets_told & 2 or event.reason not in (ESCALATED, "resolved")
            ):
                self.fail(f"{name} is escalated, and nobody was late: {event.reason}")

    def _told(self, event: ActionSucceeded | ActionFailed, now: float) -> None:
        """No receiver is told twice of one opening or one end, nor sooner than an interval after the last word."""
        identity, name = (event.incident_id, event.receiver), f"{UUID(bytes=event.incident_id)}"
        is_sure = isinstance(event, ActionSucceeded)
        says = "resolved" if event.reason == "resolved" else "firing"
        self.counts[f"told {event.reason}"] = self.counts.get(f"told {event.reason}", 0) + is_sure
        self.counts[f"told at {event.receiver}"] = self.counts.get(f"told at {event.receiver}", 0) + is_sure
        is_state = event.reason in ("opened", "reopened", "resolved")
        if is_sure and is_state and self.believed.get(identity) == says:
            self.fail(f"{event.receiver} was told twice that {name} is {says}")
        if says == "resolved" and event.receiver == "db-team":
            self.fail(f"{event.receiver} was told that {name} is resolved")
        since_s = now - self.heard_at.get(identity, -math.inf)
        is_urgent = event.reason in AT_ONCE or (*identity, event.number) in self.hurried
        if not event.attempt and not is_urgent and since_s < self.settings.interval_s:
            self.fail(
                f"{event.receiver} was told of {event.reason} {since_s:.2f} s after the last word: {name}"
            )
        self.heard_at[identity] = now
        if is_sure or self.believed.get(identity) != says:
            self.believed[identity] = says if is_sure else ""

    def _settled(self, event: NotificationDropped) -> None:
        """To who is told of no ends an end counts as told."""
        if event.settled and event.receiver != "db-team":
            self.fail(f"{event.receiver} is not told that {UUID(bytes=event.incident_id)} is resolved")
        if event.settled:
            self.believed[event.incident_id, event.receiver] = "resolved"

    # -- what others see -----------------------------------------------------------------------------------

    def told(self, payload: bytes, replies: bytes) -> None:
        """The shard answers a call now: what it acknowledges must be durable."""
        for encoded, answered in zip(
            _list_decoder.decode(payload), _list_decoder.decode(replies), strict=True
        ):
            message, reply = decode_message(encoded), decode_reply(answered)
            match message, reply:
                case AlertsArrived(), AlertsReply():
                    self._alerts_answered(message, reply, answered)
                case Command(), CommandDone():
                    if message.delivery_id not in self.delivered:
                        self.fail(f"{message.verb} of {message.actor} is acknowledged and not in the log")
                case PeerMessageArrived(), Done() | Failed(kind="Conflict"):
                    heard = self.mirror.state.incidents.get(message.to) or self.gone[message.to]
                    if heard.heard_of(message.sender)[0] < message.number:
                        self.fail(
                            f"peer message {message.number} of {message.sender.hex()} is answered and not in the log"
                        )
                case Command() | PeerMessageArrived(), Failed():
                    pass
                case InhibitorsChanged(), Done():
                    heard_to = self.mirror.of(Inhibitors).heard.get(message.sender, (0, 0))
                    if heard_to < (message.epoch, message.number):
                        self.fail(f"word of {message.sender} is acknowledged and not in the log")
                case InhibitorsChanged(), Failed(kind="Stale"):
                    pass
                case Beats(), Done():
                    noted = self.mirror.of(HeartbeatsOfShard).pulses
                    if not all(noted[identity(message.tenant, name)].last_at for name in message.names):
                        self.fail(f"the first beat of {message.names} is answered and not in the log")
                case Related(), Done():
                    kept = self.mirror.of(Relations).kept.get(message.incident_id)
                    if kept is not None and kept.number < message.number:
                        self.fail(f"word {message.number} of {message.incident_id.hex()} is not in the log")
                case Beats(), Failed(kind="Busy"):
                    pass
                case AskEdge() | DeliverEdge() | AnswerEdge(), Done() if message.action:
                    agent = self.mirror.of(EdgeOutbox).find(message.tenant, message.agent)
                    action = None if agent is None else agent.actions.get(message.action)
                    if action is None or (action.state == QUEUED and not isinstance(message, AskEdge)):
                        self.fail(f"{message!r} is answered and not in the log")
                case _, Done() | Failed() if isinstance(message, EDGE_MESSAGES):
                    pass
                case _:
                    self.fail(f"answered {message!r} with {reply!r}")

    def _alerts_answered(self, message: AlertsArrived, reply: AlertsReply, answered: bytes) -> None:
        decisions = {reply.decision(place) for place in range(len(message.keys))}
        if decisions <= _NOT_KEPT and len(decisions) == 1:
            if Decision.DUPLICATE in decisions and message.delivery_id not in self.delivered:
                self.fail(f"{message.delivery_id} is called a repeat and was never kept")
            return
        found = self.answered.get(message.call_id)
        if found is None:
            self.fail("acknowledged a call that is not in the log")
        elif found[1] != answered:
            self.fail("a repeated call got another answer than the log has")

    def acknowledged(self, key: bytes, decision: Decision) -> str:
        """Why an acknowledged alert is lost, "" when it is not."""
        if decision is Decision.DUPLICATE:
            return ""
        if decision in {Decision.UNKNOWN_RESOLVE, Decision.LATE}:
            return "" if key in self.set_aside else "was set aside, and the log does not have it"
        if decision is Decision.RESOLVED:
            return "" if key[:16] in self.ended else "was resolved, and the log does not say so"
        return "" if key in self.known else f"was {decision.name.lower()}, and the log does not know it"

    def asked(self, payload: bytes, answered: bytes) -> None:
        """The shard answers a read now: it must be what the durable log says, all of it and no more."""
        query, found = decode_query(payload), decode_answer(answered)
        if isinstance(query, GetEdgeWork) and isinstance(found, EdgeWorkPage):
            # Whose time is over a shard leaves out by its clock, which no frame has.
            is_true = all(self._is_to_be_sent(query.tenant, work) for work in found.items)
        else:
            is_true = answer(self.mirror, query) == found
        if not is_true:
            self.fail("a read shows something else than the durable log")

    def _is_to_be_sent(self, tenant: str, work: EdgeWork) -> bool:
        agent = self.mirror.of(EdgeOutbox).find(tenant, work.agent)
        return (
            agent is not None
            and agent.stream == work.stream
            and all(
                agent.actions.get(each.id) == each and each.is_open and each.stream != work.stream
                for each in work.actions
            )
        )

    def compare(self, shard: Shard, which: str) -> None:
        """`shard` must be in the state that the durable log gives."""
        # A shard forgets calls as time passes, event or not; nobody may ask for those.
        now = max(self.mirror.now, shard.now) + 10.0
        if why := difference(dump(self.mirror, now), dump(shard, now)):
            self.fail(f"{which} is not what replay gives: {why}")
        elif why := unsound(shard):
            self.fail(f"{which}: {why}")

    async def check_snapshot(self) -> None:
        """The newest snapshot and the log behind it must give the state that a whole replay gives."""
        mark = self.store.partition(self.partition).marks[0]
        shard = Shard(self.partition, self.settings)
        async for page in MemoryEventLog(self.store, self.partition).records(mark.generation):
            shard.load(page)
        shard.loaded()
        if mark.digest != self.frames[mark.seq - 1].digest:
            self.fail("the snapshot's digest is not that of its last frame")
        for frame in self.frames[mark.seq :]:
            for event in frame.events:
                shard.apply(event, frame.now)
        self.compare(shard, f"the snapshot at {mark.seq} with its tail")
