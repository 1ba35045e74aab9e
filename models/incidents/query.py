"""The queries a shard answers, and the answers: reads never make events. Pages are bounded, cursors are explicit."""

from __future__ import annotations

import msgspec

from models.alerts.matchers import MatcherTuple
from models.alerts.muted import IncidentMutes, MutedBy
from models.edge.questions import EdgeAnswer, EdgeQuestion
from models.incidents.filters import IncidentFilter, Position, Sort
from models.incidents.incident import Acknowledgement, Child, Incident, IncidentState, Override, Verdict
from models.incidents.relation import Relation
from models.playbook.repaired import Repaired
from models.playbook.run import Run
from models.wire import Wire

#: A shard answers at most this many items a page: at ~20 us an item a page stays below 20 ms, between two batches.
PAGE_MAX = 1000
#: Incidents looked at for one answer: with every filter given 2.5 us each, so that a rare match holds up a batch for 8 ms.
INCIDENT_SCAN_MAX = 3000

#: How far an answer looked, in the order in which a shard keeps its incidents: (created_at, id).
Looked = tuple[float, bytes]


class ListIncidents(Wire, frozen=True):
    """Incidents in the order of `sort`, strictly after `after`."""

    tenant: str
    limit: int = PAGE_MAX
    after: Position | None = None
    wanted: IncidentFilter = IncidentFilter()
    sort: Sort = Sort.NEWEST


class CountIncidents(Wire, frozen=True):
    """Counts for GET /v1/stats over the INCIDENT_SCAN_MAX incidents older than `looked`. `now` is when "overdue" is
    asked for, `since` when the window of times begins."""

    tenant: str
    now: float
    since: float
    wanted: IncidentFilter = IncidentFilter()
    looked: Looked | None = None


class GetIncident(Wire, frozen=True):
    tenant: str
    incident_id: bytes


class GetIncidents(Wire, frozen=True):
    """Those of these incidents that are in this shard, in no order. At most PAGE_MAX are looked up."""

    tenant: str
    incident_ids: list[bytes]


class GetSummaries(Wire, frozen=True):
    """The summaries of those of these incidents that are here, in no order. At most PAGE_MAX are looked up."""

    tenant: str
    incident_ids: list[bytes]


class ListSummaries(Wire, frozen=True):
    """The summaries of all incidents that are here, in the order in which a shard keeps them, after `after`."""

    tenant: str
    after: Looked | None = None
    limit: int = PAGE_MAX


class Probe(Wire, frozen=True):
    """Asks whether the shard accepts alerts: a ready one answers with an empty page, another one refuses, even if it
    can still be read."""


class IncidentAlerts(Wire, frozen=True):
    """The alerts (series) of one incident, by series number after `after`. `firing` None: those that ended too."""

    tenant: str
    incident_id: bytes
    after: int = -1
    limit: int = PAGE_MAX
    firing: bool | None = None


class ListAlerts(Wire, frozen=True):
    """Alerts (series) by number after `after`. `firing_only` leaves ended ones out, `ended_only` firing ones."""

    tenant: str
    after: int = -1
    limit: int = PAGE_MAX
    matchers: list[MatcherTuple] = []
    firing_only: bool = True
    ended_only: bool = False


class PreviewMutes(Wire, frozen=True):
    """Of the alerts that fire, by number after `after`: how many all matchers hold for, and of which incidents they are."""

    tenant: str
    matchers: list[MatcherTuple]
    after: int = -1


class GetRuns(Wire, frozen=True):
    """The runs of playbooks of one incident, or the one run with this id; with what they captured if `whole`."""

    tenant: str
    incident_id: bytes = b""
    run: bytes = b""
    whole: bool = False


class ListRuns(Wire, frozen=True):
    """Runs that are here, the newest first, before `before` (a run's id). `active` None: those that are over too."""

    tenant: str
    limit: int = PAGE_MAX
    before: bytes = b""
    active: bool | None = None
    playbook: str = ""


class ListRepairs(Wire, frozen=True):
    """What came of the repairs of playbooks, and the tasks that are planned."""

    tenant: str


class ListPulses(Wire, frozen=True):
    """The heartbeats that a shard watches, by name after `after`; only the one called `name` if it is given."""

    tenant: str
    after: str = ""
    limit: int = PAGE_MAX
    name: str = ""


class AlertView(msgspec.Struct, frozen=True, array_like=True):
    """One series as people see it. Times are seconds since the epoch; ends_at 0 means it has no end yet.

    `decisions` says why it is where it is: (decision number, count, first at, last at), oldest first; `senders` by whose
    alert each was made last, "" where nobody's or it is not known. `sender` is whose alert says what it says now.
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
    sender: str = ""
    senders: list[str] = []
    muted: MutedBy | None = None


class EscalationView(msgspec.Struct, frozen=True, array_like=True):
    """How far the escalation of an incident got. `status`: running, paused, stopped, ended, unknown; `level` (from 1) is the next to be
    told, at `next_at` (0: none is due); `told` are those who were, as in "ana by mail"."""

    policy: str
    status: str
    level: int
    round: int
    next_at: float
    told: list[str]
    why: str


class IncidentView(msgspec.Struct, frozen=True, array_like=True):
    """An incident as its shard keeps it, with what is worked out when read.

    `alerts` are its own, not those of its children. It should be acknowledged and resolved by the due times, 0 if no
    target applies any more (models/shard/targets.py).
    """

    incident: Incident
    alerts: int
    acknowledge_due_at: float = 0.0
    resolve_due_at: float = 0.0
    mutes: IncidentMutes | None = None
    #: The run of a playbook that is under way for it, b"" when none is.
    active_run: bytes = b""
    escalation: EscalationView | None = None
    relation: Relation | None = None


class CaptureView(msgspec.Struct, frozen=True, array_like=True):
    """What an action of a run recorded. `packed` is Zstandard, b"" where only what there is was asked for."""

    id: bytes
    step: str
    name: str
    media_type: str
    at: float
    size: int
    cut: bool
    packed: bytes = b""


class RunView(msgspec.Struct, frozen=True, array_like=True):
    """A run, and what it is about."""

    run: Run
    service: str
    title: str
    captures: list[CaptureView] = []


class RunPage(Wire, frozen=True):
    """`next_before` is where the next page begins, None at the end."""

    items: list[RunView]
    next_before: bytes | None = None


class TaskView(msgspec.Struct, frozen=True, array_like=True):
    """Something that people are to do after an incident. `told_at`: when the timeline said that it is due, 0 before."""

    incident_id: bytes
    title: str
    text: str
    due_at: float
    by: str
    told_at: float = 0.0


class RepairPage(Wire, frozen=True):
    """Of one shard."""

    items: list[Repaired]
    tasks: list[TaskView] = []


class PulseView(msgspec.Struct, frozen=True, array_like=True):
    """What a shard knows of a heartbeat: when it was heard last (0: never), when it is missed (0: nobody waits for it), since when it
    is missed or failed (0: it is not), and in which incident."""

    name: str
    last_at: float
    due_at: float
    missed_at: float = 0.0
    incident_id: bytes = b""


class PulsePage(Wire, frozen=True):
    """`next_after` is where the next page begins, None at the end."""

    items: list[PulseView]
    next_after: str | None = None


class Summary(msgspec.Struct, frozen=True, array_like=True):
    """What is shown of an incident beside each thing that happens to it (models/incidents/summaries.py), and what that follows from:
    `counts` is what it is, of what was `judged`, what people `said`, and its open `children`."""

    id: bytes
    service: str
    title: str
    state: IncidentState
    labels: dict[str, str]
    assignees: list[str]
    version: int
    updated_at: float
    is_classified: bool
    counts: Verdict
    verdict: Verdict
    override: Override = Override()
    children: dict[bytes, Child] = {}
    created_at: float = 0.0
    created_by: str = "system"
    source: str = ""
    description: str = ""
    resolved_at: float = 0.0
    closed_at: float = 0.0
    reopened: int = 0
    acknowledged: Acknowledgement | None = None
    merged_into: bytes = b""


class SummaryPage(Wire, frozen=True):
    """Summaries as of the frame `seq`. `next_after` is where the next page of ListSummaries begins, None at the end."""

    seq: int
    items: list[Summary]
    next_after: Looked | None = None


class IncidentPage(Wire, frozen=True):
    """`next_after` is where the next page begins, None at the end. A page may be empty and still have a next one."""

    items: list[IncidentView]
    next_after: Position | None = None


class IncidentCounts(Wire, frozen=True):
    """What CountIncidents counted; children of merged incidents are left out. Of the dictionaries, `states` counts all,
    the others open incidents. `acknowledged_s` and `resolved_s` are little-endian f64s: how long each incident took that
    was answered, or resolved, since `since`. `decided` are alerts by decision since the shard's last start, with the first
    answer only."""

    states: dict[str, int] = {}
    severities: dict[int, int] = {}
    types: dict[str, int] = {}
    services: dict[str, int] = {}
    acknowledged: int = 0
    unassigned: int = 0
    overdue: int = 0
    opened: int = 0
    acknowledged_s: bytes = b""
    resolved_s: bytes = b""
    decided: dict[int, int] = {}
    looked: Looked | None = None


class AlertPage(Wire, frozen=True):
    """`next_after` is the cursor of the next page, None at the end. A page may be empty and still have a next one."""

    items: list[AlertView]
    next_after: int | None


class MutePreview(Wire, frozen=True):
    """Of `firing` alerts looked at the `incidents` have so many that match. `next_after` is where the next page begins."""

    firing: int
    incidents: dict[bytes, int]
    next_after: int | None


Query = (
    ListIncidents
    | CountIncidents
    | GetIncident
    | GetIncidents
    | Probe
    | IncidentAlerts
    | ListAlerts
    | PreviewMutes
    | GetSummaries
    | GetRuns
    | ListRuns
    | ListRepairs
    | ListSummaries
    | EdgeQuestion
    | ListPulses
)
Answer = (
    IncidentPage
    | IncidentCounts
    | AlertPage
    | SummaryPage
    | MutePreview
    | RunPage
    | RepairPage
    | EdgeAnswer
    | PulsePage
)

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
