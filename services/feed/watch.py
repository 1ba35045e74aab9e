"""Follows the logs of all shards once for all clients, and only while there are any.

    log of shard 0 --> LogTail: the newest happenings --+--> Watch of one client, at its own place
    log of shard 1 --> LogTail: the newest happenings --+--> Watch of another, ...

Nothing is pushed, so nothing piles up for a client that reads slowly: it reads further back, in what the tail still
holds, then in the log itself. No client holds back truncation: one that asks for truncated events gets a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

import msgspec
import structlog

from actors.runtime.ending import end
from models.errors import Busy, IncidentManagerError, Malformed, TooLarge, Unavailable
from models.metrics import Meter
from models.ports import Clock, EventLog
from models.stream.cursor import Cursor, decode_cursor, encode_cursor
from models.stream.filter import Sieve, StreamFilter
from models.stream.happenings import Happening
from services.feed.follow import Follower, Gap, ReadArchived
from services.feed.tail import LogTail

log = structlog.get_logger()

#: How often a log is looked at: a glance costs 0.1 ms, and a person does not feel a fifth of a second.
POLL_S = 0.2
#: Wait before retrying a log that could not be read for a client that is behind.
RETRY_S = 1.0
#: Wait before a tail continues after a bug: the log would be full of it otherwise.
BUG_PAUSE_S = 10.0
#: A client gets something this often. Proxies start to cut connections after half a minute of silence.
HEARTBEAT_S = 15.0
#: Clients of one gateway. Each costs a connection, and a look at every happening; all other requests share 512 places.
CLIENTS_MAX = 200
#: Summaries that a client remembers while it catches up.
KNOWN_BEHIND_MAX = 2000
#: Frames that a client may be behind: to skim so many takes about a second of the gateway's time.
MAX_LAG_FRAMES = 100_000
#: Happenings a client takes from one log before it looks at the next.
TAKE_MAX = 256
#: Happenings that a client is told in one go, some 3 ms: a socket with room does not wait by itself.
BREATHE_EVERY = 64

LIST_AGAIN = "list the incidents again, then continue from this cursor"

Ask = Callable[[int, bytes], Awaitable[bytes]]


class StreamedHappening(msgspec.Struct, frozen=True):
    """A wanted happening. A client that goes on from `cursor` hears what comes after it."""

    cursor: str
    happening: Happening


class StreamStatus(msgspec.Struct, frozen=True):
    """Something about the stream itself: ready, heartbeat, reset or dropped."""

    event: str
    cursor: str
    at: float
    reason: str = ""
    detail: str = ""
    stalled: dict[str, str] = {}
    behind: int = 0


class Tails:
    """All logs of one gateway, and who watches them."""

    def __init__(
        self,
        logs: Sequence[EventLog],
        ask: Ask,
        archived: ReadArchived,
        slots: Callable[[], int],
        clock: Clock,
        meter: Meter,
        *,
        tenant: str,
    ) -> None:
        self.slots = slots
        self.clock = clock
        self.logs = [LogTail(each, self._follower_of(place, each)) for place, each in enumerate(logs)]
        self.leaving = False
        self._ask = ask
        self._archived = archived
        self._tenant = tenant
        self._meter = meter
        self._watches: set[Watch] = set()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def watching(
        self, wanted: StreamFilter, cursor: str | None, *, forgives: bool = False
    ) -> AsyncIterator[Watch]:
        """A client's watch, from its cursor or from now on. Raises Busy, Unavailable, and Malformed for an invalid
        cursor, which leads to a reset for a client that `forgives`."""
        place, is_known = None, True
        try:
            place = decode_cursor(cursor, len(self.logs)) if cursor else None
        except Malformed:
            if not forgives:
                raise
            is_known = False
        if self.leaving:
            raise Unavailable("this gateway is shutting down: try again")
        if len(self._watches) >= CLIENTS_MAX:
            self._meter.count("llm_im_requests_refused_total", door="stream", reason="busy")
            raise Busy(
                f"{CLIENTS_MAX} clients are already watching through this gateway: try again",
                retry_after_s=5.0,
            )
        watch = Watch(self, wanted)
        self._watches.add(watch)
        try:
            async with self._turn:
                if not self._tasks:
                    await self._begin()
            await watch.begin(place)
            if not is_known:
                watch.reset("unknown", "this cursor belongs to another system")
            yield watch
        finally:
            self._watches.discard(watch)
            async with self._turn:
                if not self._watches:
                    await self._cease()

    def refusal(self, error: Busy | Unavailable, cursor: str | None) -> StreamStatus:
        """The only message to a client that got no watch."""
        reason = "busy" if isinstance(error, Busy) else "unavailable"
        return StreamStatus("dropped", cursor or "", self.clock.now(), reason, str(error), self.stalled)

    def measure(self) -> None:
        """Update the gauges."""
        self._meter.set("llm_im_stream_clients", len(self._watches))
        self._meter.set(
            "llm_im_stream_behind_frames", max((each.behind for each in self._watches), default=0)
        )

    def count(self, metric: str, by: int = 1, **labels: str) -> None:
        """Add to a counter of the gateway's."""
        self._meter.count(metric, by, **labels)

    @property
    def stalled(self) -> dict[str, str]:
        """The partitions that are not followed at the moment, and why."""
        return {tail.event_log.partition: tail.why for tail in self.logs if tail.why}

    async def wait(self, changed: asyncio.Event, timeout_s: float) -> None:
        """Until something is new, or for so long. `changed` is what news() gave before the last look."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await changed.wait()

    def news(self) -> asyncio.Event:
        """Set when something happens from now on."""
        return self._changed

    async def stop(self) -> None:
        """Tell all clients that the gateway shuts down, and close the logs. Safe to call twice."""
        self.leaving = True
        self.wake()
        await self._cease()
        for tail in self.logs:
            await tail.event_log.close()

    async def _begin(self) -> None:
        await asyncio.gather(*[tail.begin() for tail in self.logs])
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow(tail)) for tail in self.logs]

    async def _cease(self) -> None:
        tasks, self._tasks = self._tasks, []
        await end(tasks)

    async def _follow(self, tail: LogTail) -> None:
        while True:
            try:
                if await tail.follow():
                    self.wake()
            except Exception as error:
                # A bug: the others keep running, and clients are told that this one does not.
                tail.why = f"internal error: {type(error).__name__}"
                log.exception("bug: stream stalled", partition=tail.event_log.partition)
                await asyncio.sleep(BUG_PAUSE_S)
            await asyncio.sleep(POLL_S)

    def wake(self) -> None:
        """Wake all clients."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _follower_of(self, place: int, event_log: EventLog) -> Callable[[int, int], Follower]:
        async def ask(query: bytes) -> bytes:
            return await self._ask(place, query)

        return lambda seq, most: Follower(event_log, ask, self._archived, self._tenant, seq, most)


class Watch:
    """One client: its position in each log, and what it wants."""

    def __init__(self, tails: Tails, wanted: StreamFilter) -> None:
        self._tails = tails
        self._sieve = Sieve(wanted)
        self._seqs = [0] * len(tails.logs)
        self._inside: dict[int, int] = {}
        self._own: dict[int, Follower] = {}
        self._why: dict[str, str] = {}
        self._resets: list[tuple[str, str]] = []
        self._last: list[tuple[str, str]] = []
        self._slots = 0

    async def begin(self, cursor: Cursor | None) -> None:
        """Start at the cursor, else at the end. Raises Unavailable."""
        self._slots = self._tails.slots()
        logs = self._tails.logs
        if cursor is None:
            self._seqs = [tail.seq for tail in logs]
        elif cursor.slots != self._slots:
            self._seqs = [tail.seq for tail in logs]
            self._resets.append(("slots", "services have moved to other shards"))
        else:
            self._seqs = list(cursor.seqs)
            self._inside = dict(cursor.inside)
            for place, tail in enumerate(logs):
                if self._seqs[place] > tail.seq and self._seqs[place] > await tail.event_log.last_seq():
                    self._to_the_end(place, "unknown", "its log ends before this cursor")

    @property
    def cursor(self) -> str:
        """From where to go on."""
        return encode_cursor(Cursor(self._slots, tuple(self._seqs), tuple(self._inside.items())))

    @property
    def behind(self) -> int:
        """Frames that have not been read yet."""
        return sum(max(0, tail.seq - seq) for tail, seq in zip(self._tails.logs, self._seqs, strict=True))

    async def messages(self) -> AsyncGenerator[StreamedHappening | StreamStatus, None]:
        """The messages for the client, without end; a heartbeat if there was nothing for HEARTBEAT_S. The last message,
        if there is one, is `dropped`."""
        now = self._tails.clock.monotonic
        yield self._said("ready")
        beat_at = now() + HEARTBEAT_S
        while True:
            news = self._tails.news()
            moved = False
            for place in range(len(self._seqs)):
                if self._last:
                    break
                before = self._seqs[place]
                try:
                    async for told in self._of(place):
                        yield told
                        if self._last:
                            break
                        beat_at = now() + HEARTBEAT_S
                except TooLarge as error:
                    yield self.dropped("matchers", f"match: {error}")
                    return
                moved = moved or self._seqs[place] != before
            while self._resets:
                reason, detail = self._resets.pop(0)
                self._tails.count("llm_im_stream_resets_total", reason=reason)
                yield self._said("reset", reason, f"{detail}: {LIST_AGAIN}")
            if self._tails.leaving:
                self.let_go("leaving", "this gateway is shutting down")
            if self._last:
                yield self.dropped(*self._last[0])
                return
            if now() >= beat_at:
                yield self._said("heartbeat")
                beat_at = now() + HEARTBEAT_S
            if moved:
                await asyncio.sleep(0)
            else:
                quiet_s = beat_at - now()
                await self._tails.wait(news, min(quiet_s, RETRY_S) if self._why else quiet_s)

    def reset(self, reason: str, detail: str) -> None:
        """Tell the client that it missed events."""
        self._resets.append((reason, detail))

    def let_go(self, reason: str, detail: str) -> None:
        """Make messages() end at once, with this as the last message. The first call counts."""
        self._last.append((reason, detail))
        self._tails.wake()

    def dropped(self, reason: str, detail: str, cursor: str = "") -> StreamStatus:
        """The last message to a client: why it is disconnected, and where it can continue."""
        self._tails.count("llm_im_stream_dropped_total", reason=reason)
        said = self._said("dropped", reason, detail)
        return msgspec.structs.replace(said, cursor=cursor or said.cursor)

    def _said(self, event: str, reason: str = "", detail: str = "") -> StreamStatus:
        stalled = {**self._tails.stalled, **self._why}
        return StreamStatus(event, self.cursor, self._tails.clock.now(), reason, detail, stalled, self.behind)

    async def _of(self, place: int) -> AsyncIterator[StreamedHappening]:
        """What is wanted of one log's next happenings."""
        happenings, seq = await self._next(place)
        first, skipped = self._seqs[place] + 1, self._inside.get(place, 0)
        for number, happening in enumerate(happenings, 1):
            if number % BREATHE_EVERY == 0:
                await asyncio.sleep(0)
            if happening.seq == first and happening.place < skipped:
                continue
            wanted = self._sieve.takes(happening)
            # Until the frame is through, a cursor says how much of it is.
            self._seqs[place] = happening.seq - 1
            self._inside[place] = happening.place + 1
            if wanted:
                yield StreamedHappening(self.cursor, happening)
        if seq > self._seqs[place]:
            self._seqs[place] = seq
            self._inside.pop(place, None)

    async def _next(self, place: int) -> tuple[list[Happening], int]:
        tail, seq = self._tails.logs[place], self._seqs[place]
        if seq >= tail.floor:
            self._own.pop(place, None)
            return tail.after(seq, TAKE_MAX)
        if tail.seq - seq > MAX_LAG_FRAMES:
            return self._to_the_end(place, "behind", f"more than {MAX_LAG_FRAMES} frames behind")
        own = self._own.get(place)
        if own is None or own.seq != seq:
            own = self._own[place] = tail.follower(seq, KNOWN_BEHIND_MAX)
        try:
            async with tail.catching_up:
                page = await own.read()
        except Gap:
            return self._to_the_end(place, "truncated", "the events after this cursor are no longer kept")
        except IncidentManagerError as error:
            self._why[tail.event_log.partition] = str(error)
            return [], seq
        self._why.pop(tail.event_log.partition, None)
        return page.happenings, page.seq

    def _to_the_end(self, place: int, reason: str, detail: str) -> tuple[list[Happening], int]:
        tail = self._tails.logs[place]
        self._own.pop(place, None)
        self._seqs[place] = tail.seq
        self._inside.pop(place, None)
        self._resets.append((reason, f"{tail.event_log.partition}: {detail}"))
        return [], tail.seq
