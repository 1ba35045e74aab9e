"""One wheel: when each of many things next has something to do."""

from __future__ import annotations

import heapq

from models.partition.parted import Parted

#: Times that were overtaken and are kept until they come, beside as many as there are things: sorting them out costs 0.2 us
#: each.
SLACK = 10_000


class Timers:
    """A time for each of some ids, in seconds since the epoch; 0 means never."""

    def __init__(self) -> None:
        self._at: Parted[float] = Parted()
        #: How many have a time: counting them anew takes as long as setting ten.
        self._count = 0
        self._heap: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, identity: bytes) -> float:
        """When an id is due, 0 when never."""
        return self._at.get(identity) or 0.0

    def set(self, identity: bytes, at: float) -> None:
        """It is due then, and not when it was before."""
        times = self._at.parts[identity[-1]]
        if not at:
            if times.pop(identity, None) is not None:
                self._count -= 1
            return
        before = times.get(identity)
        if before == at:
            return
        self._count += before is None
        times[identity] = at
        if len(self._heap) > 2 * self._count + SLACK:
            # Most were overtaken, or their ids are gone; a target of days would keep them as long.
            self._heap = [(time, each) for each, time in self._at.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (at, identity))

    def due(self, now: float, most: int) -> list[bytes]:
        """Up to `most` ids whose time has come, the earliest first. They are due no more until they are set again."""
        found: list[bytes] = []
        while self._heap and self._heap[0][0] <= now and len(found) < most:
            at, identity = heapq.heappop(self._heap)
            if self._at.get(identity) == at:
                del self._at[identity]
                self._count -= 1
                found.append(identity)
        return found

    def clear(self) -> None:
        self._at.clear()
        self._heap.clear()
        self._count = 0
