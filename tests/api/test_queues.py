"""Alerts from real queues: nothing is acknowledged before the log has it, nothing is stored twice, nothing stands in the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.api.gateway_in_process import alert, system
from tests.api.queue_peers import KafkaPeer, NatsPeer, Peer, RabbitPeer

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]
WAIT_S = 60.0


@pytest.fixture(scope="module", params=["nats", "rabbitmq", "kafka"])
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    folder = tmp_path_factory.mktemp(request.param)
    made: Peer = {"nats": NatsPeer, "rabbitmq": RabbitPeer, "kafka": KafkaPeer}[request.param](folder)
    try:
        made.start()
        yield made
    finally:
        made.end()


async def until(holds: Callable[[], Awaitable[object]], what: str = "") -> None:
    give_up_at = asyncio.get_running_loop().time() + WAIT_S
    while not await holds():
        assert asyncio.get_running_loop().time() < give_up_at, what
        await asyncio.sleep(0.05)


def body(*alerts: dict[str, Any]) -> bytes:
    return json.dumps([*alerts]).encode()


async def test_alerts_of_a_queue_become_incidents_and_are_acknowledged(peer: Peer) -> None:
    topic = peer.topic()
    await peer.create(topic)
    async with system(messaging=peer.settings(topic)) as ours:
        await peer.publish(topic, [body(alert("Down"), alert("Slow", "db")), body(alert("Late"))])

        async def all_there() -> bool:
            return await ours.names() == {"Down", "Slow", "Late"}

        await until(all_there)

        async def is_empty() -> bool:
            return await peer.left(topic) == 0

        await until(is_empty)
