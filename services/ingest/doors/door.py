"""What a door is: one way in for alerts, whatever their format. Used by table.py and services/wiring/gateway.py.

A new one is a file beside this and a line in table.py. It passes requests to Intake.take(), and answers when that
returns: what the receipt says is stored is durable by then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from models.metrics import Meter
from models.ports import Clock, Tracer
from services.ingest.arrival import Sender
from services.ingest.formats.format import Format
from services.ingest.intake import Intake


class Credentials(NamedTuple):
    """What headers say of who sends, to be kept: a digest of Authorization or of a client certificate, and whether Host is a name of ours."""

    digest: bytes
    is_own_host: bool


class Doorman(Protocol):
    """Who lets senders in (services/api/guard.py)."""

    async def admit_to_door(self, headers: Mapping[bytes, bytes], door: str) -> Sender:
        """The sender, from the HTTP headers, for the format `door`. Raises Unauthorized or Forbidden."""

    def admit_page(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises Forbidden for a WebSocket of a page of another site."""

    def credentials(self, headers: Mapping[bytes, bytes]) -> Credentials:
        """What admitted() is asked with."""

    def vouched(self, certificate: bytes) -> Mapping[bytes, bytes]:
        """The headers by which it knows the client certificate (DER) of a connection whose TLS a door has ended itself."""

    def admitted(self, credentials: Credentials, door: str) -> Sender | None:
        """As admit_to_door(), of who was admitted a moment ago. None: it has to be asked."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a gateway gives its doors. `formats` by name."""

    intake: Intake
    formats: Mapping[str, Format]
    doorman: Doorman
    clock: Clock
    meter: Meter
    tracer: Tracer


class Door(ABC):
    """One per gateway. start() once the gateway knows where alerts go; stop() before anything that it needs."""

    name: ClassVar[str]
    #: The section of the settings that it is made from.
    section: ClassVar[str]

    @abstractmethod
    def __init__(self, needs: Needs, section: Any) -> None: ...

    @classmethod
    def is_wanted(cls, section: Any) -> bool:
        """Whether the settings ask for it."""
        return True

    @abstractmethod
    async def start(self) -> None:
        """Begin to accept alerts. Raises Unavailable."""

    @abstractmethod
    async def stop(self) -> None:
        """Accept nothing more, and finish what was started. Safe to call twice."""
