"""Whoever breaks the protocol of the WebSocket, or sends what no frame is, is answered or disconnected; its neighbours go on, and nothing
of it is left.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import zlib

import pytest
from structlog.testing import capture_logs

from tests.api.gateway_in_process import System
from tests.api.test_alert_stream import PATH, alerts, opened, told

#: The same every time: what fails once must fail again.
CHANCE = random.Random(12)


#: The first byte of a close, and the whole of one for a fault of ours (1011).
CLOSE, FAULT = b"\x88", b"\x03\xf3"


async def raw(port: int, extensions: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that is open as a WebSocket, to say anything by."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(CHANCE.randbytes(16)).decode()
    lines = [f"GET {PATH} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *([extensions] if extensions else [])]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return reader, writer


def masked(first: int, payload: bytes, said: int | None = None) -> bytes:
    """A frame with this first byte, that says to have `said` bytes."""
    return (
        bytes([first, 0x80 | 127])
        + (len(payload) if said is None else said).to_bytes(8, "big")
        + bytes(4)
        + payload
    )


async def gone(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def nobody_is_left(ours: System) -> None:
    async with asyncio.timeout(10):
        while ours.gateway._websocket._connections:
            await asyncio.sleep(0.01)


BROKEN = {
    "no mask": b"\x81\x02{}",
    "an opcode that there is not": masked(0x83, b"{}"),
    "a reserved bit": masked(0xF1, b"{}"),
    "a long ping": masked(0x89, b"x" * 126),
    "a ping in pieces": masked(0x09, b"x"),
    "the rest of nothing": masked(0x80, b"{}"),
    "no UTF-8": masked(0x81, b"\xff\xfe"),
    "more than may be": masked(0x81, b"x", 1 << 40),
    "pieces that come to too much": b"".join([masked(0x01, b"[" * 600_000), masked(0x80, b"[" * 600_000)]),
    "a deflated frame that nobody agreed on": masked(0xC1, b"x"),
}


@pytest.mark.asyncio
async def test_who_breaks_the_protocol_is_disconnected_and_neighbours_go_on(ours: System) -> None:
    port = await ours.listen()
    async with opened(port) as neighbour:
        for number, (what, sent) in enumerate(BROKEN.items()):
            reader, writer = await raw(port)
            writer.write(sent)
            said = await gone(reader)
            # A close that says why; TCP may drop it when there is more that nobody reads.
            assert CLOSE in said or len(sent) > 1000, what
            assert FAULT not in said, what
            writer.close()
            assert (await told(neighbour, {"id": number, "alerts": alerts(number, 1)}))["status"] == 202, what
    await nobody_is_left(ours)


@pytest.mark.asyncio
async def test_a_deflate_bomb_does_not_go_off(ours: System) -> None:
    port = await ours.listen()
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(b"[" * (64 * 1024 * 1024)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    reader, writer = await raw(port, "Sec-WebSocket-Extensions: permessage-deflate")
    writer.write(masked(0xC1, bomb[:-4]))

    said = await gone(reader)
    assert CLOSE in said and FAULT not in said
    writer.close()
    await nobody_is_left(ours)


@pytest.mark.asyncio
async def test_frames_that_stop_half_way_hold_up_nobody(ours: System) -> None:
    port = await ours.listen()
    whole = masked(0x81, json.dumps({"id": 1, "alerts": alerts(0, 1)}).encode())
    open_ones = [await raw(port) for _ in range(20)]
    for place, (_reader, writer) in enumerate(open_ones):
        writer.write(whole[: 1 + place * (len(whole) - 2) // 20])
    async with opened(port) as neighbour:
        assert (await told(neighbour, {"id": 1, "alerts": alerts(100, 1)}))["status"] == 202
    for _reader, writer in open_ones:
        writer.close()
    await nobody_is_left(ours)
    assert [each["labels"]["service"] for each in await ours.alerts()] == ["s100"]


@pytest.mark.asyncio
async def test_whatever_a_frame_says_is_answered_or_ends_its_connection(ours: System) -> None:
    port = await ours.listen()
    good = json.dumps({"id": 1, "alerts": alerts(0, 2)}).encode()
    for _ in range(60):
        sent = bytearray(good)
        for _change in range(CHANCE.randint(1, 4)):
            sent[CHANCE.randrange(len(sent))] = CHANCE.randrange(256)
        sent = sent[: CHANCE.randint(1, len(sent))] if CHANCE.random() < 0.3 else sent
        reader, writer = await raw(port)
        writer.write(masked(0x81, bytes(sent)))
        # Behind the greeting comes an answer to what was sent, or a close with a reason: none of a fault of ours.
        said = b""
        async with asyncio.timeout(10):
            while b'"status"' not in said and CLOSE not in said:
                said += (more := await reader.read(1 << 16))
                assert more, bytes(sent)
        assert FAULT not in said, bytes(sent)
        writer.close()
    async with opened(port) as neighbour:
        assert (await told(neighbour, {"id": 1, "alerts": alerts(100, 1)}))["status"] == 202
    await nobody_is_left(ours)


@pytest.mark.asyncio
async def test_a_text_that_is_no_utf8_is_told_in_one_line_and_harms_no_neighbour(
    ours: System, caplog: pytest.LogCaptureFixture
) -> None:
    port = await ours.listen()
    frames = {
        "at once": masked(0x81, b'{"alerts": "\xff"}'),
        "in pieces": masked(0x01, b'{"alerts": "\xc3') + masked(0x00, b"") + masked(0x80, b""),
        "and a close": masked(0x81, b"\xff") + masked(0x88, b""),
    }
    async with opened(port) as neighbour:
        for number, (what, sent) in enumerate(frames.items()):
            reader, writer = await raw(port)
            with capture_logs() as logs:
                writer.write(sent)
                said = await gone(reader)
            writer.close()

            (line,) = [
                each for each in logs if each["event"] == "WebSocket closed: a text message is no UTF-8"
            ]
            assert (line["sender"], line["path"]) == ("127.0.0.1", PATH)
            assert CLOSE in said, what
            assert (await told(neighbour, {"id": number, "alerts": alerts(number, 1)}))["status"] == 202, what
        # A character may be cut in two.
        reader, writer = await raw(port)
        text = json.dumps({"id": 1, "alerts": [{"labels": {"alertname": "ü"}}]}, ensure_ascii=False).encode()
        cut = text.index(b"\xc3") + 1
        writer.write(masked(0x01, text[:cut]) + masked(0x00, b"") + masked(0x80, text[cut:]))
        async with asyncio.timeout(10):
            assert b'"status":202' in await reader.readuntil(b'"status":202')
        writer.close()
    assert not caplog.records
    await nobody_is_left(ours)
