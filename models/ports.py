"""Every Protocol the core needs from outside, on one page, each with its promise.

A Protocol that waits on the world is `async def`; nothing in models/ awaits. Adapters live in
services/stores and friends, one file a technology; each translates foreign errors into models/errors.py at
its edge. tests/contract holds one suite a port, run against every adapter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from models.incidents.filters import Position, Sort
from models.incidents.notification import Facts, Note
from models.playbook.policy import PolicyEvalRequest, PolicyEvalResponse
from models.playbook.work import Done, Work
from models.trace import Attribute, Kind

if TYPE_CHECKING:
    from models.topology.messages import IncidentsHeard


class Clock(Protocol):
    """Where time comes from. Seconds."""

    def now(self) -> float:
        """Seconds since the epoch, UTC. May jump; the shard never lets its own `now` go back."""

    def monotonic(self) -> float:
        """Seconds that only grow, for measuring."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What opening a log found. `cut` says in words what was cut from a torn tail, None when nothing was.

    `first_seq`/`last_seq` are 0 in an empty log; in one truncated to nothing `first_seq` is 0, and `last_seq` and
    `last_digest` stay at the anchor, so that the sequence goes on. `anchor` is the digest of the frame before `first_seq`
    (frames.NO_DIGEST in a log that was never truncated), `last_digest` that of the last frame.
    """

    epoch: int
    first_seq: int
    last_seq: int
    anchor: bytes
    last_digest: bytes
    cut: str | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A complete snapshot: the state at `seq`, made of the newest record of each key with generation <= `generation`.

    `digest` is the frame digest at `seq`: replay goes on from it along the chain. `checksum` is
    that of all its records (models/partition/checkpoint.py, Census); b"" in one of an older version.
    """

    generation: int
    seq: int
    digest: bytes
    version: int
    checksum: bytes


class EventLog(Protocol):
    """One partition's append-only log of frames, its snapshots, and who may write it.

    Ordering: frames come back in the order appended, seq without gaps. Fencing: each open() by a writer takes
    the next epoch; every write names its epoch and raises Fenced when a newer one was taken. Safe to construct
    without opening for reading only: read(), mark(), records() work beside a live writer.
    """

    partition: str

    async def open(self, owner: str, now: float, lease_s: float) -> Opened:
        """Become the writer. Raises NotOwner while another owner's lease is live; the same owner name takes its
        own lease over at once (Ray keeps actor names unique). A torn tail (the last append fails its checksum) is
        cut, kept aside and told in `Opened.cut`; a gap, a broken chain, or damage before it raises Damaged with
        the place. Records of a snapshot that was never closed are dropped."""

    async def renew(self, epoch: int, until: float) -> None:
        """Lengthen the lease. Raises Fenced, Unavailable."""

    async def release(self, epoch: int) -> None:
        """Give the lease up, so that another owner need not wait. Never raises Fenced: releasing twice is safe."""

    async def seed(self, epoch: int, seq: int, digest: bytes, epoch_before: int) -> int:
        """Let an empty log go on behind frame `seq` of another one, whose digest is `digest`: for copies. Returns the epoch
        that writes from now on, at least `epoch_before`, so that no epoch is ever taken twice. Idempotent. Raises
        ValueError for a log that has frames or snapshots; Fenced, Unavailable."""

    async def append(self, epoch: int, first_seq: int, frames: Sequence[bytes]) -> None:
        """Make all frames durable, or none. When it returns they survive a crash of process and machine.

        `first_seq` must be last_seq + 1: an append that repeats or skips raises Fenced (another writer was here).
        Raises Full (nothing kept), Unavailable (nothing kept), OutcomeUnknown (open() again and replay; until then
        every write is refused), ValueError on no frames.
        """

    async def read(self, after: int, limit_bytes: int = ...) -> list[tuple[int, bytes]]:
        """(seq, stored frame) with seq > after, in order, at least one if there is one, then up to limit_bytes.

        From before the anchor it starts at the first kept frame: the caller sees the gap in seq. A reader that never
        opened the log ends before a torn last append. Raises Damaged when a frame before that fails its check.
        """

    async def last_seq(self) -> int:
        """The seq of the newest durable frame, 0 in an empty log."""

    async def put_records(
        self, epoch: int, generation: int, records: Sequence[tuple[str, bytes | None]]
    ) -> None:
        """Write snapshot records of a generation under way. None is a tombstone. Raises Fenced, Full, Unavailable,
        ValueError for a generation that is closed already."""

    async def close_snapshot(self, epoch: int, mark: Mark) -> None:
        """Make the snapshot count. Keeps this mark and the one before it, drops what neither needs. Raises Fenced, Full."""

    async def marks(self) -> list[Mark]:
        """The complete snapshots, newest first; at most two. A damaged mark is left out while another is whole,
        else Damaged is raised."""

    def records(self, generation: int) -> AsyncIterator[list[tuple[str, bytes]]]:
        """Pages of (key, record) of the snapshot at `generation`: the newest record <= generation of each key,
        tombstones left out, ordered by key. Raises Damaged when a record fails its own checksum, Unavailable when
        the generation is none of the marks'."""

    async def truncate(self, epoch: int, up_to: int) -> None:
        """Drop whole appends whose frames are all <= up_to, keeping the digest of the last dropped as anchor. Raises
        ValueError past the older of two marks: it must stay loadable."""

    async def stats(self) -> dict[str, int]:
        """For people: first_seq, last_seq, frames, log_bytes, record_bytes, disk_bytes, epoch."""

    async def close(self) -> None:
        """Free files and threads. Safe to call twice. Does not release the lease."""


class Archive(Protocol):
    """Closed incidents, out of their shard. One writer a partition; readers beside it."""

    async def put(self, incidents: Sequence[ArchivedIncident]) -> None:
        """Durable when it returns. Idempotent by incident id: the later one wins."""

    async def get(self, incident_id: bytes) -> ArchivedIncident | None: ...

    async def page(self, query: ArchiveQuery) -> ArchivePage:
        """Up to query.limit incidents in the order of query.sort, after query.after. At most ARCHIVE_SCAN_MAX of those
        that all else holds for are given to query.holds, and what no index is in the order of is looked for a bounded
        way: a page may be short, or empty, and still have a next one. Of `alerts` a
        page brings the first ALERTS_HEAD_BYTES only, which say how many there are."""

    async def read(self, after: bytes, limit_bytes: int = ...) -> list[ArchivedIncident]:
        """Whole incidents with incident_id > after, ordered by it and so by their creation: at least one if there is one,
        then up to limit_bytes as they are stored; [] at the end. b"" is before all. How an archive is copied."""

    async def tally(self, first: bytes, end: bytes) -> tuple[int, float]:
        """How many incidents have first <= incident_id < end, and the newest updated_at among them, 0.0 when none: whether
        a stretch changed since it was copied."""

    async def remove(self, incident_ids: Sequence[bytes]) -> None:
        """Forget these; those that are not there are no error. They are somewhere else now."""

    async def drop_before(self, closed_before: float, limit: int) -> int:
        """Forget incidents closed before then, `limit` at most, or a whole month of them where that is one step; returns
        how many. Fewer than `limit`: none is left."""

    async def count(self) -> int: ...

    async def close(self) -> None: ...


#: Bytes of the longest header of a MessagePack list.
ALERTS_HEAD_BYTES = 5
#: Archived incidents that are decoded for one page: at 60 us each, with their rows from the disk, 60 ms of the thread that
#: reads.
ARCHIVE_SCAN_MAX = 1000


@dataclass(frozen=True, slots=True)
class ArchivedIncident:
    """`record` is MessagePack of incident.Incident, `alerts` MessagePack of its alerts as views; the rest are what pages
    filter and sort by."""

    incident_id: bytes
    tenant: str
    service: str
    state: str
    severity: int
    type: str
    created_at: float
    closed_at: float
    updated_at: float
    record: bytes
    alerts: bytes

    def place(self, sort: Sort) -> Position:
        """Where it stands in a list of this order: filters.place_of, without decoding it."""
        match sort:
            case Sort.NEWEST | Sort.OLDEST:
                return self.created_at, self.created_at, self.incident_id
            case Sort.LATELY_UPDATED | Sort.LONG_UNTOUCHED:
                return self.updated_at, self.created_at, self.incident_id
            case Sort.WORST | Sort.MILDEST:
                return -float(self.severity), self.created_at, self.incident_id


@dataclass(frozen=True, slots=True)
class ArchiveQuery:
    """Empty collections mean any; times are seconds since the epoch, `after` inclusive, `before` exclusive, 0 not given.
    `holds` is asked about records that all else holds for."""

    tenant: str
    limit: int
    after: Position | None = None
    services: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()
    types: tuple[str, ...] = ()
    sort: Sort = Sort.NEWEST
    created_after: float = 0.0
    created_before: float = 0.0
    updated_after: float = 0.0
    updated_before: float = 0.0
    holds: Callable[[bytes], bool] | None = None


@dataclass(frozen=True, slots=True)
class ArchivePage:
    """`next_after` is where the next page begins, None when there is nothing behind this one."""

    items: list[ArchivedIncident]
    next_after: Position | None = None


class DeliveryIds(Protocol):
    """Delivery ids accepted within a window, with the answer each got."""

    async def seen(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The answers of those ids that are known. Ids older than the window may be missing."""

    async def add(self, entries: Sequence[tuple[str, float, bytes]]) -> None:
        """(id, accepted at, answer). Durable when it returns; the first answer of an id stays."""

    async def drop_before(self, at: float) -> int:
        """Forget ids accepted before then; returns how many."""

    def recent(self, since: float) -> AsyncIterator[list[str]]:
        """Pages of ids accepted since then: what a Bloom filter is rebuilt from."""

    def entries(self) -> AsyncIterator[list[tuple[str, float, bytes]]]:
        """Pages of all there is, as add() takes it: for copies."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Something a sender gave that could not be read, with the reason. `payload` may be cut at the store's limit.

    sender    who sent it: the name of a token, of a queue
    place     where it was: which item of its request, "topic/partition/offset" of a queue
    replays   how often it was read again and still could not be taken; `tried_at` is the last time
    request   how it came, for who reads it again (services/ingest/letters.py); stores keep it as it is
    """

    at: float
    tenant: str
    door: str
    reason: str
    payload: bytes
    content_type: str = ""
    id: int = 0
    truncated: bool = False
    sender: str = ""
    place: str = ""
    replays: int = 0
    tried_at: float = 0.0
    request: bytes = b""


@dataclass(frozen=True, slots=True)
class LettersWanted:
    """Which dead letters: those of which all this is true. What is empty says nothing.

    since   seconds since the epoch: those that came then or later
    until   those that came before
    reason  a part of the reason, in any case of ASCII letters
    """

    tenant: str = ""
    door: str = ""
    sender: str = ""
    since: float = 0.0
    until: float = 0.0
    reason: str = ""


#: All of them.
EVERY_LETTER = LettersWanted()


class DeadLetters(Protocol):
    """What could not be read, bounded by size and age; the oldest go first. Indexed by its own store, so a
    flood of dead letters stops nothing."""

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them. Past the bounds the oldest are dropped and counted."""

    async def page(self, after_id: int, limit: int, wanted: LettersWanted = EVERY_LETTER) -> list[DeadLetter]:
        """Those with a higher id, in the order they came."""

    async def latest(
        self, before_id: int, limit: int, wanted: LettersWanted = EVERY_LETTER
    ) -> list[DeadLetter]:
        """Those with a lower id (0: any), the newest first."""

    async def get(self, letter_id: int) -> DeadLetter | None:
        """One of them, None when it is not there, or no longer."""

    async def remove(self, ids: Sequence[int]) -> int:
        """Forget these; how many of them were there. Those don't count as dropped. Safe to repeat."""

    async def change(self, letter: DeadLetter) -> None:
        """Write a letter's reason, replays, tried_at and request anew, if it is still there. Safe to repeat."""

    async def stats(self) -> dict[str, int]:
        """kept, bytes, dropped."""

    async def close(self) -> None: ...


class Action(Protocol):
    """One kind of act upon the world."""

    def render(self, facts: Facts) -> bytes:
        """What act() would send for these facts: the same bytes each time. Sends nothing."""

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        """Do it once. `key` is sent along, so that a receiver can tell a repeat, and so is the trace context `trace`
        (models/trace.py) where the technology has a place for it. Never raises for the receiver's faults, and tells no secret
        in a detail."""

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""


class Channel(Action, Protocol):
    """An action that tells people, at one receiver (models/settings/notify.py)."""

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        """What a playbook, or a person who tries the receiver, wants said. The promises of act() hold."""


class Worker(Protocol):
    """Does what the runs of playbooks ask for (models/playbook/work.py)."""

    async def work(self, work: Work, trace: str | None = None) -> Done:
        """Answer one question, once: the same key while it is under way joins it. Never raises for what a playbook, a target or a
        policy server does wrong; tells no secret."""

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""


class Policy(Protocol):
    """Says whether an action that changes something may be done (models/playbook/policy.py)."""

    async def evaluate(self, request: PolicyEvalRequest) -> PolicyEvalResponse:
        """Its decision. Raises Unavailable when it could not decide, and Malformed when what it said is not understood: neither is
        a permission. Asks nobody twice within the time that decisions are kept for; tells no secret."""

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""


@dataclass(frozen=True, slots=True)
class ActionResult:
    """`final` with ok=False: the receiver will never take it, do not try again. `retry_after_s`: it asked to be
    left alone for so long. `reached` with ok=False: somebody may have got it all the same, as after a timeout. `ref` is what the
    receiver calls what it made (a message, a ticket), to change it later: kept with the incident, at most REF_MAX characters.
    `of_place` with ok=False: it was the address or channel of this one message that was refused; the receiver itself works."""

    ok: bool
    detail: str
    final: bool = False
    retry_after_s: float = 0.0
    reached: bool = True
    ref: str = ""
    of_place: bool = False


#: Of ActionResult.ref: a key of a ticket, the time of a message, a link.
REF_MAX = 512


class Peers(Protocol):
    """How one actor calls another, by name. Bytes in, bytes out."""

    async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        """Raises Unavailable when the actor is away or did not answer in time (it may have done it), and the
        actor's own Refused or Unavailable errors as they are."""


class IncidentFeed(Protocol):
    """How the incidents of one shard are, read from its log beside its writer. After an error begin() anew."""

    partition: str

    async def begin(self, seq: int, digest: bytes) -> None:
        """Go on behind the frame `seq`, whose digest begins with `digest`. Where the log does not go on from there, or for 0, read()
        gives all that is open first (`whole`). Raises Unavailable, Damaged."""

    async def read(self) -> IncidentsHeard | None:
        """What is new, None for nothing. Raises Unavailable, Damaged."""

    async def close(self) -> None:
        """Close the files. Safe to call twice."""


class Span(Protocol):
    """A piece of work under way. `trace` is the context that what it causes goes on from: its own, or the parent's
    when it is not recorded. It is under way while it is entered, once."""

    def __enter__(self) -> Span: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    @property
    def trace(self) -> str | None: ...

    def note(self, name: str, value: Attribute) -> None:
        """Say something about it."""

    def rename(self, name: str) -> None:
        """Call it otherwise: its name was not known when it began."""

    def fail(self, why: str) -> None:
        """It did not succeed. An error that leaves it says so by itself."""


class Tracer(Protocol):
    """Where spans go (actors/runtime/untraced.py: nowhere). Contexts are strings, models/trace.py says which. Never raises,
    never waits: what can't be kept or sent is lost, and its loss is told in the log."""

    def wants(self, trace: str | None) -> bool:
        """Whether a span of this trace would be recorded: to be asked before making attributes."""

    def span(
        self,
        name: str,
        parent: str | None,
        attributes: Mapping[str, Attribute] | None = None,
        *,
        kind: Kind = "internal",
        since: float | None = None,
    ) -> Span:
        """A piece of work: recorded when `parent` is sampled. Without a parent only kind "server" may begin a trace,
        by the ratio of the settings. `since`, in seconds since the epoch, is for one that began before it was known
        to be worth a span. Log lines within bear its trace_id."""

    async def close(self) -> None:
        """Send what waits, for a moment. Safe to call twice."""
