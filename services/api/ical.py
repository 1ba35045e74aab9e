"""Shifts as iCalendar (RFC 5545), which calendar programs subscribe to. Used by services/api/v1/oncall.py.

Times are UTC, so that no definition of a time zone has to travel along. Text is escaped, lines end in CRLF and are folded at 75 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from models.people.oncall import Shift

CALENDAR_TYPE = "text/calendar"
#: Bytes of a line, without its end.
LINE_BYTES = 75
#: How often a program should ask again.
REFRESH = "PT1H"


def calendar(name: str, shifts: Iterable[tuple[str, Shift]], now: float) -> bytes:
    """One event for each shift, with its schedule; a shift in which nobody is on call says so. The same shift has the same UID each
    time."""
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//llm-incident-manager//on call//EN",
        "CALSCALE:GREGORIAN",
        "METHOD:PUBLISH",
        f"X-WR-CALNAME:{_text(name)}",
        f"REFRESH-INTERVAL;VALUE=DURATION:{REFRESH}",
        f"X-PUBLISHED-TTL:{REFRESH}",
    ]
    for schedule, shift in shifts:
        lines += _event(schedule, shift, now)
    lines.append("END:VCALENDAR")
    return b"".join(part for line in lines for part in _folded(line))


def _event(schedule: str, shift: Shift, now: float) -> Iterator[str]:
    duty = shift.duty
    who = "Nobody" if duty is None else duty.person
    why = "" if duty is None else f"by override {duty.override}" if duty.override else f"layer {duty.layer}"
    identity = hashlib.blake2b(f"{schedule}\n{who}\n{shift.starts_at}".encode(), digest_size=16).hexdigest()
    yield "BEGIN:VEVENT"
    yield f"UID:{identity}@llm-incident-manager"
    yield f"DTSTAMP:{_time(now)}"
    yield f"DTSTART:{_time(shift.starts_at)}"
    yield f"DTEND:{_time(shift.ends_at)}"
    yield f"SUMMARY:{_text(f'{who} on call ({schedule})')}"
    if why:
        yield f"DESCRIPTION:{_text(why)}"
    yield "TRANSP:TRANSPARENT"
    yield "END:VEVENT"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    return escaped.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\\n")


def _folded(line: str) -> Iterator[bytes]:
    """In pieces of at most LINE_BYTES, none of which cuts a character; each but the first begins with a space."""
    piece = bytearray()
    for character in line:
        encoded = character.encode()
        if len(piece) + len(encoded) > LINE_BYTES:
            yield bytes(piece) + b"\r\n"
            piece = bytearray(b" ")
        piece += encoded
    yield bytes(piece) + b"\r\n"
