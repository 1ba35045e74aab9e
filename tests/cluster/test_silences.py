"""5,000 silences on a real instance: what they mute is told to nobody, whatever is killed; what they do not is told."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.cluster import kills
from tests.cluster.instance import Cluster, until
from tests.cluster.receiver import Receiver

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

SILENCES = 5000


def silence(cluster: Cluster, number: int, service: str) -> str:
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    body = {
        "matchers": [
            {"name": "service", "value": service, "isRegex": False},
            {"name": "pod", "value": f"pod-{number}", "isRegex": False},
        ],
        "startsAt": datetime.now(UTC).isoformat(), "endsAt": ends, "createdBy": "test", "comment": "kills",
    }  # fmt: skip
    answer = cluster.call("POST", "/api/v2/silences", body)
    assert answer.status == 200, answer
    return str(answer.json()["silenceID"])


def post(cluster: Cluster, service: str, pods: list[str]) -> None:
    alerts = [
        {"labels": {"alertname": "Muted", "service": service, "pod": pod, "severity": "critical"}}
        for pod in pods
    ]

    def taken() -> bool:
        return cluster.call("POST", "/api/v2/alerts", alerts).status == 200

    until("the alerts are taken", taken, 30.0, poll_s=0.2)


def test_what_is_silenced_is_told_to_nobody_whatever_is_killed(cluster: Cluster, receiver: Receiver) -> None:
    muted = [cluster.service_of_shard(shard, "quiet") for shard in (0, 1)]
    loud = cluster.service_of_shard(0, "loud")
    with ThreadPoolExecutor(8) as pool:
        ids = [*pool.map(lambda number: silence(cluster, number, muted[number % 2]), range(SILENCES))]
    assert len(set(ids)) == SILENCES
    began = time.monotonic()
    time.sleep(1.0)
    chance = random.Random(1)

    for round_number, kind in enumerate(("control-a", "shard-0000-a", "shard-0001-a", "gateway")):
        kills.kill(cluster, kind, chance)
        for shard in (0, 1):
            first = round_number * 20 + shard
            post(cluster, muted[shard], [f"pod-{number}" for number in range(first, first + 20, 2)])
        cluster.settled(60.0)
    post(cluster, loud, ["pod-0"])
    until("the loud one is told", lambda: receiver.of(loud), 30.0)
    time.sleep(2.0)

    assert [post.service for service in muted for post in receiver.of(service)] == []
    shown = cluster.get("/api/v2/alerts?filter=alertname%3DMuted")
    states = {(each["labels"]["service"], each["status"]["state"]) for each in shown}
    assert states == {*((service, "suppressed") for service in muted), (loud, "active")}
    assert len(cluster.get("/api/v2/silences?expired=false")) >= SILENCES
    print(f"{SILENCES} silences, four kills, {time.monotonic() - began:.0f} s")
