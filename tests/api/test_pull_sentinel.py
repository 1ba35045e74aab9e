"""LLM-Sentinel, to which we connect: a server in a process of its own, which is killed and comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.ingest.sources.dialling import MESSAGE_MAX_BYTES
from services.ingest.sources.llm_sentinel import SentinelFeeds
from tests.api.gateway_in_process import System, system
from tests.peers.certificates import make_certificates
from tests.peers.collecting import fires, needs_of, running, until
from tests.peers.process import Peer
from tests.peers.sentinel import TOKEN

pytestmark = pytest.mark.asyncio


def feeds(ours: System, peer: Peer, collector: str = "collector-0", **more: Any) -> SentinelFeeds:
    sentinel = {
        "enabled": True,
        "endpoint": f"127.0.0.1:{peer.port}",
        "protocol": "grpc",
        "auth_token": TOKEN,
        "reconnect_interval": 0.05,
        **more,
    }
    return SentinelFeeds(needs_of(ours, collector, integrations={"llm_sentinel": sentinel}))


def said(number: int, **more: Any) -> dict[str, Any]:
    return {
        "alert_id": f"a{number}",
        "source": "llm-sentinel",
        "type": "ALERT_TYPE_PERFORMANCE",
        "severity": "SEVERITY_P1",
        "labels": {"alertname": f"Slow{number}"},
        "description": f"slow {number}",
        "affected_services": ["llm-api"],
        **more,
    }


def acked(peer: Peer) -> dict[str, str]:
    return {each["acked"]: each["status"] for each in peer.heard if "acked" in each}


async def test_what_it_sends_is_stored_once_and_acknowledged_though_both_sides_are_killed(
    tmp_path: Path,
) -> None:
    async with system() as ours, Peer("tests.peers.sentinel", tmp_path / "peer") as peer:
        peer.says(*(said(number) for number in range(300)))
        source = feeds(ours, peer)
        await source.start()
        await until(lambda: len(acked(peer)) >= 20)
        peer.kill()
        await until(lambda: source.why_away)
        await peer.start()
        await until(lambda: not source.why_away, lambda: source.why_away)
        # As SIGKILL would: what it was about to acknowledge is sent again to whoever comes next.
        [fetcher] = source.fetchers
        assert fetcher._task is not None
        fetcher._task.cancel()
        await asyncio.wait([fetcher._task])
        await fetcher.lease.release()

        async with running(feeds(ours, peer, "collector-1")):
            await until(lambda: len(acked(peer)) == 300, lambda: len(acked(peer)))

        assert set(acked(peer).values()) <= {"ACK_STATUS_ACCEPTED", "ACK_STATUS_DUPLICATE"}
        assert await ours.names() == {f"Slow{number}" for number in range(300)}
        assert not await ours.dead_letters.page(0, 10)


async def test_an_alert_that_began_and_ended_before_we_were_killed_does_not_begin_again(
    tmp_path: Path,
) -> None:
    async with system() as ours, Peer("tests.peers.sentinel", tmp_path / "peer") as peer:
        peer.says(said(1), said(1, resolved=True), said(2))
        async with running(feeds(ours, peer)):
            await until(lambda: len(acked(peer)) == 3)
            await fires(ours, {"Slow2"})
        # It does not know that we acknowledged anything.
        peer.kill()
        peer.heard_file.write_text("")
        await peer.start()

        async with running(feeds(ours, peer, "collector-1")):
            await until(lambda: len(acked(peer)) == 3)

        incidents = (await ours.get("/v1/incidents")).items
        [first] = [each for each in incidents if "1" in each["title"]]
        timeline = (await ours.get(f"/v1/incidents/{first['id']}/timeline")).items
        assert [each["event_type"] for each in timeline].count("Resolved") == 1
        assert not [each for each in timeline if each["event_type"] == "Reopened"]


async def test_the_same_alert_as_json_is_the_same_series_and_names_its_incident(tmp_path: Path) -> None:
    async with system() as ours, Peer("tests.peers.sentinel", tmp_path / "peer") as peer:
        posted = {
            "alert_id": "a1",
            "source": "llm-sentinel",
            "type": "Performance",
            "severity": "P1",
            "labels": {"alertname": "Slow1"},
            "description": "slow 1",
            "affected_services": ["llm-api"],
        }
        assert (await ours.post("/v1/events/llm-sentinel", posted)).status == 202
        peer.says(said(1))
        async with running(feeds(ours, peer)):
            await until(lambda: acked(peer))

        [alert] = await ours.alerts()
        [incident] = (await ours.get("/v1/incidents")).items
        [ack] = [each for each in peer.heard if "acked" in each]
        assert (ack["status"], ack["incident_id"]) == ("ACK_STATUS_DUPLICATE", incident["id"])
        assert alert["labels"]["alertname"] == "Slow1"


async def test_what_cannot_be_read_is_dropped_by_name_and_the_stream_goes_on(tmp_path: Path) -> None:
    async with system() as ours, Peer("tests.peers.sentinel", tmp_path / "peer") as peer:
        peer.says(said(1, description=""), said(2))
        async with running(feeds(ours, peer, buffer_size=1)):
            await fires(ours, {"Slow2"})
            await until(lambda: len(acked(peer)) == 2)

        [dropped] = [each for each in peer.heard if each.get("status") == "ACK_STATUS_DROPPED"]
        assert dropped["acked"] == "a1/False" and "description" in dropped["reason"]
        assert len(await ours.letters()) == 1


async def test_an_alert_too_large_for_a_message_is_dropped_by_name_and_those_behind_it_come(
    tmp_path: Path,
) -> None:
    async with system() as ours, Peer("tests.peers.sentinel", tmp_path / "peer") as peer:
        peer.says(said(1), said(2, description="x" * (MESSAGE_MAX_BYTES + 1)), said(3))
        async with running(feeds(ours, peer)) as source:
            await until(lambda: len(acked(peer)) == 3, lambda: source.why_away)
            await fires(ours, {"Slow1", "Slow3"})

        [dropped] = [each for each in peer.heard if each.get("status") == "ACK_STATUS_DROPPED"]
        assert dropped["acked"] == "a2/False" and "at most 4194304 are allowed" in dropped["reason"]
        assert sum("subscribed" in each for each in peer.heard) == 1
        letters: list[Any] = await ours.letters(1)
        [letter] = letters
        assert letter.place.endswith(" a2") and letter.truncated


async def test_a_refusal_is_told_without_the_token_and_tried_again(tmp_path: Path) -> None:
    async with system() as ours, Peer("tests.peers.sentinel", tmp_path / "peer") as peer:
        source = feeds(ours, peer, auth_token="wr0ng-token")
        async with running(source):
            await until(lambda: "UNAUTHENTICATED" in source.why_away, lambda: source.why_away)
            assert "wr0ng-token" not in source.why_away and "***" in source.why_away


async def test_over_tls_with_a_certificate_of_ours(tmp_path: Path) -> None:
    make_certificates(folder := tmp_path / "peer")
    async with system() as ours, Peer("tests.peers.sentinel", folder) as peer:
        peer.says(said(1))
        files = {"tls_ca": "ca.pem", "tls_cert": "client.pem", "tls_key": "client.key"}
        async with running(feeds(ours, peer, **{name: str(folder / file) for name, file in files.items()})):
            await until(lambda: acked(peer), (folder / "log").read_text)

        assert await ours.names() == {"Slow1"}
