"""Alertmanager's API v2, its reading half, as 0.34 answers it: amtool, Grafana and karma ask here.

POST /api/v2/alerts is the hot route and not here (services/ingest), silences are in silences.py. Where we
differ: an alert without an end has Go's zero time as endsAt; a shard that cannot answer is 503 rather than 500, so that clients
ask again.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import cmp_to_key
from itertools import chain

import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from models.alerts.alert import fingerprints, service_of
from models.alerts.matchers import MatcherTuple, compile_matchers, parse_filters
from models.alerts.patterns import Pattern
from models.errors import Malformed, Refused, TooLarge, Unavailable
from models.incidents.query import AlertView
from models.settings.all import Settings
from services.api.alertmanager.answers import PREFIX, answer, flag, refused
from services.api.alertmanager.status import RECEIVER, status_of
from services.api.auth import READ, requires
from services.api.reads import Reads
from services.api.spool import Part, Piece, Spool
from services.times import timestamp

#: Alerts encoded between two looks at other requests: about 2 ms.
_SLICE = 250
#: Characters of label values likewise: a fingerprint that was not met before takes 25 us each thousand.
_SLICE_CHARS = 128 * 1024
#: Characters of a label's value by which alerts of a group are put in order, and of all that order is made of.
ORDER_CHARS = 256
ORDER_BYTES_MAX = 128 * 1024 * 1024


class Named(msgspec.Struct, frozen=True):
    """A receiver, which has a name and nothing else."""

    name: str


class AlertStatus(msgspec.Struct, frozen=True, rename="camel"):
    """Whether an alert is muted, and by what."""

    inhibited_by: list[str]
    muted_by: list[str]
    silenced_by: list[str]
    state: str


class GettableAlert(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """One alert as Alertmanager shows it, fields in its order."""

    annotations: dict[str, str]
    ends_at: str
    fingerprint: str
    receivers: list[Named]
    starts_at: str
    status: AlertStatus
    updated_at: str
    generator_url: str = msgspec.field(default="", name="generatorURL")
    labels: dict[str, str]


class AlertGroup(msgspec.Struct, frozen=True, rename="camel"):
    """The firing alerts of one group. The one route has no labels."""

    alerts: list[GettableAlert]
    labels: dict[str, str]
    receiver: Named
    route_labels: dict[str, str] = {}


_json = msgspec.json.Encoder(order="deterministic")
#: How the JSON of a group without alerts begins.
_NO_ALERTS = b'{"alerts":[]'
_PLACE = struct.Struct(">QI")
_RECEIVERS = [Named(RECEIVER)]
_ACTIVE = AlertStatus([], [], [], "active")


def add_alertmanager_routes(
    app: FastAPI, reads: Reads, settings: Callable[[], Settings], started_at: float
) -> None:
    """Everything under /api/v2 but POST /alerts, and /-/healthy and /-/ready. `settings()` are those in force."""

    async def alerts(request: Request) -> Response:
        try:
            wanted = _Wanted.of(request)
            if not wanted.any:
                return answer([])
            spool = Spool()
            # As numbers, so that 250,000 of them are 20 MB: fingerprint, then where.
            found: list[bytes] = []
            async with aclosing(reads.alerts(wanted.matchers)) as pages:
                async for page in pages:
                    for part in _slices([each for each in page if wanted.takes(each)]):
                        shown = _gettable(part)
                        places = await spool.add([_json.encode(alert) for alert in shown])
                        found += [
                            bytes.fromhex(alert.fingerprint) + _PLACE.pack(*place)
                            for alert, place in zip(shown, places, strict=True)
                        ]
                        await asyncio.sleep(0)
            found.sort()
            return _listed(spool, [_PLACE.unpack_from(each, 8) for each in found])
        except (Refused, Unavailable) as error:
            return refused(error)

    async def groups(request: Request) -> Response:
        try:
            wanted = _Wanted.of(request)
            if not wanted.any:
                return answer([])
            spool = Spool()
            groups: dict[tuple[tuple[str, str], ...], list[tuple[tuple[object, ...], Piece]]] = {}
            active: set[tuple[tuple[str, str], ...]] = set()
            order_bytes = 0
            async with aclosing(reads.alerts(wanted.matchers)) as pages:
                async for page in pages:
                    for part in _slices([each for each in page if wanted.takes(each)]):
                        shown = _gettable(part)
                        places = await spool.add([_json.encode(alert) for alert in shown])
                        for alert, place in zip(shown, places, strict=True):
                            labels = tuple(_group_labels(alert.labels, settings()).items())
                            if labels not in groups:
                                order_bytes += sum(len(name) + len(value) for name, value in labels)
                            cut = _cut(alert.labels)
                            order_bytes += sum(map(len, cut.values()))
                            groups.setdefault(labels, []).append((_alert_place(cut), place))
                            if alert.status is _ACTIVE:
                                active.add(labels)
                        if order_bytes > ORDER_BYTES_MAX:
                            raise TooLarge("too many alerts to sort: narrow the filter")
                        await asyncio.sleep(0)
            parts: list[Part] = []
            for labels, members in sorted(groups.items(), key=lambda group: _ordered(dict(group[0]))):
                if not wanted.muted and labels not in active:
                    continue
                members.sort(key=lambda member: member[0])
                rest = _json.encode(AlertGroup([], dict(labels), _RECEIVERS[0])).removeprefix(_NO_ALERTS)
                parts += [
                    b"," if parts else b"[",
                    _NO_ALERTS[:-1],
                    *_with_commas([place for _order, place in members]),
                    b"]" + rest,
                ]
                await asyncio.sleep(0)
            return _sent(spool, [*parts, b"]\n"] if parts else [b"[]\n"])
        except (Refused, Unavailable) as error:
            return refused(error)

    async def status() -> Response:
        return answer(status_of(settings(), started_at))

    async def receivers(request: Request) -> Response:
        try:
            names = [RECEIVER, *sorted(settings().notify.all_receivers)]
            return answer([Named(name) for name in names] if _receiver_matches(request) else [])
        except Refused as error:
            return refused(error)

    async def fine() -> Response:
        return PlainTextResponse("OK")

    for path, endpoint, methods, scope in (
        (f"{PREFIX}/alerts", alerts, ["GET"], READ),
        (f"{PREFIX}/alerts/groups", groups, ["GET"], READ),
        (f"{PREFIX}/status", status, ["GET"], READ),
        (f"{PREFIX}/receivers", receivers, ["GET"], READ),
        ("/-/healthy", fine, ["GET"], None),
        ("/-/ready", fine, ["GET"], None),
    ):
        # Their description is Alertmanager's own openapi.yaml; ours holds what is ours.
        needed = [Depends(requires(scope))] if scope else []
        app.add_api_route(path, endpoint, methods=methods, dependencies=needed, include_in_schema=False)


class _Wanted:
    """The query parameters of alerts and alerts/groups. Checked in Alertmanager's order: filter, receiver,
    receiver_matchers."""

    def __init__(
        self,
        matchers: list[MatcherTuple],
        *,
        any: bool,
        active: bool,
        silenced: bool,
        inhibited: bool,
        muted: bool,
    ) -> None:
        self.matchers = matchers
        self.active, self.silenced, self.inhibited = active, silenced, inhibited
        #: Of groups: whether those are shown all of whose alerts are muted.
        self.muted = muted
        #: False when the parameters rule out every alert there can be.
        self.any = any

    @classmethod
    def of(cls, request: Request) -> _Wanted:
        params = request.query_params
        matchers = parse_filters(params.getlist("filter"))
        chosen = True
        receiver = params.get("receiver")
        if receiver:
            try:
                chosen = Pattern(receiver).matches(RECEIVER) and chosen
            except Malformed as error:
                raise Malformed(f"failed to parse receiver param: {error}") from error
        states = {name: flag(params.get(name)) for name in ("active", "silenced", "inhibited", "muted")}
        return cls(matchers, any=_receiver_matches(request) and chosen, **states)

    def takes(self, view: AlertView) -> bool:
        """Whether an alert is in a state that was asked for. None is unprocessed."""
        by = view.muted
        if by is None:
            return self.active
        return (self.silenced or not by.silences) and (self.inhibited or not by.rule)


def _receiver_matches(request: Request) -> bool:
    """Whether the one receiver, which has no labels, is among those of `receiver_matchers`. Raises Malformed."""
    return compile_matchers(parse_filters(request.query_params.getlist("receiver_matchers")))({})


def _slices(page: list[AlertView]) -> Iterator[list[AlertView]]:
    """A page in parts that are encoded between two looks at other requests."""
    part: list[AlertView] = []
    size = 0
    for view in page:
        part.append(view)
        size += sum(map(len, view.labels.values()))
        if len(part) == _SLICE or size >= _SLICE_CHARS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _gettable(views: list[AlertView]) -> list[GettableAlert]:
    return [
        GettableAlert(
            annotations=view.annotations,
            ends_at=timestamp(view.ends_at),
            fingerprint=fingerprint,
            receivers=_RECEIVERS,
            starts_at=timestamp(view.starts_at),
            status=_status_of(view),
            updated_at=timestamp(view.last_seen_at),
            labels=view.labels,
            generator_url=view.generator_url,
        )
        for view, fingerprint in zip(views, fingerprints([view.labels for view in views]), strict=True)
    ]


def _status_of(view: AlertView) -> AlertStatus:
    """Whether an alert is muted, and by what. There are no mute timings, so `mutedBy` is empty."""
    by = view.muted
    if by is None:
        return _ACTIVE
    return AlertStatus([by.fingerprint] if by.rule else [], [], list(by.silences), "suppressed")


def _group_labels(labels: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The labels of an alert's group, sorted: the service, however it was found, and those of group_by it
    has."""
    found = {name: labels[name] for name in settings.grouping.group_by if name in labels}
    found["service"] = service_of(labels, settings.grouping.service_labels)
    return dict(sorted(found.items()))


def _cut(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Labels as far as order is made of them."""
    if max(map(len, labels.values()), default=0) <= ORDER_CHARS:
        return labels
    return {name: value[:ORDER_CHARS] for name, value in labels.items()}


def _alert_place(labels: Mapping[str, str]) -> tuple[object, ...]:
    """The position of an alert in its group: by job, then instance, those without one last, then by all labels."""
    job, instance = labels.get("job"), labels.get("instance")
    return job is None, job or "", instance is None, instance or "", _ordered(labels)


def _before(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    """Alertmanager's order of label sets: the smaller set first, then by the first name that differs, where
    the set without it comes first. Negative, 0 or positive."""
    if len(one) != len(other):
        return len(one) - len(other)
    for name in sorted({*one, *other}):
        mine, theirs = one.get(name), other.get(name)
        if mine != theirs:
            return -1 if mine is None or (theirs is not None and mine < theirs) else 1
    return 0


_ordered = cmp_to_key(_before)


def _with_commas(places: Sequence[Piece]) -> Iterator[Part]:
    for number, place in enumerate(places):
        if number:
            yield b","
        yield place


def _listed(spool: Spool, places: Sequence[Piece]) -> Response:
    size = sum(length for _offset, length in places) + max(0, len(places) - 1) + len(b"[]\n")
    return spool.answer(chain([b"["], _with_commas(places), [b"]\n"]), size)


def _sent(spool: Spool, parts: Sequence[Part]) -> Response:
    return spool.answer(parts, sum(len(part) if isinstance(part, bytes) else part[1] for part in parts))
