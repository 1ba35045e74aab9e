"""An end that says nothing but a key ends what its own format began under that key, and nothing else."""

from __future__ import annotations

import pytest

from models.errors import Malformed
from services.ingest.arrival import ANONYMOUS
from services.ingest.formats.open_alerts import OpenAlerts
from services.ingest.formats.zabbix import RECOVERIES_MAX
from tests.api.gateway_in_process import System, alert, system
from tests.api.test_format_doors import post
from tests.format_cases import raw, samples

pytestmark = pytest.mark.asyncio

RECOVERY = {"p_eventid": "", "eventid": "9", "clock": 1769864400, "value": 0}


async def test_a_recovery_of_no_event_ends_nothing(ours: System) -> None:
    """Nothing has the label event_id = "", but every alert without one matches it."""
    await ours.post("/v1/alerts", [alert("A"), alert("B", "db")])
    for empty in ("", " ", "\t"):
        answer = await post(ours, "zabbix", raw({**RECOVERY, "p_eventid": empty}))
        assert answer.status == 400 and b"p_eventid" in answer.body
        assert await ours.names() == {"A", "B"}
    with pytest.raises(Malformed, match="issue_id"):
        await OpenAlerts().look("sentry", {"issue_id": ""}, ANONYMOUS)


async def test_what_another_format_began_is_not_ended_by_a_label_of_that_name(ours: System) -> None:
    await ours.post(
        "/v1/alerts", [alert("A", event_id="7"), alert("B", issue_id="7"), alert("C", alert_id="7")]
    )

    ends = [
        await post(ours, "zabbix", raw({**RECOVERY, "p_eventid": "7"})),
        await ours.post("/v1/events/sentry", {"action": "resolved", "data": {"issue": {"id": "7"}}}),
        await ours.post("/v2/alerts/7/close", {}),
    ]

    assert [each.status for each in ends] == [202, 202, 202]
    assert await ours.names() == {"A", "B", "C"}


async def test_one_request_has_not_all_shards_searched_a_thousand_times(ours: System) -> None:
    many = [{**RECOVERY, "p_eventid": str(number)} for number in range(RECOVERIES_MAX + 1)]

    assert (await post(ours, "zabbix", raw(many))).status == 413
    assert (await post(ours, "zabbix", raw(many[:3] * 1000))).status == 202


async def test_a_bound_token_says_of_nobody_elses_alert_what_it_is_called() -> None:
    created = samples("opsgenie")["cases"][0]["body"]
    async with system() as ours:
        admin = (await ours.post("/v1/tokens", {"name": "admin", "scopes": ["admin"]})).json["token"]
        as_admin = {"Authorization": f"Bearer {admin}"}
        wanted = {"name": "bound", "scopes": ["ingest:opsgenie"], "match": ['service="toys"']}
        bound = (await ours.post("/v1/tokens", wanted, headers=as_admin)).json["token"]
        free = {"name": "free", "scopes": ["ingest:opsgenie"]}
        secret = (await ours.post("/v1/tokens", free, headers=as_admin)).json["token"]

        async def create(token: str, service: str) -> int:
            body = {**created, "alias": "shared", "details": {"service": service}}
            return (await post(ours, "opsgenie", raw(body), Authorization=f"GenieKey {token}")).status

        async def close(token: str) -> int:
            path = "/v2/alerts/shared/close?identifierType=alias"
            return (await ours.post(path, {}, headers={"Authorization": f"GenieKey {token}"})).status

        async def services() -> set[str]:
            found = await ours.request(
                "GET", "/api/v2/alerts", [b""], [(b"authorization", as_admin["Authorization"].encode())]
            )
            return {each["labels"]["service"] for each in found.json}

        assert await create(bound, "elsewhere") == 422
        assert await create(secret, "payments") == 202
        assert await create(bound, "toys") == 202
        assert await services() == {"payments", "toys"}
        await close(bound)
        assert await services() == {"payments"}
        assert await close(secret) == 202
        assert await services() == set()
