"""`llm-im incidents watch`: the stream, its ends and its beginnings."""

from __future__ import annotations

import io
import json

import pytest

from services.cli.shared import sse
from tests.cli.conftest import Run
from tests.cli.incident_server import HANG_UP, Answer, IncidentServer, identity, incident


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "FIRST_WAIT_S", 0.01)


def test_events_are_told_in_a_line_each(run: Run, incidents: IncidentServer) -> None:
    incidents.hold(incident(1, title="Slow \x1b[31m"))
    incidents.tell("c1", 1, "rolled back\x07")

    result = run("incidents", "watch", "-n", "1")

    assert result.exit_code == 0
    assert result.output == (
        f"2026-01-31T12:00:00.000Z P1 Triaged       {identity(1)} CommentAdded: rolled back\ufffd (alice) "
        "[llm-api: Slow \ufffd[31m]\n"
    )


def test_json_is_an_event_a_line(run: Run, incidents: IncidentServer) -> None:
    incidents.tell("c1", 1, "one")
    incidents.tell("c2", 2, "two")

    result = run("incidents", "watch", "--json", "-n", "2")

    assert [json.loads(line)["cursor"] for line in result.output.splitlines()] == ["c1", "c2"]


def test_a_lost_connection_goes_on_behind_the_last_event(run: Run, incidents: IncidentServer) -> None:
    incidents.tell("c1", 1, "one")
    incidents.events.put(HANG_UP)
    incidents.events.put("id: c2\nevent: incident\ndata: {cut off")
    incidents.events.put(HANG_UP)
    incidents.tell("c2", 1, "two")

    result = run("incidents", "watch", "severity=P1", "-n", "2", "--after", "c0")

    assert [line.split("CommentAdded: ")[1][:3] for line in result.stdout.splitlines()] == ["one", "two"]
    assert result.stderr.count("the server ended the stream; trying again in") == 2
    assert [each.headers["last-event-id"] for each in incidents.asked] == ["c0", "c1", "c1"]
    assert {tuple(each.query) for each in incidents.asked} == {(("severity", "P1"),)}


def test_a_server_that_restarts_is_waited_for(run: Run, incidents: IncidentServer) -> None:
    incidents.tell("c1", 1, "one")
    incidents.events.put(HANG_UP)
    incidents.tell("c2", 1, "two")
    incidents.stream_answers = [None, Answer(503, {"detail": "shard/0000 is recovering"})]

    result = run("incidents", "watch", "-n", "2")

    assert result.exit_code == 0
    assert "answered 503: shard/0000 is recovering; trying again in" in result.stderr
    assert incidents.asked[-1].headers["last-event-id"] == "c1"


def test_a_reset_is_told_with_its_reason_and_the_stream_goes_on(run: Run, incidents: IncidentServer) -> None:
    incidents.events.put(
        'id: r\nevent: reset\ndata: {"reason": "truncated", "detail": "the log begins later"}\n\n: beat\n\n'
    )
    incidents.tell("c1", 1, "one")

    result = run("incidents", "watch", "-n", "1")

    assert result.exit_code == 0
    assert "events were missed (truncated: the log begins later); for the present state" in result.stderr


def test_words_of_the_server_about_the_stream_move_the_cursor(run: Run, incidents: IncidentServer) -> None:
    for cursor, name, body in (
        ("r", "ready", {}),
        ("h", "heartbeat", {"stalled": {}}),
        ("s", "heartbeat", {"stalled": {"shard/0001": "away"}}),
        ("d", "dropped", {"reason": "slow", "detail": "nothing was read for 15 s"}),
    ):
        incidents.events.put(f"event: {name}\nid: {cursor}\ndata: {json.dumps(body)}\n\n")
    incidents.events.put(HANG_UP)
    incidents.tell("c1", 1, "one")

    result = run("incidents", "watch", "-n", "1", "--kind", "CommentAdded")

    assert result.stderr.splitlines()[:2] == [
        "llm-im: can't be followed now: shard/0001 (away)",
        "llm-im: the server closed the stream (slow: nothing was read for 15 s)",
    ]
    assert len(result.stderr.splitlines()) == 3
    assert incidents.asked[-1].headers["last-event-id"] == "d"
    assert incidents.asked[-1].query == [("kind", "CommentAdded")]


def test_what_the_stream_cannot_be_asked_is_refused(run: Run, incidents: IncidentServer) -> None:
    assert run("incidents", "watch", "assignee=alice").exit_code == 2
    assert not incidents.asked


def test_only_the_incidents_that_were_named(run: Run, incidents: IncidentServer) -> None:
    incidents.tell("c1", 1, "one")
    incidents.tell("c2", 2, "two")

    result = run("incidents", "watch", identity(2), "-n", "1", "--json")

    assert json.loads(result.output)["text"] == "two"


@pytest.mark.parametrize(("status", "code"), [(400, 1), (401, 7), (404, 5), (503, 4)])
def test_a_refusal_of_the_first_try_is_told(
    run: Run, incidents: IncidentServer, status: int, code: int
) -> None:
    incidents.next_answers = [Answer(status, {"detail": "cursor: this is none"})]

    result = run("incidents", "watch")

    assert result.exit_code == code
    assert "cursor: this is none" in result.stderr


def test_an_event_that_is_none_is_a_failure_and_no_traceback(run: Run, incidents: IncidentServer) -> None:
    incidents.events.put("event: incident\ndata: [1]\n\n")

    result = run("incidents", "watch")

    assert result.exit_code == 1
    assert "the stream sent something that is not an event: [1]" in result.stderr


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b": beat\n\n", []),
        (b"data: a\n\n", [("message", "a", "")]),
        (b"id: 1\nevent: x\ndata: a\ndata:b\n\n", [("x", "a\nb", "1")]),
        (b"id: 1\r\ndata: a\r\n\r\n", [("message", "a", "1")]),
        (b"id: 1\ndata: a\n\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "1")]),
        (b"event: x\n\ndata: a\n\n", [("message", "a", "")]),
        (b"data: a\n", []),
        (b"retry: 5\nnonsense\ndata: \xff\n\n", [("message", "\ufffd", "")]),
    ],
)
def test_streams_are_read_as_browsers_read_them(body: bytes, events: list[tuple[str, str, str]]) -> None:
    found = [(event.name, event.data, event.id) for event in sse.parse(io.BytesIO(body))]

    assert found == events
