"""A sorted list that is cheap to change anywhere: what is oldest leaves as cheaply as what is newest enters. Used for the orders
in which a shard lists its incidents (models/shard/state.py, models/shard/places.py).

A plain list of 500,000 moves four megabytes for each that leaves at its front. This one is blocks of a list, and moves one block.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T", bound=tuple[Any, ...])

#: Items of one block: moving them takes a microsecond, and half a million items are a thousand blocks.
BLOCK_MAX = 512


def behind(place: tuple[Any, ...]) -> tuple[Any, ...]:
    """The bound right behind a place: before all that come after it, for items that go on with numbers or not at all."""
    return (*place, math.inf)


class Ordered(Generic[T]):
    """Tuples in ascending order, each once. A bound may be shorter than the items: `(5.0,)` stands before all that begin so."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        ordered = sorted(items)
        half = BLOCK_MAX // 2
        #: None of them is empty.
        self._blocks = [ordered[at : at + half] for at in range(0, len(ordered), half)]
        #: The last item of each block.
        self._lasts = [block[-1] for block in self._blocks]
        self._size = len(ordered)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        for block in self._blocks:
            yield from block

    def __contains__(self, item: T) -> bool:
        at = bisect_left(self._lasts, item)
        if at == len(self._blocks):
            return False
        block = self._blocks[at]
        return block[bisect_left(block, item)] == item

    @property
    def last(self) -> T | None:
        """The greatest item, None when there is none."""
        return self._lasts[-1] if self._lasts else None

    def add(self, item: T) -> None:
        """Put in an item that is not there yet."""
        self._size += 1
        if not self._blocks:
            self._blocks.append([item])
            self._lasts.append(item)
            return
        if item > self._lasts[-1]:
            # What happens now stands last in most orders.
            at = len(self._blocks) - 1
            block = self._blocks[at]
            block.append(item)
            self._lasts[at] = item
        else:
            at = bisect_left(self._lasts, item)
            block = self._blocks[at]
            insort(block, item)
        if len(block) > BLOCK_MAX:
            # What only grows at its end leaves full blocks behind, not half of them.
            cut = BLOCK_MAX if block[-1] is item else BLOCK_MAX // 2
            self._blocks[at : at + 1] = [block[:cut], block[cut:]]
            self._lasts[at : at + 1] = [block[cut - 1], block[-1]]

    def remove(self, item: T) -> None:
        """Take out an item. Raises KeyError when it is not there."""
        at = bisect_left(self._lasts, item)
        if at == len(self._blocks):
            raise KeyError(item)
        block = self._blocks[at]
        place = bisect_left(block, item)
        if block[place] != item:
            raise KeyError(item)
        del block[place]
        self._size -= 1
        if not block:
            del self._blocks[at], self._lasts[at]
            return
        self._lasts[at] = block[-1]
        if len(block) < BLOCK_MAX // 4:
            self._join(at)

    def _join(self, at: int) -> None:
        """Put a block that became small to its neighbour, unless both together are large: else a few that stay for long would
        leave a block each."""
        at = min(at, len(self._blocks) - 2)
        if at >= 0 and len(self._blocks[at]) + len(self._blocks[at + 1]) <= BLOCK_MAX // 2:
            self._blocks[at] += self._blocks.pop(at + 1)
            del self._lasts[at]

    def up(self, low: tuple[Any, ...] = (), high: tuple[Any, ...] | None = None) -> Iterator[T]:
        """From `low` on, up to and without `high`, ascending. Nothing may change while it is walked."""
        first = bisect_left(self._lasts, low)
        for at in range(first, len(self._blocks)):
            block = self._blocks[at]
            start = bisect_left(block, low) if at == first else 0
            if high is not None and self._lasts[at] >= high:
                yield from block[start : bisect_left(block, high)]
                return
            yield from block[start:] if start else block

    def down(self, low: tuple[Any, ...] = (), high: tuple[Any, ...] | None = None) -> Iterator[T]:
        """The same, descending."""
        last = len(self._blocks) if high is None else bisect_left(self._lasts, high)
        for at in range(min(last, len(self._blocks) - 1), -1, -1):
            block = self._blocks[at]
            end = bisect_left(block, high) if high is not None and at == last else len(block)
            start = bisect_left(block, low) if low else 0
            yield from reversed(block[start:end])
            if start:
                return
