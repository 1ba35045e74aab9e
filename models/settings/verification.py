"""What happens after an incident was resolved: how long it is watched, and when it is reviewed."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from models.settings.processes import SHARD
from models.settings.values import LIVE, Duration, MaybeDuration, Section

#: A repair that held for an hour held; what fires then is something new.
WATCH_MAX_S = 3600.0


class Verification(Section):
    """What happens after an incident was resolved: whether the repair holds, and when it is reviewed."""

    watch: MaybeDuration = Field(
        900.0,
        le=WATCH_MAX_S,
        description="How long an incident that a playbook repaired is watched for regression after it was resolved; it does not close before. At most one hour. None: it is not watched.",
        json_schema_extra=LIVE,
    )
    every: Duration = Field(
        60.0,
        ge=1,
        description="How often the checks of the playbook are done again while an incident is watched.",
        json_schema_extra=LIVE,
    )
    people: bool = Field(
        False,
        description="`true`: what a person resolved is watched as well.",
        json_schema_extra=LIVE,
    )

    review_after: Duration = Field(
        86400.0,
        description="How long after a P0 or P1 was resolved a review is due, which the timeline plans and tells of. 0: none is planned.",
        json_schema_extra=LIVE,
    )

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != SHARD:
            return {}
        return {
            "verify_watch_s": self.watch or 0.0,
            "verify_every_s": self.every,
            "verify_people": self.people,
            "review_after_s": self.review_after,
        }
