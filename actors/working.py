"""What a responder does for the runs of playbooks: it gives work to its Worker, each key once at a time. Used by actors/responder.py.

An action that must not be done twice (`once`) is kept from it here. A shard asks for it of one *life* of the responder, which
remembers what it was asked for in this life:

    asked of this life, key known      the answer that it got, or the one that is under way
    asked of this life, key not known  it never arrived, so it is done now
    asked of another life              nobody knows: FAILED, "unknown whether it was done"

A call that was lost on its way is repeated so without harm, and one that a network brings late to the next process does nothing.
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from actors.runtime.ending import end
from models.errors import Busy, Malformed
from models.metrics import Meter
from models.playbook.walk import IN_DOUBT
from models.playbook.work import FAILED, Choose, Do, Done, Enter, Work, decode_work, encode_done
from models.ports import Tracer, Worker
from models.trace import Attribute

#: What is under way at once: each shard asks for at most some hundreds.
UNDER_WAY_MAX = 2000
#: How long a refused caller should wait.
BUSY_RETRY_AFTER_S = 1.0
#: The last resort behind an action's own timeout: nothing is held longer than this.
DEADLINE_S = 3600.0
#: Keys of actions that must not be done twice, remembered with their answers; past that another life begins.
ONCE_MAX = 20_000
#: Of those, answers kept; what became of older ones is not known any more.
ANSWERS_MAX = 2000
LIFE_BYTES = 16


class WorkAsked(msgspec.Struct, frozen=True, array_like=True):
    """What a shard asks for (effect Perform). `life`: of the responder that it was asked of first, for `once`."""

    key: str
    work: bytes
    once: bool = False
    life: bytes = b""
    trace: str | None = None


class NoWorker:
    """Port Worker, where playbooks are off."""

    async def work(self, work: Work, trace: str | None = None) -> Done:
        return Done(FAILED, "no worker: playbooks are off here", final=True, reached=False)

    async def close(self) -> None:
        """Nothing is open."""


class Working:
    """The work under way in one responder. Owns `worker`."""

    def __init__(self, worker: Worker, meter: Meter, tracer: Tracer, deadline_s: float = DEADLINE_S) -> None:
        self._worker = worker
        self._meter = meter
        self._tracer = tracer
        self._deadline_s = deadline_s
        self._under_way: dict[str, asyncio.Task[bytes]] = {}
        self.life = os.urandom(LIFE_BYTES)
        #: Keys of this life; with the answer, None while it is under way or no longer kept.
        self._once: dict[str, bytes | None] = {}
        self._answers: dict[str, None] = {}

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    async def ask(self, payload: bytes) -> bytes:
        """MessagePack of a WorkAsked in, of a Done out. Raises Malformed, Busy."""
        try:
            asked = _asked_decoder.decode(payload)
            work = decode_work(asked.work)
        except msgspec.MsgspecError as error:
            raise Malformed(f"expected MessagePack of work: {error}") from error
        task = self._under_way.get(asked.key)
        if task is None:
            if asked.once:
                known = self._known(asked)
                if known is not None:
                    return known
            if len(self._under_way) >= UNDER_WAY_MAX:
                raise Busy(f"{UNDER_WAY_MAX} pieces of work are under way", BUSY_RETRY_AFTER_S)
            if asked.once:
                self._remember(asked.key, None)
                if isinstance(work, Do) and work.again:
                    # It was asked for before and never arrived.
                    work = msgspec.structs.replace(work, again=False)
            task = asyncio.create_task(self._work(asked, work))
            self._under_way[asked.key] = task
            task.add_done_callback(lambda _: self._under_way.pop(asked.key, None))
        # Shielded: two callers may wait for one piece of work, and neither may cancel it for the other.
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """Cancel what is under way (shards ask again) and close the worker. Safe to call twice."""
        await end([*self._under_way.values()])
        await self._worker.close()

    def _known(self, asked: WorkAsked) -> bytes | None:
        """The answer to what must not be done twice; None when it is to be done."""
        if asked.key in self._once:
            return self._once[asked.key] or _in_doubt
        return None if asked.life == self.life else _in_doubt

    def _remember(self, key: str, answer: bytes | None) -> None:
        if key not in self._once and len(self._once) >= ONCE_MAX:
            # Whatever is asked of the life before is unknown from now on.
            self.life = os.urandom(LIFE_BYTES)
            self._once = {each: None for each in self._under_way if each in self._once}
            self._answers = {}
        self._once[key] = answer
        if answer is not None:
            self._answers[key] = None
            if len(self._answers) > ANSWERS_MAX:
                oldest = next(iter(self._answers))
                del self._answers[oldest]
                self._once[oldest] = None

    async def _work(self, asked: WorkAsked, work: Work) -> bytes:
        about: dict[str, Attribute] = {"llm_im.key": asked.key}
        name = f"do {work.action.type}" if isinstance(work, Do) else type(work).__name__.lower()
        with self._tracer.span(name, asked.trace, about, kind="client") as span:
            done = await self._done(work, span.trace)
            span.note("llm_im.outcome", done.detail)
            if done.status == FAILED:
                span.fail(done.detail)
        kind = work.action.type[:40] if isinstance(work, Do) else type(work).__name__.lower()
        self._meter.count("llm_im_playbook_actions_total", action=kind, outcome=done.status[:20])
        try:
            encoded = encode_done(done)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            # It would be asked for again and again, and done each time.
            done = Done(FAILED, f"its answer can't be sent: {type(error).__name__}", final=True)
            encoded = encode_done(done)
        if asked.once:
            self._remember(asked.key, encoded)
        return encoded

    async def _done(self, work: Work, trace: str | None) -> Done:
        what = (
            work.action.type
            if isinstance(work, Do)
            else "condition"
            if isinstance(work, Enter)
            else "expressions"
            if isinstance(work, Choose)
            else "what a run would change"
        )
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._worker.work(work, trace)
        except TimeoutError:
            return Done(FAILED, f"{what}: no result within {self._deadline_s:g} s")
        # A worker broke its promise; the text may hold a secret, so only the kind is told
        except Exception as error:  # noqa: BLE001
            return Done(FAILED, f"{what}: failed with {type(error).__name__}")


_asked_decoder = msgspec.msgpack.Decoder(WorkAsked)
_in_doubt = encode_done(Done(FAILED, IN_DOUBT, final=True))
