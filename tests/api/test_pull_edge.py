"""LLM-Edge-Agents to which we connect: one in a process of its own, which is killed and comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.ingest.sources.llm_edge_agent import EdgeDials
from tests.api.gateway_in_process import System, system
from tests.peers.collecting import fires, needs_of, running, until
from tests.peers.edge import AGENT
from tests.peers.process import Peer

pytestmark = pytest.mark.asyncio


def dials(ours: System, peer: Peer, collector: str = "collector-0") -> EdgeDials:
    edge = {
        "enabled": True,
        "discovery_mode": "static",
        "endpoints": [f"127.0.0.1:{peer.port}"],
        "reconnect_interval": 0.05,
    }
    return EdgeDials(needs_of(ours, collector, integrations={"llm_edge_agent": edge}))


def said(number: int) -> dict[str, Any]:
    alert = {
        "alert_id": f"a{number}",
        "severity": "SEVERITY_P1",
        "labels": {"alertname": f"Hot{number}"},
        "type": "ALERT_TYPE_INFRASTRUCTURE",
        "description": f"hot {number}",
        "affected_services": ["llm-api"],
    }
    return {"alert": {"agent_id": AGENT, "alert": alert}}


def acked(peer: Peer) -> set[str]:
    return {each["alertAck"]["alertId"] for each in peer.heard if "alertAck" in each}


async def test_what_an_agent_says_is_stored_once_and_it_is_asked_though_it_was_killed(tmp_path: Path) -> None:
    async with system() as ours, Peer("tests.peers.edge", tmp_path / "peer") as peer:
        peer.says(said(1), said(2))
        async with running(dials(ours, peer)) as source:
            await until(lambda: acked(peer) == {"a1", "a2"}, lambda: source.why_away)
            peer.kill()
            await until(lambda: source.why_away)
            peer.says(said(3))
            await peer.start()
            await until(lambda: acked(peer) == {"a1", "a2", "a3"}, lambda: source.why_away)
            assert len(await ours.alerts()) == 3

            asked = await ours.post(f"/v1/edge/agents/{AGENT}/health-check", {})
            assert asked.status in (200, 202), asked.body
            await until(lambda: [each for each in peer.heard if "healthCheck" in each], lambda: peer.heard)
        await fires(ours, {each["labels"]["alertname"] for each in await ours.alerts()})
