"""Dead letters in one stream of Redis that all gateways write. Called by services/ingest/dead_letters.py and the API.

    letters  stream  "id-0": at, size, and MessagePack of the letter
    totals   hash    given, kept, bytes, dropped

Nobody waits for replicas: a failover may take the last letters. Redis counts and drops in the same script that adds,
so several writers keep one bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import msgspec

from models.errors import Broken
from models.ports import Clock, DeadLetter
from services.stores.redis.lane import Argument, Lane, Reply, Script
from services.stores.redis.options import RedisOptions, key_of
from services.stores.shared.dead_letter_bounds import MAX_PAYLOAD_BYTES, cut, size_of

PARTITION = "dead-letters"
#: Letters added by one script, so that a flood lets others have their turn.
ADD_SLICE = 200

#: KEYS letters, totals. ARGV oldest time kept, most bytes, then time, size and letter of each.
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
  redis.call('XDEL', KEYS[1], first[1])
  dropped = dropped + 1
  freed = freed + tonumber(first[2][4])
end
if dropped > 0 then
  redis.call('HINCRBY', KEYS[2], 'kept', -dropped)
  redis.call('HINCRBY', KEYS[2], 'bytes', -freed)
  redis.call('HINCRBY', KEYS[2], 'dropped', dropped)
end
return dropped
""")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(DeadLetter)


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
        self._writer = Lane(options, PARTITION, "dead letters", (ADD,), durable=False)
        self._reader = Lane(options, PARTITION, "dead letters", durable=False)
        self._letters = key_of(options, PARTITION, "letters")
        self._totals = key_of(options, PARTITION, "totals")

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        oldest = self._clock.now() - self._max_age_s
        for start in range(0, len(letters), ADD_SLICE):
            given: list[Argument] = []
            for each in letters[start : start + ADD_SLICE]:
                kept = cut(each, self._max_payload_bytes)
                given += (repr(kept.at), size_of(kept), _encoder.encode(kept))
            await self._writer.write(
                ADD.call([self._letters, self._totals], repr(oldest), self._max_bytes, *given)
            )

    async def page(self, after_id: int, limit: int) -> list[DeadLetter]:
        oldest = self._clock.now() - self._max_age_s
        found: list[DeadLetter] = []
        while len(found) < limit:
            (reply,) = await self._reader.ask(
                ("XRANGE", self._letters, after_id + 1, "+", "COUNT", limit - len(found))
            )
            entries = cast("list[tuple[bytes, list[bytes]]]", reply)
            if not entries:
                break
            after_id = int(entries[-1][0].partition(b"-")[0])
            found += [letter for each in entries if (letter := _letter(each)).at >= oldest]
        return found

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
