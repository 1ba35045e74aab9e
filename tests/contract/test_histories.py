"""Appends, reads and takeovers of one partition at once, on every store and under faults: whatever is told to whom, there
is one order of events that explains it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from models.errors import OutcomeUnknown, Unavailable
from models.ports import EventLog
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from services.stores.postgres.log import PostgresEventLog
from services.stores.postgres.options import PostgresOptions
from services.stores.redis.log import APPEND, TAKE, RedisEventLog
from services.stores.redis.options import RedisOptions
from services.stores.sqlite.log import SqliteEventLog
from tests.contract import postgres_peers, redis_peers
from tests.contract.conftest import NUMBERS, PARTITION
from tests.contract.histories import History, record
from tests.contract.linearizability import check
from tests.contract.proxy import Proxy

SECONDS = {"memory": 0.5, "sqlite": 1.0, "redis": 3.0, "postgres": 4.0}
SEED = 4711
KINDS = ("Open", "Append", "Append fenced", "Append cut off", "Read")
ROUNDS_MAX = 5
Server = redis_peers.Server | postgres_peers.Server
#: What a request to open and one to append hold, for a proxy that hits them.
MARKERS = {"redis": (APPEND.sha, TAKE.sha), "postgres": ("INSERT INTO appends", "COMMIT")}
#: How a server ends as in a crash. A killed postmaster would leave sessions that keep the next one from starting.
CRASH = {"redis": signal.SIGKILL, "postgres": signal.SIGQUIT}
#: Short, as are the troubles.
TIMEOUT_S, CONNECT_TIMEOUT_S = 0.3, 0.2
#: A PostgreSQL takes longer to come back, and there must be time to write in between.
EVERY_S = {"redis": 0.08, "postgres": 0.2}


class MemoryFaults:
    """Waits and refusals by chance, before an operation and after it."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    async def before(self, operation: str) -> None:
        await asyncio.sleep(self._chance.choice((0.0, 0.0, 0.001)))
        if self._chance.random() < 0.02:
            raise Unavailable(f"{operation}: away")

    async def after(self, operation: str) -> None:
        await asyncio.sleep(self._chance.choice((0.0, 0.0, 0.001)))
        if self._chance.random() < 0.02:
            raise OutcomeUnknown(operation) if operation == "log.append" else Unavailable(operation)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = redis_peers.Server(tmp_path_factory.mktemp("redis"), *redis_peers.DURABLE).start()
    yield started
    started.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    started = postgres_peers.Server()
    try:
        yield started.start()
    finally:
        started.remove()


def adapters(backend: str, port: int) -> Callable[[], EventLog]:
    """Constructs logs of one new partition behind `port`. Each PostgreSQL one has options, and with them a pool, of its
    own: as another process."""
    number = next(NUMBERS)
    if backend == "redis":
        url = f"redis://127.0.0.1:{port}/0"
        options = RedisOptions(
            url, prefix=f"history-{number}", timeout_s=TIMEOUT_S, connect_timeout_s=CONNECT_TIMEOUT_S, replica_timeout_s=0.1
        )  # fmt: skip
        return lambda: RedisEventLog(options, PARTITION)
    return lambda: PostgresEventLog(
        PostgresOptions(
            f"{postgres_peers.url(port)}?application_name=history_{next(NUMBERS)}", f"history_{number}",
            timeout_s=TIMEOUT_S, connect_timeout_s=2.0,
        ),
        PARTITION,
    )  # fmt: skip


async def hurt(backend: str, server: Server, proxy: Proxy, seed: int) -> None:
    """One trouble after another until it is cancelled, each of them first once."""
    chance = random.Random(seed)
    kinds = ["before", "after", "late", "vanish", "slow", "drop", "half-open", "restart"]
    waiting = chance.sample(kinds, len(kinds))
    while True:
        await asyncio.sleep(EVERY_S[backend] * chance.uniform(0.5, 1.5))
        kind = waiting.pop() if waiting else chance.choice(kinds)
        match kind:
            case "before" | "after" | "late" | "vanish":
                proxy.hurt(kind, chance.choice(MARKERS[backend]))
                await asyncio.wait_for(proxy.hit.wait(), 5.0)
                if kind == "late":
                    await asyncio.sleep(chance.uniform(0.0, 2 * TIMEOUT_S))
                    await proxy.deliver()
            case "slow":
                proxy.delay_s = chance.uniform(0.0, 0.5) * TIMEOUT_S
                await asyncio.sleep(2 * EVERY_S[backend])
                proxy.delay_s = 0.0
            case "drop":
                proxy.drop = 0.05
                await asyncio.sleep(2 * EVERY_S[backend])
                proxy.drop = 0.0
            case "half-open":
                proxy.vanish()
            case "restart":
                await asyncio.to_thread(server.stop, CRASH[backend])
                await asyncio.sleep(chance.uniform(0.0, EVERY_S[backend]))
                await asyncio.to_thread(server.start)


@asynccontextmanager
async def in_trouble(backend: str, server: Server, seed: int) -> AsyncIterator[int]:
    """A port behind which server and network are hurt meanwhile."""
    async with Proxy(server.port) as proxy:
        proxy.chance = random.Random(seed)
        hurting = asyncio.create_task(hurt(backend, server, proxy, seed))
        try:
            yield proxy.port
            assert not hurting.done() or hurting.result()
        finally:
            hurting.cancel()
            await asyncio.wait([hurting])
            if server.process is None:
                await asyncio.to_thread(server.start)


def must_be_linearizable(history: History) -> None:
    print(", ".join(f"{count} {kind}" for kind, count in sorted(history.counted.items())))
    verdict = check(history.operations)
    assert verdict.is_linearizable, verdict.why


def must_have_happened(counted: Mapping[str, int]) -> None:
    """A history in which nothing happened would prove nothing."""
    for kind in KINDS:
        assert counted.get(kind), f"no {kind} in {counted}"


@pytest.mark.asyncio
async def test_the_memory_adapters_history_can_be_put_in_one_order() -> None:
    store, faults = MemoryStore(), MemoryFaults(SEED)

    history = await record(lambda: MemoryEventLog(store, PARTITION, faults), SECONDS["memory"], SEED)

    must_be_linearizable(history)
    must_have_happened(history.counted)


@pytest.mark.asyncio
async def test_sqlites_history_can_be_put_in_one_order(tmp_path: Path) -> None:
    history = await record(lambda: SqliteEventLog(tmp_path, PARTITION), SECONDS["sqlite"], SEED)

    must_be_linearizable(history)
    must_have_happened(history.counted)


@pytest.mark.asyncio
@pytest.mark.parametrize("backend", ["redis", "postgres"])
async def test_the_history_of_a_server_that_is_cut_killed_and_half_open_can_be_put_in_one_order(
    backend: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(backend)

    seen: Counter[str] = Counter()
    async with in_trouble(backend, server, SEED) as port:
        # A machine that is busy may get little done between two troubles; then there is another round.
        for seed in range(SEED, SEED + ROUNDS_MAX):
            history = await record(adapters(backend, port), SECONDS[backend], seed)
            must_be_linearizable(history)
            seen.update(history.counted)
            if all(seen[kind] for kind in KINDS):
                break
    must_have_happened(seen)
