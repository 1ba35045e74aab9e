"""How large a dead letter may be, what it counts, and which are wanted: the same in every DeadLetters adapter, which call it."""

from __future__ import annotations

from dataclasses import replace

from models.ports import DeadLetter, LettersWanted

#: How much of a payload is kept: enough to see what was wrong with it, whatever a sender throws at us.
MAX_PAYLOAD_BYTES = 64 * 1024
#: A reason names one field, not the payload again; longer ones are cut.
MAX_REASON_CHARS = 2000
#: What a letter takes beside its payload and reason.
OVERHEAD_BYTES = 200
UPPER, LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
_FOLDED = str.maketrans(UPPER, LOWER)


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
    return (
        OVERHEAD_BYTES
        + len(letter.payload)
        + len(letter.reason.encode())
        + len(letter.place.encode())
        + len(letter.request)
    )


def folded(text: str) -> str:
    """A text as it is compared: SQLite's lower() knows ASCII alone, so all do it like this."""
    return text.translate(_FOLDED)


def is_wanted(letter: DeadLetter, wanted: LettersWanted) -> bool:
    """For adapters whose store can't look by itself."""
    return (
        wanted.tenant in ("", letter.tenant)
        and wanted.door in ("", letter.door)
        and wanted.sender in ("", letter.sender)
        and letter.at >= wanted.since
        and (not wanted.until or letter.at < wanted.until)
        and (not wanted.reason or folded(wanted.reason) in folded(letter.reason))
    )


def sql_of(wanted: LettersWanted, mark: str, folds: str) -> tuple[str, list[object]]:
    """The same as conditions of SQL, each with AND before it, and their parameters. `mark` stands for one, `folds` is folded() of
    the column `reason`, found in by strpos or instr: the first argument is the whole text."""
    found: list[tuple[str, object]] = []
    if wanted.tenant:
        found.append((f"tenant = {mark}", wanted.tenant))
    if wanted.door:
        found.append((f"door = {mark}", wanted.door))
    if wanted.sender:
        found.append((f"sender = {mark}", wanted.sender))
    if wanted.since:
        found.append((f"at >= {mark}", wanted.since))
    if wanted.until:
        found.append((f"at < {mark}", wanted.until))
    if wanted.reason:
        found.append((f"{folds} > 0", folded(wanted.reason)))
    return "".join(f" AND {each}" for each, _ in found), [value for _, value in found]
