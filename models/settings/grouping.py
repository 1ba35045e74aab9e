"""What makes one incident."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field, ValidationInfo, field_validator

from models.settings.processes import SHARD
from models.settings.values import Section

#: Label names as senders write them, those of OpenTelemetry among them. UTF-8 allows any text in a name; blanks, quotes and
#: the like are a slip of the pen here, and would make one incident of a whole service.
_LABEL_NAME = re.compile(r"[^\W\d][\w.:/-]*")


class Grouping(Section):
    """What makes one incident. The service is always part of the group."""

    group_by: list[str] = Field(
        ["alertname", "cluster", "namespace"],
        max_length=16,
        description="Labels that make a group beside the service, at most 16; those that an alert has. Which to take: [grouping.md](grouping.md).",
    )
    service_labels: list[str] = Field(
        ["service", "service_name", "app", "job"],
        description="Labels that may name the service; the first one present does.",
    )

    @field_validator("group_by", "service_labels")
    @classmethod
    def _label_names(cls, names: list[str], info: ValidationInfo) -> list[str]:
        for name in names:
            if name == "..." and info.field_name == "group_by":
                raise ValueError(
                    '"..." (by all labels) would make an incident of every single alert: '
                    "name the labels that tell one outage from another"
                )
            if _LABEL_NAME.fullmatch(name) is None:
                raise ValueError(f"expected names of labels, such as cluster or k8s.pod.name, not {name!r}")
        return names

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != SHARD:
            return {}
        return {"group_by": self.group_by, "service_labels": self.service_labels}
