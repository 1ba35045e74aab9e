"""/v1/routes and /v1/receivers: who is told of what and why, and a message that tries a receiver. The rules are
models/routes/choice.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import uuid4

import msgspec
from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from models.errors import Conflict, NotFound
from models.incidents.incident import IncidentType, Severity
from models.incidents.notification import Note
from models.incidents.verbs import LABELS_MAX
from models.ports import Peers
from models.routes.choice import Chosen, Router, Subject, reason_of
from models.routes.route import Route
from models.settings.all import Settings
from models.settings.notify import Notify
from models.settings.receivers import action_of
from models.shard.messages import Said, Say
from services.api.auth import ADMIN, READ, Caller, requires
from services.api.problems import AWAY, NOT_NOW, REFUSED, problems
from services.api.v1.bodies import json_response
from services.api.v1.fields import LabelName, LabelValue, NameOrNone, SeverityWord, TypeWord, says
from services.api.v1.incidents import PREFIX
from services.api.v1.requests import BodyKind, BodyReader, asks_for, describe_bodies

#: A receiver has at most a minute to answer, and a responder two to give up.
ANSWER_TIMEOUT_S = 125.0


@dataclass(frozen=True, slots=True)
class RouteBody:
    """A route, with what it has from those above it."""

    name: Annotated[str, says("Its name, or its place in the settings.")]
    depth: Annotated[int, says("How deep it stands in the tree; the root is 0.")]
    asks: Annotated[str, says("What it asks of an incident, in words.")]
    receivers: Annotated[list[str], says("Who is told.")]
    continues: Annotated[bool, says("Whether the routes after it are asked too when it takes an incident.")]
    discards: Annotated[bool, says("Whether nobody is told.")]
    wait_s: Annotated[float | None, says("Seconds before the first notification; null: by severity.")]
    interval_s: Annotated[float, says("Seconds between two notifications, at least.")]
    repeat_s: Annotated[float, says("Seconds until it is told again if nobody is on it; 0: never.")]
    send_resolved: Annotated[bool, says("Whether resolves are told.")]
    escalate_to: Annotated[list[str], says("Who is told as well when nobody acknowledged it in time.")]
    escalation: Annotated[str, says("The policy by which people on call are paged; empty: none.")]


@dataclass(frozen=True, slots=True)
class RoutesBody:
    """The tree of routes."""

    items: Annotated[
        list[RouteBody], says("The routes in the order in which they are asked; the root first.")
    ]


@dataclass(frozen=True, slots=True)
class ChosenBody:
    """A receiver that is told."""

    receiver: Annotated[str, says("The receiver.")]
    route: Annotated[str, says("The route that chose it.")]
    why: Annotated[str, says("What that route asked.")]


@dataclass(frozen=True, slots=True)
class StepBody:
    """A route that was asked."""

    route: Annotated[str, says("The route.")]
    depth: Annotated[int, says("How deep it stands in the tree.")]
    took: Annotated[bool, says("Whether it took the incident.")]
    why: Annotated[str, says("Why it took it, or why not.")]


@dataclass(frozen=True, slots=True)
class ChoiceBody:
    """Who would be told."""

    told: Annotated[list[ChosenBody], says("Who is told.")]
    escalate_to: Annotated[list[ChosenBody], says("Who is told as well when nobody acknowledges it in time.")]
    discarded_by: Annotated[str | None, says("The route that discards it; null when somebody is told.")]
    steps: Annotated[list[StepBody], says("The routes that were asked, in order.")]
    escalation: Annotated[str, says("The policy by which people on call are paged; empty: none.")]


@dataclass(frozen=True, slots=True)
class ReceiverBody:
    """A receiver."""

    name: Annotated[str, says("Its name.")]
    type: Annotated[str, says("What it is: webhook, slack, email ...")]
    send_resolved: Annotated[bool, says("Whether it is told of resolves.")]
    routes: Annotated[list[str], says("The routes that name it.")]


@dataclass(frozen=True, slots=True)
class ReceiversBody:
    """All receivers."""

    items: Annotated[list[ReceiverBody], says("By name.")]


@dataclass(frozen=True, slots=True)
class TriedBody:
    """What a receiver did with a message that says that it is a test."""

    receiver: Annotated[str, says("The receiver.")]
    ok: Annotated[bool, says("Whether it took the message.")]
    detail: Annotated[str, says("Its answer, without secrets.")]


class RouteTestRequest(BaseModel):
    """An incident as routes would see it."""

    model_config = ConfigDict(extra="forbid")

    labels: Annotated[
        dict[LabelName, LabelValue],
        Field(max_length=LABELS_MAX, description="The labels that all its firing alerts share."),
    ] = {}
    severity: Annotated[SeverityWord, Field(description="Its severity.")] = Severity.P2.name  # type: ignore[assignment]
    incident_type: Annotated[TypeWord, Field(description="Its type.")] = IncidentType.UNKNOWN
    service: Annotated[NameOrNone, Field(description="Its service; empty: the label `service`.")] = ""


class ReceiverDesk:
    """Asks a responder to say something at a receiver."""

    def __init__(self, peers: Peers, responders: Sequence[str]) -> None:
        self._peers = peers
        self._responders = responders

    async def try_out(self, receiver: str, by: str) -> Said:
        """Send a message that says that it is a test. Raises Conflict when notifications are off, Unavailable when no responder
        answers."""
        if not self._responders:
            raise Conflict(
                "notifications are off: no responder runs; set a receiver, then llm-im down and up"
            )
        text = f"This is a test of receiver {receiver}, sent by {by}. Nothing has happened."
        note = Note(text, title="Test notification", severity=Severity.P4, is_test=True)
        payload = msgspec.msgpack.encode(Say(receiver, f"test-{uuid4()}", note))
        # One that does not answer may have sent it: another would tell people twice.
        answered = await self._peers.call(self._responders[0], "say", payload, ANSWER_TIMEOUT_S)
        return msgspec.msgpack.decode(answered, type=Said)


_Name = Annotated[str, Path(description="The receiver's name, as GET /v1/receivers shows it.")]


def add_routing_routes(
    app: FastAPI, desk: ReceiverDesk, settings: Callable[[], Settings], bodies: BodyReader
) -> None:
    """The four routes."""
    kind = BodyKind(RouteTestRequest)

    async def routes() -> Response:
        """The tree of routes, in the order in which they are asked."""
        return json_response(routes_body(settings().notify))

    async def test_routes(request: Request) -> Response:
        """Who would be told of an incident, and why. Nobody is told."""
        return json_response(choice_body(settings().notify, await bodies.read(request, kind)))

    async def receivers() -> Response:
        """All receivers. Their settings, secrets masked, are in `llm-im config show`."""
        return json_response(receivers_body(settings().notify))

    async def try_receiver(receiver: _Name, caller: Annotated[Caller, Depends(requires(ADMIN))]) -> Response:
        """Send a receiver a message that says that it is a test, and wait for its answer. Sent once, never retried."""
        known = settings().notify.all_receivers
        if receiver not in known:
            names = ", ".join(sorted(known)) or "none"
            raise NotFound(f"there is no receiver {receiver[:80]!r}; there are {names}")
        said = await desk.try_out(receiver, caller.name)
        return json_response(TriedBody(receiver, said.ok, said.detail))

    bad = {"400": "A field is wrong, named in `errors`.", "413": "The body is over 256 KiB."}
    missing = {"404": "There is no receiver of that name; the problem names those that there are."}
    off = {"409": "Notifications are off; the problem says what to do."}
    may_read = [Depends(requires(READ))]
    app.add_api_route(
        f"{PREFIX}/routes",
        routes,
        methods=["GET"],
        response_model=RoutesBody,
        responses=problems(REFUSED, NOT_NOW),
        dependencies=may_read,
        tags=["notifications"],
    )
    app.add_api_route(
        f"{PREFIX}/routes/test",
        test_routes,
        methods=["POST"],
        response_model=ChoiceBody,
        responses=problems(REFUSED, bad, NOT_NOW),
        dependencies=may_read,
        openapi_extra=asks_for(
            RouteTestRequest, {"labels": {"team": "db"}, "severity": "P1", "service": "vector-db"}
        ),
        tags=["notifications"],
    )
    app.add_api_route(
        f"{PREFIX}/receivers",
        receivers,
        methods=["GET"],
        response_model=ReceiversBody,
        responses=problems(REFUSED, NOT_NOW),
        dependencies=may_read,
        tags=["notifications"],
    )
    app.add_api_route(
        f"{PREFIX}/receivers/{{receiver}}/test",
        try_receiver,
        methods=["POST"],
        response_model=TriedBody,
        responses=problems(REFUSED, missing, off, AWAY),
        tags=["notifications"],
    )
    describe_bodies(app, RouteTestRequest)


def routes_body(notify: Notify) -> RoutesBody:
    return RoutesBody([_route_body(route, depth, notify.interval) for depth, route in notify.tree.walk()])


def choice_body(notify: Notify, wanted: RouteTestRequest) -> ChoiceBody:
    service = wanted.service or wanted.labels.get("service", "")
    labels = {**({"service": service} if service else {}), **wanted.labels}
    subject = Subject(labels, Severity[wanted.severity], IncidentType(wanted.incident_type), service)
    choice, steps = Router(notify.tree).explain(subject)
    return ChoiceBody(
        [_chosen_body(each) for each in choice.told],
        [_chosen_body(each) for each in choice.escalations],
        None if choice.discarded is None else choice.discarded.name,
        [StepBody(step.route.name, step.depth, step.took, step.why) for step in steps],
        "" if choice.escalation is None else choice.escalation[0],
    )


def receivers_body(notify: Notify) -> ReceiversBody:
    # One that discards has receivers from the route above it, and tells none of them.
    naming = [route for _depth, route in notify.tree.walk() if not route.discards]
    return ReceiversBody(
        [
            ReceiverBody(
                name,
                action_of(each),
                each.send_resolved,
                [route.name for route in naming if name in (*route.receivers, *route.escalate_to)],
            )
            for name, each in sorted(notify.all_receivers.items())
        ]
    )


def _route_body(route: Route, depth: int, interval_s: float) -> RouteBody:
    return RouteBody(
        route.name,
        depth,
        reason_of(route).partition(": ")[2],
        [*route.receivers] if not route.discards else [],
        route.continues,
        route.discards,
        route.wait_s,
        interval_s if route.interval_s is None else route.interval_s,
        route.repeat_s,
        route.sends_resolved,
        [*route.escalate_to],
        route.escalation,
    )


def _chosen_body(chosen: Chosen) -> ChosenBody:
    return ChosenBody(chosen.receiver, chosen.route.name, chosen.why)
