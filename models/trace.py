"""W3C trace context, as it travels with a request: who began the trace, and whether it is recorded.

Between processes it is one string, `trace` in messages and effects: the traceparent, then a space and the tracestate
when there is one. https://www.w3.org/TR/trace-context/ has the rules that are kept here.

    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 vendor=value
       trace id                         parent span      flags
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

#: Version ff and ids of zeros alone are none. A later version may say more behind a dash, which is not passed on.
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)
#: What the standard asks to be passed on at least; a longer tracestate is left out.
TRACESTATE_MAX_BYTES = 512
_TRACESTATE = re.compile(rb"[\x20-\x7e]+")
#: The flags that are defined: sampled, and "the trace id is chance". Others must be passed on as 0.
_FLAGS = 0x03
_SAMPLED = 0x01
_LENGTH = len("00-") + 32 + len("-") + 16 + len("-00")

Attribute = str | int | float | bool | Sequence[str]
Kind = Literal["internal", "server", "client"]


def context_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The trace context in a request's headers (names in lower case); None when there is none, or none that can be
    read: a sender's tracing must not cost it its alerts."""
    parent: bytes | None = None
    states: list[bytes] = []
    for name, value in headers:
        if name == b"traceparent":
            if parent is not None:
                return None
            parent = value
        elif name == b"tracestate":
            states.append(value.strip())
    if parent is None or (match := _TRACEPARENT.fullmatch(parent)) is None:
        return None
    version, ids, flags, more = match.groups()
    if version == b"00" and more is not None:
        return None
    trace = f"00-{ids.decode()}-{int(flags, 16) & _FLAGS:02x}"
    if states:
        state = b",".join(states)
        if 0 < len(state) <= TRACESTATE_MAX_BYTES and _TRACESTATE.fullmatch(state):
            trace += f" {state.decode()}"
    return trace


def headers_of(trace: str) -> dict[str, str]:
    """The headers that pass a context on."""
    traceparent, _, tracestate = trace.partition(" ")
    return (
        {"traceparent": traceparent, "tracestate": tracestate} if tracestate else {"traceparent": traceparent}
    )


def trace_id_of(trace: str | None) -> str | None:
    """The trace id, 32 hexadecimal digits: what people search for."""
    return None if trace is None else trace[3:35]


def is_sampled(trace: str) -> bool:
    """Whether the trace is recorded: who began it has decided that."""
    return bool(int(trace[_LENGTH - 2 : _LENGTH], 16) & _SAMPLED)
