"""The events that several components make, fold or look at; every other one stands beside its component. The log holds
nothing else, and an incident is the fold of its events.

An event type is only added, or superseded with an upcast on read; a field is only added at the end, with a
default. tests/pure/test_released_logs.py replays a log of every released version.

AlertsObserved and the Series* events can be read only beside the shard's state (they name series by number).
The Incident* events carry in full what an outside reader needs.
"""

from __future__ import annotations

from models.incidents.incident import IncidentState
from models.partition.event import Event


class ShardStarted(Event, frozen=True):
    """A writer took the partition at a new epoch. Nothing expires before `no_expiry_before`."""

    epoch: int
    owner: str
    no_expiry_before: float


class ClockSetBack(Event, frozen=True):
    """The shard's clock had been ahead: it last said `before`, and says `after` now. What was set by the wrong time is
    corrected (models/shard/clock.py): the only event with which a frame's time is earlier than that of the frame
    before.

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
    """A series begins a run in an incident. `body` is MessagePack of alert.Content. `is_news`: somebody knew the
    incident as it was, so its timeline should mention this one (AlertsJoined)."""

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
    """The content of a firing series changed (annotations, start, generator). `signal` as in SeriesOpened."""

    number: int
    key: bytes
    ends_at: float
    body: bytes
    sender: str = ""
    signal: str = ""


class SeriesResolved(Event, frozen=True):
    """A firing series ended at `ended_at`. `expired`: no resolve arrived, its time ran out. `key` and `body` are set if
    the resolve itself had new content (annotations may differ at the end).
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
    """`began_at`: when the alert that opened it began, by its sender's clock; 0 if that is not known, or not yet."""

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
    began_at: float = 0.0


class IncidentStateChanged(Event, frozen=True):
    """A legal move, with who made it and why. The later fields are about a resolution: `reason` is its notes, and if
    some of its alerts still fire at `still_firing_at` it is reopened (0: not checked)."""

    incident_id: bytes
    before: IncidentState
    after: IncidentState
    actor: str
    reason: str
    method: str = ""
    root_cause: str | None = None
    still_firing_at: float = 0.0


class NotificationOwed(Event, frozen=True, tag="NoticeOwed"):
    """A notification is pending for `receiver` from `due_at` on, by `route`. `reason`: opened, severity changed, resolved,
    reopened, flapping, flapping ended, unmerged, acknowledgement expired, more alerts, still unacknowledged, not acknowledged in
    time, sent again. The same number again replaces one that was never tried.
    `queued`: an earlier notification may be in flight; this one waits for its outcome, so that a receiver never gets
    "resolved" before "opened". `heard_at`: then a playbook told the receiver of the incident, which calls what it opened `ref`.
    """

    incident_id: bytes
    number: int
    reason: str
    due_at: float
    queued: bool = False
    receiver: str = "webhook"
    route: str = ""
    heard_at: float = 0.0
    ref: str = ""


class NotificationDropped(Event, frozen=True, tag="NoticeDropped"):
    """A notification is no longer pending: the incident ended before anyone was notified, or it is no longer true. `settled`:
    it was the end of the incident, and nothing more is to be told of that; `why` is "" for who is told of no ends."""

    incident_id: bytes
    number: int
    why: str
    receiver: str = "webhook"
    settled: bool = False


class NotificationWithheld(Event, frozen=True):
    """Nobody is told (`reason`, as in NotificationOwed) while all that fires of an incident is muted; `why` says by what."""

    incident_id: bytes
    reason: str
    why: str
    receiver: str = "webhook"


class NotificationDiscarded(Event, frozen=True):
    """Nobody is told of an incident: a route discards it. `why` is what the route asks."""

    incident_id: bytes
    route: str
    why: str


class NotificationFellBack(Event, frozen=True):
    """A receiver can't be told, so `to`, its fallback, is told in its place. `why` says whether it was given up."""

    incident_id: bytes
    receiver: str
    to: str
    reason: str
    why: str


class ActionSucceeded(Event, frozen=True):
    """The receiver took it. `ref` is what it calls what it made, `seen` how many series of the incident it was told of (-1:
    unknown)."""

    incident_id: bytes
    number: int
    attempt: int
    reason: str
    detail: str
    receiver: str = "webhook"
    ref: str = ""
    seen: int = -1


class ActionFailed(Event, frozen=True):
    """An attempt failed. `retry_at` 0 means given up, with the reason in `detail`; or, with `overtaken`, that something
    newer is sent instead, or nothing. `reached`: a receiver may have got it anyway."""

    incident_id: bytes
    number: int
    attempt: int
    reason: str
    detail: str
    retry_at: float
    reached: bool = True
    overtaken: bool = False
    receiver: str = "webhook"
