"""The feed in Redis: the incidents of now for programs outside, and a channel that tells of changes. Written by
services/feed/publish_shard.py alone; docs/redis-feed.md is for its readers.

All keys begin with `{prefix}:{feed}:` and share that hash tag, so one script changes them together:

    incident:ID                         string   the record; of a closed one it expires
    open, open:severity:P1,
    open:service:NAME, resolved, closed sorted sets of ids, by when they were created, resolved, closed
    changes                             channel
    where                               hash     id -> partition and service, of all that do not expire
    state                               hash     writer, slots; "at:PARTITION": how far its log was told

A script puts incidents, tells of them and at last notes how far the log was told. So whoever goes on from the note neither
skips nor repeats a change, whatever died in between; a Redis that went back in time took the note along. Only what Redis
itself gave up in the middle of a script, because a cluster's slot was on its way, is told again.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from typing import cast

from models.ports import Clock
from services.feed.publish_bodies import Entry
from services.stores.redis.lane import Argument, Lane, Reply, Script
from services.stores.redis.options import RedisOptions, key_of

#: What stands where partitions have their name in other keys of ours: no partition is called so.
FEED = "feed"
#: Closed incidents that can still be read, some 10 MB: a storm that closes thousands a second must not fill a Redis.
CLOSED_MAX = 10_000
#: Ids looked at, and forgotten, by one command while what is no longer there is sought.
SWEEP_SLICE = 500

#: KEYS state. ARGV writer, version of the slot map. What was told under another map is not to be gone on from.
TAKE = Script("""
local slots = redis.call('HGET', KEYS[1], 'slots')
if slots and slots ~= ARGV[2] then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'writer', ARGV[1], 'slots', ARGV[2])
return redis.call('HGETALL', KEYS[1])
""")

#: Removes an id from every list. The other keys are not among KEYS: which they are, an incident's record and lists say.
_UNLIST = """
local function unlist(base, id, service)
  for _, list in ipairs({'open', 'resolved', 'closed', 'open:severity:P0', 'open:severity:P1', 'open:severity:P2',
      'open:severity:P3', 'open:severity:P4', 'open:service:' .. service}) do
    redis.call('ZREM', base .. list, id)
  end
end
"""

#: KEYS state. ARGV writer, partition, told up to, told up to then, base of keys, before when closed ones expired, most
#: closed ones, a last message; then for each incident id, list, place in it, service, severity, milliseconds to live
#: (0: not told), record, message.
PUT = Script(
    _UNLIST
    + """
local own = redis.call('HMGET', KEYS[1], 'writer', 'at:' .. ARGV[2])
if own[1] ~= ARGV[1] or (own[2] or '') ~= ARGV[3] then return {'moved', own[1] or ''} end
redis.call('HSET', KEYS[1], 'writer', ARGV[1]) -- takes memory: a full Redis refuses here, before anything is changed
local base = ARGV[5]
for i = 9, #ARGV, 8 do
  local id, list, at, service = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local key, ttl, message = base .. 'incident:' .. id, tonumber(ARGV[i + 5]), ARGV[i + 7]
  unlist(base, id, service)
  if list == 'closed' then
    redis.call('HDEL', base .. 'where', id)
    if ttl > 0 then
      redis.call('SET', key, ARGV[i + 6], 'PX', ttl)
      redis.call('ZADD', base .. 'closed', at, id)
    else
      redis.call('DEL', key)
    end
  else
    redis.call('SET', key, ARGV[i + 6])
    redis.call('HSET', base .. 'where', id, ARGV[2] .. ' ' .. service)
    if list == 'resolved' then redis.call('ZADD', base .. 'resolved', at, id) end
    if list == 'open' then
      redis.call('ZADD', base .. 'open', at, id)
      redis.call('ZADD', base .. 'open:severity:' .. ARGV[i + 4], at, id)
      redis.call('ZADD', base .. 'open:service:' .. service, at, id)
    end
  end
  if message ~= '' then redis.call('PUBLISH', base .. 'changes', message) end
end
redis.call('ZREMRANGEBYSCORE', base .. 'closed', '-inf', ARGV[6])
local over = redis.call('ZCARD', base .. 'closed') - tonumber(ARGV[7])
if over > 0 then
  local oldest = redis.call('ZPOPMIN', base .. 'closed', over)
  for i = 1, #oldest, 2 do redis.call('DEL', base .. 'incident:' .. oldest[i]) end
end
if ARGV[8] ~= '' then redis.call('PUBLISH', base .. 'changes', ARGV[8]) end
-- Last: a script that Redis ends in the middle (a key is on its way to another node) undoes nothing, and is put again.
if ARGV[4] == '' then redis.call('HDEL', KEYS[1], 'at:' .. ARGV[2])
else redis.call('HSET', KEYS[1], 'at:' .. ARGV[2], ARGV[4]) end
return {'ok'}
"""
)

#: KEYS state. ARGV writer, base of keys; then for each incident id, partition and service as they were found.
FORGET = Script(
    _UNLIST
    + """
local own = redis.call('HGET', KEYS[1], 'writer')
if own ~= ARGV[1] then return {'moved', own or ''} end
local base = ARGV[2]
for i = 3, #ARGV, 2 do
  -- Another partition may have put it meanwhile.
  if redis.call('HGET', base .. 'where', ARGV[i]) == ARGV[i + 1] then
    unlist(base, ARGV[i], string.sub(ARGV[i + 1], string.find(ARGV[i + 1], ' ', 1, true) + 1))
    redis.call('DEL', base .. 'incident:' .. ARGV[i])
    redis.call('HDEL', base .. 'where', ARGV[i])
  end
end
return {'ok'}
"""
)

SCRIPTS = (TAKE, PUT, FORGET)
_AT = "at:"


class FeedMoved(Exception):
    """What is in Redis is not what this writer left there: it was flushed, went back in time, or, when `by_other`,
    another writer took it."""

    def __init__(self, by_other: bool) -> None:
        super().__init__("another writes it" if by_other else "it is not as it was left")
        self.by_other = by_other


class RedisFeed:
    """One writer of one feed. Constructing it connects nowhere. Everything raises Unavailable while Redis is away or
    full, and FeedMoved; a put() whose outcome is unknown raises OutcomeUnknown: take() shows whether it was."""

    def __init__(self, options: RedisOptions, keep_closed_s: float, clock: Clock) -> None:
        self.channel = key_of(options, FEED, "changes")
        self._lane = Lane(options, FEED, FEED, SCRIPTS, durable=False)
        self._state, self._where = key_of(options, FEED, "state"), key_of(options, FEED, "where")
        self._base = key_of(options, FEED, "")
        self._keep_closed_s = keep_closed_s
        self._clock = clock
        self._writer = secrets.token_hex(8)

    async def take(self, slots: int) -> dict[str, str]:
        """Become the writer; how far each partition's log was told, of those that were, under this slot map. Safe to call
        twice."""
        (reply,) = await self._lane.write(TAKE.call([self._state], self._writer, slots))
        found = [each.decode() for each in cast("list[bytes]", reply)]
        fields = dict(zip(found[::2], found[1::2], strict=True))
        return {name.removeprefix(_AT): text for name, text in fields.items() if name.startswith(_AT)}

    async def check(self, partition: str, told: str) -> None:
        """Raises FeedMoved when the partition's log was not told up to there, by this writer."""
        (reply,) = await self._lane.ask(("HMGET", self._state, "writer", _AT + partition))
        writer, found = cast("list[bytes | None]", reply)
        if (writer or b"").decode() != self._writer or (found or b"").decode() != told:
            raise self._moved(writer or b"")

    async def put(
        self, partition: str, told: str, told_then: str, entries: Sequence[Entry], message: bytes = b""
    ) -> None:
        """Put these incidents, tell of them in their order and then of `message`, and note how far the log was told: all
        or nothing, and nothing (FeedMoved) unless it was told up to `told` before. Empty: it is not known how far."""
        now = self._clock.now()
        arguments: list[Argument] = []
        for each in entries:
            live_ms = int((each.at + self._keep_closed_s - now) * 1000) if each.listed == "closed" else 0
            arguments += (
                each.id, each.listed, repr(each.at), each.service, each.severity, max(0, live_ms),
                each.record, each.message,
            )  # fmt: skip
        self._check(
            await self._lane.write(
                PUT.call(
                    [self._state], self._writer, partition, told, told_then, self._base,
                    repr(now - self._keep_closed_s), CLOSED_MAX, message, *arguments,
                )
            )
        )  # fmt: skip

    async def sweep(self, partition: str, partitions: Collection[str], seen: Collection[str]) -> None:
        """Forget what was put for `partition` and is not among the ids `seen`, and what was for one that is none of
        `partitions`."""
        cursor = b"0"
        while True:
            (reply,) = await self._lane.ask(("HSCAN", self._where, cursor, "COUNT", SWEEP_SLICE))
            cursor, found = cast("tuple[bytes, list[bytes]]", reply)
            gone: list[bytes] = []
            for identity, where in zip(found[::2], found[1::2], strict=True):
                owner = where.partition(b" ")[0].decode()
                if owner not in partitions or (owner == partition and identity.decode() not in seen):
                    gone += (identity, where)
            if gone:
                self._check(
                    await self._lane.write(FORGET.call([self._state], self._writer, self._base, *gone))
                )
            if cursor == b"0":
                return

    async def close(self) -> None:
        """Free the connection. Safe to call twice."""
        await self._lane.close()

    def _check(self, replies: list[Reply]) -> None:
        status, *more = cast("list[bytes]", replies[0])
        if status == b"moved":
            raise self._moved(more[0])

    def _moved(self, writer: bytes) -> FeedMoved:
        return FeedMoved(by_other=bool(writer) and writer.decode() != self._writer)
