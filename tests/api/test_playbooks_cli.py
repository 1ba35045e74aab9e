"""`llm-im playbooks` against a whole system: applied, run, approved, looked at."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from models.playbook.work import SUCCEEDED, Capture, Done, Work
from tests.api.gateway_in_process import alert, system
from tests.api.test_playbooks import known
from tests.command_line import CommandLine

pytestmark = pytest.mark.asyncio

BOOK = """
name: restart-api
version: "1"
metadata: {description: asks first}
steps:
  - id: ask
    type: approval
    approval: {within: 1h}
  - id: fix
    type: remediation
    actions:
      - type: service_restart
        service: llm-api
        method: rolling
"""


class Doer:
    """Port Worker: whatever it is, it is done."""

    async def work(self, work: Work, trace: str | None = None) -> Done:
        return Done(SUCCEEDED, "3 pods", captures=(Capture("pods", "text/plain", "a\tup\nb\x1b[2J down"),))

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_playbook_from_the_command_line_asks_repairs_and_is_paused(tmp_path: Path) -> None:
    (tmp_path / "restart.yaml").write_text(BOOK)
    (tmp_path / "broken.yaml").write_text("name: x\nversion: '1'\nstepz: []\n")
    async with system(worker=Doer(), playbooks={"enabled": True}) as ours:
        run = CommandLine(f"http://127.0.0.1:{await ours.listen()}", "playbooks")

        await ours.post("/api/v2/alerts", [alert("Slow")])
        incident = str((await ours.get("/v1/incidents")).items[0]["id"])

        broken = await run("apply", str(tmp_path), code=1)
        listed = await run("list")
        shown = await run("show", "restart-api")
        await known(ours, "restart-api")
        started = await run("run", "restart-api", incident[-12:], "--reason", "it hangs")
        identity = json.loads(await run("history", "--json"))["items"][0]["id"]
        waits = await run("history", identity)
        other = await run("approve", identity, "--question", "0123456789abcdef", code=6)
        approved = await run("approve", identity[-12:], "--reason", "go")
        async with asyncio.timeout(10):
            while not (await ours.get(f"/v1/runs/{identity}")).json["ended_at"]:
                await asyncio.sleep(0.05)
        over = await run("history", identity)
        captured = await run("history", identity, "--capture", "pods")
        missing = await run("history", identity, "--capture", "nothing", code=5)
        counted = await run("stats")
        paused = await run("pause", "restart-api")
        late = await run("cancel", identity, code=6)

        assert "restart-api 1 applied: active" in broken and "broken.yaml" in broken and "stepz" in broken
        assert "asks first" in listed and "type: approval" in shown
        assert " runs " in started
        assert "waits for anybody who may respond at ask" in waits
        assert "--question " in waits and "does not ask this any more" in other
        assert "ask: " in approved and "approved:" in approved
        assert captured == "a       up\nb\ufffd[2J down\n"
        assert "there are pods (" in missing
        assert "service_restart: succeeded  3 pods" in over and ": it hangs" in over
        assert "restart-api" in counted
        assert "restart-api is paused" in paused
        assert "the run is over" in late
