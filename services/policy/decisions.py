"""What comes of asking a policy: decisions are kept for a time, and a policy that can't be asked decides nothing, or, where the
settings say so, allows. Used by services/playbooks/worker.py and `llm-im policy test`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

import msgspec
import structlog

from models.errors import IncidentManagerError, Malformed
from models.playbook.policy import PolicyEvalRequest, PolicyEvalResponse, denied
from models.ports import Clock, Policy

log = structlog.get_logger()

#: Decisions that are kept: those of some thousand incidents under repair.
KEPT_MAX = 10_000
#: The last resort behind an adapter's own timeout.
DEADLINE_S = 15.0


@dataclass(frozen=True, slots=True)
class Decision:
    """`response` is what counts. `asked`: the policy said so; False: it could not be asked, and `response` is what the settings
    make of that. `text` is the whole of it in words, for the incident's log; "" where no policy
    is configured."""

    response: PolicyEvalResponse
    asked: bool
    text: str


class Decisions:
    """A policy with its memory. Owns the policy."""

    def __init__(
        self,
        policy: Policy,
        clock: Clock,
        *,
        keep_s: float = 0.0,
        fail_open: bool = False,
        name: str = "policy",
    ) -> None:
        """`keep_s` 0: each question is asked anew. `fail_open`: what can't be decided is allowed."""
        self._policy = policy
        self._clock = clock
        self._keep_s = keep_s
        self._fail_open = fail_open
        self._name = name
        self._kept: OrderedDict[bytes, tuple[float, PolicyEvalResponse]] = OrderedDict()

    async def decide(self, request: PolicyEvalRequest) -> Decision:
        """Never raises for what the policy or its server does wrong."""
        # Not the time: a decision is kept for `keep_s`, whatever minute it is.
        place = msgspec.json.encode(
            msgspec.structs.replace(request, context=msgspec.structs.replace(request.context, time="")),
            order="deterministic",
        )
        kept = self._kept.get(place)
        if kept is not None and self._clock.monotonic() < kept[0]:
            return Decision(kept[1], True, _told(self._name, kept[1]))
        try:
            async with asyncio.timeout(DEADLINE_S):
                response = await self._policy.evaluate(request)
        except TimeoutError:
            return self._undecided(f"no answer within {DEADLINE_S:g} s")
        except Malformed as error:
            # What is not understood is never allowed, not even with fail_open: the policy did answer.
            response = denied(f"its answer is not understood: {error}")
            return Decision(response, False, _told(self._name, response))
        except IncidentManagerError as error:
            return self._undecided(str(error))
        except Exception as error:  # noqa: BLE001  # an adapter broke its promise; its text may hold a secret
            return self._undecided(type(error).__name__)
        if self._keep_s > 0:
            self._keep(place, response)
        return Decision(response, True, _told(self._name, response))

    async def close(self) -> None:
        await self._policy.close()

    def _undecided(self, why: str) -> Decision:
        log.warning("policy could not be asked", policy=self._name, why=why, allowed=self._fail_open)
        if self._fail_open:
            response = PolicyEvalResponse(
                allowed=True, reason=f"could not be asked, and fail_open is on: {why}"
            )
        else:
            response = denied(f"could not be asked: {why}")
        return Decision(response, False, _told(self._name, response))

    def _keep(self, place: bytes, response: PolicyEvalResponse) -> None:
        self._kept[place] = (self._clock.monotonic() + self._keep_s, response)
        self._kept.move_to_end(place)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)


def _told(name: str, response: PolicyEvalResponse) -> str:
    """A decision in one line: `opa: allowed, needs approval by alice, bob: production`; "" when nobody is asked, ever."""
    if not name:
        return ""
    said = "allowed" if response.allowed else "denied"
    if response.allowed and response.require_approval:
        by = f" by {', '.join(response.approvers)}" if response.approvers else ""
        said = f"{said}, needs approval{by}"
    if response.allowed and response.constraints:
        said = f"{said}, with {', '.join(sorted(response.constraints))} constrained"
    return f"{name}: {said}" + (f": {response.reason}" if response.reason else "")
