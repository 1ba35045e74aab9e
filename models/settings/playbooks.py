"""Playbooks: whether they run, and how much of them. What their actions act upon: playbook_targets.py."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from models.settings.playbook_targets import PlaybookTargets
from models.settings.processes import RESPONDER, SHARD
from models.settings.values import LIVE, AbsolutePath, Duration


class Playbooks(PlaybookTargets):
    """Playbooks, which try a repair by themselves: whether they run, and how much of them."""

    enabled: bool = Field(
        False,
        description="`true`: playbooks that match an incident run. `false`: they can be applied and looked at, and nothing runs.",
    )
    folder: AbsolutePath | None = Field(
        None,
        description="Folder whose `*.yaml` files are applied as playbooks at each start. None: playbooks are applied by `llm-im playbooks apply`.",
    )
    again_after: Duration = Field(
        1800.0,
        description="Shortest time between two runs of one playbook for one incident, for one that reopens again and again.",
        json_schema_extra=LIVE,
    )
    per_service: int = Field(
        20,
        ge=1,
        le=10_000,
        description="Most runs that begin within an hour for the incidents of one service.",
        json_schema_extra=LIVE,
    )
    longest: Duration = Field(
        21600.0,
        ge=1,
        description="Longest time of a run, its waits and approvals included; then it ends as failed.",
        json_schema_extra=LIVE,
    )
    at_once: int = Field(
        10_000,
        ge=1,
        le=100_000,
        description="Most runs under way in one shard; more wait for their turn.",
        json_schema_extra=LIVE,
    )

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind == SHARD:
            return {
                "playbooks": self.enabled,
                "playbooks_again_after_s": self.again_after,
                "playbooks_per_service": self.per_service,
                "playbooks_longest_s": self.longest,
                "playbooks_at_once": self.at_once,
            }
        if kind == RESPONDER:
            return {"playbooks": self.enabled, **self.given_to_responder()}
        return {}
