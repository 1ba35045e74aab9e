"""What a real receiver hears of what senders and people do: gateway, shard, responder and webhook in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog.testing
from aiohttp import web

from tests.api.gateway_in_process import System, alert, system

pytestmark = pytest.mark.asyncio


@dataclass(slots=True)
class Receiver:
    """Answers with `statuses`, one after the other, then 200. `got` is what it took, `refused` what it did not."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    got: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json()
        status = self.statuses.pop(0) if self.statuses else 200
        (self.got if status == 200 else self.refused).append(body)
        return web.Response(status=status, headers={"Location": "/elsewhere"} if 300 <= status < 400 else {})

    def reasons(self) -> list[str]:
        return [body["incident"]["reason"] for body in self.got]


@asynccontextmanager
async def a_receiver(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(statuses=list(statuses))
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def notify(receiver: Receiver, **more: object) -> Mapping[str, object]:
    return {"webhook": {"url": receiver.url}, "retry_first": 0.05, **more}


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.02)


async def gauge(ours: System, name: str) -> float:
    text = (await ours.get("/metrics")).body.decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + "{"))


@pytest.mark.parametrize(
    "statuses", [[404, 404, 404], [401], [403], [405], [410], [421], [301], [307], [308]]
)
async def test_a_receiver_that_says_no_for_a_moment_is_told(statuses: Sequence[int]) -> None:
    async with a_receiver(*statuses) as receiver, system(notify=notify(receiver)) as ours:
        await ours.post("/v1/alerts", [alert("Down", severity="critical")])

        await until(lambda: receiver.got)

    assert receiver.reasons() == ["opened"]
    assert len(receiver.refused) == len(statuses)


async def test_a_notification_that_is_given_up_is_an_error_in_the_log_and_counted() -> None:
    with structlog.testing.capture_logs() as lines:
        async with a_receiver(422) as receiver, system(notify=notify(receiver)) as ours:
            await ours.post("/v1/alerts", [alert("Down", severity="critical")])
            await until(lambda: [each for each in lines if each["event"] == "notification given up"])
            await asyncio.sleep(1.0)  # the page of metrics is a second old at most
            given_up = await gauge(ours, "llm_im_notifications_given_up")

    (told,) = [each for each in lines if each["event"] == "notification given up"]
    assert (told["log_level"], told["reason"], told["tries"]) == ("error", "opened", 1)
    assert "answered 422" in told["why"] and told["incident_id"]
    assert given_up == 1


async def test_two_senders_that_disagree_page_once_and_the_end_is_told() -> None:
    """One of two Prometheus replicas says that it ended, the other that it fires, six times."""
    async with a_receiver() as receiver, system(notify=notify(receiver, interval=1.0)) as ours:
        labels = alert("Down", severity="critical")["labels"]
        for _ in range(6):
            now = time.time()
            await ours.post("/api/v2/alerts", [{"labels": labels, "startsAt": _rfc3339(now)}])
            await ours.post(
                "/api/v2/alerts",
                [{"labels": labels, "startsAt": _rfc3339(now), "endsAt": _rfc3339(time.time())}],
            )
        await until(lambda: len(receiver.got) >= 2)
        await asyncio.sleep(2.5)

    assert receiver.reasons() == ["opened", "resolved"]
    assert receiver.got[-1]["status"] == "resolved"


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


async def test_with_notifications_off_nobody_is_told_and_health_says_so() -> None:
    async with a_receiver() as receiver, system(notify=notify(receiver, enabled=False)) as ours:
        await ours.post("/v1/alerts", [alert("Down", severity="critical")])
        await ours.post("/v1/alerts", [{**alert("Down", severity="critical"), "status": "resolved"}])
        await asyncio.sleep(1.0)
        health = (await ours.get("/health/ready")).json

    assert receiver.got == []
    assert health["notifications"] == "off: notify.enabled is false (up --no-notify)"
