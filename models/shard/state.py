"""What one partition knows, as its log says it: its series and incidents, and how they are found. Components fold events into
it (models/shard/assembly.py), live and in replay, so both end up equal (tests/pure/test_replay.py). Snapshots of it are taken
while it changes (models/partition/checkpoint.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence

import msgspec

from models.alerts.room import bytes_of
from models.alerts.series import BLOCK_SHIFT, SeriesTable
from models.errors import Broken
from models.incidents.incident import Handling, Incident, IncidentState, TimelineEntry
from models.incidents.lines import Line
from models.partition.checkpoint import META, Checkpoint, RecordKind
from models.partition.ordered import Ordered
from models.shard.messages import Decision
from models.shard.places import Created, Places

#: A gateway gives a call up after `hold` (5 s) and never sends its id again; this is 24 times that.
CALL_WINDOW_S = 120.0
#: Call ids are forgotten and written to snapshots by the bucket.
CALL_BUCKET_S = 10.0
#: Lines of an incident's timeline kept in memory, beside what people wrote, which is all kept (WRITTEN_LINES_MAX);
#: `timeline_dropped` counts older ones.
TIMELINE_MAX = 500
#: Kinds of line that people wrote.
WRITTEN = frozenset({"CommentAdded", "StakeholdersUpdated"})

#: The kinds of record of what all components share; components have others of their own. Series come in blocks: what moves
#: with every repeat, and the rest, which names incidents and so is loaded after them.
CALLS = RecordKind("c")
INCIDENT = RecordKind("i", has_ids=True)
MOVING = RecordKind("m")
STATIC = RecordKind("s")


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

Load = Callable[[int | bytes, bytes, int], None]


class ShardState:
    """The state of one partition."""

    def __init__(self, partition: str, group_by: Sequence[str]) -> None:
        self.partition = partition
        self.now = 0.0
        self.no_expiry_before = 0.0
        self.forgotten_before = 0.0
        self.series = SeriesTable()
        self.incidents: dict[bytes, Incident] = {}
        self.members: dict[bytes, array[int]] = {}
        self.by_group: dict[tuple[str, str], Incident] = {}
        self.by_label: dict[tuple[str, str], dict[bytes, None]] = {}
        #: Incidents that hold series of other group labels than their own: overflow, or an earlier group_by.
        self.loose: dict[bytes, None] = {}
        #: The label names, in their order, by which loose incidents were grouped -> how many there are.
        self.other_groupings: dict[tuple[str, ...], int] = {}
        self.order: Ordered[Created] = Ordered()
        self.places = Places(self.order)
        self.open_count = 0
        self.calls: dict[bytes, bytes] = {}
        self.call_buckets: dict[int, list[bytes]] = {}
        #: How often each decision was made by this process, for metrics: in no log.
        self.decided = array("Q", bytes(8 * (max(Decision) + 1)))
        #: Incidents changed by an event since it was last checked when they are due (Core.watch).
        self.stirred: dict[bytes, None] = {}
        #: Resolved incidents that are watched for regression (models/shard/verification.py): not closed, and reopened.
        self.watched: dict[bytes, None] = {}
        #: How a record of each kind is made, and taken from a snapshot; components add theirs.
        self.capture: dict[RecordKind, Callable[[int | bytes], bytes | None]] = {
            CALLS: self._capture_calls,
            INCIDENT: self._capture_incident,
            META: lambda _number: _encoder.encode((self.now, self.no_expiry_before, self.forgotten_before)),
            MOVING: lambda number: self.series.moving_record(int(number)),
            STATIC: lambda number: self.series.static_record(int(number)),
        }
        self.load: dict[RecordKind, Load] = {
            CALLS: self._load_calls,
            INCIDENT: self._load_incident,
            META: self._load_meta,
            MOVING: lambda number, record, _version: self.series.load_moving(int(number), record),
            STATIC: lambda number, record, _version: self.series.load_static(
                int(number), record, self.incidents
            ),
        }
        self._grouped_by = {"service", *group_by}
        self.checkpoint = Checkpoint([*self.capture], self.capture_record)

    def keep(self, kind: RecordKind, capture: Callable[[int | bytes], bytes | None], load: Load) -> None:
        """A component keeps records of this kind."""
        self.capture[kind], self.load[kind] = capture, load
        self.checkpoint.add(kind)

    # -- what events change --------------------------------------------------------------------------------

    def changing(self, identity: bytes) -> Incident:
        """The incident of an event that changes it. Raises Broken when it is not here."""
        incident = self.incidents.get(identity)
        if incident is None:
            raise Broken(f"event names incident {identity.hex()}, which is not in {self.partition}")
        self.checkpoint.touch(INCIDENT, identity)
        self.stirred[identity] = None
        return incident

    def changing_all(self, identities: Sequence[bytes]) -> list[Incident]:
        """The incidents of many events, one of each: changing() of each, in a third of the time."""
        try:
            found = [*map(self.incidents.__getitem__, identities)]
        except KeyError:
            return [*map(self.changing, identities)]
        self.checkpoint.touch_all(INCIDENT, identities)
        self.stirred.update(dict.fromkeys(identities))
        return found

    def edited(self, identity: bytes, now: float) -> tuple[Incident, Handling]:
        """The same for an event that people see as a new version, with what they did about the incident so far."""
        incident = self.changing(identity)
        incident.updated_at = now
        incident.version += 1
        return incident, incident.handled()

    def incident_at(self, number: int) -> Incident:
        """The incident of a series whose event changes both."""
        incident = self.series.incidents[number]
        if incident is None:
            raise Broken(f"event names series {number}, which is free in {self.partition}")
        return self.changing(incident.id)

    def touch_series(self, number: int) -> None:
        """A series is about to change."""
        self.checkpoint.touch(STATIC, number >> BLOCK_SHIFT)
        self.checkpoint.touch(MOVING, number >> BLOCK_SHIFT)

    def write(self, incident: Incident, at: float, line: Line, trace_id: str | None) -> None:
        """Add a line to an incident's history."""
        shown = line.all_details
        if trace_id is not None:
            shown["trace_id"] = trace_id
        timeline = incident.timeline
        timeline.append(TimelineEntry(at, line.kind, line.actor, line.text, shown))
        written = 0 if incident.handling is None else incident.handling.written_lines
        if len(timeline) - written > TIMELINE_MAX:
            # The first line says how it began: the oldest after it goes that no person wrote.
            place = 1
            while timeline[place].kind in WRITTEN:
                place += 1
            del timeline[place]
            incident.timeline_dropped += 1

    def make_room(self, incident: Incident, kind: str, most: int) -> None:
        """Before a line of this kind is added: the oldest of them goes where there are `most`. What takes turns must not push out
        the rest of a history."""
        timeline = incident.timeline
        places = [place for place, line in enumerate(timeline) if line.kind == kind]
        if len(places) >= most:
            del timeline[places[0]]
            incident.timeline_dropped += 1

    # -- incidents -----------------------------------------------------------------------------------------

    def enter(self, incident: Incident) -> None:
        """A new incident, the newest of all."""
        self.checkpoint.touch(INCIDENT, incident.id)
        self.index(incident)
        self.order.add((incident.created_at, incident.id))

    def take_in(self, incident: Incident) -> None:
        """An incident that was in another partition."""
        key = incident.tenant, incident.group_key
        other = self.by_group.get(key)
        self.checkpoint.touch(INCIDENT, incident.id)
        self.index(incident)
        self.order.add((incident.created_at, incident.id))
        if other is not None and _began(other) > _began(incident):
            self.by_group[key] = other

    def forget(self, incident: Incident) -> None:
        """An incident whose series are gone is not here any more."""
        del self.incidents[incident.id]
        self.series.room.take(incident.created_by, -incident.held_bytes)
        del self.members[incident.id]
        if incident.id in self.loose:
            del self.loose[incident.id]
            names = tuple(incident.group_labels)
            if incident.overflow is None:
                self.other_groupings[names] -= 1
                if not self.other_groupings[names]:
                    del self.other_groupings[names]
        self.order.remove((incident.created_at, incident.id))
        self.places.drop(incident.id)
        for label in incident.present_group_labels.items():
            self.by_label[label].pop(incident.id)
            if not self.by_label[label]:
                del self.by_label[label]

    def times_moved(self, now: float) -> None:
        """Times of incidents were corrected, and none is later than `now`: rebuild what is ordered by them."""
        self._order_all()
        self.places.build(self.order, self.incidents.values())
        for identity in self.incidents:
            self.stirred[identity] = None
        self.renew_calls(now)

    def placed(self) -> Places:
        """The orders of all incidents, as of now."""
        self.places.finish(self.incidents)
        for identity in self.stirred:
            incident = self.incidents.get(identity)
            if incident is not None:
                self.places.put(incident)
        return self.places

    def _order_all(self) -> None:
        self.order = Ordered((incident.created_at, incident.id) for incident in self.incidents.values())
        self.places.created = self.order

    def index(self, incident: Incident) -> None:
        """An incident is here: add it to the indexes."""
        self.incidents[incident.id] = incident
        incident.held_bytes = incident.held_bytes or bytes_of(incident)
        self.series.room.take(incident.created_by, incident.held_bytes)
        self.members[incident.id] = array("I")
        if incident.state is not IncidentState.CLOSED and not incident.is_by_hand:
            self.by_group[incident.tenant, incident.group_key] = incident
        for label in incident.group_labels.items():
            if not label[1]:
                continue  # nobody looks for those that lack a label, which may be all
            labelled = self.by_label.get(label)
            if labelled is None:
                self.by_label[label] = {incident.id: None}
            else:
                labelled[incident.id] = None
        if incident.overflow is not None:
            self.loose[incident.id] = None
        elif not incident.is_by_hand and incident.group_labels.keys() != self._grouped_by:
            self.loose[incident.id] = None
            names = tuple(incident.group_labels)
            self.other_groupings[names] = self.other_groupings.get(names, 0) + 1
        self.stirred[incident.id] = None
        self.open_count += incident.is_open

    # -- calls ---------------------------------------------------------------------------------------------

    def answer_call(self, call_id: bytes, reply: bytes, now: float) -> None:
        """A call got this reply: a repeat of it within CALL_WINDOW_S gets it again."""
        bucket = int(now / CALL_BUCKET_S)
        if bucket not in self.call_buckets:
            # Here, where replay does it too: what is remembered is the same then.
            self._forget_calls(now)
        self.checkpoint.touch(CALLS, bucket)
        self.calls[call_id] = reply
        self.call_buckets.setdefault(bucket, []).append(call_id)

    def renew_calls(self, now: float) -> None:
        """Call ids remembered so far count as of now: a clock that jumped makes none old."""
        last = int(now / CALL_BUCKET_S)
        for bucket in [each for each in self.call_buckets if each != last]:
            for touched in (bucket, last):
                self.checkpoint.touch(CALLS, touched)
            self.call_buckets.setdefault(last, []).extend(self.call_buckets.pop(bucket))

    def _forget_calls(self, now: float) -> None:
        # Not an event of its own: every reader forgets by the time in its frames.
        oldest = int((now - CALL_WINDOW_S) / CALL_BUCKET_S)
        while self.call_buckets and (bucket := next(iter(self.call_buckets))) < oldest:
            self.checkpoint.touch(CALLS, bucket)
            for call_id in self.call_buckets.pop(bucket):
                self.calls.pop(call_id, None)

    # -- snapshots -----------------------------------------------------------------------------------------

    def capture_record(self, kind: RecordKind, number: int | bytes) -> bytes | None:
        """One record as it is now, None when there is none."""
        return self.capture[kind](number)

    def _capture_calls(self, number: int | bytes) -> bytes | None:
        ids = self.call_buckets.get(int(number))
        return None if ids is None else _encoder.encode([(each, self.calls[each]) for each in ids])

    def _capture_incident(self, number: int | bytes) -> bytes | None:
        incident = self.incidents.get(bytes(number)) if isinstance(number, bytes) else None
        return None if incident is None else _encoder.encode(incident)

    def _load_calls(self, number: int | bytes, record: bytes, _version: int) -> None:
        ids = []
        for call_id, reply in _calls_decoder.decode(record):
            self.calls[call_id] = reply
            ids.append(call_id)
        self.call_buckets[int(number)] = ids

    def _load_incident(self, _number: int | bytes, record: bytes, _version: int) -> None:
        incident = _incident_decoder.decode(record)
        self.index(incident)

    def _load_meta(self, _number: int | bytes, record: bytes, _version: int) -> None:
        self.now, self.no_expiry_before, *rest = _meta_decoder.decode(record)
        self.forgotten_before = rest[0] if rest else 0.0

    def loaded(self) -> None:
        """All records of a snapshot are in: make what derives from them."""
        self.series.index()
        self._order_all()
        self.call_buckets = dict(sorted(self.call_buckets.items()))
        for number, incident in enumerate(self.series.incidents):
            if incident is not None:
                self.members[incident.id].append(number)
        # Two lives of one group may be here, the older not archived yet: the one that began last is the group's.
        for incident in sorted(self.incidents.values(), key=_began):
            if incident.state is not IncidentState.CLOSED and not incident.is_by_hand:
                self.by_group[incident.tenant, incident.group_key] = incident


def starts_of(body: bytes) -> float:
    """The start that an alert's sender gave, 0 when it gave none."""
    return _start_decoder.decode(body).starts_at


def starts_of_all(bodies: Iterable[bytes], otherwise: float) -> list[float]:
    """starts_of() of many, `otherwise` for those that gave none."""
    return [read.starts_at or otherwise for read in map(_start_decoder.decode, bodies)]


def _began(incident: Incident) -> float:
    """When its present life began."""
    return incident.opened_at or incident.created_at
