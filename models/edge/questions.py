"""What a shard is asked about edge agents, and the answers. Part of models/incidents/query.py's unions."""

from __future__ import annotations

import msgspec

from models.edge.agent import EdgeAction, EdgeAgent
from models.wire import Wire

#: Agents of one answer, some 10 us each: actions are left out of lists.
AGENTS_PAGE_MAX = 1000
#: What one answer gives a gateway to deliver: it asks again at once when there is more.
WORK_MAX = 100


class GetEdgeAgent(Wire, frozen=True):
    """One agent, with its actions."""

    tenant: str
    agent: str


class ListEdgeAgents(Wire, frozen=True):
    """Agents by id after `after`, without their actions."""

    tenant: str
    after: str = ""
    limit: int = AGENTS_PAGE_MAX


class GetEdgeAction(Wire, frozen=True):
    """What became of one action; with `same_as`, or of the try before it that was done."""

    tenant: str
    agent: str
    action: str
    same_as: str = ""


class GetEdgeWork(Wire, frozen=True):
    """What is to be sent on the streams of a gateway, and which of `streams` (agent, stream) are not their agent's any more."""

    tenant: str
    gateway: str
    streams: list[tuple[str, bytes]] = []


class ListEdgeNotices(Wire, frozen=True):
    """The agents of which it is to be told that they are away, or back."""

    tenant: str


class EdgeWork(msgspec.Struct, frozen=True, array_like=True):
    """What is to be sent to one agent on its stream: of `config` and `check`, only if it is there."""

    agent: str
    stream: bytes
    actions: list[EdgeAction] = []
    config: tuple[int, dict[str, str]] | None = None
    check: tuple[str, str] | None = None


class EdgeNotice(msgspec.Struct, frozen=True, array_like=True):
    """`away`: else it is back, with `status`."""

    agent: str
    since: float
    away: bool
    status: str = ""
    services: list[str] = []


class EdgeAgentView(msgspec.Struct, frozen=True, array_like=True):
    """`agent` without its actions where `open_actions` of them are left out."""

    agent: EdgeAgent
    open_actions: int = 0


class EdgeAgentPage(Wire, frozen=True):
    items: list[EdgeAgentView]
    next_after: str | None = None


class EdgeActionPage(Wire, frozen=True):
    """At most one."""

    items: list[EdgeAction]


class EdgeWorkPage(Wire, frozen=True):
    items: list[EdgeWork]
    lost: list[bytes] = []


class EdgeNoticePage(Wire, frozen=True):
    items: list[EdgeNotice]


EdgeQuestion = GetEdgeAgent | ListEdgeAgents | GetEdgeAction | GetEdgeWork | ListEdgeNotices
EdgeAnswer = EdgeAgentPage | EdgeActionPage | EdgeWorkPage | EdgeNoticePage
