"""An asyncio loop whose time is a number: it jumps to the next timer and never waits. Used by world.py.

Everything that runs belongs to a Process (by its context). A killed process is simply not run any more, at
whatever await it stood, as after SIGKILL: none of its `finally` blocks runs. With one seeded source of chance a run
is a pure function of its seed.

A run is some ten thousand steps of a few microseconds each, so what the loop itself costs counts: it is a queue of
tuples and a heap of timers, and has nothing of what BaseEventLoop does for sockets, threads and debugging.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import sys
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack

from tests.clock import ManualClock

T = TypeVar("T")
#: 2026-01-01T00:00:00Z: ids and times look like real ones.
BEGINNING = 1767225600.0
_FOREVER = 3600.0 * 24
#: A run takes some ten thousand steps.
_ENDLESS_STEPS = 400_000
Arguments = TypeVarTuple("Arguments")


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


class _Timer(asyncio.TimerHandle):
    """A TimerHandle that knows no loop: what is cancelled stays in the heap until its time."""

    __slots__ = ()

    def __init__(self, when: float, callback: Callable[..., object], args: Any, context: Context) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._args = ()


class _Soon(asyncio.Handle):
    """What call_soon() returns. Nothing here takes a step back that is about to run, so none can be."""

    def __init__(self) -> None:
        self._cancelled = False

    def cancel(self) -> NoReturn:
        raise NotImplementedError("the simulation's loop can't cancel what was to be called soon")


_SOON = _Soon()


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs callbacks in the order they became ready. Real files, sockets and threads do not exist here."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.steps = 0
        self._ready: deque[tuple[Callable[..., object], Any, Context]] = deque()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._timers_made = 0
        self._graveyard: list[object] = []
        self._is_running = False

    # -- what asyncio asks of a loop -----------------------------------------------------------------------

    #: Asked for each future and each task: a builtin that answers False is three times faster than a method.
    get_debug = staticmethod(bool)

    def time(self) -> float:
        return self.clock.elapsed

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self._ready.append((callback, args, contextvars.copy_context() if context is None else context))
        return _SOON

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.clock.elapsed + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, contextvars.copy_context() if context is None else context)
        self._timers_made += 1
        # Of one time they run in the order in which they were made.
        heapq.heappush(self._timers, (when, self._timers_made, timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        # With a name, because making one up for each of two thousand tasks takes its time.
        return asyncio.Task(coro, loop=self, name=name or "task", context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tasks that were killed, or whose error nobody asks for: the laws say what may not come of it."""

    # -- processes -----------------------------------------------------------------------------------------

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

    # -- running -------------------------------------------------------------------------------------------

    def run_until(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end of `work`, in no process. A callback that raises ends the run: tasks keep their errors."""
        hooks = sys.get_asyncgen_hooks()
        task = self.spawn_outside(work)
        _set_running_loop(self)
        sys.set_asyncgen_hooks(finalizer=self._abandoned)
        self._is_running = True
        try:
            while not task.done():
                if not self._ready:
                    self._to_the_next_timer()
                self._run_what_is_ready()
            return task.result()
        finally:
            self._is_running = False
            sys.set_asyncgen_hooks(*hooks)
            _set_running_loop(None)

    def _run_what_is_ready(self) -> None:
        ready, steps = self._ready, self.steps
        if steps > _ENDLESS_STEPS:
            raise Stuck(f"{steps} steps and there is no end: something goes round without waiting")
        for _ in range(len(ready)):
            callback, args, context = ready.popleft()
            owner = context.get(_owner)
            if owner is None or owner.is_alive:
                self.steps += 1
                context.run(callback, *args)
            else:
                # Kept, so that no coroutine of the dead is collected and runs its `finally`.
                self._graveyard.append((callback, args))

    def _to_the_next_timer(self) -> None:
        """Nothing is ready, so time moves on."""
        timers = self._timers
        while timers:
            when, _number, timer = heapq.heappop(timers)
            if timer._cancelled:
                continue
            if when > self.clock.elapsed:
                self.clock.elapsed = when
                if when > _FOREVER:
                    raise Stuck("a day has passed and there is no end")
            self._ready.append((timer._callback, timer._args, timer._context))
            return
        raise Stuck("nothing is ready and no timer is set")

    def _abandoned(self, generator: AsyncGenerator[Any, Any]) -> None:
        # As BaseEventLoop does, while there is still somebody to run it.
        if self._is_running:
            self.create_task(generator.aclose())


_OUTSIDE = contextvars.Context()
