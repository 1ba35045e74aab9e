"""All series of a shard as columns: a series is a small number, and a repeat touches three array cells.

500,000 open series as objects would cost a gigabyte and a garbage collector that stops the shard for a
quarter of a second; columns of numbers cost 45 bytes a series beside its body, and are written to a snapshot
by slicing.
"""

from __future__ import annotations

import heapq
import math
import sys
from array import array
from collections.abc import Iterable, Sequence

import msgspec

from models.alerts.alert import OLD_KEY_BYTES, SERIES_ID_BYTES, Content
from models.alerts.room import SERIES_BYTES, Room
from models.incidents.incident import Incident
from models.partition.parted import Parted

if sys.byteorder != "little":
    raise ImportError("logs and snapshots hold little-endian columns; this machine is big-endian")
if array("I").itemsize != 4:
    raise ImportError("logs hold series numbers as u32; this machine's C int has another size")

FREE = 0
FIRING = 1
ENDED = 2

#: Series a snapshot record holds: 256 make a record of about 10 KB of numbers and 130 KB of bodies, encoded in
#: 0.1 ms, so that a slice of a snapshot never holds up a batch.
BLOCK = 256
BLOCK_SHIFT = 8
#: Different decisions kept for each series: what the API shows as `why` (docs/http-api.md).
NOTES_MAX = 20


class _Labels(msgspec.Struct, array_like=True, gc=False):
    """An alert.Content of which only the labels are wanted."""

    labels: dict[str, str]


class _Annotations(msgspec.Struct, array_like=True, gc=False):
    """An alert.Content of which only the annotations are wanted: half of the time."""

    labels: msgspec.Raw
    annotations: dict[str, str]


_labels_decoder = msgspec.msgpack.Decoder(_Labels)
_annotations_decoder = msgspec.msgpack.Decoder(_Annotations)
_content_decoder = msgspec.msgpack.Decoder(Content)


def annotations_of(body: bytes) -> dict[str, str]:
    """The annotations in MessagePack of an alert.Content."""
    return _annotations_decoder.decode(body).annotations


class Note(msgspec.Struct, array_like=True):
    """How often one decision was made about a series, first and last time, and by whose alert last ("": nobody's)."""

    decision: int
    count: int
    first_at: float
    last_at: float
    sender: str = ""


class StaticBlock(msgspec.Struct, array_like=True):
    """The part of 256 series that seldom changes."""

    keys: list[bytes]
    bodies: list[bytes]
    incidents: list[bytes]
    starts: bytes
    opened: bytes
    how: bytes
    openers: list[str] = []
    senders: list[str] = []


class MovingBlock(msgspec.Struct, array_like=True):
    """The part of 256 series that changes with every repeat."""

    status: bytes
    ends: bytes
    seen: bytes
    repeats: bytes
    notes: dict[int, list[Note]]


class MovedSeries(msgspec.Struct, array_like=True, frozen=True):
    """One series on its way to another partition."""

    key: bytes
    body: bytes
    status: int
    how: int
    starts: float
    opened: float
    ends: float
    seen: float
    repeats: int
    notes: list[Note]
    opener: str = ""
    sender: str = ""


_static_decoder = msgspec.msgpack.Decoder(StaticBlock)
_moving_decoder = msgspec.msgpack.Decoder(MovingBlock)
_encoder = msgspec.msgpack.Encoder()


class SeriesTable:
    """Series by number. Mutated only by Shard.apply and, between two checkpoints, captured by models/partition/checkpoint.py.

    The columns have room for whole blocks; numbers from the last one used on are not there yet.

    by_series   series id -> number of its newest life
    firing      alert key -> number, only while it fires: one look-up tells a plain repeat. Not in parts, which would make that
                look-up a fifth slower
    old_keys    how many series have a key as 0.2.0 and older made it, and none of today yet
    openers     whose alert began the present life, by name; "" in data of before that was known
    senders     whose alert brought the present body, and who is charged for it
    room        what all series hold, and the shard's incidents
    """

    def __init__(self) -> None:
        self.by_series: Parted[int] = Parted()
        self.firing: dict[bytes, int] = {}
        self.old_keys = 0
        self.room = Room()
        self.keys: list[bytes] = []
        self.bodies: list[bytes] = []
        self.openers: list[str] = []
        self.senders: list[str] = []
        self.incidents: list[Incident | None] = []
        self.status = bytearray()
        self.how = bytearray()
        self.starts = array("d")
        self.opened = array("d")
        self.ends = array("d")
        self.seen = array("d")
        self.repeats = array("Q")
        self.armed = array("d")
        self.notes: dict[int, list[Note]] = {}
        self.free: set[int] = set()
        self._used = 0
        self._free_heap: list[int] = []
        self._wheel: dict[int, list[int]] = {}
        self._seconds: list[int] = []

    def __len__(self) -> int:
        return self._used - len(self.free)

    def free_number(self) -> int:
        """The lowest number no living series has. Taken only when the event that names it is applied."""
        while self._free_heap and self._free_heap[0] not in self.free:
            heapq.heappop(self._free_heap)
        return self._free_heap[0] if self._free_heap else self._used

    @property
    def used(self) -> int:
        """One past the highest number that ever had a series."""
        return self._used

    def content(self, number: int) -> Content:
        return _content_decoder.decode(self.bodies[number])

    def labels(self, number: int) -> dict[str, str]:
        """The labels alone: half of the time."""
        return _labels_decoder.decode(self.bodies[number]).labels

    def open(
        self,
        number: int,
        key: bytes,
        incident: Incident,
        starts: float,
        ends: float,
        body: bytes,
        how: int,
        now: float,
        sender: str = "",
    ) -> None:
        """Begin a run at `number`, which is free or one past the end."""
        if number < self._used:
            self.free.discard(number)
        elif number < len(self.keys):
            self._used = number + 1
        else:
            self._grow(number + 1)
        self.keys[number] = key
        self.old_keys += len(key) == OLD_KEY_BYTES
        self.bodies[number] = body
        self.openers[number] = self.senders[number] = sender = sys.intern(sender)
        self.room.take(sender, SERIES_BYTES + len(body))
        self.incidents[number] = incident
        self.status[number] = FIRING
        self.how[number] = how
        self.starts[number] = starts
        self.opened[number] = now
        self.ends[number] = ends
        self.seen[number] = now
        self.repeats[number] = 0
        identity = key[:SERIES_ID_BYTES]
        self.by_series.parts[identity[-1]][identity] = number
        self.firing[key] = number
        self._arm(number, ends)

    def open_run(
        self,
        first: int,
        keys: list[bytes],
        incidents: Sequence[Incident],
        starts: Sequence[float],
        ends: Sequence[float],
        bodies: list[bytes],
        how: bytes,
        now: float,
        senders: Iterable[str],
    ) -> None:
        """open() of many whose numbers follow on each other from `first`, which nothing ever had: columns, not cells."""
        count = len(keys)
        last = first + count
        self._grow(last)
        senders = [*map(sys.intern, senders)]
        self.keys[first:last] = keys
        self.bodies[first:last] = bodies
        self.openers[first:last] = self.senders[first:last] = senders
        self.incidents[first:last] = incidents
        self.status[first:last] = bytes([FIRING]) * count
        self.how[first:last] = how
        self.starts[first:last] = array("d", starts)
        self.opened[first:last] = self.seen[first:last] = array("d", [now]) * count
        self.ends[first:last] = array("d", ends)
        numbers = range(first, last)
        parts = self.by_series.parts
        for number, key in zip(numbers, keys, strict=True):
            parts[key[SERIES_ID_BYTES - 1]][key[:SERIES_ID_BYTES]] = number
        self.firing.update(zip(keys, numbers, strict=True))
        self.old_keys += [*map(len, keys)].count(OLD_KEY_BYTES)
        names = dict.fromkeys(senders)
        for sender in names:
            own = bodies if len(names) == 1 else [bodies[at] for at in range(count) if senders[at] == sender]
            self.room.take(sender, SERIES_BYTES * len(own) + sum(map(len, own)))
        if ends.count(ends[0]) == count:
            # What came in one request nearly always ends together.
            self._arm(first, ends[0])
            if (second := self.armed[first]) != math.inf:
                self._wheel[int(second)].extend(numbers[1:])
                self.armed[first:last] = array("d", [second]) * count
        else:
            for number, end in zip(numbers, ends, strict=True):
                self._arm(number, end)

    def repeat(self, numbers: Iterable[int], ends: Iterable[float], now: float) -> None:
        """Firing series were seen again with nothing new but their end. The hot path."""
        ends_column, seen, repeats, armed = self.ends, self.seen, self.repeats, self.armed
        for number, end in zip(numbers, ends, strict=True):
            ends_column[number] = end
            seen[number] = now
            repeats[number] += 1
            if end < armed[number]:
                self._arm(number, end)

    def change(
        self, number: int, key: bytes, starts: float, ends: float, body: bytes, now: float, sender: str = ""
    ) -> None:
        """The content of a firing series changed."""
        self.firing.pop(self.keys[number], None)
        self._name(number, key)
        self._say(number, body, sender)
        self.starts[number] = starts
        self.ends[number] = ends
        self.seen[number] = now
        self.firing[key] = number
        if ends < self.armed[number] - 1.0:  # it is armed for the second after its end
            self._arm(number, ends)

    def end(
        self, number: int, at: float, now: float, key: bytes = b"", body: bytes = b"", sender: str = ""
    ) -> None:
        self.firing.pop(self.keys[number], None)
        self.status[number] = ENDED
        self.ends[number] = at
        self.seen[number] = now
        if key:
            self._name(number, key)
            self._say(number, body, sender)

    def refire(
        self, number: int, key: bytes, starts: float, ends: float, body: bytes, now: float, sender: str = ""
    ) -> None:
        self.status[number] = FIRING
        self.change(number, key, starts, ends, body, now, sender)

    def forget(self, number: int) -> None:
        """Free a number. Its series id is freed too, unless a newer run has it."""
        key = self.keys[number]
        if self.by_series.get(key[:SERIES_ID_BYTES]) == number:
            del self.by_series[key[:SERIES_ID_BYTES]]
        if self.firing.get(key) == number:
            # A newer run may fire with the very same key.
            del self.firing[key]
        self.old_keys -= len(key) == OLD_KEY_BYTES
        self.keys[number] = b""
        self._say(number, b"", "")
        self.openers[number] = ""
        self.incidents[number] = None
        self.status[number] = FREE
        self.armed[number] = math.inf
        self.notes.pop(number, None)
        self._release(number)

    def move_times(self, number: int, latest: float, ends: float) -> None:
        """Correct a series: nothing happened later than `latest`, and this is its end."""
        for column in (self.starts, self.opened, self.seen):
            column[number] = min(column[number], latest)
        self.ends[number] = ends
        if self.status[number] == FIRING:
            self._arm(number, ends)
        for note in self.notes.get(number, ()):
            note.first_at, note.last_at = min(note.first_at, latest), min(note.last_at, latest)

    def moved(self, number: int) -> MovedSeries:
        """What take_in() needs in another partition."""
        return MovedSeries(
            self.keys[number],
            self.bodies[number],
            self.status[number],
            self.how[number],
            self.starts[number],
            self.opened[number],
            self.ends[number],
            self.seen[number],
            self.repeats[number],
            self.notes.get(number, []),
            self.openers[number],
            self.senders[number],
        )

    def take_in(self, number: int, series: MovedSeries, incident: Incident) -> None:
        """A series of another table, at `number`, which is free or one past the end. Of two runs of one series the
        later one is found, whichever came first."""
        identity = series.key[:SERIES_ID_BYTES]
        other = self.by_series.get(identity)
        self.open(
            number,
            series.key,
            incident,
            series.starts,
            series.ends,
            series.body,
            series.how,
            series.opened,
            series.sender,
        )
        self.openers[number] = sys.intern(series.opener)
        self.seen[number], self.repeats[number] = series.seen, series.repeats
        if series.notes:
            self.notes[number] = series.notes
            _share_names(series.notes)
        if series.status != FIRING:
            self.end(number, series.ends, series.seen)
        if other is not None and self.opened[other] > series.opened:
            self.by_series[identity] = other
            if self.status[other] == FIRING and self.keys[other] not in self.firing:
                self.firing[self.keys[other]] = other

    def note(self, number: int, decision: int, now: float, sender: str = "") -> None:
        """Record a decision: counts the last 20 different ones."""
        notes = self.notes.get(number)
        if notes is None:
            notes = self.notes[number] = []
        for note in notes:
            if note.decision == decision:
                note.count += 1
                note.last_at = now
                note.sender = sys.intern(sender)
                return
        notes.append(Note(decision, 1, now, now, sys.intern(sender)))
        del notes[:-NOTES_MAX]

    def due(self, now: float, limit: int) -> list[int]:
        """Up to `limit` firing series whose end has passed; the others of those seconds are armed again."""
        found: list[int] = []
        while self._seconds and self._seconds[0] <= now and len(found) < limit:
            second = self._seconds[0]
            waiting = self._wheel[second]
            while waiting and len(found) < limit:
                number = waiting.pop()
                if self.armed[number] != second:
                    continue
                self.armed[number] = math.inf
                if self.status[number] != FIRING:
                    continue
                if self.ends[number] <= now:
                    found.append(number)
                else:
                    self._arm(number, self.ends[number])
            if not waiting:
                del self._wheel[second]
                heapq.heappop(self._seconds)
        return found

    def static_record(self, block: int) -> bytes:
        low = block << BLOCK_SHIFT
        high = min(low + BLOCK, self._used)
        incidents = [b"" if incident is None else incident.id for incident in self.incidents[low:high]]
        return _encoder.encode(
            StaticBlock(
                self.keys[low:high],
                self.bodies[low:high],
                incidents,
                self.starts[low:high].tobytes(),
                self.opened[low:high].tobytes(),
                bytes(self.how[low:high]),
                self.openers[low:high],
                self.senders[low:high],
            )
        )

    def moving_record(self, block: int) -> bytes:
        low = block << BLOCK_SHIFT
        high = min(low + BLOCK, self._used)
        notes = {number: self.notes[number] for number in range(low, high) if number in self.notes}
        return _encoder.encode(
            MovingBlock(
                bytes(self.status[low:high]),
                self.ends[low:high].tobytes(),
                self.seen[low:high].tobytes(),
                self.repeats[low:high].tobytes(),
                notes,
            )
        )

    def load_moving(self, block: int, record: bytes) -> None:
        """Take a moving block of a snapshot. Blocks come before their statics, in any order."""
        data = _moving_decoder.decode(record)
        low = block << BLOCK_SHIFT
        high = low + len(data.status)
        self._grow(high)
        self.status[low:high] = data.status
        self.ends[low:high] = array("d", data.ends)
        self.seen[low:high] = array("d", data.seen)
        self.repeats[low:high] = array("Q", data.repeats)
        self.notes.update(data.notes)
        for notes in data.notes.values():
            _share_names(notes)

    def load_static(self, block: int, record: bytes, incidents: dict[bytes, Incident]) -> None:
        data = _static_decoder.decode(record)
        low = block << BLOCK_SHIFT
        high = low + len(data.keys)
        self._grow(high)
        self.keys[low:high] = data.keys
        self.bodies[low:high] = data.bodies
        self.incidents[low:high] = [incidents.get(identity) for identity in data.incidents]
        self.starts[low:high] = array("d", data.starts)
        self.opened[low:high] = array("d", data.opened)
        self.how[low:high] = data.how
        if data.senders:
            self.openers[low:high] = map(sys.intern, data.openers)
            self.senders[low:high] = map(sys.intern, data.senders)

    def index(self) -> None:
        """After the last block is loaded: rebuild the look-ups."""
        newest: Parted[int] = Parted()
        parts, opened, firing = newest.parts, self.opened, self.firing
        held: dict[str, int] = {}
        ending: dict[float, list[int]] = {}
        columns = zip(range(self._used), self.keys, self.status, self.senders, self.bodies, self.ends)
        for number, key, state, sender, body, end in columns:
            if state == FREE:
                self._release(number)
                continue
            held[sender] = held.get(sender, 0) + SERIES_BYTES + len(body)
            identity = key[:SERIES_ID_BYTES]
            part = parts[identity[-1]]
            other = part.setdefault(identity, number)
            if other != number and opened[number] >= opened[other]:
                part[identity] = number
            if state == FIRING:
                firing[key] = number
                if end in ending:
                    ending[end].append(number)
                else:
                    ending[end] = [number]
        self.by_series = newest
        self.old_keys += [*map(len, self.keys)].count(OLD_KEY_BYTES)
        for sender, size in held.items():
            self.room.take(sender, size)
        for end, numbers in ending.items():
            self._arm_all(numbers, end)

    def _say(self, number: int, body: bytes, sender: str) -> None:
        """Set the present content of a series, and its sender; b"" if there is no series any more."""
        before = self.bodies[number]
        self.bodies[number] = body
        if before and body and sender == self.senders[number]:
            if len(body) != len(before):
                self.room.take(sender, len(body) - len(before))
            return
        if before:
            self.room.take(self.senders[number], -SERIES_BYTES - len(before))
        self.senders[number] = sender = sys.intern(sender)
        if body:
            self.room.take(sender, SERIES_BYTES + len(body))

    def _name(self, number: int, key: bytes) -> None:
        """Set a new key for a series; also a new series id if the previous one is of the old kind."""
        before = self.keys[number]
        if key[:SERIES_ID_BYTES] != before[:SERIES_ID_BYTES]:
            if self.by_series.get(before[:SERIES_ID_BYTES]) == number:
                del self.by_series[before[:SERIES_ID_BYTES]]
            self.by_series[key[:SERIES_ID_BYTES]] = number
        self.old_keys += (len(key) == OLD_KEY_BYTES) - (len(before) == OLD_KEY_BYTES)
        self.keys[number] = key

    def _release(self, number: int) -> None:
        self.free.add(number)
        heapq.heappush(self._free_heap, number)

    def _grow(self, size: int) -> None:
        self._used = max(self._used, size)
        if size <= len(self.keys):
            return
        # In blocks: growing eight columns for each of a million new series would be a third of the work.
        more = -(-size // BLOCK) * BLOCK - len(self.keys)
        self.keys.extend([b""] * more)
        self.bodies.extend([b""] * more)
        self.openers.extend([""] * more)
        self.senders.extend([""] * more)
        self.incidents.extend([None] * more)
        self.status.extend(bytes(more))
        self.how.extend(bytes(more))
        for column in (self.starts, self.opened, self.ends, self.seen):
            column.frombytes(bytes(8 * more))
        self.repeats.frombytes(bytes(8 * more))
        self.armed.extend([math.inf] * more)

    def _arm_all(self, numbers: Sequence[int], ends: float) -> None:
        """_arm() of several that are not armed yet and end together."""
        self._arm(numbers[0], ends)
        if ends == math.inf:
            return
        second = int(ends) + 1
        self._wheel[second].extend(numbers[1:])
        armed = self.armed
        for number in numbers:
            armed[number] = second

    def _arm(self, number: int, ends: float) -> None:
        # One live entry per series: it is checked when its second comes, and armed again if its end has moved.
        if ends >= self.armed[number] or ends == math.inf:
            return
        second = int(ends) + 1
        if second == self.armed[number]:
            return
        self.armed[number] = second
        waiting = self._wheel.get(second)
        if waiting is None:
            self._wheel[second] = [number]
            heapq.heappush(self._seconds, second)
        else:
            waiting.append(number)


def _share_names(notes: list[Note]) -> None:
    """A name that was read from a record is one string for all notes, not one each."""
    for note in notes:
        note.sender = sys.intern(note.sender)
