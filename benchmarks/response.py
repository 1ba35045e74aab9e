"""How soon a P0 alert is judged, its playbook chosen and its first action done, beside a million alerts a minute; and how many
runs are under way at once. A real instance, its actions at a local server.

    python -m benchmarks.response [--quick] [--rate 16667] [--runs 10000]

The times count from just before the alert is sent. Judged and chosen are read from the incident's timeline; the first action is
the arrival of its request. Then so many runs are begun in one go, each of which calls, waits and calls again.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.bodies import Bodies
from benchmarks.harness import NOW, RESULTS, Target, generate
from benchmarks.load import Spec, percentiles_ms
from benchmarks.own import own, say, write

RATE_PER_S = 1_000_000 / 60
BATCH = 64
SERIES = 100_000
CONNECTIONS = 32
DURATION_S = 60.0
#: P0 incidents a second: enough for a P99 within a minute, and no load of their own.
INCIDENTS_PER_S = 10.0
RUNS = 10_000
#: Runs wait so long, that the last has begun before the first is over.
WAIT_S = 60
QUICK_RATE_PER_S, QUICK_SERIES, QUICK_DURATION_S, QUICK_RUNS, QUICK_WAIT_S = 2_000.0, 5_000, 5.0, 200, 5
#: What must not be reached: incidents that join an overflow incident are other work.
ROOM = 1_000_000
#: After the last alert until all is done.
TIMEOUT_S = 600.0
#: The plan's bounds of P99, in ms: it allows 500 for the choice and 1,000 for the action.
BOUNDS_MS = {"judged": 100.0, "chosen": 300.0, "first_action": 500.0}

BOOKS = {
    "p0": """
name: first action
version: "1"
trigger: {{labels: {{bench: p0}}}}
steps:
  - id: fix
    type: remediation
    actions:
      - {{type: http, method: POST, url: "http://{place}/first/{{{{ incident.service }}}}"}}
""",
    "many": """
name: many at once
version: "1"
trigger: {{labels: {{bench: many}}}}
steps:
  - id: fix
    type: remediation
    retry: 3
    actions:
      - {{type: http, method: POST, url: "http://{place}/first/{{{{ incident.service }}}}"}}
      - {{type: wait, duration: {wait_s}s}}
      - {{type: http, method: POST, url: "http://{place}/last/{{{{ incident.service }}}}"}}
""",
}


@contextmanager
def recording() -> Iterator[tuple[str, dict[str, float]]]:
    """A local server: its host:port, and when each path was asked for first (time.time())."""
    arrived: dict[str, float] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            arrived.setdefault(self.path, time.time())
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", arrived
    finally:
        server.shutdown()
        server.server_close()


class Caller:
    """One connection to our API, opened anew when it breaks."""

    def __init__(self, url: str) -> None:
        self._place = urlsplit(url).netloc
        self._connection = http.client.HTTPConnection(self._place, timeout=60)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        try:
            status, text = self._asked(method, path, data)
        except (OSError, http.client.HTTPException):
            if method != "GET":
                raise
            # It was idle for longer than a connection is kept.
            status, text = self._asked(method, path, data)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {text[:200]!r}")
        return json.loads(text) if text else None

    def _asked(self, method: str, path: str, data: bytes | None) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise


def alert(service: str, bench: str) -> dict[str, object]:
    return {"labels": {"alertname": "Down", "service": service, "severity": "emergency", "bench": bench}}


def incidents_trickle(
    url: str, arrived: dict[str, float], duration_s: float, prefix: str
) -> dict[str, array[float]]:
    """P0 incidents at a constant rate; for each how long until it was judged, its playbook chosen, its first action there."""
    caller, sent = Caller(url), {}
    begun = time.monotonic()
    for number in range(int(duration_s * INCIDENTS_PER_S)):
        time.sleep(max(0.0, begun + number / INCIDENTS_PER_S - time.monotonic()))
        service = f"{prefix}-{number}"
        sent[service] = time.time()
        caller.ask("POST", "/api/v2/alerts", [alert(service, "p0")])
    _wait_for(lambda: sum(f"/first/{service}" in arrived for service in sent), len(sent), "first actions")

    found: dict[str, array[float]] = {name: array("d") for name in BOUNDS_MS}
    for service, at in sent.items():
        found["first_action"].append(arrived[f"/first/{service}"] - at)
        (listed,) = caller.ask("GET", f"/v1/incidents?service={service}")["items"]
        shown = caller.ask("GET", f"/v1/incidents/{listed['id']}")
        # A timeline tells milliseconds, cut: up to one too early.
        for name, kind in (("judged", "Classified"), ("chosen", "PlaybookStarted")):
            line = next(each for each in shown["timeline"] if each["event_type"] == kind)
            found[name].append(_moment(line["timestamp"]) - at)
    return found


def runs_at_once(url: str, arrived: dict[str, float], count: int) -> dict[str, object]:
    """Begin so many runs in one go; when they were under way together, and how long until all were over."""
    caller, services = Caller(url), [f"many-{number}" for number in range(count)]
    begun, sent = time.time(), {}
    for first in range(0, count, 256):
        part = services[first : first + 256]
        at = time.time()
        caller.ask("POST", "/api/v2/alerts", [alert(each, "many") for each in part])
        sent.update(dict.fromkeys(part, at))
    all_sent_s = time.time() - begun
    _wait_for(lambda: sum(f"/last/{service}" in arrived for service in services), count, "last actions")
    runs: list[dict[str, Any]] = []
    _wait_for(lambda: len(_over(caller, runs)), count, "runs that are over")
    started, ended = ([_moment(run[name]) for run in runs] for name in ("started_at", "ended_at"))
    changes = sorted([(at, 1) for at in started] + [(at, -1) for at in ended])
    under_way = most = 0
    for _at, change in changes:
        under_way += change
        most = max(most, under_way)
    firsts = array("d", (arrived[f"/first/{service}"] - at for service, at in sent.items()))
    return {
        "what": "runs at once", "n": count, "most_at_once": most, "all_sent_s": round(all_sent_s, 2),
        "all_started_s": round(max(started) - begun, 2), "all_over_s": round(max(ended) - begun, 2),
        "first_action_ms": percentiles_ms(firsts),
        "succeeded": sum(run["status"] == "succeeded" for run in runs),
    }  # fmt: skip


def _over(caller: Caller, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of the second playbook that are over; into `runs` too."""
    runs.clear()
    cursor = ""
    while True:
        page = caller.ask("GET", f"/v1/runs?limit=1000&playbook=many%20at%20once{cursor}")
        runs += [run for run in page["items"] if run["ended_at"]]
        if page["next"] is None:
            return runs
        cursor = f"&cursor={page['next']}"


def _wait_for(count: Any, wanted: int, what: str) -> None:
    end = time.monotonic() + TIMEOUT_S
    while (found := count()) < wanted:
        if time.monotonic() > end:
            raise RuntimeError(f"{found:,} of {wanted:,} {what} after {TIMEOUT_S:g} s")
        time.sleep(0.2)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small load, seconds")
    parser.add_argument(
        "--rate", type=float, help=f"alerts a second beside (default {RATE_PER_S:,.0f}; 0: none)"
    )
    parser.add_argument("--series", type=int, help=f"open series of those (default {SERIES:,})")
    parser.add_argument("--duration-s", type=float, help=f"default {DURATION_S:g}")
    parser.add_argument("--runs", type=int, help=f"runs at once (default {RUNS:,}; 0: none)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for response.json")
    given = parser.parse_args()

    def chosen(value: Any, quick: Any, full: Any) -> Any:
        return value if value is not None else quick if given.quick else full

    rate = chosen(given.rate, QUICK_RATE_PER_S, RATE_PER_S)
    series = chosen(given.series, QUICK_SERIES, SERIES)
    duration_s = chosen(given.duration_s, QUICK_DURATION_S, DURATION_S)
    runs = chosen(given.runs, QUICK_RUNS, RUNS)
    cells: list[dict[str, object]] = []

    with recording() as (place, arrived), tempfile.TemporaryDirectory(prefix="llm-im-books-") as books:
        for name, text in BOOKS.items():
            wait_s = QUICK_WAIT_S if given.quick else WAIT_S
            Path(books, f"{name}.yaml").write_text(text.format(place=place, wait_s=wait_s))
        settings = {
            "LIFECYCLE__MAX_CONCURRENT_INCIDENTS": str(ROOM), "PLAYBOOKS__ENABLED": "true", "PLAYBOOKS__FOLDER": books,
            "OUTBOUND__ALLOW": '["127.0.0.1"]', "OUTBOUND__RATE": "none",
        }  # fmt: skip
        with own(**settings) as ours, ThreadPoolExecutor(1) as beside:
            # Connections, imports and code paths are warm, and every shard has heard of the playbooks.
            incidents_trickle(ours.url, arrived, 3.0, "warm")
            bodies = Bodies("repeats", series, BATCH, passes=1, now=NOW)
            load = None
            if rate:
                spec = Spec(
                    bodies, mode="open", concurrency=CONNECTIONS, duration_s=duration_s + 5.0, rate_per_s=rate / BATCH,
                )  # fmt: skip
                opening = Spec(bodies, concurrency=CONNECTIONS, duration_s=1.0, preload=bodies)
                generate(Target("ours", ours.url), opening)
                load = beside.submit(generate, Target("ours", ours.url), spec)
                time.sleep(2.0)
            times = incidents_trickle(ours.url, arrived, duration_s, "p0")
            answered = 0.0 if load is None else load.result()["measured"].alerts_per_s
            for name, samples in times.items():
                found = percentiles_ms(samples)
                cells.append(
                    {
                        "what": name, "n": len(samples), "alerts_per_s": round(answered), "offered_per_s": round(rate),
                        "ms": found, "bound_p99_ms": BOUNDS_MS[name],
                    }
                )  # fmt: skip
                say(
                    f"{name}: p50 {found['p50']:.0f} ms, p99 {found['p99']:.0f} ms, max {found['max']:.0f} ms, "
                    f"n={len(samples)} (p99 wanted below {BOUNDS_MS[name]:g} ms), beside {answered:,.0f} alerts/s"
                )
            if runs:
                cells.append(many := runs_at_once(ours.url, arrived, runs))
                say(
                    f"{many['most_at_once']:,} runs at once of {runs:,}: all begun after {many['all_started_s']} s, over after "
                    f"{many['all_over_s']} s; {many['succeeded']:,} succeeded"
                )
    write("response", cells, given.results)


if __name__ == "__main__":
    main()
