"""What counts as the same delivery."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from models.settings.processes import SHARD
from models.settings.values import (
    Duration,
    Section,
)


class Dedup(Section):
    """Which deliveries count as repeats."""

    dedup_window: Duration = Field(
        600.0,
        description="How long a delivery id is remembered; a request that repeats it within this time is not counted again.",
    )

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        return {"dedup_window_s": self.dedup_window} if kind == SHARD else {}
