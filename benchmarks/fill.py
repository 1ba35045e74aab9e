"""Alerts straight into a shard's model or log, with no HTTP: what recovery, memory and ten_days are filled by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from models.alerts.alert import Content, key_digest, series_id
from models.partition.frames import NO_DIGEST, encode_frame
from models.shard.messages import AlertsArrived
from models.shard.settings import ShardSettings
from models.shard.shard import Shard

FAR = 4_000_000_000.0
_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Filled:
    """One alert, ready to be told: key and body."""

    key: bytes
    body: bytes


def alerts(
    count: int,
    groups: int,
    *,
    services: int = 50,
    run: str = "r",
    name: str = "Alert",
    starts_at: float = 1000.0,
) -> list[Filled]:
    """`count` series in `groups` groups (named by `name`), about 500 bytes each as JSON, like a Prometheus alert."""
    made = []
    for number in range(count):
        group = number % groups
        labels = {
            "alertname": f"{name}{group}",
            "service": f"service-{group % services}",
            "instance": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:9090",
            "job": "inference",
            "namespace": "production",
            "pod": f"inference-{run}-{number}",
            "severity": ("critical", "warning", "info")[group % 3],
        }
        annotations = {
            "summary": f"Alert{group} on pod inference-{run}-{number}",
            "description": "The error ratio of the last five minutes has been over its threshold for ten minutes.",
            "runbook_url": f"https://runbooks.example.org/inference/Alert{group}",
        }
        body = _encoder.encode(
            Content(labels, annotations, starts_at, "http://prometheus:9090/graph?g0.expr=x")
        )
        made.append(Filled(series_id("default", labels) + key_digest(body), body))
    return made


class Filler:
    """Tells a Shard and makes the frames its actor would append."""

    def __init__(self, partition: str, settings: ShardSettings) -> None:
        self.shard = Shard(partition, settings)
        self.shard.epoch = 1
        #: Of the last frame, and how many events all have.
        self.digest, self.events = NO_DIGEST, 0
        self._calls = 0

    def tell(self, batch: Sequence[Filled], now: float, ends: float = FAR) -> bytes:
        """One request of these alerts; returns its frame."""
        self._calls += 1
        message = AlertsArrived(
            self._calls.to_bytes(16, "big"),
            "default",
            "alertmanager",
            [alert.key for alert in batch],
            [ends] * len(batch),
            [alert.body for alert in batch],
        )
        self.shard.seq += 1
        step = self.shard.handle(message, now)
        self.events += len(step.events)
        frame, self.digest = encode_frame(
            self.shard.seq, self.shard.now, "default", None, step.events, self.digest
        )
        return frame
