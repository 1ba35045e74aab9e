"""Queries to shards and archives, in parallel and with a deadline: an answer is complete, or Unavailable that names who
did not answer. Used by everything that reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeVar

import msgspec

from models.errors import Broken, Busy, Unavailable
from models.incidents.incident import Incident
from models.incidents.query import (
    AlertPage,
    IncidentCounts,
    IncidentPage,
    IncidentView,
    MutePreview,
    PulsePage,
    Query,
    RepairPage,
    RunPage,
    decode_answer,
    encode,
)
from models.partition.sharding import partition_name, slot_of, slot_of_id
from models.ports import Archive, ArchivedIncident

#: How long one page of a shard may take. A shard answers between two batches, within milliseconds; the rest
#: is room for one that is restarting, which the gateway's hold bridges in up to 5 s.
ASK_TIMEOUT_S = 10.0

Ask = Callable[[int, bytes], Awaitable[bytes]]

_A = TypeVar("_A", IncidentPage, IncidentCounts, AlertPage, MutePreview, RunPage, RepairPage, PulsePage)
_T = TypeVar("_T")

_incident_decoder = msgspec.msgpack.Decoder(Incident)


class Asking:
    """What a gateway can ask.

    ask            sends a query (models/incidents/query.py) to a shard by index; raises Unavailable
    shards         how many shard partitions there are
    shard_of_slot  the partition that holds a slot now
    archives       all of them; an incident's is not known by its id, and a miss is cheap
    """

    def __init__(
        self,
        ask: Ask,
        shards: int,
        shard_of_slot: Callable[[int], int],
        archives: Sequence[Archive],
        *,
        tenant: str,
    ) -> None:
        self._ask = ask
        self._shard_of_slot = shard_of_slot
        self.shards = shards
        self.archives = tuple(archives)
        self.tenant = tenant

    def shard_of(self, incident_id: bytes) -> int:
        """The shard that an incident lives in."""
        return self._shard_of_slot(slot_of_id(incident_id))

    def shard_of_service(self, service: str) -> int:
        """The shard that incidents of a service live in."""
        return self._shard_of_slot(slot_of(self.tenant, service))

    async def one(self, shard: int, query: Query, kind: type[_A]) -> _A:
        """One shard's answer."""
        return (await self.each([shard], [query], kind))[0]

    async def each(self, shards: Sequence[int], queries: Sequence[Query], kind: type[_A]) -> list[_A]:
        """The answers, in the order asked. Raises Unavailable that names every shard without one; what a
        shard refuses (TooLarge, Malformed) is raised as it is."""
        calls = [
            self.bounded(shard, encode(query), ASK_TIMEOUT_S)
            for shard, query in zip(shards, queries, strict=True)
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        silent = [
            f"{partition_name(shard)} cannot answer: {outcome}"
            for shard, outcome in zip(shards, outcomes, strict=True)
            if isinstance(outcome, Unavailable | Busy)
        ]
        if silent:
            raise Unavailable("; ".join(silent))
        answers: list[_A] = []
        for shard, outcome in zip(shards, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            answer = decode_answer(outcome)
            if not isinstance(answer, kind):
                raise Broken(
                    f"{partition_name(shard)} answered with {type(answer).__name__}, not {kind.__name__}"
                )
            answers.append(answer)
        return answers

    async def bounded(self, shard: int, query: bytes, timeout_s: float) -> bytes:
        """One shard's answer as bytes. Raises Unavailable, also when it takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(shard, query)
        except TimeoutError as error:
            raise Unavailable(f"no answer within {timeout_s:g} s") from error

    async def of_archives(self, calls: Sequence[Coroutine[None, None, _T]]) -> list[_T]:
        """What the archives answer. Raises Unavailable."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
        except TimeoutError as error:
            raise Unavailable(f"the archive did not answer within {ASK_TIMEOUT_S:g} s") from error
        found: list[_T] = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Unavailable):
                raise Unavailable(f"archive {index} cannot answer: {outcome}") from outcome
            if isinstance(outcome, BaseException):
                raise outcome
            found.append(outcome)
        return found


def view_of(archived: ArchivedIncident) -> IncidentView:
    """An archived incident as a shard would show it. Its alerts are counted without reading them."""
    return IncidentView(decode_incident(archived.record), _count(archived.alerts))


def decode_incident(record: bytes) -> Incident:
    """The incident that an archive keeps."""
    return _incident_decoder.decode(record)


def _count(encoded_list: bytes) -> int:
    """How many items an encoded MessagePack list holds: its header says."""
    first = encoded_list[0]
    if 0x90 <= first <= 0x9F:
        return first & 0x0F
    if first == 0xDC:
        return int.from_bytes(encoded_list[1:3], "big")
    if first == 0xDD:
        return int.from_bytes(encoded_list[1:5], "big")
    raise Broken(f"an archived incident's alerts begin with {first:#x}, which is not a list")
