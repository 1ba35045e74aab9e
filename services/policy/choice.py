"""Which policy is asked, by the settings: a policy server, policies in files, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from models.ports import Clock, Policy
from services.playbooks.calls import Calls
from services.policy.decisions import Decisions
from services.policy.none import NoPolicy


def with_token(server: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings say of the policy server, with the token that they name by a variable of the environment."""
    return {**server, "token": server["token"] or os.environ.get(server["token_env"] or "", "")}


def open_decisions(
    server: Mapping[str, Any], local: Mapping[str, Any], outbound: Calls, clock: Clock
) -> Decisions:
    """`server`: with_token() of what models/settings/integrations.py gives; `local`: `policy` of models/settings/playbook_targets.py. Raises Malformed
    for policies that can't be read, Unavailable where they can't be evaluated."""
    policy: Policy
    if server["url"]:
        from services.policy.opa import OpaPolicy

        policy, name = OpaPolicy(server["url"], outbound=outbound, token=server["token"]), "opa"
    elif local["files"]:
        from services.policy.rego import RegoPolicy

        policy, name = RegoPolicy(local["files"], local["rule"]), "rego"
    else:
        policy, name = NoPolicy(), ""
    return Decisions(policy, clock, keep_s=server["keep_s"], fail_open=server["fail_open"], name=name)
