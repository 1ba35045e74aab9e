"""The event log of a partition in Redis. Used by the partition's actor (writer) and by tailers.

One entry of a stream an append, its id the append's last seq; all keys in one slot. Who may write, and where the log
ends, is tested by the script that writes, on the server:

    log      hash    epoch, token, owner, lease_until; last_seq; anchor_seq, anchor_digest; bytes
    appends  stream  "last_seq-0": first, lengths, frames, end (bytes of the log up to here)
    torn     stream  appends that were cut at open, with the reason
    marks, records, keys, written: see snapshots.py

An epoch alone would not fence. A failover may bring a log back in which the newest epoch was never taken, and the next
writer would take the same number again. So each open() leaves a token beside it, and a write names both.

A torn append can't come of a crash here, since a script reaches disk and replicas whole; it is told apart as
everywhere, by its checksums.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import cast

import structlog

from models.errors import Broken, Damaged, Fenced, IncidentManagerError, NotOwner, OutcomeUnknown, Unavailable
from models.partition.frames import NO_DIGEST
from models.ports import Mark, Opened
from services.stores.redis import snapshots
from services.stores.redis.lane import Argument, Lane, Reply, Script
from services.stores.redis.options import RedisOptions, key_of
from services.stores.redis.snapshots import GUARD
from services.stores.shared.chain import (
    READ_LIMIT_BYTES,
    Seams,
    StoredAppend,
    check_end,
    check_tail,
    join_frames,
    last_digest,
    read_page,
    split_frames,
    torn,
)
from services.stores.shared.snapshot_checks import not_empty

#: Of this shape of keys and values. A program that finds another refuses it.
LAYOUT = 1
#: Frames one step of truncate() drops: Redis frees them in about a millisecond, and answers nobody meanwhile.
TRUNCATE_SLICE = 2000
#: Cut appends kept for people to look at.
TORN_KEPT = 100

#: KEYS log. ARGV layout, partition, owner, now, lease_until, token, no digest.
TAKE = Script("""
local found = redis.call('HMGET', KEYS[1], 'layout', 'partition', 'owner', 'lease_until')
if found[1] and found[1] ~= ARGV[1] then return {'layout', found[1]} end
if found[2] and found[2] ~= ARGV[2] then return {'partition', found[2]} end
if found[3] and found[3] ~= ARGV[3] and tonumber(found[4]) > tonumber(ARGV[4]) then return {'owned', found[3]} end
redis.call('HDEL', KEYS[1], 'none') -- needs no memory, so that a full store can be opened
for _, name in ipairs({'last_seq', 'anchor_seq', 'bytes', 'anchor_bytes', 'record_bytes'}) do
  redis.call('HSETNX', KEYS[1], name, 0)
end
redis.call('HSETNX', KEYS[1], 'anchor_digest', ARGV[7])
redis.call('HSET', KEYS[1], 'layout', ARGV[1], 'partition', ARGV[2], 'owner', ARGV[3], 'lease_until', ARGV[5],
  'token', ARGV[6])
return {'ok', redis.call('HINCRBY', KEYS[1], 'epoch', 1)}
""")

#: KEYS log. ARGV epoch, token, lease_until.
RENEW = Script(
    GUARD
    + """
redis.call('HDEL', KEYS[1], 'none')
redis.call('HSET', KEYS[1], 'lease_until', ARGV[3])
return {'ok'}
"""
)

#: KEYS log, appends, marks. ARGV epoch, token, seq, digest, epoch from now on.
SEED = Script(
    GUARD
    + """
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then return {'filled'} end
redis.call('HSET', KEYS[1], 'last_seq', ARGV[3], 'anchor_seq', ARGV[3], 'anchor_digest', ARGV[4], 'epoch', ARGV[5])
return {'ok'}
"""
)

#: KEYS log, appends. ARGV epoch, token, seq before, last seq, first seq, lengths, frames.
APPEND = Script(
    GUARD
    + """
if own[4] ~= ARGV[3] then return {'ends', own[4]} end
local ends = string.format('%.0f', tonumber(redis.call('HGET', KEYS[1], 'bytes')) + #ARGV[7])
redis.call('XADD', KEYS[2], ARGV[4] .. '-0', 'first', ARGV[5], 'lengths', ARGV[6], 'frames', ARGV[7], 'end', ends)
redis.call('HSET', KEYS[1], 'last_seq', ARGV[4], 'bytes', ends)
return {'ok'}
"""
)

#: KEYS log, appends, torn. ARGV epoch, token, seq before, bytes before, now, why, how many to keep.
CUT = Script(
    GUARD
    + """
redis.call('HDEL', KEYS[1], 'none')
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], own[4] .. '-0', own[4] .. '-0')) do
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*', 'cut_at', ARGV[5], 'why', ARGV[6], 'last', own[4],
    unpack(entry[2]))
  redis.call('XDEL', KEYS[2], entry[1])
end
redis.call('XSETID', KEYS[2], ARGV[3] .. '-0')
redis.call('HSET', KEYS[1], 'last_seq', ARGV[3], 'bytes', ARGV[4])
return {'ok'}
"""
)

#: KEYS log, appends. ARGV epoch, token, last seq dropped, the seq after it, its digest, its end.
TRUNCATE = Script(
    GUARD
    + """
redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[4] .. '-0')
redis.call('HSET', KEYS[1], 'anchor_seq', ARGV[3], 'anchor_digest', ARGV[5], 'anchor_bytes', ARGV[6])
return {'ok'}
"""
)

#: KEYS log, appends. ARGV the seq that the first append must reach, the seq behind which bytes count, bytes.
READ = Script("""
local own = redis.call('HMGET', KEYS[1], 'last_seq', 'anchor_seq', 'anchor_digest')
local after, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local found, size, from, count = {}, 0, ARGV[1], 8
while true do
  local entries = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', count)
  for _, entry in ipairs(entries) do
    found[#found + 1] = entry
    if tonumber(string.match(entry[1], '%d+')) > after then
      for _, value in ipairs(entry[2]) do size = size + #value end
      if size >= limit then return {own, found} end
    end
  end
  if #entries < count then return {own, found} end
  from = '(' .. entries[#entries][1]
  if size * 4 < limit then count = math.min(count * 2, 512) end -- small appends: fewer calls, and no great overshoot
end
""")

SCRIPTS = (TAKE, RENEW, SEED, APPEND, CUT, TRUNCATE, READ, *snapshots.SCRIPTS)
_Anchor = tuple[int, bytes]
log = structlog.get_logger()


class RedisEventLog:
    """models.ports.EventLog. Constructing it connects nowhere."""

    def __init__(self, options: RedisOptions, partition: str) -> None:
        self.partition = partition
        self._writer = Lane(options, partition, partition, SCRIPTS, durable=True)
        self._reader = Lane(options, partition, partition, SCRIPTS, durable=False)
        self._log, self._appends, self._torn, *self._of_snapshots = (
            key_of(options, partition, name)
            for name in ("log", "appends", "torn", "marks", "records", "keys", "written")
        )
        self._marks = self._of_snapshots[0]
        self._seams = Seams()
        self._token = ""
        self._outcome_unknown = False
        self._opened = False

    # --- who may write ---

    async def open(self, owner: str, now: float, lease_s: float) -> Opened:
        token = secrets.token_hex(8)
        took = TAKE.call(
            [self._log], LAYOUT, self.partition, owner, repr(now), repr(now + lease_s), token, NO_DIGEST
        )
        try:
            (reply,) = await self._writer.write(took)
        except OutcomeUnknown as error:
            raise Unavailable(
                f"{self.partition}: the log could not be opened for writing: {error}"
            ) from error
        epoch = self._taken(reply)
        self._token = token
        self._outcome_unknown = False
        try:
            opened = await self._look_over(epoch, now)
        except Damaged:
            await self.release(epoch)
            raise
        self._seams.clear()
        self._opened = True
        return opened

    async def renew(self, epoch: int, until: float) -> None:
        try:
            (reply,) = await self._writer.write(
                RENEW.call([self._log], epoch, self._token, repr(until)), replicated=False
            )
        except OutcomeUnknown as error:  # a lease renewed late, or not, harms nobody
            raise Unavailable(str(error)) from error
        self._owned(epoch, reply)

    async def release(self, epoch: int) -> None:
        try:
            await self.renew(epoch, 0.0)
        except Fenced:
            return

    async def seed(self, epoch: int, seq: int, digest: bytes, epoch_before: int) -> int:
        after = max(epoch, epoch_before)
        reply = await self._write(epoch, SEED, [self._appends, self._marks], seq, digest, after)
        if reply[0] == b"filled":
            raise not_empty(self.partition)
        self._seams.clear()
        return after

    # --- frames ---

    async def append(self, epoch: int, first_seq: int, frames: Sequence[bytes]) -> None:
        if not frames:
            raise ValueError("an append needs at least one frame")
        last_seq = first_seq + len(frames) - 1
        reply = await self._write(
            epoch, APPEND, [self._appends], first_seq - 1, last_seq, first_seq, *join_frames(frames)
        )
        if reply[0] == b"ends":
            raise self._other_end(first_seq, int(cast("bytes", reply[1])))

    async def read(self, after: int, limit_bytes: int = READ_LIMIT_BYTES) -> list[tuple[int, bytes]]:
        # Without the digest at `after` the append that ends there is read too: the chain has no gap.
        start = after if self._seams.get(after) is None else after + 1
        reading = READ.call([self._log, self._appends], max(start, 0), after, limit_bytes)
        (reply,) = await self._reader.ask(reading)
        own, entries = cast("tuple[list[bytes | None], list[Reply]]", reply)
        last_seq, anchor = int(own[0] or 0), (int(own[1] or 0), own[2] or NO_DIGEST)
        return read_page(
            self.partition, (_entry(each)[0] for each in entries), after, limit_bytes, anchor, last_seq, self._seams,
            may_be_torn=not self._opened,
        )  # fmt: skip

    async def last_seq(self) -> int:
        (reply,) = await self._reader.ask(("HGET", self._log, "last_seq"))
        return int(cast("bytes | None", reply) or 0)

    async def truncate(self, epoch: int, up_to: int) -> None:
        # Only this epoch may write, so what is read here still holds when the guarded script runs.
        stored, own = await self._writer.ask(("HGETALL", self._marks), ("HGET", self._log, "anchor_seq"))
        kept = snapshots.marks(self.partition, stored)
        needed = kept[1].seq if len(kept) > 1 else 0
        if up_to > needed:
            await self._check_owner(epoch)
            raise ValueError(
                f"{self.partition}: truncate up to {up_to}, but the older snapshot replays from {needed}"
            )
        at = int(cast("bytes | None", own) or 0)
        while at < up_to:
            at = min(at + TRUNCATE_SLICE, up_to)
            (found,) = await self._writer.ask(("XREVRANGE", self._appends, at, "-", "COUNT", 1))
            if not (entries := cast("list[Reply]", found)):
                continue
            dropped, end = _entry(entries[0])
            digest = last_digest(self.partition, dropped)
            await self._write(
                epoch, TRUNCATE, [self._appends], dropped.last_seq, dropped.last_seq + 1, digest, end,
                replicated=False,
            )  # fmt: skip
        await self._check_owner(epoch)

    # --- snapshots ---

    async def put_records(
        self, epoch: int, generation: int, records: Sequence[tuple[str, bytes | None]]
    ) -> None:
        # Not waited for: they count once close_snapshot() is, and replicas get what was written in its order.
        most = max(snapshots.PRUNE_LEAST, snapshots.PRUNE_PER_RECORD * len(records))
        reply = await self._write(
            epoch, snapshots.PUT, self._of_snapshots, snapshots.spelled(generation), most, snapshots.PRUNE_BYTES,
            *snapshots.rows_of(generation, records), replicated=False,
        )  # fmt: skip
        snapshots.accepted(self.partition, reply, f"records of generation {generation}")

    async def close_snapshot(self, epoch: int, mark: Mark) -> None:
        reply = await self._write(
            epoch, snapshots.CLOSE, self._of_snapshots, snapshots.spelled(mark.generation), mark.seq,
            snapshots.stored_mark(mark), snapshots.PRUNE_LEAST, snapshots.PRUNE_BYTES,
        )  # fmt: skip
        snapshots.accepted(self.partition, reply, f"mark of generation {mark.generation} at seq {mark.seq}")

    async def marks(self) -> list[Mark]:
        (reply,) = await self._reader.ask(("HGETALL", self._marks))
        return snapshots.marks(self.partition, reply)

    async def records(self, generation: int) -> AsyncIterator[list[tuple[str, bytes]]]:
        least: bytes | None = b""
        while least is not None:
            (reply,) = await self._reader.ask(
                snapshots.PAGE.call(
                    self._of_snapshots[:3],
                    snapshots.spelled(generation),
                    least,
                    snapshots.RECORDS_LIMIT_BYTES,
                )
            )
            page, least = snapshots.page(self.partition, generation, reply)
            if page:
                yield page

    # --- the rest ---

    async def stats(self) -> dict[str, int]:
        names = ("last_seq", "anchor_seq", "bytes", "anchor_bytes", "record_bytes", "epoch")
        keys = (self._log, self._appends, self._torn, *self._of_snapshots)
        own, *sizes = await self._reader.ask(
            ("HMGET", self._log, *names), *(("MEMORY", "USAGE", key) for key in keys)
        )
        last, anchor, log_bytes, anchor_bytes, record_bytes, epoch = (
            int(each or 0) for each in cast("list[bytes | None]", own)
        )
        return {
            "first_seq": anchor + 1 if last > anchor else 0,
            "last_seq": last,
            "frames": last - anchor,
            "log_bytes": log_bytes - anchor_bytes,
            "record_bytes": record_bytes,
            "disk_bytes": sum(each for each in sizes if isinstance(each, int)),
            "epoch": epoch,
        }

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()

    # --- writing ---

    async def _write(
        self, epoch: int, script: Script, keys: Sequence[str], *arguments: Argument, replicated: bool = True
    ) -> list[Reply]:
        """One script that `epoch` owns. After an outcome nobody knows every write is refused until open(): what was
        sent may still reach the server, and only another token keeps it out."""
        if self._outcome_unknown:
            raise OutcomeUnknown(f"{self.partition}: an earlier write may have happened; open the log again")
        try:
            (reply,) = await self._writer.write(
                script.call([self._log, *keys], epoch, self._token, *arguments), replicated=replicated
            )
        except OutcomeUnknown:
            self._outcome_unknown = True
            raise
        except IncidentManagerError:
            raise
        except BaseException:  # cancelled in the middle
            self._outcome_unknown = True
            raise
        return self._owned(epoch, reply)

    def _owned(self, epoch: int, reply: Reply) -> list[Reply]:
        found = cast("list[Reply]", reply)
        if found[0] == b"fenced":
            current, owner = int(cast("bytes", found[1])), cast("bytes", found[2]).decode()
            raise Fenced(
                f"{self.partition}: epoch {epoch} writes, but {current} of {owner or 'nobody'} owns it"
                + (", taken after the store went back in time" if current == epoch and self._token else "")
            )
        return found

    async def _check_owner(self, epoch: int) -> None:
        """Raises Fenced for an old epoch also where there was nothing to write."""
        (own,) = await self._writer.ask(("HMGET", self._log, "epoch", "token", "owner"))
        current, token, owner = cast("list[bytes | None]", own)
        if (int(current or 0), token) != (epoch, self._token.encode()):
            self._owned(epoch, [b"fenced", current or b"0", owner or b""])

    def _other_end(self, first_seq: int, last_seq: int) -> Fenced:
        if last_seq < first_seq - 1:
            # Nobody but this epoch and token wrote, so what is missing was there.
            log.error(
                "store lost acknowledged appends: a failover to a replica that did not have them?",
                partition=self.partition, ends_at=last_seq, ended_at=first_seq - 1,
            )  # fmt: skip
        return Fenced(f"{self.partition}: append at {first_seq}, but the log ends at {last_seq}")

    # --- opening ---

    def _taken(self, reply: Reply) -> int:
        status, found = cast("tuple[bytes, bytes | int]", reply)
        match status, found:
            case b"ok", int():
                return found
            case b"owned", bytes():
                raise NotOwner(self.partition, found.decode())
            case b"layout", bytes():
                raise Broken(
                    f"{self.partition}: layout {found.decode()} in Redis, this program knows {LAYOUT}"
                )
        raise Broken(f"{self._log} is the log of {found!r}, not of {self.partition}")

    async def _look_over(self, epoch: int, now: float) -> Opened:
        """Verify the last append, set it aside when torn, drop what an unfinished snapshot left."""
        own, tail, first, marks = await self._writer.ask(
            ("HMGET", self._log, "last_seq", "anchor_seq", "anchor_digest", "anchor_bytes"),
            ("XREVRANGE", self._appends, "+", "-", "COUNT", 3),
            ("XRANGE", self._appends, "-", "+", "COUNT", 1),
            ("HGETALL", self._marks),
        )
        last, anchor_seq, digest, anchor_bytes = cast("list[bytes]", own)
        anchor: _Anchor = (int(anchor_seq), digest)
        appends = [_entry(each) for each in cast("list[Reply]", tail)]
        ends_at = appends[0][0].last_seq if appends else anchor[0]
        check_end(self.partition, int(last), ends_at)
        kept = snapshots.marks(self.partition, marks)
        cut = await self._cut(epoch, now, appends, kept, anchor, int(anchor_bytes))
        if cut is not None:
            del appends[0]
        last_digest = check_tail(self.partition, [append for append, _end in appends[:2]], anchor)
        await self._drop_unfinished(epoch)
        firsts = cast("list[Reply]", first) if appends else []
        return Opened(
            epoch,
            _entry(firsts[0])[0].first_seq if firsts else 0,
            appends[0][0].last_seq if appends else anchor[0],
            anchor[1],
            last_digest,
            cut,
        )

    async def _cut(
        self, epoch: int, now: float, appends: Sequence[tuple[StoredAppend, int]], marks: Sequence[Mark],
        anchor: _Anchor, anchor_bytes: int,
    ) -> str | None:  # fmt: skip
        why = torn(self.partition, appends[0][0]) if appends else None
        if why is None:
            return None
        last = appends[0][0]
        if marks and marks[0].seq >= last.first_seq:
            # A mark is written after the frames it covers were durable: this tail is no torn append.
            raise Damaged(
                self.partition, last.first_seq, f"the last append fails its check ({why}) after a snapshot"
            )
        before = appends[1:]
        # First: a log that is damaged further on must be left as it was found.
        check_tail(self.partition, [append for append, _end in before], anchor)
        seq_before, bytes_before = (
            (before[0][0].last_seq, before[0][1]) if before else (anchor[0], anchor_bytes)
        )
        await self._write(
            epoch, CUT, [self._appends, self._torn], seq_before, bytes_before, repr(now), why, TORN_KEPT
        )
        return f"the append of seq {last.first_seq} to {last.last_seq} was cut and set aside: {why}"

    async def _drop_unfinished(self, epoch: int) -> None:
        """Forget the records of a snapshot that was never closed: its generation will be used again."""
        found = snapshots.DROP_SLICE
        while found == snapshots.DROP_SLICE:
            reply = await self._write(
                epoch,
                snapshots.DROP_UNFINISHED,
                self._of_snapshots,
                snapshots.DROP_SLICE,
                replicated=False,
            )
            found = cast("int", reply[1])


def _entry(entry: Reply) -> tuple[StoredAppend, int]:
    """An entry of the stream, and the bytes of the log up to its end. Damage shows as frames that can't be told apart."""
    name, fields = cast("tuple[bytes, list[bytes]]", entry)
    last_seq = int(name.partition(b"-")[0])
    found = dict(zip(fields[::2], fields[1::2], strict=False))
    try:
        first_seq, end = int(found[b"first"]), int(found[b"end"])
    except (KeyError, ValueError):
        return StoredAppend(last_seq, last_seq, None), 0
    return StoredAppend(first_seq, last_seq, split_frames(found.get(b"lengths"), found.get(b"frames"))), end
