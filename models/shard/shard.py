"""A shard: one partition, deciding. What it knows, and how an event changes that, is in models/shard/state.py.

`handle(message, now)` decides and applies in turn, so that an alert sees what the alert before it in the same
message did; it returns the events for the log, the effects that are now owed and the reply. Nothing of a step may be
shown to anyone before its events are durable: actors/shard.py sees to that, and throws the state away when an append
fails, so that state ahead of the log was never seen.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from typing import cast

import msgspec

from models.alerts.alert import (
    OLD_KEY_BYTES,
    SERIES_ID_BYTES,
    Content,
    alert_key,
    content_digest,
    key_digest,
    old_series_id,
    same_labels,
    service_of,
)
from models.alerts.grouping import group_of, overflow_group_of, overflow_title, signal_of, title_of
from models.alerts.room import INCIDENT_BYTES, INCIDENT_TIMES, SERIES_BYTES
from models.alerts.series import FIRING
from models.errors import Broken, Refused
from models.incidents.incident import (
    AUTOMATED,
    LEGAL_MOVES,
    Incident,
    IncidentState,
    IncidentType,
    Severity,
    incident_id,
)
from models.incidents.verbs import encode as encode_verb
from models.partition.sharding import slot_of
from models.shard import children, clock, deadlines, notifications, people
from models.shard.effects import Act, Archive, Classify, Effect, Forget, SendPeerMessage
from models.shard.events import (
    AlertsObserved,
    AlertsSetAside,
    ArchiveExpired,
    CallAnswered,
    Event,
    IncidentArchived,
    IncidentClassified,
    IncidentOpened,
    IncidentStateChanged,
    OverflowMemberAdded,
    ReceptionGap,
    SeriesChanged,
    SeriesOpened,
    SeriesRefired,
    SeriesResolved,
    ShardStarted,
)
from models.shard.messages import (
    ActionOutcome,
    AlertsArrived,
    AlertsReply,
    Archived,
    Claim,
    Classification,
    Classified,
    Command,
    CommandDone,
    Decision,
    Done,
    Failed,
    GapEnded,
    Message,
    PeerMessageAnswered,
    PeerMessageArrived,
    Reply,
    Tick,
    decode_reply,
    encode,
)
from models.shard.settings import ShardSettings
from models.shard.sharing import Sharing, first_alert, labelled
from models.shard.state import SYSTEM, ShardState

#: Series ended by their time in one step: about 5 ms, so that an outage's end does not hold up a batch.
EXPIRE_MAX = 1000
#: Deadlines answered in one step, for the same reason.
DEADLINES_MAX = 500
#: An incident that no classifier has judged for so long is told of all the same. Ten times what a flood of 20,000
#: new incidents takes; a P0 is judged within milliseconds.
CLASSIFY_PATIENCE_S = 5.0
#: What an incident counts as meanwhile: better one page too many than a silent outage.
UNJUDGED_AS = Severity.P1
#: Group keys remembered; making one costs 2.5 us, finding it 0.3 us. Longer ones are made each time: 40 MB at most.
GROUPS_REMEMBERED = 16_384
GROUP_CHARS_REMEMBERED = 512
#: How long a resolved incident waits beyond close_after while a receiver is still owed word of it.
CLOSE_RECHECK_S = 60.0
#: Incidents handed to the archive at once.
ARCHIVE_BATCH = 100
#: How much later than its time an incident may be forgotten, so that there is an event an hour and not one each; of a
#: short retention a part of it.
FORGET_EVERY_S = 3600.0
FORGET_EVERY_PART = 24
#: Severity words remembered an incident: more say nothing new.
SIGNALS_MAX = 8

_content_decoder = msgspec.msgpack.Decoder(Content)


#: What became of alerts that were not taken; their sender is told so.
_REFUSED = frozenset({Decision.UNREADABLE, Decision.COLLIDED, Decision.SENDER_FULL, Decision.SHARD_FULL})
#: Decisions of which the log holds nothing.
_NOT_KEPT = frozenset({Decision.BODY_WANTED, Decision.UNREADABLE, Decision.SENDER_FULL, Decision.SHARD_FULL})
#: Events of every repeat: what the alerts of an incident share is as before.
_SAYS_NOTHING_NEW = frozenset({AlertsObserved, CallAnswered})
_ALL_REPEATED = AlertsReply(bytes([Decision.REPEATED]))
_ALL_DUPLICATE = AlertsReply(bytes([Decision.DUPLICATE]))


class Step(msgspec.Struct, frozen=True):
    """What a message led to. `events` go to the log as one frame; then `reply` and `effects` may leave."""

    events: list[Event]
    effects: list[Effect]
    reply: Reply


class Shard(ShardState):
    """One partition, deciding. `epoch`, `seq` and `trace_id` (of the frame being made) are set by its actor before handle()."""

    def __init__(self, partition: str, settings: ShardSettings) -> None:
        super().__init__(partition, settings)
        self._forget_owed = False
        #: Tries of notices that may have been asked for before, and nobody knows what came of it.
        self.asked_before: dict[bytes, tuple[int, int]] = {}
        #: The clock itself, where `now` may stand still (clock.SLACK_S).
        self._clock = 0.0
        #: The clock of the gateway that read what is being decided.
        self._received_at = 0.0
        self._groups: dict[tuple[str, ...], tuple[str, dict[str, str]]] = {}
        self._events: list[Event] = []
        self.sharing = Sharing()
        self._repeat_numbers: list[int] = []
        self._repeat_ends: list[float] = []
        #: Whose alerts are being decided about; "" while it is nobody's.
        self._sender = ""

    def take_settings(self, settings: ShardSettings) -> None:
        """Decide by these from now on. What was decided stays; what waits for a time that they move waits for the new
        one."""
        self.settings = settings
        resolved = [each for each in self.incidents.values() if each.state is IncidentState.RESOLVED]
        self._closes = [(self._close_at(each), each.id) for each in resolved]
        heapq.heapify(self._closes)
        for incident in self.incidents.values():
            self.watch(incident)

    def handle(self, message: Message, now: float) -> Step:
        """Decide about a message, apply what was decided, and say what is now owed.

        `now` is what the clock says, in seconds: one that fell by more than clock.SLACK_S is an event, which puts right
        what hung on it. Deterministic. A message that was handled before (same call_id) makes no event and gets the same
        reply.
        """
        self._events = []
        self._sender = message.sender if isinstance(message, AlertsArrived) else ""
        now = self._at(now)
        match message:
            case AlertsArrived():
                reply: Reply = self._alerts_arrived(message, now)
            case Tick():
                reply = self._tick(message, now)
            case Classified():
                for verdict in message.verdicts:
                    self._classified(verdict, now)
                reply = Done()
            case ActionOutcome():
                notifications.outcome(self, message, now)
                reply = Done()
            case Archived():
                for identity, version in zip(message.incident_ids, message.versions, strict=True):
                    self._archived(identity, version, now)
                reply = Done()
            case Command():
                reply = self._command(message, now)
            case PeerMessageArrived():
                reply = children.hear(self, message, now)
            case PeerMessageAnswered():
                children.note_answered(self, message, now)
                reply = Done()
            case GapEnded():
                self.do(
                    ReceptionGap(message.deaf_since, now + self.settings.expiry_grace_s, message.why), now
                )
                reply = Done()
            case _:
                raise Broken(f"a shard can't be told {type(message).__name__}")
        if self.sharing.touched:
            self.sharing.settle(self, now)
        events, self._events = self._events, []
        return Step(events, self._take_effects(now), reply)

    def started(self, owner: str, now: float) -> Step:
        """The first step of a writer after recovery: notes the epoch, and asks again for all that is owed."""
        self._events = []
        self._sender = ""
        # Incidents that moved here from a shard whose clock was ahead count as its time.
        self.now = max(self.now, self.order[-1][0] if self.order else 0.0)
        # A new shard has no series whose sender could have gone unheard.
        grace_s = self.settings.expiry_grace_s if self.now else 0.0
        now = self._at(now)
        # By the false time a notice may have been sent that by the right one waits still.
        is_set_back = bool(self._events)
        self.do(ShardStarted(self.epoch, owner, now + grace_s), now)
        self._expire_archive(now)
        self._forget_owed = True
        self._asked.clear()
        self._classify.clear()
        self._archive.clear()
        self._notes_asked.clear()
        for incident in self.incidents.values():
            if incident.classify_owed:
                self._classify[incident.id] = None
            if incident.state is IncidentState.CLOSED:
                self._archive[incident.id] = None
            if incident.handling is not None and incident.handling.owed:
                self._notes[incident.id] = None
            notifications.started(self, incident, now, is_set_back)
        events, self._events = self._events, []
        return Step(events, self._take_effects(now), Done())

    def _at(self, now: float) -> float:
        """The time that a message is decided at, by what the clock says: never before the one it was decided at last, but
        for an event that says so."""
        if self.now - now > clock.SLACK_S:
            self.do(clock.set_back(self, now), now)
        self._clock = now
        self.now = max(now, self.now)
        return self.now

    def ask_again(self, effect: Effect) -> None:
        """An effect could not be delivered: it is owed still, and the next step asks for it again."""
        match effect:
            case Classify():
                if effect.incident_id in self.incidents:
                    self._classify[effect.incident_id] = None
            case Archive():
                for identity in effect.incident_ids:
                    if identity in self.incidents:
                        self._archive[identity] = None
            case Forget():
                self._forget_owed = True
            case Act():
                incident = self.incidents.get(effect.incident_id)
                if incident is not None and (asked := self._asked.pop(effect.incident_id, None)) is not None:
                    self.asked_before[effect.incident_id] = asked
                    heapq.heappush(self._notices, (self.now, effect.incident_id))
            case SendPeerMessage():
                self._notes_asked.pop(effect.sender, None)
                if effect.sender in self.incidents:
                    self._notes[effect.sender] = None

    def _alerts_arrived(self, message: AlertsArrived, now: float) -> Reply:
        answered = self.calls.get(message.call_id)
        if answered is not None:
            return decode_reply(answered)
        content, delivery_id = b"", message.delivery_id
        if delivery_id is not None:
            # Who leaves out what the sender wrote means what came of it.
            content = message.content or key_digest(
                b"".join(message.keys) + array("d", message.ends).tobytes()
            )
        before = None if message.delivered_before is None else decode_reply(message.delivered_before)
        # What 0.2.0 and older accepted has a shorter digest, which says nothing about alerts of today: they are decided
        # again, since that loses none, and most will be repeats.
        if before is not None and not (
            isinstance(before, AlertsReply) and len(before.content) < len(content)
        ):
            if not isinstance(before, AlertsReply) or before.content != content:
                return Failed("Refused", "this delivery id was accepted before with other alerts or ends")
            self.decided[Decision.DUPLICATE] += len(message.keys)
            return AlertsReply(_ALL_DUPLICATE.decisions, before.incident_ids)
        keys, ends = message.keys, message.ends
        if not len(keys) == len(ends) == len(message.bodies) or len(message.said) not in (0, len(keys)):
            return Failed("Malformed", "AlertsArrived: keys, ends, bodies and said must be of one length")
        # By the earlier of two clocks nothing is over that one of them calls to come.
        self._received_at = min(message.received_at or self._clock, self._clock)
        known = [*map(self.series.firing.get, keys)]
        if (
            keys
            and None not in known
            and min(ends) > self._received_at
            and not message.said
            and (not any(message.bodies) or self._are_of(cast(list[int], known), message.bodies))
        ):
            # Every alert repeats what is firing already: nine of ten requests in an outage end here.
            self._observe(cast(list[int], known), ends, now)
            self.decided[Decision.REPEATED] += len(keys)
            reply = _ALL_REPEATED
        else:
            decisions = bytearray()
            said = message.said or bytes(len(keys))
            for key, end, body, word in zip(keys, ends, message.bodies, said, strict=True):
                decision = self._alert(message.tenant, key, end, body, word, now)
                decisions.append(decision)
                self.decided[decision] += 1
            self._flush_repeats(now)
            if not _REFUSED.isdisjoint(decisions):
                # Sent again it must be decided again: what was not taken may be taken then.
                content, delivery_id = b"", None
            alike = len(set(decisions)) <= 1
            reply = AlertsReply(bytes(decisions[:1] if alike else decisions))
            if decisions and not self._events and _NOT_KEPT.issuperset(decisions):
                return reply
        if message.want_ids or content:
            ids = [self._incident_of(key) for key in keys] if message.want_ids else []
            reply = AlertsReply(reply.decisions, ids, content)
        self.do(CallAnswered(message.call_id, encode(reply), delivery_id), now)
        return reply

    def _command(self, command: Command, now: float) -> Reply:
        """What a person wants: decided by models/shard/people.py, and answered once, however often it is asked."""
        answered = self.calls.get(command.call_id)
        if answered is not None:
            return decode_reply(answered)
        content = command.content or content_digest(
            command.incident_id, encode_verb(command.verb), command.reason.encode()
        )
        if command.delivered_before is not None:
            before = decode_reply(command.delivered_before)
            if not isinstance(before, CommandDone) or before.content != content:
                return Failed("Refused", "this Idempotency-Key was used before for something else")
            return before
        try:
            about = people.decide(self, command, now)
        except Refused as refused:
            return Failed(type(refused).__name__, str(refused))
        reply = CommandDone(about.id, about.version, content, bool(self._events))
        self.do(CallAnswered(command.call_id, encode(reply), command.delivery_id), now)
        return reply

    def _alert(self, tenant: str, key: bytes, ends: float, body: bytes, said: int, now: float) -> Decision:
        """Decide about one alert, in the order of what is most common."""
        series = self.series
        fires = not said and (ends > self._received_at or self._goes_on(key, ends, now))
        number = series.firing.get(key)
        if number is not None and fires and (not body or self._are_of((number,), (body,))):
            self._repeat_numbers.append(number)
            self._repeat_ends.append(ends)
            return Decision.REPEATED
        self._flush_repeats(now)
        number = series.by_series.get(key[:SERIES_ID_BYTES])
        if not body and (number is None or fires or series.keys[number] != key):
            return Decision.BODY_WANTED
        content: Content | None = None
        if body:
            # Read before anything is decided: one bad body must not end the shard, nor cost its neighbours.
            try:
                content = _content_decoder.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return Decision.UNREADABLE
            if number is not None and not same_labels(body, series.bodies[number]):
                return self._set_aside(Decision.COLLIDED, key, ends, body, now)
            if number is None and series.old_keys:
                number = self._with_old_key(tenant, content)
        if number is None:
            if not fires:
                return self._set_aside(Decision.UNKNOWN_RESOLVE, key, ends, body, now)
            return self._open_series(tenant, key, ends, body, content, now)
        same = key == series.keys[number] or self._is_renamed(tenant, number, key)
        if series.status[number] == FIRING:
            if fires and same:
                # Only its key is another: it began before keys were what they are.
                self.do(SeriesChanged(number, key, ends, series.bodies[number], self._sender), now)
                return Decision.REPEATED
            if fires and (full := self._full_for(number, body)) is not None:
                # It goes on firing as it was: what it says now is what there is no room for.
                self._repeat_numbers.append(number)
                self._repeat_ends.append(ends)
                return full
            if fires:
                self.do(SeriesChanged(number, key, ends, body, self._sender), now)
                return Decision.CHANGED
            if content is not None and self._is_of_before(number, content.starts_at, ends, said):
                return self._set_aside(Decision.LATE, key, ends, body, now)
            if same or self._full_for(number, body) is not None:
                # An end is always taken; without its own words where there is no room for them.
                key, body = b"", b""
            self._resolve_series(number, min(ends, self._received_at), False, key, body, now)
            return Decision.RESOLVED
        if not fires:
            if same and ends == series.ends[number]:
                return Decision.REPEATED
            return self._set_aside(Decision.UNKNOWN_RESOLVE, key, ends, body, now)
        incident = series.incidents[number]
        if incident is None or self.by_group.get((incident.tenant, incident.group_key)) is not incident:
            return self._open_series(tenant, key, ends, body, content, now)
        going_on = incident.is_open or self.may_reopen(incident, now)
        if going_on and (full := self._full_for(number, body)) is not None:
            return full
        if incident.is_open:
            self.do(SeriesRefired(number, key, ends, body, Decision.REFIRED, self._sender), now)
            return Decision.REFIRED
        if self.may_reopen(incident, now):
            self.reopen(incident, now, self._actor)
            self.do(SeriesRefired(number, key, ends, body, Decision.REOPENED, self._sender), now)
            return Decision.REOPENED
        return self._open_series(tenant, key, ends, body, content, now)

    def _full_for(self, number: int, body: bytes) -> Decision | None:
        """Why there is no room for another body of a series, None when there is. One that is no longer than the one
        before always fits."""
        table = self.series
        grows = len(body) - len(table.bodies[number])
        if grows <= 0:
            return None
        is_own = table.senders[number] == self._sender
        return self._full(grows, grows if is_own else SERIES_BYTES + len(body))

    def _full(self, size: int, of_sender: int) -> Decision | None:
        """Why there is no room for `size` bytes more, of which the sender is charged `of_sender`; None when there is."""
        room, settings = self.series.room, self.settings
        if settings.sender_bytes < settings.max_bytes and self._sender:
            # Without a name it is what older programs stored: nobody's share.
            if room.by_sender.get(self._sender, 0) + of_sender > settings.sender_bytes:
                return Decision.SENDER_FULL
        return Decision.SHARD_FULL if room.held + size > settings.max_bytes else None

    def has_room_to_say(self, incident: Incident, size: int) -> bool:
        """Whether an incident may hold `size` bytes more of what its alerts say: whoever opened it is charged."""
        room, settings = self.series.room, self.settings
        held = room.by_sender.get(incident.created_by, 0)
        return room.held + size <= settings.max_bytes and held + size <= settings.sender_bytes

    @property
    def _actor(self) -> str:
        """Who does what the alert at hand brings about, as histories name it."""
        return self._sender or SYSTEM

    def _are_of(self, numbers: Sequence[int], bodies: Sequence[bytes]) -> bool:
        """Whether these bodies, where there are any, have the labels of these series: a key alone does not prove it."""
        stored = self.series.bodies
        try:
            return all(
                not body or same_labels(body, stored[number])
                for number, body in zip(numbers, bodies, strict=True)
            )
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False

    def _with_old_key(self, tenant: str, content: Content) -> int | None:
        """The series with these labels that still has a key as 0.2.0 and older made it. Those can collide."""
        number = self.series.by_series.get(old_series_id(tenant, content.labels))
        if number is None or self.series.content(number).labels != content.labels:
            return None
        return number

    def _is_renamed(self, tenant: str, number: int, key: bytes) -> bool:
        """Whether a series with an old key says what this key of today stands for."""
        if len(self.series.keys[number]) != OLD_KEY_BYTES:
            return False
        content = self.series.content(number)
        # Nobody noted whether its sender gave a start.
        return key in (alert_key(tenant, content, 0.0), alert_key(tenant, content, content.starts_at))

    def _goes_on(self, key: bytes, ends: float, now: float) -> bool:
        """Whether an end that has passed by our clock is no word of an end. While nothing may expire our clock may be the
        one that is ahead: whoever moves an end on, as a sender does that repeats itself, says that it fires. Who ends an
        alert takes its end back by minutes."""
        if now >= self.no_expiry_before:
            return False
        number = self.series.by_series.get(key[:16])
        if number is None or self.series.status[number] != FIRING:
            return False
        # A sender that repeats itself each second ends its alerts in a few: half of that, then, and not minutes, is far.
        ahead_s = self.series.ends[number] - self.series.seen[number]
        near_s = min(clock.ON_ITS_WAY_S, ahead_s / 2) if ahead_s > 0 else clock.ON_ITS_WAY_S
        return ends > self.series.ends[number] - near_s

    def _is_of_before(self, number: int, starts: float, ends: float, said: int) -> bool:
        """Whether an end is that of an earlier life than the series' present one. Only times that its senders gave are
        compared: an end is the present life's unless it says itself that all of it was before."""
        began = self.series.starts[number]
        return (
            said != Claim.RESOLVED_NOW
            and 0.0 < starts < began
            and ends < began
            and self._starts_of(self.series.bodies[number]) > 0.0
        )

    def _open_series(
        self, tenant: str, key: bytes, ends: float, body: bytes, content: Content | None, now: float
    ) -> Decision:
        if content is None:
            raise Broken("a series can't be opened without its body")
        # As if it opened an incident of its own: whether it does is seen below.
        size = SERIES_BYTES + INCIDENT_BYTES + (1 + INCIDENT_TIMES) * len(body)
        if (full := self._full(size, size)) is not None:
            return full
        service = service_of(content.labels, self.settings.service_labels)
        group, group_labels = self._group_of(content.labels, service)
        incident = self.by_group.get((tenant, group))
        if self.other_groupings and (incident is None or not incident.is_open):
            incident = self._open_in_other_grouping(tenant, content.labels, service) or incident
        number = self.series.free_number()
        if incident is not None and incident.is_open:
            decision = Decision.JOINED
        elif incident is not None and self.may_reopen(incident, now):
            self.reopen(incident, now, self._actor)
            decision = Decision.REOPENED
        elif self.open_count < self.settings.max_open:
            incident = self._open_incident(tenant, service, group, group_labels, content, number, now)
            decision = Decision.OPENED
        else:
            incident = self._overflow(tenant, service, group, content, number, now)
            decision = Decision.OVERFLOWED
        signal = signal_of(content.labels)
        if signal in incident.signals or len(incident.signals) >= SIGNALS_MAX:
            signal = ""
        is_news = decision is Decision.JOINED and incident.is_known_of
        event = SeriesOpened(number, key, incident.id, ends, body, decision, signal, self._sender, is_news)
        self.do(event, now)
        return decision

    def _group_of(self, labels: dict[str, str], service: str) -> tuple[str, dict[str, str]]:
        """group_of(), remembered: in a flood of new series few groups are new."""
        values = (service, *[labels.get(name, "") for name in self.settings.group_by])
        found = self._groups.get(values)
        if found is None:
            found = group_of(labels, service, self.settings.group_by)
            if len(found[0]) > GROUP_CHARS_REMEMBERED:
                return found
            if len(self._groups) >= GROUPS_REMEMBERED:
                self._groups.clear()
            self._groups[values] = found
        return found

    def _open_in_other_grouping(self, tenant: str, labels: dict[str, str], service: str) -> Incident | None:
        """The open incident of an alert by the group_by that was in force when it opened: an outage that goes on is not
        told a second time because somebody changed that setting, or an upgrade did."""
        for names in self.other_groupings:
            key, _labels = group_of(labels, service, names)
            found = self.by_group.get((tenant, key))
            if found is not None and found.is_open:
                return found
        return None

    def _open_incident(
        self,
        tenant: str,
        service: str,
        group: str,
        group_labels: dict[str, str],
        content: Content,
        number: int,
        now: float,
        is_overflow: bool = False,
    ) -> Incident:
        slot = slot_of(tenant, service)
        # The series number tells apart two incidents of one group that are opened by the same frame.
        identity = incident_id(slot, now, self.epoch, self.seq, f"{group}#{number}")
        title = (
            overflow_title(service) if is_overflow else title_of(content.labels, content.annotations, service)
        )
        self.do(
            IncidentOpened(
                identity,
                slot,
                tenant,
                service,
                group,
                group_labels,
                title,
                content.annotations.get("description", ""),
                content.source,
                content.labels,
                content.annotations,
                is_overflow,
                self._actor,
            ),
            now,
        )
        return self.incidents[identity]

    def _overflow(
        self, tenant: str, service: str, group: str, content: Content, number: int, now: float
    ) -> Incident:
        key, labels = overflow_group_of(service)
        incident = self.by_group.get((tenant, key))
        if incident is not None and not incident.is_open and self.may_reopen(incident, now):
            self.reopen(incident, now, self._actor)
        elif incident is None or not incident.is_open:
            incident = self._open_incident(
                tenant, service, key, labels, content, number, now, is_overflow=True
            )
            verdict = Classification(
                incident.id,
                Severity.P1,
                IncidentType.UNKNOWN,
                "major",
                "max_concurrent_incidents",
                1.0,
                SIGNALS_MAX,
            )
            self._classified(verdict, now)
        title = title_of(content.labels, content.annotations, service)
        self.do(OverflowMemberAdded(incident.id, group, title), now)
        return incident

    def _resolve_series(
        self, number: int, ended_at: float, expired: bool, key: bytes, body: bytes, now: float
    ) -> None:
        incident = self.series.incidents[number]
        if incident is None:
            raise Broken(f"series {number} fires outside any incident")
        self.do(SeriesResolved(number, ended_at, expired, key, body, self._sender), now)
        self.ended(incident, "all its alerts expired" if expired else "all its alerts ended", now)

    def ended(self, incident: Incident, reason: str, now: float) -> None:
        """Something of an incident ended: when nothing of it goes on, neither alerts nor parts, it is resolved."""
        if incident.firing or not incident.is_open or incident.is_by_hand:
            return
        if any(part.is_open for part in incident.children.values()):
            return
        self.move(incident, IncidentState.RESOLVED, self._actor, reason, now, method=AUTOMATED)
        notifications.owe_resolved(self, incident, now)

    def may_reopen(self, incident: Incident, now: float) -> bool:
        """Whether what begins now is the same incident going on. One that a person resolved never ended while its
        alerts fire."""
        return incident.state is IncidentState.RESOLVED and (
            incident.firing > 0 or now - incident.resolved_at <= self.settings.reopen_window_s
        )

    def reopen(
        self,
        incident: Incident,
        now: float,
        actor: str = SYSTEM,
        reason: str = "fires again within reopen_window",
        method: str = AUTOMATED,
    ) -> None:
        """Resolved or closed, it goes on: who looked after it goes on doing so."""
        handling = incident.handling
        attended = incident.assignees or (handling is not None and handling.acknowledged is not None)
        after = IncidentState.INVESTIGATING if attended else IncidentState.TRIAGED
        self.move(incident, after, actor, reason, now, method)
        notifications.owe(self, incident, "reopened", now, now + self.settings.wait_s[incident.severity])

    def left_alone(self, incident: Incident, actor: str, reason: str, now: float) -> None:
        """An acknowledgement or an assignment ended: when nobody looks after it any more, it is Triaged again."""
        if incident.state is IncidentState.INVESTIGATING and not incident.is_attended:
            self.move(incident, IncidentState.TRIAGED, actor, reason, now)

    def move(
        self,
        incident: Incident,
        after: IncidentState,
        actor: str,
        reason: str,
        now: float,
        method: str = "",
        root_cause: str | None = None,
        still_firing_at: float = 0.0,
    ) -> None:
        """A legal move. The incident that this one is a part of hears of it. Raises Broken for any other move."""
        if after not in LEGAL_MOVES[incident.state]:
            raise Broken(f"incident {incident.id.hex()}: {incident.state} -> {after} is no legal move")
        was_open = incident.is_open
        self.do(
            IncidentStateChanged(
                incident.id,
                incident.state,
                after,
                actor,
                reason,
                method,
                root_cause,
                still_firing_at,
            ),
            now,
        )
        if incident.merged_into and incident.is_open != was_open:
            children.say(self, incident, now)

    def _set_aside(self, decision: Decision, key: bytes, ends: float, body: bytes, now: float) -> Decision:
        self.do(AlertsSetAside(bytes([decision]), [key], [ends], [body], self._sender), now)
        return decision

    def _incident_of(self, key: bytes) -> bytes:
        number = self.series.by_series.get(key[:SERIES_ID_BYTES])
        incident = None if number is None else self.series.incidents[number]
        return b"" if incident is None else incident.id

    def _observe(self, numbers: Sequence[int], ends: Sequence[float], now: float) -> None:
        first = ends[0]
        same = all([end == first for end in ends])
        packed = array("d", [first] if same else ends).tobytes()
        self.do(AlertsObserved(array("I", numbers).tobytes(), packed), now)

    def _flush_repeats(self, now: float) -> None:
        # Before anything else happens in this message, so that the log has the order in which it was decided.
        if self._repeat_numbers:
            numbers, self._repeat_numbers = self._repeat_numbers, []
            ends, self._repeat_ends = self._repeat_ends, []
            self._observe(numbers, ends, now)

    def _classified(self, verdict: Classification, now: float) -> None:
        incident = self.incidents.get(verdict.incident_id)
        if incident is None or verdict.asked < incident.signals_asked or not incident.classify_owed:
            return
        before = incident.severity
        self.do(
            IncidentClassified(
                incident.id,
                verdict.severity,
                verdict.type,
                verdict.impact,
                verdict.by,
                verdict.confidence,
                verdict.asked,
            ),
            now,
        )
        self.judged(incident, before, f"classified by {verdict.by}", SYSTEM, now)

    def judged(self, incident: Incident, before: Severity, reason: str, actor: str, now: float) -> None:
        """What an incident counts as may be another than `before`: what follows from that."""
        if incident.merged_into and incident.severity != before:
            children.say(self, incident, now)
        if not incident.is_open:
            return
        if incident.state is IncidentState.DETECTED:
            self.move(incident, IncidentState.TRIAGED, actor, reason, now)
        if incident.notification.number == 0:
            notifications.owe(self, incident, "opened", now, now + self.settings.wait_s[incident.severity])
        elif incident.severity < before:
            notifications.owe(self, incident, "severity changed", now, now)

    def _archived(self, identity: bytes, version: int, now: float) -> None:
        incident = self.incidents.get(identity)
        if incident is None or not incident.owes_nothing:
            return
        if incident.version != version:
            # Somebody commented on it meanwhile: what the archive has is not all of it.
            self._archive[identity] = None
        else:
            self.do(IncidentArchived(identity, self.members[identity].tobytes()), now)

    def _tick(self, tick: Tick, now: float) -> Reply:
        if not tick.deaf and now >= self.no_expiry_before:
            for number in self.series.due(self._clock, EXPIRE_MAX):
                self._resolve_series(number, self.series.ends[number], True, b"", b"", now)
        for _ in range(DEADLINES_MAX):
            if not self._closes or self._closes[0][0] > now:
                break
            _at, identity = heapq.heappop(self._closes)
            incident = self.incidents.get(identity)
            if incident is None or incident.state is not IncidentState.RESOLVED:
                continue
            if incident.notification.reason is not None or incident.firing:
                # Not closed while a receiver is still owed word of it, nor while an alert that a person did not
                # believe in still fires.
                heapq.heappush(self._closes, (now + CLOSE_RECHECK_S, identity))
            elif self._close_at(incident) <= now:
                self.move(incident, IncidentState.CLOSED, SYSTEM, "resolved for close_after", now)
        while self._unjudged and self._unjudged[0][0] + CLASSIFY_PATIENCE_S <= now:
            _at, identity = self._unjudged.popleft()
            incident = self.incidents.get(identity)
            if (
                incident is not None
                and incident.state is IncidentState.DETECTED
                and not incident.notification.number
            ):
                # A classifier that is away must not keep anyone from being told.
                notifications.owe(self, incident, "opened", now, now + self.settings.wait_s[UNJUDGED_AS])
        for _ in range(DEADLINES_MAX):
            if not self._deadlines or self._deadlines[0][0] > now:
                break
            at, identity = heapq.heappop(self._deadlines)
            if self._watched.get(identity) == at:
                del self._watched[identity]
                incident = self.incidents[identity]
                deadlines.answer(self, incident, now)
                self.watch(incident)
        # Not before started(): until then nobody knows what the log says.
        if self.no_expiry_before:
            self._expire_archive(now)
        return Done()

    def _expire_archive(self, now: float) -> None:
        keep_s = self.settings.retention_s
        before = now - keep_s
        if now < self.no_expiry_before:
            # Nor by a clock that may be ahead: what is deleted does not come back with the right one.
            return
        if before >= self.forgotten_before + min(FORGET_EVERY_S, keep_s / FORGET_EVERY_PART):
            self.do(ArchiveExpired(before), now)
            self._forget_owed = True

    def _take_effects(self, now: float) -> list[Effect]:
        """What is owed and was not asked yet."""
        effects: list[Effect] = []
        while self._notices and self._notices[0][0] <= now:
            _at, identity = heapq.heappop(self._notices)
            incident = self.incidents.get(identity)
            if incident is None or incident.notification.reason is None or incident.notification.due_at > now:
                continue
            wanted = (incident.notification.number, incident.notification.attempt)
            if self._asked.get(identity) != wanted:
                self._asked[identity] = wanted
                effects.append(notifications.act(self, incident))
        for identity in self._classify:
            incident = self.incidents.get(identity)
            if incident is not None and incident.classify_owed:
                effects.append(self._question(incident))
        self._classify.clear()
        for identity in self._notes:
            incident = self.incidents.get(identity)
            if incident is not None and incident.handling is not None and incident.handling.owed:
                note = incident.handling.owed[0]
                if self._notes_asked.get(identity) != note.number:
                    self._notes_asked[identity] = note.number
                    effects.append(
                        SendPeerMessage(incident.tenant, identity, note.number, note.to, note.note)
                    )
        self._notes.clear()
        closed = [
            identity
            for identity in self._archive
            if (found := self.incidents.get(identity)) is not None and found.owes_nothing
        ]
        self._archive.clear()
        for start in range(0, len(closed), ARCHIVE_BATCH):
            effects.append(Archive(closed[start : start + ARCHIVE_BATCH]))
        if self._forget_owed:
            self._forget_owed = False
            effects.append(Forget(self.forgotten_before))
        return effects

    def _question(self, incident: Incident) -> Classify:
        # Of its first alert, so that a rule about a label that its alerts do not share (pod) goes on being asked, and the
        # answer does not hang on how many had joined when the question was put. What people set counts as well.
        first = first_alert(self, incident)
        if first is None:
            title, description = incident.title, incident.description
            labels, annotations = incident.labels, incident.annotations
        else:
            labels, annotations = labelled(incident, first.labels), first.annotations
            title = title_of(first.labels, annotations, incident.service)
            description = annotations.get("description", "")
        return Classify(
            incident.id,
            incident.tenant,
            incident.service,
            incident.source,
            title,
            description,
            labels,
            annotations,
            list(incident.signals),
            len(incident.signals),
        )

    def do(self, event: Event, now: float) -> None:
        if type(event) in _SAYS_NOTHING_NEW:
            self.apply(event, now)
        else:
            self.sharing.before(self, event)
            self.apply(event, now)
            self.sharing.after(self, event)
        self._events.append(event)
