"""What has happened, in the past tense: the log holds nothing else, and an incident is the fold of its events.

An event type is only added, or superseded with an upcast on read; a field is only added at the end, with a
default. tests/pure/test_released_logs.py replays a log of every released version.

AlertsObserved and the Series* events can be read only beside the shard's state (they name series by number).
The Incident* events carry in full what an outside reader needs.
"""

from __future__ import annotations

from models.incidents.incident import IncidentState, IncidentType, Override, Severity
from models.partition.event import Event


class ShardStarted(Event, frozen=True):
    """A writer took the partition at a new epoch. Nothing expires before `no_expiry_before`."""

    epoch: int
    owner: str
    no_expiry_before: float


class ReceptionGap(Event, frozen=True, tag="HeardAgain"):
    """The shard was deaf since `deaf_since`; nothing expires before `no_expiry_before`."""

    deaf_since: float
    no_expiry_before: float
    why: str


class ClockSetBack(Event, frozen=True):
    """The shard's clock had been ahead: it last said `before`, and says `after` now. What was set by the false time is put
    right (models/shard/clock.py): the one event with which a frame's time falls behind the frame before.

    Nothing expires before `no_expiry_before`, the archive was to forget what closed before `forgotten_before`, and an alert
    without an end was given one that many seconds ahead (`given_s`).
    """

    before: float
    after: float
    no_expiry_before: float
    forgotten_before: float
    given_s: list[float] = []


class AlertsObserved(Event, frozen=True):
    """Firing series were seen again, unchanged. `numbers` is little-endian u32s; `ends` one f64 for all, or one each."""

    numbers: bytes
    ends: bytes


class SeriesOpened(Event, frozen=True):
    """A series begins a life in an incident. `body` is MessagePack of alert.Content. `is_news`: somebody knew of the
    incident as it was, so that its timeline is to tell of this one (AlertsJoined)."""

    number: int
    key: bytes
    incident_id: bytes
    ends_at: float
    body: bytes
    decision: int
    signal: str = ""
    #: The name of the token it came with, "anonymous" without one, "" in logs of before that was known; likewise below.
    sender: str = ""
    is_news: bool = False


class SeriesChanged(Event, frozen=True):
    """A firing series says something else than before (annotations, start, generator). `signal` as in SeriesOpened."""

    number: int
    key: bytes
    ends_at: float
    body: bytes
    sender: str = ""
    signal: str = ""


class SeriesResolved(Event, frozen=True):
    """A firing series ended at `ended_at`. `expired`: nobody said so, its time ran out.

    `key` and `body` are set when the resolve itself said something new (annotations may differ at the end).
    """

    number: int
    ended_at: float
    expired: bool
    key: bytes = b""
    body: bytes = b""
    sender: str = ""


class SeriesRefired(Event, frozen=True):
    """A resolved series fires again in its incident. `decision` is REFIRED or REOPENED."""

    number: int
    key: bytes
    ends_at: float
    body: bytes
    decision: int
    sender: str = ""
    signal: str = ""


class AlertsSetAside(Event, frozen=True):
    """Alerts that change nothing, kept so that nothing acknowledged is lost. Parallel lists."""

    decisions: bytes
    keys: list[bytes]
    ends: list[float]
    bodies: list[bytes]
    sender: str = ""


class CallAnswered(Event, frozen=True):
    """A call got this reply (an encoded AlertsReply); a repeat within CALL_WINDOW_S gets it again."""

    call_id: bytes
    reply: bytes
    delivery_id: str | None = None


class IncidentOpened(Event, frozen=True):
    incident_id: bytes
    slot: int
    tenant: str
    service: str
    group_key: str
    group_labels: dict[str, str]
    title: str
    description: str
    source: str
    labels: dict[str, str]
    annotations: dict[str, str]
    is_overflow: bool = False
    created_by: str = "system"


class IncidentDescribed(Event, frozen=True):
    """What its alerts share changed, because some joined, changed or ended. What is None stays as it was."""

    incident_id: bytes
    title: str | None
    description: str | None
    labels: dict[str, str] | None
    annotations: dict[str, str] | None


class AlertsJoined(Event, frozen=True):
    """`count` new alerts joined an open incident since its timeline last said so; `firing` fire now in all. `text` says
    what tells them from the others."""

    incident_id: bytes
    count: int
    firing: int
    text: str


class OverflowMemberAdded(Event, frozen=True):
    """A group that found no room of its own was joined to an overflow incident."""

    incident_id: bytes
    group_key: str
    title: str


class IncidentClassified(Event, frozen=True):
    incident_id: bytes
    severity: Severity
    type: IncidentType
    impact: str
    by: str
    confidence: float
    asked: int


class IncidentStateChanged(Event, frozen=True):
    """A legal move, with who made it and why. What follows speaks of a resolution: `reason` is its notes, and when
    some of its alerts still fire at `still_firing_at` it is opened again (0: nobody looks)."""

    incident_id: bytes
    before: IncidentState
    after: IncidentState
    actor: str
    reason: str
    method: str = ""
    root_cause: str | None = None
    still_firing_at: float = 0.0


class NotificationOwed(Event, frozen=True, tag="NoticeOwed"):
    """The first response owes a notice from `due_at` on. `reason`: opened, severity changed, resolved, reopened,
    flapping, flapping ended, unmerged, acknowledgement expired. The same number again: in the place of what was owed
    under it and never tried.

    `queued`: an earlier notice may be under way; this one waits for its outcome, so that a receiver never
    hears "resolved" before "opened".
    """

    incident_id: bytes
    number: int
    reason: str
    due_at: float
    queued: bool = False


class NotificationDropped(Event, frozen=True, tag="NoticeDropped"):
    """A notice is no longer owed: it ended before anyone was told, or what was to be told is not true any more."""

    incident_id: bytes
    number: int
    why: str


class ActionSucceeded(Event, frozen=True):
    incident_id: bytes
    number: int
    attempt: int
    reason: str
    detail: str


class ActionFailed(Event, frozen=True):
    """A try failed. `retry_at` 0 means given up, and why is in `detail`; or, with `overtaken`, that something newer is
    told instead, or nothing any more. `reached`: a receiver may have got it all the same."""

    incident_id: bytes
    number: int
    attempt: int
    reason: str
    detail: str
    retry_at: float
    reached: bool = True
    overtaken: bool = False


class IncidentArchived(Event, frozen=True):
    """The archive holds the incident; it and its series leave the shard. `numbers`: its series, little-endian u32s."""

    incident_id: bytes
    numbers: bytes


class ArchiveExpired(Event, frozen=True):
    """What closed before then is forgotten: `lifecycle.retention` has passed. The archive is told to drop it."""

    closed_before: float


class IncidentAcknowledged(Event, frozen=True):
    """Somebody looks after it until `until` (0: until it ends)."""

    incident_id: bytes
    actor: str
    until: float
    reason: str


class AcknowledgementEnded(Event, frozen=True):
    """Taken back by a person, or `expired`."""

    incident_id: bytes
    actor: str
    reason: str
    expired: bool = False


class AssignmentChanged(Event, frozen=True):
    """Who works on it now, all of them. `text` says what changed."""

    incident_id: bytes
    actor: str
    assignees: list[str]
    roles: dict[str, str]
    reason: str
    text: str


class CommentAdded(Event, frozen=True):
    incident_id: bytes
    actor: str
    text: str


class LabelsChanged(Event, frozen=True):
    incident_id: bytes
    actor: str
    set: dict[str, str]
    removed: list[str]
    reason: str


class IncidentReclassified(Event, frozen=True):
    """`said` is all that people say now about what it is; what is None there is the classifiers' again."""

    incident_id: bytes
    actor: str
    override: Override
    reason: str


class StakeholdersUpdated(Event, frozen=True):
    incident_id: bytes
    actor: str
    audience: str
    text: str
    next_due_at: float


class UpdateMissed(Event, frozen=True):
    """The update that was promised for `due_at` did not come."""

    incident_id: bytes
    due_at: float


class TargetPassed(Event, frozen=True):
    """Half (`percent` 50) or all (100) of the time passed that a response target allows. `target`: acknowledge, resolve."""

    incident_id: bytes
    target: str
    percent: int
    due_at: float


class IncidentLinked(Event, frozen=True):
    incident_id: bytes
    other: bytes
    actor: str
    reason: str


class IncidentUnlinked(Event, frozen=True):
    incident_id: bytes
    other: bytes
    actor: str
    reason: str


class IncidentMerged(Event, frozen=True):
    """`source` is to become a part of this incident; the other half is owed to its shard."""

    incident_id: bytes
    source: bytes
    actor: str
    reason: str


class ChildChanged(Event, frozen=True, tag="PartChanged"):
    """How a part is now. `pending` and `ended_by` as in incident.PartOf."""

    incident_id: bytes
    source: bytes
    is_open: bool
    severity: Severity
    pending: str = ""
    ended_by: int = 0


class ChildLeft(Event, frozen=True, tag="PartLeft"):
    """`source` is no part of this incident any more, or never became one (`refused`)."""

    incident_id: bytes
    source: bytes
    actor: str
    reason: str
    refused: bool = False


class IncidentMergedInto(Event, frozen=True, tag="IncidentPartOf"):
    """This incident became a part of `target`: it is told of there."""

    incident_id: bytes
    target: bytes
    actor: str
    reason: str


class IncidentUnmerged(Event, frozen=True, tag="IncidentFreed"):
    """This incident is no part of `target` any more."""

    incident_id: bytes
    target: bytes
    actor: str
    reason: str


class IncidentSplit(Event, frozen=True):
    """The series `numbers` (little-endian u32s) left this incident for `made`, which is new and otherwise like it."""

    incident_id: bytes
    made: bytes
    group_key: str
    numbers: bytes
    title: str
    actor: str
    reason: str


class PeerMessageOwed(Event, frozen=True, tag="NoteOwed"):
    """This incident owes another one a note (models/shard/peer_messages.py, encoded)."""

    incident_id: bytes
    number: int
    to: bytes
    note: bytes


class PeerMessageDelivered(Event, frozen=True, tag="NoteDelivered"):
    """The other one answered: `refused` is why not, "" when it agreed."""

    incident_id: bytes
    number: int
    refused: str = ""


class PeerMessageReceived(Event, frozen=True, tag="NoteHeard"):
    """A note of `sender` was answered, and how: a repeat of it gets the same answer."""

    incident_id: bytes
    sender: bytes
    number: int
    refused: str = ""


class SlotLeft(Event, frozen=True):
    """Incidents of a slot (MessagePack of incident.Incident) went to another partition, each with its series
    (MessagePack of a list of series.MovedSeries). `version` is that of the slot map to be."""

    slot: int
    version: int
    incidents: list[bytes]
    series: list[bytes]


class SlotArrived(Event, frozen=True):
    """The same in the partition where they are now."""

    slot: int
    version: int
    incidents: list[bytes]
    series: list[bytes]
