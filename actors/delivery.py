"""Which delivery ids a shard has already accepted: a Bloom filter in front of the ids on disk. Used by actors/shard.py.

Most ids are new, and "surely new" must not cost a disk read: the filter answers that. Only an id the filter
knows is looked up. Filters rotate by age and when they are full; each is dropped a window after it was followed.

Only deliveries with an id (Idempotency-Key ...) come here. A filter costs 4-5 us an id, a set 0.03 us, so ids of
the group under way are in a dict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec
import structlog

from models.errors import Unavailable
from models.partition.event import Event
from models.ports import DeliveryIds
from models.shard.events import CallAnswered
from models.shard.messages import AlertsArrived, Command, Message

#: Ids a filter is made for; past it the filter is rotated early. 1.8 MB each.
FILTER_CAPACITY = 1_000_000
#: Chance that a new id costs a look-up after all; benchmarks/bloom.py measures it.
FALSE_POSITIVE_RATE = 0.001
_Entry = tuple[str, float, bytes]
_M = TypeVar("_M", AlertsArrived, Command)
#: The most by which one id advances a filter's age, so that a clock that jumps by an hour ages none.
STEP_MAX_S = 60.0
#: Ids put into a filter before others get a turn: 1 ms.
LOAD_SLICE = 200
#: Deliveries that recovery writes at once: a tail may hold tens of thousands, too many for the timeout of a slow server.
REPLAYED_SLICE = 1000

log = structlog.get_logger()


class Filter(Protocol):
    """What is used of pybloom_live.BloomFilter."""

    def add(self, key: str, skip_check: bool = False) -> bool: ...
    def __contains__(self, key: object) -> bool: ...
    def __len__(self) -> int: ...


def new_filter() -> Filter:
    # Imported when the first id arrives: most senders give none, and a shard must start fast.
    from pybloom_live import BloomFilter

    made: Filter = BloomFilter(capacity=FILTER_CAPACITY, error_rate=FALSE_POSITIVE_RATE)
    return made


class DeliveryWindow:
    """Look-ups before a group is decided, additions after it is durable. One a shard."""

    def __init__(self, store: DeliveryIds, window_s: float) -> None:
        self.store = store
        self.window_s = window_s
        self.lookups = 0
        self.false_positives = 0
        self._filters: list[tuple[float, Filter]] = []
        #: The clock that filters age by: the time of the last id, as far as it is trusted.
        self._last_at = self._age_s = 0.0
        self._complete = True
        self._loading: asyncio.Task[None] | None = None
        self._known: dict[str, bytes] = {}
        self._unwritten: dict[str, bytes] = {}
        self._replayed: list[_Entry] = []

    async def look_up(self, messages: Sequence[Message]) -> None:
        """Find the answers that deliveries among `messages` got before. Raises Unavailable when the store is away."""
        self._known = {}
        asked = []
        for message in messages:
            if isinstance(message, AlertsArrived | Command) and message.delivery_id is not None:
                if self._maybe_known(message.delivery_id):
                    asked.append(message.delivery_id)
        if asked:
            self.lookups += len(asked)
            self._known = await self.store.seen(asked)
            self.false_positives += len(set(asked)) - len(self._known)

    def mark(self, message: _M) -> _M:
        """The message, with the answer its delivery got before if there is one."""
        identity = message.delivery_id
        if identity is None:
            return message
        before = self._unwritten.get(identity) or self._known.get(identity)
        if before is None:
            return message
        return msgspec.structs.replace(message, delivered_before=before)

    def answered(self, entry: _Entry) -> None:
        """A delivery of the group under way was decided: a second one in the same group is a repeat."""
        self._unwritten[entry[0]] = entry[2]

    async def add(self, entries: Sequence[_Entry]) -> None:
        """The group is durable: remember its deliveries. Raises Unavailable."""
        await self.store.add(entries)
        for identity, at, _answer in entries:
            self._filter(at).add(identity, skip_check=True)
        self._unwritten.clear()

    def recovering(self) -> None:
        """Replay begins. Anything a failed attempt saw is seen again, or no longer in the log."""
        self._replayed = []

    def replayed(self, event: Event, at: float) -> None:
        """Recovery met this event: its delivery may not have reached the store."""
        if isinstance(event, CallAnswered) and event.delivery_id is not None:
            self._replayed.append((event.delivery_id, at, event.reply))

    async def recovered(self, now: float) -> None:
        """Replay is over: write what it met. The filters are rebuilt in the background: until then every id may be
        known and is looked up. Raises Unavailable."""
        replayed, self._replayed = self._replayed, []
        self._unwritten.clear()
        self._filters = []
        self._complete = False
        for start in range(0, len(replayed), REPLAYED_SLICE):
            await self.store.add(replayed[start : start + REPLAYED_SLICE])
        self._end_loading()
        self._loading = asyncio.get_running_loop().create_task(self._load(now))

    async def sweep(self, now: float) -> None:
        """Forget deliveries older than the window. Raises Unavailable."""
        await self.store.drop_before(now - self.window_s)

    async def close(self) -> None:
        self._end_loading()
        await self.store.close()

    async def _load(self, now: float) -> None:
        try:
            # All that sweep() left: by a clock that is ahead it would be past the window.
            async for page in self.store.recent(0.0):
                for start in range(0, len(page), LOAD_SLICE):
                    young = self._filter(now)
                    for identity in page[start : start + LOAD_SLICE]:
                        young.add(identity, skip_check=True)
                    await asyncio.sleep(0)
        except Unavailable as error:
            # Every id is still looked up: slower, but correct.
            log.warning("can't build the filters of delivery ids", why=str(error))
            return
        self._complete = True

    def _end_loading(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            self._loading = None

    def _maybe_known(self, identity: str) -> bool:
        return not self._complete or any(identity in each for _born, each in self._filters)

    def _filter(self, now: float) -> Filter:
        """The filter that takes new ids. Rotated by age and when full; one is dropped when the filter after it is
        older than a window, so that no id of the window is ever forgotten."""
        self._age_s += min(max(0.0, now - self._last_at), STEP_MAX_S)
        self._last_at, now = now, self._age_s
        while len(self._filters) > 1 and now - self._filters[1][0] > self.window_s:
            del self._filters[0]
        if (
            not self._filters
            or now - self._filters[-1][0] > self.window_s
            or len(self._filters[-1][1]) >= FILTER_CAPACITY
        ):
            self._filters.append((now, new_filter()))
        return self._filters[-1][1]
