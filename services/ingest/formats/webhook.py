"""What the formats of other senders' webhooks share: a body of JSON becomes drafts of alerts, and these become alerts.

A draft's labels are only what stays the same from its begin to its end, so that an end finds what it ends. All else, the
severity too, is an annotation and may change while the alert fires. Used by the files beside this one.
"""

from __future__ import annotations

import json
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar

import msgspec

from models.alerts.alert import Content
from models.classification.severity import range_of
from models.errors import Malformed
from services.ingest.arrival import Sender
from services.ingest.formats.answers import encode_json
from services.ingest.formats.fields import (
    ANNOTATION_VALUE_MAX_BYTES,
    LABEL_VALUE_MAX_BYTES,
    LABELS_MAX,
    NAME_MAX_BYTES,
    URL_MAX_BYTES,
)
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.items import Taken
from services.ingest.formats.json_arrays import SLICE_ALERTS
from services.ingest.formats.json_format import JsonFormat
from services.ingest.formats.known_bodies import BODY_MAX_BYTES as KNOWN_MAX_BYTES
from services.ingest.formats.known_bodies import Fired, KnownAlert, KnownBody, body_digest
from services.ingest.formats.reading import Reading
from services.ingest.formats.values import BODY_MAX_BYTES, Fields, Member, read_json

#: The annotations that hold the severity as P0 to P4, and as the sender wrote it.
SEVERITY, SENDER_SEVERITY = "severity", "sender_severity"
#: The level of an alert that names no severity stands in a format's table under this word.
UNSAID = ""
#: A larger body is parsed again rather than kept until its turn comes.
AHEAD_MAX_BYTES = 64 * 1024
_ROOM = LABELS_MAX // 2
_encode = msgspec.msgpack.Encoder(order="sorted").encode
_decode = msgspec.msgpack.Decoder(tuple[dict[str, str], dict[str, str], float, str]).decode
#: In a name made of a sentence these change from one message to the next, and the alert stays the same.
_VARYING = re.compile(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b|\d+(?:[.,:]\d+)*%?", re.IGNORECASE)
_MARK = re.compile(r"^\s*\[[^\]]{1,40}\]\s*")
NAME_CHARS = 120


class Draft(msgspec.Struct, gc=False):
    """An alert as a format read it. Times are seconds since the epoch, 0.0 when nothing is said."""

    labels: dict[str, str]
    annotations: dict[str, str] = {}
    starts: float = 0.0
    ends: float = 0.0
    url: str = ""
    resolved: bool = False
    #: The labels come from a shard: no rule changes them again.
    is_relabelled: bool = False
    #: Under what its sender ends it, when that is no more than a key.
    fired: Fired | None = None


class Bad(msgspec.Struct, gc=False):
    """What can't be taken of a request, and why."""

    why: str
    raw: bytes = b""


Item = Draft | Bad | KnownAlert
Posted = Draft | KnownAlert


class WebhookFormat(JsonFormat[Item, Posted]):
    """A format of somebody's webhook. A concrete one says how its JSON becomes drafts, and how its shape is known."""

    max_bytes: ClassVar[int] = BODY_MAX_BYTES

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._name = self.name.encode()
        self._rereads: tuple[bytes, ...] | None = None
        self._ahead: tuple[Request, object] | None = None

    @abstractmethod
    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        """The alerts of a request's JSON. Raises Malformed when there can be none. Of a body that comes again it is not asked: what
        it looks at beside method, path, query, content type and body it names in `rereads`, or lasts() says no."""

    def parsed(self, request: Request) -> object:
        """The body as drafts() gets it."""
        return read_json(request.body, self.max_bytes)

    def lasts(self, body: object, request: Request) -> bool:
        """Whether the same request will say the same later."""
        return True

    def note(self, body: object, request: Request) -> str:
        """What stored() wants to know again of a request."""
        return ""

    # -- what a concrete format is written with ---------------------------------------------------------------

    def alert(
        self,
        name: str,
        service: str,
        *,
        title: str = "",
        text: str = "",
        severity: str = "",
        resolved: bool = False,
        labels: Mapping[str, str] | None = None,
        notes: Mapping[str, str] | None = None,
        starts: float = 0.0,
        ends: float = 0.0,
        url: str = "",
    ) -> Draft:
        """A draft. `labels` must be the same at its end; `notes`, like title, text and severity, need not."""
        found = {"alertname": name or self.name, "service": service or name or self.name, **(labels or {})}
        said = {"summary": title, "description": text, **_bounded(notes or {})}
        if not resolved and (level := self.level(severity)):
            said[SEVERITY] = level
        said[SENDER_SEVERITY] = severity
        return Draft(
            _kept(found, LABEL_VALUE_MAX_BYTES),
            _kept(said, ANNOTATION_VALUE_MAX_BYTES),
            starts,
            ends,
            url[:URL_MAX_BYTES],
            resolved,
        )

    def level(self, word: str) -> str:
        """P0 to P4 for a sender's word: by the settings, by the format's own table, else by what the word means anywhere.
        "" when nobody knows it."""
        folded = word.strip().lower()
        given = self.shared.settings.formats.severities.get(self.name, {})
        for table in (given, self.severities):
            if (level := table.get(folded)) is not None:
                return level
        if not folded:
            return ""
        meaning = range_of(folded)
        return "" if meaning is None else f"P{int(meaning.usual)}"

    @staticmethod
    def each(values: Iterable[Member], read: Callable[[Fields], Draft | Iterable[Draft]]) -> Iterator[Item]:
        """`read` of each object: one that is wrong costs only itself."""
        for value, path in values:
            try:
                found = read(Fields(value, path))
                yield from [found] if isinstance(found, Draft) else [*found]
            except Malformed as error:
                yield Bad(str(error), json.dumps(value).encode())

    def fires(self, key: Mapping[str, str], draft: Draft, sender: Sender) -> Draft:
        """The same, findable by `key`, which are among its labels. While it fires its labels stay those of the first draft."""
        place = (self.name, *key.values())
        draft.fired = Fired(place, self.shared.open_alerts.put(place, draft.labels, sender))
        draft.labels = dict(draft.fired.labels)
        return draft

    async def look(self, key: Mapping[str, str], sender: Sender) -> None:
        """In `prepare`: find what fires under `key`, for ended()."""
        await self.shared.open_alerts.look(self.name, key, sender)

    def ended(
        self,
        key: Mapping[str, str],
        sender: Sender,
        notes: Mapping[str, str] | None = None,
        ends: float = 0.0,
    ) -> list[Draft]:
        """The ends of all that fires under `key`, which look() found."""
        said = _kept(notes or {}, ANNOTATION_VALUE_MAX_BYTES)
        return [
            Draft(dict(labels), said, 0.0, ends, resolved=True, is_relabelled=is_relabelled)
            for labels, is_relabelled in self.shared.open_alerts.take(self.name, key, sender)
        ]

    # -- bodies that came before (known_bodies.py) -------------------------------------------------------------

    def knows(self, request: Request) -> bool:
        """Whether all that a request holds is known: alerts that fire, for which nothing needs to be looked up."""
        return self._known(self.digest_of(request), request) is not None

    def read_ahead(self, request: Request) -> object:
        """parsed(), in `prepare`: steps(), which comes next, does not do it again."""
        body = self.parsed(request)
        self._ahead = (request, body) if len(request.body) <= AHEAD_MAX_BYTES else None
        return body

    def digest_of(self, request: Request) -> bytes:
        """What a request is known by; b"" for one that is not looked for."""
        if request.is_letter or len(request.body) > KNOWN_MAX_BYTES:
            return b""
        if self._rereads is None:
            # Once all formats are open: that of bodies without a name asks the others.
            self._rereads = tuple(sorted(self.rereads()))
        headers = (
            [each for each in request.headers.items() if self._looks_at(each[0])] if self._rereads else ()
        )
        said = (self.name, request.method, request.path, request.query, request.content_type, headers)
        return body_digest(said, request.body)

    def _looks_at(self, header: bytes) -> bool:
        assert self._rereads is not None
        return any(
            header.startswith(name) if name.endswith(b"-") else header == name for name in self._rereads
        )

    def _known(self, digest: bytes, request: Request) -> KnownBody | None:
        if not digest:
            return None
        known = self.shared.bodies.find(digest, self.shared.settings)
        if known is None or not known.fired:
            return known
        # Who is bound to labels neither says nor is told what the alerts of others are called.
        holds = self.shared.open_alerts.holds
        if request.sender.match or not all(holds(key, labels) for key, labels in known.fired):
            return None
        return known

    def _learn(self, digest: bytes, drafts: Sequence[Item], note: str, settings: object) -> None:
        """Remember a body that was read under these settings, if all that it holds fires."""
        alerts: list[KnownAlert] = []
        fired: list[Fired] = []
        for draft in drafts:
            if not isinstance(draft, Draft) or draft.resolved or draft.is_relabelled:
                return
            _, (_, said), ends, _ = self.take(draft)
            alerts.append(KnownAlert(bytes(said), ends))
            if draft.fired is not None:
                fired.append(draft.fired)
        if alerts:
            self.shared.bodies.keep(digest, KnownBody(tuple(alerts), tuple(fired), note), settings)

    # -- as the loop over alerts wants it (items.py) -----------------------------------------------------------

    def steps(self, request: Request) -> Generator[None, None, Reading]:
        settings, digest = self.shared.settings, self.digest_of(request)
        known = self._known(digest, request)
        if known is not None:
            alerts = known.alerts
            slices = (alerts[at : at + SLICE_ALERTS] for at in range(0, len(alerts), SLICE_ALERTS))
            return (yield from self.taken(request, lambda _request: slices, lambda: known.note))
        body, self._ahead = self._parsed(request), None
        learns = (
            bool(digest)
            and not request.sender.match
            and self.lasts(body, request)
            and self.shared.bodies.came_before(digest)
        )
        drafts: list[Item] = []

        def split(_request: Request) -> Iterator[Sequence[Item]]:
            for slice_ in self._slices(body, request):
                if learns:
                    drafts.extend(slice_)
                yield slice_

        reading = yield from self.taken(request, split, lambda: self.note(body, request))
        if learns and not reading.faults:
            self._learn(digest, drafts, reading.note, settings)
        return reading

    def split(self, request: Request) -> Iterator[Sequence[Item]]:
        return self._slices(self.parsed(request), request)

    def _parsed(self, request: Request) -> object:
        ahead = self._ahead
        return ahead[1] if ahead is not None and ahead[0] is request else self.parsed(request)

    def _slices(self, body: object, request: Request) -> Iterator[Sequence[Item]]:
        slice_: list[Item] = []
        for item in self.drafts(body, request):
            slice_.append(item)
            if len(slice_) == SLICE_ALERTS:
                yield slice_
                slice_ = []
        yield slice_

    def take(self, item: Item) -> Taken[Posted]:
        if isinstance(item, KnownAlert):
            return item, (self._name, item.said), item.ends, False
        if isinstance(item, Bad):
            raise Malformed(item.why)
        try:
            said = _encode((item.labels, item.annotations, item.starts, item.url))
        except UnicodeEncodeError:
            # Values are looked at as they are read (values.py); a name, or a text inside a list, may hold one too.
            raise Malformed("a name or a list holds half of a surrogate pair, which no UTF-8 holds") from None
        name = self._name + b" relabelled" if item.is_relabelled else self._name
        return item, (name, said), written_time(item.ends), item.resolved

    def is_relabelled(self, alert: Posted) -> bool:
        return isinstance(alert, Draft) and alert.is_relabelled

    def content(self, alert: Posted) -> Content:
        if isinstance(alert, KnownAlert):
            return Content(*_decode(alert.said), self.name)
        return Content(alert.labels, alert.annotations, alert.starts, alert.url, self.name)

    def said_end(self, alert: Posted) -> bytes:
        if isinstance(alert, KnownAlert):
            return alert.ends
        return (b"resolved" if alert.resolved else b"") + written_time(alert.ends)

    def written(self, item: Item) -> bytes:
        if isinstance(item, Bad):
            return item.raw
        if isinstance(item, KnownAlert):
            labels, annotations, starts, url = _decode(item.said)
            item = Draft(labels, annotations, starts, url=url)
        plain = msgspec.to_builtins(item)
        del plain["fired"]
        return json.dumps(plain).encode()


def several(body: object, name: str) -> Iterator[Member]:
    """The objects of a body that is one, an array of them, or an object with an array of them under `name`."""
    if isinstance(body, dict) and isinstance(body.get(name), list):
        yield from Fields(body).members(name)
    elif isinstance(body, list):
        yield from ((each, f"[{place}]") for place, each in enumerate(body))
    else:
        yield body, ""


def stable_name(sentence: str, varying: re.Pattern[str] = _VARYING) -> str:
    """A name for an alert that has only a sentence: without what changes in it from one message to the next."""
    bare = _MARK.sub("", sentence)
    return " ".join(varying.sub("N", bare).split())[:NAME_CHARS]


def written_time(at: float) -> bytes:
    """A time as JSON has it, b"" for none."""
    if not at or at == math.inf:
        return b""
    return encode_json(datetime.fromtimestamp(at, UTC))


def _bounded(pairs: Mapping[str, str]) -> dict[str, str]:
    return dict(list(pairs.items())[:_ROOM])


def _kept(pairs: Mapping[str, str], value_max_bytes: int) -> dict[str, str]:
    """What says something, within the bounds of an alert: a long text is cut, because the alert matters more than its end."""
    return {
        name[: NAME_MAX_BYTES // 4]: value
        if len(value) * 4 <= value_max_bytes
        else _cut(value, value_max_bytes)
        for name, value in pairs.items()
        if name and value
    }


def _cut(value: str, max_bytes: int) -> str:
    # A character has at least a byte: what is behind is not looked at, as one long text may be in each of many alerts.
    raw = value[: max_bytes + 1].encode()
    return value if len(raw) <= max_bytes else raw[: max_bytes - 3].decode("utf-8", "ignore") + "..."
