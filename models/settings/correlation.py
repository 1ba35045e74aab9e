"""Which incidents belong together, by who depends on whom; and whether symptoms wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from models.settings.processes import CORRELATOR, SHARD
from models.settings.values import LIVE, AbsolutePath, Duration, Section

_NUMBERS = {name: number for number, name in enumerate(("P0", "P1", "P2", "P3", "P4"))}


class Correlation(Section):
    """Which incidents belong together; see [correlation](correlation.md)."""

    enabled: bool = Field(
        False,
        description="Start the correlator, which follows incidents beside the shards and keeps the graph of services. It needs about 60 MB.",
    )
    topology_file: AbsolutePath = Field(
        "",
        description="A [file of services and their dependencies](correlation.md#a-file), read when the correlator starts; empty: none.",
    )
    window: Duration = Field(
        300.0,
        gt=0,
        le=86400,
        description="Incidents belong together only if they began within this of each other.",
        json_schema_extra=LIVE,
    )
    tolerance: Duration = Field(
        30.0,
        le=3600,
        description="Onsets that differ by no more than this count as the same: about how often alerts are evaluated.",
        json_schema_extra=LIVE,
    )
    max_hops: int = Field(
        2,
        ge=1,
        le=5,
        description="Incidents belong together only if one's service reaches the other's by so many dependencies.",
        json_schema_extra=LIVE,
    )
    mute_symptoms: bool = Field(
        False,
        description="Notify nobody of a symptom while its probable cause is open and was notified; "
        "see [what waits and for how long](correlation.md#symptoms-that-wait).",
        json_schema_extra=LIVE,
    )
    mute_severities: list[Literal["P0", "P1", "P2", "P3", "P4"]] = Field(
        ["P2", "P3", "P4"],
        description="Only symptoms of these severities wait.",
        json_schema_extra=LIVE,
    )
    mute_for: Duration = Field(
        3600.0,
        gt=0,
        le=86400,
        description="A symptom waits no longer than this, whatever its cause does.",
        json_schema_extra=LIVE,
    )

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        severities = tuple(sorted({_NUMBERS[each] for each in self.mute_severities}))
        mutes = self.enabled and self.mute_symptoms
        if kind == SHARD:
            return {
                "mute_symptoms": mutes,
                "symptom_severities": severities,
                "mute_symptoms_for_s": self.mute_for,
            }
        if kind == CORRELATOR:
            return {
                "window_s": self.window,
                "tolerance_s": self.tolerance,
                "hops": self.max_hops,
                "mutes": mutes,
                "mutable": severities,
                "topology_file": self.topology_file,
            }
        return {}
