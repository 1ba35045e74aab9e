"""Backups, made beside the running system."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field, field_validator

from models.durations import duration_text
from models.settings.processes import BACKUP
from models.settings.values import LATER, MaybeDuration, Section

#: A backup of a large archive takes minutes, and each one adds a file that people have to look through.
BACKUP_INTERVAL_MIN_S = 60.0


class DisasterRecovery(Section):
    """[Backups](operate.md#backups) of the running system."""

    backup_target: str | None = Field(
        None,
        description="Where backups go: a folder, or a URL such as `s3://bucket/prefix`, without user, password or query. Credentials come from the environment.",
    )
    backup_interval: MaybeDuration = Field(
        None, description="How often to make a backup; at least 1m. Needs `backup_target`. None: only `llm-im backup create` makes one."
    )  # fmt: skip
    backup_retention: MaybeDuration = Field(
        None, description="After each new backup, older ones are deleted; the newest complete one never is. None: all are kept."
    )  # fmt: skip
    backup_key_file: str | None = Field(
        None,
        description="File with the key that signs backups, 64 hexadecimal digits. None: `backup.key` in the data folder, created automatically. Keep a copy elsewhere: without it, a restore needs `--accept-unsigned`.",
    )
    cross_region_replication: bool | None = Field(None, json_schema_extra=LATER)

    @field_validator("backup_target")
    @classmethod
    def _holds_no_secret(cls, value: str | None) -> str | None:
        # It appears in logs and in `llm-im config show`.
        if value is not None and not re.fullmatch(r"[^\s?@]+://[^\s?@]*|(?!.*://)[^\x00]+", value):
            raise ValueError(
                "expected a folder or a URL such as s3://bucket/prefix, without user, password or query:"
                " credentials come from the environment"
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
