"""How background work is ended, everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

#: How long to wait before cancelling the work again: longer than it may need to clean up.
AGAIN_S = 2.0


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel, and wait until all have ended, with or without an error, which the caller handles.

    A cancellation can get lost on its way: asyncio.wait_for of Python 3.11, by which redis-py writes, returns what it
    waited for when that comes in the same moment. Cancelled only once, such work would block a stop forever.
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
