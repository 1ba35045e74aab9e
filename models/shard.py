"""A shard: everything one partition knows, changed only by events.

`handle(message, now)` decides and applies in turn, so that an alert sees what the alert before it in the same
message did; it returns the events for the log, the effects that are now owed and the reply. `apply(event, now)`
is the only way state changes, live and in replay, so both end up equal (tests/rules/test_replay.py). Nothing of
a step may be shown to anyone before its events are durable: actors/shard.py sees to that, and throws the state away
when an append fails, so that state ahead of the log was never seen.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from models import deadlines, moving, parts, people, response
from models.alert import Content, content_digest, service_of
from models.checkpoint import Checkpoint, Part, parse_key
from models.effects import Act, Archive, Classify, Effect, Forget, Tell
from models.errors import Broken, Refused
from models.events import (
    AlertsObserved,
    AlertsSetAside,
    ArchiveExpired,
    CallAnswered,
    Event,
    HeardAgain,
    IncidentArchived,
    IncidentClassified,
    IncidentOpened,
    IncidentStateChanged,
    OverflowMemberAdded,
    SeriesChanged,
    SeriesOpened,
    SeriesRefired,
    SeriesResolved,
    ShardStarted,
    SlotArrived,
    SlotLeft,
)
from models.grouping import group_of, overflow_group_of, signal_of, title_of
from models.incident import (
    LEGAL_MOVES,
    Incident,
    IncidentState,
    IncidentType,
    Judgement,
    Resolution,
    Severity,
    TimelineEntry,
    incident_id,
)
from models.messages import (
    ActionOutcome,
    AlertsArrived,
    AlertsReply,
    Archived,
    Classified,
    Command,
    CommandDone,
    Decision,
    Done,
    Failed,
    Heard,
    Message,
    NoteAnswered,
    Reply,
    Tick,
    Told,
    Verdict,
    decode_reply,
    encode,
)
from models.series import BLOCK_SHIFT, FIRING, SeriesTable
from models.sharding import slot_of
from models.verbs import encode as encode_verb

#: The layout of snapshot records. The log behind a snapshot is truncated, so a program with a new version must also
#: read the one before (an upcast in load()); one that can't refuses to open rather than lose what was dropped.
SNAPSHOT_VERSION = 1
#: A gateway gives a call up after `hold` (5 s) and never sends its id again; this is 24 times that.
CALL_WINDOW_S = 120.0
#: Call ids are forgotten and written to snapshots by the bucket.
CALL_BUCKET_S = 10.0
#: Series ended by their time in one step: about 5 ms, so that an outage's end does not hold up a batch.
EXPIRE_MAX = 1000
#: Deadlines answered in one step, for the same reason.
DEADLINES_MAX = 500
#: Deadlines that were overtaken and are kept until their time, beside as many as there are incidents: sorting them
#: out costs 0.2 us each.
DEADLINES_SLACK = 10_000
#: An incident that no classifier has judged for so long is told of all the same. Ten times what a flood of 20,000
#: new incidents takes; a P0 is judged within milliseconds.
CLASSIFY_PATIENCE_S = 5.0
#: What an incident counts as meanwhile: better one page too many than a silent outage.
UNJUDGED_AS = Severity.P1
#: Group keys remembered; making one costs 2.5 us, finding it 0.3 us.
GROUPS_REMEMBERED = 16_384
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
#: Lines of an incident's timeline kept in memory, beside what people wrote, which is all kept (WRITTEN_LINES_MAX);
#: `timeline_dropped` counts older ones.
TIMELINE_MAX = 500
#: Kinds of line that people wrote.
WRITTEN = frozenset({"CommentAdded", "StakeholdersUpdated"})
#: Groups listed in an overflow incident; `overflow_count` counts all that joined.
OVERFLOW_LISTED = 1000

SYSTEM = "system"
_content_decoder = msgspec.msgpack.Decoder(Content)


class _Start(msgspec.Struct, array_like=True, gc=False):
    """An alert.Content of which only the start is wanted: a fifth of the time."""

    labels: msgspec.Raw
    annotations: msgspec.Raw
    starts_at: float


_start_decoder = msgspec.msgpack.Decoder(_Start)
_incident_decoder = msgspec.msgpack.Decoder(Incident)
_calls_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]])
#: `now`, `no_expiry_before`, and since 0.2.0 `forgotten_before`.
_meta_decoder = msgspec.msgpack.Decoder(tuple[float, ...])
_encoder = msgspec.msgpack.Encoder()

_ALL_REPEATED = AlertsReply(bytes([Decision.REPEATED]))
_ALL_DUPLICATE = AlertsReply(bytes([Decision.DUPLICATE]))


class ShardSettings(msgspec.Struct, frozen=True):
    """The settings a shard decides by; times in seconds. bootstrap.py makes it from models/config.py."""

    group_by: tuple[str, ...] = ("alertname",)
    service_labels: tuple[str, ...] = ("service",)
    reopen_window_s: float = 1800.0
    close_after_s: float = 3600.0
    expiry_grace_s: float = 300.0
    max_open: int = 100_000
    notify: bool = False
    wait_s: tuple[float, ...] = (0.0, 0.0, 30.0, 120.0, 300.0)
    retry_first_s: float = 1.0
    retry_max_s: float = 300.0
    give_up_after_s: float = 86400.0
    webhook_max_alerts: int = 100
    external_url: str = ""
    #: Response targets by severity; 0: none.
    acknowledge_within_s: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    resolve_within_s: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    #: How long the archive keeps what is closed.
    retention_s: float = 90 * 86400.0


def encode_shard_settings(settings: ShardSettings) -> bytes:
    return _encoder.encode(settings)


def decode_shard_settings(encoded: bytes) -> ShardSettings:
    return msgspec.msgpack.decode(encoded, type=ShardSettings)


class Step(msgspec.Struct, frozen=True):
    """What a message led to. `events` go to the log as one frame; then `reply` and `effects` may leave."""

    events: list[Event]
    effects: list[Effect]
    reply: Reply


class Shard:
    """The state of one partition. `epoch`, `seq` and `trace_id` (of the frame being made, or replayed) are set by its
    actor before handle() and apply()."""

    def __init__(self, partition: str, settings: ShardSettings) -> None:
        self.partition = partition
        self.settings = settings
        self.epoch = 0
        self.seq = 0
        self.trace_id: str | None = None
        self.now = 0.0
        self.no_expiry_before = 0.0
        self.forgotten_before = 0.0
        self.series = SeriesTable()
        self.incidents: dict[bytes, Incident] = {}
        self.members: dict[bytes, array[int]] = {}
        self.by_group: dict[tuple[str, str], Incident] = {}
        self.by_label: dict[tuple[str, str], dict[bytes, None]] = {}
        self.overflows: dict[bytes, None] = {}
        self.order: list[tuple[float, bytes]] = []
        self.open_count = 0
        self.calls: dict[bytes, bytes] = {}
        self.checkpoint = Checkpoint(self._capture)
        self.decided = array("Q", bytes(8 * 16))
        self._call_buckets: dict[int, list[bytes]] = {}
        self._closes: list[tuple[float, bytes]] = []
        self._notices: list[tuple[float, bytes]] = []
        self._unjudged: deque[tuple[float, bytes]] = deque()
        self._classify: dict[bytes, None] = {}
        self._archive: dict[bytes, None] = {}
        self._forget_owed = False
        self._asked: dict[bytes, tuple[int, int]] = {}
        self._deadlines: list[tuple[float, bytes]] = []
        self._watched: dict[bytes, float] = {}
        self._notes: dict[bytes, None] = {}
        self._notes_asked: dict[bytes, int] = {}
        self._groups: dict[tuple[str, ...], tuple[str, dict[str, str]]] = {}
        self._events: list[Event] = []
        self._repeat_numbers: list[int] = []
        self._repeat_ends: list[float] = []

    # -- live ----------------------------------------------------------------------------------------------

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

        `now` is in seconds and never goes back: an earlier one counts as the latest seen. Deterministic. A
        message that was handled before (same call_id) makes no event and gets the same reply.
        """
        self.now = now = max(now, self.now)
        self._events = []
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
                response.outcome(self, message, now)
                reply = Done()
            case Archived():
                for identity, version in zip(message.incident_ids, message.versions, strict=True):
                    self._archived(identity, version, now)
                reply = Done()
            case Command():
                reply = self._command(message, now)
            case Told():
                reply = parts.hear(self, message, now)
            case NoteAnswered():
                parts.note_answered(self, message, now)
                reply = Done()
            case Heard():
                self.do(HeardAgain(message.deaf_since, now + self.settings.expiry_grace_s, message.why), now)
                reply = Done()
            case _:
                raise Broken(f"a shard can't be told {type(message).__name__}")
        events, self._events = self._events, []
        return Step(events, self._take_effects(now), reply)

    def started(self, owner: str, now: float) -> Step:
        """The first step of a writer after recovery: notes the epoch, and asks again for all that is owed."""
        self.now = now = max(now, self.now)
        self._events = []
        # An empty shard has no series whose sender could have gone unheard.
        grace_s = self.settings.expiry_grace_s if self.incidents else 0.0
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
        events, self._events = self._events, []
        return Step(events, self._take_effects(now), Done())

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
                if incident is not None and self._asked.pop(effect.incident_id, None) is not None:
                    heapq.heappush(self._notices, (self.now, effect.incident_id))
            case Tell():
                self._notes_asked.pop(effect.sender, None)
                if effect.sender in self.incidents:
                    self._notes[effect.sender] = None

    def _alerts_arrived(self, message: AlertsArrived, now: float) -> Reply:
        answered = self.calls.get(message.call_id)
        if answered is not None:
            return decode_reply(answered)
        content = b"" if message.delivery_id is None else content_digest(*message.keys)
        if message.delivered_before is not None:
            before = decode_reply(message.delivered_before)
            if not isinstance(before, AlertsReply) or before.content != content:
                return Failed("Refused", "this delivery id was accepted before with other alerts")
            self.decided[Decision.DUPLICATE] += len(message.keys)
            return AlertsReply(_ALL_DUPLICATE.decisions, before.incident_ids)
        keys, ends = message.keys, message.ends
        if not len(keys) == len(ends) == len(message.bodies):
            return Failed("Malformed", "AlertsArrived: keys, ends and bodies must be of one length")
        known = [*map(self.series.firing.get, keys)]
        if keys and None not in known and min(ends) > now:
            # Every alert repeats what is firing already: nine of ten requests in an outage end here.
            self._observe(cast(list[int], known), ends, now)
            self.decided[Decision.REPEATED] += len(keys)
            reply = _ALL_REPEATED
        else:
            decisions = bytearray()
            for key, end, body in zip(keys, ends, message.bodies, strict=True):
                decision = self._alert(message.tenant, key, end, body, now)
                decisions.append(decision)
                self.decided[decision] += 1
            self._flush_repeats(now)
            alike = len(set(decisions)) <= 1
            reply = AlertsReply(bytes(decisions[:1] if alike else decisions))
            if alike and decisions and decisions[0] == Decision.BODY_WANTED:
                return reply
        if message.want_ids or content:
            ids = [self._incident_of(key) for key in keys] if message.want_ids else []
            reply = AlertsReply(reply.decisions, ids, content)
        self.do(CallAnswered(message.call_id, encode(reply), message.delivery_id), now)
        return reply

    def _command(self, command: Command, now: float) -> Reply:
        """What a person wants: decided by models/people.py, and answered once, however often it is asked."""
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
        reply = CommandDone(about.id, about.version, content)
        self.do(CallAnswered(command.call_id, encode(reply), command.delivery_id), now)
        return reply

    def _alert(self, tenant: str, key: bytes, ends: float, body: bytes, now: float) -> Decision:
        """Decide about one alert, in the order of what is most common."""
        series = self.series
        fires = ends > now
        number = series.firing.get(key)
        if number is not None and fires:
            self._repeat_numbers.append(number)
            self._repeat_ends.append(ends)
            return Decision.REPEATED
        self._flush_repeats(now)
        number = series.by_series.get(key[:16])
        if not body and (number is None or fires or series.keys[number] != key):
            return Decision.BODY_WANTED
        content: Content | None = None
        if body:
            # Read before anything is decided: one bad body must not end the shard, nor cost its neighbours.
            try:
                content = _content_decoder.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return Decision.UNREADABLE
        if number is None:
            if not fires:
                return self._set_aside(Decision.UNKNOWN_RESOLVE, key, ends, body, now)
            return self._open_series(tenant, key, ends, body, content, now)
        if series.status[number] == FIRING:
            if fires:
                self.do(SeriesChanged(number, key, ends, body), now)
                return Decision.CHANGED
            if ends < series.starts[number]:
                return self._set_aside(Decision.LATE, key, ends, body, now)
            same = key == series.keys[number]
            self._resolve_series(number, ends, False, b"" if same else key, b"" if same else body, now)
            return Decision.RESOLVED
        if not fires:
            if key == series.keys[number] and ends == series.ends[number]:
                return Decision.REPEATED
            return self._set_aside(Decision.LATE, key, ends, body, now)
        incident = series.incidents[number]
        if incident is None or self.by_group.get((incident.tenant, incident.group_key)) is not incident:
            return self._open_series(tenant, key, ends, body, content, now)
        if incident.is_open:
            self.do(SeriesRefired(number, key, ends, body, Decision.REFIRED), now)
            return Decision.REFIRED
        if self.may_reopen(incident, now):
            self.reopen(incident, now)
            self.do(SeriesRefired(number, key, ends, body, Decision.REOPENED), now)
            return Decision.REOPENED
        return self._open_series(tenant, key, ends, body, content, now)

    def _open_series(
        self, tenant: str, key: bytes, ends: float, body: bytes, content: Content | None, now: float
    ) -> Decision:
        if content is None:
            raise Broken("a series can't be opened without its body")
        service = service_of(content.labels, self.settings.service_labels)
        group, group_labels = self._group_of(content.labels, service)
        incident = self.by_group.get((tenant, group))
        number = self.series.free_number()
        if incident is not None and incident.is_open:
            decision = Decision.JOINED
        elif incident is not None and self.may_reopen(incident, now):
            self.reopen(incident, now)
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
        self.do(SeriesOpened(number, key, incident.id, ends, body, decision, signal), now)
        return decision

    def _group_of(self, labels: dict[str, str], service: str) -> tuple[str, dict[str, str]]:
        """group_of(), remembered: in a flood of new series few groups are new."""
        values = (service, *[labels.get(name, "") for name in self.settings.group_by])
        found = self._groups.get(values)
        if found is None:
            found = group_of(labels, service, self.settings.group_by)
            if len(self._groups) >= GROUPS_REMEMBERED:
                self._groups.clear()
            self._groups[values] = found
        return found

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
        title = f"Too many incidents: overflow of {service}" if is_overflow else title_of(content, service)
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
            self.reopen(incident, now)
        elif incident is None or not incident.is_open:
            incident = self._open_incident(
                tenant, service, key, labels, content, number, now, is_overflow=True
            )
            verdict = Verdict(
                incident.id,
                Severity.P1,
                IncidentType.UNKNOWN,
                "major",
                "max_concurrent_incidents",
                1.0,
                SIGNALS_MAX,
            )
            self._classified(verdict, now)
        self.do(OverflowMemberAdded(incident.id, group, title_of(content, service)), now)
        return incident

    def _resolve_series(
        self, number: int, ended_at: float, expired: bool, key: bytes, body: bytes, now: float
    ) -> None:
        incident = self.series.incidents[number]
        if incident is None:
            raise Broken(f"series {number} fires outside any incident")
        self.do(SeriesResolved(number, ended_at, expired, key, body), now)
        self.ended(incident, "all its alerts expired" if expired else "all its alerts ended", now)

    def ended(self, incident: Incident, reason: str, now: float) -> None:
        """Something of an incident ended: when nothing of it goes on, neither alerts nor parts, it is resolved."""
        if incident.firing or not incident.is_open or incident.is_by_hand:
            return
        if any(part.is_open for part in incident.parts.values()):
            return
        self.move(incident, IncidentState.RESOLVED, SYSTEM, reason, now, method="Automated")
        response.owe_resolved(self, incident, now)

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
    ) -> None:
        """Resolved or closed, it goes on: who looked after it goes on doing so."""
        handling = incident.handling
        attended = incident.assignees or (handling is not None and handling.acknowledged is not None)
        after = IncidentState.INVESTIGATING if attended else IncidentState.TRIAGED
        self.move(incident, after, actor, reason, now)
        response.owe(self, incident, "reopened", now, now + self.settings.wait_s[incident.severity])

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
            parts.say(self, incident, now)

    def _set_aside(self, decision: Decision, key: bytes, ends: float, body: bytes, now: float) -> Decision:
        self.do(AlertsSetAside(bytes([decision]), [key], [ends], [body]), now)
        return decision

    def _incident_of(self, key: bytes) -> bytes:
        number = self.series.by_series.get(key[:16])
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

    def _classified(self, verdict: Verdict, now: float) -> None:
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
            parts.say(self, incident, now)
        if not incident.is_open:
            return
        if incident.state is IncidentState.DETECTED:
            self.move(incident, IncidentState.TRIAGED, actor, reason, now)
        if incident.notice.number == 0:
            response.owe(self, incident, "opened", now, now + self.settings.wait_s[incident.severity])
        elif incident.severity < before:
            response.owe(self, incident, "severity changed", now, now)

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
            for number in self.series.due(now, EXPIRE_MAX):
                self._resolve_series(number, self.series.ends[number], True, b"", b"", now)
        for _ in range(DEADLINES_MAX):
            if not self._closes or self._closes[0][0] > now:
                break
            _at, identity = heapq.heappop(self._closes)
            incident = self.incidents.get(identity)
            if incident is None or incident.state is not IncidentState.RESOLVED:
                continue
            if incident.notice.reason is not None or incident.firing:
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
                and not incident.notice.number
            ):
                # A classifier that is away must not keep anyone from being told.
                response.owe(self, incident, "opened", now, now + self.settings.wait_s[UNJUDGED_AS])
        for _ in range(DEADLINES_MAX):
            if not self._deadlines or self._deadlines[0][0] > now:
                break
            at, identity = heapq.heappop(self._deadlines)
            if self._watched.get(identity) == at:
                del self._watched[identity]
                incident = self.incidents[identity]
                deadlines.answer(self, incident, now)
                self.watch(incident)
        # Begun by started(): until then nobody knows what the log says.
        if self.forgotten_before:
            self._expire_archive(now)
        self._forget_calls(now)
        return Done()

    def watch(self, incident: Incident) -> None:
        """An incident's next deadline may be another than before: have it answered when its time comes."""
        at = deadlines.next_at(incident, self.settings)
        if not at:
            self._watched.pop(incident.id, None)
        elif self._watched.get(incident.id) != at:
            self._watched[incident.id] = at
            if len(self._deadlines) > 2 * len(self._watched) + DEADLINES_SLACK:
                # Most were overtaken, or their incidents are gone; a target of days would keep them as long.
                self._deadlines = [(time, identity) for identity, time in self._watched.items()]
                heapq.heapify(self._deadlines)
            else:
                heapq.heappush(self._deadlines, (at, incident.id))

    def _close_at(self, incident: Incident) -> float:
        # Closed is past reopening: while reopen_window is open the incident must be there to be reopened.
        return incident.resolved_at + max(self.settings.close_after_s, self.settings.reopen_window_s)

    def _expire_archive(self, now: float) -> None:
        keep_s = self.settings.retention_s
        before = now - keep_s
        if before >= self.forgotten_before + min(FORGET_EVERY_S, keep_s / FORGET_EVERY_PART):
            self.do(ArchiveExpired(before), now)
            self._forget_owed = True

    def _forget_calls(self, now: float) -> None:
        # Not an event: every reader forgets by the time in its frames, and a call id kept longer does no harm.
        oldest = int((now - CALL_WINDOW_S) / CALL_BUCKET_S)
        while self._call_buckets and (bucket := next(iter(self._call_buckets))) < oldest:
            self.checkpoint.touch(Part.CALLS, bucket)
            for call_id in self._call_buckets.pop(bucket):
                self.calls.pop(call_id, None)

    def _take_effects(self, now: float) -> list[Effect]:
        """What is owed and was not asked yet."""
        effects: list[Effect] = []
        while self._notices and self._notices[0][0] <= now:
            _at, identity = heapq.heappop(self._notices)
            incident = self.incidents.get(identity)
            if incident is None or incident.notice.reason is None or incident.notice.due_at > now:
                continue
            wanted = (incident.notice.number, incident.notice.attempt)
            if self._asked.get(identity) != wanted:
                self._asked[identity] = wanted
                effects.append(response.act(self, incident))
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
                    effects.append(Tell(incident.tenant, identity, note.number, note.to, note.note))
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
        return Classify(
            incident.id,
            incident.tenant,
            incident.service,
            incident.source,
            incident.title,
            incident.description,
            incident.labels,
            incident.annotations,
            list(incident.signals),
            len(incident.signals),
        )

    # -- live and in replay --------------------------------------------------------------------------------

    def do(self, event: Event, now: float) -> None:
        self.apply(event, now)
        self._events.append(event)

    def apply(self, event: Event, now: float) -> None:
        """Fold one event, of a frame made at `now`, into the state. Raises Broken when it does not fit."""
        self.now = now
        match event:
            case AlertsObserved():
                numbers = array("I", event.numbers)
                ends = array("d", event.ends)
                if len(ends) == 1:
                    ends = ends * len(numbers)
                self.checkpoint.touch_all(Part.MOVING, [number >> BLOCK_SHIFT for number in numbers])
                self.series.repeat(numbers, ends, now)
            case CallAnswered():
                self._apply_call(event, now)
            case SeriesOpened():
                self._apply_series_opened(event, now)
            case SeriesChanged():
                self.touch_series(event.number)
                # As in Alertmanager, a life that goes on began when it first said so.
                starts = min(self.series.starts[event.number], self._starts_of(event.body))
                self.series.change(event.number, event.key, starts, event.ends_at, event.body, now)
                self.series.note(event.number, Decision.CHANGED, now)
            case SeriesResolved():
                self._apply_series_resolved(event, now)
            case SeriesRefired():
                self.touch_series(event.number)
                incident = self._incident_at(event.number)
                starts = self._starts_of(event.body)
                self.series.refire(event.number, event.key, starts, event.ends_at, event.body, now)
                self.series.note(event.number, event.decision, now)
                incident.firing += 1
            case IncidentOpened():
                self._apply_incident_opened(event, now)
            case OverflowMemberAdded():
                incident = self.changing(event.incident_id)
                incident.overflow_count += 1
                if incident.overflow is None:
                    incident.overflow = []
                if len(incident.overflow) < OVERFLOW_LISTED and event.group_key not in incident.overflow:
                    incident.overflow.append(event.group_key)
            case IncidentClassified():
                self._apply_classified(event, now)
            case IncidentStateChanged():
                self._apply_state(event, now)
            case IncidentArchived():
                self._apply_archived(event)
            case ArchiveExpired():
                self.checkpoint.touch(Part.META, 0)
                self.forgotten_before = event.closed_before
            case ShardStarted() | HeardAgain():
                self.checkpoint.touch(Part.META, 0)
                self.no_expiry_before = event.no_expiry_before
            case AlertsSetAside():
                pass
            case SlotLeft():
                moving.apply_left(self, event)
            case SlotArrived():
                moving.apply_arrived(self, event)
            case _ if isinstance(event, response.ResponseEvent):
                response.apply(self, event, now)
            case _ if isinstance(event, people.PeopleEvent):
                people.apply(self, event, now)
            case _ if isinstance(event, parts.PartsEvent):
                parts.apply(self, event, now)
            case _ if isinstance(event, deadlines.DeadlineEvent):
                deadlines.apply(self, event, now)
            case _:
                raise Broken(f"a shard does not know the event {type(event).__name__}")

    def changing(self, identity: bytes) -> Incident:
        incident = self.incidents.get(identity)
        if incident is None:
            raise Broken(f"event names incident {identity.hex()}, which is not in {self.partition}")
        self.checkpoint.touch(Part.INCIDENT, identity)
        return incident

    def _incident_at(self, number: int) -> Incident:
        incident = self.series.incidents[number]
        if incident is None:
            raise Broken(f"event names series {number}, which is free in {self.partition}")
        return self.changing(incident.id)

    def touch_series(self, number: int) -> None:
        self.checkpoint.touch(Part.STATIC, number >> BLOCK_SHIFT)
        self.checkpoint.touch(Part.MOVING, number >> BLOCK_SHIFT)

    def _starts_of(self, body: bytes) -> float:
        return _start_decoder.decode(body).starts_at

    def _apply_call(self, event: CallAnswered, now: float) -> None:
        bucket = int(now / CALL_BUCKET_S)
        if bucket not in self._call_buckets:
            # Here, not only with each Tick: replay meets none, and would keep the calls of the whole log.
            self._forget_calls(now)
        self.checkpoint.touch(Part.CALLS, bucket)
        self.calls[event.call_id] = event.reply
        self._call_buckets.setdefault(bucket, []).append(event.call_id)

    def _apply_series_opened(self, event: SeriesOpened, now: float) -> None:
        self.touch_series(event.number)
        incident = self.changing(event.incident_id)
        starts = self._starts_of(event.body)
        self.series.open(
            event.number, event.key, incident, starts, event.ends_at, event.body, event.decision, now
        )
        self.members[incident.id].append(event.number)
        incident.firing += 1
        incident.series_seen += 1
        if event.signal:
            incident.signals.append(event.signal)
            if incident.signals_asked < len(incident.signals):
                incident.classify_owed = True
                self._classify[incident.id] = None

    def _apply_series_resolved(self, event: SeriesResolved, now: float) -> None:
        self.checkpoint.touch(Part.MOVING, event.number >> BLOCK_SHIFT)
        if event.key:
            self.checkpoint.touch(Part.STATIC, event.number >> BLOCK_SHIFT)
        incident = self._incident_at(event.number)
        self.series.end(event.number, event.ended_at, now, event.key, event.body)
        self.series.note(event.number, Decision.RESOLVED, now)
        incident.firing -= 1

    def _apply_incident_opened(self, event: IncidentOpened, now: float) -> None:
        incident = Incident(
            id=event.incident_id,
            slot=event.slot,
            tenant=event.tenant,
            service=event.service,
            group_key=event.group_key,
            group_labels=event.group_labels,
            title=event.title,
            description=event.description,
            source=event.source,
            labels=event.labels,
            annotations=event.annotations,
            created_at=now,
            updated_at=now,
            overflow=[] if event.is_overflow else None,
            created_by=event.created_by,
            opened_at=now,
        )
        self.enter(incident)
        self._unjudged.append((now, incident.id))
        self.line(incident, now, "Created", event.created_by, event.title)

    def _apply_classified(self, event: IncidentClassified, now: float) -> None:
        incident = self.changing(event.incident_id)
        before, first = incident.severity, not incident.classified_by
        judgement = Judgement(event.severity, event.type, event.impact)
        if incident.handling is None:
            incident.severity, incident.type, incident.impact = event.severity, event.type, event.impact
        else:
            incident.handling.judged = judgement
            incident.settle()
        incident.classified_by = event.by
        incident.confidence = event.confidence
        incident.signals_asked = event.asked
        incident.classify_owed = event.asked < len(incident.signals)
        incident.updated_at = now
        incident.version += 1
        self.watch(incident)
        if first or before != incident.severity:
            text = f"{incident.severity.name} {incident.type}, by {event.by}"
            self.line(incident, now, "Classified" if first else "SeverityChanged", SYSTEM, text)

    def _apply_state(self, event: IncidentStateChanged, now: float) -> None:
        incident = self.changing(event.incident_id)
        was_open = incident.is_open
        incident.state = event.after
        incident.updated_at = now
        incident.version += 1
        handling = incident.handling
        if event.still_firing_at:
            handling = incident.handled()
        if handling is not None:
            handling.still_firing_at = event.still_firing_at
        self.open_count += incident.is_open - was_open
        if event.after is IncidentState.RESOLVED:
            incident.resolved_at = now
            incident.resolution = Resolution(now, event.actor, event.method, event.reason, event.root_cause)
            heapq.heappush(self._closes, (self._close_at(incident), incident.id))
            self.watch(incident)
            self.line(incident, now, "Resolved", event.actor, event.reason, method=event.method)
            return
        if event.after is IncidentState.CLOSED:
            incident.closed_at = now
            self._archive[incident.id] = None
            group = (incident.tenant, incident.group_key)
            if self.by_group.get(group) is incident:
                del self.by_group[group]
        elif not was_open:
            incident.reopened += 1
            incident.resolved_at = incident.closed_at = 0.0
            incident.resolution = None
            incident.opened_at = now
            incident.targets_told = 0
            if handling is not None:
                attended = handling.acknowledged is not None or incident.assignees
                handling.answered_at = now if attended else 0.0
            if not incident.is_by_hand:
                self.by_group[incident.tenant, incident.group_key] = incident
        self.watch(incident)
        self.line(
            incident, now, "StateChanged", event.actor, f"{event.before} -> {event.after}: {event.reason}"
        )

    def _apply_archived(self, event: IncidentArchived) -> None:
        incident = self.changing(event.incident_id)
        for number in array("I", event.numbers):
            self.touch_series(number)
            self.series.forget(number)
        self.forget(incident)

    def forget(self, incident: Incident) -> None:
        """An incident whose series are gone is not here any more."""
        del self.incidents[incident.id]
        del self.members[incident.id]
        self._watched.pop(incident.id, None)
        self._notes_asked.pop(incident.id, None)
        self.overflows.pop(incident.id, None)
        self._asked.pop(incident.id, None)
        place = bisect_left(self.order, (incident.created_at, incident.id))
        del self.order[place]
        for label in incident.group_labels.items():
            self.by_label[label].pop(incident.id)
            if not self.by_label[label]:
                del self.by_label[label]

    def notice_waits(self, incident: Incident, at: float) -> None:
        """A notice of an incident is to be sent at a time, or tried again."""
        heapq.heappush(self._notices, (at, incident.id))

    def notice_tried(self, incident: Incident) -> None:
        """What was asked of the responder is answered; what is over lets a closed incident go to the archive."""
        self._asked.pop(incident.id, None)
        if incident.state is IncidentState.CLOSED:
            self._archive[incident.id] = None

    def note_waits(self, incident: Incident) -> None:
        """An incident owes another one a note, or has just paid it: see what is next."""
        self._notes[incident.id] = None
        if incident.state is IncidentState.CLOSED:
            self._archive[incident.id] = None

    def line(
        self, incident: Incident, at: float, kind: str, actor: str, text: str, /, **details: str
    ) -> None:
        """Add a line to an incident's history. Details that are empty are left out."""
        shown = {name: value for name, value in details.items() if value}
        if self.trace_id is not None:
            shown["trace_id"] = self.trace_id
        timeline = incident.timeline
        timeline.append(TimelineEntry(at, kind, actor, text, shown))
        written = 0 if incident.handling is None else incident.handling.written_lines
        if len(timeline) - written > TIMELINE_MAX:
            # The first line says how it began: the oldest after it goes that no person wrote.
            place = 1
            while timeline[place].kind in WRITTEN:
                place += 1
            del timeline[place]
            incident.timeline_dropped += 1

    def enter(self, incident: Incident) -> None:
        """A new incident, the newest of all."""
        self.checkpoint.touch(Part.INCIDENT, incident.id)
        self._index(incident)
        if incident.classify_owed:
            self._classify[incident.id] = None
        insort(self.order, (incident.created_at, incident.id))
        self.watch(incident)

    def take_in(self, incident: Incident) -> None:
        """An incident that was in another partition."""
        key = incident.tenant, incident.group_key
        other = self.by_group.get(key)
        self._index(incident)
        insort(self.order, (incident.created_at, incident.id))
        if other is not None and _began(other) > _began(incident):
            self.by_group[key] = other
        self._resume(incident)

    def _resume(self, incident: Incident) -> None:
        """What an incident that was not made here waits for."""
        self.watch(incident)
        if incident.state is IncidentState.RESOLVED:
            heapq.heappush(self._closes, (self._close_at(incident), incident.id))
        if incident.state is IncidentState.DETECTED:
            self._unjudged.append((incident.created_at, incident.id))
        if incident.notice.reason is not None:
            heapq.heappush(self._notices, (incident.notice.due_at, incident.id))

    def _index(self, incident: Incident) -> None:
        self.incidents[incident.id] = incident
        self.members[incident.id] = array("I")
        if incident.state is not IncidentState.CLOSED and not incident.is_by_hand:
            self.by_group[incident.tenant, incident.group_key] = incident
        for label in incident.group_labels.items():
            self.by_label.setdefault(label, {})[incident.id] = None
        if incident.overflow is not None:
            self.overflows[incident.id] = None
        self.open_count += incident.is_open

    # -- snapshots -----------------------------------------------------------------------------------------

    def _capture(self, part: Part, number: int | bytes) -> bytes | None:
        match part:
            case Part.CALLS:
                ids = self._call_buckets.get(int(number))
                return None if ids is None else _encoder.encode([(each, self.calls[each]) for each in ids])
            case Part.INCIDENT:
                incident = self.incidents.get(bytes(number)) if isinstance(number, bytes) else None
                return None if incident is None else _encoder.encode(incident)
            case Part.META:
                return _encoder.encode((self.now, self.no_expiry_before, self.forgotten_before))
            case Part.MOVING:
                return self.series.moving_record(int(number))
            case Part.STATIC:
                return self.series.static_record(int(number))

    def load(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Take records of a snapshot, in the order of their keys; finish with loaded()."""
        for key, record in records:
            part, number = parse_key(key)
            match part:
                case Part.CALLS:
                    ids = []
                    for call_id, reply in _calls_decoder.decode(record):
                        self.calls[call_id] = reply
                        ids.append(call_id)
                    self._call_buckets[int(number)] = ids
                case Part.INCIDENT:
                    incident = _incident_decoder.decode(record)
                    self._index(incident)
                    self.order.append((incident.created_at, incident.id))
                case Part.META:
                    self.now, self.no_expiry_before, *rest = _meta_decoder.decode(record)
                    self.forgotten_before = rest[0] if rest else 0.0
                case Part.MOVING:
                    self.series.load_moving(int(number), record)
                case Part.STATIC:
                    self.series.load_static(int(number), record, self.incidents)

    def loaded(self) -> None:
        """All records of a snapshot are in: make what derives from them."""
        self.series.index()
        self.order.sort()
        self._call_buckets = dict(sorted(self._call_buckets.items()))
        for number, incident in enumerate(self.series.incidents):
            if incident is not None:
                self.members[incident.id].append(number)
        # Two lives of one group may be here, the older not archived yet: the one that began last is the group's.
        for incident in sorted(self.incidents.values(), key=_began):
            if incident.state is not IncidentState.CLOSED and not incident.is_by_hand:
                self.by_group[incident.tenant, incident.group_key] = incident
        for _created_at, identity in self.order:
            self._resume(self.incidents[identity])


def _began(incident: Incident) -> float:
    """When its present life began."""
    return incident.opened_at or incident.created_at
