"""Headers that decide about a request. Used by the HTTP door, the guard (services/api/guard.py) and the routes of /v1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from models.errors import Malformed

#: If one of these is sent twice, some programs read the first and some the last, and a proxy in front may have checked
#: the other one: such a request has no clear meaning, and no HTTP client sends it. Other headers, which neither
#: authorize nor change a body, are no reason to lose an alert.
_ONCE = {
    name.lower().encode(): name
    for name in ("Authorization", "Content-Encoding", "Content-Type", "Host", "Origin")
}


#: What 401 asks for (RFC 6750).
CHALLENGE = b'Bearer realm="llm-im"'
#: An idempotency key is an identity, not a document.
IDEMPOTENCY_KEY_MAX_BYTES = 255


def refuse_repeated(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises Malformed, naming the header, when one that may be there once is there twice. Names are lower case, as in
    ASGI."""
    met: set[bytes] = set()
    for name, _value in headers:
        if name in met and name in _ONCE:
            raise Malformed(f"{_ONCE[name]}: expected this header once")
        met.add(name)


def idempotency_key(headers: Mapping[bytes, bytes]) -> str | None:
    """The request's Idempotency-Key, None without one. Raises Malformed."""
    raw = headers.get(b"idempotency-key")
    if raw is None:
        return None
    key = raw.decode("latin-1").strip()
    if not key or len(raw) > IDEMPOTENCY_KEY_MAX_BYTES or not key.isprintable():
        raise Malformed(f"Idempotency-Key: expected 1 to {IDEMPOTENCY_KEY_MAX_BYTES} printable characters")
    return key


def quota_headers(
    limit: str, quota: int, window_s: int, left: int, wait_s: float = 0.0
) -> list[tuple[bytes, bytes]]:
    """RateLimit-Policy and RateLimit (IETF draft, RateLimit header fields for HTTP): the alerts that `limit` allows in a window, and
    how many of them may still come at once."""
    wait = f";t={math.ceil(wait_s)}" if wait_s else ""
    return [
        (b"ratelimit-policy", f'"{limit}";q={quota};w={window_s}'.encode()),
        (b"ratelimit", f'"{limit}";r={left}{wait}'.encode()),
    ]


def sender_of(headers: Mapping[bytes, bytes], client: object = None) -> str:
    """Where a request came from, for a log line: the address HAProxy saw, which comes last, else the peer itself."""
    forwarded = headers.get(b"x-forwarded-for", b"").rpartition(b",")[2].strip()
    if forwarded:
        return forwarded[:64].decode("latin-1")
    return str(client[0]) if isinstance(client, list | tuple) and client else ""
