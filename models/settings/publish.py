"""What is published to programs that do not ask our API."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from models.settings.processes import PUBLISHER
from models.settings.secrets import Secret
from models.settings.values import (
    Duration,
    Section,
)


class PublishRedis(Section):
    """A Redis in which programs outside find the incidents of now and hear of changes: [the feed](redis-feed.md). It is no
    store, and may be the Redis that holds the state or another."""

    url: Secret | None = Field(
        None,
        description="As `state.redis.url`; none: nothing is published, and nothing runs for it. A secret.",
    )
    prefix: str = Field(
        "llm-im",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="What the feed's keys and channel begin with, before `:{feed}:`; another for each system that shares a Redis.",
    )
    keep_closed: Duration = Field(
        3600.0,
        ge=1,
        description="How long a closed incident can still be read there; of more than 10,000 the newest.",
    )
    connect_timeout: Duration = Field(2.0, gt=0, le=60, description="Longest wait for a connection.")
    timeout: Duration = Field(
        5.0, gt=0, le=60, description="Longest wait for an answer; then the connection counts as dead."
    )


class Publish(Section):
    """What is told to programs that do not ask our API."""

    redis: PublishRedis = PublishRedis()

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        return {"keep_closed_s": self.redis.keep_closed} if kind == PUBLISHER else {}
