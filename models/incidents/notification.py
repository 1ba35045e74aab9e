"""The content of a notification, as facts, and its retries: what effect Act carries, its key, its retry time.

Called by the shard when it emits Act and when an ActionOutcome comes back. The action renders the facts for its
receiver (services/actions).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from models.incidents.incident import WEBHOOK, Incident, IncidentState, IncidentType, Severity
from models.incidents.query import AlertView

#: The two states that a notification speaks of, and the reason that says the second.
FIRING, RESOLVED = "firing", "resolved"
#: Go's zero time: how Alertmanager writes "has no end yet".
NO_TIME = "0001-01-01T00:00:00Z"

#: A wait is never shorter than this share of the backoff: the rest is jitter, so that a receiver that recovers does not
#: get all notifications at once, and no retry is immediate.
_JITTER_FROM = 0.5
#: 2**60 seconds is past every maximum; a float power beyond 1023 would overflow.
_MAX_DOUBLINGS = 60

#: Labels and annotations.
Common = tuple[Mapping[str, str], Mapping[str, str]]

_EPOCH = datetime(1970, 1, 1)  # UTC, and written without saying so
#: 9999-12-31T23:59:59Z: the last second a datetime holds.
_LAST_SECOND = 253402300799.0


class AlertFacts(msgspec.Struct, frozen=True, array_like=True):
    """One alert of a notification. Times are seconds since the epoch; `ends_at` 0 means that it has no end."""

    labels: dict[str, str]
    annotations: dict[str, str]
    generator_url: str
    starts_at: float
    ends_at: float
    last_seen_at: float
    firing: bool


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """The content of a notification: the incident as it was when the notification was due. Plain data: the same facts
    make the same message.

    `reason` is why it is sent ("opened", "resolved" ...). `alerts` are the ones to show, bounded, in the order to show them:
    firing ones first, the oldest first, then those that ended, the newest first; `total` counts all. The common labels and
    annotations are those that all alerts share, also those not shown. `resolved_at` is 0 while it goes on.
    """

    reason: str
    incident_id: bytes
    tenant: str
    service: str
    title: str
    description: str
    severity: Severity
    type: IncidentType
    state: IncidentState
    created_at: float
    resolved_at: float
    group_labels: dict[str, str]
    common_labels: Mapping[str, str]
    common_annotations: Mapping[str, str]
    alerts: list[AlertFacts]
    total: int
    #: The receiver, and what it called what it made when it was told before ("" if it said nothing, or was not told).
    receiver: str = ""
    ref: str = ""
    #: Alerts that joined since the receiver was told last; they are among those shown.
    new: int = 0
    #: Whom it is for, in the receiver's own terms (an address, a channel); "": whatever the receiver is set to.
    to: str = ""
    #: What probably caused it, or what it caused, in a line; "" where that is not known.
    cause: str = ""

    @property
    def is_over(self) -> bool:
        """By the reason, not the state: requested again after a crash, it must still say what counts as sent."""
        return self.reason == RESOLVED


class Note(msgspec.Struct, frozen=True, array_like=True):
    """What a playbook or a person wants said at a receiver, beside the notifications of an incident. `channel` and `mention` are in the
    receiver's own terms ("#incidents", "@oncall"), "" for its default. `incident_id` is b"" when it is about none. `resolves`: what was
    opened at the receiver for the incident is over."""

    text: str
    title: str = ""
    severity: Severity = Severity.P2
    channel: str = ""
    mention: str = ""
    incident_id: bytes = b""
    resolves: bool = False
    is_test: bool = False


def facts_of(
    incident: Incident,
    alerts: Sequence[AlertView],
    *,
    reason: str,
    max_alerts: int,
    total: int | None = None,
    common: Common | None = None,
) -> Facts:
    """The facts of one notification. At most `max_alerts` of `alerts` are kept, of `total` that the incident has (None: those
    given). `common` is what all alerts of the incident share (None: what those given do)."""
    labels, annotations = common or common_of((alert.labels, alert.annotations) for alert in alerts)
    shown = sorted(alerts, key=_place)[:max_alerts]
    return Facts(
        reason=reason,
        incident_id=incident.id,
        tenant=incident.tenant,
        service=incident.service,
        title=incident.title,
        description=incident.description,
        severity=incident.severity,
        type=incident.type,
        state=incident.state,
        created_at=incident.created_at,
        resolved_at=incident.resolved_at,
        group_labels=incident.present_group_labels,
        common_labels=labels,
        common_annotations=annotations,
        alerts=[
            AlertFacts(
                alert.labels,
                alert.annotations,
                alert.generator_url,
                alert.starts_at,
                alert.ends_at,
                alert.last_seen_at,
                alert.firing,
            )
            for alert in shown
        ],
        total=max(len(alerts), total or 0),
    )


def idempotency_key(incident_id: bytes, number: int, attempt: int, receiver: str = WEBHOOK) -> str:
    """The key of one attempt at one notification: `<incident uuid>-<receiver>-<number>-<attempt>`; the receiver `webhook` has
    no part of its own, as before there were others. Requested again after a crash, the same attempt has the same key. To process each notification once, a receiver compares everything before the last
    dash.
    """
    whose = "" if receiver == WEBHOOK else f"{receiver}-"
    return f"{UUID(bytes=incident_id)}-{whose}{number}-{attempt}"


def retry_at(
    attempt: int, now: float, first_s: float, max_s: float, key: str, *, at_least_s: float = 0.0
) -> float:
    """When to try again after `attempt` tries have failed (1: the first one has).

    Exponential: first_s, doubled each time, at most max_s, of which a share between a half and all is waited.
    The share comes from `key`, so replay gives the same time and a thousand notifications do not come back together.
    `at_least_s` is what the receiver asked for (Retry-After); it may exceed max_s.
    """
    backoff = min(max_s, first_s * 2.0 ** min(max(attempt - 1, 0), _MAX_DOUBLINGS))
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    share = _JITTER_FROM + (1.0 - _JITTER_FROM) * int.from_bytes(digest, "big") / 2**64
    return now + max(backoff * share, at_least_s)


def rfc3339(at: float) -> str:
    """Seconds since the epoch as Go writes a UTC time: no trailing zeros in the fraction. 0 and less is NO_TIME."""
    if not 0.0 < at <= _LAST_SECOND:
        return NO_TIME
    # A float of today's seconds holds a quarter of a microsecond; milliseconds are what senders and Alertmanager use.
    text = (_EPOCH + timedelta(milliseconds=round(at * 1000))).isoformat(timespec="milliseconds")
    return text.rstrip("0").rstrip(".") + "Z"


def _place(alert: AlertView) -> tuple[bool, float, list[tuple[str, str]]]:
    """Its place among the alerts that are shown."""
    at = alert.starts_at if alert.firing else -(alert.ends_at or alert.last_seen_at)
    return not alert.firing, at, sorted(alert.labels.items())


def common_of(alerts: Iterable[Common]) -> Common:
    """The labels and annotations that all of these alerts have."""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] = {}
    for more, notes in alerts:
        if labels is None:
            labels, annotations = more, notes
            continue
        # A map is made anew only when it shrinks: after a few alerts none does.
        if not labels.items() <= more.items():
            labels = dict(labels.items() & more.items())
        if not annotations.items() <= notes.items():
            annotations = dict(annotations.items() & notes.items())
    return labels or {}, annotations
