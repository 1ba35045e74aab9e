"""What one partition knows, as its log says it. `apply(event, now)` is the only way it changes, live and in replay, so both
end up equal (tests/pure/test_replay.py). Snapshots of it are taken while it changes (models/partition/checkpoint.py).
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable

import msgspec

from models.alerts.room import bytes_of, said_bytes, text_bytes
from models.alerts.series import BLOCK_SHIFT, SeriesTable
from models.errors import Broken
from models.incidents.incident import AUTOMATED, Incident, IncidentState, Resolution, TimelineEntry, Verdict
from models.partition.checkpoint import Checkpoint, RecordKind, parse_key
from models.shard import children, clock, deadlines, notifications, people, sharing, slot_transfer
from models.shard.events import (
    AlertsJoined,
    AlertsObserved,
    AlertsSetAside,
    ArchiveExpired,
    CallAnswered,
    ClockSetBack,
    Event,
    IncidentArchived,
    IncidentClassified,
    IncidentDescribed,
    IncidentOpened,
    IncidentStateChanged,
    OverflowMemberAdded,
    ReceptionGap,
    SeriesChanged,
    SeriesOpened,
    SeriesRefired,
    SeriesResolved,
    ShardStarted,
    SlotArrived,
    SlotLeft,
)
from models.shard.messages import Decision
from models.shard.settings import ShardSettings

#: The layout of snapshot records. The log behind a snapshot is truncated, so a program with a new version must also
#: read the one before (an upcast in load()); one that can't refuses to open rather than lose what was dropped.
SNAPSHOT_VERSION = 1
#: A gateway gives a call up after `hold` (5 s) and never sends its id again; this is 24 times that.
CALL_WINDOW_S = 120.0
#: Call ids are forgotten and written to snapshots by the bucket.
CALL_BUCKET_S = 10.0
#: Deadlines that were overtaken and are kept until their time, beside as many as there are incidents: sorting them
#: out costs 0.2 us each.
DEADLINES_SLACK = 10_000
#: Lines of an incident's timeline kept in memory, beside what people wrote, which is all kept (WRITTEN_LINES_MAX);
#: `timeline_dropped` counts older ones.
TIMELINE_MAX = 500
#: Kinds of line that people wrote.
WRITTEN = frozenset({"CommentAdded", "StakeholdersUpdated"})
#: Groups listed in an overflow incident; `overflow_count` counts all that joined.
OVERFLOW_LISTED = 1000

SYSTEM = "system"


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


class ShardState:
    """The state of one partition. `epoch`, `seq` and `trace_id` of the frame being applied are set before apply()."""

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
        #: Incidents that hold series of any group labels, not only of their own: overflow, or another group_by than now.
        self.loose: dict[bytes, None] = {}
        #: The label names, in their order, by which loose incidents were grouped -> how many there are.
        self.other_groupings: dict[tuple[str, ...], int] = {}
        #: Incidents whose last notice nobody took.
        self.given_up: dict[bytes, None] = {}
        self.order: list[tuple[float, bytes]] = []
        self.open_count = 0
        self.calls: dict[bytes, bytes] = {}
        #: How often each decision was made by this process, for metrics: in no log.
        self.decided = array("Q", bytes(8 * (max(Decision) + 1)))
        self.checkpoint = Checkpoint(self._capture)
        self._grouped_by = {"service", *settings.group_by}
        self._call_buckets: dict[int, list[bytes]] = {}
        # What waits for its time, and what is owed and not asked for yet: follows from the rest.
        self._closes: list[tuple[float, bytes]] = []
        self._notices: list[tuple[float, bytes]] = []
        self._unjudged: deque[tuple[float, bytes]] = deque()
        self._deadlines: list[tuple[float, bytes]] = []
        self._watched: dict[bytes, float] = {}
        self._classify: dict[bytes, None] = {}
        self._archive: dict[bytes, None] = {}
        self._notes: dict[bytes, None] = {}
        self._asked: dict[bytes, tuple[int, int]] = {}
        self._notes_asked: dict[bytes, int] = {}

    def apply(self, event: Event, now: float) -> None:
        """Fold one event, of a frame made at `now`, into the state. Raises Broken when it does not fit."""
        self.now = now
        match event:
            case AlertsObserved():
                numbers = array("I", event.numbers)
                ends = array("d", event.ends)
                if len(ends) == 1:
                    ends = ends * len(numbers)
                self.checkpoint.touch_all(RecordKind.MOVING, [number >> BLOCK_SHIFT for number in numbers])
                self.series.repeat(numbers, ends, now)
            case CallAnswered():
                self._apply_call(event, now)
            case SeriesOpened():
                self._apply_series_opened(event, now)
            case SeriesChanged():
                self.touch_series(event.number)
                # As in Alertmanager, a life that goes on began when it first said so.
                began = self.series.starts[event.number]
                starts = min(began, self._starts_of(event.body) or began)
                only_renamed = event.body == self.series.bodies[event.number]
                self.series.change(
                    event.number, event.key, starts, event.ends_at, event.body, now, event.sender
                )
                if only_renamed:
                    self.series.repeats[event.number] += 1
                else:
                    self.series.note(event.number, Decision.CHANGED, now, event.sender)
            case SeriesResolved():
                self._apply_series_resolved(event, now)
            case SeriesRefired():
                self.touch_series(event.number)
                incident = self._incident_at(event.number)
                starts = self._starts_of(event.body) or now
                self.series.refire(
                    event.number, event.key, starts, event.ends_at, event.body, now, event.sender
                )
                self.series.note(event.number, event.decision, now, event.sender)
                incident.firing += 1
            case IncidentOpened():
                self._apply_incident_opened(event, now)
            case IncidentDescribed():
                self._apply_described(event, now)
            case AlertsJoined():
                self._apply_joined(event, now)
            case OverflowMemberAdded():
                incident = self.changing(event.incident_id)
                incident.overflow_count += 1
                if incident.overflow is None:
                    incident.overflow = []
                if len(incident.overflow) < OVERFLOW_LISTED and event.group_key not in incident.overflow:
                    incident.overflow.append(event.group_key)
                    size = text_bytes([event.group_key])
                    incident.held_bytes += size
                    self.series.room.take(incident.created_by, size)
            case IncidentClassified():
                self._apply_classified(event, now)
            case IncidentStateChanged():
                self._apply_state(event, now)
            case IncidentArchived():
                self._apply_archived(event)
            case ArchiveExpired():
                self.checkpoint.touch(RecordKind.META, 0)
                self.forgotten_before = event.closed_before
            case ShardStarted() | ReceptionGap():
                self.checkpoint.touch(RecordKind.META, 0)
                self.no_expiry_before = event.no_expiry_before
                self._renew_calls(now)
            case ClockSetBack():
                clock.apply(self, event)
            case AlertsSetAside():
                pass
            case SlotLeft():
                slot_transfer.apply_left(self, event)
            case SlotArrived():
                slot_transfer.apply_arrived(self, event)
            case _ if isinstance(event, notifications.NotificationEvent):
                notifications.apply(self, event, now)
            case _ if isinstance(event, people.PeopleEvent):
                people.apply(self, event, now)
            case _ if isinstance(event, children.ChildrenEvent):
                children.apply(self, event, now)
            case _ if isinstance(event, deadlines.DeadlineEvent):
                deadlines.apply(self, event, now)
            case _:
                raise Broken(f"a shard does not know the event {type(event).__name__}")

    def changing(self, identity: bytes) -> Incident:
        incident = self.incidents.get(identity)
        if incident is None:
            raise Broken(f"event names incident {identity.hex()}, which is not in {self.partition}")
        self.checkpoint.touch(RecordKind.INCIDENT, identity)
        return incident

    def _incident_at(self, number: int) -> Incident:
        incident = self.series.incidents[number]
        if incident is None:
            raise Broken(f"event names series {number}, which is free in {self.partition}")
        return self.changing(incident.id)

    def touch_series(self, number: int) -> None:
        self.checkpoint.touch(RecordKind.STATIC, number >> BLOCK_SHIFT)
        self.checkpoint.touch(RecordKind.MOVING, number >> BLOCK_SHIFT)

    def _starts_of(self, body: bytes) -> float:
        """The start that a sender gave, 0 when it gave none."""
        return _start_decoder.decode(body).starts_at

    def _apply_call(self, event: CallAnswered, now: float) -> None:
        bucket = int(now / CALL_BUCKET_S)
        if bucket not in self._call_buckets:
            # Here, where replay does it too: what is remembered is the same then.
            self._forget_calls(now)
        self.checkpoint.touch(RecordKind.CALLS, bucket)
        self.calls[event.call_id] = event.reply
        self._call_buckets.setdefault(bucket, []).append(event.call_id)

    def _apply_series_opened(self, event: SeriesOpened, now: float) -> None:
        self.touch_series(event.number)
        incident = self.changing(event.incident_id)
        starts = self._starts_of(event.body) or now
        self.series.open(
            event.number,
            event.key,
            incident,
            starts,
            event.ends_at,
            event.body,
            event.decision,
            now,
            event.sender,
        )
        self.members[incident.id].append(event.number)
        incident.firing += 1
        incident.series_seen += 1
        if event.is_news:
            incident.joined += 1
            self.watch(incident)
        if event.signal:
            incident.signals.append(event.signal)
            if incident.signals_asked < len(incident.signals):
                incident.classify_owed = True
                self._classify[incident.id] = None

    def _apply_series_resolved(self, event: SeriesResolved, now: float) -> None:
        self.checkpoint.touch(RecordKind.MOVING, event.number >> BLOCK_SHIFT)
        if event.key:
            self.checkpoint.touch(RecordKind.STATIC, event.number >> BLOCK_SHIFT)
        incident = self._incident_at(event.number)
        self.series.end(event.number, event.ended_at, now, event.key, event.body, event.sender)
        self.series.note(event.number, Decision.RESOLVED, now, event.sender)
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

    def _apply_described(self, event: IncidentDescribed, now: float) -> None:
        # No new version: nothing of it is what people change.
        incident = self.changing(event.incident_id)
        incident.updated_at = now
        before = said_bytes(incident.title, incident.description, incident.labels, incident.annotations)
        if event.title is not None:
            incident.title = event.title
        if event.description is not None:
            incident.description = event.description
        if event.labels is not None:
            incident.labels = event.labels
        if event.annotations is not None:
            incident.annotations = event.annotations
        after = said_bytes(incident.title, incident.description, incident.labels, incident.annotations)
        incident.held_bytes += after - before
        self.series.room.take(incident.created_by, after - before)

    def _apply_joined(self, event: AlertsJoined, now: float) -> None:
        incident = self.changing(event.incident_id)
        incident.joined, incident.joined_told_at = 0, now
        incident.updated_at = now
        told = [place for place, line in enumerate(incident.timeline) if line.kind == "AlertsJoined"]
        if len(told) >= sharing.JOINED_LINES_MAX:
            del incident.timeline[told[0]]
            incident.timeline_dropped += 1
        counts = {"count": str(event.count), "firing": str(event.firing)}
        self.line(incident, now, "AlertsJoined", SYSTEM, event.text, **counts)
        self.watch(incident)

    def _apply_classified(self, event: IncidentClassified, now: float) -> None:
        incident = self.changing(event.incident_id)
        before, first = incident.severity, not incident.classified_by
        judgement = Verdict(event.severity, event.type, event.impact)
        if incident.handling is None:
            incident.severity, incident.type, incident.impact = event.severity, event.type, event.impact
        else:
            incident.handling.verdict = judgement
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
            cause = event.root_cause or ""
            self.line(
                incident, now, "Resolved", event.actor, event.reason, method=event.method, root_cause=cause
            )
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
            # Until 0.2.0 alerts reopened without a method, and as the system.
            if event.method == AUTOMATED or event.actor == SYSTEM:
                notifications.begun_again(incident, now)
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
        self.series.room.take(incident.created_by, -incident.held_bytes)
        del self.members[incident.id]
        self._watched.pop(incident.id, None)
        self._notes_asked.pop(incident.id, None)
        self.given_up.pop(incident.id, None)
        if incident.id in self.loose:
            del self.loose[incident.id]
            names = tuple(incident.group_labels)
            if incident.overflow is None:
                self.other_groupings[names] -= 1
                if not self.other_groupings[names]:
                    del self.other_groupings[names]
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

    def is_asked(self, incident: Incident) -> bool:
        """Whether the responder was asked for the notice it owes, by this process."""
        return incident.id in self._asked

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
        self.checkpoint.touch(RecordKind.INCIDENT, incident.id)
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
        if incident.notification.reason is not None:
            heapq.heappush(self._notices, (incident.notification.due_at, incident.id))

    def times_moved(self, now: float) -> None:
        """Times of incidents are others than before, none that has come is later than `now`: what is in their order, and
        what waits for them."""
        self.order = sorted((incident.created_at, incident.id) for incident in self.incidents.values())
        for waiting in (self._closes, self._notices, self._unjudged, self._deadlines, self._watched):
            waiting.clear()
        for _created_at, identity in self.order:
            self._resume(self.incidents[identity])
        self._renew_calls(now)

    def _index(self, incident: Incident) -> None:
        self.incidents[incident.id] = incident
        incident.held_bytes = incident.held_bytes or bytes_of(incident)
        self.series.room.take(incident.created_by, incident.held_bytes)
        self.members[incident.id] = array("I")
        if incident.state is not IncidentState.CLOSED and not incident.is_by_hand:
            self.by_group[incident.tenant, incident.group_key] = incident
        for label in incident.group_labels.items():
            self.by_label.setdefault(label, {})[incident.id] = None
        if incident.overflow is not None:
            self.loose[incident.id] = None
        elif not incident.is_by_hand and incident.group_labels.keys() != self._grouped_by:
            self.loose[incident.id] = None
            names = tuple(incident.group_labels)
            self.other_groupings[names] = self.other_groupings.get(names, 0) + 1
        if incident.notification.given_up:
            self.given_up[incident.id] = None
        self.open_count += incident.is_open

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

    def _forget_calls(self, now: float) -> None:
        # Not an event of its own: every reader forgets by the time in its frames.
        oldest = int((now - CALL_WINDOW_S) / CALL_BUCKET_S)
        while self._call_buckets and (bucket := next(iter(self._call_buckets))) < oldest:
            self.checkpoint.touch(RecordKind.CALLS, bucket)
            for call_id in self._call_buckets.pop(bucket):
                self.calls.pop(call_id, None)

    def _renew_calls(self, now: float) -> None:
        """What was called by now is remembered as if it had been just now: a clock that leapt makes no call old."""
        last = int(now / CALL_BUCKET_S)
        for bucket in [each for each in self._call_buckets if each != last]:
            for touched in (bucket, last):
                self.checkpoint.touch(RecordKind.CALLS, touched)
            self._call_buckets.setdefault(last, []).extend(self._call_buckets.pop(bucket))

    # -- snapshots -----------------------------------------------------------------------------------------

    def _capture(self, part: RecordKind, number: int | bytes) -> bytes | None:
        match part:
            case RecordKind.CALLS:
                ids = self._call_buckets.get(int(number))
                return None if ids is None else _encoder.encode([(each, self.calls[each]) for each in ids])
            case RecordKind.INCIDENT:
                incident = self.incidents.get(bytes(number)) if isinstance(number, bytes) else None
                return None if incident is None else _encoder.encode(incident)
            case RecordKind.META:
                return _encoder.encode((self.now, self.no_expiry_before, self.forgotten_before))
            case RecordKind.MOVING:
                return self.series.moving_record(int(number))
            case RecordKind.STATIC:
                return self.series.static_record(int(number))

    def load(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Take records of a snapshot, in the order of their keys; finish with loaded()."""
        for key, record in records:
            part, number = parse_key(key)
            self.checkpoint.loaded(part, number, record)
            match part:
                case RecordKind.CALLS:
                    ids = []
                    for call_id, reply in _calls_decoder.decode(record):
                        self.calls[call_id] = reply
                        ids.append(call_id)
                    self._call_buckets[int(number)] = ids
                case RecordKind.INCIDENT:
                    incident = _incident_decoder.decode(record)
                    self._index(incident)
                    self.order.append((incident.created_at, incident.id))
                case RecordKind.META:
                    self.now, self.no_expiry_before, *rest = _meta_decoder.decode(record)
                    self.forgotten_before = rest[0] if rest else 0.0
                case RecordKind.MOVING:
                    self.series.load_moving(int(number), record)
                case RecordKind.STATIC:
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
            self.upgrade(self.incidents[identity])
            self._resume(self.incidents[identity])

    def upgrade(self, incident: Incident) -> None:
        """An incident with its series is here, from a record that an earlier version may have written."""
        handling = incident.handling
        if handling is not None and handling.labels is None:
            handling.labels = sharing.said_labels(self, incident)
            handling.title = incident.title if handling.split_from else ""


def _began(incident: Incident) -> float:
    """When its present life began."""
    return incident.opened_at or incident.created_at
