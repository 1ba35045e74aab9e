"""`llm-im silences` against a whole system: made, shown, extended, ended; and what an incident says of it."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.api.gateway_in_process import FIRST_SHARD_SERVICE, alert, system
from tests.command_line import CommandLine

pytestmark = pytest.mark.asyncio


async def test_a_silence_from_the_command_line_and_the_incident_that_says_so() -> None:
    async with system(silences={"force_at_least": 2}) as ours:
        run = CommandLine(f"http://127.0.0.1:{await ours.listen()}")

        await ours.post("/api/v2/alerts", [alert("Slow", pod=pod) for pod in "abc"])
        service = f"service={FIRST_SHARD_SERVICE}"

        preview = await run("silences", "preview", service)
        refused = await run("silences", "add", service, "--for", "2h", code=6)
        made = await run("silences", "add", service, "--for", "2h", "--comment", "deploy", "--force")
        identity = made.split()[0]
        shown = json.loads(await run("silences", "show", identity, "--json"))
        longer = await run("silences", "extend", identity, "--for", "3h")
        listed = await run("silences", "list")
        async with asyncio.timeout(5):
            while not (incident := (await ours.get("/v1/incidents")).items[0])["muted"]:
                await asyncio.sleep(0.05)
        heading = await run("incidents", "show", str(incident["id"]))
        over = await run("silences", "expire", identity)

        assert "3 of the 3 firing alerts would be muted; that needs --force" in preview
        assert "--force" in refused
        assert "mutes" in made and "3 of the 3 firing alerts" in made
        assert shown["comment"] == "deploy" and shown["matchers"] == [f'service="{FIRST_SHARD_SERVICE}"']
        assert identity in longer and identity in listed
        assert f"by silence {identity}" in heading and "deploy" in heading
        assert "has ended" in over
        assert "no matching silences" in await run("silences", "list")
