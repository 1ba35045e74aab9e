"""What the first response says and when it says it again: the body, key and retry time of effect Act.

Called by the shard when it emits Act and when an ActionOutcome comes back. The body is Alertmanager's webhook,
version "4" (notify/webhook and template.Data), so that whatever takes Alertmanager's takes ours, plus one field
of our own, `incident`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from models.alerts.alert import PLAIN_NAME, fingerprint
from models.incidents.incident import Incident
from models.incidents.query import AlertView

#: The two states that a notice speaks of, and the reason that says the second.
FIRING, RESOLVED = "firing", "resolved"
#: Go's zero time: how Alertmanager writes "has no end yet".
NO_TIME = "0001-01-01T00:00:00Z"

#: A wait is never shorter than this share of the backoff: the rest is jitter, so that a receiver that comes
#: back is not met by all notices at once, and none comes back at once.
_JITTER_FROM = 0.5
#: 2**60 seconds is past every maximum; a float power beyond 1023 would overflow.
_MAX_DOUBLINGS = 60

#: Labels and annotations.
Common = tuple[Mapping[str, str], Mapping[str, str]]

_EPOCH = datetime(1970, 1, 1)  # UTC, and written without saying so
#: 9999-12-31T23:59:59Z: the last second a datetime holds.
_LAST_SECOND = 253402300799.0


class _Alert(msgspec.Struct, frozen=True):
    status: str
    labels: dict[str, str]
    annotations: dict[str, str]
    startsAt: str
    endsAt: str
    generatorURL: str
    fingerprint: str


class _Incident(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    severity: str
    incident_type: str
    state: str
    title: str
    service: str
    reason: str
    url: str | None = None


class _Body(msgspec.Struct, frozen=True):
    receiver: str
    status: str
    alerts: list[_Alert]
    groupLabels: dict[str, str]
    commonLabels: Mapping[str, str]
    commonAnnotations: Mapping[str, str]
    externalURL: str
    version: str
    groupKey: str
    truncatedAlerts: int
    incident: _Incident


#: Maps are written in key order, as Go writes them: the same notice has the same bytes.
_encoder = msgspec.json.Encoder(order="deterministic")


def webhook_body(
    incident: Incident,
    alerts: Sequence[AlertView],
    *,
    reason: str,
    max_alerts: int,
    external_url: str = "",
    receiver: str = "webhook",
    total: int | None = None,
    common: Common | None = None,
) -> bytes:
    """JSON of one notice. The same arguments give the same bytes.

    Firing alerts come first, the oldest first, then those that ended, the newest first; at most `max_alerts` are shown and
    `truncatedAlerts` counts the rest of `total` (all alerts of the incident; None: those given). `common` is what all
    alerts of the incident share (None: what those given do). `status` is "resolved" when the reason is, else "firing".

    With status "resolved" every alert is resolved: receivers go by the alerts, and when a person says that it is over, no
    other word follows of those that fire on. They end when the incident did.
    """
    shown = sorted(alerts, key=_place)[:max_alerts]
    count = max(len(alerts), total or 0)
    labels, annotations = common or common_of((alert.labels, alert.annotations) for alert in alerts)
    is_over = reason == RESOLVED
    base = external_url.rstrip("/")
    identity = str(UUID(bytes=incident.id))
    return _encoder.encode(
        _Body(
            receiver=receiver,
            # By the reason and not by the state: asked for again after a crash, it still says what is counted as told.
            status=RESOLVED if is_over else FIRING,
            alerts=[_alert(alert, is_over, incident.resolved_at) for alert in shown],
            groupLabels=incident.present_group_labels,
            commonLabels=labels,
            commonAnnotations=annotations,
            externalURL=external_url,
            version="4",
            groupKey=group_key(incident.present_group_labels),
            truncatedAlerts=count - len(shown),
            incident=_Incident(
                id=identity,
                severity=incident.severity.name,
                incident_type=incident.type.value,
                state=incident.state.value,
                title=incident.title,
                service=incident.service,
                reason=reason,
                url=f"{base}/v1/incidents/{identity}" if base else None,
            ),
        )
    )


def group_key(group_labels: Mapping[str, str]) -> str:
    """Alertmanager's groupKey of the root route: `{}:{alertname="X", service="y"}`."""
    pairs = [
        f"{name if PLAIN_NAME.match(name) else _quoted(name)}={_quoted(group_labels[name])}"
        for name in sorted(group_labels)
    ]
    return "{}:{" + ", ".join(pairs) + "}"


def idempotency_key(incident_id: bytes, number: int, attempt: int) -> str:
    """The key of one try of one notice: `<incident uuid>-<number>-<attempt>`.

    Asked again after a crash, the same try has the same key. A receiver that wants each notice once, however
    often it is tried, compares what stands before the last dash.
    """
    return f"{UUID(bytes=incident_id)}-{number}-{attempt}"


def retry_at(
    attempt: int, now: float, first_s: float, max_s: float, key: str, *, at_least_s: float = 0.0
) -> float:
    """When to try again after `attempt` tries have failed (1: the first one has).

    Exponential: first_s, doubled each time, at most max_s, of which a share between a half and all is waited.
    The share comes from `key`, so replay gives the same time and a thousand notices do not come back together.
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


def _alert(alert: AlertView, is_over: bool, over_at: float) -> _Alert:
    """`is_over`: whether the incident is, since `over_at` (0: it goes on again)."""
    fires = alert.firing and not is_over
    ended_at = alert.ends_at or alert.last_seen_at
    if alert.firing:
        # Its start is its sender's: a clock ahead of ours must not make it end before it began.
        ended_at = max(over_at or alert.last_seen_at, alert.starts_at)
    return _Alert(
        status=FIRING if fires else RESOLVED,
        labels=alert.labels,
        annotations=alert.annotations,
        startsAt=rfc3339(alert.starts_at),
        endsAt=NO_TIME if fires else rfc3339(ended_at),
        generatorURL=alert.generator_url,
        fingerprint=fingerprint(alert.labels),
    )


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


#: Go's strconv.Quote, for what occurs in label values: printable characters stay as they are.
_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


def _quoted(value: str) -> str:
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(c)) for c in value) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
