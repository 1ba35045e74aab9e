"""The whole system in one process on a real server that goes away under load: 503 meanwhile, nothing acknowledged lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.ports import Archive, Clock, DeadLetters, DeliveryIds, EventLog
from models.settings.all import Settings
from services.stores.choice import open_stores
from tests.api.gateway_in_process import System, alert, system
from tests.api.test_pressure import V2, is_busy
from tests.contract import postgres_peers, redis_peers

AWAY_S = 3.0


Server = redis_peers.Server | postgres_peers.Server


class Stores:
    """The shipped adapters, as the in-process system asks for its stores."""

    def __init__(self, backend: str, url: str) -> None:
        # A second is patience enough on loopback, and a test has less of it.
        connect_s = {"redis": 0.5, "postgres": 2.0}[backend]
        self.stores = open_stores(
            {"backend": backend, "url": url, "timeout_s": 1.0, "connect_timeout_s": connect_s}
        )

    def log(self, partition: str) -> EventLog:
        return self.stores.log(partition)

    def archive(self, partition: str) -> Archive:
        return self.stores.archive(partition)

    def deliveries(self, partition: str) -> DeliveryIds:
        return self.stores.delivery_ids(partition)

    def dead_letters(self, settings: Settings, clock: Clock) -> DeadLetters:
        bounds = settings.dead_letters
        return self.stores.dead_letters(
            max_bytes=bounds.max_bytes, max_age_s=bounds.max_age, clock=clock, max_payload_bytes=bounds.max_payload_bytes
        )  # fmt: skip


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    started = redis_peers.Server(tmp_path / "redis", *redis_peers.DURABLE).start()
    yield started
    started.stop(signal.SIGKILL)


@pytest.fixture
def postgres() -> Iterator[Server]:
    started = postgres_peers.Server()
    try:
        yield started.start()
    finally:
        started.remove()


#: How a server ends as in a crash. A killed postmaster would leave sessions that keep the next one from starting.
CRASH = {"redis": signal.SIGKILL, "postgres": signal.SIGQUIT}


@pytest.mark.asyncio
@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "hangs"])
@pytest.mark.parametrize("backend", ["redis", "postgres"])
async def test_alerts_sent_while_the_store_is_killed_or_hangs_are_refused_or_there_afterwards(
    backend: str, hangs: bool, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(backend)
    acknowledged: set[str] = set()
    refused = 0

    async def send(ours: System, sender: int, over: asyncio.Event) -> None:
        nonlocal refused
        number = 0
        while not over.is_set():
            number += 1
            name = f"S{sender}N{number}"
            answer = await ours.post(V2, [alert(name), alert(name, "db")])
            if answer.status == 200:
                acknowledged.add(name)
            else:
                assert is_busy(answer), answer
                refused += 1
                await asyncio.sleep(0.05)

    async with system(Stores(backend, server.url), server={"hold": 0.5}) as ours:  # type: ignore[arg-type]
        over = asyncio.Event()
        sending = [asyncio.create_task(send(ours, sender, over)) for sender in range(8)]
        await asyncio.sleep(0.5)
        before = len(acknowledged)
        if hangs:
            server.pause()
        else:
            server.stop(CRASH[backend])
        await asyncio.sleep(AWAY_S)
        if hangs:
            server.go_on()
        else:
            server.start()
        async with asyncio.timeout(30):
            await ours.ready()
            while len(acknowledged) < before + 100:
                await asyncio.sleep(0.05)
        over.set()
        await asyncio.gather(*sending)

        assert before and refused
        assert acknowledged <= await ours.names()
        assert not ours.cluster.deaths

    async with system(Stores(backend, server.url)) as again:  # type: ignore[arg-type]
        assert acknowledged <= await again.names()
