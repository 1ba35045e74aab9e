"""What the worker says of a run that has not begun."""

from __future__ import annotations

from typing import Any

import pytest

from actors.targets import Targets
from models.incidents.incident import Severity
from models.playbook.check import check_of
from models.playbook.playbook import PlannedAction, Playbook, Step, Trigger
from models.playbook.work import REFUSED, SUCCEEDED, Done
from tests.clock import ManualClock
from tests.contract.playbook_world import INCIDENT, POLICIES, Desk, answering, desk, serving

pytestmark = pytest.mark.asyncio


def book(*steps: Step) -> Playbook:
    return Playbook("repair", "1", "d", Trigger(severities=(Severity.P0,)), steps)


def step(type_: str, condition: str = "", **params: Any) -> Step:
    return Step(
        f"do_{type_}", "remediation", (PlannedAction(type_, params, changes=True),), condition=condition
    )


async def check(here: Desk, *steps: Step) -> Done:
    return await here.worker.work(check_of("i.check-1.d", book(*steps), dict(INCIDENT), 1, "system"))


def _policy(url: str) -> dict[str, Any]:
    files = [str(POLICIES / "incidents.rego"), str(POLICIES / "data.json")]
    return {"policy": {"files": files}, "services": {"*": {"by": "http", "url": url + "/{action}"}}}


async def test_permission_is_checked_and_nothing_is_done() -> None:
    async with serving(answering()) as server, desk(_policy(server.url)) as here:
        fine = await check(here, step("service_restart"), step("rollback"))
        frozen = await check(here, step("service_restart"), step("scale", service="billing", replicas=2))
        both = await check(here, step("service_restart", service="billing"), step("script", script="x"))

    assert fine.status == SUCCEEDED  # that a rollback wants an approval is no refusal
    assert frozen.status == REFUSED
    assert "billing is frozen" in frozen.detail
    assert "billing is frozen" in both.detail
    assert "Script is no repair we allow" in both.detail
    assert not server.got


async def test_a_target_whose_breaker_is_open_is_refused() -> None:
    clock = ManualClock(1_000_000.0)
    settings = {"services": {"*": {"by": "http", "url": "http://127.0.0.1:9/{action}"}}}
    targets = Targets(clock)
    async with desk(settings, targets_of_calls=targets, clock=clock) as here:
        before = await check(here, step("service_restart"))
        for number in range(50):
            await here.do("service_restart", attempt=number)
        after = await check(here, step("service_restart"))

    assert before.status == SUCCEEDED
    assert after.status == REFUSED
    assert "127.0.0.1:9" in after.detail


async def test_what_is_not_known_yet_or_not_to_be_done_is_left_for_its_turn() -> None:
    async with serving(answering()) as server, desk(_policy(server.url)) as here:
        later = await check(here, step("service_restart", service="{{ steps.find.outputs.service }}"))
        other = await check(here, step("service_restart", "incident.severity == 'P9'", service="billing"))

    assert (later.status, other.status) == (SUCCEEDED, SUCCEEDED)


async def test_a_service_that_the_settings_do_not_know_is_refused() -> None:
    async with desk({}) as here:
        done = await check(here, step("service_restart"))

    assert done.status == REFUSED
    assert done.detail.startswith("service_restart: ")


async def test_a_policy_server_that_is_away_is_asked_again_when_the_action_is_due() -> None:
    governance = {
        "llm_governance_core": {"enabled": True, "endpoint": "http://127.0.0.1:9/v1/data/incidents"}
    }
    async with (
        serving(answering()) as server,
        desk({"services": {"*": {"by": "http", "url": server.url}}}, governance) as here,
    ):
        done = await check(here, step("service_restart"))

    assert done.status == SUCCEEDED
