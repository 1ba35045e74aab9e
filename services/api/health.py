"""Liveness, readiness and metrics. Called by probes, load balancers and Prometheus."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from models.errors import Unavailable
from models.metrics import METRICS, ActorMetrics, buckets_of
from models.ports import Clock
from services.api.auth import METRICS_PATH, READ, requires
from services.api.reads import Reads

#: One collection serves every scraper for this long: asking each actor costs time, and scrapes are 15 s apart.
METRICS_AGE_S = 1.0
#: How long all actors together may take to report their metrics; a scraper gives up after 10 s.
GATHER_TIMEOUT_S = 5.0

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class HealthGather:
    """What health needs from the wiring.

    gather   every actor's reading; leaves out those that do not answer, raises Unavailable when none does
    started  true once the system's first start is complete, and for ever after, also in a gateway that is new
    waiting  what keeps it from being complete, in words
    away     actors behind the shards that do not answer now, with what is missing meanwhile
    why_off  why nobody is told of incidents; "" when somebody is
    """

    gather: Callable[[], Awaitable[list[ActorMetrics]]]
    started: Callable[[], bool]
    waiting: Callable[[], str] = str
    away: Callable[[], dict[str, str]] = dict
    why_off: str = ""


def add_health_routes(app: FastAPI, reads: Reads, health: HealthGather, clock: Clock) -> None:
    """/health/live, /health/ready and /metrics."""
    page = _MetricsPage(health, clock)

    async def live() -> Response:
        return JSONResponse({"status": "live"})

    async def ready() -> Response:
        if not health.started():
            body: dict[str, object] = {"status": "starting", "degraded": []}
            if why := health.waiting():
                body["reasons"] = {"start": why}
            return JSONResponse(body, 503, headers={"Retry-After": "1"})
        told = {"notifications": f"off: {health.why_off}" if health.why_off else "on"}
        silent = await reads.silent_shards()
        if len(silent) == reads.shards:
            body = {"status": "unavailable", "degraded": sorted(silent), "reasons": silent}
            return JSONResponse(body, 503, headers={"Retry-After": "1"})
        silent |= health.away()
        if silent:
            return JSONResponse({"status": "degraded", "degraded": sorted(silent), "reasons": silent, **told})
        return JSONResponse({"status": "ready", "degraded": [], **told})

    async def metrics() -> Response:
        try:
            return Response(await page.text(), media_type=_METRICS_TYPE)
        except Unavailable as error:
            return PlainTextResponse(
                f"can't collect metrics from the actors: {error}\n", 503, headers={"Retry-After": "1"}
            )

    for path, endpoint, needed in (
        ("/health/live", live, []),
        ("/health/ready", ready, []),
        (METRICS_PATH, metrics, [Depends(requires(READ))]),
    ):
        app.add_api_route(path, endpoint, methods=["GET"], dependencies=needed, include_in_schema=False)


def render(readings: Iterable[ActorMetrics]) -> str:
    """Prometheus text, version 0.0.4: the names of METRICS that have a value, in its order, then any others."""
    lines: dict[str, list[str]] = {name: [] for name in METRICS}
    for reading in readings:
        common = {"actor": reading.name, **reading.labels}
        for sample in (*reading.counters, *reading.gauges):
            lines.setdefault(sample.name, []).append(
                _line(sample.name, {**common, **sample.labels}, sample.value)
            )
        for histogram in reading.histograms:
            labels = {**common, **histogram.labels}
            lines.setdefault(histogram.name, []).extend(
                _histogram(histogram.name, labels, histogram.counts, histogram.sum)
            )
    text: list[str] = []
    for name, series in lines.items():
        if series and name in METRICS:
            text += [f"# HELP {name} {METRICS[name].help}", f"# TYPE {name} {METRICS[name].kind}"]
        text += series
    return "\n".join(text) + "\n"


class _MetricsPage:
    """The text of the last collection, made again when it is older than METRICS_AGE_S. Simultaneous scrapers share
    one."""

    def __init__(self, health: HealthGather, clock: Clock) -> None:
        self._health = health
        self._clock = clock
        self._lock = asyncio.Lock()
        self._text = ""
        self._made_at = -math.inf

    async def text(self) -> str:
        async with self._lock:
            if self._clock.monotonic() - self._made_at >= METRICS_AGE_S:
                try:
                    async with asyncio.timeout(GATHER_TIMEOUT_S):
                        self._text = render(await self._health.gather())
                except TimeoutError as error:
                    raise Unavailable(f"no answer within {GATHER_TIMEOUT_S:g} s") from error
                self._made_at = self._clock.monotonic()
            return self._text


def _histogram(name: str, labels: dict[str, str], counts: Sequence[int], total: float) -> list[str]:
    lines: list[str] = []
    below = 0
    bounds = [*(_number(bound) for bound in buckets_of(name)), "+Inf"]
    for bound, count in zip(bounds, counts, strict=False):
        below += count
        lines.append(_line(f"{name}_bucket", {**labels, "le": bound}, below))
    lines.append(_line(f"{name}_sum", labels, total))
    lines.append(_line(f"{name}_count", labels, below))
    return lines


def _line(name: str, labels: dict[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(value)
