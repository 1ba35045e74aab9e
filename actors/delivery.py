"""Which deliveries a shard has accepted already: a Bloom filter in front of the ids on disk. Used by actors/shard.py.

Most ids are new, and "surely new" must not cost a disk read: the filter answers that. Only an id the filter
knows is looked up. Two filters rotate, each good for one window, so that an id is known for at least one and
at most two windows.

Only deliveries with an id (Idempotency-Key ...) come here. A filter costs 4-5 us an id, a set 0.03 us, so ids of
the group under way are in a dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models.events import CallAnswered, Event
from models.messages import AlertsArrived, Message
from models.ports import DeliveryIds

#: Ids a filter is made for; past it the filter is rotated early. 1.8 MB each.
FILTER_CAPACITY = 1_000_000
#: Chance that a new id costs a look-up after all; benchmarks/bloom.py measures it.
FALSE_POSITIVE_RATE = 0.001
#: Ids read at once when the filter is made anew is the store's page; answers kept in memory while not yet on disk.
_Entry = tuple[str, float, bytes]


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
        self._young: Filter | None = None
        self._old: Filter | None = None
        self._rotated_at = 0.0
        self._known: dict[str, bytes] = {}
        self._unwritten: dict[str, bytes] = {}
        self._replayed: list[_Entry] = []

    async def look_up(self, messages: Sequence[Message]) -> None:
        """Find the answers that deliveries among `messages` got before. Raises Unavailable when the store is away."""
        self._known = {}
        asked = []
        for message in messages:
            if isinstance(message, AlertsArrived) and message.delivery_id is not None:
                if self._maybe_known(message.delivery_id):
                    asked.append(message.delivery_id)
        if asked:
            self.lookups += len(asked)
            self._known = await self.store.seen(asked)
            self.false_positives += len(set(asked)) - len(self._known)

    def mark(self, message: AlertsArrived) -> AlertsArrived:
        """The message, with the answer its delivery got before if there is one."""
        identity = message.delivery_id
        if identity is None:
            return message
        before = self._unwritten.get(identity) or self._known.get(identity)
        if before is None:
            return message
        return AlertsArrived(
            message.call_id,
            message.tenant,
            message.door,
            message.keys,
            message.ends,
            message.bodies,
            message.want_ids,
            identity,
            message.trace_id,
            before,
        )

    def answered(self, entry: _Entry) -> None:
        """A delivery of the group under way was decided: a second one in the same group is a repeat."""
        self._unwritten[entry[0]] = entry[2]

    async def add(self, entries: Sequence[_Entry]) -> None:
        """The group is durable: remember its deliveries. Raises Unavailable."""
        await self.store.add(entries)
        young = self._filter(entries[-1][1])
        for identity, _at, _answer in entries:
            young.add(identity, skip_check=True)
        self._unwritten.clear()

    def replayed(self, event: Event, at: float) -> None:
        """Recovery met this event: its delivery may not have reached the store."""
        if isinstance(event, CallAnswered) and event.delivery_id is not None:
            self._replayed.append((event.delivery_id, at, event.reply))

    async def recovered(self, now: float) -> None:
        """Replay is over: write what it met, and make the filter from what the store has of the window."""
        replayed, self._replayed = self._replayed, []
        self._unwritten.clear()
        self._young = self._old = None
        if replayed:
            await self.store.add(replayed)
        async for page in self.store.recent(now - self.window_s):
            young = self._filter(now)
            for identity in page:
                young.add(identity, skip_check=True)

    async def sweep(self, now: float) -> None:
        """Forget deliveries older than the window. Raises Unavailable."""
        await self.store.drop_before(now - self.window_s)

    async def close(self) -> None:
        await self.store.close()

    def _maybe_known(self, identity: str) -> bool:
        return (self._young is not None and identity in self._young) or (
            self._old is not None and identity in self._old
        )

    def _filter(self, now: float) -> Filter:
        young = self._young
        if young is None or now - self._rotated_at > self.window_s or len(young) >= FILTER_CAPACITY:
            self._old = self._young
            self._young = young = new_filter()
            self._rotated_at = now
        return young
