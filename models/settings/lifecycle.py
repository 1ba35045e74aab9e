"""When alerts end, and what becomes of an incident then."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from models.settings.processes import SHARD
from models.settings.values import (
    LIVE,
    Duration,
    MaybeDuration,
    Section,
)


class Lifecycle(Section):
    """When alerts end, and what becomes of an incident then."""

    resolve_timeout: Duration = Field(
        300.0,
        description="Ends an alert of `/api/v2/alerts` without an end that nobody sends again.",
        json_schema_extra=LIVE,
    )
    expires_after: MaybeDuration = Field(
        None,
        description="Ends an alert of `/v1` without an end; none: it fires until told.",
        json_schema_extra=LIVE,
    )
    expiry_grace: Duration = Field(
        300.0, description="Nothing expires for this long after we could not hear.", json_schema_extra=LIVE
    )
    reopen_window: Duration = Field(
        1800.0,
        description="A group that fires again so soon after its incident resolved reopens it.",
        json_schema_extra=LIVE,
    )
    close_after: Duration = Field(
        3600.0,
        description="A resolved incident closes after the longer of this and `reopen_window`.",
        json_schema_extra=LIVE,
    )
    retention: Duration = Field(
        90 * 86400.0,
        description="How long the archive keeps a closed incident; up to an hour later it is forgotten.",
        json_schema_extra=LIVE,
    )
    max_concurrent_incidents: int = Field(
        200_000,
        ge=1,
        description="Open incidents, an equal share for each shard; past it new groups join an overflow incident.",
        json_schema_extra=LIVE,
    )
    max_alert_bytes: int = Field(
        256 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Bytes of one alert, labels and annotations together; a larger one is refused with 400.",
    )
    max_shard_bytes: int = Field(
        2 * 1024**3,
        ge=1024 * 1024,
        description="Bytes of alerts and incidents that a shard keeps in memory, at about 900 a common series; past it "
        "new series are refused with 503. A million fit twice.",
        json_schema_extra=LIVE,
    )
    max_sender_share: float = Field(
        0.75,
        gt=0,
        le=1,
        description="How much of `max_shard_bytes` the alerts of one token may hold; past it its new series are refused "
        "with 429. Without tokens all senders are one.",
        json_schema_extra=LIVE,
    )

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != SHARD:
            return {}
        return {
            "reopen_window_s": self.reopen_window,
            "close_after_s": self.close_after,
            "expiry_grace_s": self.expiry_grace,
            "retention_s": self.retention,
            "max_open": max(1, self.max_concurrent_incidents // partitions),
            "max_bytes": self.max_shard_bytes,
            "sender_bytes": int(self.max_shard_bytes * self.max_sender_share),
            "given_ends_s": [each for each in (self.resolve_timeout, self.expires_after) if each],
        }
