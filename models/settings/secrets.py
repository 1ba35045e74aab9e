"""Secrets in settings, found by their type: what shows, sends or stores settings asks for no list of names."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, cast, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, SecretStr, ValidationInfo
from pydantic_core import CoreSchema, core_schema

#: What a person is shown of one.
MASK = "********"
#: What stands for a secret in JSON: still a URL, and the same for the same secret.
MASKED = "https://secret.invalid/"


#: In a validation's context: what reads a secret that is written as the place where it is (services/settings/places.py).
READER = "secret_reader"
#: What a place is: the name of an environment variable, or the path of a file.
PLACES = ("env", "file")


def _read_from_its_place(value: object, info: ValidationInfo) -> object:
    read = (info.context or {}).get(READER)
    return read(value) if read is not None and isinstance(value, Mapping) else value


class Secret(SecretStr):
    """A value that only its user may see: the one type for passwords, tokens, and URLs that hold one. Whatever shows, sends
    or stores settings finds it by this type, in lists, tables and sections alike, and masks it without being told."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        shown = core_schema.plain_serializer_function_ser_schema(
            lambda secret: secret.masked, when_used="json", return_schema=core_schema.str_schema()
        )
        # {**...}: what shows it is ours, and so is what it may be read from.
        plain = {**super().__get_pydantic_core_schema__(source, handler), "serialization": shown}
        read = core_schema.with_info_before_validator_function(
            _read_from_its_place, cast(CoreSchema, plain), serialization=shown
        )
        return read

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """For editors: the text, or the place where it is."""
        text = {"type": "string", "format": "password", "writeOnly": True}
        place = {name: {"type": "string", "minLength": 1} for name in PLACES}
        return {
            "anyOf": [
                text,
                *(
                    {
                        "type": "object",
                        "properties": {name: kind},
                        "required": [name],
                        "additionalProperties": False,
                    }
                    for name, kind in place.items()
                ),
            ]
        }

    @property
    def masked(self) -> str:
        """What may be seen of it: whether two are the same. What is masked already stays as it is."""
        text = self.get_secret_value()
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return text if text.startswith(MASKED) else MASKED + digest


def revealed(value: object) -> object:
    """The same with every Secret as plain text: for who starts the process that needs it, and for nobody else."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {name: revealed(each) for name, each in value.items()}
    return [revealed(each) for each in value] if isinstance(value, list | tuple) else value


def masked_values(value: object) -> object:
    """The same with every Secret as what may be seen of it."""
    if isinstance(value, Secret):
        return value.masked
    if isinstance(value, Mapping):
        return {name: masked_values(each) for name, each in value.items()}
    return [masked_values(each) for each in value] if isinstance(value, list | tuple) else value


def masks_of(value: object) -> frozenset[str]:
    """What may be seen of every Secret in a value."""
    if isinstance(value, Secret):
        return frozenset((value.masked,))
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        value = list(value.values())
    return frozenset().union(*map(masks_of, value)) if isinstance(value, list | tuple) else frozenset()


def holds_secret(value: object) -> bool:
    """Whether there is a Secret anywhere in a value."""
    if isinstance(value, BaseModel):
        return any(holds_secret(getattr(value, name)) for name in type(value).model_fields)
    if isinstance(value, Mapping):
        return any(map(holds_secret, value.values()))
    return any(map(holds_secret, value)) if isinstance(value, list | tuple) else isinstance(value, SecretStr)


def may_hold_secret(annotation: object, seen: frozenset[object] = frozenset()) -> bool:
    """Whether a value of this type may have a Secret anywhere in it. `seen`: the sections around it; one may stand in itself."""
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            fields = () if annotation in seen else annotation.model_fields.values()
            return any(may_hold_secret(field.annotation, seen | {annotation}) for field in fields)
        if issubclass(annotation, SecretStr):
            return True
    return any(may_hold_secret(each, seen) for each in get_args(annotation))
