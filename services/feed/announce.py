"""The announcer: one actor that writes what happens to incidents to the queue, for programs outside.

It reads the logs of all shards beside their writers, so nobody waits for it: while it or the broker is away, alerts are accepted as
usual, and it continues from where it was. How far that is, is a cursor in the control partition (models/control/polls.py), under a
lease, so that one process writes at a time. A cursor moves only behind what the broker confirmed. Started by
services/wiring/bootstrap.py when messaging.topics names what to write to.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from actors.control_tail import ControlTail
from actors.runtime.ending import end
from actors.runtime.host import Host
from models.control.control import ControlMessage
from models.errors import Conflict, IncidentManagerError, Unavailable
from models.incidents.incident import Incident
from models.incidents.query import SummaryPage, encode
from models.incidents.summaries import FRAME_END
from models.metrics import Meter
from models.metrics import encode as encode_metrics
from models.partition.sharding import TENANT, partition_name, slot_of_id
from models.ports import Archive, Clock, EventLog
from services.feed.announce_shard import ShardAnnouncements, Standing
from services.feed.follow import Ask
from services.feed.outlet import Outlet
from services.feed.writers.writer import Writer
from services.ingest.sources.lease import Lease

log = structlog.get_logger()

#: A shard answers summaries in a few milliseconds, and may have a group before them.
QUERY_TIMEOUT_S = 5.0
#: Between two moves of the cursor, each an event of the control partition: what a crash makes come again.
CURSOR_S = 1.0
#: After it was killed it goes on within this. A renewal is an event, each third of it.
LEASE_S = 15.0
#: Partitions with one cursor: its 4 KiB hold as many.
PARTITIONS_MAX = 100


class Announcer:
    """`shards` has the actor of each partition; one tenant's incidents are announced. `process` and `orchestrate` are the topics, ""
    for none. `control` follows Slots and Polls, and is followed and closed by this actor."""

    def __init__(
        self,
        host: Host,
        shards: Mapping[str, str],
        open_log: Callable[[str], EventLog],
        open_archive: Callable[[str], Archive],
        writer: Writer,
        process: str,
        orchestrate: str,
        control: ControlTail,
        tell_control: Callable[[ControlMessage], Awaitable[None]],
        clock: Clock,
        *,
        tenant: str = TENANT,
    ) -> None:
        self.name = host.name
        self.control = control
        self.tell_control = tell_control
        self.clock = clock
        self.meter = Meter(host.name)
        self._host = host
        self._topic = process or orchestrate
        self.outlet = Outlet(writer, self.meter, clock)

        def announcements(partition: str, ask: Ask) -> ShardAnnouncements:
            return ShardAnnouncements(
                partition,
                len(shards),
                open_log,
                open_archive(partition),
                ask,
                self._moved,
                self.outlet,
                process,
                orchestrate,
                clock,
                self.meter,
                tenant,
            )

        self._announcements = announcements
        self._shards = [announcements(partition, self._asking(actor)) for partition, actor in shards.items()]
        #: Partitions that there are no more: what happened in them may still have to be written.
        self._gone: dict[str, ShardAnnouncements] = {}
        self._groups = [
            _Group(self, f"announce/{first}", self._shards[first : first + PARTITIONS_MAX])
            for first in range(0, len(self._shards), PARTITIONS_MAX)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.control.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each.live()) for each in self._groups]

    async def stop(self) -> None:
        """What was not written yet is written after the next start. Safe to call twice."""
        await self.cease()
        await self.outlet.close()
        for each in self._groups:
            await each.leave()
        for shard in (*self._shards, *self._gone.values()):
            await shard.close()
        await self.control.close()

    async def cease(self) -> None:
        """End the work and leave everything as it is."""
        tasks, self._tasks = self._tasks, []
        await end(tasks)

    async def status(self, _payload: bytes) -> bytes:
        """Why nothing is written, "" when it is, by what stands still, as JSON."""
        return json.dumps(self._away()).encode()

    async def metrics(self, _payload: bytes) -> bytes:
        """This actor's reading, encoded."""
        self.meter.set("llm_im_announce_away", 1 if any(self._away().values()) else 0)
        shards = (*self._shards, *self._gone.values())
        self.meter.set("llm_im_announce_behind_frames", sum(each.behind for each in shards))
        return encode_metrics(self.meter.read())

    async def slots(self) -> int:
        """The version of the slot map. Raises Unavailable before there is one."""
        if self.control.state.slots is None:
            await self.control.follow()
        if self.control.state.slots is None:
            raise Unavailable("there is no slot map yet")
        return self.control.state.slots.version

    @property
    def has_one_cursor(self) -> bool:
        """Whether all partitions have one in common: then it is known what of all of them was written."""
        return len(self._groups) == 1

    def gone(self, partition: str) -> ShardAnnouncements:
        """The announcements of a partition that there is no more since slots moved."""
        if partition not in self._gone:
            self._gone[partition] = self._announcements(partition, _nobody)
        return self._gone[partition]

    async def _moved(self, identity: bytes, partition: str) -> Incident | None:
        slots = self.control.state.slots
        if slots is None:
            raise Unavailable("there is no slot map yet")
        index = slots.owners[slot_of_id(identity)]
        if index >= len(self._shards):
            raise Unavailable("services have moved to shards that this process does not know yet")
        owner = self._shards[index]
        return None if owner.partition == partition else await owner.find(identity)

    def _away(self) -> dict[str, str]:
        whys = {
            f"{self._topic} of {each.partition}": each.why for each in (*self._shards, *self._gone.values())
        }
        waits = next((each.why for each in self._groups if each.why), "")
        # Where another process writes, it is that one's to say.
        is_ours = any(each.lease.is_held for each in self._groups)
        whys[self._topic] = waits or (self.outlet.why_away if is_ours else "")
        return whys

    def _asking(self, actor: str) -> Ask:
        async def ask(query: bytes) -> bytes:
            return await self._host.peers.call(actor, "ask", query, QUERY_TIMEOUT_S)

        return ask


class _Group:
    """Partitions with one lease and one cursor."""

    def __init__(self, announcer: Announcer, name: str, shards: Sequence[ShardAnnouncements]) -> None:
        #: Why it does not begin, "" when it has, or when another process does it.
        self.why = ""
        self.lease = Lease(announcer, name, LEASE_S)
        self._announcer = announcer
        self._shards = shards
        self._slots = 0
        self._waits = False
        #: What the cursor is of: the version of a slot map, and its partitions. Other ones than ours while what happened before slots
        #: moved is being written.
        self._version, self._written = 0, shards

    async def live(self) -> None:
        """Run until cancelled."""
        while True:
            try:
                await self.lease.take()
                self._slots = await self._announcer.slots()
                self._begin()
                self.why, self._waits = "", False
            except Conflict as error:
                if not self._waits:
                    log.info("another process writes to the queue, waiting", why=str(error))
                self.why, self._waits = "", True
            except IncidentManagerError as error:
                self.why = str(error)
            except Exception as error:
                log.exception("bug: nothing is written to the queue, retrying")
                self.why = f"a bug: {type(error).__name__}"
            else:
                await self._while_held()
                continue
            await asyncio.sleep(self.lease.lease_s / 8)

    async def leave(self) -> None:
        """Say how far it got, and let somebody else go on."""
        if self.lease.is_held:
            try:
                await self._move()
            except IncidentManagerError as error:
                log.info("the cursor was not moved, and some events come again", why=str(error))
            await self.lease.release()

    def _begin(self) -> None:
        before = _before_move(self.lease.cursor, self._slots) if self._announcer.has_one_cursor else None
        if before is not None:
            self._version, places = before
            names = [partition_name(index) for index in range(len(places))]
            ours = {each.partition: each for each in self._shards}
            self._written = [ours.get(name) or self._announcer.gone(name) for name in names]
            for shard, at in zip(self._written, places, strict=True):
                shard.begin(at, "new")
            return
        self._version, self._written = self._slots, self._shards
        found, why = _read_cursor(self.lease.cursor, self._slots, len(self._shards))
        for shard, at in zip(self._shards, found, strict=True):
            shard.begin(at, why)

    async def _write(self) -> None:
        """Run until cancelled. What happened to an incident before it moved is written before anything that happened after."""
        if self._version != self._slots:
            await self._write_before_move()
        await asyncio.gather(*(each.run() for each in self._shards))

    async def _write_before_move(self) -> None:
        log.info("writing to the queue what happened before services moved to other shards")
        since = self._version
        await asyncio.gather(*(each.run(since) for each in self._written if each.at is not None))
        for shard in self._shards:
            while shard not in self._written:
                try:
                    await shard.begin_moved(since)
                    break
                except IncidentManagerError as error:
                    self.why = str(error)
                    await asyncio.sleep(self.lease.lease_s / 8)
        self.why = ""
        self._version, self._written = self._slots, self._shards

    async def _while_held(self) -> None:
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(self._write()),
            loop.create_task(self.lease.keep()),
            loop.create_task(self._keep_cursor()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(tasks)
        # What of the connection is under way is over before another process begins.
        self.lease.forget()
        await self._announcer.outlet.close()

    async def _keep_cursor(self) -> None:
        """Returns when somebody else has the lease, or services moved to other shards."""
        while True:
            await asyncio.sleep(CURSOR_S)
            try:
                if await self._announcer.slots() != self._slots:
                    return
                await self._move()
            except Conflict:
                return
            except IncidentManagerError:
                continue  # a renewal that fails as well ends it

    async def _move(self) -> None:
        await self.lease.move(_write_cursor(self._version, [each.at for each in self._written]))


def _write_cursor(slots: int, places: Sequence[Standing | None]) -> str:
    each = ("" if at is None else f"{at.seq}:{at.digest.hex()}" for at in places)
    return f"{slots};{','.join(each)}"


def _read_cursor(text: str, slots: int, count: int) -> tuple[Sequence[Standing | None], str]:
    """Where each partition stands, None for those that begin at the newest; and why those do."""
    nowhere: list[Standing | None] = [None] * count
    if not text:
        return nowhere, "new"
    try:
        version, _, rest = text.partition(";")
        places = [_place(each) for each in rest.split(",")]
        if int(version) != slots or len(places) != count:
            return nowhere, "slots"
    except ValueError:
        return nowhere, "unknown"
    return places, "new"


def _before_move(text: str, slots: int) -> tuple[int, Sequence[Standing | None]] | None:
    """The version of the slot map before this one if a cursor is of that, and where its partitions stand; None for any other cursor: of
    what happened between two moves there may be partitions that it does not name."""
    try:
        version, _, rest = text.partition(";")
        places = [_place(each) for each in rest.split(",")]
        is_before = int(version) == slots - 1
    except ValueError:
        return None
    # With as many there may have been more, under other cursors.
    return (int(version), places) if is_before and len(places) < PARTITIONS_MAX else None


async def _nobody(_query: bytes) -> bytes:
    """Answers for the shard of a partition that there is no more: it has no incident."""
    return encode(SummaryPage(FRAME_END, []))


def _place(text: str) -> Standing | None:
    if not text:
        return None
    seq, _, digest = text.partition(":")
    return Standing(int(seq), bytes.fromhex(digest))
