"""Where responders may call out to."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from models.response.guard import Allowed
from models.settings.processes import RESPONDER
from models.settings.values import LIVE, Section


class OutboundSettings(Section):
    """Calls to other systems: notifications and the actions of playbooks. URLs in these settings may lead anywhere. A URL that
    comes with an alert or out of a template may lead to public addresses, and to what is allowed here."""

    allow: list[str] = Field(
        [],
        max_length=1000,
        description='Private addresses that URLs from alerts and templates may lead to: addresses (`"10.1.2.3"`), networks (`"10.0.0.0/8"`), host names, and suffixes of host names (`".svc.cluster.local"`). A metadata service of a cloud must be allowed by its address.',
        json_schema_extra=LIVE,
    )
    ca_file: str | None = Field(
        None,
        description="File with PEM certificates that are trusted beside the system's. None: only the system's.",
    )

    @field_validator("allow")
    @classmethod
    def _is_place(cls, value: list[str]) -> list[str]:
        Allowed.of(value)
        return value

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind == RESPONDER:
            return {"outbound_allow": self.allow, "outbound_ca_file": self.ca_file or ""}
        return {}
