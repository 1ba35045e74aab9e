"""What the first response says, under which key, and when again. Pure."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.alerts.alert import fingerprint
from models.incidents.incident import Incident, IncidentState, IncidentType, Severity, incident_id
from models.incidents.notification import facts_of, idempotency_key, retry_at, rfc3339
from models.incidents.query import AlertView
from services.actions.webhook_body import group_key, webhook_body

ID = incident_id(7, 1_700_000_000.0, 1, 1, "key")


def an_incident(**values: object) -> Incident:
    base: dict[str, Any] = {
        "id": ID,
        "slot": 7,
        "tenant": "default",
        "service": "llm-api",
        "group_key": "key",
        "group_labels": {"service": "llm-api", "alertname": "Down"},
        "title": "LLM API is down",
        "description": "",
        "source": "prometheus",
        "labels": {},
        "annotations": {},
        "created_at": 1_700_000_000.0,
        "updated_at": 1_700_000_000.0,
        "severity": Severity.P1,
        "type": IncidentType.AVAILABILITY,
        "firing": 1,
    }
    return Incident(**{**base, **values})


def an_alert(
    instance: str, *, firing: bool = True, starts_at: float = 1_700_000_000.0, **values: object
) -> AlertView:
    base: dict[str, Any] = {
        "incident_id": ID,
        "labels": {"alertname": "Down", "service": "llm-api", "instance": instance},
        "annotations": {"summary": "LLM API is down", "note": instance},
        "generator_url": "http://prom/graph",
        "source": "prometheus",
        "starts_at": starts_at,
        "ends_at": 0.0 if firing else starts_at + 60.5,
        "last_seen_at": starts_at + 90,
        "firing": firing,
    }
    return AlertView(**{**base, **values})


def body(incident: Incident, alerts: list[AlertView], **values: object) -> dict[str, Any]:
    options: dict[str, Any] = {"reason": "opened", "max_alerts": 100, **values}
    external_url = options.pop("external_url", "")
    facts = facts_of(incident, alerts, **options)
    said: dict[str, Any] = json.loads(webhook_body(facts, external_url=external_url))
    return said


def test_the_body_has_every_field_of_alertmanagers_webhook_and_our_own() -> None:
    said = body(an_incident(), [an_alert("a")], external_url="https://im.example/")

    identity = str(UUID(bytes=ID))
    labels = {"alertname": "Down", "instance": "a", "service": "llm-api"}
    notes = {"note": "a", "summary": "LLM API is down"}
    assert said == {
        "receiver": "webhook",
        "status": "firing",
        "alerts": [
            {
                "status": "firing",
                "labels": labels,
                "annotations": notes,
                "startsAt": "2023-11-14T22:13:20Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prom/graph",
                "fingerprint": fingerprint(labels),
            }
        ],
        "groupLabels": {"alertname": "Down", "service": "llm-api"},
        "commonLabels": labels,
        "commonAnnotations": notes,
        "externalURL": "https://im.example/",
        "version": "4",
        "groupKey": '{}:{alertname="Down", service="llm-api"}',
        "truncatedAlerts": 0,
        "incident": {
            "id": identity,
            "severity": "P1",
            "incident_type": "Availability",
            "state": "Detected",
            "title": "LLM API is down",
            "service": "llm-api",
            "reason": "opened",
            "url": f"https://im.example/v1/incidents/{identity}",
        },
    }


def test_without_an_external_url_there_is_no_link() -> None:
    assert "url" not in body(an_incident(), [])["incident"]


def test_a_resolved_incident_says_when_its_alerts_ended() -> None:
    incident = an_incident(firing=0, state=IncidentState.RESOLVED)

    said = body(
        incident, [an_alert("a", firing=False), an_alert("b", firing=False, ends_at=0.0)], reason="resolved"
    )

    assert said["status"] == "resolved"
    assert [alert["status"] for alert in said["alerts"]] == ["resolved", "resolved"]
    assert [alert["endsAt"] for alert in said["alerts"]] == ["2023-11-14T22:14:50Z", "2023-11-14T22:14:20.5Z"]


def test_alerts_that_fire_on_when_a_person_said_that_it_is_over_are_told_as_ended_then() -> None:
    incident = an_incident(state=IncidentState.RESOLVED, resolved_at=1_700_000_300.0)

    said = body(incident, [an_alert("a"), an_alert("b", firing=False)], reason="resolved")

    assert said["status"] == "resolved"
    assert [(alert["status"], alert["endsAt"]) for alert in said["alerts"]] == [
        ("resolved", "2023-11-14T22:18:20Z"), ("resolved", "2023-11-14T22:14:20.5Z"),
    ]  # fmt: skip


def test_an_open_incident_without_firing_alerts_is_told_as_firing() -> None:
    assert body(an_incident(firing=0), [an_alert("a", firing=False)], reason="opened")["status"] == "firing"


def test_only_what_all_alerts_share_is_common() -> None:
    said = body(an_incident(), [an_alert("a"), an_alert("b")])

    assert said["commonLabels"] == {"alertname": "Down", "service": "llm-api"}
    assert said["commonAnnotations"] == {"summary": "LLM API is down"}


def test_firing_alerts_are_shown_first_and_the_rest_are_counted() -> None:
    alerts = [an_alert("ended", firing=False), an_alert("late", starts_at=1_700_000_100.0), an_alert("early")]

    said = body(an_incident(), alerts, max_alerts=2, total=50)

    assert [alert["labels"]["instance"] for alert in said["alerts"]] == ["early", "late"]
    assert said["truncatedAlerts"] == 48


def test_after_the_firing_alerts_come_those_that_ended_last() -> None:
    ended = [an_alert(f"ended-{at}", firing=False, starts_at=1_700_000_000.0 + at) for at in (1, 3, 2)]

    said = body(an_incident(), [*ended, an_alert("fires", starts_at=1_700_000_900.0)], max_alerts=3)

    assert [alert["labels"]["instance"] for alert in said["alerts"]] == ["fires", "ended-3", "ended-2"]


def test_what_is_common_is_common_to_all_alerts_and_not_only_to_those_shown() -> None:
    alerts = [an_alert("a"), an_alert("b"), an_alert("c", annotations={"summary": "other"})]

    said = body(an_incident(), alerts, max_alerts=1)

    assert said["commonLabels"] == {"alertname": "Down", "service": "llm-api"}
    assert said["commonAnnotations"] == {}


def test_an_incident_without_alerts_still_has_a_body() -> None:
    said = body(an_incident(), [])

    assert (said["alerts"], said["commonLabels"], said["truncatedAlerts"]) == ([], {}, 0)
    assert said["status"] == "firing"


def test_the_same_notification_has_the_same_bytes() -> None:
    one = webhook_body(facts_of(an_incident(), [an_alert("a"), an_alert("b")], reason="opened", max_alerts=9))
    two = webhook_body(facts_of(an_incident(), [an_alert("b"), an_alert("a")], reason="opened", max_alerts=9))

    assert one == two


def test_a_group_key_is_quoted_as_go_quotes() -> None:
    assert group_key({"b": 'x"y\\z\n\x00é\u200b', "a": "1"}) == '{}:{a="1", b="x\\"y\\\\z\\n\\x00é\\u200b"}'


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "0001-01-01T00:00:00Z"),
        (-1.0, "0001-01-01T00:00:00Z"),
        (1_700_000_000.0, "2023-11-14T22:13:20Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.25Z"),
        (1_700_000_000.123, "2023-11-14T22:13:20.123Z"),
        (1e300, "0001-01-01T00:00:00Z"),
        (float("nan"), "0001-01-01T00:00:00Z"),
    ],
)
def test_times_are_written_as_go_writes_them(at: float, text: str) -> None:
    assert rfc3339(at) == text


def test_a_key_names_incident_notification_and_try() -> None:
    assert idempotency_key(ID, 3, 2) == f"{UUID(bytes=ID)}-3-2"


@given(st.integers(0, 10_000), st.floats(0.001, 1e4), st.floats(0.001, 1e5), st.text(max_size=40))
def test_a_retry_waits_between_half_and_all_of_a_bounded_backoff(
    attempt: int, first_s: float, max_s: float, key: str
) -> None:
    wait_s = retry_at(attempt, 0.0, first_s, max_s, key)

    full = min(max_s, first_s * 2.0 ** min(max(attempt - 1, 0), 60))
    assert full / 2 <= wait_s <= full
    assert wait_s == retry_at(attempt, 0.0, first_s, max_s, key)


def test_retries_double_until_the_longest_wait_and_differ_by_key() -> None:
    waits = [retry_at(attempt, 100.0, 1.0, 8.0, "k") - 100.0 for attempt in range(1, 7)]

    share = waits[0]
    assert waits == pytest.approx([share * factor for factor in (1, 2, 4, 8, 8, 8)])
    assert len({retry_at(1, 0.0, 1.0, 8.0, f"k{n}") for n in range(100)}) == 100


def test_a_receiver_that_asks_to_be_left_alone_is() -> None:
    assert retry_at(1, 0.0, 1.0, 8.0, "k", at_least_s=120.0) == 120.0
