"""Prometheus' HTTP API, as far as playbooks read it: query and query_range
(https://prometheus.io/docs/prometheus/latest/querying/api/).
"""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlencode

import msgspec

from models.errors import Malformed, Unavailable
from services.actions.outbound import Answer
from services.playbooks.tools import Tools

#: Points of a series: Prometheus refuses more than 11,000, people read some hundred.
POINTS = 120
#: Prometheus scrapes seldom more often than this.
STEP_MIN_S = 1.0
ANSWER_MAX = 8 * 1024 * 1024
NOT_SET = "no Prometheus is set: playbooks.prometheus.url"


async def query_range(
    tools: Tools, query: str, start: float, end: float, step_s: float, timeout_s: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """The series (`metric`, `values`) and Prometheus' warnings. Raises Malformed for a query that it refuses, Unavailable."""
    data = await _get(
        tools,
        "/api/v1/query_range",
        {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_s:g}"},
        timeout_s,
    )
    return _result(data, "matrix"), list(map(str, data.get("warnings") or []))


async def query(tools: Tools, query: str, at: float, timeout_s: float) -> list[dict[str, Any]]:
    """The samples (`metric`, `value`) of an instant query; a scalar is one without labels. Raises Malformed, Unavailable."""
    data = await _get(tools, "/api/v1/query", {"query": query, "time": f"{at:.3f}"}, timeout_s)
    found = data["data"]
    if isinstance(found, dict) and found.get("resultType") == "scalar":
        return [{"metric": {}, "value": found.get("result")}]
    return _result(data, "vector")


def step_for(duration_s: float, given_s: float = 0.0) -> float:
    """Seconds between points: what is given, unless that makes too many."""
    most = 11_000
    least = max(duration_s / most, STEP_MIN_S)
    return max(given_s, least) if given_s > 0 else max(math.ceil(duration_s / POINTS), STEP_MIN_S)


async def _get(tools: Tools, path: str, params: dict[str, str], timeout_s: float) -> dict[str, Any]:
    source = tools.prometheus
    if not source.url:
        raise Malformed(NOT_SET)
    answer = await tools.outbound.call(
        "GET",
        f"{source.url.rstrip('/')}{path}?{urlencode(params)}",
        headers=source.headers(),
        timeout_s=min(timeout_s, source.timeout),
        max_bytes=ANSWER_MAX,
        trusted=True,
    )
    return json_of(answer, "Prometheus")


def json_of(answer: Answer, who: str) -> dict[str, Any]:
    """An answer of Prometheus' form. Raises Malformed for what it will refuse again, Unavailable."""
    try:
        decoded = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = None
    said = ""
    if isinstance(decoded, dict):
        said = str(decoded.get("error") or decoded.get("message") or "")[:300]
    elif answer.status != 200:
        # Loki says what is wrong as plain text.
        said = " ".join(answer.text.split())[:300]
    # Both answer 400 or 422 for what is wrong with the query.
    if answer.status in (400, 404, 405, 422):
        raise Malformed(f"{who} answered {answer.status}: {said}")
    if answer.status != 200:
        raise Unavailable(f"{who} answered {answer.status}: {said}")
    if answer.cut:
        raise Malformed(f"{who}: the answer is longer than {ANSWER_MAX // 1024 // 1024} MiB: ask for less")
    if (
        not isinstance(decoded, dict)
        or decoded.get("status") != "success"
        or not isinstance(decoded.get("data"), dict)
    ):
        raise Unavailable(f"{who} answered 200 with something else than a result: {said}".rstrip(": "))
    return decoded


def _result(decoded: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    data = decoded["data"]
    found = data.get("result")
    if data.get("resultType") != kind or not isinstance(found, list):
        raise Unavailable(f"Prometheus answered with a {str(data.get('resultType'))[:40]}, not a {kind}")
    return [each for each in found if isinstance(each, dict)]
