"""Action metrics_snapshot: the series of a query over the last `duration`, kept with the incident."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from models.playbook.catalog import CATALOG
from models.playbook.parameters import MetricsSnapshot
from models.playbook.work import CAPTURE_MAX, Capture, Done
from services.playbooks import prometheus
from services.playbooks.kind import Asked, PlaybookAction, succeeded
from services.playbooks.tools import Tools

#: Series of which outputs say the figures; the capture has all that fit.
SUMMARIZED_MAX = 20


def _check(tools: Tools, asked: Asked, params: MetricsSnapshot) -> str:
    return "" if tools.prometheus.url else prometheus.NOT_SET


async def _snapshot(tools: Tools, asked: Asked, params: MetricsSnapshot) -> Done:
    end = tools.clock.now()
    duration = max(float(params.duration), prometheus.STEP_MIN_S)
    step = prometheus.step_for(duration, float(params.step))
    series, warnings = await prometheus.query_range(
        tools, params.query, end - duration, end, step, asked.timeout_s
    )
    kept, cut = _kept(series)
    about = {"query": params.query, "start": round(end - duration, 3), "end": round(end, 3), "step": step}
    text = msgspec.json.encode({**about, "warnings": warnings, "series": kept}).decode()
    outputs = {"series": len(series), "figures": [_figures(each) for each in series[:SUMMARIZED_MAX]]}
    return succeeded(
        f"{len(series)} series of the last {duration:g} s",
        outputs,
        captures=(Capture("metrics", "application/json", text, cut),),
    )


def _kept(series: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    """As many whole series as a capture holds: half of one is no JSON."""
    kept: list[dict[str, Any]] = []
    size = 1024
    for each in series:
        size += len(msgspec.json.encode(each)) + 1
        if size > CAPTURE_MAX:
            return kept, True
        kept.append(each)
    return kept, False


def _figures(series: dict[str, Any]) -> dict[str, Any]:
    """The last value of a series, its least and its greatest. What is no number (NaN, +Inf) is left out: JSON has none."""
    values = []
    for point in series.get("values") or []:
        try:
            value = float(point[1])
        except (ValueError, TypeError, IndexError):
            continue
        if math.isfinite(value):
            values.append(value)
    found: dict[str, Any] = {"metric": series.get("metric") or {}, "points": len(values)}
    if values:
        found |= {"last": values[-1], "min": min(values), "max": max(values)}
    return found


ACTION = PlaybookAction(CATALOG["metrics_snapshot"], _snapshot, _check)
