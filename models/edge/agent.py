"""What is known of one edge agent, with its outbox: the actions that it is to do, its configuration, a health check. Kept by the shard
of its slot (models/shard/edge_outbox.py); what is asked about it is in questions.py.

    queued ----> delivered ----> accepted          the agent says so
      |   |          |     \\________/ |
      |   |          |                +----> succeeded | failed | rejected
      |   |          +---------------------> in doubt                         its deadline passed: it may have been done
      |   +--------------------------------> expired                          its deadline passed, and it was never given away
      +------------------------------------> withdrawn                        whoever asked for it does not want it any more
"""

from __future__ import annotations

import re

import msgspec

from models.errors import Malformed, TooLarge

QUEUED, DELIVERED, ACCEPTED = "queued", "delivered", "accepted"
SUCCEEDED, FAILED, REJECTED = "succeeded", "failed", "rejected"
IN_DOUBT, EXPIRED, WITHDRAWN = "in doubt", "expired", "withdrawn"
#: It is not over.
OPEN = frozenset({QUEUED, DELIVERED, ACCEPTED})
#: What an agent may answer.
ANSWERS = frozenset({ACCEPTED, SUCCEEDED, FAILED, REJECTED})

#: What an agent can be asked to do, by our name.
RESTART, ROLLBACK, SCALE, CONFIGURE = "restart", "rollback", "scale", "config_change"
TYPES = (RESTART, ROLLBACK, SCALE, CONFIGURE)

HEALTHY, DEGRADED, UNHEALTHY, OFFLINE = "healthy", "degraded", "unhealthy", "offline"

#: An agent's id is part of labels and paths.
AGENT_ID_MAX = 128
_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
#: Services that an agent names, and characters of one.
SERVICES_MAX = 200
SERVICE_MAX = 256
#: Characters of a detail: a line for people.
DETAIL_MAX = 2000
#: Bytes of the parameters of an action, of its outputs, and of a configuration. They stay in memory and in snapshots.
PARAMETERS_MAX_BYTES = 16 * 1024
OUTPUTS_MAX_BYTES = 16 * 1024
CONFIG_MAX_BYTES = 64 * 1024
#: Longest time that an action may wait and last: as long as a responder waits for one.
TIMEOUT_MAX_S = 3600.0


class EdgeAction(msgspec.Struct, array_like=True):
    """An action for an agent. `id` is what the agent knows it by; `key` is that of the try of the run that asked for it. `same_as`: the
    same for all tries of what must be done once for all of them, else "". `stream`: on which it was given to the agent."""

    id: str
    key: str
    incident_id: bytes
    type: str
    service: str
    parameters: dict[str, str]
    queued_at: float
    deadline: float
    same_as: str = ""
    state: str = QUEUED
    stream: bytes = b""
    delivered_at: float = 0.0
    ended_at: float = 0.0
    detail: str = ""
    outputs: dict[str, str] = {}

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def size(self) -> int:
        """Bytes that it may come to, about."""
        return 500 + sum(len(name) + len(value) for name, value in self.parameters.items())


class EdgeConfig(msgspec.Struct, array_like=True):
    """The values that an agent is to have. `stream`: on which they were sent to it."""

    version: int = 0
    values: dict[str, str] = {}
    by: str = ""
    at: float = 0.0
    stream: bytes = b""


class EdgeCheck(msgspec.Struct, array_like=True):
    """The last health check that was asked for; `answered_at` 0: not answered yet."""

    id: str = ""
    service: str = ""
    by: str = ""
    at: float = 0.0
    stream: bytes = b""
    answered_at: float = 0.0
    status: str = ""
    detail: str = ""


#: What is owed of an agent's being away: nothing, that it is told, nothing more until it is back, that its return is told.
QUIET, AWAY_OWED, AWAY_TOLD, BACK_OWED = "", "away owed", "away told", "back owed"


class EdgeAgent(msgspec.Struct, array_like=True):
    """An agent. `stream` is the one that is open, b"" while it is away; `gateway` has it. `since`: since when it is connected, or away."""

    tenant: str
    id: str
    first_at: float
    since: float
    gateway: str = ""
    stream: bytes = b""
    why_away: str = ""
    status: str = ""
    detail: str = ""
    services: list[str] = []
    can_do: list[str] = []
    config_version: int = 0
    notice: str = QUIET
    config: EdgeConfig = msgspec.field(default_factory=EdgeConfig)
    check: EdgeCheck = msgspec.field(default_factory=EdgeCheck)
    actions: dict[str, EdgeAction] = {}

    @property
    def is_connected(self) -> bool:
        return bool(self.stream)

    def to_deliver(self, now: float) -> list[EdgeAction]:
        """The actions that are to be given to it on its stream, the oldest first: also those that it got on another."""
        if not self.stream:
            return []
        return [
            each
            for each in self.actions.values()
            if each.is_open and each.stream != self.stream and now < each.deadline
        ]

    @property
    def wants_config(self) -> bool:
        """Whether its configuration is to be sent on its stream."""
        config = self.config
        return bool(self.stream) and config.version > self.config_version and config.stream != self.stream

    @property
    def wants_check(self) -> bool:
        """Whether a health check is to be sent on its stream."""
        check = self.check
        return bool(self.stream and check.id) and not check.answered_at and check.stream != self.stream


def check_agent_id(identity: str) -> str:
    """Raises Malformed for what can't be the id of an agent."""
    if not _AGENT_ID.fullmatch(identity):
        raise Malformed(
            f"agent_id: expected 1 to {AGENT_ID_MAX} letters, digits, '.', '_', ':' or '-', beginning with a letter or digit"
        )
    return identity


def check_values(field: str, values: dict[str, str], most_bytes: int) -> dict[str, str]:
    """Raises TooLarge for more than fits."""
    size = sum(len(name.encode()) + len(value.encode()) for name, value in values.items())
    if size > most_bytes:
        raise TooLarge(f"{field}: expected at most {most_bytes} bytes of names and values, not {size}")
    return values
