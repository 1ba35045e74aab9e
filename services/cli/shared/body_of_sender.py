"""A file as its sender would post it, read by a format without a running system: what `llm-im formats try` and `llm-im ingest try` share."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.shared.exits import ExitCode, Failure

if TYPE_CHECKING:
    from models.alerts.alert import Content
    from models.settings.all import Settings
    from services.ingest.formats.reading import Reading

File = Annotated[str, typer.Argument(metavar="FILE", help="A body as its sender posts it, or - for stdin.")]
As = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        help="The format, or a mapping's name. Default: known by its shape.",
        show_default=False,
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        "-H",
        metavar="NAME:VALUE",
        help="A header that the sender adds. Repeatable.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Read:
    """What was read, by which format, and when."""

    format: str
    reading: Reading
    received_at: float

    def content(self, column: int) -> Content:
        """An alert as the format made it."""
        import msgspec

        from models.alerts.alert import Content

        return msgspec.msgpack.decode(self.reading.body(column), type=Content)

    def is_end(self, column: int) -> bool:
        return self.reading.ends_at(column, self.received_at)

    @property
    def faults(self) -> list[dict[str, object]]:
        return [{"index": fault.index, "error": fault.message} for fault in self.reading.faults]


def read(settings: Settings, file: str, as_: str | None, headers: list[str] | None) -> Read:
    """Read a file, without the rules of the settings. Raises Failure for what was typed wrong, and what a format does for a body that it
    can't read."""
    from models.partition.sharding import TENANT
    from services.ingest.formats.format import Request, Shared, at_once
    from services.ingest.formats.remembered import Remembered
    from services.ingest.formats.table import open_formats

    body, given = _bytes_of(file), dict(map(_header, headers or []))
    services = tuple(settings.grouping.service_labels)
    forms = open_formats(Shared(Remembered(TENANT, services, settings.lifecycle.max_alert_bytes), settings))
    # A signature is the sender's affair, and not in the file.
    for form in forms.values():
        form.is_signed = False
    name, path = as_ or "events", ""
    if name not in forms and any(each.name == name for each in settings.formats.mappings):
        name, path = "mapped", f"{forms['mapped'].path}/{name}"
    if name not in forms:
        raise Failure(f"there is no format {name!r}; llm-im formats list shows them", ExitCode.USAGE)
    form = forms[name]
    request = Request(path or form.path, body, time.time(), headers=given, content_type=_type_of(body, given))
    if form.prepares:
        asyncio.run(form.prepare(request))
    reading = at_once(form.steps(request))
    return Read(reading.note if name == "events" else name, reading, request.received_at)


def show_faults(faults: list[dict[str, object]]) -> None:
    """Say on stderr what is refused, and why."""
    from services.cli.shared import terminal

    for fault in faults:
        place = f"alert {fault['index']}" if int(str(fault["index"])) >= 0 else "refused"
        typer.echo(f"{place:<9} {terminal.plain(fault['error'])}", err=True)


def _type_of(body: bytes, headers: dict[bytes, bytes]) -> str:
    """What a body is, when its sender's header does not say so."""
    if b"content-type" in headers:
        return headers[b"content-type"].partition(b";")[0].strip().decode("latin-1")
    start = body.lstrip()[:1]
    if start in (b"{", b"["):
        return "application/json"
    return "message/rfc822" if start.isalpha() and b":" in body[:200] else "application/json"


def _header(given: str) -> tuple[bytes, bytes]:
    name, colon, value = given.partition(":")
    if not colon or not name.strip():
        raise Failure(f"{given!r} is not a header: expected NAME:VALUE", ExitCode.USAGE)
    return name.strip().lower().encode(), value.strip().encode()


def _bytes_of(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Failure(f"can't read {name}: {error.strerror}", ExitCode.USAGE) from error
