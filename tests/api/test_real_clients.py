"""The clients that people already have, as PyPI ships them, pointed here by nothing but their base URL: Opsgenie's and PagerDuty's own,
and OASIS' TAXII client. They run in threads; the gateway listens on a real port.
"""

from __future__ import annotations

import asyncio
from typing import Any

import opsgenie_sdk
import pagerduty
import pytest
import taxii2client.v21 as taxii
from opsgenie_sdk.exceptions import ApiException, AuthenticationException, ConfigurationException

from tests.api.gateway_in_process import System, system
from tests.api.test_format_doors import token

ALIAS = "slow/answers ü"


async def firing(ours: System, key: str, secret: str) -> dict[str, dict[str, Any]]:
    """What fires, by a label."""
    given = [(b"authorization", f"Bearer {secret}".encode())]
    answer = await ours.request("GET", "/api/v2/alerts", [b""], given)
    assert answer.status == 200, answer
    return {each["labels"][key]: each for each in answer.json if key in each["labels"]}


def opsgenie(port: int, key: str) -> Any:
    config = opsgenie_sdk.Configuration()
    config.host, config.api_key["Authorization"] = f"http://127.0.0.1:{port}", key
    # Its own patience is half a minute.
    config.retry_enabled = False
    return opsgenie_sdk.AlertApi(opsgenie_sdk.ApiClient(configuration=config))


def created(**more: Any) -> Any:
    return opsgenie_sdk.CreateAlertPayload(
        message="Model gateway answers slowly",
        alias=ALIAS,
        description="p99 over 20 s",
        responders=[{"name": "llm", "type": "team"}],
        visible_to=[{"name": "all", "type": "team"}],
        actions=["restart"],
        tags=["llm", "eu"],
        details={"region": "eu-1", "service": "llm-gateway"},
        entity="gateway-3",
        priority="P2",
        **more,
    )


@pytest.mark.asyncio
async def test_opsgenies_client_creates_asks_and_closes() -> None:
    async with system() as ours:
        secret = await token(ours, "ingest:opsgenie", "read")
        api = opsgenie(await ours.listen(), secret)
        made = await asyncio.to_thread(api.create_alert, created())
        asked = await asyncio.to_thread(api.get_request_status, made.request_id)
        fired = await firing(ours, "alias", secret)

        assert made.result == "Request will be processed"
        assert (asked.data.is_success, asked.data.action) == (True, "Create")
        one = fired[ALIAS]
        assert one["labels"]["service"] == "llm-gateway"
        assert one["annotations"]["summary"] == "Model gateway answers slowly"
        assert (one["annotations"]["severity"], one["annotations"]["region"]) == ("P1", "eu-1")

        again = await asyncio.to_thread(api.create_alert, created(note="still"))
        assert again.request_id == made.request_id
        assert len(await firing(ours, "alertname", secret)) == 1

        why = opsgenie_sdk.CloseAlertPayload(user="ci", note="done", source="sdk")
        gone = await asyncio.to_thread(
            api.close_alert, ALIAS, identifier_type="alias", close_alert_payload=why
        )
        asked = await asyncio.to_thread(api.get_request_status, gone.request_id)

        assert (asked.data.action, asked.data.alert_id) == ("Close", one["labels"]["alert_id"])
        assert not await firing(ours, "alertname", secret)


@pytest.mark.asyncio
async def test_opsgenies_client_does_what_leads_to_a_close_and_is_told_what_is_wrong() -> None:
    async with system() as ours:
        secret = await token(ours, "ingest:opsgenie", "read")
        port = await ours.listen()
        api = opsgenie(port, secret)
        made = await asyncio.to_thread(
            api.create_alert, opsgenie_sdk.CreateAlertPayload(message="a", entity="x")
        )
        asked = await asyncio.to_thread(api.get_request_status, made.request_id)
        assert await asyncio.to_thread(lambda: made.id) == asked.data.alert_id
        await asyncio.to_thread(api.close_alert, asked.data.alert_id)
        assert not await firing(ours, "alertname", secret)

        await asyncio.to_thread(api.create_alert, created())
        text = opsgenie_sdk.AddNoteToAlertPayload(note="looking")
        words = opsgenie_sdk.UpdateAlertMessagePayload(message="still slow")
        for step in (
            lambda: api.acknowledge_alert(ALIAS, identifier_type="alias"),
            lambda: api.add_note(ALIAS, add_note_to_alert_payload=text, identifier_type="alias"),
            lambda: api.update_alert_message(ALIAS, words, identifier_type="alias"),
        ):
            noted = await asyncio.to_thread(step)
            assert (await asyncio.to_thread(api.get_request_status, noted.request_id)).data.action == "Note"
        assert len(await firing(ours, "alertname", secret)) == 1
        await asyncio.to_thread(api.delete_alert, ALIAS, identifier_type="alias")
        assert not await firing(ours, "alertname", secret)

        with pytest.raises(AuthenticationException) as refused:
            await asyncio.to_thread(opsgenie(port, "no-key").create_alert, created())
        assert "not known here" in str(refused.value)


@pytest.mark.asyncio
async def test_opsgenies_client_reads_what_it_created() -> None:
    async with system() as ours:
        secret = await token(ours, "ingest:opsgenie", "read", "respond")
        port = await ours.listen()
        api = opsgenie(port, secret)
        for number, priority in enumerate(("P1", "P3", "P5")):
            await asyncio.to_thread(
                api.create_alert,
                opsgenie_sdk.CreateAlertPayload(
                    message=f"queue {number}", alias=f"q{number}", priority=priority
                ),
            )
        await asyncio.to_thread(api.create_alert, created())
        await asyncio.to_thread(api.create_alert, created())
        await asyncio.to_thread(api.close_alert, "q1", identifier_type="alias")

        one = (await asyncio.to_thread(api.get_alert, ALIAS, identifier_type="alias")).data
        assert (one.alias, one.message, one.description) == (
            ALIAS,
            "Model gateway answers slowly",
            "p99 over 20 s",
        )
        assert (one.status, one.priority, one.entity, one.count) == ("open", "P2", "gateway-3", 2)
        assert (one.tags, one.details) == (["llm", "eu"], {"region": "eu-1", "service": "llm-gateway"})
        by_id = (await asyncio.to_thread(api.get_alert, one.id)).data
        assert (by_id.alias, by_id.created_at) == (ALIAS, one.created_at)

        async def listed(query: str = "", **more: Any) -> list[str]:
            found = await asyncio.to_thread(api.list_alerts, query=query, sort="alias", **more)
            return [each.alias for each in found.data]

        assert await listed(order="asc") == ["q0", "q1", "q2", ALIAS]
        assert await listed(order="asc", limit=2, offset=1) == ["q1", "q2"]
        assert await listed("status:open AND NOT tag:eu", order="asc") == ["q0", "q2"]
        assert await listed("status: closed") == ["q1"]
        assert await listed("(priority = P1 OR tag:EU) message:*") == [ALIAS, "q0"]
        counted = await asyncio.to_thread(api.count_alerts, query="status:open")
        assert counted.data.count == 3

        given = [(b"authorization", f"Bearer {secret}".encode())]
        where = (await ours.request("GET", "/v1/alerts?match=alias%3D%22q0%22", [b""], given)).items[0]
        path = f"/v1/incidents/{where['incident_id']}/acknowledge"
        await ours.post(path, {}, headers={"Authorization": f"Bearer {secret}"})
        # It is their incident that is acknowledged.
        assert await listed("acknowledged:true status:open") == ["q2", "q0"]
        seen = (await asyncio.to_thread(api.get_alert, "q0", identifier_type="alias")).data
        assert (seen.acknowledged, seen.report.acknowledged_by) == (True, "sender")

        with pytest.raises(ApiException) as missing:
            await asyncio.to_thread(api.get_alert, "nothing", identifier_type="alias")
        assert missing.value.status == 404 and "no alert with the alias" in str(missing.value)
        for step, words in (
            (lambda: api.list_alerts(query="teams:llm"), "supported are acknowledged"),
            (lambda: api.list_alerts(search_identifier="mine"), "saved searches are not supported"),
            (lambda: api.get_alert("7", identifier_type="tiny"), "expected id or alias"),
            (lambda: api.list_alerts(sort="tinyId"), "supported are createdAt"),
        ):
            with pytest.raises(ConfigurationException) as wrong:
                await asyncio.to_thread(step)
            assert wrong.value.status == 422 and words in str(wrong.value)
        with pytest.raises(ApiException) as unknown:
            await asyncio.to_thread(api.list_logs, ALIAS, identifier_type="alias")
        assert unknown.value.status == 404 and "supported are GET /v2/alerts" in str(unknown.value)


def pagerduty_client(port: int, key: str) -> pagerduty.EventsApiV2Client:
    client = pagerduty.EventsApiV2Client(key)
    # Its setter insists on https.
    client._url = f"http://127.0.0.1:{port}"
    client.retry.clear()
    return client


@pytest.mark.asyncio
async def test_pagerdutys_client_triggers_acknowledges_and_resolves() -> None:
    async with system() as ours:
        secret = await token(ours, "ingest:pagerduty", "read")
        client = pagerduty_client(await ours.listen(), secret)

        def trigger(key: str | None) -> str:
            return client.trigger(
                "The model answers nothing",
                "llm-gateway-3",
                dedup_key=key,
                severity="critical",
                payload={"component": "llm-gateway", "group": "prod", "class": "outage"},
                custom_details={"queue": 7, "nested": {"a": [1, 2]}},
                images=[{"src": "https://example.com/a.png"}],
                links=[{"href": "https://example.com", "text": "runbook"}],
            )

        assert await asyncio.to_thread(trigger, "gw/3") == "gw/3"
        assert await asyncio.to_thread(trigger, "gw/3") == "gw/3"
        made_up = await asyncio.to_thread(trigger, None)
        fired = await firing(ours, "dedup_key", secret)

        assert set(fired) == {"gw/3", made_up}
        one = fired["gw/3"]
        assert (one["labels"]["service"], one["annotations"]["severity"]) == ("llm-gateway", "P1")
        assert one["annotations"]["summary"] == "The model answers nothing"

        assert await asyncio.to_thread(client.acknowledge, "gw/3") == "gw/3"
        assert set(await firing(ours, "dedup_key", secret)) == {"gw/3", made_up}
        await asyncio.to_thread(client.resolve, "gw/3")
        await asyncio.to_thread(client.resolve, made_up)
        # Nothing of this name fires: not an error.
        await asyncio.to_thread(client.resolve, "never")
        assert not await firing(ours, "dedup_key", secret)


@pytest.mark.asyncio
async def test_pagerdutys_client_tells_of_a_change_and_is_told_what_is_wrong() -> None:
    async with system() as ours:
        secret = await token(ours, "ingest:pagerduty-change", "read")
        client = pagerduty_client(await ours.listen(), secret)
        links = [{"href": "https://example.com"}]
        # So it writes the time itself, where it can.
        at = "2026-01-31T12:00:00+00:00Z"
        await asyncio.to_thread(client.submit, "model 7 is out", "deployer", {"build": 12}, links, at)
        said = (await firing(ours, "dedup_key", secret)).popitem()[1]["annotations"]

        assert (said["summary"], said["severity"], said["build"]) == ("model 7 is out", "P4", "12")
        with pytest.raises(pagerduty.HttpError) as refused:
            await asyncio.to_thread(client.trigger, "x", "y")
        assert refused.value.response is not None and refused.value.response.status_code == 403
        with pytest.raises(pagerduty.HttpError) as wrong:
            await asyncio.to_thread(client.send_change_event, {"source": "a"})
        assert wrong.value.response is not None and wrong.value.response.status_code == 400
        assert "summary" in wrong.value.response.json()["errors"][0]


MARK = {
    "type": "indicator",
    "spec_version": "2.1",
    "id": "indicator--8e2e2d2b-17d4-4cbf-938f-98ee46b3cd3f",
    "created": "2026-04-06T20:03:48.000Z",
    "modified": "2026-04-06T20:03:48.000Z",
    "name": "A prompt that leaks the system prompt",
    "pattern": "[url:value = 'http://x4z9arb.cn/4712/']",
    "pattern_type": "stix",
    "valid_from": "2026-01-01T00:00:00Z",
}
CONTEXT = {
    "type": "identity",
    "spec_version": "2.1",
    "id": "identity--023d105b-752e-4e3c-941c-7d3f3cb15e9e",
    "created": "2026-04-06T20:03:00.000Z",
    "modified": "2026-04-06T20:03:00.000Z",
    "name": "John Smith",
    "identity_class": "individual",
}


@pytest.mark.asyncio
async def test_a_taxii_client_finds_the_inbox_and_adds_to_it() -> None:
    async with system() as ours:
        port = await ours.listen()
        secret = await token(ours, "ingest:taxii", "read")

        def add() -> tuple[Any, ...]:
            server = taxii.Server(f"http://127.0.0.1:{port}/taxii2/", user="llm", password=secret)
            root = server.default or server.api_roots[0]
            (collection,) = root.collections
            status = collection.add_objects({"objects": [MARK, CONTEXT]}, wait_for_completion=False)
            status.wait_until_final(0.01)
            return server.title, root.versions, collection.can_write, collection.can_read, status

        title, versions, can_write, can_read, status = await asyncio.to_thread(add)

        assert (title, can_write, can_read) == ("LLM-Incident-Manager", True, False)
        assert "application/taxii+json;version=2.1" in versions
        assert (status.status, status.total_count, status.success_count) == ("complete", 2, 2)
        one = (await firing(ours, "stix_id", secret))[MARK["id"]]
        assert MARK["name"] in one["annotations"]["summary"]


@pytest.mark.asyncio
async def test_a_taxii_client_reads_the_status_again_and_learns_what_failed() -> None:
    async with system() as ours:
        port = await ours.listen()
        secret = await token(ours, "ingest:taxii", "read")
        wrong = {**MARK, "id": "indicator--8e2e2d2b-17d4-4cbf-938f-98ee46b3cd40", "created": "yesterday"}

        def add() -> Any:
            root = taxii.ApiRoot(f"http://127.0.0.1:{port}/taxii2/llm-im/", user="llm", password=secret)
            (collection,) = root.collections
            made = collection.add_objects({"objects": [MARK, wrong]}, wait_for_completion=False)
            return made, root.get_status(made.id)

        made, again = await asyncio.to_thread(add)

        for status in (made, again):
            assert (status.id, status.status) == (made.id, "complete")
            assert (status.total_count, status.success_count, status.failure_count) == (2, 1, 1)
        assert made.failures[0]["id"] == wrong["id"]
        assert "created" in made.failures[0]["message"]


@pytest.mark.asyncio
@pytest.mark.parametrize("status_id", ["x", "2d92039d-a118-4ecc-a54c-067656e36f23"])
async def test_a_status_that_nobody_gave_is_not_found(status_id: str) -> None:
    async with system() as ours:
        answer = await ours.get(f"/taxii2/llm-im/status/{status_id}/")

        assert answer.status == 404 and b"status id" in answer.body
