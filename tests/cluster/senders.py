"""A sender that does not give up, and remembers what was acknowledged: `python -m tests.cluster.senders CONFIG`.

Half of its workers speak /api/v2/alerts (as Prometheus does), half /v1/alerts with an Idempotency-Key. A request
that fails is sent again with the same body and key until it is acknowledged. Beside them probes send one alert at
a time to each shard, with no pause worth naming: the longest time between two of their answers is how long that
shard was away, as a sender sees it.

It ends when its stdin does: it sends nothing new, finishes what is under way, and writes one JSON object to `out`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp

ALERTMANAGER, V1 = "/api/v2/alerts", "/v1/alerts"
#: What a 503 is counted as that does not say when to come again.
NO_RETRY_AFTER = "503 without Retry-After"
#: A request that is not answered is sent again; the longest honest answer takes `hold` (5 s) and one call (5 s).
ANSWER_TIMEOUT_S = 15.0
RETRY_S = 0.1
#: Connections refused at once must not become a busy loop.
PROBE_PAUSE_S = 0.01
PROBES_A_SHARD = 3
#: After its stdin ended, how long the sender keeps trying to bring home what is under way.
DRAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Config:
    """`probes`: a service for each shard. `new_share`: of a request's alerts, how many are new series."""

    url: str
    out: str
    seed: int
    probes: list[str]
    rate: float = 3000.0
    workers: int = 12
    alerts_a_request: int = 30
    new_share: float = 0.2
    services: int = 40
    retries: bool = True


@dataclass(slots=True)
class Told:
    """What a run came to. Series by number: `acknowledged[n]` is how many requests that held it were acknowledged.

    `failed`: tries that were not acknowledged, by what came instead. `answers`: for each shard's probes and for
    "any" the times of answers (time.time()).
    """

    acknowledged: dict[str, dict[int, int]] = field(default_factory=lambda: {ALERTMANAGER: {}, V1: {}})
    requests: int = 0
    alerts: int = 0
    seconds: float = 0.0
    unfinished: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[float, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    answers: dict[str, list[float]] = field(default_factory=dict)


def alert(door: str, number: int, services: int, seed: int) -> dict[str, object]:
    """The alert of a series: always the same bytes, so that a repeat is one."""
    labels = {
        "alertname": f"Kill{number % 5}",
        "service": f"svc-{number % services}",
        "series": str(number),
        "door": "v1" if door == V1 else "am",
        "seed": str(seed),
    }
    starts = "starts_at" if door == V1 else "startsAt"
    return {"labels": labels, "annotations": {"summary": f"series {number}"}, starts: "2026-01-01T00:00:00Z"}


class Sender:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.told = Told()
        self.failed: Counter[str] = Counter()
        self.stopping = asyncio.Event()
        self.began = time.monotonic()
        self.next_number = 0
        self.paid = 0.0

    async def run(self) -> Told:
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self.config.url, timeout=timeout, connector=connector) as session:
            work = [asyncio.create_task(self._work(session, worker)) for worker in range(self.config.workers)]
            probes = [
                asyncio.create_task(self._probe(session, shard, service, number))
                for shard, service in enumerate(self.config.probes)
                for number in range(PROBES_A_SHARD)
            ]
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            self.stopping.set()
            self.told.seconds = time.monotonic() - self.began
            _done, late = await asyncio.wait(work + probes, timeout=DRAIN_S)
            self.told.unfinished = len(late)
            for task in late:
                task.cancel()
            for task in work + probes:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        self.told.failed = dict(self.failed)
        return self.told

    async def _work(self, session: aiohttp.ClientSession, worker: int) -> None:
        config = self.config
        chance = random.Random(f"{config.seed}/{worker}")
        door = V1 if worker % 2 else ALERTMANAGER
        mine: list[int] = []
        # A worker repeats its own series only, so that one alert is never in two requests at once.
        for count in range(10**9):
            await self._turn()
            if self.stopping.is_set():
                return
            fresh = (
                max(1, round(config.alerts_a_request * config.new_share)) if mine else config.alerts_a_request
            )
            numbers = [self._number() for _ in range(fresh)]
            numbers += chance.sample(mine, min(len(mine), config.alerts_a_request - fresh))
            mine += numbers[:fresh]
            body = json.dumps(
                [alert(door, number, config.services, config.seed) for number in numbers]
            ).encode()
            headers = {"Content-Type": "application/json"}
            if door == V1:
                headers["Idempotency-Key"] = f"kill-{config.seed}-{worker}-{count}"
            if await self._until_acknowledged(session, door, body, headers):
                acknowledged = self.told.acknowledged[door]
                for number in numbers:
                    acknowledged[number] = acknowledged.get(number, 0) + 1
                self.told.requests += 1
                self.told.alerts += len(numbers)

    async def _until_acknowledged(
        self, session: aiohttp.ClientSession, door: str, body: bytes, headers: dict[str, str]
    ) -> bool:
        begun = time.monotonic()
        while True:
            if await self._once(session, door, body, headers):
                self.told.slowest_s = max(self.told.slowest_s, time.monotonic() - begun)
                return True
            if not self.config.retries:
                return False
            await asyncio.sleep(RETRY_S)

    async def _once(
        self, session: aiohttp.ClientSession, door: str, body: bytes, headers: dict[str, str]
    ) -> bool:
        try:
            async with session.post(door, data=body, headers=headers) as answer:
                said = await answer.read()
                # 207 holds items that were not stored: with the same key the whole is sent again.
                if answer.status == (202 if door == V1 else 200):
                    self.told.answers.setdefault("any", []).append(time.time())
                    return True
                if answer.status == 503 and "Retry-After" not in answer.headers:
                    self._failed(NO_RETRY_AFTER)
                else:
                    self._failed(f"{answer.status} {said[:80].decode('latin-1')}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._failed(type(error).__name__)
        return False

    def _failed(self, why: str) -> None:
        self.failed[why] += 1
        if len(self.told.failures) < 2000:
            self.told.failures.append((time.time(), why))

    async def _probe(self, session: aiohttp.ClientSession, shard: int, service: str, number: int) -> None:
        answers = self.told.answers.setdefault(str(shard), [])
        labels = {"alertname": "Probe", "service": service, "probe": str(number)}
        body = json.dumps([{"labels": labels, "startsAt": "2026-01-01T00:00:00Z"}]).encode()
        headers = {"Content-Type": "application/json"}
        while not self.stopping.is_set():
            if await self._once(session, ALERTMANAGER, body, headers):
                answers.append(time.time())
            await asyncio.sleep(PROBE_PAUSE_S)

    async def _turn(self) -> None:
        """Wait until the rate allows another request. What was missed while nobody answered is not made up for
        in one burst: at most a second's worth."""
        config = self.config
        at = max(self.paid, time.monotonic() - 1.0)
        self.paid = at + config.alerts_a_request / config.rate
        await asyncio.sleep(max(0.0, at - time.monotonic()))

    def _number(self) -> int:
        self.next_number += 1
        return self.next_number


def main() -> None:
    config = Config(**json.loads(sys.argv[1]))
    told = asyncio.run(Sender(config).run())
    Path(config.out).write_text(json.dumps(asdict(told)))


if __name__ == "__main__":
    main()
