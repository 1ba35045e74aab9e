"""A classifier that hangs: health says so, it is started anew, and what it owed is classified."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import lanes
from actors.classifier import ClassifierActor
from actors.runtime import direct
from models.classification.rules import Classifier
from models.shard.effects import Classify
from models.shard.messages import Classification
from services.wiring import helpers
from services.wiring.helpers import Helpers
from tests.api.gateway_in_process import System, system
from tests.api.test_responder import HOST, question, verdicts

pytestmark = pytest.mark.asyncio
V1 = "/v1/alerts"


async def until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.01)


async def health(ours: System) -> dict[str, Any]:
    answer = await ours.get("/health/ready")
    found: dict[str, Any] = answer.json
    return found


async def test_a_classifier_that_hangs_is_told_by_health_and_started_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = tuple(replace(lane, timeout_s=1.0, again_s=0.0) for lane in lanes.LANES)
    monkeypatch.setattr(lanes, "LANES", rows)
    monkeypatch.setattr(helpers, "ASK_EVERY_S", 0.02)
    monkeypatch.setattr(helpers, "ANSWER_TIMEOUT_S", 0.1)
    monkeypatch.setattr(helpers, "SILENT_AFTER_S", 0.2)
    never = asyncio.Event()

    async def hang(_payload: bytes) -> bytes:
        await never.wait()
        return b""

    async with system() as ours:

        async def is_well() -> bool:
            return bool((await health(ours))["status"] == "ready")

        await until(is_well)
        hanging = ours.cluster.get("classifier-0")
        monkeypatch.setattr(hanging, "classify", hang)
        monkeypatch.setattr(hanging, "metrics", hang)
        labels = {"alertname": "Down", "service": "s", "severity": "critical"}
        assert (await ours.post(V1, {"labels": labels})).status < 300

        async def is_told() -> bool:
            body = await health(ours)
            return body["degraded"] == ["classifier-0"] and "does not answer" in str(body["reasons"])

        async def is_classified() -> bool:
            (incident,) = (await ours.get("/v1/incidents")).json["items"]
            return incident["classified_by"] is not None

        await until(is_told)
        await until(is_classified)
        await until(is_well)
        assert ours.cluster.get("classifier-0") is not hanging
        never.set()


async def test_who_is_asked_are_those_behind_the_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    class Peers:
        def __init__(self) -> None:
            self.asked: set[str] = set()

        async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
            self.asked.add(name)
            return b""

    monkeypatch.setattr(helpers, "ASK_EVERY_S", 0.0)
    peers = Peers()
    found = Helpers(peers, ["classifier-0", "classifier-1", "responder-0", "control-a", "backup-a"])
    watch = asyncio.get_running_loop().create_task(found.watch())
    await asyncio.sleep(0.01)
    watch.cancel()

    assert peers.asked == {"classifier-0", "classifier-1", "responder-0"} and found.away() == {}


async def test_a_batch_that_takes_long_is_answered_in_part_and_others_get_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow:
        def classify(self, effect: Classify) -> Classification:
            # As a rule that explodes does: it holds the loop.
            time.sleep(0.02)
            return Classifier().classify(effect)

    monkeypatch.setattr("actors.classifier.BATCH_S", 0.1)
    actor = ClassifierActor(HOST, Slow())
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.get_running_loop().create_task(other())
    ids = [bytes([number]) * 16 for number in range(100)]
    said = verdicts(await actor.classify(msgspec.msgpack.encode([question(one) for one in ids])))
    beside.cancel()

    assert 1 <= len(said) < 100 and [each.incident_id for each in said] == ids[: len(said)]
    assert turns >= len(said) - 1


async def test_who_listens_is_ended_although_it_takes_no_connection(tmp_path: Path) -> None:
    path = tmp_path / "actor.sock"
    code = f"import socket, time; s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen(1); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)

        assert direct.kill_listener(path)
        assert process.wait(10) == -signal.SIGKILL

        assert direct.kill_listener(path), "nobody listens: nobody is hurt"


async def test_who_listens_is_not_known_where_its_queue_is_full(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "actor.sock"))
        listener.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(tmp_path / "actor.sock"))

        assert not direct.kill_listener(tmp_path / "actor.sock"), "and this process is not ended"
