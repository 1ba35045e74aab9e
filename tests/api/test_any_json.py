"""POST /v1/events takes a body without a name for what it is, and an operator's mappings make alerts of any JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.settings.all import Settings
from services.ingest.formats.mapped import wrong_mappings
from services.settings.refusals import refusals
from tests.api.gateway_in_process import system
from tests.format_cases import WEBHOOKS, samples

GRAYLOG = {
    "name": "graylog",
    "when": "check_result && stream",
    "alertname": "check_result.triggered_condition.type",
    "service": "stream.title",
    "title": "check_result.result_description",
    "severity": "'P2'",
    "status": "check_result.triggered",
    "starts_at": "check_result.triggered_at",
    "labels": {"stream_id": "stream.id"},
    "annotations": {"messages": "check_result.matching_messages[].message"},
}
CHECKS = {
    "name": "checks",
    "each": "checks[?state]",
    "alertname": "name",
    "service": "app",
    "status": "state",
}


def graylog(triggered: bool) -> dict[str, Any]:
    return {
        "check_result": {
            "result_description": "Stream had 2 messages in the last minute",
            "triggered_condition": {"type": "MESSAGE_COUNT"},
            "triggered_at": "2026-01-31T12:00:00.749Z",
            "triggered": triggered,
            "matching_messages": [{"message": "WARN"}, {"message": "ERROR"}],
        },
        "stream": {"title": "guardrails", "id": "55f1"},
    }


@pytest.mark.asyncio
async def test_a_body_without_a_name_is_read_as_what_it_is_and_the_answer_says_as_what() -> None:
    async with system() as ours:
        for name in WEBHOOKS:
            case = samples(name)["cases"][0]
            answer = await ours.post(
                "/v1/events",
                case["body"],
                content_type=case.get("content_type", "application/json"),
                headers=case.get("headers", {}),
            )

            assert (answer.status, answer.json["format"]) == (202, name), answer.body
            assert len(answer.items) >= len(case["firing"])
        ours_own = await ours.post("/v1/events", [{"labels": {"alertname": "Down", "service": "api"}}])
        assert ours_own.json["format"] == "v1"


@pytest.mark.asyncio
async def test_what_is_opened_without_a_name_is_ended_by_it_too() -> None:
    opens, _worse, _acknowledges, _another, ends = samples("pagerduty")["cases"]
    async with system() as ours:
        await ours.post("/v1/events", opens["body"])
        assert len(await ours.alerts()) == 1

        await ours.post("/v1/events", ends["body"])

        assert not await ours.alerts()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "near"),
    [
        ({"alert_id": "1", "alert_transiton": "Triggered", "tags": "a:b"}, "'datadog'"),
        ({"monitor": {"name": "x"}, "hartbeat": {"status": 0}}, "'uptime-kuma'"),
        ({"resourceSpans": []}, "'otlp-logs'"),
        ({"something": "else"}, "'v1'"),
        ([1, 2], "'v1'"),
        ("text", "'v1'"),
    ],
)
async def test_what_nothing_recognises_is_refused_with_the_nearest_format(body: object, near: str) -> None:
    async with system() as ours:
        answer = await ours.post("/v1/events", body)

        assert answer.status == 400
        detail = answer.json["detail"]
        assert (
            detail.startswith("not recognised: its fields are ") and f"The nearest format is {near}" in detail
        )
        [letter] = await ours.letters()
        assert letter.door == "events"  # type: ignore[attr-defined]


@pytest.mark.asyncio
async def test_a_mapping_makes_alerts_of_any_json_by_its_name_and_by_its_shape() -> None:
    async with system(formats={"mappings": [GRAYLOG, CHECKS]}) as ours:
        by_shape = await ours.post("/v1/events", graylog(True))
        [alert] = await ours.alerts()
        assert by_shape.json["format"] == "mapped"
        assert alert["labels"] == {"alertname": "MESSAGE_COUNT", "service": "guardrails", "stream_id": "55f1"}
        assert alert["annotations"] == {
            "summary": "Stream had 2 messages in the last minute",
            "severity": "P2",
            "sender_severity": "P2",
            "messages": "WARN, ERROR",
        }
        assert alert["startsAt"] == "2026-01-31T12:00:00.749Z"

        ended = await ours.post("/v1/events/mapped/graylog", graylog(False))
        assert ended.status == 202 and not await ours.alerts()

        several = {
            "checks": [
                {"name": "a", "app": "x", "state": "bad"},
                {"name": "b", "state": "bad"},
                {"name": "c"},
            ]
        }
        some = await ours.post("/v1/events/mapped/checks", several)
        assert [item.get("error") for item in some.items] == [
            None,
            "formats.mappings.checks.service: expected it to find a string, it finds nothing",
        ]
        unknown = await ours.post("/v1/events/mapped/nothing", several)
        assert unknown.status == 400 and b"in the settings: graylog, checks" in unknown.body
        shapeless = await ours.post("/v1/events/mapped/checks", {"checks": 7})
        assert shapeless.status == 400


def test_expressions_that_are_none_and_names_that_are_there_twice_are_told_before_the_start() -> None:
    given = Settings.model_validate(
        {"formats": {"mappings": [{**CHECKS, "service": "a.["}, {**CHECKS, "labels": {"x": "a b"}}]}}
    )

    wrong = wrong_mappings(given.formats.mappings)

    assert [line.partition(":")[0] for line in wrong] == [
        "formats.mappings.checks.service",
        "formats.mappings",
        "formats.mappings.checks.labels.x",
    ]
    assert all(line in refusals(given) for line in wrong)


@pytest.mark.asyncio
async def test_an_operators_table_of_severities_goes_before_the_formats_own() -> None:
    tables = {"datadog": {"P2": "P0"}, "alertmanager-webhook": {"critical": "P3"}}
    async with system(formats={"severities": tables}) as ours:
        for name in tables:
            await ours.post(WEBHOOKS[name].path, samples(name)["cases"][0]["body"])

        found = {str(each["annotations"].get("severity")) for each in await ours.alerts()}
        assert found == {"P0", "P3"}


@pytest.mark.asyncio
async def test_the_severity_of_an_incident_rises_with_what_its_sender_says_of_the_alert() -> None:
    warns, is_critical = samples("checkmk")["cases"][:2]
    async with system() as ours:

        async def severity(wanted: str) -> str:
            for _ in range(400):
                [incident] = (await ours.get("/v1/incidents")).json["items"]
                if incident["severity"] == wanted:
                    break
                await asyncio.sleep(0.01)
            return str(incident["severity"])

        await ours.post(WEBHOOKS["checkmk"].path, warns["body"])
        assert await severity("P2") == "P2"

        await ours.post(WEBHOOKS["checkmk"].path, is_critical["body"])

        assert await severity("P1") == "P1"
        assert len(await ours.alerts()) == 1
