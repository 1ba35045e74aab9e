"""Senders by a WebSocket and by NATS that do not give up, and remember what was acknowledged: numbered messages of new alerts, every
second of which ends a little later. Used by doors_under_kills.py.

A message that is not acknowledged is sent again under the same id. Over the WebSocket an alert is ended once its beginning was
acknowledged; in NATS it was once the stream has it, long before anybody has read it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import nats
import websockets
from nats.errors import Error as NatsError
from websockets.asyncio.client import connect

ALERTS = 5
#: Odd, so that each service has alerts that end and others that go on: none of its incidents closes.
SERVICES = 21
#: So many messages later an alert is ended.
LATER = 6
#: Messages of one WebSocket without an answer: fewer than the gateway reads at once.
AHEAD = 10
STREAMS, PUBLISHERS = 3, 4
#: Messages a second of each: what a machine of two cores does with ease while all its processes are being started anew.
RATE_PER_S = 25.0
ANSWER_TIMEOUT_S = 15.0
PUBLISH_TIMEOUT_S = 3.0
RETRY_S = 0.1
#: After the last kill, how long senders go on to bring home what is under way.
DRAIN_S = 90.0
#: Series of different senders never have the same number.
APART = 1_000_000


@dataclass(frozen=True, slots=True)
class Letter:
    """What is sent as one message: the beginning of ALERTS alerts, or their end."""

    number: int
    is_end: bool

    @property
    def id(self) -> str:
        return f"{self.number}{'-over' if self.is_end else ''}"


@dataclass(slots=True)
class Sender:
    """What one sender has to send, and what of it was acknowledged. Series by number, as senders.py has it."""

    name: str
    place: int
    seed: int
    stopping: threading.Event
    #: By series, how many messages that hold it were acknowledged, and which are over.
    acknowledged: dict[int, int] = field(default_factory=dict)
    over: set[int] = field(default_factory=set)
    #: Tries that failed, by what came instead.
    failed: Counter[str] = field(default_factory=Counter)
    next_number: int = 0
    _open: deque[int] = field(default_factory=deque)

    def next(self) -> Letter | None:
        """What is to be sent now; None when all was."""
        is_stopping = self.stopping.is_set()
        if self._open and (is_stopping or self._open[0] + LATER <= self.next_number):
            return Letter(self._open.popleft(), True)
        if is_stopping:
            return None
        self.next_number += 1
        return Letter(self.next_number, False)

    def was_acknowledged(self, letter: Letter) -> None:
        for series in self._series(letter):
            self.acknowledged[series] = self.acknowledged.get(series, 0) + 1
        if letter.is_end:
            self.over.update(self._series(letter))
        elif letter.number % 2:
            self._open.append(letter.number)

    def alerts(self, letter: Letter) -> list[dict[str, object]]:
        return [
            {
                "labels": {
                    "alertname": f"Door{series % 5}",
                    "service": f"doors-{series % SERVICES}",
                    "series": str(series),
                    "door": "v1",
                    "seed": str(self.seed),
                },
                **({"status": "resolved"} if letter.is_end else {}),
            }
            for series in self._series(letter)
        ]

    def _series(self, letter: Letter) -> range:
        first = self.place * APART + letter.number * ALERTS
        return range(first, first + ALERTS)


async def by_websocket(sender: Sender, url: str) -> None:
    """Send over one connection with a name, and connect again when it breaks."""
    waiting: dict[str, Letter] = {}
    place = f"{url}?stream={sender.name}-{sender.seed}"
    while True:
        try:
            async with connect(place, open_timeout=ANSWER_TIMEOUT_S) as stream:
                await stream.recv()
                for again in [*waiting.values()]:
                    await stream.send(_frame(sender, again))
                while True:
                    while len(waiting) < AHEAD and (letter := sender.next()) is not None:
                        waiting[letter.id] = letter
                        await stream.send(_frame(sender, letter))
                        await asyncio.sleep(1 / RATE_PER_S)
                    if not waiting:
                        return
                    answer = json.loads(await asyncio.wait_for(stream.recv(), ANSWER_TIMEOUT_S))
                    if answer["status"] == 202:
                        sender.was_acknowledged(waiting.pop(answer["id"]))
                    else:
                        sender.failed[f"{answer['status']} {str(answer['body'])[:80]}"] += 1
                        await asyncio.sleep(RETRY_S)
                        await stream.send(_frame(sender, waiting[answer["id"]]))
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            sender.failed[type(error).__name__] += 1
            await asyncio.sleep(RETRY_S)


def _frame(sender: Sender, letter: Letter) -> str:
    return json.dumps({"id": letter.id, "alerts": sender.alerts(letter)})


async def by_nats(sender: Sender, broker: str, subject: str) -> None:
    """Publish one message after the other, each until the stream has it. What it has twice it drops itself, by Nats-Msg-Id."""

    async def told(_error: Exception) -> None: ...

    client: Any = None
    while (letter := sender.next()) is not None:
        body = json.dumps(sender.alerts(letter)).encode()
        headers = {"format": "v1", "Nats-Msg-Id": f"{sender.name}-{sender.seed}-{letter.id}"}
        while True:
            try:
                client = client or await nats.connect(
                    f"nats://{broker}", error_cb=told, allow_reconnect=False, connect_timeout=2
                )
                await client.jetstream(timeout=PUBLISH_TIMEOUT_S).publish(subject, body, headers=headers)
                break
            except (NatsError, OSError, TimeoutError) as error:
                sender.failed[type(error).__name__] += 1
                if client is not None:
                    await client.close()
                client = None
                await asyncio.sleep(RETRY_S)
        sender.was_acknowledged(letter)
        await asyncio.sleep(1 / RATE_PER_S)
    if client is not None:
        await client.close()


@contextmanager
def sending(url: str, broker: str, subject: str, seed: int) -> Iterator[list[Sender]]:
    """Send within; after it everything that was begun is acknowledged. `url` as http://..."""
    stopping = threading.Event()
    senders = [
        Sender(f"{door}-{number}", place, seed, stopping)
        for place, (door, number) in enumerate(
            [*(("socket", number) for number in range(STREAMS)), *(("nats", number) for number in range(PUBLISHERS))]
        )
    ]  # fmt: skip
    place = f"ws{url.removeprefix('http')}/v1/stream/alerts"

    async def run() -> None:
        tasks = [
            asyncio.create_task(
                by_websocket(sender, place)
                if sender.name.startswith("socket")
                else by_nats(sender, broker, subject)
            )
            for sender in senders
        ]
        while not stopping.is_set():
            await asyncio.sleep(0.1)
        async with asyncio.timeout(DRAIN_S):
            await asyncio.gather(*tasks)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(asyncio.run, run())
        try:
            yield senders
        finally:
            stopping.set()
        done.result(DRAIN_S + 30)
