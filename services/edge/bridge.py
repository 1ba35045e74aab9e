"""EdgeIncidentBridge over gRPC: an agent opens a stream, says what it has to say, and is told what it is to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from services.edge.desk import EdgeDesk
from services.ingest.doors.grpc.call import Call
from services.ingest.doors.grpc.service import Handler, Service


class EdgeIncidentBridge(Service):
    """The streams are the desk's."""

    name: ClassVar[str] = "llm.incident.v1.EdgeIncidentBridge"
    scope: ClassVar[str] = "llm-edge-agent"

    def __init__(self, desk: EdgeDesk) -> None:
        self._desk = desk

    def methods(self) -> Mapping[str, Handler]:
        return {"IncidentStream": self._stream}

    async def _stream(self, call: Call) -> None:
        first = await call.read()
        if first is not None:
            await self._desk.attend(call, call.sender, first)
