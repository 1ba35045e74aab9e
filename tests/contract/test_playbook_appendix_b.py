"""Each action of the plan's Appendix B, as it is written there, is done: by receivers that check each request against the documented API,
a stand-in of Kubernetes, and servers that play Prometheus, Loki and the service.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from actors.targets import Targets
from models.playbook.playbook import Playbook
from models.playbook.reading import read
from models.playbook.work import FAILED, SUCCEEDED, WAIT, Context, Do, Done
from models.response.breaker import BreakerRule
from models.response.target import Limits
from services.playbooks.actions import changes
from services.playbooks.table import all_specs
from tests.clock import ManualClock
from tests.contract.kubernetes_stand_in import TOKEN, Kubernetes
from tests.contract.playbook_world import INCIDENT, Desk, Told, answering, desk
from tests.contract.playbook_world import serving as standing
from tests.receivers.table import receiving

pytestmark = pytest.mark.asyncio
BOOK = Path(__file__).resolve().parents[1] / "data" / "playbooks" / "appendix-b.yaml"
EMPTY = {"status": "success", "data": {"resultType": "streams", "result": []}}
MATRIX = {
    "status": "success",
    "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "0"]]}]},
}


def the_book() -> Playbook:
    return read(BOOK.read_text(), "appendix-b.yaml", all_specs()).playbook


async def test_every_action_of_appendix_b_is_done_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "POLL_S", 0.01)
    book, kubernetes = the_book(), Kubernetes()
    kubernetes.deployment()
    answers: dict[tuple[str, str], Done] = {}

    async def service(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=200 if kubernetes.restarts else 503)

    async with AsyncExitStack() as stack:
        slack_api, slack = await stack.enter_async_context(receiving("slack"))
        pager_api, pager = await stack.enter_async_context(receiving("pagerduty"))
        prometheus = await stack.enter_async_context(standing(answering(200, MATRIX)))
        loki = await stack.enter_async_context(standing(answering(200, EMPTY)))
        api = await stack.enter_async_context(standing(kubernetes.serve))
        healthy = await stack.enter_async_context(standing(service))
        given = {
            "prometheus": {"url": prometheus.url},
            "loki": {"url": loki.url},
            "kubernetes": {"api": api.url, "token": TOKEN, "ca_file": ""},
            "services": {"llm-*": {"namespace": "prod"}},
            "war_room": {"links": {"zoom": "https://zoom.example.org/j/{{ incident.id }}"}},
        }
        channels = {"ops-slack": ("slack", slack), "pager": ("pagerduty", pager)}
        here = await stack.enter_async_context(desk(given, channels=channels, allow=("127.0.0.0/8",)))
        incident = {**INCIDENT, "metadata": {"health_url": healthy.url}}
        last: dict[str, Any] = {}
        for step in book.steps:
            for number, action in enumerate(step.actions):
                context = Context(
                    incident,
                    book.variables,
                    {"automated_remediation": {"status": "success", "outputs": {}}},
                    {"last": last},
                )
                work = Do(f"{step.id}-{number}", step.id, number, 0, action, context)
                answers[step.id, action.type] = await here.worker.work(work)
                last[action.type] = action.params

    statuses = {name: done.status for name, done in answers.items()}
    expected = dict.fromkeys(answers, SUCCEEDED)
    expected["automated_remediation", "health_check"] = FAILED
    expected["automated_remediation", "wait"] = WAIT
    assert statuses == expected
    assert len(answers) == 15
    assert not answers["automated_remediation", "health_check"].final
    assert (slack_api.wrong, pager_api.wrong) == ([], [])
    assert len(slack_api.changes) == 3
    assert len(pager_api.changes) == 2
    assert kubernetes.restarts == 1
    effects = [(each.what, each.value) for done in answers.values() for each in done.effects]
    # What PagerDuty was told is owed the end.
    assert [what for what, _ in effects] == ["told", "severity", "told", "link", "resolve", "task"]
    assert ("severity", "P0") in effects
    assert {each.name for done in answers.values() for each in done.captures} == {"metrics", "logs"}


# Targets


async def test_a_host_that_fails_is_left_alone_and_costs_no_health_check() -> None:
    clock = ManualClock()
    targets = Targets(clock, limits=Limits(breaker=BreakerRule(failures=2, share=0.0)))
    async with (
        standing(answering(503)) as server,
        desk(_hook(server.url), targets_of_calls=targets, allow=("127.0.0.0/8",)) as here,
    ):
        first = [await here.do("service_restart") for _ in range(2)]
        left_alone = await here.do("service_restart")
        dry = await here.do("service_restart", dry=True)
        calls = len(server.got)
        checked = [await here.do("health_check", endpoint=server.url) for _ in range(5)]

    assert [each.retry_after_s for each in first] == [0.0, 0.0]
    assert (left_alone.status, left_alone.final, left_alone.reached) == (FAILED, False, False)
    assert left_alone.retry_after_s > 0
    assert (dry.status, dry.final) == (FAILED, False)
    assert calls == 2
    assert [each.outputs["status"] for each in checked] == [503] * 5


async def test_a_receiver_that_is_left_alone_is_not_told() -> None:
    clock, told = ManualClock(), Told()
    targets = Targets(clock, limits=Limits(breaker=BreakerRule(failures=1, share=0.0)))
    channels = {"ops": ("slack", told)}
    async with desk(channels=channels, targets_of_calls=targets) as here:
        told.result = told.result.__class__(ok=False, detail="answered 503")
        await here.do("slack", message="x")
        second = await here.do("slack", message="x")

    assert second.status == FAILED
    assert len(told.notes) == 1


def _hook(url: str) -> dict[str, Any]:
    return {"services": {"*": {"by": "http", "url": url + "/{action}"}}}


async def test_a_hundred_actions_that_hang_hold_up_no_other() -> None:
    never = asyncio.Event()

    async def hangs(_request: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    async def one(here: Desk) -> Done:
        return await here.do("service_restart", timeout_s=60.0)

    async with (
        standing(hangs) as server,
        standing(answering(200)) as well,
        desk(_hook(server.url), allow=("127.0.0.0/8",)) as here,
    ):
        held = [asyncio.create_task(one(here)) for _ in range(100)]
        while len(server.got) < 100:
            await asyncio.sleep(0.01)
        other = await here.do("health_check", endpoint=well.url)
        never.set()
        await asyncio.gather(*held)

    assert other.status == SUCCEEDED
