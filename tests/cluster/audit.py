"""What must hold of an instance's data, whatever was done to its processes: read through its API, and from its log
offline. Used by the kill tests."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from models.alerts.view import alert_view
from models.partition.checkpoint import SNAPSHOT_VERSION
from models.partition.sharding import partition_name
from models.partitions import decode_frame, names
from models.shard.shard import Shard
from services.settings.load import load_settings
from services.wiring import bootstrap
from tests.cluster.instance import Cluster
from tests.cluster.senders import ALERTMANAGER, V1, Told

OPEN = frozenset({"Detected", "Triaged", "Investigating", "Remediating"})
#: A series of a sender: its door and number.
Series = tuple[str, int]


@dataclass(slots=True)
class Seen:
    """A sender's series as found: for each how often it was observed, one entry for each place it was found at."""

    observed: dict[Series, list[int]] = field(default_factory=lambda: defaultdict(list))
    open_groups: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, labels: dict[str, str], observed: int) -> None:
        if "series" in labels:
            door = V1 if labels["door"] == "v1" else ALERTMANAGER
            self.observed[door, int(labels["series"])].append(observed)


def through_the_api(cluster: Cluster, seed: int) -> Seen:
    """All incidents and their alerts, by GET /v1."""
    seen = Seen()
    for incident in cluster.incidents():
        if incident["state"] in OPEN:
            seen.open_groups[str(incident["group_key"])] += 1
        for alert in cluster.incident_alerts(str(incident["id"])):
            labels = alert["labels"]
            assert isinstance(labels, dict) and isinstance(alert["why"], list)
            if labels.get("seed") == str(seed):
                seen.add(labels, sum(int(why["count"]) for why in alert["why"]))
    return seen


def firing(cluster: Cluster, seed: int) -> Seen:
    """All firing alerts, by GET /api/v2/alerts, as amtool and Grafana see them."""
    seen = Seen()
    alerts = cluster.get(f"/api/v2/alerts?filter=seed%3D%22{seed}%22")
    assert isinstance(alerts, list)
    for alert in alerts:
        seen.add(alert["labels"], 1)
    return seen


def offline(data: Path, partitions: int, seed: int, **state: object) -> Seen:
    """From the store alone: newest snapshot, then every frame after it through models.shard.shard, digests checked. `state`:
    settings that say where it is, when it is not in the files of `data`."""
    seen = Seen()
    for index in range(partitions):
        shard = asyncio.run(replay(data, partitions, index, **state))
        for incident in shard.state.incidents.values():
            if incident.is_open:
                seen.open_groups[incident.group_key] += 1
        for number, its in enumerate(shard.state.series.incidents):
            if its is None:
                continue
            alert = alert_view(shard.state.series, number)
            if alert.labels.get("seed") == str(seed):
                seen.add(alert.labels, sum(count for _decision, count, _first, _last in alert.decisions))
    return seen


async def replay(data: Path, partitions: int, index: int, **state: object) -> Shard:
    """A shard's state as its next writer would find it. Raises Damaged."""
    given = {f"state.{name}": value for name, value in state.items()}
    settings = load_settings(None, {"state.path": str(data), "state.partitions": partitions, **given})
    partition = partition_name(index)
    log = bootstrap.open_log(settings, partition)
    try:
        shard = Shard(partition, bootstrap.shard_settings(settings))
        marks = [mark for mark in await log.marks() if mark.version == SNAPSHOT_VERSION]
        seq: int = 0
        digest: bytes | None = None
        if marks:
            async for records in log.records(marks[0].generation):
                shard.load(records)
            shard.loaded()
            seq, digest = marks[0].seq, marks[0].digest
        while page := await log.read(seq):
            for seq, stored in page:
                frame = decode_frame(partition, stored, seq, digest)
                for event in frame.events:
                    shard.apply(event, frame.now)
                digest = frame.digest
        return shard
    finally:
        await log.close()


def verify_logs(cluster: Cluster) -> None:
    """`llm-im log verify`: every frame's checksum and place in the digest chain."""
    checks = json.loads(cluster.cli("log", "verify", "--data", str(cluster.data), "--json"))
    damaged = [check for check in checks if check["damage"]]
    assert not damaged, damaged
    assert len(checks) == len(names(cluster.partitions))


def check(seen: Seen, told: Told, *, counted: bool) -> None:
    """Everything acknowledged is there, once; no delivery with an id counted twice; no group is open twice.

    `counted`: `seen` knows how often each series was observed.
    """
    wanted = {
        (door, number): times
        for door, counts in told.acknowledged.items()
        for number, times in counts.items()
    }
    missing = [series for series in wanted if series not in seen.observed]
    assert not missing, f"{len(missing)} of {len(wanted)} acknowledged series are missing: {missing[:10]}"
    doubled = [series for series, places in seen.observed.items() if len(places) != 1]
    assert not doubled, f"{len(doubled)} series stand in more than one place: {doubled[:10]}"
    twice = {group: count for group, count in seen.open_groups.items() if count > 1}
    assert not twice, f"open twice: {twice}"
    if counted:
        # A request without an id may be counted again when it was sent again: its sender can't tell either.
        wrong = [
            (series, times, seen.observed[series][0])
            for series, times in wanted.items()
            if (
                seen.observed[series][0] < times
                if series[0] == ALERTMANAGER
                else seen.observed[series][0] != times
            )
        ]
        assert not wrong, f"(series, acknowledged, counted) of {len(wrong)}: {wrong[:10]}"
