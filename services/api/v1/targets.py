"""GET /v1/targets: what the responders know of those that they call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from fastapi import Depends, FastAPI
from fastapi.responses import Response
from pydantic import Field

from actors.targets import decode_views
from models.errors import IncidentManagerError
from models.ports import Peers
from models.response.target import TargetView
from services.api.auth import READ, requires
from services.api.problems import NOT_NOW, REFUSED, problems
from services.api.v1.bodies import json_response
from services.api.v1.fields import Time
from services.api.v1.incidents import PREFIX
from services.times import timestamp

ANSWER_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class TargetBody:
    """A target as one responder knows it."""

    target: Annotated[str, Field(description="`receiver:NAME`, or `host:NAME:PORT` of an action's URL.")]
    responder: Annotated[str, Field(description="The responder whose calls these are.")]
    state: Annotated[
        str,
        Field(
            description="`closed`: it is called. `open`: it is not, because it fails. `half-open`: one call tries it."
        ),
    ]
    since: Annotated[Time, Field(description="Since when it is in this state.")]
    broken_since: Annotated[
        Time | None, Field(description="Since when it has not been called normally; null while it is closed.")
    ]
    retry_at: Annotated[Time | None, Field(description="When it is tried again; null unless it is open.")]
    failures: Annotated[int, Field(description="Failures in a row, up to now.")]
    last_error: Annotated[str, Field(description="The last failure, without secrets; empty without one.")]
    last_error_at: Annotated[Time | None, Field(description="When that was.")]
    in_flight: Annotated[int, Field(description="Calls under way.")]
    max_in_flight: Annotated[int, Field(description="Most calls under way at once.")]
    rate_per_s: Annotated[float | None, Field(description="Most calls a second on average; null: no bound.")]


@dataclass(frozen=True, slots=True)
class TargetsBody:
    """All targets that were called, and all receivers."""

    items: Annotated[list[TargetBody], Field(description="By target, then by responder.")]
    silent: Annotated[
        list[str], Field(description="Responders that did not answer: their targets are missing here.")
    ]


class TargetDesk:
    """Asks the responders."""

    def __init__(self, peers: Peers, responders: Sequence[str]) -> None:
        self._peers = peers
        self._responders = responders

    async def body(self) -> TargetsBody:
        """What they say now."""
        found = await asyncio.gather(*map(self._of, self._responders))
        items = [
            _body(view, name)
            for name, views in zip(self._responders, found, strict=True)
            for view in views or ()
        ]
        silent = [name for name, views in zip(self._responders, found, strict=True) if views is None]
        return TargetsBody(sorted(items, key=lambda each: (each.target, each.responder)), silent)

    async def _of(self, responder: str) -> list[TargetView] | None:
        try:
            return decode_views(await self._peers.call(responder, "targets", b"", ANSWER_TIMEOUT_S))
        except (IncidentManagerError, msgspec.MsgspecError):
            return None


def add_target_routes(app: FastAPI, desk: TargetDesk) -> None:
    """GET /v1/targets."""

    async def targets() -> Response:
        """The receivers and hosts that responders call: whether each works, and what bounds it."""
        return json_response(await desk.body())

    app.add_api_route(
        f"{PREFIX}/targets",
        targets,
        methods=["GET"],
        response_model=TargetsBody,
        responses=problems(REFUSED, NOT_NOW),
        dependencies=[Depends(requires(READ))],
        tags=["operation"],
    )


def _body(view: TargetView, responder: str) -> TargetBody:
    def at(when: float) -> str | None:
        return timestamp(when) if when else None

    return TargetBody(
        target=view.target,
        responder=responder,
        state=view.state,
        since=timestamp(view.since),
        broken_since=at(view.broken_since),
        retry_at=at(view.retry_at),
        failures=view.failures,
        last_error=view.last_error,
        last_error_at=at(view.last_error_at),
        in_flight=view.in_flight,
        max_in_flight=view.max_in_flight,
        rate_per_s=view.rate_per_s or None,
    )
