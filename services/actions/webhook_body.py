"""The body of action webhook: Alertmanager's, version "4" (notify/webhook and template.Data), so that whatever takes
Alertmanager's takes ours, plus one field of our own, `incident`. Used by services/actions/webhook.py."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import msgspec

from models.alerts.alert import PLAIN_NAME, fingerprint
from models.incidents.notification import FIRING, NO_TIME, RESOLVED, AlertFacts, Facts, Note, rfc3339


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
    to: str = ""
    probable_cause: str = ""


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


class _Note(msgspec.Struct, frozen=True):
    receiver: str
    status: str
    alerts: list[_Alert]
    groupLabels: dict[str, str]
    commonLabels: dict[str, str]
    commonAnnotations: dict[str, str]
    externalURL: str
    version: str
    groupKey: str
    truncatedAlerts: int


#: Maps are written in key order, as Go writes them: the same notification has the same bytes.
_encoder = msgspec.json.Encoder(order="deterministic")


def webhook_body(facts: Facts, *, external_url: str = "", receiver: str = "webhook") -> bytes:
    """JSON of one notification. The same facts give the same bytes. `status` is "resolved" when the reason is, else "firing";
    `truncatedAlerts` counts the alerts that are not shown.

    With status "resolved" every alert is resolved: receivers go by the alerts, and after a person resolved it no
    further notification follows for those that keep firing. They end when the incident did.
    """
    base = external_url.rstrip("/")
    identity = str(UUID(bytes=facts.incident_id))
    return _encoder.encode(
        _Body(
            receiver=receiver,
            status=RESOLVED if facts.is_over else FIRING,
            alerts=[_alert(alert, facts.is_over, facts.resolved_at) for alert in facts.alerts],
            groupLabels=facts.group_labels,
            commonLabels=facts.common_labels,
            commonAnnotations=facts.common_annotations,
            externalURL=external_url,
            version="4",
            groupKey=group_key(facts.group_labels),
            truncatedAlerts=facts.total - len(facts.alerts),
            incident=_Incident(
                id=identity,
                severity=facts.severity.name,
                incident_type=facts.type.value,
                state=facts.state.value,
                title=facts.title,
                service=facts.service,
                reason=facts.reason,
                url=f"{base}/v1/incidents/{identity}" if base else None,
                to=facts.to,
                probable_cause=facts.cause,
            ),
        )
    )


def note_body(note: Note, *, receiver: str = "webhook") -> bytes:
    """JSON of a note: Alertmanager's body with one alert, named as the note is."""
    labels = {"alertname": note.title or "Note", "severity": note.severity.name}
    annotations = {"summary": note.text}
    status = RESOLVED if note.resolves else FIRING
    alert = _Alert(status, labels, annotations, NO_TIME, NO_TIME, "", fingerprint(labels))
    return _encoder.encode(
        _Note(receiver, status, [alert], labels, labels, annotations, "", "4", group_key(labels), 0)
    )


def group_key(group_labels: Mapping[str, str]) -> str:
    """Alertmanager's groupKey of the root route: `{}:{alertname="X", service="y"}`."""
    pairs = [
        f"{name if PLAIN_NAME.match(name) else _quoted(name)}={_quoted(group_labels[name])}"
        for name in sorted(group_labels)
    ]
    return "{}:{" + ", ".join(pairs) + "}"


def _alert(alert: AlertFacts, is_over: bool, over_at: float) -> _Alert:
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
