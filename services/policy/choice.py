"""Which policy is asked, by the settings: a policy server, policies in files, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.ports import Clock, Policy
from services.actions.outbound import Outbound
from services.policy.decisions import Decisions
from services.policy.none import NoPolicy


def open_decisions(given: Mapping[str, Any], outbound: Outbound, clock: Clock) -> Decisions:
    """`given` has `governance` (models/settings/integrations.py) and `policy` (playbook_targets.py). Raises Malformed for policies
    that can't be read."""
    server, files = given["governance"], given["policy"]["files"]
    policy: Policy
    if server["url"]:
        from services.policy.opa import OpaPolicy

        policy, name = OpaPolicy(server["url"], outbound=outbound, token=server["token"]), "opa"
    elif files:
        from services.policy.rego import RegoPolicy

        policy, name = RegoPolicy(files, given["policy"]["rule"]), "rego"
    else:
        policy, name = NoPolicy(), "none"
    return Decisions(
        policy, clock, keep_s=server["keep_s"], fail_open=server["fail_open"], name=name
    )
