"""How calls end: gRPC's codes, our errors as codes, and the trailers that carry them. Used by connection.py and the services."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from enum import IntEnum
from urllib.parse import quote

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
    Stale,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from services.ingest.body import TooSlow
from services.ingest.formats.answers import FULL_RETRY_S

#: Characters of an error that a trailer carries: clients bound their headers at 8 KiB.
MESSAGE_CHARS = 1000
Header = tuple[bytes, bytes]


class Code(IntEnum):
    """gRPC's status codes, those that we use."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Ended(Exception):
    """A call ends with this status. `retry_after_s` 0.0: nothing is said of when to come again."""

    def __init__(self, code: Code, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


#: The first that fits. Whatever else is ours is a bug, or damage: INTERNAL.
_CODES: tuple[tuple[type[Exception], Code], ...] = (
    (Unauthorized, Code.UNAUTHENTICATED),
    (Forbidden, Code.PERMISSION_DENIED),
    (TooLarge, Code.RESOURCE_EXHAUSTED),
    (ShareUsedUp, Code.RESOURCE_EXHAUSTED),
    (TooSlow, Code.DEADLINE_EXCEEDED),
    (RateLimited, Code.RESOURCE_EXHAUSTED),
    (Busy, Code.UNAVAILABLE),
    (NotOwner, Code.UNAVAILABLE),
    (Unavailable, Code.UNAVAILABLE),
    (Malformed, Code.INVALID_ARGUMENT),
    (NotFound, Code.NOT_FOUND),
    (Stale, Code.ABORTED),
    (Refused, Code.FAILED_PRECONDITION),
)


_PASSING = frozenset({Code.UNAVAILABLE, Code.INTERNAL, Code.RESOURCE_EXHAUSTED})


def ended_by(error: Exception) -> Ended:
    """One of our errors as the end of a call."""
    if isinstance(error, Ended):
        return error
    code = next((code for kind, code in _CODES if isinstance(error, kind)), Code.INTERNAL)
    return Ended(code, str(error), retry_after_s(error))


def retry_after_s(error: Exception) -> float:
    """When to send again what failed, in seconds; 0.0 when that does not help."""
    if isinstance(error, ShareUsedUp | Full):
        return FULL_RETRY_S
    if isinstance(error, Busy):
        return error.retry_after_s
    return 1.0 if isinstance(error, Unavailable | NotOwner) else 0.0


def is_passing(error: IncidentManagerError) -> bool:
    """Whether sending again may help: what failed by our fault too, since nobody knows whether it is stored."""
    return ended_by(error).code in _PASSING and not isinstance(error, TooLarge)


def trailers(ended: Ended) -> Sequence[Header]:
    """The trailers of a call. `grpc-status-details-bin` is a google.rpc.Status with BadRequest or RetryInfo."""
    if ended.code is Code.OK:
        return [(b"grpc-status", b"0")]
    message = str(ended)[:MESSAGE_CHARS]
    found = [
        (b"grpc-status", str(int(ended.code)).encode()),
        (b"grpc-message", quote(message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()),
    ]
    if ended.retry_after_s:
        # What gRPC's own retries go by, where a client has turned them on.
        found.append((b"grpc-retry-pushback-ms", str(int(ended.retry_after_s * 1000)).encode()))
    if details := _details(ended, message):
        found.append((b"grpc-status-details-bin", b64encode(details).rstrip(b"=")))
    return found


def _details(ended: Ended, message: str) -> bytes:
    if ended.code is not Code.INVALID_ARGUMENT and not ended.retry_after_s:
        return b""
    # Here, because most calls end well.
    from google.rpc.error_details_pb2 import BadRequest, RetryInfo
    from google.rpc.status_pb2 import Status

    status = Status(code=int(ended.code), message=message)
    if ended.code is Code.INVALID_ARGUMENT:
        field, _, why = message.partition(": ")
        violation = BadRequest.FieldViolation(field=field if why else "", description=why or message)
        status.details.add().Pack(BadRequest(field_violations=[violation]))
    if ended.retry_after_s:
        wait = RetryInfo()
        wait.retry_delay.FromMilliseconds(int(ended.retry_after_s * 1000))
        status.details.add().Pack(wait)
    found: bytes = status.SerializeToString()
    return found
