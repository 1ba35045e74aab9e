"""Shards are killed in the middle of merges, splits and bulk verbs: both halves come to be, and each thing once."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from typing import Any

import pytest

from tests.cluster import audit, kills
from tests.cluster.instance import Cluster, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

SEED = int(os.environ.get("KILL_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
#: Incidents of each shard; every second one is merged into one of the other shard, the rest are split.
PAIRS = 12
ALERTS_EACH = 3
#: How long one thing is asked for again: a shard is back after a second or two.
PATIENCE_S = 60.0
NAME = "Joined"


@dataclass(slots=True)
class Worker:
    """Asks for one thing after the other, under a key each, until it is answered."""

    cluster: Cluster
    name: str
    answers: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def post(self, path: str, body: Mapping[str, object], key: str) -> dict[str, Any]:
        """The answer's JSON. A 5xx or a broken connection is asked again under the same key."""
        return self._ask("POST", path, body, key)

    def get(self, path: str) -> dict[str, Any]:
        """The same of a read: its shard may have been killed just now."""
        return self._ask("GET", path, None, path)

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None, key: str) -> dict[str, Any]:
        headers = {"X-Actor": self.name}
        if body is not None:
            headers["Idempotency-Key"] = f"{self.name}-{key}"
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                answer = self.cluster.call(method, path, body, headers=headers)
            except (OSError, HTTPException):
                time.sleep(0.1)
                continue
            if answer.status in (500, 502, 503, 504):
                time.sleep(0.1)
                continue
            self.answers[key] = answer.status
            if answer.status >= 400:
                self.broken.append(f"{path} {key}: {answer.status} {answer.body[:300]!r}")
            found = answer.json()
            assert isinstance(found, dict)
            return found
        raise AssertionError(f"{path} {key}: no answer for {PATIENCE_S:g} s")


def test_a_kill_in_the_middle_of_merge_split_and_bulk_leaves_no_half(cluster: Cluster) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    incidents = _open(cluster)
    left, right = incidents[:PAIRS], incidents[PAIRS:]
    worker, bulk = Worker(cluster, "ann"), Worker(cluster, "bob")
    split: dict[str, str] = {}

    def work() -> None:
        for number, (target, source) in enumerate(zip(left, right, strict=True)):
            one = f"/v1/incidents/{target}"
            worker.post(f"{one}/comment", {"text": f"comment {number}"}, f"comment-{number}")
            if number % 2:
                worker.post(f"{one}/merge", {"incident": source}, f"merge-{number}")
            else:
                alerts = worker.get(f"{one}/alerts")
                first = alerts["items"][0]["fingerprint"]
                made = worker.post(f"{one}/split", {"alerts": [first]}, f"split-{number}")
                split[target] = str(made["id"])

    def acknowledge() -> None:
        for number in range(6):
            body = {"verb": "comment", "incidents": right, "body": {"text": f"bulk {number}"}}
            while True:
                found = bulk.post("/v1/incidents/bulk", body, f"bulk-{number}")
                # Items that a shard could not take are asked again with the rest, under the same key.
                if all(item["status"] < 500 for item in found["items"]):
                    break
                time.sleep(0.2)

    threads = [threading.Thread(target=target) for target in (work, acknowledge)]
    for thread in threads:
        thread.start()
    killed = 0
    while any(thread.is_alive() for thread in threads) and killed < 6:
        time.sleep(chance.uniform(0.1, 0.6))
        kills.kill(cluster, chance.choice(kills.SHARDS), chance)
        killed += 1
        time.sleep(chance.uniform(0.5, 2.0))
    for thread in threads:
        thread.join()
    cluster.settled()
    assert len(split) == PAIRS // 2 + PAIRS % 2, "the work ended too early: see what its thread printed"

    assert not worker.broken + bulk.broken
    for number, (target, source) in enumerate(zip(left, right, strict=True)):
        until(f"{target} is whole", partial(_is_whole, cluster, target), 20.0)
        whole, part = _get(cluster, target), _get(cluster, source)
        comments = [line["description"] for line in whole["timeline"] if line["event_type"] == "CommentAdded"]
        assert comments == [f"comment {number}"]
        said = [line["description"] for line in part["timeline"] if line["event_type"] == "CommentAdded"]
        assert said == [f"bulk {each}" for each in range(6)]
        if number % 2:
            assert part["merged_into"] == target
            assert [each["incident"] for each in whole["parts"]] == [source]
        else:
            made = _get(cluster, split[target])
            assert (made["split_from"], made["alerts"], whole["alerts"]) == (target, 1, ALERTS_EACH - 1)
    audit.verify_logs(cluster)


def _open(cluster: Cluster) -> list[str]:
    """PAIRS incidents of the first shard, then as many of the second."""
    found = []
    for shard in range(2):
        service = cluster.service_of_shard(shard, "joined")
        for number in range(PAIRS):
            alerts = [
                {"labels": {"alertname": f"{NAME}{number}", "service": service, "n": str(each)}}
                for each in range(ALERTS_EACH)
            ]
            answer = cluster.call("POST", "/v1/alerts", alerts)
            assert answer.status == 202, answer.body
            found.append(str(answer.json()["items"][0]["incident_id"]))
    return found


def _get(cluster: Cluster, identity: str) -> dict[str, Any]:
    found = cluster.get(f"/v1/incidents/{identity}")
    assert isinstance(found, dict)
    return found


def _is_whole(cluster: Cluster, identity: str) -> bool:
    return not any(part["pending"] for part in _get(cluster, identity)["parts"])
