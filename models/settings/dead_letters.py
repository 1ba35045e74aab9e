"""What is kept of alerts that could not be read."""

from __future__ import annotations

from pydantic import Field

from models.settings.values import (
    Duration,
    Section,
)


class DeadLetterSettings(Section):
    """How long alerts that could not be parsed are kept."""

    max_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        description="Most bytes of dead letters to keep; beyond that, the oldest are deleted.",
    )
    max_age: Duration = Field(7 * 86400.0, description="How long a dead letter is kept.")
    max_payload_bytes: int = Field(
        64 * 1024,
        ge=64,
        description="Longer payloads are truncated to this many bytes. The store itself truncates at 65536.",
    )
