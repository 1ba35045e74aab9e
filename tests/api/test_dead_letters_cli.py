"""`llm-im dead-letters` against a whole system: what a person and a script see of it, and the exit codes."""

from __future__ import annotations

import json

import pytest

from tests.api.gateway_in_process import alert, system
from tests.api.test_dead_letters import MAPPING, MENDED, mapped, mend
from tests.command_line import CommandLine

pytestmark = pytest.mark.asyncio


async def test_letters_from_the_command_line() -> None:
    async with system(**mapped(MAPPING)) as ours:
        run = CommandLine(f"http://127.0.0.1:{await ours.listen()}", "dead-letters")

        assert await run("list") == "no dead letters\n"
        await ours.post("/v1/events/mapped/probe", {"checks": [{"name": "Down", "app": "api"}]})
        await ours.post("/v1/alerts", b"\x1b[2J no json")
        await ours.post("/v1/alerts", alert("Fine", code="\x1b"))
        await ours.letters(2)
        heads, newest, oldest = (await run("list")).splitlines()
        assert heads.split()[:4] == ["ID", "RECEIVED", "DOOR", "SENDER"]
        assert "v1" in newest and "mapped" in oldest and "item 0" in oldest
        identity = int(oldest.split()[0])
        assert (await run("list", "--door", "v1", "-o", "id")).split() == [newest.split()[0]]
        assert [each["door"] for each in json.loads(await run("list", "--json"))["items"]] == ["v1", "mapped"]

        shown = await run("show", str(identity))
        assert "POST /v1/events/mapped/probe" in shown and '| {"checks"' in shown
        assert "\x1b" not in await run("show", newest.split()[0])
        assert json.loads(await run("show", str(identity), "--raw"))["checks"]

        refused = await run("replay", str(identity), code=1)
        await mend(ours, **mapped(MENDED))
        both = await run("replay", "--since", "1h", code=1)
        assert refused.startswith(f"{identity} refused: ")
        assert f"{identity} stored as mapped, 1 alert\n" in both and "1 stored, 1 refused, 0 waiting" in both
        assert await ours.names() == {"Down", "Fine"}
        await run("show", str(identity), code=5)
        await run("replay", "17x", code=2)
        await run("replay", code=2)
        await run("drop", "3", "--door", "v1", code=2)

        assert await run("drop", "-", stdin=newest.split()[0]) == "1 dropped\n"
        assert await run("drop", "--all") == "0 dropped\n"
        assert await run("replay", "--all") == "no matching dead letters\n"
