"""One GraphQL request while it is answered: what answers are made of, and what it may still ask for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from models.errors import TooLarge
from services.api.graphql.bounds import (
    ANSWER_CHARS_MAX,
    ANSWER_FIELDS_MAX,
    READS_MAX,
    READS_PARALLEL,
    SLICE_FIELDS,
)
from services.api.graphql.ground import Ground
from services.api.graphql.types import Info
from services.api.graphql.weight import Scale
from services.api.v1.requests import Origin, origin_of


class Asked:
    """The context of every resolver."""

    def __init__(self, ground: Ground, request: Request) -> None:
        self.ground = ground
        self._request = request
        self._fields_left = ANSWER_FIELDS_MAX
        self._chars_left = ANSWER_CHARS_MAX
        self._reads_left = READS_MAX
        self._room = asyncio.Semaphore(READS_PARALLEL)
        self._weights: dict[tuple[int, ...], int] = {}

    def origin(self, place: str) -> Origin:
        """Where a change comes from. `place` is its name in the answer: with it, one Idempotency-Key names each change of a
        request."""
        found = origin_of(self._request)
        return (
            found
            if found.delivery_id is None
            else replace(found, delivery_id=f"{found.delivery_id}\n{place}")
        )

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Ground]:
        """Around each question to shards or archives, and each change. Raises TooLarge."""
        if not self._reads_left:
            raise TooLarge(
                f"the answer needs more than {READS_MAX:,} reads: ask for fewer incidents at once (`first`), or for less of each"
            )
        self._reads_left -= 1
        async with self._room:
            yield self.ground

    def listed(self, info: Info, items: Sequence[Any]) -> Any:
        """The items of a list, one stretch after the other if they are many. Raises TooLarge."""
        for each in items:
            if not isinstance(each, str):
                break
            self.said(each)
        cost = max(1, self._weight(info)) * len(items)
        if cost > self._fields_left:
            raise TooLarge(
                f"the answer has more than {ANSWER_FIELDS_MAX:,} fields: ask for fewer items (`first`), or for fewer fields of each"
            )
        self._fields_left -= cost
        return items if cost <= SLICE_FIELDS else _in_turns(items, max(1, SLICE_FIELDS * len(items) // cost))

    def said(self, text: Any) -> Any:
        """A text, or an object of texts, within what the answer may still say. Raises TooLarge."""
        if isinstance(text, str):
            self._chars_left -= len(text)
        elif isinstance(text, dict):
            self._chars_left -= sum(map(len, text)) + sum(
                len(each) for each in text.values() if isinstance(each, str)
            )
        if self._chars_left < 0:
            raise TooLarge(
                f"the answer has more than {ANSWER_CHARS_MAX:,} characters of text: ask for fewer items (`first`), or for fewer fields of each"
            )
        return text

    def _weight(self, info: Info) -> int:
        """How many fields are asked of each item. What is in lists of its own counts there once more."""
        place = tuple(map(id, info.field_nodes))
        if place not in self._weights:
            scale = Scale(info.fragments)
            self._weights[place] = sum(
                scale.weight(each.selection_set.selections).fields
                for each in info.field_nodes
                if each.selection_set is not None
            )
        return self._weights[place]


async def _in_turns(items: Sequence[Any], at_once: int) -> AsyncIterator[Any]:
    for place, each in enumerate(items):
        if place and place % at_once == 0:
            await asyncio.sleep(0)
        yield each
