"""Alertmanager's API v2, its reading half, as 0.34 answers it: amtool, Grafana and karma ask here.

Two error shapes, like the original: a bare JSON string if the content is wrong, {"code", "message"} if the request
itself is. POST /api/v2/alerts is the hot route and not here (services/ingest), silences are in silences.py. Where we
differ: an alert without an end has Go's zero time as endsAt; a shard that cannot answer is 503 rather than 500, so that
clients ask again.
"""

from __future__ import annotations

import asyncio
import platform
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import cmp_to_key
from itertools import chain

import msgspec
import yaml
from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from models import VERSION
from models.alerts.alert import PLAIN_NAME, fingerprints, service_of
from models.alerts.matchers import MatcherTuple, compile_matchers, parse_filters
from models.alerts.patterns import Pattern
from models.errors import Busy, Malformed, Refused, TooLarge, Unavailable
from models.incidents.query import AlertView
from models.settings.all import Settings
from services.api.auth import READ, requires
from services.api.reads import Reads
from services.api.spool import Part, Piece, Spool
from services.machine.front import authority
from services.times import timestamp

#: The prefix of every path here.
PREFIX = "/api/v2"
#: The version whose answers these are. Clients choose their decoder by it; our own follows as build metadata.
SPEAKS = "0.34.0"
#: The one receiver there is: the first response.
RECEIVER = "llm-im"
#: Alerts encoded between two looks at other requests: about 2 ms.
_SLICE = 250
#: Characters of label values likewise: a fingerprint that was not met before takes 25 us each thousand.
_SLICE_CHARS = 128 * 1024
#: Characters of a label's value by which alerts of a group are put in order, and of all that order is made of.
ORDER_CHARS = 256
ORDER_BYTES_MAX = 128 * 1024 * 1024

#: go-openapi's idea of true; everything else is false, and an empty value is the default.
_TRUE = frozenset({"true", "1", "yes", "ok", "y", "on", "selected", "checked", "t", "enabled"})


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
        return answer(_status(settings(), started_at))

    async def receivers(request: Request) -> Response:
        try:
            return answer(_RECEIVERS if _receiver_matches(request) else [])
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


def validation_error(status: int, code: int, message: str) -> Response:
    """Alertmanager's answer to a request whose form is wrong."""
    return answer({"code": code, "message": message}, status)


def not_found(path: str) -> Response:
    """Alertmanager's answer for a path that it does not have."""
    return validation_error(404, 404, f"path {path} was not found")


def not_allowed(method: str, allowed: Sequence[str]) -> Response:
    """Alertmanager's answer for a method that a path does not take."""
    names = ",".join(sorted(allowed))
    response = validation_error(405, 405, f"method {method} is not allowed, but [{names}] are")
    response.headers["Allow"] = names
    return response


def config_yaml(settings: Settings) -> str:
    """Our settings as an Alertmanager configuration that amtool takes: what clients read group labels and
    waits from.

    The receiver shows no URL: a webhook's may hold a secret.
    """
    names = ["service", *settings.grouping.group_by]
    wait = settings.notify.wait
    document = {
        "global": {"resolve_timeout": _duration(settings.lifecycle.resolve_timeout)},
        "route": {
            "receiver": RECEIVER,
            # Alertmanager refuses repeats, and before 0.28 other names than these: amtool would read nothing at all.
            "group_by": list(dict.fromkeys(name for name in names if PLAIN_NAME.match(name))),
            "group_wait": _duration(wait.P2),
        },
        "receivers": [{"name": RECEIVER}],
        "templates": [],
    }
    waits = " ".join(f"{name}={_duration(getattr(wait, name))}" for name in ("P0", "P1", "P2", "P3", "P4"))
    # As JSON, so that no label name can end the comment.
    fallbacks = msgspec.json.encode(settings.grouping.service_labels).decode("ascii", "replace")
    all_names = msgspec.json.encode(names).decode("ascii", "replace")
    return (
        f"# LLM-Incident-Manager {VERSION}, its settings as Alertmanager would write them.\n"
        f"# First notice by severity: {waits}. The service is the first label present of {fallbacks}.\n"
        f"# Grouped by {all_names}.\n" + yaml.safe_dump(document, sort_keys=False)
    )


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


def flag(value: str | None) -> bool:
    """A parameter that is true unless it says otherwise."""
    return not value or value.lower() in _TRUE


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


class Peer(msgspec.Struct, frozen=True):
    """One member of the cluster."""

    name: str
    address: str


class Cluster(msgspec.Struct, frozen=True):
    """The cluster, as far as Alertmanager's clients know one. `name` is the member that answers."""

    name: str
    peers: list[Peer]
    status: str


class Config(msgspec.Struct, frozen=True):
    """The configuration as YAML."""

    original: str


class VersionInfo(msgspec.Struct, frozen=True, rename="camel"):
    """What was built, when and from what. All six are required."""

    branch: str
    build_date: str
    build_user: str
    go_version: str
    revision: str
    version: str


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of GET /status. `uptime` is the time of start, as in the original."""

    cluster: Cluster
    config: Config
    uptime: str
    version_info: VersionInfo


def _status(settings: Settings, started_at: float) -> Status:
    # The gateways of one system answer as one; clients need not know which of them they asked.
    peer = Peer(RECEIVER, authority(settings.server.http_host, settings.server.http_port))
    return Status(
        cluster=Cluster(RECEIVER, [peer], "ready"),
        config=Config(config_yaml(settings)),
        uptime=timestamp(started_at),
        version_info=VersionInfo(
            branch="llm-incident-manager",
            build_date="",
            build_user="",
            go_version=f"none (Python {platform.python_version()})",
            revision=VERSION,
            version=f"{SPEAKS}+llm-im.{VERSION}",
        ),
    )


def _duration(seconds: float) -> str:
    """As Prometheus writes it: whole numbers of the largest unit that fits."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def refused(error: Refused | Unavailable) -> Response:
    """The bare JSON string that says why an alert query can't be answered."""
    if isinstance(error, Busy):
        return answer(str(error), 503, retry_after_s=error.retry_after_s)
    if isinstance(error, Unavailable):
        return answer(str(error), 503, retry_after_s=1)
    return answer(str(error), 400)


def answer(value: object, status: int = 200, *, retry_after_s: float | None = None) -> Response:
    """JSON as Alertmanager writes it."""
    headers = None if retry_after_s is None else {"Retry-After": str(max(1, round(retry_after_s)))}
    return Response(_json.encode(value) + b"\n", status, headers, media_type="application/json")


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
