"""The topology partition's writer (actors/partition.py), and who brings it news and takes away what it knows: readers of the shards'
logs, and messages to the shards of the incidents.

Nobody waits for it. While it is away alerts are accepted and people notified as ever, and it goes on from where it was. What is special
about it: it is told by its own readers, it answers questions, and what a shard is to know of an incident is sent until the shard has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

import msgspec

from actors.begun import refuse_lost
from actors.control_tail import ControlTail
from actors.folding import Folded
from actors.partition import Call, PartitionActor, Queued
from actors.runtime.host import Host
from actors.snapshots import Pace
from models.errors import Busy, IncidentManagerError, Malformed, Refused
from models.incidents.relation import Relation
from models.metrics import encode as encode_metrics
from models.partition.machine import Step
from models.partition.sharding import TENANT
from models.ports import Clock, EventLog, IncidentFeed
from models.shard.messages import encode as encode_to_shard
from models.shard.relations import Related
from models.topology.messages import (
    DeclareTopology,
    IncidentsHeard,
    Tick,
    TopologyMessage,
    decode_message,
    decode_query,
    encode,
)
from models.topology.situations import Rules
from models.topology.topology import TOPOLOGY, Relate, Topology
from models.topology.views import answer

#: How often a log is looked at when nothing is new, as the live stream does.
POLL_S = 0.2
#: Wait before a reader or a shard is tried again, doubling.
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 5.0
#: Changes that wait: more than people and their importers make in the time that a caller waits.
WAITING_MAX = 1000
#: Incidents told to a shard in one call: a shard decides as many in 10 ms.
TOLD_AT_ONCE = 200
TELL_TIMEOUT_S = 10.0
#: What is probable may change with every incident that joins. What is new only in a score or a count is told no more often than this.
CALM_S = 10.0
#: A lease is renewed when this much of it is left.
RENEW_AT = 0.5
#: A log of incidents has far fewer events than a shard's.
PACE = Pace(every_frames=5000, every_events=50_000, every_bytes=8 * 1024 * 1024, every_s=900.0)

_Reply = Refused | None


class Correlator(PartitionActor[Topology, TopologyMessage, _Reply]):
    """See the top of this file. `shards` has the actor of each partition; `feeds` reads one shard's log each."""

    #: A page of news takes some milliseconds, and a situation of hundreds some twenty.
    group_max = 16
    #: Only what ended long ago is due.
    tick_s = 5.0

    def __init__(
        self,
        host: Host,
        event_log: EventLog,
        clock: Clock,
        rules: Rules,
        shards: Mapping[str, str],
        feeds: Sequence[IncidentFeed],
        control: ControlTail | None = None,
        declared: Callable[[], Awaitable[DeclareTopology | None]] | None = None,
        pace: Pace = PACE,
        *,
        tenant: str = TENANT,
    ) -> None:
        """`declared` reads the file of the settings; None of it: there is none."""
        self.rules = rules
        super().__init__(host, TOPOLOGY, self._empty(), event_log, clock, pace)
        self.control = control
        self._shards = shards
        self._feeds = feeds
        self._declared = declared
        self._tenant = tenant
        #: Why the file of the settings, or a shard's log, can't be read; "" when it can.
        self._whys: dict[str, str] = {}
        self._outbox = _Outbox(clock)
        self._number = 0
        #: Whose news were read since this process is the writer.
        self._heard: set[str] = set()

    # -- what others call ----------------------------------------------------------------------------------

    async def change(self, payload: bytes) -> bytes:
        """Decide about one message (models/topology/messages.py) and make it durable before answering b"". A repeat changes nothing.
        Raises what it is refused by, Busy, and Unavailable when nothing is known to be stored: ask again."""
        try:
            message = decode_message(payload)
        except msgspec.MsgspecError as error:
            raise Malformed(f"not a message to the topology partition: {error}") from None
        self._check_ready()
        if self._inbox_weight >= WAITING_MAX:
            raise Busy(f"{TOPOLOGY}: {self._inbox_weight} changes are waiting already", retry_after_s=1.0)
        if (refused := await self._told(message)) is not None:
            raise refused
        return b""

    async def ask(self, payload: bytes) -> bytes:
        """A query -> its answer, about durable state only. Raises Malformed, Unavailable."""
        try:
            query = decode_query(payload)
        except msgspec.MsgspecError as error:
            raise Malformed(f"not a question to the topology partition: {error}") from None
        self._check_ready()
        return encode(answer(await self.settled(), query))

    async def status(self, _payload: bytes) -> bytes:
        """Why it does not do its work, "" when it does, by what is held up, as JSON. Never raises."""
        own = {} if self._ready else {"correlation": self._why_not}
        return json.dumps({**own, **self._whys}).encode()

    async def metrics(self, _payload: bytes) -> bytes:
        """This actor's reading, encoded."""
        situations, graph = self.machine.situations, self.machine.graph
        open_count = sum(not each.ended_at for each in situations.all.values())
        self.meter.set("llm_im_situations_open", open_count)
        self.meter.set("llm_im_topology_services", len([*graph.services]))
        self.meter.set("llm_im_topology_dependencies", graph.dependencies)
        self.meter.set("llm_im_relations_waiting", len(self._outbox))
        return encode_metrics(self.meter.read())

    def take_rules(self, rules: Rules) -> None:
        """Go by these from now on."""
        self.rules = self.machine.rules = rules

    # -- what is special -----------------------------------------------------------------------------------

    def _empty(self) -> Topology:
        return Topology(TOPOLOGY, self.rules)

    def _make_tick(self) -> TopologyMessage:
        return Tick()

    async def _before_opening(self) -> None:
        if self.control is not None:
            await self.control.catch_up()
            await refuse_lost(self.event_log, self.control.state)

    def _started(self, folded: Folded[Topology], step: Step[_Reply]) -> None:
        self._number = 0
        self._heard.clear()
        self._outbox.clear()
        self._owe(step)

    def _durable(self, told: Queued[TopologyMessage, _Reply], step: Step[_Reply], since: float) -> None:
        self._owe(step)

    def _owe(self, step: Step[_Reply]) -> None:
        for effect in step.effects:
            assert isinstance(effect, Relate)
            self._outbox.put(effect.incidents)

    def _sizes(self) -> dict[str, int]:
        situations = self.machine.situations
        return {"incidents": len(situations.members), "situations": len(situations.all)}

    def _background(self) -> Sequence[Coroutine[None, None, None]]:
        follows = () if self.control is None else (self.control.keep_up(),)
        return (self._declare(), self._send(), *map(self._follow, self._feeds), *follows)

    async def _close(self) -> None:
        for feed in self._feeds:
            await feed.close()
        if self.control is not None:
            await self.control.close()

    # -- news in -------------------------------------------------------------------------------------------

    async def _told(self, message: TopologyMessage) -> _Reply:
        call: Call[_Reply] = Call([None], 0, asyncio.get_running_loop().create_future())
        await self.submit(call, [Queued(message, call=call)])
        return call.replies[0]

    async def _declare(self) -> None:
        """Take what the file of the settings says. Until it can be read, what it said before counts."""
        pause_s = RETRY_FIRST_S
        while self._declared is not None:
            try:
                message = await self._declared()
                refused = None if message is None else await self._told(message)
                if refused is not None:
                    raise refused
                self._now("topology file", "")
                return
            except IncidentManagerError as error:
                self._now("topology file", str(error))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    async def _follow(self, feed: IncidentFeed) -> None:
        """Bring the news of one shard. Any failure holds up only these."""
        pause_s = RETRY_FIRST_S
        what = f"correlation of {feed.partition}"
        while True:
            try:
                at = (await self.settled()).positions.get(feed.partition)
                await feed.begin(*((0, b"") if at is None else (at.seq, at.digest)))
                while True:
                    news = await feed.read()
                    self._now(what, "")
                    pause_s = RETRY_FIRST_S
                    if news is not None:
                        await self._told(news)
                        self.meter.count("llm_im_correlated_total", len(news.incidents))
                    if feed.partition not in self._heard:
                        self._heard.add(feed.partition)
                        await self._leave_gone()
                    if news is None:
                        await asyncio.sleep(POLL_S)
            except IncidentManagerError as error:
                self._now(what, str(error))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    async def _leave_gone(self) -> None:
        """Once every shard was heard, what is open in none of them is over: its partition went when slots moved."""
        if len(self._heard) == len(self._feeds):
            members = (await self.settled()).situations.members.values()
            for gone in sorted({each.partition for each in members if each.news.is_open} - {*self._shards}):
                await self._told(IncidentsHeard(gone, 0, b"", [], whole=True))

    def _now(self, what: str, why: str) -> None:
        if why and not self._whys.get(what):
            self.log.warning("correlation held up, retrying", what=what, why=why)
        self._whys[what] = why

    # -- what is known, out --------------------------------------------------------------------------------

    async def _send(self) -> None:
        """Tell shards what their incidents are related to, a shard at a time, until each has it."""
        while True:
            await self._outbox.wait()
            machine = await self.settled()
            messages: dict[str, list[Related]] = {}
            for incident in self._outbox.take(TOLD_AT_ONCE):
                found = machine.relation(incident, self.clock.now())
                if found is None or found[0] not in self._shards:
                    # Slots moved, and nobody said yet where it is; or it ended before they did.
                    continue
                if not self._outbox.may_wait(incident, found[1]):
                    # An older process has a smaller epoch, and what was sent before a smaller number.
                    self._number += 1
                    number = (machine.epoch << 32) | self._number
                    messages.setdefault(found[0], []).append(
                        Related(self._tenant, incident, number, found[1])
                    )
            if messages:
                await asyncio.gather(*[self._tell(shard, some) for shard, some in messages.items()])

    async def _tell(self, partition: str, messages: Sequence[Related]) -> None:
        payload = _list_encoder.encode([encode_to_shard(each) for each in messages])
        try:
            await self.host.peers.call(self._shards[partition], "tell", payload, TELL_TIMEOUT_S)
        except IncidentManagerError:
            # The shard restarts, or is too busy: it hears of it later. What is known by then is sent.
            self._outbox.again([each.incident_id for each in messages])
            return
        for each in messages:
            self._outbox.sent(each.incident_id, each.relation)
        self.meter.count("llm_im_relations_told_total", len(messages))


class _Outbox:
    """Incidents whose shards are to be told of them: at once, or at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now: dict[bytes, None] = {}
        self._later: dict[bytes, float] = {}
        #: What the shard of an incident was told within CALM_S, and when.
        self._told: dict[bytes, tuple[object, float]] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._now)

    def clear(self) -> None:
        self._now, self._later, self._told = {}, {}, {}

    def put(self, incidents: Sequence[bytes]) -> None:
        self._now.update(dict.fromkeys(incidents))
        self._wake.set()

    def again(self, incidents: Sequence[bytes]) -> None:
        """They could not be told."""
        at = self._clock.monotonic() + RETRY_FIRST_S
        for each in incidents:
            self._told.pop(each, None)
            self._later[each] = at

    async def wait(self) -> None:
        """Until somebody is to be told."""
        while True:
            now = self._clock.monotonic()
            for each in [each for each, at in self._later.items() if at <= now]:
                del self._later[each]
                self._now[each] = None
            if self._now:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(POLL_S if self._later else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def take(self, most: int) -> list[bytes]:
        taken = [*self._now][:most]
        for each in taken:
            del self._now[each]
        return taken

    def may_wait(self, incident: bytes, relation: Relation) -> bool:
        """Whether only a score or a count is new, and it was told just now: then it is told a little later."""
        told = self._told.get(incident)
        now = self._clock.monotonic()
        if told is None or told[0] != _gist(relation) or now - told[1] >= CALM_S:
            return False
        at = told[1] + CALM_S
        self._later[incident] = min(at, self._later.get(incident, at))
        return True

    def sent(self, incident: bytes, relation: Relation) -> None:
        now = self._clock.monotonic()
        self._told.pop(incident, None)
        self._told[incident] = (_gist(relation), now)
        # What nobody looks at any more, the oldest first: or every incident there ever was would stay.
        while now - self._told[oldest := next(iter(self._told))][1] >= CALM_S:
            del self._told[oldest]
        if relation.mute_until:
            lease_s = relation.mute_until - self._clock.now()
            self._later[incident] = now + max(1.0, RENEW_AT * lease_s)


def _gist(relation: Relation) -> object:
    """What people go by."""
    first = relation.first
    return (
        relation.situation,
        relation.part,
        relation.symptom_of,
        bool(relation.mute_until),
        "" if first is None else first.service,
    )


_list_encoder = msgspec.msgpack.Encoder()
