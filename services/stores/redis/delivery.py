"""Delivery ids of a partition in Redis. Called by the partition's actor only.

    delivery:answers  hash  id -> answer
    delivery:ages     zset  time and id, in the order of their bytes: what is dropped, and what a filter is rebuilt from

An id must be added after the append that holds its alerts is durable: the other way round, a crash between the two
would answer a repeat of something that was never kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import cast

from services.stores.redis.lane import Argument, Lane, Script, from_sortable, sortable
from services.stores.redis.options import RedisOptions, key_of

#: Ids forgotten in one step of drop_before(): a few milliseconds, in which Redis answers nobody.
DROP_SLICE = 2000
#: Ids in one page of recent().
PAGE_IDS = 10_000
#: Ids with their answers in one page of entries(): an answer has some hundred bytes, seldom many thousand.
PAGE_ENTRIES = 1000
TIME_BYTES = 8

#: KEYS answers, ages. ARGV id, time and id, answer of each. The first answer of an id stays.
ADD = Script("""
for at = 1, #ARGV, 3 do
  if redis.call('HSETNX', KEYS[1], ARGV[at], ARGV[at + 2]) == 1 then
    redis.call('ZADD', KEYS[2], 0, ARGV[at + 1])
  end
end
return 1
""")


class RedisDeliveryIds:
    """models.ports.DeliveryIds. Constructing it connects nowhere."""

    def __init__(self, options: RedisOptions, partition: str) -> None:
        self.partition = partition
        place = f"{partition} (delivery ids)"
        self._writer = Lane(options, partition, place, (ADD,), durable=True)
        self._reader = Lane(options, partition, place, durable=False)
        self._answers = key_of(options, partition, "delivery:answers")
        self._ages = key_of(options, partition, "delivery:ages")

    async def seen(self, ids: Sequence[str]) -> dict[str, bytes]:
        if not ids:
            return {}
        (reply,) = await self._reader.ask(("HMGET", self._answers, *ids))
        answers = cast("list[bytes | None]", reply)
        return {each: answer for each, answer in zip(ids, answers, strict=True) if answer is not None}

    async def add(self, entries: Sequence[tuple[str, float, bytes]]) -> None:
        given: list[Argument] = []
        for delivery_id, at, answer in entries:
            given += (delivery_id, sortable(at) + delivery_id.encode(), answer)
        if given:
            await self._writer.write(ADD.call([self._answers, self._ages], *given))

    async def drop_before(self, at: float) -> int:
        total = 0
        while True:
            (reply,) = await self._writer.ask(
                ("ZRANGEBYLEX", self._ages, "-", b"(" + sortable(at), "LIMIT", 0, DROP_SLICE)
            )
            found = cast("list[bytes]", reply)
            if found:
                # Not waited for: an id that a failover brings back is only older than it need be.
                await self._writer.write(
                    ("MULTI",), ("HDEL", self._answers, *(each[TIME_BYTES:] for each in found)),
                    ("ZREM", self._ages, *found), ("EXEC",), replicated=False,
                )  # fmt: skip
            total += len(found)
            if len(found) < DROP_SLICE:
                return total

    async def recent(self, since: float) -> AsyncIterator[list[str]]:
        least = b"[" + sortable(since)
        while True:
            (reply,) = await self._reader.ask(("ZRANGEBYLEX", self._ages, least, "+", "LIMIT", 0, PAGE_IDS))
            page = cast("list[bytes]", reply)
            if page:
                yield [each[TIME_BYTES:].decode() for each in page]
            if len(page) < PAGE_IDS:
                return
            least = b"(" + page[-1]

    async def entries(self) -> AsyncIterator[list[tuple[str, float, bytes]]]:
        least = b"-"
        while True:
            (reply,) = await self._reader.ask(
                ("ZRANGEBYLEX", self._ages, least, "+", "LIMIT", 0, PAGE_ENTRIES)
            )
            if not (page := cast("list[bytes]", reply)):
                return
            ids = [each[TIME_BYTES:] for each in page]
            (reply,) = await self._reader.ask(("HMGET", self._answers, *ids))
            yield [
                (delivery_id.decode(), from_sortable(each[:TIME_BYTES]), answer)
                for each, delivery_id, answer in zip(
                    page, ids, cast("list[bytes | None]", reply), strict=True
                )
                if answer is not None  # dropped meanwhile
            ]
            least = b"(" + page[-1]

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()
