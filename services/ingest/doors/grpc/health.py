"""grpc.health.v1: whether this gateway serves. For load balancers and probes: no token is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from models.errors import Malformed, NotFound
from services.ingest.doors.grpc.call import Call
from services.ingest.doors.grpc.service import Handler, Service


class Health(Service):
    """It serves from the start of its door to the stop."""

    name = "grpc.health.v1.Health"

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = services
        self._is_serving = False
        self._changed = asyncio.Event()

    def methods(self) -> Mapping[str, Handler]:
        return {"Check": self._check, "Watch": self._watch}

    def begin(self) -> None:
        self._is_serving = True

    def stop(self) -> None:
        self._is_serving = False
        self._changed.set()

    async def _check(self, call: Call) -> None:
        name = _asked(await call.only())
        if name and name not in self._services:
            raise NotFound(f"there is no service {name[:100]!r}")
        await call.write(self._said(name))

    async def _watch(self, call: Call) -> None:
        name = _asked(await call.only())
        await call.write(self._said(name))
        await self._changed.wait()
        await call.write(self._said(name))

    def _said(self, name: str) -> bytes:
        if name and name not in self._services:
            status = HealthCheckResponse.SERVICE_UNKNOWN
        elif self._is_serving:
            status = HealthCheckResponse.SERVING
        else:
            status = HealthCheckResponse.NOT_SERVING
        found: bytes = HealthCheckResponse(status=status).SerializeToString()
        return found


def _asked(message: bytes) -> str:
    try:
        return str(HealthCheckRequest.FromString(message).service)
    except DecodeError:
        raise Malformed("expected a HealthCheckRequest") from None
