"""An asyncio loop whose time is a number: it jumps to the next timer and never waits. Used by world.py.

Everything that runs belongs to a Process (by its context). A killed process is simply not run any more, at
whatever await it stood, as after SIGKILL: none of its `finally` blocks runs. With one seeded source of chance a run
is a pure function of its seed.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
#: 2026-01-01T00:00:00Z: ids and times look like real ones.
BEGINNING = 1767225600.0
_FOREVER = 3600.0 * 24
#: A run takes some ten thousand steps.
_ENDLESS_STEPS = 400_000


class ManualClock:
    """Port Clock. Monotonic time is the loop's; wall time may be set back by `jump`."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.offset = BEGINNING

    def now(self) -> float:
        return self.elapsed + self.offset

    def monotonic(self) -> float:
        return self.elapsed

    def jump(self, by_s: float) -> None:
        """Somebody sets the wall clock."""
        self.offset += by_s


class Process:
    """What dies together. `calls` are the answers others wait for from it; `on_death` is told of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.calls: dict[asyncio.Future[Any], None] = {}
        self.context = contextvars.copy_context()
        self.context.run(_owner.set, self)


_owner: contextvars.ContextVar[Process | None] = contextvars.ContextVar("owner", default=None)


class Stuck(Exception):
    """Nothing can ever happen any more, or time runs away without an end."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs handles in the order they became ready. Real files, sockets and threads do not exist here."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.steps = 0
        self._graveyard: list[asyncio.Handle] = []
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return self.clock.elapsed

    def spawn(self, process: Process, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` as part of a process."""
        return self.create_task(work, context=process.context.copy())

    def spawn_call(
        self, process: Process, work: Coroutine[Any, Any, T], dead: Callable[[], Exception]
    ) -> asyncio.Future[T]:
        """Run `work` in a process for someone else, who gets `dead()` when the process dies first."""
        answer: asyncio.Future[T] = self.create_future()
        if not process.is_alive:
            work.close()
            answer.set_exception(dead())
            return answer
        process.calls[answer] = None
        task = self.spawn(process, work)

        def over(done: asyncio.Task[T]) -> None:
            process.calls.pop(answer, None)
            if answer.done():
                return
            if done.cancelled():
                answer.set_exception(dead())
            elif (error := done.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(done.result())

        task.add_done_callback(over, context=_OUTSIDE)
        return answer

    def spawn_outside(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` in no process, whoever asks for it."""
        return self.create_task(work, context=_OUTSIDE.copy())

    def kill(self, process: Process, why: Callable[[], Exception]) -> None:
        """End a process where it stands. Who waits for it is told `why`."""
        process.is_alive = False
        for answer in process.calls:
            if not answer.done():
                answer.set_exception(why())
        process.calls.clear()

    def run_until(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end of `work`, in no process."""
        return self.run_until_complete(self.spawn_outside(work))

    def _run_once(self) -> None:
        # As BaseEventLoop's, without a selector: when nothing is ready, time moves to the next timer.
        ready: Any = self._ready  # type: ignore[attr-defined]
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not ready:
            while scheduled and scheduled[0]._cancelled:  # type: ignore[attr-defined]
                heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
            if not scheduled:
                raise Stuck("nothing is ready and no timer is set")
            self.clock.elapsed = max(self.clock.elapsed, scheduled[0].when())
            if self.clock.elapsed > _FOREVER:
                raise Stuck("a day has passed and there is no end")
        now = self.clock.elapsed
        while scheduled and scheduled[0].when() <= now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            ready.append(timer)
        if self.steps > _ENDLESS_STEPS:
            raise Stuck(f"{self.steps} steps and there is no end: something goes round without waiting")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(_owner)
            if owner is not None and not owner.is_alive:
                # Kept, so that no coroutine of the dead is collected and runs its `finally`.
                self._graveyard.append(handle)
                continue
            self.steps += 1
            handle._run()

    def _check_closed(self) -> None:
        """The coroutines of a run that is over are collected late, and may still talk to its loop."""

    def __del__(self) -> None:
        """There is nothing to close."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""


_OUTSIDE = contextvars.Context()
