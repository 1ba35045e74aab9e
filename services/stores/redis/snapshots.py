"""The snapshot records and marks of a log in Redis. Called by log.py, which sends these scripts.

    marks     hash   generation -> checksum, MessagePack of the mark; at most two
    records   hash   key NUL generation -> checksum, "B", body; a tombstone is the checksum alone
    keys      zset   the fields of `records` in the order of their bytes: pages, and the rows of one key
    written   zset   generation key, of what no tidying has seen yet: what a closed mark makes needless, and what a
                     snapshot that was never closed left

Generations are written with 16 digits, so that the order of bytes is theirs. As in SQLite, the work of tidying is as
large as what changed and is spread over the following put_records() calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from models.errors import Broken, Damaged
from models.ports import Mark
from services.stores.redis.lane import Argument, Reply, Script
from services.stores.shared.snapshot_checks import is_whole, mark_check, not_kept, record_check

#: One page of records(): see READ_LIMIT_BYTES.
RECORDS_LIMIT_BYTES = 4 * 1024 * 1024
#: Keys tidied for each record put. Over 1, so that tidying catches up with any steady rate of writing.
PRUNE_PER_RECORD = 2
#: Keys looked at by a call that puts few or no records: some 2 ms, in which Redis answers nobody.
PRUNE_LEAST = 500
#: Bytes freed by one call, for the same reason.
PRUNE_BYTES = 4 * 1024 * 1024
#: Records of an unfinished snapshot dropped by one script.
DROP_SLICE = 1000
CHECK_BYTES = 8

#: Every write of ours begins with it: KEYS[1] is the log's record, ARGV[1] and ARGV[2] are epoch and token.
GUARD = """
local own = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'owner', 'last_seq')
if own[1] ~= ARGV[1] or own[2] ~= ARGV[2] then
  return {'fenced', own[1] or '0', own[3] or ''}
end
"""
_GENERATIONS = """
local newest, older = 0, 0
for _, each in ipairs(redis.call('HKEYS', KEYS[2])) do
  local generation = tonumber(each)
  if generation > newest then newest, older = generation, newest else older = math.max(older, generation) end
end
"""
_DROP_ROW = """
local function body_bytes(stored) return math.max(0, stored - 9) end
local function drop_row(row)
  local size = body_bytes(redis.call('HSTRLEN', KEYS[3], row))
  redis.call('HDEL', KEYS[3], row)
  redis.call('ZREM', KEYS[4], row)
  redis.call('HINCRBY', KEYS[1], 'record_bytes', 0 - size)
  return size
end
"""
_PRUNE = """
local function prune(older, most, most_bytes)
  if older == 0 then return end
  local before = '(' .. string.format('%016d', older + 1)
  local freed = 0
  for _, each in ipairs(redis.call('ZRANGEBYLEX', KEYS[5], '-', before, 'LIMIT', 0, most)) do
    if freed >= most_bytes then return end
    local generation, key = string.sub(each, 1, 16), string.sub(each, 17)
    local row = key .. '\\0' .. generation
    for _, superseded in ipairs(redis.call('ZRANGEBYLEX', KEYS[4], '[' .. key .. '\\0', '(' .. row)) do
      freed = freed + drop_row(superseded)
    end
    -- With nothing before it a tombstone says nothing that its absence does not.
    if redis.call('HSTRLEN', KEYS[3], row) < 9 then drop_row(row) end
    redis.call('ZREM', KEYS[5], each)
  end
end
"""

#: KEYS log, marks, records, keys, written. ARGV epoch, token, generation, prune, prune bytes, then key and value.
PUT = Script(
    GUARD
    + _GENERATIONS
    + _DROP_ROW
    + _PRUNE
    + """
if tonumber(ARGV[3]) <= newest then return {'closed', newest} end
local grown = 0
for at = 6, #ARGV, 2 do
  local row = ARGV[at] .. '\\0' .. ARGV[3]
  grown = grown - body_bytes(redis.call('HSTRLEN', KEYS[3], row)) + body_bytes(#ARGV[at + 1])
  redis.call('HSET', KEYS[3], row, ARGV[at + 1])
  redis.call('ZADD', KEYS[4], 0, row)
  redis.call('ZADD', KEYS[5], 0, ARGV[3] .. ARGV[at])
end
redis.call('HINCRBY', KEYS[1], 'record_bytes', grown)
prune(older, tonumber(ARGV[4]), tonumber(ARGV[5]))
return {'ok'}
"""
)

#: KEYS as PUT. ARGV epoch, token, generation, seq, the mark, prune, prune bytes.
CLOSE = Script(
    GUARD
    + _GENERATIONS
    + _DROP_ROW
    + _PRUNE
    + """
if tonumber(ARGV[3]) <= newest then return {'closed', newest} end
if tonumber(ARGV[4]) > tonumber(own[4]) then return {'ahead', own[4]} end
redis.call('HDEL', KEYS[2], 'none') -- needs no memory, so that a mark can be closed in a full store
redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])
if older > 0 then redis.call('HDEL', KEYS[2], string.format('%016d', older)) end
prune(newest, tonumber(ARGV[6]), tonumber(ARGV[7]))
return {'ok'}
"""
)

#: KEYS as PUT. ARGV epoch, token, how many. Drops some records of a snapshot that was never closed; how many it found.
DROP_UNFINISHED = Script(
    GUARD
    + _GENERATIONS
    + _DROP_ROW
    + """
local after = '[' .. string.format('%016d', newest + 1)
local found = redis.call('ZRANGEBYLEX', KEYS[5], after, '+', 'LIMIT', 0, ARGV[3])
for _, each in ipairs(found) do
  drop_row(string.sub(each, 17) .. '\\0' .. string.sub(each, 1, 16))
  redis.call('ZREM', KEYS[5], each)
end
return {'ok', #found}
"""
)

#: KEYS marks, records, keys. ARGV generation, least key, bytes. Key, generation, value of each, and the next least key.
PAGE = Script(
    """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'gone'} end
local generation, limit = tonumber(ARGV[1]), tonumber(ARGV[3])
local found, size, seen, from = {}, 0, 0, '[' .. ARGV[2]
local key, row
local function take()
  if not row then return end
  local value = redis.call('HGET', KEYS[2], row) or ''
  found[#found + 1] = key
  found[#found + 1] = string.sub(row, -16)
  found[#found + 1] = value
  size = size + #key + #value
end
while true do
  local rows = redis.call('ZRANGEBYLEX', KEYS[3], from, '+', 'LIMIT', 0, 500)
  for _, each in ipairs(rows) do
    local its_key = string.sub(each, 1, -18)
    if its_key ~= key then
      take()
      if size >= limit then return {'ok', found, its_key} end
      key, row = its_key, nil
    end
    if tonumber(string.sub(each, -16)) <= generation then row = each end
  end
  if #rows < 500 then
    take()
    return {'ok', found}
  end
  seen = seen + #rows
  if seen >= 10000 and key ~= ARGV[2] then return {'ok', found, key} end
  from = '(' .. rows[#rows]
end
"""
)

SCRIPTS = (PUT, CLOSE, DROP_UNFINISHED, PAGE)


def spelled(generation: int) -> str:
    return f"{generation:016d}"


def rows_of(generation: int, records: Sequence[tuple[str, bytes | None]]) -> list[Argument]:
    """Key and value of each record, one after the other."""
    found: list[Argument] = []
    for key, body in records:
        check = record_check(key, generation, body)
        found += (key.encode(), check if body is None else check + b"B" + body)
    return found


def stored_mark(mark: Mark) -> bytes:
    whole = (mark.generation, mark.seq, mark.digest, mark.version, mark.checksum)
    return mark_check(mark) + msgspec.msgpack.encode(whole)


def marks(partition: str, reply: Reply) -> list[Mark]:
    """From the reply of HGETALL, newest first. A damaged mark is left out while another is whole, to replay from."""
    fields = cast("list[bytes]", reply)
    stored = sorted(zip(fields[::2], fields[1::2], strict=True), reverse=True)
    whole = [mark for _generation, value in stored if (mark := _mark(value)) is not None]
    if stored and not whole:
        raise Damaged(partition, 0, "no snapshot mark matches its checksum")
    return whole


def page(partition: str, generation: int, reply: Reply) -> tuple[list[tuple[str, bytes]], bytes | None]:
    """From the reply of PAGE: records, and the least key of the next page (None: the end)."""
    status, *rest = cast("list[bytes | list[bytes]]", reply)
    if status == b"gone":
        not_kept(partition, generation)
    fields = cast("list[bytes]", rest[0])
    found = []
    for key, its_generation, value in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        name, check, body = key.decode(), value[:CHECK_BYTES], value[CHECK_BYTES + 1 :]
        tombstone = len(value) == CHECK_BYTES
        if record_check(name, int(its_generation), None if tombstone else body) != check:
            how = f"snapshot record {name!r} of generation {int(its_generation)} does not match its checksum"
            raise Damaged(partition, 0, how)
        if not tombstone:
            found.append((name, body))
    return found, cast("bytes", rest[1]) if len(rest) > 1 else None


def accepted(partition: str, reply: Reply, what: str) -> None:
    """Raises ValueError when PUT or CLOSE refused; being fenced is the log's to tell."""
    status, *rest = cast("list[bytes | int]", reply)
    if status == b"closed":
        raise ValueError(f"{partition}: {what}, but {rest[0]!r} is already closed")
    if status == b"ahead":
        raise ValueError(f"{partition}: {what}, but the log ends at {int(rest[0])}")
    if status != b"ok":
        raise Broken(f"{partition}: {what}: unexpected answer {status!r}")


def _mark(value: bytes) -> Mark | None:
    try:
        mark = Mark(*msgspec.msgpack.decode(value[CHECK_BYTES:], type=tuple[int, int, bytes, int, bytes]))
    except msgspec.MsgspecError:
        return None
    return mark if is_whole(mark, value[:CHECK_BYTES]) else None
