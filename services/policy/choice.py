"""Which policy is asked, by the settings: a policy server, policies in files, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from models.errors import IncidentManagerError
from models.ports import Clock, Policy
from services.playbooks.calls import Calls
from services.policy.decisions import Decisions
from services.policy.none import NoPolicy, UnreadablePolicy

log = structlog.get_logger()


def with_token(server: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings say of the policy server, with the token that they name by a variable of the environment."""
    return {**server, "token": server["token"] or os.environ.get(server["token_env"] or "", "")}


def open_decisions(
    server: Mapping[str, Any],
    local: Mapping[str, Any],
    outbound: Calls,
    clock: Clock,
    *,
    strict: bool = False,
) -> Decisions:
    """`server`: with_token() of what models/settings/integrations.py gives; `local`: `policy` of models/settings/playbook_targets.py. `strict`:
    raises Malformed for policies that can't be read, and Unavailable where they can't be evaluated; otherwise nothing is allowed then."""
    policy: Policy
    if server["url"]:
        from services.policy.opa import OpaPolicy

        policy, name = OpaPolicy(server["url"], outbound=outbound, token=server["token"]), "opa"
    elif local["files"]:
        from services.policy.rego import RegoPolicy

        name = "rego"
        try:
            policy = RegoPolicy(local["files"], local["rule"])
        except IncidentManagerError as error:
            if strict:
                raise
            # A responder also tells people: it must start. Nothing is allowed by a policy that nobody can read.
            log.error("policies can't be read, actions are denied", why=str(error))
            policy = UnreadablePolicy(str(error))
    else:
        policy, name = NoPolicy(), ""
    return Decisions(policy, clock, keep_s=server["keep_s"], fail_open=server["fail_open"], name=name)


def wrong_policies(files: Sequence[str], rule: str) -> str:
    """Why these policies can't be used, "" if they can."""
    if not files:
        return ""
    from services.policy.rego import RegoPolicy

    try:
        RegoPolicy(files, rule)
    except IncidentManagerError as error:
        return str(error)
    return ""
