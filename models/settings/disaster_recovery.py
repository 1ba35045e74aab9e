"""Backups, made beside the running system."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field, field_validator

from models.settings.processes import BACKUP
from models.settings.values import (
    LATER,
    MaybeDuration,
    Section,
    duration_text,
)

#: A backup of a large archive takes minutes, and each one is a file for people to look through.
BACKUP_INTERVAL_MIN_S = 60.0


class DisasterRecovery(Section):
    """[Backups](operate.md#backups), made beside the running system."""

    backup_target: str | None = Field(
        None,
        description="Where backups go: a folder, or a URL such as `s3://bucket/prefix`. No user, password or query in it: who "
        "may come in there says the environment.",
    )
    backup_interval: MaybeDuration = Field(
        None, description="One is made this often, 1m or more; needs `backup_target`. None: only by `llm-im backup create`."
    )  # fmt: skip
    backup_retention: MaybeDuration = Field(
        None, description="Older ones are removed behind each new one, never the newest whole one. None: all are kept."
    )  # fmt: skip
    backup_key_file: str | None = Field(
        None,
        description="File with the key that backups are signed with, 64 hexadecimal digits. None: `backup.key` in the data "
        "folder, which is made by itself. Keep a copy elsewhere: where it is not at hand, a restore wants `--accept-unsigned`.",
    )
    cross_region_replication: bool | None = Field(None, json_schema_extra=LATER)

    @field_validator("backup_target")
    @classmethod
    def _holds_no_secret(cls, value: str | None) -> str | None:
        # It is told in logs and kept in the settings that are shown.
        if value is not None and not re.fullmatch(r"[^\s?@]+://[^\s?@]*|(?!.*://)[^\x00]+", value):
            raise ValueError(
                "expected a folder or a URL such as s3://bucket/prefix, without user, password or query:"
                " who may come in there says the environment"
            )
        return value

    @field_validator("backup_interval")
    @classmethod
    def _leaves_time(cls, value: float | None) -> float | None:
        if value is not None and value < BACKUP_INTERVAL_MIN_S:
            raise ValueError(f'expected "1m" or more, or "none", not "{duration_text(value)}"')
        return value

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != BACKUP:
            return {}
        return {"interval_s": self.backup_interval, "retention_s": self.backup_retention}
