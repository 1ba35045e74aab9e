"""LLM-Shield, which is asked for its incidents: a server in a process of its own that wants a client certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.ingest.sources.llm_shield import ShieldPolls
from tests.api.gateway_in_process import System, system
from tests.peers.certificates import make_certificates
from tests.peers.collecting import fires, needs_of, running, until
from tests.peers.process import Peer

pytestmark = pytest.mark.asyncio


def polls(ours: System, peer: Peer, collector: str = "collector-0", **more: Any) -> ShieldPolls:
    shield = {
        "enabled": True,
        "endpoint": f"https://127.0.0.1:{peer.port}",
        "protocol": "https",
        "tls_cert": str(peer.folder / "client.pem"),
        "tls_key": str(peer.folder / "client.key"),
        "tls_ca": str(peer.folder / "ca.pem"),
        "poll_interval": 0.05,
        "reconnect_interval": 0.05,
        **more,
    }
    return ShieldPolls(needs_of(ours, collector, integrations={"llm_shield": shield}))


def incident(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"s{number}",
        "timestamp": "2026-01-31T12:00:00Z",
        "threat_type": "DataExfiltration",
        "severity": "High",
        "affected_assets": [{"id": "1", "type": "service", "name": "llm-api"}],
        "indicators": [],
        "mitigation_status": "InProgress",
        **more,
    }


async def test_incidents_are_read_on_from_the_cursor_though_both_sides_are_killed(tmp_path: Path) -> None:
    make_certificates(tmp_path / "peer")
    async with system() as ours, Peer("tests.peers.shield", tmp_path / "peer") as peer:
        peer.says(*(incident(number) for number in range(8)), {"id": "s100"})
        peer.says(incident(3, mitigation_status="Mitigated"), incident(9))
        async with running(polls(ours, peer)) as source:
            await fires(ours, {f"s{number}" for number in (0, 1, 2, 4, 5, 6, 7, 9)}, "shield_id")
            peer.kill()
            await until(lambda: "127.0.0.1" in source.why_away)
            await peer.start()
            peer.says(incident(10))
            await fires(ours, {f"s{number}" for number in (0, 1, 2, 4, 5, 6, 7, 9, 10)}, "shield_id")

        peer.says(incident(10, mitigation_status="Mitigated"))
        asked = len(peer.heard)
        async with running(polls(ours, peer, "collector-1")):
            await fires(ours, {f"s{number}" for number in (0, 1, 2, 4, 5, 6, 7, 9)}, "shield_id")

        assert min(each["after"] for each in peer.heard[asked:] if "after" in each) == 12
        [letter] = await ours.letters()
        assert b"s100" in letter.payload  # type: ignore[attr-defined]


async def test_without_a_certificate_it_says_nothing(tmp_path: Path) -> None:
    make_certificates(tmp_path / "peer")
    async with system() as ours, Peer("tests.peers.shield", tmp_path / "peer") as peer:
        peer.says(incident(1))
        for files, why in (
            ({"tls_cert": None, "tls_key": None}, "127.0.0.1"),
            ({"tls_ca": None}, "127.0.0.1"),
            ({"tls_ca": str(tmp_path / "missing.pem")}, "can't be used"),
        ):
            source = polls(ours, peer, **files)
            async with running(source):
                await until(lambda: why in source.why_away, lambda: source.why_away)  # noqa: B023

        assert await ours.alerts() == []
