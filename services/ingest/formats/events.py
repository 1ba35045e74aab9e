"""Bodies without a name, POST /v1/events: recognised by their shape, read as the format that they are, and the answer says as what. One
that nothing recognises is refused with the format that is nearest.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches

from models.errors import Malformed
from services.ingest.formats.answers import Answer
from services.ingest.formats.format import Format, Request, Shared
from services.ingest.formats.items import UNREADABLE
from services.ingest.formats.json_format import JsonFormat
from services.ingest.formats.json_text import WHITE, echo, raw_elements, without_mark
from services.ingest.formats.known_bodies import KnownBody
from services.ingest.formats.mapped import MappedFormat
from services.ingest.formats.reading import Reading
from services.ingest.formats.received import received
from services.ingest.formats.values import read_json
from services.ingest.formats.webhook import AHEAD_MAX_BYTES, Item, WebhookFormat
from services.ingest.submit import Receipt

#: Fields of a body that are compared with those of formats, and named to its sender.
FIELDS_MAX = 40
FIELDS_TOLD = 8
BODY_MAX_BYTES = 8 * 1024 * 1024
#: Alike enough for a typing error.
NEAR = 0.75
#: What a body of no JSON may be.
_BY_TYPE = {"application/x-protobuf": "otlp-logs", "message/rfc822": "email"}


class EventsFormat(WebhookFormat):
    name = "events"
    path = "/v1/events"
    summary = "Any of the formats, recognised by its shape"
    shape = ""
    prepares = True

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._target: tuple[Request, Format, Request] | None = None

    def takes_type(self, content_type: str, headers: Mapping[bytes, bytes]) -> bool:
        others = (form for form in self.shared.formats.values() if form is not self)
        return any(form.takes_type(content_type, headers) for form in others)

    def rereads(self) -> Iterable[bytes]:
        others = (form for form in self.shared.formats.values() if form is not self)
        return {name for form in others for name in form.rereads()}

    async def prepare(self, request: Request) -> None:
        form, as_named = self.target(request)
        # steps(), which comes next, need not find it out again.
        self._target = (request, form, as_named) if len(request.body) <= AHEAD_MAX_BYTES else None
        if form.prepares:
            await form.prepare(as_named)

    def steps(self, request: Request) -> Generator[None, None, Reading]:
        target, self._target = self._target, None
        _, form, as_named = (
            target if target is not None and target[0] is request else (request, *self.target(request))
        )
        reading = yield from form.steps(as_named)
        return replace(reading, note=form.name)

    def drafts(self, body: object, request: Request) -> Iterator[Item]:
        raise NotImplementedError("steps() hands a body to the format that it is of")

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        return await received(reading, receipt, reading.note)

    def target(self, request: Request) -> tuple[Format, Request]:
        """The format of a request, and the request as if it had been sent there. Raises Malformed, Unauthorized."""
        forms = self.shared.formats
        form = (
            forms[_BY_TYPE[request.content_type]]
            if request.content_type in _BY_TYPE
            else self._by_its_shape(request)
        )
        as_named = Request(
            form.path,
            request.body,
            request.received_at,
            "POST",
            request.query,
            request.headers,
            request.content_type,
            request.sender,
            request.place,
            request.is_letter,
        )
        # A letter has no signature any more: who has it read again answers for it.
        if form.is_signed and not request.is_letter:
            form.verify(as_named)
        return form, as_named

    def _by_its_shape(self, request: Request) -> Format:
        """_by_shape(), remembered."""
        settings, digest = self.shared.settings, self.digest_of(request)
        known = self._known(digest, request)
        if known is not None:
            return self.shared.formats[known.note]
        form = self._by_shape(request)
        if digest and self.shared.bodies.came_before(digest):
            self.shared.bodies.keep(digest, KnownBody((), (), form.name), settings)
        return form

    def _by_shape(self, request: Request) -> Format:
        forms = self.shared.formats
        if b"ce-specversion" in request.headers:
            return forms["cloudevents"]
        body = shown(request.body)
        for form in forms.values():
            if isinstance(form, JsonFormat) and form.recognises(body, request.headers):
                return form
        mapped = forms["mapped"]
        assert isinstance(mapped, MappedFormat)
        if mapped.is_asked and mapped.mapping_for(read_json(request.body, BODY_MAX_BYTES)) is not None:
            return mapped
        first = body[0] if isinstance(body, list) and body else body
        if isinstance(first, dict) and isinstance(first.get("labels"), dict):
            return forms["v1"]
        names = fields_of(body)
        near, path, shape = nearest(names, forms)
        told = ", ".join(echo(name.encode("utf-8", "replace")) for name in names[:FIELDS_TOLD]) or "none"
        raise Malformed(
            f"not recognised: its fields are {told}. The nearest format is {near!r}, which has {shape}; "
            f"post it to {path} if that is what it is, or write a mapping (formats.mappings)"
        )


def shown(body: bytes) -> object:
    """As much of a body as formats are recognised by: of an array its first element, because a format's arrays are of one kind. To
    read the others as well takes longer than all that becomes of 64 alerts afterwards. Raises Malformed, TooLarge."""
    text = without_mark(body)
    if len(text) <= BODY_MAX_BYTES and text.lstrip(WHITE)[:1] == b"[":
        try:
            first = raw_elements(text)[:1]
        except UNREADABLE:
            first = []
        if first:
            return [read_json(bytes(first[0]), BODY_MAX_BYTES)]
    return read_json(body, BODY_MAX_BYTES)


def fields_of(body: object) -> list[str]:
    """The names of a body's fields, its own first, then those within them."""
    first = body[0] if isinstance(body, list) and body else body
    if not isinstance(first, dict):
        return []
    inner = [name for each in first.values() if isinstance(each, dict) for name in each]
    return [*first, *inner][:FIELDS_MAX]


def nearest(names: list[str], forms: Mapping[str, Format]) -> tuple[str, str, str]:
    """The name, path and shape of the format whose fields are most like these."""
    best, score = ("v1", "/v1/alerts", "labels"), 0.0
    for form in forms.values():
        if not isinstance(form, JsonFormat) or not form.shape:
            continue
        known = re.findall(r"\w+", form.shape)
        hits = sum(
            1.0 if name in known else 0.5 for name in names if get_close_matches(name[:60], known, 1, NEAR)
        )
        # Of two with as many hits the one that has fewer others.
        found = hits - len(known) / 1000 if hits else 0.0
        if found > score:
            best, score = (form.name, form.path, form.shape), found
    return best
