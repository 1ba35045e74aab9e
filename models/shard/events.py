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
    """A firing series says something else than before (annotations, start, generator)."""

    number: int
    key: bytes
    ends_at: float
    body: bytes
    sender: str = ""


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


class NotificationWithheld(Event, frozen=True):
    """Nobody is told (`reason`, as in NotificationOwed) while all that fires of an incident is muted; `why` says by what."""

    incident_id: bytes
    reason: str
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
