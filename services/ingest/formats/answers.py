"""Answers over HTTP: what a format learns about a failed request, and what the formats' answers share. Used by
formats/*.py and services/ingest/doors/http.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from models.errors import (
    Busy,
    Forbidden,
    Full,
    IncidentManagerError,
    Malformed,
    NotFound,
    NotOwner,
    RateLimited,
    Refused,
    ShareUsedUp,
    TooLarge,
    Unauthorized,
)
from services.ingest.body import TooSlow, Unsupported
from services.ingest.bound import FORBIDDEN
from services.ingest.formats.reading import Reading
from services.ingest.headers import quota_headers
from services.ingest.submit import Receipt

#: Memory is free again when alerts have ended and their incidents are archived, not in a second.
FULL_RETRY_S = 60.0

encode_json = msgspec.json.Encoder().encode


class Answer(msgspec.Struct):
    """Status, content type (b"" for none), body and further headers."""

    status: int
    content_type: bytes = b""
    body: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()


class Refusal(msgspec.Struct):
    """Why a whole request is refused, before its format writes the answer."""

    status: int
    title: str
    detail: str
    retry_after_s: float = 0.0
    closes: bool = False
    challenge: bytes = b""
    trace_id: str | None = None
    #: Which quota was used up, as headers.
    quota: Sequence[tuple[bytes, bytes]] = ()

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Those that go with it, whatever shape its body has."""
        # A sender that was too slow is still sending: what comes now belongs to no request.
        closing = [(b"connection", b"close")] if self.closes else []
        challenge = [(b"www-authenticate", self.challenge)] if self.challenge else []
        return [*_patience(self.retry_after_s), *self.quota, *closing, *challenge]


_REFUSALS: tuple[tuple[type[Exception], int, str], ...] = (
    (Unauthorized, 401, "Unauthorized"),
    (Forbidden, 403, "Forbidden"),
    (NotFound, 404, "Not found"),
    (TooSlow, 408, "Too slow"),
    (TooLarge, 413, "Too large"),
    (Unsupported, 415, "Unsupported media type"),
    (RateLimited, 429, "Rate limited"),
    (Busy, 503, "Busy"),
    (Malformed, 400, "Malformed"),
)
#: The errors that refuse a whole request.
REFUSING = tuple(kind for kind, _status, _title in _REFUSALS)


def refusal_of(error: Exception) -> Refusal:
    """One of REFUSING as its format gets it."""
    status, title = next((status, title) for kind, status, title in _REFUSALS if isinstance(error, kind))
    return Refusal(
        status,
        title,
        str(error),
        retry_after_s=error.retry_after_s if isinstance(error, Busy) else 0.0,
        closes=isinstance(error, TooSlow),
        quota=quota_headers(error.limit, error.quota, error.window_s, 0, error.retry_after_s)
        if isinstance(error, RateLimited)
        else (),
    )


def problem(refusal: Refusal, instance: str) -> Answer:
    """A refusal as RFC 9457 has it."""
    body: dict[str, object] = {
        "type": f"urn:llm-im:problem:{refusal.title.lower().replace(' ', '-')}",
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
        "instance": instance,
        "errors": [],
    }
    if refusal.trace_id is not None:
        body["trace_id"] = refusal.trace_id
    return Answer(refusal.status, b"application/problem+json", encode_json(body), refusal.headers)


def error_of(receipt: Receipt) -> IncidentManagerError | None:
    """What went wrong, None if nothing did. Of several, the one that a retry fixes: a sender that gives up because of
    another one would lose what the retry stores."""
    return max(receipt.errors.values(), key=status_of, default=None)


def status_of(error: IncidentManagerError) -> int:
    """422 for what a retry can't fix (an idempotency key used for another body), 429 for a share that is used up or a sender
    that is too fast, else 503."""
    if isinstance(error, ShareUsedUp | RateLimited):
        return 429
    return 422 if isinstance(error, Refused) and not isinstance(error, Busy | NotOwner) else 503


def status_of_faults(reading: Reading) -> int:
    """Of a request of which nothing could be taken: 403 when all of it is forbidden, else 400."""
    return FORBIDDEN if all(fault.status == FORBIDDEN for fault in reading.faults) and reading.faults else 400


def retry_after(error: IncidentManagerError | None) -> Sequence[tuple[bytes, bytes]]:
    """The header Retry-After for what went wrong, where waiting helps."""
    if error is None or status_of(error) == 422:
        return ()
    if isinstance(error, ShareUsedUp | Full):
        return _patience(FULL_RETRY_S)
    return _patience(error.retry_after_s if isinstance(error, Busy) else 1.0)


def _patience(seconds: float) -> Sequence[tuple[bytes, bytes]]:
    # Rounded up: who comes back sooner is sent away again.
    return [(b"retry-after", str(max(1, math.ceil(seconds))).encode())] if seconds else ()
