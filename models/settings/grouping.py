"""What makes one incident."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field, ValidationInfo, field_validator

from models.settings.processes import SHARD
from models.settings.values import Section

#: Label names as senders write them, those of OpenTelemetry among them. UTF-8 allows any text in a name; blanks, quotes and
#: the like are typos here, and would put a whole service into one incident.
_LABEL_NAME = re.compile(r"[^\W\d][\w.:/-]*")


class Grouping(Section):
    """Which alerts form one incident. Alerts of different services are never grouped together."""

    group_by: list[str] = Field(
        ["alertname", "cluster", "namespace"],
        max_length=16,
        description="Labels to group by, in addition to the service; at most 16. Labels an alert lacks are left out of its group. How to choose: [grouping.md](grouping.md).",
    )
    service_labels: list[str] = Field(
        ["service", "service_name", "app", "job"],
        description="Labels that can name the service. The first one an alert has is used.",
    )

    @field_validator("group_by", "service_labels")
    @classmethod
    def _label_names(cls, names: list[str], info: ValidationInfo) -> list[str]:
        for name in names:
            if name == "..." and info.field_name == "group_by":
                raise ValueError(
                    '"..." (all labels) would open an incident for every single alert: '
                    "list the labels that distinguish one outage from another"
                )
            if _LABEL_NAME.fullmatch(name) is None:
                raise ValueError(f"expected label names such as cluster or k8s.pod.name, not {name!r}")
        return names

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != SHARD:
            return {}
        return {"group_by": self.group_by, "service_labels": self.service_labels}
