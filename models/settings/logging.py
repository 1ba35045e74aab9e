"""What every process writes to stderr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from models.settings.values import (
    LIVE,
    Section,
)


class Logging(Section):
    """What every process logs to stderr."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged.", json_schema_extra=LIVE
    )
    format: Literal["json", "console"] = Field(
        "json", description="`json`: one object per line. `console`: for people."
    )

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        return {"level": self.level, "format": self.format}
