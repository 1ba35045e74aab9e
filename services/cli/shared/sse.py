"""Server-sent events, as a browser's EventSource reads them: with the last id on every new try, and a wait in between."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from services.cli.shared.client import Client, Query, Reply
from services.cli.shared.exits import ExitCode, Failure

#: The server says something (a comment at least) every 15 s; past this the connection is dead.
SILENCE_S = 45.0
#: Waits between tries, until a try gives an event.
FIRST_WAIT_S, LAST_WAIT_S = 0.5, 10.0
#: A longer line is no event of ours. An event is an incident's head and one change.
_LINE_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event."""

    name: str
    data: str
    id: str


def follow(
    client: Client, path: str, query: Query, after: str, tell: Callable[[str], None]
) -> Iterator[ServerEvent]:
    """Events without end, from `after` on ("": from now). A connection that ends is made again from the last id, and
    told about. Raises Failure when the first try fails, or the server refuses what is asked."""
    last, wait_s, first = after, FIRST_WAIT_S, True
    while True:
        try:
            for event in _once(client, path, query, last):
                last, wait_s, first = event.id or last, FIRST_WAIT_S, False
                yield event
            why = "the server ended the stream"
        except Failure as failure:
            if first or failure.code not in (ExitCode.DEGRADED, ExitCode.NOT_RUNNING, ExitCode.FAILED):
                raise
            why = str(failure)
        except TimeoutError:
            why = f"nothing arrived for {SILENCE_S:g} s"
        except (OSError, http.client.HTTPException) as error:
            why = f"the connection broke: {error or type(error).__name__}"
        first = False
        tell(f"{why}; trying again in {wait_s:g} s")
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, LAST_WAIT_S)


def _once(client: Client, path: str, query: Query, last: str) -> Iterator[ServerEvent]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last:
        headers["Last-Event-ID"] = last
    with client.stream(path, query, headers, SILENCE_S) as response:
        if response.status != http.client.OK:
            reply = Reply(response.status, {}, response.read())
            raise client.failure(reply)
        yield from parse(response)


def parse(response: Any) -> Iterator[ServerEvent]:
    """The events of a body that is read by lines (readline). Comments and what has no data are none."""
    name, identity = "", ""
    data: list[str] = []
    while line := response.readline(_LINE_MAX_BYTES):
        if not line.endswith(b"\n"):
            return  # cut off in the middle: what it began comes again after the next connect
        text = line.rstrip(b"\r\n").decode("utf-8", "replace")
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if not text:
            if data:
                yield ServerEvent(name or "message", "\n".join(data), identity)
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            identity = value
