"""`llm-im heartbeats` against a whole system: set, listed, beaten, failed, paused, deleted."""

from __future__ import annotations

import json

import pytest

from tests.api.gateway_in_process import FIRST_SHARD_SERVICE, system
from tests.command_line import CommandLine

pytestmark = pytest.mark.asyncio


async def test_a_heartbeat_from_the_command_line() -> None:
    async with system() as ours:
        port = await ours.listen()
        run = CommandLine(f"http://127.0.0.1:{port}", "heartbeats")

        none = await run("list")
        refused = await run("set", "backup", code=2)
        made = await run("set", "backup", "-e", "1d", "-s", FIRST_SHARD_SERVICE, "-l", "team=db", "-g", "0")
        changed = await run("set", "backup", "--every", "2d")
        missing = await run("beat", "x", code=5)
        heard = await run("beat", "backup")
        failed = await run("beat", "backup", "--fail", "-m", "exit status 2")
        listed = await run("list")
        shown = await run("show", "backup", "--json")
        incident = (await ours.get("/v1/incidents")).items[0]
        paused = await run("pause", "backup")
        resumed, found = await run("resume", "backup"), await run("show", "backup")
        gone = await run("delete", "backup")

        assert "no heartbeats; make one" in none and "--every" in refused
        assert "every 1d, missed 0s later" in made and f":{port}/v1/heartbeats/backup/beat" in made
        assert "every 2d" in changed and "see llm-im heartbeats list" in missing
        assert (heard, failed) == ("backup was heard\n", "backup has failed\n")
        assert "missed" in listed and incident["description"] == "exit status 2"
        body = json.loads(shown)
        assert (body["interval"], body["labels"], body["service"]) == (
            "2d",
            {"team": "db"},
            FIRST_SHARD_SERVICE,
        )
        assert "is paused" in paused and "is waited for" in resumed
        assert "team=db" in found and "2d" in found
        assert "is deleted" in gone
