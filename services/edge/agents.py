"""Edge agents as people see and steer them: lists, one with its actions, its configuration, a health check. For the routes of
services/api/v1/edge.py."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from models.edge.agent import CONFIG_MAX_BYTES, check_agent_id, check_values
from models.edge.questions import EdgeAgentPage, EdgeAgentView, GetEdgeAgent, ListEdgeAgents
from models.errors import Malformed, NotFound
from models.shard.edge_messages import CheckEdge, ConfigureEdge
from services.edge.shards import EdgeShards


class EdgeAgents:
    """Raises NotFound, Malformed, TooLarge, Busy, Unavailable."""

    def __init__(self, shards: EdgeShards) -> None:
        self._shards = shards

    async def page(self, after: str, limit: int) -> tuple[list[EdgeAgentView], str | None]:
        """Agents by id after `after`, without their actions, and where the next page begins, None at the end."""
        question = ListEdgeAgents(self._shards.tenant, after, limit)
        pages = await asyncio.gather(
            *(self._shards.ask(place, question, EdgeAgentPage) for place in self._shards.all)
        )
        found = sorted((each for page in pages for each in page.items), key=lambda view: view.agent.id)
        has_more = len(found) > limit or any(page.next_after is not None for page in pages)
        return found[:limit], found[limit - 1].agent.id if has_more and len(found) >= limit else None

    async def find(self, agent: str) -> EdgeAgentView:
        try:
            check_agent_id(agent)
        except Malformed:
            raise _missing(agent) from None
        question = GetEdgeAgent(self._shards.tenant, agent)
        found = await self._shards.ask(self._shards.place_of(agent), question, EdgeAgentPage)
        if not found.items:
            raise _missing(agent)
        return found.items[0]

    async def configure(self, agent: str, values: dict[str, str], by: str) -> EdgeAgentView:
        """Give it these values, as the next version of its configuration; the same values change nothing."""
        check_values("values", values, CONFIG_MAX_BYTES)
        await self.find(agent)
        await self._shards.tell(agent, ConfigureEdge(self._shards.tenant, agent, values, by))
        return await self.find(agent)

    async def check(self, agent: str, service: str, by: str) -> EdgeAgentView:
        """Ask it how it is, or how a service is. Its answer comes with its next health message."""
        await self.find(agent)
        asked = CheckEdge(self._shards.tenant, agent, str(uuid4()), service, by)
        await self._shards.tell(agent, asked)
        return await self.find(agent)


def _missing(agent: str) -> NotFound:
    return NotFound(f"there is no edge agent {agent[:200]!r}: none of that id has connected")
