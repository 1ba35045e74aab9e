"""What a log holds: the base of every event, and the decoder of some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

import msgspec

from models.wire import Wire


class Event(Wire, frozen=True):
    """Something that has happened, in the past tense. A type is only added or superseded, a field only added at the end,
    with a default; a type that is renamed keeps its old tag."""


def one_of(kinds: Iterable[type[msgspec.Struct]]) -> type[msgspec.Struct]:
    """The union of these types, for a decoder."""
    return Union[tuple(kinds)]  # type: ignore[return-value]  # noqa: UP007
