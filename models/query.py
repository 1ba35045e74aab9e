"""What a shard may be asked, and what it shows: reads never make events. Pages are bounded, cursors are explicit."""

from __future__ import annotations

import msgspec

from models.incident import Incident, IncidentState, Judgement, PartOf, Said
from models.wire import Wire

#: A shard answers at most this many items a page: at ~20 us an item a page stays below 20 ms, between two batches.
PAGE_MAX = 1000

#: A label matcher as (name, operator, value); operator is one of = != =~ !~. models/matchers.py reads and applies them.
MatcherTuple = tuple[str, str, str]


class ListIncidents(Wire, frozen=True):
    """Incidents newest first by (created_at, id), strictly after `before`. Empty filters mean any."""

    tenant: str
    limit: int = PAGE_MAX
    before: tuple[float, bytes] | None = None
    states: list[str] = []
    severities: list[int] = []
    types: list[str] = []
    services: list[str] = []


class GetIncident(Wire, frozen=True):
    tenant: str
    incident_id: bytes


class GetIncidents(Wire, frozen=True):
    """Those of these incidents that are here, in no order. At most PAGE_MAX are looked up."""

    tenant: str
    incident_ids: list[bytes]


class GetHeads(Wire, frozen=True):
    """The heads of those of these incidents that are here, in no order. At most PAGE_MAX are looked up."""

    tenant: str
    incident_ids: list[bytes]


class Probe(Wire, frozen=True):
    """Asks whether alerts are taken: answered with an empty page by a shard that is ready, refused by one that is not,
    even if it can still be read."""


class IncidentAlerts(Wire, frozen=True):
    """The alerts (series) of one incident, by series number after `after`."""

    tenant: str
    incident_id: bytes
    after: int = -1
    limit: int = PAGE_MAX


class ListAlerts(Wire, frozen=True):
    """Alerts (series) by number after `after`. `firing_only` leaves ended ones out."""

    tenant: str
    after: int = -1
    limit: int = PAGE_MAX
    matchers: list[MatcherTuple] = []
    firing_only: bool = True


class AlertView(msgspec.Struct, frozen=True, array_like=True):
    """One series as people see it. Times are seconds since the epoch; ends_at 0 means it has no end yet.

    `decisions` says why it is where it is: (decision number, count, first at, last at), oldest first.
    """

    incident_id: bytes
    labels: dict[str, str]
    annotations: dict[str, str]
    generator_url: str
    source: str
    starts_at: float
    ends_at: float
    last_seen_at: float
    firing: bool
    decisions: list[tuple[int, int, float, float]] = []


class IncidentView(msgspec.Struct, frozen=True, array_like=True):
    """An incident as its shard keeps it, with what is counted when read."""

    incident: Incident
    alerts: int


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What is shown of an incident beside each thing that happens to it (models/heads.py), and what that follows from:
    `counts` is what it is, of what was `judged`, what people `said`, and its open `parts`."""

    id: bytes
    service: str
    title: str
    state: IncidentState
    labels: dict[str, str]
    assignees: list[str]
    version: int
    updated_at: float
    is_classified: bool
    counts: Judgement
    judged: Judgement
    said: Said = Said()
    parts: dict[bytes, PartOf] = {}


class HeadPage(Wire, frozen=True):
    """Heads as the frame `seq` left them."""

    seq: int
    items: list[Head]


class IncidentPage(Wire, frozen=True):
    """`more`: there are others after the last one."""

    items: list[IncidentView]
    more: bool


class AlertPage(Wire, frozen=True):
    """`next_after` is the cursor of the next page, None at the end. A page may be empty and still have a next one."""

    items: list[AlertView]
    next_after: int | None


Query = ListIncidents | GetIncident | GetIncidents | Probe | IncidentAlerts | ListAlerts | GetHeads
Answer = IncidentPage | AlertPage | HeadPage

_encoder = msgspec.msgpack.Encoder()
_query_decoder: msgspec.msgpack.Decoder[Query] = msgspec.msgpack.Decoder(Query)
_answer_decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(value: Query | Answer) -> bytes:
    """MessagePack of a query or an answer."""
    return _encoder.encode(value)


def decode_query(data: bytes) -> Query:
    """The query in `data`. Raises msgspec.ValidationError or DecodeError when it is none."""
    return _query_decoder.decode(data)


def decode_answer(data: bytes) -> Answer:
    """The answer in `data`. Raises msgspec.ValidationError or DecodeError when it is none."""
    return _answer_decoder.decode(data)
