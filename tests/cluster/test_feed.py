"""The feed in Redis of a real instance: written by an actor of its own, which is killed and goes on where it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.cluster.conftest import FEED_PASSWORD
from tests.cluster.instance import Cluster, until
from tests.contract.redis_peers import Server, redis_server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

BASE = "llm-im:{feed}:"
PUBLISHER = "publisher-0"


def test_a_killed_publisher_goes_on_and_its_redis_password_is_nowhere_to_be_read(
    cluster: Cluster, feed_server: Server | None
) -> None:
    if feed_server is None:
        redis_server()  # skips by name
    assert feed_server is not None
    client = feed_server.client()
    heard = listen(client)

    first = opened(cluster, "feed-first")
    until("the first is published", lambda: published(client, first), 30.0)
    cluster.kill(before := cluster.actor_pid(PUBLISHER))
    second = opened(cluster, "feed-second")
    until("the second is published", lambda: published(client, second), 60.0)
    # Before the shard was asked, the log says it: nothing was made anew, nothing skipped.
    told = [each["incident"]["id"] for each in heard() if each.get("kind") == "Created"]

    assert cluster.actor_pid(PUBLISHER) != before
    assert [each for each in told if each in (first, second)] == [first, second]
    shown = cluster.get(f"/v1/incidents/{second}")
    stored = client.get(f"{BASE}incident:{second}")
    assert stored is not None
    record = json.loads(stored)
    assert isinstance(shown, dict) and record == {name: shown[name] for name in record}
    metrics = cluster.call("GET", "/metrics").body.decode()
    assert re.search(rf'^llm_im_publish_away{{actor="{PUBLISHER}"}} 0$', metrics, flags=re.MULTILINE)
    assert FEED_PASSWORD not in everything_written(cluster)


def opened(cluster: Cluster, service: str) -> str:
    answer = cluster.call("POST", "/v1/alerts", [{"labels": {"alertname": "Fed", "service": service}}])
    assert answer.status == 202, answer
    return str(json.loads(answer.body)["items"][0]["incident_id"])


def published(client: Redis, identity: str) -> bool:
    """Whether it is there as its first verdict left it: what comes later is nobody's doing."""
    found = client.get(f"{BASE}incident:{identity}")
    return found is not None and json.loads(found)["state"] == "Triaged"


def listen(client: Redis) -> Callable[[], list[dict[str, Any]]]:
    """Subscribes; a function that gives what was heard since."""
    channel = client.pubsub()
    channel.subscribe(f"{BASE}changes")
    assert channel.get_message(timeout=10.0)

    def heard() -> list[dict[str, object]]:
        found = []
        while (message := channel.get_message(timeout=0.2)) is not None:
            found.append(json.loads(message["data"]))
        channel.close()
        return found

    return heard


def everything_written(cluster: Cluster) -> str:
    """The logs of our processes, and their command lines."""
    folder = Path(cluster.instance.private_dir)
    logs = [
        path.read_text("utf-8", "replace")
        for path in [*folder.rglob("worker-*.err"), cluster.data / "log" / "llm-im.log"]
    ]
    assert logs
    return "\n".join([*logs, *cluster.pids().values()])
