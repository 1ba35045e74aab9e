"""A format such as a third party would bring: signed, with a handshake, and answers of its own. This file is all of it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from urllib.parse import parse_qs

import msgspec

from models.alerts.alert import Content
from models.errors import Malformed, Unauthorized
from services.ingest.arrival import Sender
from services.ingest.formats.answers import Answer, Refusal, encode_json, error_of, retry_after, status_of
from services.ingest.formats.format import Request
from services.ingest.formats.items import ListFormat, Taken
from services.ingest.formats.json_arrays import SLICE_ALERTS
from services.ingest.formats.openapi import Description
from services.ingest.formats.reading import Reading
from services.ingest.submit import Receipt

KEY = b"what both sides know"


class Event(msgspec.Struct):
    """Something broke on some hosts: an alert for each."""

    what: str
    hosts: list[str]
    over: bool = False


class Body(msgspec.Struct):
    events: list[msgspec.Raw] = []
    hello: str = ""


_body = msgspec.json.Decoder(Body)
_event = msgspec.json.Decoder(Event)
Host = tuple[Event, str]


class PagerFormat(ListFormat[Host | msgspec.Raw, Host]):
    """Events over some hosts each, an alert a host."""

    name = "pager"
    path = "/hooks/pager"
    methods = ("POST", "GET")
    is_signed = True
    end_field = "over"
    end_too_early = "over before it began"

    @classmethod
    def describe(cls) -> Description:
        answers = {
            "202": {"description": "Stored."},
            "401": {"description": "No."},
            "503": {"description": "Again."},
        }
        return Description(
            {method.lower(): {"summary": "Events of a pager", "responses": answers} for method in cls.methods}
        )

    def verify(self, request: Request) -> Sender:
        signed = request.body or request.query
        wanted = hmac.new(KEY, signed, hashlib.sha256).hexdigest().encode()
        if not hmac.compare_digest(wanted, request.headers.get(b"x-pager-signature", b"")):
            raise Unauthorized("the signature is not ours")
        return Sender("pager")

    def handshake(self, request: Request) -> Answer | None:
        if request.method == "GET":
            return Answer(200, b"text/plain", parse_qs(request.query)[b"hello"][0])
        hello = self._read(request).hello
        return Answer(200, b"text/plain", hello.encode()) if hello else None

    def split(self, request: Request) -> Iterator[list[Host | msgspec.Raw]]:
        items: list[Host | msgspec.Raw] = []
        for raw in self._read(request).events:
            try:
                event = _event.decode(raw)
            except msgspec.MsgspecError:
                items.append(raw)
            else:
                items += [(event, host) for host in event.hosts]
        for first in range(0, len(items), SLICE_ALERTS):
            yield items[first : first + SLICE_ALERTS]

    def take(self, item: Host | msgspec.Raw) -> Taken[Host]:
        if isinstance(item, msgspec.Raw):
            raise Malformed("not an event")
        event, host = item
        return item, (b"pager", event.what.encode(), host.encode()), b"", event.over

    def content(self, alert: Host) -> Content:
        event, host = alert
        return Content({"alertname": event.what, "service": host}, {}, 0.0, "", self.name)

    def default_end(self, now: float) -> float:
        return now + 3600.0

    def said_end(self, alert: Host) -> bytes:
        return b"over" if alert[0].over else b""

    def written(self, item: Host | msgspec.Raw) -> bytes:
        return bytes(item) if isinstance(item, msgspec.Raw) else encode_json(item)

    def refused(self, refusal: Refusal) -> Answer:
        return Answer(refusal.status, b"text/plain", f"no: {refusal.detail}".encode(), refusal.headers)

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        if (error := error_of(receipt)) is not None:
            return Answer(status_of(error), b"text/plain", str(error).encode(), retry_after(error))
        words = f"{len(reading.places)} taken, {len(reading.faults)} not"
        return Answer(202, b"text/plain", words.encode())

    def _read(self, request: Request) -> Body:
        try:
            return _body.decode(request.body)
        except msgspec.MsgspecError as error:
            raise Malformed(f"no events: {error}") from None
