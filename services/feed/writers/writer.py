"""What writes to a broker. Used by services/feed/outlet.py; table.py lists the kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from models.settings.messaging import Messaging
from services.feed.announcements import Announcement

#: Until a broker confirms. One that takes longer is connected to anew, and what it had not confirmed is sent again.
CONFIRM_S = 10.0


class Writer(ABC):
    """One connection at a time: open, send, close, and open again after an error."""

    def __init__(self, messaging: Messaging, password: str | None, name: str) -> None:
        self.messaging = messaging
        self.password = password
        self.name = name

    @property
    def topics(self) -> Sequence[str]:
        """All that will be written to."""
        return [each for each in (self.messaging.process, self.messaging.orchestrate) if each]

    @abstractmethod
    async def open(self) -> None:
        """Connect, and see that every topic is there. Raises Unavailable, and Malformed for what a person has to mend."""

    @abstractmethod
    async def send(self, message: Announcement) -> None:
        """Returns when the broker has confirmed it. Several may be sent at once, in any order. Raises Unavailable, also when
        it is not known whether the broker has it; TooLarge when it never takes one of that size."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the connection, and of what was not confirmed. Safe to call twice."""


def headers_of(message: Announcement) -> dict[str, str]:
    """Beside the body, for who need not read it."""
    return {"event-id": message.id, "event-kind": message.kind, "content-type": "application/json"}
