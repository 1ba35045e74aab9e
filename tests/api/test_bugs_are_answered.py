"""A bug behind a door is answered like any failure: whoever waits for it is a stream, and would wait for ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.ingest.doors.grpc import alerts as grpc_door
from services.ingest.formats.events import EventsFormat
from services.ingest.skew import Skews
from services.ingest.sources import nats
from services.ingest.sources.messages import Messages
from services.ingest.submit import Submitter, _Part
from tests.api.gateway_in_process import System, alert, system
from tests.api.queue_peers import NatsPeer
from tests.api.test_alert_stream import opened, told
from tests.api.test_grpc import ACCEPTED, RETRY, listening, message
from tests.api.test_hot import open_to, request, under_way
from tests.api.test_queues import are_there, is_empty, source_of, until

pytestmark = pytest.mark.asyncio


def breaks(monkeypatch: pytest.MonkeyPatch, where: type[Any], name: str) -> Callable[[], None]:
    """Have a method raise, until what this returns is called."""
    was = getattr(where, name)
    broken = True

    def method(*given: Any, **named: Any) -> Any:
        if broken:
            raise RuntimeError("a bug")
        return was(*given, **named)

    def mended() -> None:
        nonlocal broken
        broken = False

    monkeypatch.setattr(where, name, method)
    return mended


#: Before it goes to a shard, and when the shard's answer is there.
BUGS = [(Skews, "look"), (_Part, "answered")]


@pytest.mark.parametrize(("where", "name"), BUGS)
async def test_a_frame_of_a_websocket_and_the_stream_goes_on(
    ours: System, monkeypatch: pytest.MonkeyPatch, where: type[Any], name: str
) -> None:
    async with opened(await ours.listen()) as client:
        mended = breaks(monkeypatch, where, name)
        failed = await told(client, {"id": 1, "alerts": [{"labels": {"alertname": "A", "service": "s"}}]})
        mended()
        stored = await told(client, {"id": 2, "alerts": [{"labels": {"alertname": "A", "service": "s"}}]})

    assert (failed["id"], failed["status"] >= 500) == (1, True)
    assert (stored["id"], stored["status"]) == (2, 202)


@pytest.mark.parametrize(("where", "name"), [*BUGS, (grpc_door.AlertStream, "answers")])
async def test_an_alert_of_a_grpc_stream_and_the_stream_goes_on(
    monkeypatch: pytest.MonkeyPatch, where: type[Any], name: str
) -> None:
    async with listening() as (_ours, client):
        call = client.sentinel.StreamAlerts()
        mended = breaks(monkeypatch, where, name)
        await call.write(message(1))
        failed = await call.read()
        mended()
        await call.write(message(2))
        stored = await call.read()
        await call.done_writing()

    assert (failed.status, stored.status) == (RETRY, ACCEPTED)


@pytest.mark.parametrize(("where", "name"), BUGS)
async def test_a_plain_request(
    ours: System, monkeypatch: pytest.MonkeyPatch, where: type[Any], name: str
) -> None:
    protocol, wire = open_to(ours)
    mended = breaks(monkeypatch, where, name)
    protocol.data_received(request(alert("A")))
    [(failed, _headers, _body)] = await wire.answers()
    mended()
    protocol, wire = open_to(ours)
    protocol.data_received(request(alert("A")))
    [(stored, _headers, _body)] = await wire.answers()

    assert (failed >= 500, stored, ours.gateway.hot.taken) == (True, 200, 2)
    assert under_way(ours) == (0, 0)


async def test_one_who_cannot_be_told_costs_nobody_else_his_answer(
    ours: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Submitter.begin

    def deaf(self: Submitter, reading: Any, arrival: Any, done: Any) -> None:
        def told(_receipt: object) -> None:
            raise RuntimeError("a bug")

        begin(self, reading, arrival, told if arrival.format == "v1" else done)

    monkeypatch.setattr(Submitter, "begin", deaf)
    async with opened(await ours.listen()) as client:
        await client.send(json.dumps({"alerts": [{"labels": {"alertname": "A", "service": "s"}}]}))
        assert (
            await ours.post("/api/v2/alerts", [{"labels": {"alertname": "B", "service": "s"}}])
        ).status == 200


@pytest.mark.parametrize(("where", "name"), [*BUGS, (EventsFormat, "target")])
async def test_a_message_of_a_queue_and_those_behind_it_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: type[Any], name: str
) -> None:
    peer = NatsPeer(tmp_path)
    peer.start()
    topic = peer.topic()
    try:
        await peer.create(topic)
        async with system(messaging=peer.settings(topic)) as ours:
            mended = breaks(monkeypatch, where, name)
            await peer.publish(topic, [json.dumps([alert("Odd")]).encode()])
            letters: list[Any] = await ours.letters(1)
            mended()
            await peer.publish(topic, [json.dumps([alert("Next")]).encode()])
            await until(is_empty(peer, topic), "all acknowledged")
            await until(are_there(ours, await ours.names() | {"Next"}), "what comes next")
            assert len(letters) == 1
    finally:
        peer.stop()


async def test_a_bug_that_ends_a_lane_is_told_and_its_queue_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats, "ACK_WAIT_S", 0.5)
    peer = NatsPeer(tmp_path)
    peer.start()
    topic = peer.topic()

    async def is_told() -> bool:
        return "a bug" in source_of(ours).why_away

    try:
        await peer.create(topic)
        async with system(messaging=peer.settings(topic)) as ours:
            mended = breaks(monkeypatch, Messages, "begin")
            await peer.publish(topic, [json.dumps([alert("Odd")]).encode()])
            await until(is_told, "it is told")
            mended()
            await until(is_empty(peer, topic), "all acknowledged")
            assert await ours.names() == {"Odd"}
    finally:
        peer.stop()
