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
    """A Redis where other programs can read current incidents and subscribe to changes: [the feed](redis-feed.md). It is not
    the store, but may be the same Redis."""

    url: Secret | None = Field(
        None,
        description="As `state.redis.url`. None: nothing is published. Secret.",
    )
    prefix: str = Field(
        "llm-im",
        pattern=r"^[A-Za-z0-9_.:-]{1,64}$",
        description="Prefix of the keys and the channel of the feed, before `:{feed}:`. Give each system that shares a Redis its own.",
    )
    keep_closed: Duration = Field(
        3600.0,
        ge=1,
        description="How long a closed incident stays readable in the feed; at most the 10,000 newest.",
    )
    connect_timeout: Duration = Field(2.0, gt=0, le=60, description="How long to wait for a connection.")
    timeout: Duration = Field(
        5.0, gt=0, le=60, description="How long to wait for a reply before the connection counts as dead."
    )


class Publish(Section):
    """What is published to programs that do not call the API."""

    redis: PublishRedis = PublishRedis()

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        return {"keep_closed_s": self.redis.keep_closed} if kind == PUBLISHER else {}
