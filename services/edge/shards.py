"""How a process speaks with the shards about edge agents: a gateway for the streams that it has, a responder for an action that it wants
done. An agent's shard is found as a service's is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import msgspec

from models.edge.agent import EdgeAction
from models.edge.questions import EdgeActionPage, EdgeQuestion, GetEdgeAction
from models.errors import Unavailable
from models.incidents.query import GetRuns, RunPage, decode_answer, encode
from models.partition.sharding import SlotMap, slot_of, slot_of_id
from models.playbook.run import ASKED, Run, key_of
from models.playbook.walk import FINALLY_S
from models.ports import Clock, Peers
from models.shard.messages import Message
from models.shard.messages import encode as encode_message
from services.ingest.line import ShardLine

#: An answer takes less than a millisecond, and may wait behind a group of alerts.
ASK_TIMEOUT_S = 5.0
#: Messages of one process that wait for a shard: more than the actions that a responder has under way.
WAITING_MAX = 10_000

T = TypeVar("T")


class EdgeShards:
    """`slots` gives the slot map as it is now, None while it is not known."""

    def __init__(self, lines: Sequence[ShardLine], slots: Callable[[], SlotMap | None], tenant: str) -> None:
        self.tenant = tenant
        self._lines = lines
        self._slots = slots

    @property
    def all(self) -> range:
        """The places of all shards."""
        return range(len(self._lines))

    def place_of(self, agent: str) -> int:
        """The place of the shard that has an agent. Raises Unavailable."""
        return self._owner(slot_of(self.tenant, agent))

    async def tell(self, agent: str, message: Message) -> None:
        """Have an agent's shard decide. Raises what it refuses with, Busy, Unavailable. A repeat changes nothing."""
        await self._lines[self.place_of(agent)].tell(encode_message(message), 1)

    async def tell_at(self, place: int, message: Message) -> None:
        """The same of a shard by its place."""
        await self._lines[place].tell(encode_message(message), 1)

    async def ask(self, place: int, question: EdgeQuestion, kind: type[T]) -> T:
        """A shard's answer. Raises Unavailable."""
        return await self._ask(place, encode(question), kind)

    async def action(self, agent: str, action: str, same_as: str = "") -> EdgeAction | None:
        """What became of an action, None when it is not known. Raises Unavailable."""
        question = GetEdgeAction(self.tenant, agent, action, same_as)
        found = await self.ask(self.place_of(agent), question, EdgeActionPage)
        return found.items[0] if found.items else None

    async def is_wanted(self, incident_id: bytes, key: str) -> bool:
        """Whether a run still waits for what it asked for by this key. Raises Unavailable."""
        try:
            run = UUID(key.partition(".")[0]).bytes
        except ValueError:
            return False
        place = self._owner(slot_of_id(incident_id))
        found = await self._ask(place, encode(GetRuns(self.tenant, run=run)), RunPage)
        return any(waits_for(each.run, key) for each in found.items)

    async def _ask(self, place: int, question: bytes, kind: type[T]) -> T:
        try:
            answer = decode_answer(await self._lines[place].ask(question, ASK_TIMEOUT_S))
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the answer of a shard can't be read: {error}") from None
        if not isinstance(answer, kind):
            raise Unavailable("a shard answered something else than it was asked")
        return answer

    def _owner(self, slot: int) -> int:
        slots = self._slots()
        if slots is None:
            raise Unavailable("the slot map is not known yet")
        return slots.owners[slot]


def waits_for(run: Run, key: str) -> bool:
    """Whether a run waits for the answer to a key. What was asked for before it began to end, it only waits out; what it undoes or
    does at the end, it wants."""
    if run.is_over:
        return False
    for step in run.steps.values():
        for is_undo, deeds in ((False, step.deeds), (True, step.undos)):
            for number, deed in deeds.items():
                if deed.status == ASKED and key_of(run, step, number, deed.attempt, is_undo) == key:
                    return not run.ends_as or is_undo or step.began_at >= run.until - FINALLY_S
    return False


def lines_to(shards: Sequence[str], peers: Peers, clock: Clock, *, hold_s: float) -> list[ShardLine]:
    """A line to each of these actors, for who is no gateway. `hold_s`: how long a restart of one is waited out."""
    return [ShardLine(each, peers, clock, hold_s=hold_s, max_alerts=WAITING_MAX) for each in shards]
