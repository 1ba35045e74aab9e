"""Dead letters in one stream of Redis that all gateways write. Called by services/ingest/dead_letters.py and the API.

    letters  stream  "id-0": at, size, and MessagePack of the letter
    changed  hash    id: MessagePack of what a change wrote anew, for an entry of a stream stays as it is
    totals   hash    given, kept, bytes, dropped

Nobody waits for replicas: a failover may take the last letters. Redis counts and drops in the same script that adds,
so several writers keep one bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import msgspec

from models.errors import Broken
from models.ports import EVERY_LETTER, Clock, DeadLetter, LettersWanted
from services.stores.redis.lane import Argument, Lane, Reply, Script
from services.stores.redis.options import RedisOptions, key_of
from services.stores.shared.dead_letter_bounds import MAX_PAYLOAD_BYTES, cut, is_wanted, size_of

PARTITION = "dead-letters"
#: Letters added by one script, so that a flood lets others have their turn.
ADD_SLICE = 200

#: KEYS letters, totals, changed. ARGV oldest time kept, most bytes, then time, size and letter of each.
ADD = Script("""
local added = 0
for at = 3, #ARGV, 3 do
  local id = redis.call('HINCRBY', KEYS[2], 'given', 1)
  redis.call('XADD', KEYS[1], string.format('%.0f-0', id), 'at', ARGV[at], 'size', ARGV[at + 1], 'letter', ARGV[at + 2])
  added = added + tonumber(ARGV[at + 1])
end
redis.call('HINCRBY', KEYS[2], 'kept', (#ARGV - 2) / 3)
local bytes = redis.call('HINCRBY', KEYS[2], 'bytes', added)
local oldest, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local dropped, freed = 0, 0
while dropped < 5000 do -- the rest with the next add: nobody is answered meanwhile
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not first or (tonumber(first[2][2]) >= oldest and bytes - freed <= most) then break end
  local id = string.match(first[1], '^%d+')
  dropped = dropped + 1
  freed = freed + tonumber(first[2][4]) + redis.call('HSTRLEN', KEYS[3], id)
  redis.call('XDEL', KEYS[1], first[1])
  redis.call('HDEL', KEYS[3], id)
end
if dropped > 0 then
  redis.call('HINCRBY', KEYS[2], 'kept', -dropped)
  redis.call('HINCRBY', KEYS[2], 'bytes', -freed)
  redis.call('HINCRBY', KEYS[2], 'dropped', dropped)
end
return dropped
""")

#: KEYS as above. ARGV ids.
REMOVE = Script("""
local gone, freed = 0, 0
for _, id in ipairs(ARGV) do
  local found = redis.call('XRANGE', KEYS[1], id .. '-0', id .. '-0')[1]
  if found then
    gone = gone + 1
    freed = freed + tonumber(found[2][4]) + redis.call('HSTRLEN', KEYS[3], id)
    redis.call('XDEL', KEYS[1], found[1])
    redis.call('HDEL', KEYS[3], id)
  end
end
if gone > 0 then
  redis.call('HINCRBY', KEYS[2], 'kept', -gone)
  redis.call('HINCRBY', KEYS[2], 'bytes', -freed)
end
return gone
""")

#: KEYS as above. ARGV id, what is written anew.
CHANGE = Script("""
if #redis.call('XRANGE', KEYS[1], ARGV[1] .. '-0', ARGV[1] .. '-0') == 0 then return 0 end
local before = redis.call('HSTRLEN', KEYS[3], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[2], 'bytes', #ARGV[2] - before)
return 1
""")

#: Entries read at once while looking for those that are wanted.
LOOK_SLICE = 200

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(DeadLetter)
#: Reason, replays, tried_at and request of a changed letter.
_changed_decoder = msgspec.msgpack.Decoder(tuple[str, int, float, bytes])


class RedisDeadLetters:
    """models.ports.DeadLetters. Letters past `max_age_s` are not shown; add() drops them once they are the oldest."""

    def __init__(
        self,
        options: RedisOptions,
        *,
        max_bytes: int,
        max_age_s: float,
        clock: Clock,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._max_payload_bytes = max_payload_bytes
        self._writer = Lane(options, PARTITION, "dead letters", (ADD, REMOVE, CHANGE), durable=False)
        self._reader = Lane(options, PARTITION, "dead letters", durable=False)
        self._letters = key_of(options, PARTITION, "letters")
        self._totals = key_of(options, PARTITION, "totals")
        self._changed = key_of(options, PARTITION, "changed")
        self._keys = [self._letters, self._totals, self._changed]

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        oldest = self._clock.now() - self._max_age_s
        for start in range(0, len(letters), ADD_SLICE):
            given: list[Argument] = []
            for each in letters[start : start + ADD_SLICE]:
                kept = cut(each, self._max_payload_bytes)
                given += (repr(kept.at), size_of(kept), _encoder.encode(kept))
            await self._writer.write(ADD.call(self._keys, repr(oldest), self._max_bytes, *given))

    async def page(self, after_id: int, limit: int, wanted: LettersWanted = EVERY_LETTER) -> list[DeadLetter]:
        return await self._some("XRANGE", lambda last: (f"{last + 1}", "+"), after_id, limit, wanted)

    async def latest(
        self, before_id: int, limit: int, wanted: LettersWanted = EVERY_LETTER
    ) -> list[DeadLetter]:
        return await self._some(
            "XREVRANGE", lambda last: (f"{last - 1}" if last else "+", "-"), before_id, limit, wanted
        )

    async def get(self, letter_id: int) -> DeadLetter | None:
        if letter_id < 1:
            return None
        found = await self.page(letter_id - 1, 1)
        return found[0] if found and found[0].id == letter_id else None

    async def remove(self, ids: Sequence[int]) -> int:
        gone = 0
        for start in range(0, len(ids), ADD_SLICE):
            (count,) = await self._writer.write(REMOVE.call(self._keys, *ids[start : start + ADD_SLICE]))
            gone += cast("int", count)
        return gone

    async def change(self, letter: DeadLetter) -> None:
        new = cut(letter, self._max_payload_bytes)
        anew = _encoder.encode((new.reason, new.replays, new.tried_at, new.request))
        await self._writer.write(CHANGE.call(self._keys, new.id, anew))

    async def _some(
        self,
        command: str,
        bounds: Callable[[int], tuple[str, str]],
        last: int,
        limit: int,
        wanted: LettersWanted,
    ) -> list[DeadLetter]:
        oldest = self._clock.now() - self._max_age_s
        # All of an entry comes, so no more than are asked for, unless most of them are not wanted.
        count = limit if wanted == EVERY_LETTER else max(limit, LOOK_SLICE)
        found: list[DeadLetter] = []
        while len(found) < limit:
            if command == "XREVRANGE" and last == 1:
                break
            (reply,) = await self._reader.ask((command, self._letters, *bounds(last), "COUNT", count))
            entries = cast("list[tuple[bytes, list[bytes]]]", reply)
            if not entries:
                break
            letters = [letter for each in entries if (letter := _letter(each)).at >= oldest]
            last = int(entries[-1][0].partition(b"-")[0])
            found += [each for each in await self._as_changed(letters) if is_wanted(each, wanted)]
        return found[:limit]

    async def _as_changed(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        if not letters:
            return letters
        (reply,) = await self._reader.ask(("HMGET", self._changed, *(each.id for each in letters)))
        return [
            letter if anew is None else _anew(letter, anew)
            for letter, anew in zip(letters, cast("list[bytes | None]", reply), strict=True)
        ]

    async def stats(self) -> dict[str, int]:
        (reply,) = await self._reader.ask(("HMGET", self._totals, "kept", "bytes", "dropped"))
        kept, size, dropped = (int(each or 0) for each in cast("list[bytes | None]", reply))
        return {"kept": kept, "bytes": size, "dropped": dropped}

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()


def _letter(entry: Reply) -> DeadLetter:
    name, fields = cast("tuple[bytes, list[bytes]]", entry)
    try:
        return replace(_decoder.decode(fields[5]), id=int(name.partition(b"-")[0]))
    except (msgspec.MsgspecError, IndexError) as error:
        raise Broken(f"a dead letter can't be read: {error}") from error


def _anew(letter: DeadLetter, written: bytes) -> DeadLetter:
    try:
        reason, replays, tried_at, request = _changed_decoder.decode(written)
    except msgspec.MsgspecError as error:
        raise Broken(f"a dead letter can't be read: {error}") from error
    return replace(letter, reason=reason, replays=replays, tried_at=tried_at, request=request)
