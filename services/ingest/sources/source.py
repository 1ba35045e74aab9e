"""What a source is: alerts that we fetch, from a queue, a server that is polled, or a connection that we open. Used by table.py and
services/wiring/collector.py.

A new one is a file beside this and a row in table.py. It passes what it got to Intake.take(), and tells the other side so
(an offset committed, a message acknowledged, a cursor moved on) only when that returned: what the receipt says is stored is durable
by then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from actors.control_tail import ControlTail
from models.alerts.matchers import MatcherTuple
from models.control.control import ControlMessage
from models.incidents.query import AlertView
from models.metrics import Meter
from models.ports import Clock, Peers, Tracer
from services.ingest.formats.format import Format
from services.ingest.intake import Intake
from services.ingest.submit import Submitter

if TYPE_CHECKING:
    from models.settings.all import Settings

#: By the name of a format, and matchers.
Firing = Callable[[str, Sequence[MatcherTuple]], Awaitable[list[AlertView]]]


@dataclass(frozen=True, slots=True)
class SourceNeeds:
    """What a collector gives its sources.

    name          the collector's: a lease is taken under it
    settings      what it was started with: what changes while it runs is in Shared.settings of the formats
    formats       by name
    control       the control partition as far as it was read: cursors are in it
    submitter     the lines to the shards, and which slot is whose, for who speaks with them beside the intake
    given         what the settings give to collectors (`for_process`), with the secrets: `settings` has them masked
    tell_control  have its writer decide; raises Malformed, NotFound, Conflict, Unavailable
    firing        the alerts of a format that fire and match, of all shards; raises TooLarge, Busy, Unavailable
    given         what the settings give collectors by for_process(), with secrets, which are masked in `settings`
    """

    name: str
    settings: Settings
    intake: Intake
    formats: Mapping[str, Format]
    control: ControlTail
    tell_control: Callable[[ControlMessage], Awaitable[None]]
    peers: Peers
    clock: Clock
    meter: Meter
    tracer: Tracer
    firing: Firing
    submitter: Submitter
    given: Mapping[str, Any] = field(default_factory=dict)


class Source(ABC):
    """One per collector. A server that is away is no failure: it is tried again, and `why_away` says why meanwhile."""

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, needs: SourceNeeds) -> None: ...

    @abstractmethod
    async def start(self) -> None:
        """Begin to fetch, in the background. Returns at once."""

    @abstractmethod
    async def stop(self) -> None:
        """Fetch nothing more, and finish what was begun. Safe to call twice."""

    @property
    @abstractmethod
    def why_away(self) -> str:
        """Why nothing can be fetched now, "" when it can. Tells no secret."""

    def measure(self) -> None:  # noqa: B027 - most count as they go
        """Set its gauges."""
