"""Clients of gRPC that break the protocol, or mean harm: they are disconnected or refused, cost a bounded amount, and others go on."""

from __future__ import annotations

import asyncio
import gzip
import socket
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, TrailersReceived
from h2.settings import SettingCodes

from actors.runtime.ending import end
from models.errors import Refused
from services.ingest.doors.grpc import connection as connections
from services.ingest.doors.grpc import door as doors
from services.ingest.doors.grpc.framing import framed
from services.ingest.formats import proto
from services.machine import launch
from services.proto import incident_pb2 as pb
from tests.api.gateway_in_process import System
from tests.api.test_grpc import ACCEPTED, Client, listening, message, services
from tests.ports import free_port

ONE = "/llm.incident.v1.SentinelAlerts/SubmitAlert"
STREAM = "/llm.incident.v1.SentinelAlerts/StreamAlerts"


class Raw:
    """A client on h2, that can do what no honest one does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
        self.events: list[Any] = []

    @classmethod
    async def to(cls, port: int, **settings: int) -> Raw:
        found = cls(*await asyncio.open_connection("127.0.0.1", port))
        found.h2.initiate_connection()
        if settings:
            found.h2.update_settings({SettingCodes[name]: value for name, value in settings.items()})
        await found.flush()
        await found.hear(1)
        return found

    async def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    def ask(self, stream: int, path: str = STREAM, **more: str) -> None:
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")]
        given = {"content-type": "application/grpc", "te": "trailers", **more}
        self.h2.send_headers(stream, [*headers, *((k.replace("_", "-"), v) for k, v in given.items())])

    async def hear(self, times: int) -> None:
        """What comes, in so many pieces."""
        for _ in range(times):
            if not (data := await asyncio.wait_for(self.reader.read(1 << 16), 10)):
                return
            self.events += self.h2.receive_data(data)
        await self.flush()

    async def until_closed(self) -> bytes:
        found = b""
        async with asyncio.timeout(20):
            try:
                while data := await self.reader.read(1 << 16):
                    found += data
            except ConnectionError:
                pass
        self.writer.close()
        return found

    async def status(self) -> dict[bytes, bytes]:
        """The trailers of the call that ends next."""
        while True:
            assert not self.reader.at_eof(), "the connection was closed"
            for event in self.events:
                if isinstance(event, TrailersReceived) or getattr(event, "stream_ended", None):
                    headers = getattr(event, "headers", None)
                    if headers:
                        return {
                            k.encode() if isinstance(k, str) else k: v.encode() if isinstance(v, str) else v
                            for k, v in headers
                        }
            await self.hear(1)


def door_of(ours: System) -> Any:
    return cast(Any, ours.gateway.doors["grpc"])


async def others_go_on(client: Client, number: int = 9000) -> None:
    async with asyncio.timeout(10):
        ack = await client.sentinel.SubmitAlert(message(number))
    assert ack.status in (ACCEPTED, pb.ACK_STATUS_DUPLICATE)


@pytest.mark.asyncio
async def test_bytes_that_are_no_http2_end_their_connection() -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = b"\0\0\0\x04\0\0\0\0\0"
    cases = (
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",  # TLS
        preface + b"\xff" * 100,
        preface + settings + b"\0\0\x04\0\0\0\0\0\x01abcd",  # data on a stream that was never opened
        preface + settings + b"\xff\xff\xff\x01\x04\0\0\0\x01" + b"x" * 100_000,  # a frame of 16 MiB
        preface + settings + b"\0\0\x04\x01\x04\0\0\0\x01\xff\xff\xff\xff",  # headers that are none
        preface + settings + b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",  # a window wider by nothing
    )
    async with listening() as (ours, client):
        for case in cases:
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(case)
            await Raw(reader, writer).until_closed()
        await others_go_on(client)
        assert len(door_of(ours).connections) == 1


@pytest.mark.asyncio
async def test_half_a_greeting_and_an_idle_connection_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "GREETING_S", 0.1)
    monkeypatch.setattr(connections, "IDLE_S", 0.1)
    monkeypatch.setattr(connections, "STRANGER_S", 0.1)
    monkeypatch.setattr(doors, "LOOK_S", 0.02)
    async with listening() as (ours, client):
        await others_go_on(client)
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(b"PRI * HTTP/2.0\r\n")
        await Raw(reader, writer).until_closed()
        idle = await Raw.to(client.port)
        await idle.until_closed()
        async with asyncio.timeout(10):
            while door_of(ours).connections:
                await asyncio.sleep(0.01)
        await others_go_on(client)


@pytest.mark.asyncio
async def test_a_client_that_answers_no_ping_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PING_AFTER_S", 0.1)
    monkeypatch.setattr(connections, "PONG_S", 0.1)
    monkeypatch.setattr(doors, "LOOK_S", 0.02)
    async with listening() as (_ours, client):
        quiet = await Raw.to(client.port)
        quiet.ask(1)
        await quiet.flush()
        assert b"llm-im\0\0" in await quiet.until_closed()
        call = client.sentinel.StreamAlerts()
        await call.write(message(1))
        assert (await call.read()).status == ACCEPTED
        await asyncio.sleep(0.3)  # grpcio answers its pings
        await call.write(message(2))
        assert (await call.read()).status == ACCEPTED
        call.cancel()


@pytest.mark.asyncio
async def test_huge_metadata_is_refused() -> None:
    async with listening() as (_ours, client):
        huge = await Raw.to(client.port)
        huge.ask(1, **{f"x_{n}": "y" * 1000 for n in range(40)})
        await huge.flush()
        await huge.until_closed()
        with pytest.raises(grpc.aio.AioRpcError):
            await client.sentinel.SubmitAlert(message(1), metadata=[("x", "y" * 100_000)])
        await others_go_on(client)


@pytest.mark.asyncio
async def test_more_streams_than_allowed_end_their_connection_and_those_of_a_gateway_are_bounded() -> None:
    async with listening(grpc_max_streams=10) as (ours, client):
        many = await Raw.to(client.port)
        many.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 100_000
        many.h2.remote_settings.acknowledge()
        for stream in range(1, 2001, 2):
            many.ask(stream)
        await many.flush()
        await many.until_closed()
        assert door_of(ours).calls == 0
        door_of(ours).max_calls = 1
        held = client.sentinel.StreamAlerts()
        await held.write(message(1))
        await held.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.sentinel.SubmitAlert(message(2))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        held.cancel()
        door_of(ours).max_calls = 10
        await others_go_on(client)


@pytest.mark.parametrize("kind", ["ping", "reset", "settings"])
@pytest.mark.asyncio
async def test_floods_of_frames_that_carry_nothing_end_their_connection(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "EMPTY_FRAMES_A_SECOND", 100)
    async with listening() as (ours, client):
        flood = await Raw.to(client.port)

        async def send() -> None:
            for number in range(1, 100_000, 2):
                if kind == "ping":
                    flood.h2.ping(b"12345678")
                elif kind == "settings":
                    flood.writer.write(b"\0\0\0\x04\0\0\0\0\0")
                else:
                    flood.ask(number)
                    flood.h2.reset_stream(number)
                await flood.flush()
                await asyncio.sleep(0)

        sending = asyncio.create_task(send())
        await flood.until_closed()
        await end([sending])
        assert door_of(ours).calls == 0
        await others_go_on(client)


@pytest.mark.asyncio
async def test_bombs_and_large_messages_are_refused_before_they_take_memory() -> None:
    async with listening(max_body_bytes=100_000) as (ours, client):
        call: Any = client.channel.unary_unary(ONE)
        with pytest.raises(grpc.aio.AioRpcError) as large:
            await call(b"x" * 100_001)
        with pytest.raises(grpc.aio.AioRpcError) as bomb:
            await call(b"\0" * 50_000_000, compression=grpc.Compression.Gzip)
        packed = await client.sentinel.SubmitAlert(message(1), compression=grpc.Compression.Gzip)
        deflated = await client.sentinel.SubmitAlert(message(1), compression=grpc.Compression.Deflate)
        raw = await Raw.to(client.port)
        raw.ask(1, ONE, grpc_encoding="zstd")
        await raw.flush()
        unknown = await raw.status()
        cut = await Raw.to(client.port)
        cut.ask(1, ONE, grpc_encoding="gzip")
        body = gzip.compress(message(1).SerializeToString())[:-9]
        cut.h2.send_data(1, b"\x01" + len(body).to_bytes(4, "big") + body, end_stream=True)
        await cut.flush()
        cut_off = await cut.status()
        await others_go_on(client)
        held = door_of(ours).room.held

    assert large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert bomb.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert packed.status == ACCEPTED and deflated.incident_id == packed.incident_id
    assert unknown[b"grpc-status"] == b"12" and b"gzip" in unknown[b"grpc-accept-encoding"]
    assert (cut_off[b"grpc-status"], b"cut off" in cut_off[b"grpc-message"]) == (b"3", True)
    assert held == 0


@pytest.mark.asyncio
async def test_what_all_hold_together_is_bounded() -> None:
    async with listening() as (ours, client):
        door_of(ours).room.max_bytes = 300_000
        holder = await Raw.to(client.port)
        holder.ask(1, ONE)
        for _ in range(20):  # most of a message, whose end never comes
            holder.h2.send_data(1, b"\0\x00\x04\x00\x00"[: 5 if _ == 0 else 0] + b"x" * 10_000)
            await holder.flush()
        async with asyncio.timeout(10):
            while door_of(ours).room.held < 200_000:
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as full:
            await client.sentinel.SubmitAlert(message(1, description="x" * 150_000))
        await others_go_on(client)
        holder.writer.close()
        async with asyncio.timeout(10):
            while door_of(ours).room.held:
                await asyncio.sleep(0.01)
    assert full.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.asyncio
async def test_a_client_that_reads_no_answers_is_not_read_either_and_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "SLOW_S", 0.5)
    monkeypatch.setattr(doors, "LOOK_S", 0.05)
    async with listening() as (ours, client):
        # It gives no window for answers, and never will.
        deaf = await Raw.to(client.port, INITIAL_WINDOW_SIZE=0)
        deaf.ask(1)
        data = b"".join(framed(message(n % 50).SerializeToString()) for n in range(20_000))
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < len(data):
                room = min(deaf.h2.local_flow_control_window(1), 16_384, len(data) - sent)
                if room:
                    deaf.h2.send_data(1, data[sent : sent + room])
                    sent += room
                    await deaf.flush()
                else:
                    await deaf.hear(1)
                await asyncio.sleep(0)

        sending = asyncio.create_task(send())
        async with asyncio.timeout(20):
            while len(door_of(ours).connections) > 0:
                await asyncio.sleep(0.01)
        await end([sending])
        assert 0 < sent < len(data)
        assert (door_of(ours).calls, door_of(ours).room.held) == (0, 0)
        await others_go_on(client)


@pytest.mark.asyncio
async def test_a_deadline_that_passed_is_not_worked_on() -> None:
    async with listening() as (ours, client):
        late = await Raw.to(client.port)
        late.ask(1, ONE, grpc_timeout="0m")
        late.h2.send_data(1, framed(message(1).SerializeToString()), end_stream=True)
        await late.flush()
        assert (await late.status())[b"grpc-status"] == b"4"
        with pytest.raises(grpc.aio.AioRpcError) as waited:
            call = client.sentinel.StreamAlerts(timeout=0.2)
            await call.write(message(2))
            assert (await call.read()).status == ACCEPTED
            await call.read()
            await call
        assert waited.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await services(ours) == {"s2"}


@pytest.mark.asyncio
async def test_a_gateway_that_stops_answers_what_it_took_and_says_so() -> None:
    async with listening() as (ours, client):
        call = client.sentinel.StreamAlerts()
        for number in range(100):
            await call.write(message(number))
        acks = [await call.read()]
        stopping = asyncio.create_task(ours.gateway.doors["grpc"].stop())
        with pytest.raises(grpc.aio.AioRpcError) as over:
            while True:
                found = await call.read()
                if found is grpc.aio.EOF:
                    await call.code()
                    raise await _error(call)
                acks.append(found)
        await stopping
        stored = await services(ours)
    assert over.value.code() is grpc.StatusCode.UNAVAILABLE
    assert {each.status for each in acks} == {ACCEPTED}
    assert stored == {f"s{each.alert_id[2:]}" for each in acks}


async def _error(call: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata())


@pytest.mark.asyncio
async def test_a_port_on_which_somebody_listens_is_refused_before_anything_starts(tmp_path: Path) -> None:
    async with listening() as (_ours, client):
        with pytest.raises(Refused, match=r"server\.grpc_port"):
            launch.start_local(tmp_path, free_port(), grpc_port=client.port)


@pytest.mark.asyncio
async def test_goodbye_of_a_client_is_not_a_fault() -> None:
    async with listening() as (ours, client):
        leaving = await Raw.to(client.port)
        leaving.h2.close_connection()
        await leaving.flush()
        assert not [each for each in leaving.events if isinstance(each, ConnectionTerminated)]
        await leaving.until_closed()
        await others_go_on(client)
        assert door_of(ours).calls == 0


@pytest.mark.asyncio
async def test_a_refused_call_that_is_given_up_at_once_leaves_the_others_of_its_connection_alone() -> None:
    async with listening() as (_ours, client):
        raw = await Raw.to(client.port)
        raw.ask(1, "/no.such/Method")
        raw.h2.reset_stream(1)
        raw.ask(3, "/x", content_type="text/plain")
        raw.h2.reset_stream(3)
        raw.ask(5, ONE)
        raw.h2.send_data(5, framed(message(1).SerializeToString()), end_stream=True)
        await raw.flush()

        assert (await raw.status())[b"grpc-status"] == b"0"


@pytest.mark.asyncio
async def test_a_client_has_time_to_read_from_when_it_is_behind_not_from_its_beginning() -> None:
    async with listening() as (ours, client):
        await others_go_on(client)
        (connection,) = door_of(ours).connections
        connection._read_at -= 2 * connections.SLOW_S

        connection.pause_writing()
        connection.look()
        connection.resume_writing()

        await others_go_on(client, 9001)
        assert door_of(ours).connections == {connection}


@pytest.mark.asyncio
async def test_who_does_not_read_what_it_is_refused_is_not_read_either() -> None:
    async with listening() as (ours, client):
        deaf = await Raw.to(client.port)
        (connection,) = door_of(ours).connections
        connection._transport.set_write_buffer_limits(high=1000)
        sock = deaf.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        cast(asyncio.ReadTransport, deaf.writer.transport).pause_reading()
        deaf.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 100_000
        deaf.h2.remote_settings.acknowledge()
        asked = iter(range(1, 4001, 2))
        async with asyncio.timeout(20):
            while connection._transport.is_reading():
                for _ in range(40):
                    stream = next(asked)
                    deaf.ask(stream, f"/no.such/{stream}")
                deaf.writer.write(deaf.h2.data_to_send())
                await asyncio.sleep(0.02)
        await others_go_on(client)
        deaf.writer.transport.abort()


@pytest.mark.asyncio
async def test_what_anybody_may_call_leaves_room_for_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "OPEN_CALLS_MAX", 3)
    watch, reflection = (
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    )
    async with listening() as (ours, client):
        door = door_of(ours)
        raw = await Raw.to(client.port)
        for stream in (1, 3, 5):
            raw.ask(stream, watch)
            raw.h2.send_data(stream, framed(b""), end_stream=True)
        await raw.flush()
        async with asyncio.timeout(10):
            while door.calls < 3:
                await asyncio.sleep(0.01)
        raw.ask(7, watch)
        await raw.flush()
        assert (await raw.status())[b"grpc-status"] == b"14"
        await others_go_on(client)

        raw.h2.reset_stream(1)
        raw.events.clear()
        # Half a message of 16 MiB.
        raw.ask(9, reflection)
        raw.h2.send_data(9, b"\0\1\0\0\0" + b"x" * 10_000)
        await raw.flush()
        for _ in range(20):
            raw.h2.send_data(9, b"x" * 10_000)
        await raw.flush()
        assert (await raw.status())[b"grpc-status"] == b"8"
        assert door.room.held <= 2 * 10_000 * 20


@pytest.mark.asyncio
async def test_alerts_that_name_very_many_services_are_taken_though_they_come_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proto, "ALERTS_MAX", 100)
    async with listening() as (ours, client):
        each = [
            message(number, affected_services=[f"s{number}-{n}" for n in range(60)]) for number in range(6)
        ]
        too_many = message(7, affected_services=[f"t{n}" for n in range(101)])

        acks = await client.stream([*each, too_many, message(8)])

        assert [ack.status for ack in acks] == [ACCEPTED] * 6 + [pb.ACK_STATUS_DROPPED, ACCEPTED]
        assert len(await services(ours)) == 361
