"""What a backup is: its manifest, how far it reaches, and which of many to keep. Read and written by
services/upkeep/backup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from models.errors import Broken, Conflict, Malformed, NotFound
from models.incidents.incident import Incident
from models.partition.sharding import SlotMap, partition_name
from models.ports import Mark

#: The layout that this program writes. It reads every one up to it.
FORMAT = 1
DIGEST_BYTES = 32
#: A restored log writes in epochs above all that the copied one can have reached: the old system may have continued
#: after the cut, and each start of a shard is an epoch.
EPOCHS_AHEAD = 1_000_000
_ID_FORMAT = "%Y%m%dT%H%M%S.%fZ"


class File(msgspec.Struct, frozen=True):
    """A file by its content: `digest` is blake2b-256 of the stored bytes and its name. `size` in bytes as stored."""

    digest: str
    size: int


class Day(msgspec.Struct, frozen=True):
    """The archived incidents of a partition that were created on one day (UTC): ids from `first` on, before `end`. A
    later backup with the same count reuses the files."""

    first: bytes
    end: bytes
    count: int
    newest: float
    files: list[File]


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot mark (models/ports.py) and the shard's time in it."""

    generation: int
    seq: int
    digest: bytes
    version: int
    checksum: bytes
    now: float

    def mark(self) -> Mark:
        return Mark(self.generation, self.seq, self.digest, self.version, self.checksum)


class Part(msgspec.Struct, frozen=True):
    """One partition: a snapshot, if there was one, all frames behind it up to `last_seq`, and what lies beside the log.
    `last_now` is the time of the last frame, `last_digest` its digest."""

    name: str
    epoch: int
    snapshot: Snapshot | None
    last_seq: int
    last_digest: bytes
    last_now: float
    frames: list[File] = []
    records: list[File] = []
    deliveries: list[File] = []
    archive: list[Day] = []
    #: Of other ports beside the log, by their names.
    kept: dict[str, list[File]] = {}

    @property
    def first_seq(self) -> int:
        """The earliest seq it can be restored at; 0 is the empty beginning."""
        return 0 if self.snapshot is None else self.snapshot.seq

    @property
    def first_now(self) -> float:
        return 0.0 if self.snapshot is None else self.snapshot.now

    def files(self) -> Iterable[File]:
        yield from self.frames
        yield from self.records
        yield from self.deliveries
        for day in self.archive:
            yield from day.files
        for files in self.kept.values():
            yield from files


class Backup(msgspec.Struct, frozen=True):
    """A whole system as it was at `cut_at`. Times in seconds since the epoch. `partitions` begins with control."""

    format: int
    id: str
    program: str
    backend: str
    cut_at: float
    took_s: float
    parts: list[Part]

    @property
    def first_at(self) -> float:
        """The earliest time that all partitions can be restored at."""
        return max((part.first_now for part in self.parts), default=0.0)

    def files(self) -> dict[str, int]:
        """Every file it needs: digest -> bytes."""
        return {file.digest: file.size for part in self.parts for file in part.files()}

    def find(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)

    def part(self, name: str) -> Part:
        """Raises NotFound."""
        if (found := self.find(name)) is not None:
            return found
        raise NotFound(
            f"backup {self.id} has no partition {name!r}; there are {', '.join(each.name for each in self.parts)}"
        )


def backup_id(at: float) -> str:
    """`20261124T130501.123456Z`: sorts by time, and is a file's name everywhere."""
    return datetime.fromtimestamp(at, UTC).strftime(_ID_FORMAT)


def time_of(identity: str) -> float:
    """When the backup of this id was cut. Raises Malformed."""
    try:
        return datetime.strptime(identity, _ID_FORMAT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Malformed(f"--at: {identity!r} is not a backup id; see `llm-im backup list`") from None


# -- up to where it is restored ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Until:
    """How far a backup is restored: completely; up to a time, in all partitions; or up to a seq in some of them."""

    at: float | None = None
    seqs: Mapping[str, int] | None = None

    @property
    def is_whole(self) -> bool:
        return self.at is None and not self.seqs

    def last_seq(self, part: Part) -> int:
        """The last frame to restore of a partition, as far as that is known without reading its frames."""
        return part.last_seq if self.seqs is None else self.seqs.get(part.name, part.last_seq)

    def takes(self, part: Part, seq: int, now: float) -> bool:
        """Whether a frame is part of it."""
        return seq <= self.last_seq(part) and (self.at is None or now <= self.at)

    def check(self, backup: Backup) -> None:
        """Raises NotFound for a point that this backup does not contain, saying which ones it does."""
        if self.at is not None and not backup.first_at <= self.at <= backup.cut_at:
            raise NotFound(
                f"--until-time: backup {backup.id} goes from {shown(backup.first_at)} to {shown(backup.cut_at)},"
                f" not to {shown(self.at)}; look for another one: llm-im backup list"
            )
        for name, seq in (self.seqs or {}).items():
            part = backup.part(name)
            if not part.first_seq <= seq <= part.last_seq:
                raise NotFound(
                    f"--until: of {name}, backup {backup.id} has seq {part.first_seq} to {part.last_seq}, not {seq}"
                )


def shown(at: float) -> str:
    """A time for people; a log that began empty has no first one."""
    if not at:
        return "the beginning"
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def covering(backups: Iterable[Backup], at: float) -> Backup:
    """The oldest backup that contains this time. Raises NotFound, saying which times there are."""
    known = sorted(backups, key=lambda each: each.cut_at)
    for backup in known:
        if backup.first_at <= at <= backup.cut_at:
            return backup
    before = [each for each in known if each.cut_at < at]
    after = [each for each in known if each.first_at > at]
    near = [
        *(f"{each.id} goes up to {shown(each.cut_at)}" for each in before[-1:]),
        *(f"{each.id} begins at {shown(each.first_at)}" for each in after[:1]),
    ]
    raise NotFound(
        f"--until-time: no backup holds {shown(at)}; {' and '.join(near) or 'there is none at all'}"
    )


# -- what is kept --------------------------------------------------------------------------------------------------


def expired(whole: Iterable[str], others: Iterable[str], now: float, retention_s: float) -> list[str]:
    """Ids of backups to remove: all older than the retention except the newest complete one, which stays whatever its
    age."""
    kept = max(whole_ids := list(whole), default=None)
    oldest = now - retention_s
    return [each for each in sorted([*whole_ids, *others]) if each != kept and time_of(each) < oldest]


# -- days of ids ---------------------------------------------------------------------------------------------------

_DAY_MS = 86_400_000
_TIME_SHIFT = 80


def day_of(incident_id: bytes) -> tuple[bytes, bytes]:
    """First id of the day (UTC) in which an incident was created, and the first one behind that day: UUIDv7 begin with
    their time."""
    day = (int.from_bytes(incident_id, "big") >> _TIME_SHIFT) // _DAY_MS
    return _first_id(day), _first_id(day + 1)


def before(incident_id: bytes) -> bytes:
    """The id just before, b"" for the first of all: what a read goes on after, to begin with this one."""
    return b"" if not any(incident_id) else (int.from_bytes(incident_id, "big") - 1).to_bytes(16, "big")


def _first_id(day: int) -> bytes:
    # The last day of all ends with the last id there is.
    return min(day * _DAY_MS << _TIME_SHIFT, (1 << 128) - 1).to_bytes(16, "big")


# -- one cut through all shards ------------------------------------------------------------------------------------


class Across:
    """What must fit between the partitions of a copy: which messages were sent and which were heard
    (models/shard/peer_messages.py): nobody may have heard one that its sender has not written, or that sender's next one would
    count as heard already. And whether every incident is where the slot map says, or one that moved would be there twice, or
    not at all."""

    def __init__(self) -> None:
        #: The control partition's, once it is read.
        self.slots: SlotMap | None = None
        self._elsewhere = ""
        self._sent: dict[bytes, tuple[str, int]] = {}
        self._heard: list[tuple[str, bytes, bytes, int]] = []

    def add(self, partition: str, incidents: Iterable[Incident]) -> None:
        for incident in incidents:
            home = "" if self.slots is None else partition_name(self.slots.owners[incident.slot])
            if home not in ("", partition):
                self._elsewhere = (
                    f"incident {UUID(bytes=incident.id)} is in {partition}, and by the slot map in {home}"
                )
            handling = incident.handling
            self._sent[incident.id] = (partition, 0 if handling is None else handling.owed_number)
            if handling is not None:
                self._heard += [
                    (partition, incident.id, sender, number)
                    for sender, (number, _why) in handling.heard.items()
                ]

    def check(self) -> None:
        """Raises Conflict that names both."""
        if self._elsewhere:
            raise Conflict(f"{self._elsewhere}: these partitions are from different points in time")
        for partition, hearer, sender, number in self._heard:
            home, sent = self._sent.get(sender, ("", number))
            if number > sent:
                raise Conflict(
                    f"incident {UUID(bytes=hearer)} in {partition} has received message {number} from incident"
                    f" {UUID(bytes=sender)}, and {home} has only {sent} of them: these partitions are from different points in time"
                )


def known_format(backup: Backup, where: str) -> Backup:
    """Returns the backup. Raises Broken for one from a newer program."""
    if backup.format > FORMAT:
        raise Broken(
            f"{where}: its format {backup.format} is not known to this program (it reads up to {FORMAT})"
        )
    return backup
