"""What is asked of a policy before an action that changes something, what it may answer, and the rules of the house, which need no
policy server: the plan's sections for Shield and Edge. Used by services/playbooks/worker.py; who answers is a port (Policy).

Whatever can't be understood is no permission.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from models.errors import Malformed

#: Characters of a reason that are kept: it goes into the incident's log with every decision.
REASON_MAX = 500
#: Names of approvers that are kept.
APPROVERS_MAX = 50
_BOUNDS = ("min", "max", "one_of")


class RemediationAction(msgspec.Struct, frozen=True):
    """What is to be done. `type` is the plan's name for it ("Restart") where it has one, `kind` what a playbook calls it."""

    incident_id: str
    type: str
    kind: str
    target_service: str
    parameters: dict[str, Any]
    timeout_seconds: int


class PolicyContext(msgspec.Struct, frozen=True):
    """Circumstances. `user`: who approved it, or started the run; None: nobody did. `time` is RFC 3339, to the minute, so that a
    decision can be used again. `dry`: it would not be done."""

    user: str | None
    environment: str
    time: str
    affected_resources: tuple[str, ...]
    approved_by: tuple[str, ...] = ()
    playbook: str = ""
    playbook_version: str = ""
    dry: bool = False


class PolicyEvalRequest(msgspec.Struct, frozen=True):
    """The plan's request: the `input` of a policy."""

    incident: dict[str, Any]
    proposed_action: RemediationAction
    context: PolicyContext


class PolicyEvalResponse(msgspec.Struct, frozen=True):
    """The plan's response. `constraints` are values and bounds of parameters (`constrained`)."""

    allowed: bool
    reason: str = ""
    require_approval: bool = False
    approvers: tuple[str, ...] = ()
    constraints: dict[str, Any] = {}


def denied(reason: str) -> PolicyEvalResponse:
    return PolicyEvalResponse(allowed=False, reason=reason[:REASON_MAX])


def response_of(result: object) -> PolicyEvalResponse:
    """What a policy's result says: an object with `allowed` (also written `allow`), or that boolean alone. Raises Malformed; a
    result that is not understood must not be taken for a permission."""
    if isinstance(result, bool):
        return PolicyEvalResponse(allowed=result)
    if not isinstance(result, Mapping):
        raise Malformed(f"result: expected an object with `allowed`, got {_kind(result)}")
    allowed = result.get("allowed", result.get("allow"))
    if not isinstance(allowed, bool):
        raise Malformed("result.allowed: expected true or false" + _got(allowed))
    require_approval = result.get("require_approval", False)
    if not isinstance(require_approval, bool):
        raise Malformed("result.require_approval: expected true or false" + _got(require_approval))
    approvers = result.get("approvers", [])
    # A set of Rego is a list in JSON.
    if not isinstance(approvers, list | tuple) or not all(isinstance(each, str) for each in approvers):
        raise Malformed("result.approvers: expected a list of names")
    constraints = result.get("constraints", {})
    if not isinstance(constraints, Mapping):
        raise Malformed("result.constraints: expected an object" + _got(constraints))
    reason = result.get("reason", "")
    if isinstance(reason, list | tuple):
        reason = "; ".join(map(str, reason))
    return PolicyEvalResponse(
        allowed=allowed,
        reason=" ".join(str(reason).split())[:REASON_MAX],
        require_approval=require_approval,
        approvers=tuple(approvers[:APPROVERS_MAX]),
        constraints=dict(constraints),
    )


def constrained(
    params: Mapping[str, Any], constraints: Mapping[str, Any], known: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """The parameters as a policy wants them, and what it changed, in words.

    A constraint is named after a parameter: a value takes its place; {"max": 5}, {"min": 1} move a number that is beyond it; and
    of {"one_of": [...]} the parameter must be one. `max_replicas` is {"max": ...} of `replicas`. Raises ValueError for one
    that the parameters break and that can't be mended, and for one that concerns no parameter of the action: a policy that
    is not understood must not be ignored.
    """
    known = {*known}
    made = dict(params)
    changed: list[str] = []
    bounded = {name[4:] if name[:4] in ("max_", "min_") else name for name in constraints}
    for name, wanted in constraints.items():
        if name not in known and name[:4] in ("max_", "min_") and name[4:] in known:
            name, wanted = name[4:], {name[:3]: wanted}
        if name not in known:
            raise ValueError(f"policy constrains {name}, which this action does not take")
        if isinstance(wanted, Mapping) and wanted and all(key in _BOUNDS for key in wanted):
            if name == "replicas" and made.get("by") is not None and "by" not in bounded:
                # How many they come to is not known here.
                raise ValueError("policy bounds replicas, which the action does not give, and not `by`")
            value = _bounded(name, made.get(name), wanted)
        else:
            value = wanted
        if value != made.get(name):
            changed.append(f"{name} = {value}")
            made[name] = value
    return made, changed


def _bounded(name: str, value: Any, bounds: Mapping[str, Any]) -> Any:
    if "one_of" in bounds and (
        not isinstance(bounds["one_of"], list | tuple) or value not in bounds["one_of"]
    ):
        raise ValueError(f"policy does not allow {name} = {value}")
    for bound in ("min", "max"):
        if bound not in bounds or value is None:
            continue
        limit = bounds[bound]
        if not _is_number(limit) or not _is_number(value):
            raise ValueError(f"policy bounds {name} by {limit}, and it is {value}: expected numbers")
        value = max(value, limit) if bound == "min" else min(value, limit)
    return value


class HouseRules(msgspec.Struct, frozen=True):
    """What the settings allow, whatever a policy says: `integrations.llm_edge_agent.remediation` and
    `integrations.llm_shield.actions`. An empty `allowed` allows all; `retries` below 0 are not bounded, and so is a `timeout_s`
    of 0."""

    allowed: tuple[str, ...] = ()
    approval_for: tuple[str, ...] = ()
    auto_isolate: bool = True
    retries: int = -1
    timeout_s: float = 0.0

    def why_not(self, names: Iterable[str]) -> str:
        """Why an action of these names must not be done, "" if it may be."""
        if not self.allowed or _any_of(names, self.allowed):
            return ""
        return "it is not among allowed_actions of integrations.llm_edge_agent.remediation"

    def why_approval(self, names: Iterable[str]) -> str:
        """Why somebody must approve an action of these names, "" if nobody need."""
        names = [*names]
        if _any_of(names, self.approval_for):
            return "the settings require approval for it (require_approval, require_approval_for)"
        if not self.auto_isolate and _any_of(names, ("isolate",)):
            return "auto_isolate is off: isolating needs approval"
        return ""


def _any_of(names: Iterable[str], among: Iterable[str]) -> bool:
    return not {*map(_plain, names)}.isdisjoint(map(_plain, among))


def _plain(name: str) -> str:
    """`ServiceRestart`, `service_restart` and `service-restart` are one name."""
    return "".join(character for character in name.lower() if character.isalnum())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _got(value: object) -> str:
    return ", and it is missing" if value is None else f", got {_kind(value)}"


def _kind(value: object) -> str:
    return {"NoneType": "nothing", "str": "text", "dict": "an object", "list": "a list"}.get(
        type(value).__name__, type(value).__name__
    )
