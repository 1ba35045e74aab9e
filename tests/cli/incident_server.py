"""A small HTTP server that speaks /v1 as docs/http-api.md describes it: incidents in memory, verbs that change them,
versions, Idempotency-Keys, problems, the event stream. It keeps what it was asked, and fails when a test says so."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.cli.response_answers import Response

LETTER: dict[str, Any] = {
    "id": 17, "received_at": "2026-01-31T12:00:00.000Z", "door": "mapped", "sender": "probe", "place": "item 0",
    "reason": "alertname: it finds nothing", "content_type": "application/json", "size": 2, "truncated": False, "replays": 0,
    "tried_at": None,
}  # fmt: skip
WHOLE_LETTER = LETTER | {
    "method": "POST", "path": "/v1/events/mapped/probe", "query": "", "items": [0], "text": "{}", "base64": None,
}  # fmt: skip
REPLAYED = {"id": 17, "outcome": "stored", "format": "mapped", "stored": 1, "reason": ""}
STATES = {
    "acknowledge": "Investigating",
    "assign": "Investigating",
    "resolve": "Resolved",
    "close": "Closed",
    "reopen": "Triaged",
}
#: Ends a connection of the stream, as a restarted gateway does.
HANG_UP = None


def identity(number: int) -> str:
    return f"019ab000-{number:04x}-7001-8000-{number:012x}"


def incident(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": identity(number), "created_at": "2026-01-31T12:00:00.000Z", "updated_at": "2026-01-31T12:01:00.000Z",
        "state": "Triaged", "severity": "P1", "incident_type": "Performance", "source": "v1", "title": "HighLatency",
        "description": "", "affected_resources": ["llm-api"], "labels": {"team": "inference"}, "related_incidents": [],
        "active_playbook": None, "resolution": None, "timeline": [], "assignees": [], "service": "llm-api",
        "group_key": "", "group_labels": {"service": "llm-api", "alertname": "HighLatency"}, "annotations": {},
        "impact": "major", "classified_by": "severity label", "confidence": 1.0, "alerts": 2, "alerts_firing": 1,
        "reopened": 0, "resolved_at": None, "closed_at": None, "overflow": None, "timeline_dropped": 0,
        "version": 1, "created_by": "system", "acknowledged": None, "roles": {},
        "due": {"acknowledge_due_at": None, "resolve_due_at": None},
        "said": {"severity": None, "incident_type": None, "impact": None},
        "judged": {"severity": "P1", "incident_type": "Performance", "impact": "major"}, "merged_into": None,
        "parts": [], "split_from": None, "updates": [], "update_due_at": None, **changes,
    }  # fmt: skip


def alert(number: int, of: str = "") -> dict[str, Any]:
    return {
        "fingerprint": f"{number:016x}", "incident_id": of or identity(1), "firing": True,
        "labels": {"service": "llm-api", "alertname": "HighLatency", "host": f"h{number}"}, "annotations": {},
        "generator_url": "", "source": "prometheus", "starts_at": "2026-01-31T12:00:00.000Z", "ends_at": None,
        "last_seen_at": "2026-01-31T12:00:00.000Z",
        "why": [{"decision": "opened", "reason": "first alert of its group", "count": 1}],
    }  # fmt: skip


def stats(count: int) -> dict[str, Any]:
    times = {"count": 2, "mean_s": 90.0, "p50_s": 60.0, "p90_s": 120.0, "p99_s": 120.0}
    return {
        "at": "2026-01-31T12:00:00.000Z", "window_s": 86400.0, "open": count, "acknowledged": 1, "unassigned": 0,
        "overdue": 0, "by_state": {"Triaged": count, "Closed": 0}, "by_severity": {"P0": 0, "P1": count},
        "by_type": {"Performance": count}, "by_service": [{"service": "llm-api", "open": count}], "other_services": 3,
        "opened": 4, "resolved": 2, "time_to_acknowledge": times, "time_to_resolve": {**times, "count": 0},
        "alerts": {"by_decision": {"opened": 1, "repeated": 99}, "dedup_ratio": 0.99}, "complete": True,
    }  # fmt: skip


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class IncidentServer:
    """`next_answers` are given first, whatever is asked; `stream_answers` to one connect of the stream each, None lets it
    stream. `lose_next` hears so many requests, and answers none."""

    def __init__(self) -> None:
        #: Runs of playbooks by incident, and what was written of playbooks by name.
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.playbooks: dict[str, str] = {}
        self.incidents: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, int] = {}
        self.timelines: dict[str, list[dict[str, Any]]] = {}
        self.alerts = [alert(1), alert(2)]
        self.response = Response()
        self.asked: list[Asked] = []
        self.next_answers: list[Answer] = []
        self.stream_answers: list[Answer | None] = []
        self.lose_next = 0
        self.done: dict[str, Answer] = {}
        self.events: queue.Queue[str | None] = queue.Queue()
        self._lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.005,), daemon=True).start()

    def stop(self) -> None:
        self.events.put(HANG_UP)
        self.server.shutdown()
        self.server.server_close()

    def hold(self, *incidents: dict[str, Any]) -> None:
        for each in incidents:
            self.incidents[each["id"]] = each
            self.versions[each["id"]] = 1
            self.timelines[each["id"]] = []
            self._note(each["id"], "Created", "system", "opened")

    def change(self, of: str, actor: str, description: str) -> None:
        """Somebody else changes it."""
        self._touch(of)
        self._note(of, "SeverityChanged", actor, description)

    def tell(self, cursor: str, number: int, text: str, kind: str = "CommentAdded", of: str = "") -> None:
        """An event on the stream."""
        of = of or identity(number)
        head = self.incidents.get(of) or incident(number, id=of)
        data = {"cursor": cursor, "at": "2026-01-31T12:00:00.000Z", "kind": kind, "incident": head, "actor": "alice",
                "text": text, "details": {}}  # fmt: skip
        self.events.put(f"id: {cursor}\nevent: incident\ndata: {json.dumps(data)}\n\n")

    @property
    def posted(self) -> list[Asked]:
        return [each for each in self.asked if each.method == "POST"]

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            if self.next_answers:
                return self.next_answers.pop(0)
            key = asked.headers.get("idempotency-key", "")
            if asked.method == "POST" and key in self.done:
                return self.done[key]
            found = self._answer(asked)
            if asked.method == "POST":
                self.done[key] = found
            return found

    def _answer(self, asked: Asked) -> Answer:
        match asked.path.strip("/").split("/")[1:]:
            case ["incidents", of, "runs"] if asked.method == "GET" and of in self.runs:
                return Answer(200, {"items": self.runs[of], "next": None})
            case ["playbooks", name] if asked.method == "GET" and name in self.playbooks:
                return Answer(200, {"source": self.playbooks[name]})
        if (told := self.response.answer(asked, self.incidents)) is not None:
            return Answer(*told)
        match asked.method, asked.path.strip("/").split("/")[1:]:
            case "GET", ["incidents"]:
                return self._page([each for each in self._newest() if _fits(each, asked.query)], asked.query)
            case "POST", ["incidents"]:
                made = incident(900 + len(self.incidents), **asked.body)
                self.hold(made)
                return Answer(201, made, {"Location": f"/v1/incidents/{made['id']}", "ETag": '"1"'})
            case "POST", ["incidents", "bulk"]:
                return self._bulk(asked)
            case "GET", ["incidents", of]:
                return self._shown(of)
            case "GET", ["incidents", of, "alerts"]:
                firing = dict(asked.query).get("firing")
                return self._page(
                    [
                        each
                        for each in self.alerts
                        if each["incident_id"] == of and firing in (None, str(each["firing"]).lower())
                    ],
                    asked.query,
                )
            case "GET", ["incidents", of, "timeline"]:
                return Answer(200, {"items": self.timelines[of], "dropped": 0})
            case "POST", ["incidents", of, verb]:
                return self._verb(of, verb, asked)
            case "GET", ["alerts"]:
                return self._page(self.alerts, asked.query)
            case "POST", ["alerts"]:
                return Answer(202, {"items": [{"index": 0, "status": 202, "decision": "opened"}]})
            case "GET", ["stats"]:
                return Answer(200, stats(len(self.incidents)))
            case "GET", ["dead-letters"]:
                return Answer(200, {"items": [LETTER], "next": None})
            case "GET", ["dead-letters", _]:
                return Answer(200, WHOLE_LETTER)
            case "POST", ["dead-letters", "replay"]:
                counts = {"stored": 1, "refused": 0, "waiting": 0}
                return Answer(200, {"items": [REPLAYED], **counts, "next": None})
            case "POST", ["dead-letters", _, "replay"]:
                return Answer(200, REPLAYED)
            case "DELETE", ["dead-letters", *_]:
                return Answer(200, {"dropped": 1, "more": False})
            case "GET", ["targets"]:
                return Answer(200, {"items": [], "silent": []})
            case "GET", ["ready"]:
                return Answer(200, {"status": "ready", "degraded": []})
        return Answer(404, {"title": "Not found", "status": 404, "detail": f"there is no {asked.path}"})

    def _newest(self) -> list[dict[str, Any]]:
        return sorted(self.incidents.values(), key=lambda each: str(each["id"]), reverse=True)

    def _page(self, found: list[dict[str, Any]], query: list[tuple[str, str]]) -> Answer:
        given = dict(query)
        first, limit = int(given.get("cursor", 0)), int(given.get("limit", 100))
        more = first + limit < len(found)
        return Answer(
            200, {"items": found[first : first + limit], "next": str(first + limit) if more else None}
        )

    def _shown(self, of: str, status: int = 200) -> Answer:
        if of not in self.incidents:
            return Answer(404, {"title": "Not found", "status": 404, "detail": f"there is no incident {of}"})
        return Answer(status, self.incidents[of], {"ETag": f'"{self.versions[of]}"'})

    def _verb(self, of: str, verb: str, asked: Asked) -> Answer:
        held = self.incidents.get(of)
        if held is None:
            return self._shown(of)
        if asked.headers.get("if-match", f'"{self.versions[of]}"') != f'"{self.versions[of]}"':
            return Answer(
                412, {"title": "Stale", "status": 412, "detail": "it was changed meanwhile: read it again"}
            )
        if verb == "close" and held["state"] != "Resolved":
            return Answer(
                409,
                {"title": "Conflict", "status": 409, "detail": f"it is {held['state']}: resolve it first"},
            )
        if verb == "reopen" and held["state"] not in ("Resolved", "Closed"):
            answer = self._shown(of)
            return Answer(answer.status, answer.body, {**answer.headers, "Incident-Changed": "no"})
        if verb == "split":
            made = incident(800 + len(self.incidents), title=asked.body.get("title", held["title"]))
            self.hold(made)
            return Answer(201, made, {"Location": f"/v1/incidents/{made['id']}", "ETag": '"1"'})
        held["state"] = STATES.get(verb, held["state"])
        held["severity"] = asked.body.get("severity", held["severity"])
        self._touch(of)
        self._note(of, verb, asked.headers.get("x-actor", "token"), json.dumps(asked.body))
        return self._shown(of)

    def _bulk(self, asked: Asked) -> Answer:
        items = []
        for of in asked.body["incidents"]:
            one = Asked(
                "POST", f"/v1/incidents/{of}/{asked.body['verb']}", [], asked.headers, asked.body["body"]
            )
            found = self._verb(of, asked.body["verb"], one)
            changed = found.status < 400 and "Incident-Changed" not in found.headers
            items.append(
                {
                    "incident": of,
                    "status": found.status,
                    "detail": found.body.get("detail", ""),
                    "changed": changed,
                }
            )
        return Answer(207 if any(each["status"] >= 400 for each in items) else 200, {"items": items})

    def _touch(self, of: str) -> None:
        self.versions[of] += 1
        self.incidents[of]["version"] = self.versions[of]

    def _note(self, of: str, kind: str, actor: str, text: str) -> None:
        self.timelines[of].append(
            {"timestamp": "2026-01-31T12:00:00.000Z", "event_type": kind, "actor": actor, "description": text,
             "metadata": {}}
        )  # fmt: skip


def _fits(each: dict[str, Any], query: list[tuple[str, str]]) -> bool:
    names = {"state": "state", "severity": "severity", "type": "incident_type", "service": "service"}
    for name, key in names.items():
        wanted = [value for given, value in query if given == name]
        if wanted and each[key] not in wanted:
            return False
    return True


def _encoded(found: Answer) -> bytes:
    if isinstance(found.body, bytes):
        return found.body
    return b"" if found.body is None else json.dumps(found.body).encode()


def _handler(outer: IncidentServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = [(name, value) for name, values in parse_qs(url.query, True).items() for value in values]
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(data) if data.startswith((b"{", b"[")) else data
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, unquote(url.path), query, headers, body)
            outer.asked.append(asked)
            if url.path == "/v1/stream/incidents" and not outer.next_answers:
                refused = outer.stream_answers.pop(0) if outer.stream_answers else None
                if refused is None:
                    self._stream()
                    return
                outer.next_answers.append(refused)
            found = outer.answer(asked)
            if outer.lose_next:
                outer.lose_next -= 1
                self.close_connection = True
                return
            encoded = _encoded(found)
            self.send_response(found.status)
            for name, value in {"Content-Length": str(len(encoded)), **found.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(encoded)

        do_POST = do_PUT = do_DELETE = do_GET

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b": hello\n\n")
            self.wfile.flush()
            with contextlib.suppress(OSError):  # whoever watched has gone
                while (event := outer.events.get()) is not HANG_UP:
                    self.wfile.write(event.encode())
                    self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Handler


@contextmanager
def serving() -> Iterator[IncidentServer]:
    made = IncidentServer()
    try:
        yield made
    finally:
        made.stop()
