"""One instance for the whole folder, started once; and the order of its tests: those that only use it first, then
those that kill its processes, then those that end it. Every test here is marked `cluster`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.machine import launch
from tests.api.otlp_receiver import OtlpReceiver
from tests.api.queue_peers import NatsPeer
from tests.cluster import doors_under_kills
from tests.cluster.instance import Cluster
from tests.cluster.receiver import Receiver
from tests.contract.redis_peers import Server
from tests.ports import free_port

#: The first four start a Ray of their own: before ours, so that there are never two.
ORDER = (
    "test_launch", "test_guard", "test_first_ten_minutes", "test_playbooks",
    "test_listeners", "test_machine", "test_response", "test_reload", "test_tracing", "test_clients", "test_replicas",
    "test_stream", "test_feed", "test_silences", "test_learning", "test_kill", "test_grpc", "test_doors_under_kills",
    "test_people", "test_everything", "test_end",
)  # fmt: skip
HERE = Path(__file__).parent
#: The session's instance listens here: whoever calls 127.0.0.1 instead of what `server.http_host` says would not find it. Others
#: of this folder listen on 127.0.0.1, 0.0.0.0 and ::1.
ANOTHER_LOOPBACK = "127.0.0.2"
#: Of the user that publishes; a test looks that nobody writes it down.
FEED_PASSWORD = "feed-pass-word"
#: That the receiver of traces is sent; likewise.
COLLECTOR_SECRET = "collector-s3cret"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks and order for the tests of this folder; those of others keep their places."""
    ours = [item for item in items if item.path.parent == HERE]
    for item in ours:
        item.add_marker(pytest.mark.cluster)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(240))
    # Not sorted(items): a run of several folders keeps theirs.
    places = [place for place, item in enumerate(items) if item.path.parent == HERE]
    ordered = sorted(
        ours, key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else len(ORDER)
    )
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """Where the session's instance sends its first response."""
    with Receiver() as found:
        yield found


@pytest.fixture(scope="session")
def collector() -> Iterator[OtlpReceiver]:
    """Where the session's instance sends traces."""
    with OtlpReceiver() as found:
        yield found


@pytest.fixture(scope="session")
def feed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server | None]:
    """Where the session's instance publishes; None where no Redis is installed, and then it publishes nowhere."""
    if not (os.environ.get("REDIS_SERVER") or shutil.which("redis-server")):
        yield None
        return
    user = ("--user", "feeder", "on", f">{FEED_PASSWORD}", "~*", "&*", "+@all")
    server = Server(tmp_path_factory.mktemp("feed"), "--save", "", *user).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsPeer | None]:
    """What the session's instance reads; None where no NATS is installed, and then it reads nothing."""
    if not NatsPeer.program().exists() and not os.environ.get("CI"):
        yield None
        return
    peer = NatsPeer(tmp_path_factory.mktemp("queue"))
    try:
        peer.start()
        doors_under_kills.create_stream(peer)
        yield peer
    finally:
        peer.stop()


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
    receiver: Receiver,
    collector: OtlpReceiver,
    feed_server: Server | None,
    queue: NatsPeer | None,
) -> Iterator[Cluster]:
    """The session's instance, not started yet. Small snapshots, so that a short test has several."""
    publish = {}
    if feed_server is not None:
        url = f"redis://feeder:{FEED_PASSWORD}@127.0.0.1:{feed_server.port}/0"
        publish = {"LLM_IM_PUBLISH__REDIS__URL": url}
    cluster = Cluster(
        tmp_path_factory.mktemp("cluster") / "data",
        free_port(),
        {
            "LLM_IM_NOTIFY__WEBHOOK__URL": receiver.url,
            "LLM_IM_NOTIFY__INTERVAL": "1s",
            "LLM_IM_TELEMETRY__ENDPOINT": collector.endpoint,
            "LLM_IM_TELEMETRY__HEADERS": json.dumps({"authorization": f"Bearer {COLLECTOR_SECRET}"}),
            "LLM_IM_TELEMETRY__SAMPLE_RATIO": "0",  # only what a test traces
            "LLM_IM_STATE__SNAPSHOT_EVERY_FRAMES": "500",
            "LLM_IM_LIFECYCLE__RESOLVE_TIMEOUT": "1h",
            "LLM_IM_SERVER__GRPC": "true",
            "LLM_IM_SERVER__GRPC_PORT": str(free_port()),
            **publish,
            **(doors_under_kills.settings(queue) if queue is not None else {}),
        },
        host=ANOTHER_LOOPBACK,
    )
    yield cluster
    launch.stop(cluster.data, progress=lambda _text: None)


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """The session's instance, up and well; started anew if the test before ended it."""
    return up_and_well(shared)


def up_and_well(shared: Cluster) -> Cluster:
    if launch.running(shared.data) is None:
        shared.up()
    shared.settled()
    return shared


def program(name: str) -> str:
    """The path of a program of Debian's. Without it a laptop skips by name, CI fails."""
    for folder in os.environ.get("PATH", "").split(os.pathsep) + ["/usr/bin"]:
        if os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{name} is not installed (make peers), and CI needs it")
    pytest.skip(f"{name} is not installed: make peers")
