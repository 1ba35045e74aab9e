"""What is written to a queue about an event."""

from __future__ import annotations

import json
import re
from pathlib import Path

from models.stream.happenings import KINDS
from services.feed.announce import _before_move, _read_cursor, _write_cursor
from services.feed.announce_shard import Standing
from services.feed.announcements import ORCHESTRATED, Announcement, shortened

PAGE = Path(__file__).parents[2] / "docs/queues.md"


def test_what_is_orchestrated_are_kinds_of_lines_and_stands_on_the_page() -> None:
    [told] = re.findall(r"The kinds in `orchestrate`: (.*?)\.\n", PAGE.read_text(), flags=re.DOTALL)

    assert set(KINDS) >= ORCHESTRATED
    assert set(re.findall(r"\w+", told)) == ORCHESTRATED
    assert {
        each for each in KINDS if each.startswith(("Playbook", "Approval", "Notification"))
    } <= ORCHESTRATED


def test_a_shortened_message_says_so_and_keeps_what_it_is_about() -> None:
    long = "x" * 5000
    body = {
        "event": "incident",
        "id": "shard-0000-1-0-1",
        "kind": "CommentAdded",
        "incident": {
            "id": "one",
            "title": long,
            "labels": {"a": long},
            "assignees": ["eve"],
            "state": "Open",
        },
        "text": long,
        "reason": "",
        "details": {"a": long},
    }
    message = Announcement("t", "one", "shard-0000-1-0-1", "CommentAdded", json.dumps(body).encode())

    short = shortened(message)

    found = json.loads(short.body)
    assert (short.id, short.key, found["id"], found["shortened"]) == (message.id, "one", message.id, True)
    assert found["incident"]["state"] == "Open" and len(short.body) < 3000


def test_a_cursor_is_read_as_it_was_written_and_says_why_it_is_of_no_use() -> None:
    places = [Standing(17, b"\x01" * 8), None, Standing(4, b"")]

    text = _write_cursor(3, places)

    assert _read_cursor(text, 3, 3) == (places, "new")
    assert _read_cursor(text, 4, 3) == ([None] * 3, "slots")
    assert _read_cursor(text, 3, 2) == ([None] * 2, "slots")
    assert _read_cursor("3;a:b,c", 3, 2) == ([None] * 2, "unknown")
    assert _read_cursor("", 3, 2) == ([None] * 2, "new")
    assert _before_move(text, 4) == (3, places)
    assert [_before_move(each, 3) for each in ("", "x", text, "4;1:aa", "2;x", "1;")] == [None] * 6
    # As many as one cursor holds: there may have been others.
    assert _before_move(_write_cursor(2, [None] * 100), 3) is None
    assert len(_write_cursor(10**6, [Standing(10**12, b"\xff" * 8)] * 100)) < 4096
