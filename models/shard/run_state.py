"""What a shard keeps of runs: those of each incident, the playbooks that they go by, and what they captured. Records of their own in
snapshots, so that an incident is no larger for them."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import msgspec

from models.partition.checkpoint import RecordKind
from models.playbook.playbook import Playbook, decode
from models.playbook.run import Run
from models.playbook.run_events import CaptureKept, Chosen
from models.shard.state import ShardState

RUNS = RecordKind("runs", has_ids=True)
BOOKS = RecordKind("runs of", has_ids=True)
CAPTURES = RecordKind("captured", has_ids=True)

#: Runs of one incident that are kept once they are over; the oldest go first.
RUNS_KEPT = 20
#: What is captured of one incident: pieces, and bytes packed.
CAPTURES_MAX = 50
CAPTURED_MAX = 256 * 1024
#: Bytes packed that a shard holds of all incidents.
ALL_CAPTURED_MAX = 256 * 1024 * 1024


class Task(msgspec.Struct, frozen=True, array_like=True):
    """Something that people are to do after the incident."""

    text: str
    due_at: float
    by: str
    #: When the timeline said that it is due, 0 as long as it did not.
    told_at: float = 0.0

    @property
    def is_to_be_told(self) -> bool:
        return self.due_at > 0 and not self.told_at


class Captured(msgspec.Struct, frozen=True, array_like=True):
    """Something that an action recorded. `packed` is Zstandard, `size` its bytes unpacked."""

    id: bytes
    run: bytes
    step: str
    name: str
    media_type: str
    at: float
    packed: bytes
    size: int
    cut: bool = False


class IncidentRuns(msgspec.Struct, array_like=True):
    """All about the runs of one incident. `chosen` wait for their turn, `asking` for whether their expression holds. `started` says
    when a playbook last ran. `asked` counts the questions about expressions. `refused`: playbooks that were chosen and did not begin, with
    when the incident's life began and how severe it was: a new process does not choose them again. `told`: receivers at which an action
    opened something for the incident, when last, and what they call it."""

    runs: list[Run] = []
    number: int = 0
    chosen: list[Chosen] = []
    asking: list[Chosen] = []
    asked: int = 0
    started: dict[str, list[float]] = {}
    captures: list[bytes] = []
    captured_bytes: int = 0
    tasks: list[Task] = []
    refused: dict[str, tuple[float, int]] = {}
    told: dict[str, tuple[float, str]] = {}

    def run(self, identity: bytes) -> Run | None:
        return next((each for each in self.runs if each.id == identity), None)

    @property
    def active(self) -> list[Run]:
        return [each for each in self.runs if not each.is_over]


class Carried(msgspec.Struct, array_like=True):
    """All of it for an incident that moves to another partition."""

    mine: IncidentRuns
    books: dict[str, bytes]
    captures: list[Captured]


class RunStore:
    """The state. Every change is touched here first."""

    def __init__(self, state: ShardState) -> None:
        self._state = state
        self.by_incident: dict[bytes, IncidentRuns] = {}
        self.bodies: dict[str, bytes] = {}
        self.captures: dict[bytes, Captured] = {}
        self.captured_bytes = 0
        # What follows from them.
        self.incident_of: dict[bytes, bytes] = {}
        self.active: dict[bytes, None] = {}
        #: Incidents with a task that is to be told of when it is due.
        self.planned: dict[bytes, None] = {}
        self._uses: dict[str, int] = {}
        self._books: dict[str, Playbook] = {}

    def of(self, incident_id: bytes) -> IncidentRuns:
        """For looking."""
        return self.by_incident.get(incident_id) or IncidentRuns()

    def changing(self, incident_id: bytes) -> IncidentRuns:
        """For changing: of an incident that has none yet, new ones."""
        self._state.checkpoint.touch(RUNS, incident_id)
        self._state.stirred[incident_id] = None
        return self.by_incident.setdefault(incident_id, IncidentRuns())

    def find(self, identity: bytes) -> Run | None:
        incident_id = self.incident_of.get(identity)
        return None if incident_id is None else self.by_incident[incident_id].run(identity)

    # -- playbooks --

    def book(self, name: str) -> Playbook:
        """What a run goes by."""
        found = self._books.get(name)
        if found is None:
            found = self._books[name] = decode(self.bodies[name])
        return found

    def take(self, name: str, body: bytes) -> None:
        self._state.checkpoint.touch(BOOKS, book_id(name))
        self.bodies[name] = body

    def began(self, run: Run) -> None:
        """A run is here."""
        self.incident_of[run.id] = run.incident_id
        if not run.is_over:
            self.active[run.id] = None
            self._uses[run.book] = self._uses.get(run.book, 0) + 1

    def ended(self, run: Run) -> None:
        """A run is over, or leaves: nobody but other runs needs its playbook any more."""
        if run.id not in self.active:
            return
        del self.active[run.id]
        self._uses[run.book] -= 1
        if not self._uses[run.book]:
            del self._uses[run.book]
            self._state.checkpoint.touch(BOOKS, book_id(run.book))
            self.bodies.pop(run.book, None)
            self._books.pop(run.book, None)

    def plans(self, incident_id: bytes) -> None:
        """The tasks of an incident are others."""
        if any(each.is_to_be_told for each in self.of(incident_id).tasks):
            self.planned[incident_id] = None
        else:
            self.planned.pop(incident_id, None)

    # -- captures --

    def keep(self, event: CaptureKept, now: float) -> None:
        mine = self.changing(event.incident_id)
        self._put(
            Captured(
                event.capture,
                event.run,
                event.step,
                event.name,
                event.media_type,
                now,
                event.packed,
                event.size,
                event.cut,
            )
        )
        mine.captures = [*mine.captures, event.capture]
        mine.captured_bytes += len(event.packed)

    def has_room(self, incident_id: bytes, size: int) -> bool:
        mine = self.of(incident_id)
        return (
            len(mine.captures) < CAPTURES_MAX
            and mine.captured_bytes + size <= CAPTURED_MAX
            and self.captured_bytes + size <= ALL_CAPTURED_MAX
        )

    def _put(self, captured: Captured) -> None:
        self._state.checkpoint.touch(CAPTURES, captured.id)
        self.captures[captured.id] = captured
        self.captured_bytes += len(captured.packed)

    def captured_of(self, incident_id: bytes) -> Iterator[Captured]:
        for identity in self.of(incident_id).captures:
            yield self.captures[identity]

    # -- incidents come and go --

    def left(self, incident_id: bytes) -> None:
        """The incident is not here any more."""
        mine = self.by_incident.pop(incident_id, None)
        if mine is None:
            return
        self._state.checkpoint.touch(RUNS, incident_id)
        self.planned.pop(incident_id, None)
        for run in mine.runs:
            self.ended(run)
            self.incident_of.pop(run.id, None)
        for identity in mine.captures:
            self._state.checkpoint.touch(CAPTURES, identity)
            self.captured_bytes -= len(self.captures.pop(identity).packed)

    def carried(self, incident_id: bytes) -> bytes | None:
        mine = self.by_incident.get(incident_id)
        if mine is None:
            return None
        books = {run.book: self.bodies[run.book] for run in mine.active}
        return _encoder.encode(Carried(mine, books, [*self.captured_of(incident_id)]))

    def bring(self, incident_id: bytes, record: bytes) -> None:
        carried = _carried_decoder.decode(record)
        self._state.checkpoint.touch(RUNS, incident_id)
        for name, body in carried.books.items():
            if name not in self.bodies:
                self.take(name, body)
        for captured in carried.captures:
            self._put(captured)
        self.by_incident[incident_id] = carried.mine
        for run in carried.mine.runs:
            self.began(run)
        self.plans(incident_id)

    # -- snapshots --

    def capture_runs(self, incident_id: int | bytes) -> bytes | None:
        found = self.by_incident.get(bytes(incident_id)) if isinstance(incident_id, bytes) else None
        return None if found is None else _encoder.encode(found)

    def load_runs(self, incident_id: int | bytes, record: bytes, _version: int) -> None:
        assert isinstance(incident_id, bytes)
        mine = self.by_incident[incident_id] = _runs_decoder.decode(record)
        for run in mine.runs:
            self.began(run)
        self.plans(incident_id)

    def capture_book(self, identity: int | bytes) -> bytes | None:
        found = next((each for each in self.bodies if book_id(each) == identity), None)
        return None if found is None else _encoder.encode((found, self.bodies[found]))

    def load_book(self, _identity: int | bytes, record: bytes, _version: int) -> None:
        name, body = _book_decoder.decode(record)
        self.bodies[name] = body

    def capture_captured(self, identity: int | bytes) -> bytes | None:
        found = self.captures.get(bytes(identity)) if isinstance(identity, bytes) else None
        return None if found is None else _encoder.encode(found)

    def load_captured(self, _identity: int | bytes, record: bytes, _version: int) -> None:
        captured = _captured_decoder.decode(record)
        self.captures[captured.id] = captured
        self.captured_bytes += len(captured.packed)


def decode_carried(record: bytes) -> Carried:
    return _carried_decoder.decode(record)


def book_id(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


_encoder = msgspec.msgpack.Encoder()
_runs_decoder = msgspec.msgpack.Decoder(IncidentRuns)
_carried_decoder = msgspec.msgpack.Decoder(Carried)
_captured_decoder = msgspec.msgpack.Decoder(Captured)
_book_decoder = msgspec.msgpack.Decoder(tuple[str, bytes])
