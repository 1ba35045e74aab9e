"""An incident as chats, pagers and tickets hear of it, from the alert to the resolve: gateway, shard, responder and every channel in
one process, against receivers that check what they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from tests.api.gateway_in_process import alert, system
from tests.receivers.api import Api, serving
from tests.receivers.slack import SlackApi
from tests.receivers.table import CHANNELS, OPENING, settings_of

pytestmark = pytest.mark.asyncio


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.02)


async def test_everybody_is_told_once_by_their_channel_and_what_was_opened_is_closed() -> None:
    apis: dict[str, Api] = {name: kind() for name, kind in CHANNELS.items()}
    async with AsyncExitStack() as stack:
        receivers = {
            name.replace(" ", "-"): settings_of(name, await stack.enter_async_context(serving(api.handle)))
            for name, api in apis.items()
        }
        notify = {
            "receivers": receivers,
            "route": {"receivers": list(receivers)},
            "interval": 0.2,
            "retry_first": 0.05,
        }
        ours = await stack.enter_async_context(system(notify=notify))

        down = [alert("Down", severity="critical", instance=each) for each in "ab"]
        await ours.post("/v1/alerts", down[:1])
        await until(lambda: all(api.changes for api in apis.values()))
        opened = {name: len(api.open_ones()) for name, api in apis.items()}
        await ours.post("/v1/alerts", down[1:])
        await until(lambda: all(len(api.changes) >= 2 for api in apis.values()))
        await ours.post("/v1/alerts", [{**each, "status": "resolved"} for each in down])
        await until(lambda: not any(apis[name].open_ones() for name in OPENING))
        await until(lambda: b'"resolved"' in apis["webhook"].changes[-1].body)
        slack = apis["slack"]
        assert isinstance(slack, SlackApi)
        await until(lambda: any("[RESOLVED]" in each["text"] for each in slack.updated))

    assert {name: api.wrong for name, api in apis.items() if api.wrong} == {}
    assert {opened[name] for name in OPENING} == {1}
    # One each, whatever became of the incident: what was made first is what was changed and closed.
    assert {name: len(apis[name].made) for name, api in apis.items() if api.keeps} == {
        name: 1 for name, api in apis.items() if api.keeps
    }
