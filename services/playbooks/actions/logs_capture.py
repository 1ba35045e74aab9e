"""Action logs_capture: the newest lines that a LogQL query finds in the last `duration`, kept with the incident.

https://grafana.com/docs/loki/latest/reference/loki-http-api/#query-logs-within-a-range-of-time: Loki answers at most
`max_entries_limit_per_query` lines (5,000 unless it is told otherwise) and refuses a limit beyond, so more are asked for in pages.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from models.errors import Unavailable
from models.playbook.catalog import CATALOG
from models.playbook.parameters import LogsCapture
from models.playbook.work import CAPTURE_MAX, Capture, Done
from services.playbooks.kind import Asked, PlaybookAction, succeeded
from services.playbooks.prometheus import ANSWER_MAX, json_of
from services.playbooks.tools import Tools
from services.times import timestamp

#: Lines that one action may ask for: no capture holds more.
LINES_MAX = 100_000
NOT_SET = "no Loki is set: playbooks.loki.url"
#: A line of time and text is hardly shorter: past so many, a capture is full.
_LINE_BYTES = 26


def _check(tools: Tools, asked: Asked, params: LogsCapture) -> str:
    if not tools.loki.url:
        return NOT_SET
    if not 1 <= params.max_lines <= LINES_MAX:
        return f"max_lines: expected 1 to {LINES_MAX}, not {params.max_lines}"
    return ""


async def _capture(tools: Tools, asked: Asked, params: LogsCapture) -> Done:
    end_ns = int(tools.clock.now() * 1e9)
    start_ns = end_ns - int(float(params.duration) * 1e9)
    wanted = min(params.max_lines, CAPTURE_MAX // _LINE_BYTES)
    lines: list[tuple[int, str]] = []
    before_ns, size, more = end_ns, 0, False
    while len(lines) < wanted:
        limit = min(wanted - len(lines), tools.loki.page)
        page = await _page(tools, params.query, start_ns, before_ns, limit, asked.timeout_s)
        # Newest first, as they are asked for; streams come one after the other.
        page.sort(key=lambda line: -line[0])
        lines += page
        size += sum(len(text.encode("utf-8", "replace")) + _LINE_BYTES for _, text in page)
        if len(page) < limit:
            break
        # `end` is exclusive. Lines of the same nanosecond as the last of this page may be missed: Loki has no better cursor.
        before_ns = page[-1][0]
        more = True
        if before_ns <= start_ns or size > CAPTURE_MAX:
            break
    else:
        more = True
    text, cut = _written(lines)
    return succeeded(
        f"{len(lines)} lines of the last {float(params.duration):g} s" + (", there are more" if cut or (more and len(lines) >= wanted) else ""),
        {"lines": len(lines)},
        captures=(Capture("logs", "text/plain", text, cut),),
    )  # fmt: skip


async def _page(
    tools: Tools, query: str, start_ns: int, end_ns: int, limit: int, timeout_s: float
) -> list[tuple[int, str]]:
    source = tools.loki
    assert source.url is not None
    asked = {"query": query, "start": start_ns, "end": end_ns, "limit": limit, "direction": "backward"}
    answer = await tools.outbound.call(
        "GET",
        f"{source.url.rstrip('/')}/loki/api/v1/query_range?{urlencode(asked)}",
        headers=source.headers(),
        timeout_s=min(timeout_s, source.timeout),
        max_bytes=ANSWER_MAX,
        trusted=True,
    )
    data = json_of(answer, "Loki")["data"]
    if data.get("resultType") != "streams" or not isinstance(data.get("result"), list):
        raise Unavailable(
            f"Loki answered with a {str(data.get('resultType'))[:40]}, not streams: expected a query of log lines"
        )
    return [line for stream in data["result"] if isinstance(stream, dict) for line in _lines(stream)]


def _lines(stream: dict[str, Any]) -> list[tuple[int, str]]:
    """A value is [nanoseconds, line], or with structured metadata as a third."""
    found = []
    for value in stream.get("values") or []:
        try:
            found.append((int(value[0]), str(value[1])))
        except (ValueError, TypeError, IndexError):
            continue
    return found


def _written(lines: list[tuple[int, str]]) -> tuple[str, bool]:
    """The newest lines that fit, in the order of their time, each with its time."""
    size = 0
    kept: list[str] = []
    for at_ns, text in lines:
        line = f"{timestamp(at_ns / 1e9)} {text}"
        size += len(line.encode("utf-8", "replace")) + 1
        if size > CAPTURE_MAX:
            return "\n".join(reversed(kept)), True
        kept.append(line)
    return "\n".join(reversed(kept)), False


ACTION = PlaybookAction(CATALOG["logs_capture"], _capture, _check)
