"""Asks and tells the correlator: which services there are, who depends on whom, and which incidents belong together. Used by
services/api/v1/topology.py and services/api/v1/situations.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from models.errors import Broken, Conflict
from models.ports import Peers
from models.topology.messages import Answer, Query, TopologyMessage, decode_answer, encode

#: A page of the whole graph takes some tens of milliseconds.
ASK_TIMEOUT_S = 5.0
#: A graph of 100,000 dependencies is taken within a second.
CHANGE_TIMEOUT_S = 15.0
OFF = "correlation is off: set correlation.enabled = true, and start again with llm-im down and llm-im up"

A = TypeVar("A", bound=Answer)


class TopologyDesk:
    """Of one system. Raises Conflict where there is no correlator, Unavailable while it is away, and what it refuses."""

    def __init__(self, peers: Peers, correlators: Sequence[str]) -> None:
        self._peers = peers
        self._correlators = correlators

    async def ask(self, query: Query, kind: type[A]) -> A:
        """The answer, which is a `kind`."""
        found = decode_answer(await self._peers.call(self._one(), "ask", encode(query), ASK_TIMEOUT_S))
        if not isinstance(found, kind):
            raise Broken(f"the correlator answered {type(found).__name__} to {type(query).__name__}")
        return found

    async def tell(self, message: TopologyMessage) -> None:
        """Returns when it is durable."""
        await self._peers.call(self._one(), "change", encode(message), CHANGE_TIMEOUT_S)

    def _one(self) -> str:
        if not self._correlators:
            raise Conflict(OFF)
        return self._correlators[0]
