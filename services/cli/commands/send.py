"""`llm-im send`: one alert from its arguments, or many from a file or stdin, to POST /v1/alerts; says what became of each."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time
import uuid
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.shared import terminal
from services.cli.shared.client import Client
from services.cli.shared.exits import ExitCode, Failure, code_of
from services.cli.shared.options import Asked, with_options

PATH = "/v1/alerts"
#: Alerts a request: the server takes far more, but answers each and keeps the sender waiting for all.
BATCH_MAX = 1000
#: Well below the server's max_body_bytes of 16 MiB, so that a batch of large alerts is cut before it is refused.
BATCH_MAX_BYTES = 4 * 1024 * 1024
#: Tries of a batch that the server was too busy for (429, 503 with Retry-After); storing twice is safe.
TRIES = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """One request's body. `first` is the place of its first alert in the whole input."""

    first: int
    body: bytes
    content_type: str


@with_options
def send(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LABEL=VALUE... | FILE | -",
            help="Labels of one alert, or a JSON or NDJSON file, or - for stdin.",
            show_default=False,
        ),
    ] = None,
    annotation: Annotated[
        list[str] | None,
        typer.Option("--annotation", "-a", metavar="NAME=TEXT", help="Repeatable.", show_default=False),
    ] = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Resolve the alert.")] = False,
    source: Annotated[str, typer.Option(help="Name of the sender.")] = "llm-im",
    *,
    asked: Asked,
) -> None:
    """Send alerts and show what happened to each. Exit code 1 if any was refused.

    llm-im send alertname=HighLatency service=llm-api severity=critical -a summary="p99 over 2 s"

    llm-im send alerts.ndjson
    """
    words = what or []
    client = asked.client()
    if len(words) == 1 and _is_file(words[0]):
        if annotation or resolved:
            raise Failure(
                "--annotation and --resolved are for one alert given as LABEL=VALUE", ExitCode.USAGE
            )
        batches: Iterator[Batch] | list[Batch] = split(_read(words[0]))
    elif words:
        alert: dict[str, Any] = {"labels": _pairs(words, "a label"), "source": source}
        if annotation:
            alert["annotations"] = _pairs(annotation, "an annotation")
        if resolved:
            alert["status"] = "resolved"
        batches = [Batch(0, json.dumps(alert).encode(), "application/json")]
    else:
        raise Failure("nothing to send; expected LABEL=VALUE..., a file, or - for stdin", ExitCode.USAGE)

    items: list[dict[str, Any]] = []
    for batch in batches:
        answered = _send(client, batch)
        items += answered
        if not asked.as_json:
            for item in answered:
                _show(item)
    failed = [item for item in items if "error" in item]
    refused = len(failed)
    if asked.as_json:
        typer.echo(json.dumps({"sent": len(items), "refused": refused, "items": items}))
    elif len(items) > 1:
        typer.echo(
            f"{len(items) - refused:,} of {len(items):,} alerts are stored"
            + (f", {refused:,} are not" if refused else "")
        )
    # What was not stored may be sent again; what was refused stays refused.
    codes = {code_of(int(item.get("status", http.client.BAD_REQUEST))) for item in failed}
    raise typer.Exit(ExitCode.DEGRADED if ExitCode.DEGRADED in codes else max(codes, default=ExitCode.OK))


def split(text: bytes) -> Iterator[Batch]:
    """The requests that a file of JSON or NDJSON makes. What is no JSON goes as it is: the server says best why not."""
    text = _as_utf8(text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        lines = [line for line in text.split(b"\n") if line.strip()]
        if not lines:
            raise Failure("the input is empty", ExitCode.USAGE) from None
        yield from _batches(lines, b"\n", b"", b"", "application/x-ndjson")
        return
    if isinstance(found, list):
        # Encoded anew one by one; ASCII only, so a lone surrogate of the input reaches the server as it was written.
        yield from _batches(
            [json.dumps(alert).encode() for alert in found], b",", b"[", b"]", "application/json"
        )
    else:
        yield Batch(0, text, "application/json")


def _is_file(word: str) -> bool:
    """Whether a single word names a file. A file may have a = in its name; no label's name has a / in it."""
    return "=" not in word or "/" in word.partition("=")[0] or os.path.exists(word)


def _as_utf8(text: bytes) -> bytes:
    """Without the byte order mark of Windows' editors and shells, which may write UTF-16 as well."""
    if text.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        with contextlib.suppress(UnicodeDecodeError):
            return text.decode("utf-16").encode("utf-8", "surrogatepass")
    return text.removeprefix(BOM_UTF8)


def _batches(
    parts: list[bytes], between: bytes, start: bytes, end: bytes, content_type: str
) -> Iterator[Batch]:
    first, length = 0, 0
    held: list[bytes] = []
    for place, part in enumerate(parts):
        if held and (len(held) == BATCH_MAX or length + len(part) > BATCH_MAX_BYTES):
            yield Batch(first, start + between.join(held) + end, content_type)
            first, held, length = place, [], 0
        held.append(part)
        length += len(part) + 1
    yield Batch(first, start + between.join(held) + end, content_type)


def _send(client: Client, batch: Batch) -> list[dict[str, Any]]:
    """One item an alert, with its place in the whole input. Raises Failure when the batch was refused as one."""
    tried = 1
    # One key for all tries: a shard that stored its part of an earlier one does not store it again.
    key = {"Idempotency-Key": str(uuid.uuid4())}
    reply = client.post(PATH, batch.body, batch.content_type, key)
    while reply.status in (429, 503) and tried < TRIES:
        time.sleep(reply.retry_after_s)
        reply = client.post(PATH, batch.body, batch.content_type, key)
        tried += 1
    body = reply.json()
    if not isinstance(body, dict) or not isinstance(body.get("items"), list):
        where = (
            f" (from alert {batch.first} on; those before it are stored or told above)" if batch.first else ""
        )
        raise Failure(
            f"{client.url}{PATH} answered {reply.status}: {reply.problem}{where}", code_of(reply.status)
        )
    return [{**item, "index": int(item.get("index", 0)) + batch.first} for item in body["items"]]


def _show(item: dict[str, Any]) -> None:
    if "error" in item:
        verdict = "refused" if item.get("status") == http.client.BAD_REQUEST else "not stored"
        typer.echo(f"alert {item['index']}: {verdict}: {terminal.plain(item['error'])}", err=True)
        return
    incident = f"  incident {item['incident_id']}" if item.get("incident_id") else ""
    typer.echo(
        f"alert {item['index']}: {item.get('decision', 'stored')}{incident}  ({terminal.plain(item.get('reason', ''))})"
    )


def _pairs(words: list[str], kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, is_pair, value = word.partition("=")
        if not is_pair or not name:
            raise Failure(f"{word!r} is not {kind}: expected NAME=VALUE", ExitCode.USAGE)
        found[name] = value
    return found


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Failure(f"can't read {name}: {error.strerror}", ExitCode.USAGE) from error
