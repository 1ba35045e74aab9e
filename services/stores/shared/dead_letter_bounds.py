"""How large a dead letter may be and what it counts, the same in every DeadLetters adapter, which call it."""

from __future__ import annotations

from dataclasses import replace

from models.ports import DeadLetter

#: How much of a payload is kept: enough to see what was wrong with it, whatever a sender throws at us.
MAX_PAYLOAD_BYTES = 64 * 1024
#: A reason names one field, not the payload again; longer ones are cut.
MAX_REASON_CHARS = 2000
#: What a letter takes beside its payload and reason.
OVERHEAD_BYTES = 200


def cut(letter: DeadLetter, max_payload_bytes: int) -> DeadLetter:
    """The letter as it is kept."""
    if len(letter.payload) <= max_payload_bytes and len(letter.reason) <= MAX_REASON_CHARS:
        return letter
    return replace(
        letter,
        payload=letter.payload[:max_payload_bytes],
        reason=letter.reason[:MAX_REASON_CHARS],
        truncated=letter.truncated or len(letter.payload) > max_payload_bytes,
    )


def size_of(letter: DeadLetter) -> int:
    return OVERHEAD_BYTES + len(letter.payload) + len(letter.reason.encode())
