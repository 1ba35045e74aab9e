"""How background work is ended, everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

#: Before work that goes on is told again that it is to end: longer than what it may still have to put in order.
AGAIN_S = 2.0


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel, and wait until all are over, however they ended: what to make of an error is the caller's to say.

    A cancellation can get lost on its way: asyncio.wait_for of Python 3.11, by which redis-py writes, returns what it
    waited for when that comes in the same moment. Said once and waited for, such work would hold up a stop for ever.
    """
    left = [*tasks]
    while left:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_S)
        for task in left:
            if task.done() and not task.cancelled():
                task.exception()  # seen: asyncio need not complain that nobody looked
        left = [task for task in left if not task.done()]
