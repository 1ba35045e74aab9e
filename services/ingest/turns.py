"""Who waits for a shard, served in turns (deficit round robin): a sender that has much waiting does not hold up one that has little.
Used by line.py. What one sender sends stays in its order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

#: Alerts of a turn: as many as one message has at most, so that nobody's turn passes without one.
TURN_ALERTS = 2048


class Waits(Protocol):
    """`alerts` is how many it counts for."""

    alerts: int
    sender: str
    deadline: float


T = TypeVar("T", bound=Waits)


class _Queue(Generic[T]):
    """What one sender has waiting, and how many alerts its turn has left."""

    __slots__ = ("left", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[T] = deque()
        self.left = TURN_ALERTS


class Turns(Generic[T]):
    """One of each line. False while nobody waits."""

    __slots__ = ("_alerts", "_queues")

    def __init__(self) -> None:
        #: Whose turn it is comes first. None is empty.
        self._queues: dict[str, _Queue[T]] = {}
        self._alerts = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    def put(self, each: T) -> None:
        queue = self._queues.get(each.sender)
        if queue is None:
            queue = self._queues[each.sender] = _Queue()
        queue.waiting.append(each)
        self._alerts += each.alerts

    def take(self, alerts_max: int) -> list[T]:
        """Those who come next: one, and more while they are not over `alerts_max` together."""
        queues = self._queues
        if self._alerts <= alerts_max and len(queues) == 1:
            # Nobody is kept waiting: almost always so.
            (queue,) = queues.values()
            queues.clear()
            self._alerts = 0
            return [*queue.waiting]
        taken: list[T] = []
        room = alerts_max
        while queues:
            name = next(iter(queues))
            queue = queues[name]
            waiting = queue.waiting
            # Nobody else is there to be kept waiting.
            left = room if len(queues) == 1 else min(room, queue.left)
            while waiting and (waiting[0].alerts <= left or not taken):
                each = waiting.popleft()
                taken.append(each)
                left -= each.alerts
                room -= each.alerts
                queue.left -= each.alerts
            if not waiting:
                del queues[name]
                continue
            if waiting[0].alerts > room:
                break
            # Its turn is over.
            queue.left = min(queue.left, 0) + TURN_ALERTS
            queues[name] = queues.pop(name)
        self._alerts -= alerts_max - room
        return taken

    def overdue(self, now: float) -> Iterator[T]:
        """Take out those whose time is over. All of one sender wait equally long, so the first of them is the first to give up."""
        for name in [*self._queues]:
            waiting = self._queues[name].waiting
            while waiting and waiting[0].deadline <= now:
                self._alerts -= waiting[0].alerts
                yield waiting.popleft()
            if not waiting:
                del self._queues[name]
