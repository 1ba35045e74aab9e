"""What every log adapter checks before it hands a frame out: sizes, checksums and the digest chain.

Called by every EventLog adapter, so that all find the same damage.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from models.errors import Damaged
from models.partition.frames import check_frame

#: How much one read() returns when the caller does not say: large enough that the hop to a thread does not
#: count (4 MiB take some 30 ms to verify), small enough that a tailer never holds much.
READ_LIMIT_BYTES = 4 * 1024 * 1024
#: How many places in the chain a log remembers for its tailers; one that falls out costs a row read twice.
SEAMS_KEPT = 64


@dataclass(frozen=True, slots=True)
class StoredAppend:
    """What one append() stored. `frames` is None where the adapter could not even tell its frames apart."""

    first_seq: int
    last_seq: int
    frames: Sequence[bytes] | None


def join_frames(frames: Sequence[bytes]) -> tuple[bytes, bytes]:
    """What an append is stored as: the lengths apart, so that damage to one frame does not hide where the next begins."""
    return struct.pack(f"<{len(frames)}I", *map(len, frames)), b"".join(frames)


def split_frames(lengths: object, stored: object) -> list[bytes] | None:
    """The frames again; None when they are damaged so far that they can't be told apart."""
    if not isinstance(lengths, bytes) or not isinstance(stored, bytes) or len(lengths) % 4:
        return None
    frames: list[bytes] = []
    at = 0
    for (length,) in struct.iter_unpack("<I", lengths):
        frames.append(stored[at : at + length])
        at += length
    return frames if at == len(stored) else None


class Seams:
    """Digests of the frames where earlier reads ended: a tailer's next read follows the chain from there."""

    def __init__(self) -> None:
        self._digests: dict[int, bytes] = {}

    def get(self, seq: int) -> bytes | None:
        return self._digests.get(seq)

    def put(self, seq: int, digest: bytes) -> None:
        self._digests.pop(seq, None)
        if len(self._digests) >= SEAMS_KEPT:
            del self._digests[next(iter(self._digests))]
        self._digests[seq] = digest

    def clear(self) -> None:
        self._digests.clear()


def check_append(partition: str, append: StoredAppend, previous: bytes | None) -> list[bytes]:
    """Verify every frame; returns the digest of each. `previous` None skips the chain before the first."""
    frames = append.frames
    if frames is None or len(frames) != append.last_seq - append.first_seq + 1:
        raise Damaged(partition, append.first_seq, "the append's lengths do not match its bytes")
    digests: list[bytes] = []
    for offset, frame in enumerate(frames):
        previous = check_frame(partition, frame, append.first_seq + offset, previous)
        digests.append(previous)
    return digests


def torn(partition: str, append: StoredAppend) -> str | None:
    """Why a last append counts as torn, None when it is whole. One that is whole but does not follow the
    append before it is no torn tail but damage: something is missing, or there were two writers."""
    try:
        check_append(partition, append, None)
    except Damaged as error:
        return str(error)
    return None


def check_tail(partition: str, tail: Sequence[StoredAppend], anchor: tuple[int, bytes]) -> bytes:
    """Verify the last append and its place in the chain; returns the digest of the last frame.

    `tail` is the last append and, if there is one, the one before it, of which only the last frame is read.
    """
    if not tail:
        return anchor[1]
    previous_seq, previous = anchor
    if len(tail) > 1:
        previous_seq, previous = tail[1].last_seq, last_digest(partition, tail[1])
    if tail[0].first_seq != previous_seq + 1:
        raise Damaged(partition, previous_seq + 1, f"frames up to {tail[0].first_seq - 1} are missing")
    return check_append(partition, tail[0], previous)[-1]


def last_digest(partition: str, append: StoredAppend) -> bytes:
    """The digest of an append's last frame, which alone is verified."""
    if not append.frames:
        raise Damaged(partition, append.first_seq, "the append's lengths do not match its bytes")
    return check_frame(partition, append.frames[-1], append.last_seq, None)


def read_page(
    partition: str,
    appends: Iterable[StoredAppend],
    after: int,
    limit_bytes: int,
    anchor: tuple[int, bytes],
    last_seq: int,
    seams: Seams,
    *,
    may_be_torn: bool,
) -> list[tuple[int, bytes]]:
    """One page of read(): verified frames with seq > after, at least one, then up to limit_bytes.

    `appends` start at the one that holds `after` (or after + 1 when the seam at `after` is known) and are
    taken lazily. `may_be_torn`: a last append that fails its check ends the page instead of raising, because
    no writer has opened the log since and would cut it; a reader may not tell a torn tail from a lost one.
    """
    anchor_seq, anchor_digest = anchor
    page: list[tuple[int, bytes]] = []
    size = 0
    expected: int | None = None
    previous: bytes | None = None
    for append in appends:
        if expected is None:  # the first: it may begin before `after`, but not behind what comes next
            expected = min(append.first_seq, max(after, anchor_seq) + 1)
            previous = anchor_digest if expected == anchor_seq + 1 else seams.get(expected - 1)
        if append.first_seq != expected:
            raise Damaged(partition, expected, f"frames {expected} to {append.first_seq - 1} are missing")
        try:
            digests = check_append(partition, append, previous)
        except Damaged:
            if may_be_torn and append.last_seq >= last_seq and torn(partition, append) is not None:
                return page
            raise
        assert append.frames is not None  # check_append refuses it
        for offset, frame in enumerate(append.frames):
            seq = append.first_seq + offset
            if seq <= after:
                continue
            if page and size + len(frame) > limit_bytes:
                return page
            page.append((seq, frame))
            size += len(frame)
            if offset == len(append.frames) - 1:
                seams.put(seq, digests[offset])
        if size >= limit_bytes:
            return page
        previous = digests[-1]
        expected = append.last_seq + 1
    begins = max(after, anchor_seq) + 1
    if not page and begins <= last_seq:
        raise _shorter(partition, begins, last_seq)
    return page


def check_end(partition: str, recorded: int, ends_at: int) -> None:
    """Raises Damaged when the appends do not end where the log's own record, written with each of them, says."""
    if ends_at < recorded:
        raise _shorter(partition, ends_at + 1, recorded)
    if ends_at > recorded:
        raise Damaged(
            partition,
            recorded + 1,
            f"the log's record says that it ends at {recorded}, its appends at {ends_at}",
        )


def _shorter(partition: str, first: int, last: int) -> Damaged:
    return Damaged(
        partition,
        first,
        f"frames {first} to {last} are missing: the log's record says that it ends at {last}",
    )
