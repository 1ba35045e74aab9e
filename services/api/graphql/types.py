"""GraphQL types made of what /v1 says already: its bodies become types and its requests inputs, with the same descriptions.
So a field of one is a field of the other. Used by schema.py and mutations.py.

Names are GraphQL's: `created_at` is `createdAt` here. Words such as `Triaged` and `P0` are enums of the same spelling.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from graphql import (
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLEnumValue,
    GraphQLError,
    GraphQLField,
    GraphQLFloat,
    GraphQLID,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLString,
)
from graphql.utilities import value_from_ast_untyped
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from models.errors import Broken


def _text_map(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise GraphQLError('StringMap: expected an object with text values, such as {team: "inference"}')
    return value


DATE_TIME = GraphQLScalarType(
    "DateTime",
    description="A time as RFC 3339 writes it, in UTC where it is shown: `2026-01-31T12:00:00.000Z`.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
)
STRING_MAP = GraphQLScalarType(
    "StringMap",
    description='An object whose values are text, for labels and the like: `{"team": "inference"}`.',
    coerce_input_value=_text_map,
    coerce_input_literal=lambda node: _text_map(value_from_ast_untyped(node)),
)
JSON = GraphQLScalarType("JSON", description="Any JSON.")
_SCALARS = {str: GraphQLString, bool: GraphQLBoolean, int: GraphQLInt, float: GraphQLFloat, UUID: GraphQLID}

Resolver = Callable[..., Any]
#: What a resolver gets of its request; `context` is an Asked (asked.py).
Info = GraphQLResolveInfo[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class _Hint:
    """What an annotation says, with everything around its core taken off."""

    core: Any
    optional: bool
    description: str
    is_time: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """A field of a request: `key` is what it is called in JSON."""

    key: str
    hint: Any
    required: bool

    @property
    def name(self) -> str:
        return camel(self.key)


def camel(name: str) -> str:
    """`created_at` as `createdAt`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def given_by(request: type) -> Iterator[Given]:
    """The fields of a request: a dataclass or a model of pydantic."""
    hints = get_type_hints(request, include_extras=True)
    if dataclasses.is_dataclass(request):
        for each in dataclasses.fields(request):
            required = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
            yield Given(_alias(hints[each.name]) or each.name, hints[each.name], required)
        return
    assert issubclass(request, BaseModel)
    for name, field in request.model_fields.items():
        yield Given(field.alias or name, hints[name], field.is_required())


class Types:
    """The types of one schema, each made once.

    names   what a type is called, if not as its class without "Body" or "Request"
    nodes   classes that stand for a body, which they hold as `body`, with what else is to be shown of it
    more    fields of a type that its body does not have
    """

    def __init__(
        self,
        names: Mapping[type, str],
        nodes: Mapping[type, type],
        more: Callable[[type], Mapping[str, GraphQLField]],
    ) -> None:
        self._names = names
        self._nodes = nodes
        self._more = more
        self._outputs: dict[type, GraphQLObjectType] = {}
        self._inputs: dict[type, GraphQLInputObjectType] = {}
        self._enums: dict[str, GraphQLEnumType] = {}

    def shown(self, body: type) -> GraphQLObjectType:
        """The type of a body."""
        if body not in self._outputs:
            self._outputs[body] = GraphQLObjectType(
                self._name(body), lambda: self._fields(body), description=_doc(body)
            )
        return self._outputs[body]

    def request(self, request: type) -> GraphQLInputObjectType:
        """The input type of a request. A resolver gets it as the request's JSON."""
        if request not in self._inputs:
            name = self._name(request)
            self._inputs[request] = GraphQLInputObjectType(
                name if request in self._names else f"{name}Input",
                lambda: {
                    each.name: GraphQLInputField(
                        self.taken(each), description=_read(each.hint).description, out_name=each.key
                    )
                    for each in given_by(request)
                },
                description=_doc(request),
            )
        return self._inputs[request]

    def taken(self, given: Given) -> Any:
        """The input type of one field; null is the same as leaving it out."""
        kind = self._input(_read(given.hint))
        return GraphQLNonNull(kind) if given.required else kind

    def argument(self, given: Given, key: str = "") -> GraphQLArgument:
        """A field of a request as an argument, which a resolver gets as `key`."""
        description = _read(given.hint).description
        return GraphQLArgument(self.taken(given), description=description, out_name=key or given.key)

    def _name(self, kind: type) -> str:
        return self._names.get(kind) or kind.__name__.removesuffix("Body").removesuffix("Request")

    def _fields(self, body: type) -> dict[str, GraphQLField]:
        hints = get_type_hints(body, include_extras=True)
        in_node = body in self._nodes.values()
        made = {}
        for each in dataclasses.fields(body):
            hint = _read(hints[each.name])
            kind = self._output(hint)
            made[camel(each.name)] = GraphQLField(
                kind if hint.optional else GraphQLNonNull(kind),
                resolve=_attribute(each.name, in_node, kind),
                description=hint.description,
            )
        return {**made, **self._more(body)}

    def _output(self, hint: _Hint) -> Any:
        if get_origin(hint.core) is list:
            [inner] = get_args(hint.core)
            return GraphQLList(GraphQLNonNull(self._output(_read(inner))))
        body = self._nodes.get(hint.core, hint.core)
        if isinstance(body, type) and dataclasses.is_dataclass(body):
            return self.shown(body)
        return self._leaf(hint)

    def _input(self, hint: _Hint) -> Any:
        if get_origin(hint.core) is list:
            [inner] = get_args(hint.core)
            return GraphQLList(GraphQLNonNull(self._input(_read(inner))))
        return self._leaf(hint)

    def _leaf(self, hint: _Hint) -> Any:
        if get_origin(hint.core) is dict:
            _key, value = get_args(hint.core)
            return STRING_MAP if _read(value).core is str else JSON
        if isinstance(hint.core, type) and issubclass(hint.core, Enum):
            return self._enum(hint.core)
        if hint.is_time:
            return DATE_TIME
        if (found := _SCALARS.get(hint.core)) is None:
            raise Broken(f"GraphQL has no type for {hint.core!r}")
        return found

    def _enum(self, kind: type[Enum]) -> GraphQLEnumType:
        # By its name: what is shown and what is asked for may be two enums of the same words.
        called = self._names.get(kind) or kind.__name__.removesuffix("Name")
        if called not in self._enums:
            # Where one of the words can be no name (`-created_at`), all go by the names of their members.
            are_names = all(str(each.value).isidentifier() for each in kind)
            words = {str(each.value) if are_names else each.name: each for each in kind}
            self._enums[called] = GraphQLEnumType(
                called,
                {word: GraphQLEnumValue(each, description=str(each.value)) for word, each in words.items()},
                description=_doc(kind),
            )
        return self._enums[called]


def _attribute(name: str, in_node: bool, kind: Any) -> Resolver:
    read = attrgetter(f"body.{name}" if in_node else name)
    if isinstance(kind, GraphQLList):
        return lambda source, info: listed(info, read(source))
    if kind in (GraphQLString, STRING_MAP, JSON):
        return lambda source, info: info.context.said(read(source))
    return lambda source, _info: read(source)


def listed(info: Info, items: list[Any]) -> Any:
    """A list of an answer, within what its request may still ask for (asked.py)."""
    return info.context.listed(info, items)


def as_json(value: object) -> bytes:
    """What a resolver got of an input, as the body that /v1 reads."""
    return json.dumps(value).encode()


def _read(hint: Any) -> _Hint:
    description, is_time, optional = "", False, False
    while True:
        if get_origin(hint) is Annotated:
            hint, *said = get_args(hint)
            # The outermost has the last word.
            for each in reversed([one for one in said if isinstance(one, FieldInfo)]):
                description = description or each.description or ""
                extra = each.json_schema_extra
                is_time = is_time or (isinstance(extra, dict) and extra.get("format") == "date-time")
        elif get_origin(hint) in (Union, UnionType):
            optional = True
            [hint] = [each for each in get_args(hint) if each is not NoneType]
        else:
            return _Hint(hint, optional, description, is_time)


def _alias(hint: Any) -> str | None:
    said = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((each.alias for each in said if isinstance(each, FieldInfo) and each.alias), None)


def _doc(kind: type) -> str:
    return (kind.__doc__ or "").strip()
