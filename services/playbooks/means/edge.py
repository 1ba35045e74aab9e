"""Changes a service by an edge agent: its shard keeps the action until the agent has answered it, or its time is over
(models/shard/edge_outbox.py). Here it is put there and waited for; asked for again, after a crash, it is the one that is there.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

from actors.targets import Targets
from models.edge.agent import (
    CONFIGURE,
    FAILED,
    IN_DOUBT,
    PARAMETERS_MAX_BYTES,
    REJECTED,
    ROLLBACK,
    SCALE,
    SUCCEEDED,
    TYPES,
    WITHDRAWN,
    EdgeAction,
    check_values,
)
from models.errors import Busy, Conflict, Malformed, NotFound, TooLarge, Unavailable
from models.playbook.work import Done
from models.ports import ActionResult
from models.response.target import NotNow
from models.shard.edge_messages import AskEdge, WithdrawEdge
from services.edge.shards import EdgeShards
from services.playbooks.given import ServiceGiven
from services.playbooks.kind import failed, succeeded
from services.playbooks.means.means import Change

#: How often it is looked what became of an action, and whether its run still waits for it.
LOOK_S, WANTED_S = 0.2, 1.0
#: Of an action's time, what is left to hear from its shard that the time is over: a shard looks once a second.
REST_S = 3.0
#: What of an action's parameters is about us, not about the change.
_OURS = frozenset({"wait_for_healthy", "max_attempts"})


class EdgeMeans:
    """Port of services/playbooks/means/means.py. `shards` None: actions are only looked at here, not done. `targets` bounds the calls;
    None: nothing does."""

    def __init__(self, shards: EdgeShards | None, targets: Targets | None = None) -> None:
        self._shards = shards
        self._targets = targets

    def why_not(self, change: Change) -> str:
        if change.what not in TYPES:
            return f"an edge agent does not do {change.what}"
        try:
            check_values("parameters", _parameters(change), PARAMETERS_MAX_BYTES)
        except TooLarge as error:
            return str(error)
        data = change.params.get("data") if change.what == CONFIGURE else None
        for name, value in (data or {}).items():
            if value is None:
                return f"data.{name}: an edge agent takes a value, and nothing away"
        return ""

    def target(self, change: Change) -> str:
        return f"edge:{change.given.agent}"

    async def make(self, change: Change) -> Done:
        if self._shards is None:
            raise Unavailable("no shard can be asked from here")
        target, result, period = self.target(change), None, 0
        if self._targets is not None:
            allowed = self._targets.may_i(target)
            if isinstance(allowed, NotNow):
                return failed(f"{target}: {allowed.detail}", reached=False, retry_after_s=allowed.wait_s)
            period = allowed
        try:
            done, answered = await self._made(self._shards, change)
            if answered is not None:
                result = ActionResult(ok=answered, detail=done.detail)
            return done
        finally:
            if self._targets is not None:
                self._targets.over(target, period, result)

    async def settled(self, change: Change) -> str:
        return ""

    def knows_when_settled(self, change: Change) -> bool:
        return False

    async def snapshot(self, service: str, given: ServiceGiven, timeout_s: float) -> dict[str, Any]:
        raise Conflict(f"service {service!r} is changed by an edge agent, which tells no configuration")

    async def close(self) -> None:
        """Nothing is open."""

    async def _made(self, shards: EdgeShards, change: Change) -> tuple[Done, bool | None]:
        """What came of it, and whether the agent answered; None: that says nothing of the agent."""
        agent = change.given.agent
        same_as = change.identity if change.identity != change.key else ""
        asked = AskEdge(
            shards.tenant,
            agent,
            change.key,
            change.key,
            _bytes_of(change.incident_id),
            change.what,
            change.service,
            _parameters(change),
            max(change.timeout_s - REST_S, change.timeout_s / 2),
            same_as,
        )
        try:
            await shards.tell(agent, asked)
        except NotFound as error:
            # It may connect for the first time before the next try.
            return failed(str(error), reached=False), None
        except Busy as error:
            return failed(str(error), reached=False, retry_after_s=error.retry_after_s), None
        action = await self._over(shards, agent, change, same_as)
        said = f"edge agent {agent}"
        outputs = dict(action.outputs)
        match action.state:
            case state if state == SUCCEEDED:
                return succeeded(f"{said}: {action.detail or 'done'}", outputs), True
            case state if state == FAILED:
                return failed(f"{said}: {action.detail or 'it failed'}", outputs=outputs), True
            case state if state == REJECTED:
                why = action.detail or "it does not do it"
                return failed(f"{said} refuses: {why}", final=True, reached=False, outputs=outputs), True
            case state if state == IN_DOUBT:
                return failed(f"{said}: it may have been done: {action.detail}"), False
            case state if state == WITHDRAWN:
                return failed(f"{said}: withdrawn: {action.detail}", final=True, reached=False), None
            case _:
                return failed(f"{said}: {action.detail}", reached=False), False

    @staticmethod
    async def _over(shards: EdgeShards, agent: str, change: Change, same_as: str) -> EdgeAction:
        """The action once it is over. Whoever called ends the waiting."""
        loop = asyncio.get_running_loop()
        look_for_run_at = loop.time() + WANTED_S
        while True:
            try:
                action = await shards.action(agent, change.key, same_as)
                if action is None:
                    raise Conflict(f"edge agent {agent!r} is not known any more")
                if not action.is_open:
                    return action
                if loop.time() >= look_for_run_at:
                    look_for_run_at = loop.time() + WANTED_S
                    if not await shards.is_wanted(action.incident_id, action.key):
                        why = "the run was cancelled"
                        await shards.tell(agent, WithdrawEdge(shards.tenant, agent, action.id, why))
            except (Busy, Unavailable):
                # Its shard starts anew: the action is in its log.
                look_for_run_at = loop.time() + WANTED_S
            await asyncio.sleep(LOOK_S)


def _parameters(change: Change) -> dict[str, str]:
    """As an agent gets them: texts, all else as JSON. Of a change of configuration, the values themselves."""
    given = dict(change.params)
    if change.what == CONFIGURE:
        given = {**given.pop("data", {})}
    elif change.what == SCALE:
        least, most = change.given.min_replicas, change.given.max_replicas
        if given.get("replicas") is not None:
            given["replicas"] = max(least, min(most, int(given["replicas"])))
        given |= {"min_replicas": least, "max_replicas": most}
    elif change.what == ROLLBACK and not given.get("to_revision"):
        given.pop("to_revision", None)
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in given.items()
        if value is not None and name not in _OURS
    }


def _bytes_of(incident_id: str) -> bytes:
    try:
        return UUID(incident_id).bytes
    except ValueError:
        raise Malformed("incident.id: expected a UUID") from None
