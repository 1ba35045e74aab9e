"""What an actor gets from whoever runs it (cluster.py on Ray, local.py in one process), and how calls fail across processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from models import errors
from models.ports import Peers


async def _nobody_is_replaced(_name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Hired:
    """An actor for one piece of work: started when it is there, and ended when it is done. `factory` is "module:function"; `cpus` are
    claimed of the cluster while it lives. One that dies is not started anew by itself."""

    name: str
    factory: str
    config: bytes
    cpus: float


async def _nobody_is_hired(_hired: Hired) -> None: ...


@dataclass(frozen=True, slots=True)
class Host:
    """The surroundings of one actor. `fatal(why)` ends its process at once; it is started anew from its log.
    `replace(name)` does that to another actor, one that no longer answers; one that is being started is left alone.
    `hire` starts an actor for one piece of work, unless it lives, and does not wait for it; `dismiss(name)` ends it. Both raise
    Unavailable, and may be repeated."""

    name: str
    peers: Peers
    fatal: Callable[[str], None]
    replace: Callable[[str], Awaitable[None]] = _nobody_is_replaced
    hire: Callable[[Hired], Awaitable[None]] = _nobody_is_hired
    dismiss: Callable[[str], Awaitable[None]] = _nobody_is_replaced


class Actor(Protocol):
    """What can be hosted: public coroutine methods of bytes to bytes, all idempotent, and these two."""

    async def start(self) -> None:
        """Become ready. Returns soon; a long recovery goes on behind it and calls meanwhile raise Unavailable."""

    async def stop(self) -> None:
        """Free everything, in the reverse order of start. Safe to call twice."""


class _Error(msgspec.Struct, array_like=True):
    kind: str
    detail: str
    owner: str = ""
    partition: str = ""
    retry_after_s: float = 0.0


_OK = b"\x00"
_FAILED = b"\x01"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Error)


async def answer(method: Callable[[bytes], Awaitable[bytes]], payload: bytes) -> bytes:
    """Call a method and wrap its result, so that our errors cross processes as what they are."""
    try:
        return _OK + await method(payload)
    except errors.NotOwner as error:
        return _FAILED + _encoder.encode(_Error("NotOwner", str(error), error.owner, error.partition))
    except errors.Busy as error:
        return _FAILED + _encoder.encode(_Error("Busy", str(error), retry_after_s=error.retry_after_s))
    except errors.IncidentManagerError as error:
        return _FAILED + _encoder.encode(_Error(type(error).__name__, str(error)))


def unwrap(wrapped: bytes) -> bytes:
    """The method's answer, or its error raised here. Broken errors of another process are Unavailable to this one."""
    if wrapped[:1] == _OK:
        return wrapped[1:]
    error = _decoder.decode(wrapped[1:])
    raise rebuild(error.kind, error.detail, error.owner, error.partition, error.retry_after_s)


def rebuild(
    kind: str, detail: str, owner: str = "", partition: str = "", retry_after_s: float = 1.0
) -> errors.IncidentManagerError:
    """One of our errors from its name and text."""
    match kind:
        case "NotOwner":
            return errors.NotOwner(partition, owner)
        case "Busy":
            return errors.Busy(detail, retry_after_s or 1.0)
        case (
            "Malformed"
            | "TooLarge"
            | "Refused"
            | "Unauthorized"
            | "Forbidden"
            | "NotFound"
            | "Conflict"
            | "Stale"
        ):
            refused: type[errors.Refused] = getattr(errors, kind)
            return refused(detail)
        case "Full":
            return errors.Full(detail)
        case _:
            return errors.Unavailable(detail)
