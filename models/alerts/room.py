"""How much of a shard's memory each sender's alerts use, in bytes, and whether there is room for more.

Counted by what is kept, never by what arrived: SeriesTable counts each series, ShardState each incident, live, in replay
and from a snapshot alike. The count is of the text and a fixed price for what is kept beside it, so it is the same on
every machine and close to what the process really holds (benchmarks/memory.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.incidents.incident import Incident

#: A series beside its body: columns, look-ups, its key. Measured: 890 bytes with a body of 500.
SERIES_BYTES = 400
#: An incident beside its texts. Measured: 3.4 kB with 700 bytes of text.
INCIDENT_BYTES = 2700
#: What an incident keeps of the alert that opens it is at most so many times the alert's bytes: labels, annotations,
#: title and description; a character of four bytes makes all of its string as wide.
INCIDENT_TIMES = 5
#: Bytes of a character in a string that has others than ASCII, at worst.
WIDE = 4


class Room:
    """Bytes in use, in total and by sender. A sender that uses none is not listed."""

    def __init__(self) -> None:
        self.held = 0
        self.by_sender: dict[str, int] = {}

    def take(self, sender: str, size: int) -> None:
        """Add `size` bytes to a sender; remove some if negative."""
        self.held += size
        held = self.by_sender.get(sender, 0) + size
        if held:
            self.by_sender[sender] = held
        else:
            self.by_sender.pop(sender, None)


def bytes_of(incident: Incident) -> int:
    """Bytes of an incident that has just opened."""
    own = [incident.group_key, incident.service, *incident.group_labels, *incident.group_labels.values()]
    said = said_bytes(incident.title, incident.description, incident.labels, incident.annotations)
    return INCIDENT_BYTES + text_bytes(own) + said


def said_bytes(
    title: str, description: str, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> int:
    """Bytes that an incident uses for what its alerts have in common."""
    return text_bytes([title, description, *labels, *labels.values(), *annotations, *annotations.values()])


def pairs_bytes(pairs: Mapping[str, str]) -> int:
    """Bytes that labels or annotations use at worst."""
    return text_bytes([*pairs, *pairs.values()])


def text_bytes(texts: Sequence[str]) -> int:
    """Bytes that these strings use at worst."""
    # Nearly all are ASCII: looked at one by one they take three times as long.
    together = "".join(texts)
    if together.isascii():
        return len(together)
    return sum(map(width, texts))


def width(text: str) -> int:
    """Bytes that a string uses at worst."""
    return len(text) if text.isascii() else WIDE * len(text)
