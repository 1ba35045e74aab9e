"""Port Tracer with telemetry off: contexts are passed on, nothing is recorded. What everything has unless bootstrap gives
it another."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from models.trace import Attribute, Kind


class NotRecorded:
    """A span that is not recorded. What it causes continues the trace it was given."""

    __slots__ = ("trace",)

    def __init__(self, trace: str | None) -> None:
        self.trace = trace

    def __enter__(self) -> NotRecorded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        return None

    def note(self, name: str, value: Attribute) -> None:
        """Nobody reads it."""

    def rename(self, name: str) -> None:
        """Nobody reads it."""

    def fail(self, why: str) -> None:
        """Nobody reads it."""


#: For what belongs to no trace: nine of ten requests, so it is made once.
OUTSIDE = NotRecorded(None)


class NoTracer:
    """Port Tracer with telemetry off: contexts are passed on and nothing is recorded."""

    def wants(self, trace: str | None) -> bool:
        return False

    def span(
        self,
        name: str,
        parent: str | None,
        attributes: Mapping[str, Attribute] | None = None,
        *,
        kind: Kind = "internal",
        since: float | None = None,
    ) -> NotRecorded:
        return OUTSIDE if parent is None else NotRecorded(parent)

    async def close(self) -> None:
        """Nothing is open."""
