"""An announcer beside a system in one process, and what readers of its topics make of them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from actors.control_tail import ControlTail
from actors.runtime.host import Actor, Host
from models.metrics import decode as decode_metrics
from models.partition.sharding import partition_name
from models.settings.messaging import Messaging
from services.feed.announce import Announcer
from services.feed.writers.table import open_writer
from services.wiring.bootstrap import ANNOUNCER_ACTOR, CONTROL_ACTOR
from services.wiring.telling import tell_control
from tests.api.gateway_in_process import System
from tests.api.queue_peers import Found, Peer

#: Long enough for a busy machine; nothing is measured by it.
PATIENCE_S = 60.0


class Outside:
    """Two topics of a broker, and a program that reads them."""

    def __init__(self, peer: Peer) -> None:
        some = uuid.uuid4().hex[:8]
        self.peer = peer
        #: Where the announcer finds it.
        self.broker = peer.broker
        self.process, self.orchestrate = f"incidents.process.{some}", f"incidents.orchestrate.{some}"

    @property
    def messaging(self) -> dict[str, Any]:
        """The section of the settings."""
        topics = [self.process, self.orchestrate]
        return {"backend": self.peer.name, "brokers": [self.broker], "topics": topics}

    async def create(self) -> None:
        for topic in (self.process, self.orchestrate):
            await self.peer.create(topic)

    async def start(self, ours: System) -> Announcer:
        messaging = Messaging.model_validate(self.messaging)
        partitions = [partition_name(index) for index in range(ours.settings.state.partitions)]

        def announcer(host: Host) -> Actor:
            return Announcer(
                host,
                dict(zip(partitions, ours.shards, strict=True)),
                ours.stores.log,
                ours.stores.archive,
                open_writer(messaging, None, host.name),
                messaging.process,
                messaging.orchestrate,
                ControlTail(ours.stores.log("control")),
                partial(tell_control, host.peers, CONTROL_ACTOR, hold_s=5.0),
                ours.clock,
            )

        await ours.cluster.start(ANNOUNCER_ACTOR, announcer)
        found = ours.cluster.get(ANNOUNCER_ACTOR)
        assert isinstance(found, Announcer)
        return found

    async def read(self, topic: str = "") -> list[dict[str, Any]]:
        """The bodies, in order, repeats dropped by their id."""
        seen: dict[str, dict[str, Any]] = {}
        for each in await self.peer.read(topic or self.process):
            body = checked(each)
            seen.setdefault(body["id"], body)
        return [*seen.values()]

    async def kinds(self, topic: str = "") -> dict[str, list[str]]:
        """What happened to each incident."""
        found: dict[str, list[str]] = defaultdict(list)
        for each in await self.read(topic):
            if each["event"] == "incident":
                found[each["incident"]["id"]].append(each["kind"])
        return dict(found)

    async def gaps(self) -> list[tuple[str, str]]:
        return [(each["partition"], each["reason"]) for each in await self.read() if each["event"] == "gap"]

    async def begun(self, partitions: int = 2) -> None:
        async def has() -> bool:
            # Told in both topics at once, and counted in one.
            return len(await self.gaps()) >= partitions

        await until(has, "it begins")


def checked(found: Found) -> dict[str, Any]:
    """The body of a message whose headers say what it says."""
    body: dict[str, Any] = json.loads(found.body)
    assert found.headers["event-id"] == body["id"]
    assert found.headers["event-kind"] == body.get("kind", "gap")
    if found.key:
        assert found.key == (body["incident"]["id"] if body["event"] == "incident" else body["partition"])
    return body


async def kill(ours: System) -> None:
    """End the announcer as SIGKILL would: it gives up no lease, moves no cursor, and does nothing more."""
    announcer = ours.cluster.kill(ANNOUNCER_ACTOR)
    assert isinstance(announcer, Announcer)
    await announcer.cease()
    await announcer.outlet.close()
    for shard in announcer._shards:
        await shard.close()
    await announcer.control.close()


async def timelines(ours: System) -> dict[str, list[str]]:
    """The kinds of lines of all incidents, as the API has them."""
    found = {}
    for each in (await ours.get("/v1/incidents?limit=500")).items:
        lines = (await ours.get(f"/v1/incidents/{each['id']}/timeline")).items
        found[each["id"]] = [line["event_type"] for line in lines]
    return found


async def counted(ours: System, metric: str) -> float:
    announcer = ours.cluster.get(ANNOUNCER_ACTOR)
    assert isinstance(announcer, Announcer)
    reading = decode_metrics(await announcer.metrics(b""))
    return sum(each.value for each in (*reading.counters, *reading.gauges) if each.name == metric)


async def until(holds: Callable[[], Awaitable[object]], what: str) -> None:
    give_up_at = asyncio.get_running_loop().time() + PATIENCE_S
    while not await holds():
        assert asyncio.get_running_loop().time() < give_up_at, what
        await asyncio.sleep(0.05)
