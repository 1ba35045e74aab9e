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
    """When alerts end, and when incidents resolve, reopen and close."""

    resolve_timeout: Duration = Field(
        300.0,
        description="An alert sent to `/api/v2/alerts` without an end time resolves when it has not been sent again for this long.",
        json_schema_extra=LIVE,
    )
    expires_after: MaybeDuration = Field(
        None,
        description="The same for alerts sent to `/v1`. None: they fire until a resolve arrives.",
        json_schema_extra=LIVE,
    )
    expiry_grace: Duration = Field(
        300.0,
        description="No alert expires for this long after the service could not receive alerts.",
        json_schema_extra=LIVE,
    )
    reopen_window: Duration = Field(
        1800.0,
        description="A group that fires again within this time after its incident resolved reopens that incident.",
        json_schema_extra=LIVE,
    )
    close_after: Duration = Field(
        3600.0,
        description="A resolved incident closes after this time or `reopen_window`, whichever is longer.",
        json_schema_extra=LIVE,
    )
    retention: Duration = Field(
        90 * 86400.0,
        description="How long a closed incident stays in the archive. It is deleted within an hour after that.",
        json_schema_extra=LIVE,
    )
    max_concurrent_incidents: int = Field(
        200_000,
        ge=1,
        description="Most open incidents, divided equally among the shards. Beyond that, new groups are added to an overflow incident.",
        json_schema_extra=LIVE,
    )
    max_alert_bytes: int = Field(
        256 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Largest alert in bytes, labels and annotations together. Larger ones are refused with 400.",
    )
    max_shard_bytes: int = Field(
        2 * 1024**3,
        ge=1024 * 1024,
        description="Most memory, in bytes, for the alerts and incidents of one shard. A typical series takes about 900 bytes, so the default holds two million. Beyond that, new series are refused with 503.",
        json_schema_extra=LIVE,
    )
    max_sender_share: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Largest share of `max_shard_bytes` that alerts sent with one token may use. Beyond that, its new series are refused with 429. Without tokens, all senders share one quota.",
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
