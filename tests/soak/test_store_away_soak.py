"""A real instance on Redis and on PostgreSQL, whose store goes away for ten seconds or behind a bad network while 3,000
alerts a second come in. `make soak ARGS="-k store"`.

What every trouble must leave: what was acknowledged is there, once; senders were told 503 with Retry-After and nothing
worse; no process ended; all of it went on by itself.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import audit
from tests.cluster.instance import Cluster, running
from tests.cluster.load import Load, longest_gap, sending
from tests.cluster.senders import NO_RETRY_AFTER
from tests.contract import postgres_peers, redis_peers
from tests.contract.proxy import Proxy
from tests.ports import free_port

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

AWAY_S = 10.0
RATE_PER_S = 3000.0
ALERTS_A_REQUEST = 30
#: A request is held for 5 s before its 503: so many workers go on offering the rate while all are held.
WORKERS = 600
#: The longest that a store which is back may wait for its writer: the answer of an exchange that is still awaited
#: (5 s and a second), and a try to connect (5 s).
RESUMED_WITHIN_S = 15.0
Server = redis_peers.Server | postgres_peers.Server
#: How a server ends as in a crash. A killed postmaster would leave sessions that keep the next one from starting.
CRASH = {"redis": signal.SIGKILL, "postgres": signal.SIGQUIT}


@dataclass(slots=True)
class Store:
    """A store's own server, and the network in front of it."""

    backend: str
    server: Server
    proxy: Proxy

    def url(self, port: int) -> str:
        return postgres_peers.url(port) if self.backend == "postgres" else f"redis://127.0.0.1:{port}/0"

    def settings(self) -> dict[str, str]:
        return {
            "LLM_IM_STATE__BACKEND": self.backend,
            f"LLM_IM_STATE__{self.backend.upper()}__URL": self.url(self.proxy.port),
            # Some snapshots within each trouble.
            "LLM_IM_STATE__SNAPSHOT_EVERY_FRAMES": "1000",
            "LLM_IM_LIFECYCLE__RESOLVE_TIMEOUT": "1d",
        }


@contextmanager
def through_a_proxy(port: int) -> Iterator[Proxy]:
    """The proxy in a thread of its own: a test that waits must not keep an instance from its store."""
    loop, proxy = asyncio.new_event_loop(), Proxy(port)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(10)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="module", params=["redis", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    server: Server
    if request.param == "redis":
        server = redis_peers.Server(tmp_path_factory.mktemp("redis"), *redis_peers.DURABLE)
    else:
        server = postgres_peers.Server()
    try:
        server.start()
        with through_a_proxy(server.port) as proxy:
            yield Store(request.param, server, proxy)
    finally:
        if isinstance(server, postgres_peers.Server):
            server.remove()
        else:
            server.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp(f"away-{store.backend}")
    with running(Cluster(folder / "data", free_port(), store.settings())) as found:
        yield found


def processes(cluster: Cluster) -> dict[str, list[int]]:
    """Who must not end because a store does."""
    actors = {name: [cluster.actor_pid(name)] for name in cluster.actors()}
    return {**actors, "gateways": cluster.gateway_pids(), "haproxy": cluster.haproxy_pids()}


def killed(store: Store) -> Callable[[], object]:
    store.server.stop(CRASH[store.backend])
    return store.server.start


def hangs(store: Store) -> Callable[[], object]:
    store.server.pause()
    return store.server.go_on


def vanished(store: Store) -> Callable[[], object]:
    """Nothing is answered and nothing refused; the connections of before stay half-open for ever."""
    store.proxy.silent = True

    def back() -> None:
        store.proxy.silent = False

    return back


def half_open(store: Store) -> Callable[[], object]:
    store.proxy.vanish()
    return lambda: None


def half_a_second_away(store: Store) -> Callable[[], object]:
    store.proxy.delay_s = 0.25

    def back() -> None:
        store.proxy.delay_s = 0.0

    return back


def one_in_a_hundred_dropped(store: Store) -> Callable[[], object]:
    store.proxy.drop = 0.01

    def back() -> None:
        store.proxy.drop = 0.0

    return back


#: What is done to the store, and whether it is away meanwhile: then senders are told so.
TROUBLES: list[tuple[Callable[[Store], Callable[[], object]], bool]] = [
    (killed, True), (hangs, True), (vanished, True), (half_open, False), (half_a_second_away, False),
    (one_in_a_hundred_dropped, False),
]  # fmt: skip


@pytest.mark.parametrize(("trouble", "away"), TROUBLES, ids=[trouble.__name__ for trouble, _away in TROUBLES])
def test_nothing_acknowledged_is_lost_and_all_goes_on_by_itself_when_the_store_is(
    cluster: Cluster,
    store: Store,
    tmp_path: Path,
    trouble: Callable[[Store], Callable[[], object]],
    away: bool,
) -> None:
    seed = 7000 + TROUBLES.index((trouble, away))
    cluster.settled()
    before = processes(cluster)

    with sending(
        cluster, tmp_path / "told.json", seed=seed, rate=RATE_PER_S, workers=WORKERS,
        alerts_a_request=ALERTS_A_REQUEST, new_share=0.04,
    ) as load:  # fmt: skip
        time.sleep(5.0)
        began = time.time()
        undo = trouble(store)
        time.sleep(AWAY_S)
        undo()
        over = time.time()
        cluster.wait_ready(60.0)
        time.sleep(5.0)

    report(store, trouble.__name__, load, began, over)
    told = load.told
    assert processes(cluster) == before
    assert told.unfinished == 0
    assert NO_RETRY_AFTER not in told.failed, told.failed
    # 207: one shard's part was stored, the other's told to come again, alert by alert.
    assert not [why for why in told.failed if not why.startswith(("503", "207"))], told.failed
    if away:
        assert told.failed
    for shard in map(str, range(cluster.partitions)):
        answers = sorted(told.answers[shard])
        assert first_after(answers, over) - over < RESUMED_WITHIN_S
    audit.check(audit.through_the_api(cluster, seed), told, counted=True)
    audit.check(audit.firing(cluster, seed), told, counted=False)
    where = {"backend": store.backend, f"{store.backend}.url": store.url(store.server.port)}
    audit.check(audit.offline(cluster.data, cluster.partitions, seed, **where), told, counted=True)
    audit.verify_logs(cluster)


def first_after(answers: list[float], at: float) -> float:
    return next((each for each in answers if each > at), float("inf"))


def report(store: Store, trouble: str, load: Load, began: float, over: float) -> None:
    told = load.told
    shards = [sorted(answers) for name, answers in told.answers.items() if name != "any"]
    refusals = [at - began for at, why in told.failures if why.startswith("503")]
    print(
        f"{store.backend} {trouble}: {told.alerts} alerts acknowledged, {told.alerts / told.seconds:.0f}/s over"
        f" {told.seconds:.0f} s; {sum(told.failed.values())} tries refused"
        + (f", the first after {min(refusals):.1f} s" if refusals else "")
        + f"; slowest acknowledged {told.slowest_s:.1f} s after its first try; longest gap of a shard"
        f" {max(longest_gap(each, began, over) for each in shards):.1f} s; answered again"
        f" {max(first_after(each, over) for each in shards) - over:.2f} s after the end",
        flush=True,
    )
