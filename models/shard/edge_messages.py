"""What a shard is told about edge agents, and what it then logs. Who decides: edge_outbox.py."""

from __future__ import annotations

from models.partition.event import Event
from models.shard.messages import Message

# -- messages --------------------------------------------------------------------------------------------------


class ConnectEdge(Message, frozen=True):
    """An agent opened a stream at a gateway: the newest of an agent is the one that counts."""

    tenant: str
    agent: str
    gateway: str
    stream: bytes


class DisconnectEdge(Message, frozen=True):
    """A stream is closed. Of one that is not the agent's any more it says nothing."""

    tenant: str
    agent: str
    stream: bytes
    why: str = ""


class HoldEdges(Message, frozen=True):
    """A gateway has these streams (agent, stream) open. Makes no event: what is not held for a while counts as closed."""

    tenant: str
    streams: list[tuple[str, bytes]]


class ReportEdge(Message, frozen=True):
    """What an agent says of itself. Failed as Conflict when its stream is not the newest. `check`: the health check that it answers."""

    tenant: str
    agent: str
    stream: bytes
    status: str
    detail: str = ""
    services: list[str] = []
    can_do: list[str] = []
    config_version: int = 0
    check: str = ""


class AskEdge(Message, frozen=True):
    """An action for an agent, within `timeout_s` from now; asked again with the same `action` it is the one that is there. `same_as`: the
    same for all tries of what must be done once for all of them. Failed as NotFound, Conflict, Busy."""

    tenant: str
    agent: str
    action: str
    key: str
    incident_id: bytes
    type: str
    service: str
    parameters: dict[str, str]
    timeout_s: float
    same_as: str = ""


class DeliverEdge(Message, frozen=True):
    """The gateway is about to send this on a stream: an action, a configuration by its version, or a health check. It sends it only once
    this is Done, and once on a stream; Failed as Conflict when it is not to be sent any more. Safe to repeat."""

    tenant: str
    agent: str
    stream: bytes
    action: str = ""
    config: int = 0
    check: str = ""


class AnswerEdge(Message, frozen=True):
    """What an agent says of an action: a status of agent.ANSWERS. Failed as NotFound for one that it was never asked for."""

    tenant: str
    agent: str
    action: str
    status: str
    detail: str = ""
    outputs: dict[str, str] = {}


class WithdrawEdge(Message, frozen=True):
    """Nobody wants this action any more. What was given away already goes on."""

    tenant: str
    agent: str
    action: str
    why: str


class ConfigureEdge(Message, frozen=True):
    """The values that an agent is to have: the next version, unless they are the same."""

    tenant: str
    agent: str
    values: dict[str, str]
    by: str


class CheckEdge(Message, frozen=True):
    """An agent is to say how it is. Takes the place of a check before it."""

    tenant: str
    agent: str
    check: str
    service: str
    by: str


class TellEdge(Message, frozen=True):
    """The alert that an agent is away (or back) since then is stored. Failed as Conflict when that is not so any more."""

    tenant: str
    agent: str
    since: float
    away: bool


# -- events ----------------------------------------------------------------------------------------------------


class EdgeConnected(Event, frozen=True):
    tenant: str
    agent: str
    gateway: str
    stream: bytes


class EdgeDisconnected(Event, frozen=True):
    tenant: str
    agent: str
    why: str


class EdgeReported(Event, frozen=True):
    """An agent says something else of itself than before."""

    tenant: str
    agent: str
    status: str
    detail: str
    services: list[str]
    can_do: list[str]
    config_version: int
    check: str = ""


class EdgeActionQueued(Event, frozen=True):
    tenant: str
    agent: str
    action: str
    key: str
    incident_id: bytes
    type: str
    service: str
    parameters: dict[str, str]
    deadline: float
    same_as: str = ""


class EdgeDelivered(Event, frozen=True):
    """It is being sent on this stream, and may arrive."""

    tenant: str
    agent: str
    stream: bytes
    action: str = ""
    config: int = 0
    check: str = ""


class EdgeActionChanged(Event, frozen=True):
    """What became of an action: one of the states of models/edge/agent.py."""

    tenant: str
    agent: str
    action: str
    state: str
    detail: str = ""
    outputs: dict[str, str] = {}


class EdgeConfigured(Event, frozen=True):
    tenant: str
    agent: str
    version: int
    values: dict[str, str]
    by: str


class EdgeCheckAsked(Event, frozen=True):
    tenant: str
    agent: str
    check: str
    service: str
    by: str


class EdgeNoticed(Event, frozen=True):
    """What is owed of its being away is something else now (QUIET, AWAY_OWED ... of models/edge/agent.py)."""

    tenant: str
    agent: str
    notice: str


class EdgeForgotten(Event, frozen=True):
    """Actions that are long over, or the agent as a whole."""

    tenant: str
    agent: str
    actions: list[str]
    whole: bool = False
