"""A receiver of a type that another package adds (entry point llm_incident_manager.actions)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.settings.channels.base import ReceiverBase
from models.settings.secrets import Secret


class OtherReceiver(ReceiverBase):
    """A receiver of a type that an installed package adds."""

    type: Literal["other"] = "other"
    kind: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$",
        description="The name that the package registers its type under.",
    )
    settings: dict[str, object] = Field({}, description="What that type takes.")
    secrets: dict[str, Secret] = Field({}, description="What it takes that nobody may see. Secret.")

    def wrong_address(self, address: str) -> str:
        # The package knows.
        return ""
