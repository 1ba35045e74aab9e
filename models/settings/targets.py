"""Response targets by severity."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from models.settings.processes import SHARD
from models.settings.values import (
    LIVE,
    MaybeDuration,
    Section,
)


class AcknowledgeTargets(Section):
    """How soon after it opens an incident should be acknowledged. "none": no target."""

    P0: MaybeDuration = Field(300.0, description="For a P0.", json_schema_extra=LIVE)
    P1: MaybeDuration = Field(900.0, description="For a P1.", json_schema_extra=LIVE)
    P2: MaybeDuration = Field(4 * 3600.0, description="For a P2.", json_schema_extra=LIVE)
    P3: MaybeDuration = Field(86400.0, description="For a P3.", json_schema_extra=LIVE)
    P4: MaybeDuration = Field(None, description="For a P4.", json_schema_extra=LIVE)


class ResolveTargets(Section):
    """How soon after it opens an incident should be resolved. "none": no target."""

    P0: MaybeDuration = Field(3600.0, description="For a P0.", json_schema_extra=LIVE)
    P1: MaybeDuration = Field(3600.0, description="For a P1.", json_schema_extra=LIVE)
    P2: MaybeDuration = Field(86400.0, description="For a P2.", json_schema_extra=LIVE)
    P3: MaybeDuration = Field(7 * 86400.0, description="For a P3.", json_schema_extra=LIVE)
    P4: MaybeDuration = Field(None, description="For a P4.", json_schema_extra=LIVE)


class Targets(Section):
    """Response-time targets by severity."""

    acknowledge: AcknowledgeTargets = AcknowledgeTargets()
    resolve: ResolveTargets = ResolveTargets()

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != SHARD:
            return {}
        # To a shard no target is 0.
        return {
            f"{name}_within_s": tuple(
                each or 0.0 for each in (found.P0, found.P1, found.P2, found.P3, found.P4)
            )
            for name, found in (("acknowledge", self.acknowledge), ("resolve", self.resolve))
        }
