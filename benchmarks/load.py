"""HTTP load for `POST /api/v2/alerts`, cheap enough to share two cores with the server it measures.

In a process: `result = await closed_loop(url, batches, concurrency=8, duration_s=10)`, or `open_loop(...)`.
As a process: `python -m benchmarks.load --url http://127.0.0.1:9093 --spec spec.json` prints one JSON line;
the harness uses this, so that no server shares an event loop, or the interpreter's lock, with the generator.

How it stays cheap: a request is one ready-made bytes object and one write; an answer that looks like the one
before (same length, same status) is recognised without parsing. A latency is kept for 2xx answers only;
others are counted.
"""

import argparse
import asyncio
import ctypes
import gc
import json
import math
import os
import socket
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, cast
from urllib.parse import urlsplit

from benchmarks.bodies import Batch, Bodies

try:
    import uvloop
except ImportError:  # slower, otherwise the same
    uvloop = None  # type: ignore[assignment]

T = TypeVar("T")

ALERTS_PATH = "/api/v2/alerts"
#: Prometheus gives up on a request after 10 s.
TIMEOUT_S = 10.0
#: How often requests without an answer are looked for; a timeout is late by at most this much.
SWEEP_S = 0.25
#: After a refused connection or an answer that asks to come back: short beside any recovery, long beside a
#: busy loop.
RETRY_DELAY_S = 0.05
#: An open-loop request that leaves this long after its intended time is counted as late (its latency includes
#: the wait).
LATE_S = 0.005
#: Finer ticks than this cost more CPU than they are worth; requests due in between leave together.
MIN_TICK_S = 0.0002
#: A whole 256-alert body (130 kB) goes to the kernel in one write.
SEND_BUFFER_BYTES = 512 * 1024
#: Answers that may be tried again: the server is starting, full or failing over. HAProxy answers 500 for its
#: own 50x.
RETRY_STATUSES = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Result:
    """What one run saw. Latencies are of 2xx answers, in ms; in an open loop from the intended send time."""

    alerts: int  # in requests answered 2xx
    requests: int  # answered 2xx
    elapsed_s: float
    alerts_per_s: float
    requests_per_s: float
    latency_ms: dict[str, float]  # p50 p90 p99 p99_9 max mean
    statuses: dict[str, int]
    errors: dict[str, int]  # broken, timeout, unsent, unanswered: requests that got no answer
    failed: int  # requests that did not end in a 2xx answer, retries considered
    retried: int  # answers and breaks after which a request was sent again
    connect_failures: int
    late: int  # open loop: left more than LATE_S after their time
    longest_gap_s: float  # longest time without a 2xx answer, ends of the run included
    cpu_s: float  # of this process, user and system
    cpu_share: float  # of one core
    machine_busy: float  # share of all cores in use, by anybody
    machine_stolen: float  # share the hypervisor gave to others: throw the run away if it is not about 0


@dataclass(frozen=True, slots=True)
class Spec:
    """A run as plain data. Warm-up: the first pass of `preload` is sent preload_rounds times, then `bodies` for warmup_s (not
    with once)."""

    bodies: Bodies
    mode: Literal["closed", "open"] = "closed"
    concurrency: int = 8  # closed loop: requests in flight; open loop: connections
    duration_s: float = 10.0
    rate_per_s: float = 0.0  # open loop: requests (not alerts) a second
    once: bool = False  # closed loop: send each body once; duration_s is then only the limit
    retry: bool = False
    timeout_s: float = TIMEOUT_S
    preload: Bodies | None = None
    preload_rounds: int = 1
    warmup_s: float = 1.0
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> "Spec":
        fields = json.loads(text)
        for key in ("bodies", "preload"):
            if fields.get(key) is not None:
                fields[key] = Bodies(**fields[key])
        return cls(**fields)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


async def closed_loop(
    url: str,
    requests: Sequence[Batch],
    concurrency: int,
    duration_s: float,
    *,
    once: bool = False,
    retry: bool = False,
    timeout_s: float = TIMEOUT_S,
    headers: Mapping[str, str] | None = None,
) -> Result:
    """As fast as `concurrency` connections get answers: each sends its next request when the last one is
    answered.

    Cycles through `requests` until duration_s is over and counts answers that came within it; with once,
    sends each request once and measures to the last answer. Requests in flight at the end are waited for, so
    that the next run finds a quiet server. Returns Result; raises ConnectionError if nothing listens at the
    url.
    """
    load = _ClosedLoop(url, requests, once, retry, timeout_s, headers)
    return await load.run(concurrency, duration_s)


async def open_loop(
    url: str,
    requests: Sequence[Batch],
    rate_per_s: float,
    duration_s: float,
    connections: int,
    *,
    retry: bool = False,
    timeout_s: float = TIMEOUT_S,
    headers: Mapping[str, str] | None = None,
) -> Result:
    """`rate_per_s` requests a second at even distances, whatever the server does; cycles through `requests`.

    Latency counts from the intended time, so a stall is charged to every request it delays (no coordinated
    omission). With every connection busy a request waits for one; after timeout_s it is counted as unsent.
    With retry, a request whose connection broke, that timed out or was told to come back is sent again with
    its first intended time.
    """
    load = _OpenLoop(url, requests, rate_per_s, retry, timeout_s, headers)
    return await load.run(connections, duration_s)


def run(coroutine: Coroutine[object, object, T]) -> T:
    """Run a loop to its end on uvloop if it is there. The garbage collector rests: it would pause the
    sender."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
            return runner.run(coroutine)
    finally:
        gc.enable()
        gc.unfreeze()


def run_spec(url: str, spec: Spec) -> dict[str, Result]:
    """Build the bodies, preload, warm up, measure. Returns the Result of each phase by name: the last is
    `measured`."""
    phases: dict[str, Result] = {}
    bodies = spec.bodies.build()
    if spec.preload is not None:
        first = bodies if spec.preload == spec.bodies else spec.preload.build()
        if spec.preload.kind != "new_series":
            first = first[: len(first) // spec.preload.passes]
        first = first * spec.preload_rounds
        # The limit is generous: a slow server's preload may take minutes, a hung one must not take for ever.
        phases["preload"] = run(
            closed_loop(
                url,
                first,
                spec.concurrency,
                600,
                once=True,
                retry=spec.retry,
                timeout_s=spec.timeout_s,
                headers=spec.headers,
            )
        )
        del first
    if spec.warmup_s and not spec.once:
        phases["warmup"] = run(_loop(url, spec, bodies, spec.warmup_s))
    phases["measured"] = run(_loop(url, spec, bodies, spec.duration_s))
    return phases


def main() -> None:
    """The subprocess: one JSON line, `{"preload": ..., "warmup": ..., "measured": ...}`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--spec", required=True, help="a file of Spec.to_json(), or - for stdin")
    parser.add_argument("--cpu", type=int, help="pin the generator to this core")
    arguments = parser.parse_args()
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    text = sys.stdin.read() if arguments.spec == "-" else Path(arguments.spec).read_text()
    phases = run_spec(arguments.url, Spec.from_json(text))
    print(json.dumps({name: asdict(result) for name, result in phases.items()}))


def _loop(url: str, spec: Spec, bodies: list[Batch], duration_s: float) -> Coroutine[object, object, Result]:
    if spec.mode == "open":
        return open_loop(
            url,
            bodies,
            spec.rate_per_s,
            duration_s,
            spec.concurrency,
            retry=spec.retry,
            timeout_s=spec.timeout_s,
            headers=spec.headers,
        )
    return closed_loop(
        url,
        bodies,
        spec.concurrency,
        duration_s,
        once=spec.once,
        retry=spec.retry,
        timeout_s=spec.timeout_s,
        headers=spec.headers,
    )


class _Load:
    """What both loops share: connections, the count of what came back, timeouts and retries.

    A connection that has no request in flight is given to `ready`, which sends the next one or parks it.
    """

    def __init__(
        self,
        url: str,
        requests: Sequence[Batch],
        retry: bool,
        timeout_s: float,
        headers: Mapping[str, str] | None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"an http:// URL is needed, not {url!r}")
        if not requests:
            raise ValueError("no requests")
        self.host, self.port = parts.hostname, parts.port or 80
        path = parts.path if len(parts.path) > 1 else ALERTS_PATH
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: Prometheus/2.42.0\r\n"
            f"Content-Type: application/json\r\n{more}"
        )
        self.wires = [
            b"%bContent-Length: %d\r\n\r\n%b" % ((head + batch.headers).encode(), len(batch.body), batch.body)
            for batch in requests
        ]
        self.alert_counts = [batch.alerts for batch in requests]
        self.retry, self.timeout_s = retry, timeout_s

        self.connections: set[_Connection] = set()
        self.reconnecting: set[asyncio.Task[None]] = set()
        # First in, first out: all connections stay in use, as they would behind many senders.
        self.resting: deque[_Connection] = deque()
        self.again: deque[tuple[int, float]] = deque()  # (request, intended time) to send once more
        self.delayed = 0  # retries that wait for their delay
        self.in_flight = 0
        self.stopping = False
        self.finished = asyncio.Event()
        # The length and first bytes of the usual answer, learnt from the first that was parsed; 0 is none
        # yet.
        self.usual_length, self.usual_start, self.usual_status = 0, b"", 0

        self.alerts = self.late = self.refused = self.retried = self.connect_failures = 0
        self.latencies = array("d")
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.longest_gap_s = 0.0

    async def run(self, connections: int, duration_s: float) -> Result:
        self.loop = asyncio.get_running_loop()
        await asyncio.gather(*(self._connect() for _ in range(connections)))
        cpu = CpuClock()
        self.started = self.last_success = self.last_answer = time.perf_counter()
        self.deadline = self.started + duration_s
        self.start()
        sweep = self.loop.call_later(SWEEP_S, self._sweep)
        try:
            result = await self.measure(duration_s, cpu)
        finally:
            self.stopping = True
            sweep.cancel()
            for task in self.reconnecting:
                task.cancel()
            for connection in list(self.connections):
                connection.transport.abort()
        return result

    def start(self) -> None:
        raise NotImplementedError

    async def measure(self, duration_s: float, cpu: "CpuClock") -> Result:
        raise NotImplementedError

    def ready(self, connection: "_Connection") -> None:
        raise NotImplementedError

    def answered(self, connection: "_Connection", status: int) -> None:
        now = time.perf_counter()
        self.in_flight -= 1
        self.statuses[status] += 1
        if 200 <= status < 300:
            self.latencies.append(now - connection.intended)
            self.alerts += self.alert_counts[connection.request]
            self.longest_gap_s = max(self.longest_gap_s, now - self.last_success)
            self.last_success = now
        elif self.retry and status in RETRY_STATUSES:
            self._try_again_later(connection.request, connection.intended)
        else:
            self.refused += 1
        self.last_answer = now
        connection.request = -1
        if connection.closing:
            connection.transport.close()  # `Connection: close`: connection_lost opens another
        else:
            self.ready(connection)

    def lost(self, connection: "_Connection", kind: str) -> None:
        """The connection is gone; the request it carried failed or is tried again. Another one is opened."""
        self.connections.discard(connection)
        if connection.request >= 0:
            self.in_flight -= 1
            if self.retry:
                self._try_again_later(connection.request, connection.intended)
            else:
                self.errors[kind] += 1
            connection.request = -1
        if not self.stopping:
            task = self.loop.create_task(self._reconnect())
            self.reconnecting.add(task)  # the loop itself holds only a weak reference
            task.add_done_callback(self.reconnecting.discard)

    def result(self, elapsed_s: float, cpu: "CpuClock") -> Result:
        cpu_s, machine_busy, machine_stolen = cpu.read()
        gap_s = max(self.longest_gap_s, self.started + elapsed_s - self.last_success)
        return Result(
            alerts=self.alerts,
            requests=len(self.latencies),
            elapsed_s=round(elapsed_s, 4),
            alerts_per_s=round(self.alerts / elapsed_s, 1),
            requests_per_s=round(len(self.latencies) / elapsed_s, 1),
            latency_ms=percentiles_ms(self.latencies),
            statuses={str(status): n for status, n in sorted(self.statuses.items())},
            errors=dict(self.errors),
            failed=self.refused + sum(self.errors.values()),
            retried=self.retried,
            connect_failures=self.connect_failures,
            late=self.late,
            longest_gap_s=round(gap_s, 4),
            cpu_s=round(cpu_s, 3),
            cpu_share=round(cpu_s / elapsed_s, 3),
            machine_busy=machine_busy,
            machine_stolen=machine_stolen,
        )

    def _try_again_later(self, request: int, intended: float) -> None:
        self.retried += 1
        self.delayed += 1
        self.loop.call_later(RETRY_DELAY_S, self._try_again, request, intended)

    def _try_again(self, request: int, intended: float) -> None:
        self.delayed -= 1
        self.again.append((request, intended))
        if connection := self.take_resting():
            self.ready(connection)

    def take_resting(self) -> "_Connection | None":
        while self.resting:
            connection = self.resting.popleft()
            if connection in self.connections and not connection.transport.is_closing():
                return connection
        return None

    async def _connect(self) -> None:
        _, connection = await self.loop.create_connection(lambda: _Connection(self), self.host, self.port)
        self.connections.add(connection)

    async def _reconnect(self) -> None:
        while not self.stopping:
            try:
                async with asyncio.timeout(self.timeout_s):
                    _, connection = await self.loop.create_connection(
                        lambda: _Connection(self), self.host, self.port
                    )
            except OSError:  # TimeoutError is one
                self.connect_failures += 1
                await asyncio.sleep(RETRY_DELAY_S)
                continue
            if self.stopping or connection.transport.is_closing():
                connection.transport.abort()
                continue
            self.connections.add(connection)
            self.ready(connection)
            return

    def _sweep(self) -> None:
        if self.stopping:
            return
        oldest = time.perf_counter() - self.timeout_s
        for connection in list(self.connections):
            if connection.request >= 0 and connection.sent < oldest:
                connection.kind = "timeout"
                connection.transport.abort()
        self.expire(oldest)
        self.loop.call_later(SWEEP_S, self._sweep)

    def expire(self, oldest: float) -> None:
        """Drop what has waited since before `oldest` to be sent."""


class _ClosedLoop(_Load):
    def __init__(
        self,
        url: str,
        requests: Sequence[Batch],
        once: bool,
        retry: bool,
        timeout_s: float,
        headers: Mapping[str, str] | None,
    ) -> None:
        super().__init__(url, requests, retry, timeout_s, headers)
        self.once = once
        self.next = 0
        self.all_sent = False

    def start(self) -> None:
        for connection in list(self.connections):
            self.ready(connection)

    async def measure(self, duration_s: float, cpu: "CpuClock") -> Result:
        try:
            async with asyncio.timeout(duration_s):
                await self.finished.wait()
            elapsed_s = self.last_answer - self.started or duration_s
        except TimeoutError:
            elapsed_s = duration_s
            if self.once:
                self.errors["unanswered"] += (
                    len(self.wires) - self.next + self.in_flight + len(self.again) + self.delayed
                )
        result = self.result(elapsed_s, cpu)
        self.all_sent = True
        try:
            async with asyncio.timeout(self.timeout_s):
                while self.in_flight:
                    await asyncio.sleep(0.002)
        except TimeoutError:
            pass  # the next run will show it
        return result

    def ready(self, connection: "_Connection") -> None:
        if self.all_sent and not (self.again and self.once):
            self._rest(connection)
            return
        if self.again:
            request, intended = self.again.popleft()
            connection.send(request, intended, time.perf_counter())
            return
        request = self.next
        if request == len(self.wires):
            if self.once:
                self.all_sent = True
                self._rest(connection)
                return
            request = 0
        self.next = request + 1
        now = time.perf_counter()
        connection.send(request, now, now)

    def _rest(self, connection: "_Connection") -> None:
        self.resting.append(connection)
        if not (self.in_flight or self.again or self.delayed):
            self.finished.set()


class _OpenLoop(_Load):
    def __init__(
        self,
        url: str,
        requests: Sequence[Batch],
        rate_per_s: float,
        retry: bool,
        timeout_s: float,
        headers: Mapping[str, str] | None,
    ) -> None:
        super().__init__(url, requests, retry, timeout_s, headers)
        if rate_per_s <= 0:
            raise ValueError("rate_per_s must be above 0")
        self.distance_s = 1 / rate_per_s
        self.sent = 0  # requests whose time has come
        self.waiting: deque[tuple[int, float]] = deque()  # due, but every connection is busy

    def start(self) -> None:
        self.resting.extend(self.connections)

    async def measure(self, duration_s: float, cpu: "CpuClock") -> Result:
        self.total = int(duration_s / self.distance_s)
        ticks = _Ticks(self.loop, max(self.distance_s, MIN_TICK_S), self._send_due)
        try:
            # The last request may wait its timeout for a connection and then as long for an answer.
            async with asyncio.timeout(duration_s + 2 * (self.timeout_s + SWEEP_S)):
                await self.finished.wait()
        except TimeoutError:
            self.errors["unanswered"] += (
                self.in_flight + len(self.waiting) + len(self.again) + self.delayed + self.total - self.sent
            )
        finally:
            ticks.stop()
        elapsed_s = max(duration_s, self.last_success - self.started)
        return self.result(elapsed_s, cpu)

    def ready(self, connection: "_Connection") -> None:
        if self.again or self.waiting:
            request, intended = (self.again or self.waiting).popleft()
            self._send(connection, request, intended, time.perf_counter())
            return
        self.resting.append(connection)
        if self.sent == self.total and not (self.in_flight or self.delayed):
            self.finished.set()

    def expire(self, oldest: float) -> None:
        while self.waiting and self.waiting[0][1] < oldest and not self.retry:
            self.waiting.popleft()
            self.errors["unsent"] += 1
        if self.sent == self.total and not (self.in_flight or self.delayed or self.waiting or self.again):
            self.finished.set()

    def _send_due(self) -> None:
        now = time.perf_counter()
        while self.sent < self.total:
            intended = self.started + self.sent * self.distance_s
            if intended > now:
                return
            request = self.sent % len(self.wires)
            self.sent += 1
            if connection := self.take_resting():
                self._send(connection, request, intended, now)
            else:
                self.waiting.append((request, intended))

    def _send(self, connection: "_Connection", request: int, intended: float, now: float) -> None:
        if now - intended > LATE_S:
            self.late += 1
        connection.send(request, intended, now)


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request in flight (as Go's client; no pipelining)."""

    __slots__ = ("buffer", "closing", "intended", "kind", "load", "request", "sent", "transport")

    def __init__(self, load: _Load) -> None:
        self.load = load
        self.transport: asyncio.Transport
        self.request = -1  # index of the request in flight
        self.intended = self.sent = 0.0
        self.buffer = b""
        self.closing = False
        self.kind = "broken"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def send(self, request: int, intended: float, now: float) -> None:
        load = self.load
        load.in_flight += 1
        self.request, self.intended, self.sent = request, intended, now
        self.transport.write(load.wires[request])

    def data_received(self, data: bytes) -> None:
        load = self.load
        if (
            len(data) == load.usual_length
            and not self.buffer
            and data.startswith(load.usual_start)
            and data.endswith(b"\r\n\r\n")
            and self.request >= 0
        ):
            load.answered(self, load.usual_status)
            return
        self._parse(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost(self, self.kind)

    def _parse(self, data: bytes) -> None:
        """Any answer: with a length, chunked, or without a body; in as many pieces as it likes."""
        if self.request < 0:
            self.transport.abort()  # an answer nobody asked for, such as 408 to an idle connection
            return
        data = self.buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.buffer = data
            return
        head = data[:end].lower()
        status = int(data[9:12])
        if status < 200:  # 100 Continue: the answer follows
            self.buffer = b""
            if len(data) > end + 4:
                self._parse(data[end + 4 :])
            return
        length = _answer_length(data, head, end + 4, status)
        if length < 0 or len(data) < length:
            self.buffer = data
            return
        self.buffer = b""
        self.closing = b"\r\nconnection: close" in head
        if data.endswith(b"\r\n\r\n") and not self.closing and status < 300:
            # No body (or an empty chunked one), so an answer cut short at this very length cannot look like
            # it.
            self.load.usual_length, self.load.usual_start = len(data), data[:12]
            self.load.usual_status = status
        self.load.answered(self, status)


def _answer_length(data: bytes, head: bytes, body: int, status: int) -> int:
    """Bytes of the whole answer, or -1 while more must come to know it."""
    if status in (204, 304):
        return body
    if b"\r\ntransfer-encoding: chunked" in head:
        while (line_end := data.find(b"\r\n", body)) >= 0:
            size = int(data[body:line_end].split(b";")[0], 16)
            body = line_end + 2 + size + 2
            if size == 0:
                return body
        return -1
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"an answer with neither a length nor chunks: {head!r}")
    return body + int(head[at + 17 :].split(b"\r\n", 1)[0])


def percentiles_ms(samples_s: "array[float]") -> dict[str, float]:
    """Nearest-rank percentiles of all samples, in ms; empty without samples."""
    if not samples_s:
        return {}
    ranked = sorted(samples_s)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999, "max": 1.0}
    found = {name: ranked[math.ceil(share * len(ranked)) - 1] for name, share in shares.items()}
    found["mean"] = math.fsum(ranked) / len(ranked)
    return {name: round(value * 1000, 3) for name, value in found.items()}


class CpuClock:
    """CPU time since it was made: this process's, and the whole machine's from /proc/stat."""

    def __init__(self) -> None:
        self.own_s, self.machine = time.process_time(), self._machine()

    def read(self) -> tuple[float, float, float]:
        """Own seconds, machine's busy share, machine's stolen share."""
        spent = [now - then for now, then in zip(self._machine(), self.machine, strict=True)]
        everything = sum(spent) or 1
        idle, stolen = spent[3] + spent[4], spent[7]
        own_s = time.process_time() - self.own_s
        return own_s, round(1 - idle / everything, 3), round(stolen / everything, 3)

    @staticmethod
    def _machine() -> list[int]:
        # user nice system idle iowait irq softirq steal; the guest columns after them are in user already.
        return [int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


class _Ticks:
    """Calls `tick` every period_s, by the kernel's timer: an event loop's own rounds up to whole
    milliseconds, which would be a large part of the latencies measured. (os.timerfd_create comes with Python
    3.13.)"""

    def __init__(self, loop: asyncio.AbstractEventLoop, period_s: float, tick: Callable[[], None]) -> None:
        self.loop, self.tick = loop, tick
        libc = ctypes.CDLL(None, use_errno=True)
        clock_monotonic, nonblock_cloexec = 1, os.O_NONBLOCK | os.O_CLOEXEC
        self.file = libc.timerfd_create(clock_monotonic, nonblock_cloexec)
        if self.file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        seconds, rest = divmod(round(period_s * 1e9), 10**9)
        times = (ctypes.c_long * 4)(seconds, rest, seconds, rest)  # struct itimerspec: period, first
        if libc.timerfd_settime(self.file, 0, times, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        loop.add_reader(self.file, self._read)

    def stop(self) -> None:
        self.loop.remove_reader(self.file)
        os.close(self.file)

    def _read(self) -> None:
        try:
            os.read(self.file, 8)
        except BlockingIOError:
            return
        self.tick()


if __name__ == "__main__":
    main()
