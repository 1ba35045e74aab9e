"""Mutations: one a line of the verb table (services/api/v1/verb_table.py), with its name, what it takes, and the same checks.
Used by schema.py."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLID,
    GraphQLInt,
    GraphQLNonNull,
)

from models.errors import Malformed
from services.api.graphql.asked import Asked
from services.api.graphql.incident import IncidentChangeBody, nodes
from services.api.graphql.types import Info, Resolver, Types, as_json, given_by
from services.api.v1.requests import BodyKind
from services.api.v1.verb_bodies import CreateBody
from services.api.v1.verb_doing import Done
from services.api.v1.verb_table import VERBS, VerbRoute

#: What opens an incident, which is no verb of one.
CREATE = "create"
INCIDENT_ID = GraphQLArgument(GraphQLNonNull(GraphQLID), description="The incident's id.")


def mutations(types: Types) -> dict[str, GraphQLField]:
    """All of them, by name."""
    answer = types.shown(IncidentChangeBody)
    made = {
        CREATE: GraphQLField(
            answer, {"input": _input(types, CreateBody)}, _create, description=CreateBody.__doc__
        )
    }
    for verb in VERBS:
        arguments = {
            "id": INCIDENT_ID,
            "input": _input(types, verb.body),
            "version": GraphQLArgument(
                GraphQLInt, description="The version this is meant for; with another nothing is changed."
            ),
        }
        made[verb.name] = GraphQLField(answer, arguments, _resolver(verb), description=verb.summary)
    return made


def id_of(text: str) -> UUID:
    """An incident's id. Raises Malformed."""
    try:
        return UUID(text)
    except ValueError:
        raise Malformed(
            "id: expected an incident's id, such as 01a20993-901b-7483-ab53-7cb8d1609881"
        ) from None


def _input(types: Types, body: type) -> GraphQLArgument:
    kind = types.request(body)
    needed = any(each.required for each in given_by(body))
    return GraphQLArgument(GraphQLNonNull(kind) if needed else kind, description="What it takes.")


_creating = BodyKind(CreateBody)


async def _create(_root: None, info: Info, *, input: dict[str, Any]) -> IncidentChangeBody:
    asked: Asked = info.context
    body = _creating.read(as_json(input))
    async with asked.reading() as ground:
        return await _change(asked, await ground.doing.create(_origin(info), body))


def _resolver(verb: VerbRoute) -> Resolver:
    kind = BodyKind(verb.body)

    async def resolve(
        _root: None,
        info: Info,
        *,
        id: str,
        input: dict[str, Any] | None = None,
        version: int | None = None,
    ) -> IncidentChangeBody:
        asked: Asked = info.context
        identity, body = id_of(id), kind.read(as_json(input or {}))
        versions = None if version is None else [version]
        async with asked.reading() as ground:
            done = await ground.doing.do(verb, _origin(info), identity.bytes, body, versions)
            return await _change(asked, done)

    return resolve


def _origin(info: Info) -> Any:
    asked: Asked = info.context
    return asked.origin(str(info.path.key))


async def _change(asked: Asked, done: Done) -> IncidentChangeBody:
    [node] = await nodes(asked, [done.view])
    return IncidentChangeBody(node, done.changed, done.settled)
