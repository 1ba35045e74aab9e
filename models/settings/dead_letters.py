"""What is kept of alerts that could not be read."""

from __future__ import annotations

from pydantic import Field

from models.settings.values import (
    Duration,
    Section,
)


class DeadLetterSettings(Section):
    """What is kept of what could not be read."""

    max_bytes: int = Field(
        256 * 1024 * 1024, ge=1024, description="Bytes of dead letters kept; past it the oldest go."
    )
    max_age: Duration = Field(7 * 86400.0, description="How long a dead letter is kept.")
    max_payload_bytes: int = Field(
        64 * 1024, ge=64, description="Bytes; a longer payload is kept cut. The store itself cuts at 65536."
    )
