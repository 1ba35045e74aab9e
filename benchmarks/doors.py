"""How many alerts a second come in by each door, beside HTTP at 64 a request, in alternating turns on one system (claim: gRPC).

    python -m benchmarks.doors [--quick]

All send repeated alerts, each protocol its own series. `nats` writes to a stream on disk (a nats-server of its own, which syncs each message, as
docs/queues.md asks for), and is over when all is acknowledged. `grpc stream` is one stream with one alert a message; "wire" writes ready-made frames, "grpcio" is the
client that people have in Python, which costs more than the server. A WebSocket takes what /v1/alerts does, and answers alert by alert as that does;
Alertmanager's own format (the first line) has an empty answer.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import load
from benchmarks.bodies import Batch, Bodies
from benchmarks.harness import NOW, RESULTS, ROOT, commit, machine
from benchmarks.load import Spec
from benchmarks.own import own
from benchmarks.peers import free_port

SERIES, BATCH = 5_000, 64
TURNS, TURN_S = 7, 3.0
#: Long enough to send every series to both gateways, twice.
WARM_S = 6.0
QUICK_TURNS, QUICK_TURN_S = 3, 2.0
#: Senders at once, as HTTP has (benchmarks/ingest.py).
SENDERS = 4
#: Alerts, and batches, of a stream that wait for their acknowledgement: of batches as many as the server allows, as by the WebSocket.
AHEAD, AHEAD_BATCHES = 1000, 16
STREAM = "/llm.incident.v1.SentinelAlerts/StreamAlerts"
STREAM_BATCHES = "/llm.incident.v1.SentinelAlerts/StreamBatches"
FRAME_BYTES = 16_384
SUBMIT = "/llm.incident.v1.SentinelAlerts/SubmitBatch"
NATS, SUBJECT, STREAM_NAME, GROUP = "nats, 64 a message", "bench.ingest", "bench-ingest", "bench"
#: Messages of the writer that NATS has not confirmed yet.
UNCONFIRMED = 64


#: The moment that the alerts of all turns are of, whose processes are told it.
moment = NOW


def parsed_alerts() -> list[dict[str, Any]]:
    """The alerts of one pass, as HTTP sends them."""
    bodies = Bodies("repeats", SERIES, BATCH, now=moment)
    found: list[dict[str, Any]] = []
    for batch in bodies.build():
        found += json.loads(batch.body)
        if len(found) >= SERIES:
            break
    return found[:SERIES]


def as_v1(door: str) -> list[dict[str, Any]]:
    """The same as POST /v1/alerts takes them, as series of this door's own."""
    return [
        {
            "labels": {**each["labels"], "door": door},
            "annotations": each["annotations"],
            "starts_at": each["startsAt"],
        }
        for each in parsed_alerts()
    ]


def messages() -> list[bytes]:
    from services.proto import incident_pb2 as pb

    return [
        pb.AlertMessage(
            alert_id=f"b-{number}",
            source="llm-sentinel",
            timestamp=int(moment * 1000) - 60_000,
            severity=pb.SEVERITY_P2,
            labels={**alert["labels"], "door": "grpc"},
            description=alert["annotations"].get("description", "d"),
            annotations=alert["annotations"],
            affected_services=[alert["labels"]["service"]],
        ).SerializeToString()
        for number, alert in enumerate(parsed_alerts())
    ]


def grpc_batches(http: str, port: int, seconds: float) -> tuple[int, float]:
    import grpc

    from services.ingest.formats.proto import joined

    sent = messages()
    batches = [joined(sent[first : first + BATCH]) for first in range(0, len(sent), BATCH)]
    done = [0] * SENDERS

    def send(number: int) -> None:
        # A connection each, so that the kernel spreads them over the gateways.
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            call: Any = channel.unary_unary(SUBMIT)
            at = number
            while time.monotonic() < until:
                call(batches[at % len(batches)])
                at += SENDERS
                done[number] += BATCH

    threads = [threading.Thread(target=send, args=(number,)) for number in range(SENDERS)]
    begun = time.monotonic()
    until = begun + seconds
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return sum(done), time.monotonic() - begun


def grpcio_stream(http: str, port: int, seconds: float) -> tuple[int, float]:
    import grpc

    sent = messages()
    places = threading.Semaphore(AHEAD)
    begun = time.monotonic()

    def each() -> Iterator[bytes]:
        at = 0
        while time.monotonic() < begun + seconds:
            places.acquire()
            yield sent[at % len(sent)]
            at += 1

    count = 0
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.stream_stream(STREAM)
        for _ack in call(each()):
            places.release()
            count += 1
    return count, time.monotonic() - begun


#: Kinds of HTTP/2 frames, of those that a server sends to us; and the end of a stream, as a flag.
DATA, HEADERS, SETTINGS, WINDOW_UPDATE, END_STREAM = 0, 1, 4, 8, 1
#: The setting that says how much of a stream may be sent.
INITIAL_WINDOW = 4


class Wire(asyncio.Protocol):
    """A stream of ready-made frames. What comes is only counted: a client that knew HTTP/2 would cost as much as the server."""

    def __init__(self, path: str, frames: list[bytes], ahead: int, seconds: float) -> None:
        from h2.connection import H2Connection
        from h2.settings import SettingCodes

        beginning = H2Connection()
        beginning.local_settings = type(beginning.local_settings)(
            client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: (1 << 31) - 1}
        )
        beginning.initiate_connection()
        beginning.increment_flow_control_window(1 << 30)
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")]
        beginning.send_headers(1, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])
        self._beginning = beginning.data_to_send()
        self._frames, self._ahead_max, self._seconds = frames, ahead, seconds
        self._at = self._ahead = self.count = 0
        self._room = {0: 65_535, 1: 65_535}
        self._came, self._answers = bytearray(), bytearray()
        self._is_over = False
        self.over: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._beginning)
        self.begun = time.monotonic()

    def data_received(self, data: bytes) -> None:
        came = self._came
        came += data
        at = 0
        while len(came) - at >= 9:
            begin = at + 9
            end = begin + int.from_bytes(came[at : at + 3], "big")
            if len(came) < end:
                break
            self._frame(
                came[at + 3], came[at + 4], int.from_bytes(came[at + 5 : begin], "big"), came[begin:end]
            )
            at = end
        del came[:at]
        self._count()
        self._send()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytearray) -> None:
        if kind == DATA:
            self._answers += payload
        elif kind == WINDOW_UPDATE:
            self._room[stream] += int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags:
            self._transport.write(b"\0\0\0\x04\x01\0\0\0\0")
            for at in range(0, len(payload), 6):
                if int.from_bytes(payload[at : at + 2], "big") == INITIAL_WINDOW:
                    self._room[1] += int.from_bytes(payload[at + 2 : at + 6], "big") - 65_535
        elif kind == HEADERS and flags & END_STREAM and not self.over.done():
            self.over.set_result(time.monotonic() - self.begun)

    def _count(self) -> None:
        at, answers = 0, self._answers
        while len(answers) - at >= 5:
            end = at + 5 + int.from_bytes(answers[at + 1 : at + 5], "big")
            if len(answers) < end:
                break
            at = end
            self.count += 1
            self._ahead -= 1
        del answers[:at]

    def _send(self) -> None:
        out = []
        while self._ahead < self._ahead_max and not self._is_over:
            frame = self._frames[self._at % len(self._frames)]
            size = len(frame) - 9 * -(-len(frame) // (FRAME_BYTES + 9))
            if min(self._room.values()) < size:
                break
            if time.monotonic() - self.begun > self._seconds:
                self._is_over = True
                out.append(b"\0\0\0\0\x01\0\0\0\x01")  # empty data that ends the stream
                break
            for stream in self._room:
                self._room[stream] -= size
            out.append(frame)
            self._at += 1
            self._ahead += 1
        if out:
            self._transport.write(b"".join(out))


def frames_of(message: bytes) -> bytes:
    """A message as frames of data on stream 1."""
    body = b"\0" + len(message).to_bytes(4, "big") + message
    parts = [body[first : first + FRAME_BYTES] for first in range(0, len(body), FRAME_BYTES)]
    return b"".join(len(part).to_bytes(3, "big") + b"\0\0\0\0\0\x01" + part for part in parts)


def wire(
    path: str, sent: list[bytes], connections: int, ahead: int, seconds: float, port: int
) -> tuple[int, float]:
    """Answers, and the seconds that they took."""

    async def one(number: int, frames: list[bytes]) -> tuple[int, float]:
        mine = frames[number * len(frames) // connections :] + frames[: number * len(frames) // connections]
        _transport, found = await asyncio.get_running_loop().create_connection(
            lambda: Wire(path, mine, ahead, seconds), "127.0.0.1", port
        )
        took = await found.over
        return found.count, took

    async def run() -> tuple[int, float]:
        frames = [*map(frames_of, sent)]
        done = await asyncio.gather(*[one(number, frames) for number in range(connections)])
        return sum(count for count, _ in done), max(took for _, took in done)

    return load.run(run())


def wire_stream(http: str, port: int, seconds: float) -> tuple[int, float]:
    return wire(STREAM, messages(), 1, AHEAD, seconds, port)


def wire_batches(http: str, port: int, seconds: float) -> tuple[int, float]:
    from services.ingest.formats.proto import joined

    sent = messages()
    batches = [joined(sent[first : first + BATCH]) for first in range(0, len(sent), BATCH)]
    count, took = wire(STREAM_BATCHES, batches, SENDERS, AHEAD_BATCHES, seconds, port)
    return count * BATCH, took


def websocket(http: str, port: int, seconds: float) -> tuple[int, float]:
    from websockets.asyncio.client import connect

    async def one(number: int, bodies: list[str], until: float) -> int:
        place = http.replace("http://", "ws://") + "/v1/stream/alerts"
        count, at, ahead = 0, number, 0
        async with connect(place, max_size=None) as client:
            window = json.loads(await client.recv())["window"]
            while ahead or time.monotonic() < until:
                while ahead < window and time.monotonic() < until:
                    await client.send(bodies[at % len(bodies)])
                    at += SENDERS
                    ahead += 1
                await client.recv()
                ahead -= 1
                count += BATCH
        return count

    async def run() -> tuple[int, float]:
        sent = as_v1("websocket")
        bodies = [json.dumps({"alerts": sent[first : first + BATCH]}) for first in range(0, len(sent), BATCH)]
        begun = time.monotonic()
        counts = await asyncio.gather(*[one(n, bodies, begun + seconds) for n in range(SENDERS)])
        return sum(counts), time.monotonic() - begun

    return asyncio.run(run())


def v1_bodies(door: str) -> list[bytes]:
    """What POST /v1/alerts takes, as series of this door's own."""
    sent = as_v1(door)
    return [json.dumps(sent[first : first + BATCH]).encode() for first in range(0, len(sent), BATCH)]


def websocket_wire(http: str, port: int, seconds: float) -> tuple[int, float]:
    from benchmarks.websocket import send

    count, took = send(http, [b'{"alerts":%b}' % body for body in v1_bodies("frames")], SENDERS, seconds)
    return count * BATCH, took


def http_v1(http: str, port: int, seconds: float) -> tuple[int, float]:
    batches = [Batch(body, BATCH) for body in v1_bodies("v1")]
    found = load.run(load.closed_loop(f"{http}/v1/alerts", batches, SENDERS, seconds))
    return found.alerts, found.elapsed_s


def nats(_http: str, port: int, seconds: float) -> tuple[int, float]:
    import nats as library

    alerts = as_v1("nats")
    bodies = [json.dumps(alerts[first : first + BATCH]).encode() for first in range(0, len(alerts), BATCH)]

    async def write(stream: Any, numbers: Iterator[int], until: float) -> int:
        count = 0
        while time.monotonic() < until:
            number = next(numbers) % len(bodies)
            await stream.publish(SUBJECT, bodies[number])
            count += min(BATCH, len(alerts) - number * BATCH)
        return count

    async def run() -> tuple[int, float]:
        client = await library.connect(f"nats://127.0.0.1:{port}")
        stream = client.jetstream(timeout=60)
        begun, numbers = time.monotonic(), itertools.count()
        writers = [write(stream, numbers, begun + seconds) for _ in range(UNCONFIRMED)]
        count = sum(await asyncio.gather(*writers))
        while (info := await stream.consumer_info(STREAM_NAME, GROUP)).num_pending or info.num_ack_pending:
            await asyncio.sleep(0.01)
        took = time.monotonic() - begun
        await client.close()
        return count, took

    return asyncio.run(run())


def http_64(http: str, port: int, seconds: float) -> tuple[int, float]:
    bodies = Bodies("repeats", SERIES, BATCH, now=moment)
    spec = Spec(bodies, concurrency=SENDERS, duration_s=seconds, warmup_s=0)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", "--url", http, "--spec", "-"],
        cwd=ROOT, input=spec.to_json(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)["measured"]
    return found["alerts"], found["elapsed_s"]


WAYS: dict[str, Callable[[str, int, float], tuple[int, float]]] = {
    "http, 64 a request": http_64,
    "http /v1/alerts, 64 a request": http_v1,
    "grpc, stream of batches of 64, wire": wire_batches,
    "grpc, batches of 64, grpcio": grpc_batches,
    "grpc stream, one a message, wire": wire_stream,
    "grpc stream, one a message, grpcio": grpcio_stream,
    "websocket, 64 a frame, wire": websocket_wire,
    "websocket, 64 a frame, websockets": websocket,
    NATS: nats,
}


@contextmanager
def nats_server() -> Iterator[int]:
    """A NATS server with a stream for SUBJECT, in a temporary folder; its port."""
    from tests.api.queue_peers import NatsPeer

    with tempfile.TemporaryDirectory(prefix="llm-im-bench-") as folder:
        peer = NatsPeer(Path(folder))
        peer.start()
        try:
            asyncio.run(peer.create(SUBJECT))
            yield peer.port
        finally:
            peer.stop()


def turn(way: str, http: str, port: int, seconds: float) -> float:
    """Alerts a second, by a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.doors", "--turn", way, http, str(port), str(seconds), str(NOW)],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds + 120, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{way}: {done.stderr[-2000:]}")
    alerts, took = json.loads(done.stdout)
    return float(alerts / took)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TURNS} turns of {QUICK_TURN_S:g} s")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for doors.json")
    parser.add_argument("--turn", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        way, http, port, seconds, now = arguments.turn
        global moment
        moment = float(now)
        print(json.dumps(WAYS[way](http, int(port), float(seconds))))
        return
    turns, seconds = (QUICK_TURNS, QUICK_TURN_S) if arguments.quick else (TURNS, TURN_S)
    port = free_port()
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with (
        nats_server() as nats_port,
        own(
            SERVER__GRPC="true",
            SERVER__GRPC_PORT=str(port),
            MESSAGING__BACKEND="nats",
            MESSAGING__BROKERS=json.dumps([f"127.0.0.1:{nats_port}"]),
            MESSAGING__TOPICS=json.dumps([SUBJECT]),
            MESSAGING__CONSUMER_GROUP=GROUP,
        ) as system,
    ):
        ports = {way: nats_port if way == NATS else port for way in WAYS}
        for way in WAYS:  # all gateways learn the alerts; not counted
            turn(way, system.url, ports[way], WARM_S)
        for _ in range(turns):
            for way, rates in found.items():
                rates.append(turn(way, system.url, ports[way], seconds))
    first = found["http, 64 a request"]
    for way, rates in found.items():
        ratio = median(rate / beside for rate, beside in zip(rates, first, strict=True))
        print(f"{way:<36}{median(rates):>9,.0f} alerts/s  {ratio:.2f} x HTTP  {[round(each) for each in rates]}",
              file=sys.stderr)  # fmt: skip
    document = {"name": "doors", **commit(), "machine": machine(), "alerts_a_second": found}
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "doors.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
