"""What one sender can make the system hold: bounded, told as 429 or 503, and no harm to the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.shard import IncidentShard
from tests.api.gateway_in_process import Reply, System, system
from tests.api.test_guard import call, create

MIB = 1024 * 1024
#: The shard of the service "db" is full at 4 MiB, a sender's share of it is 3.
SMALL: dict[str, Any] = {"lifecycle": {"max_shard_bytes": 4 * MIB, "max_sender_share": 0.75}}


def fat(request: int, alerts: int = 60) -> list[dict[str, object]]:
    """A packed request of 2 kB: alerts of 15 labels of 16,000 bytes each."""
    return [
        {
            "labels": {
                "alertname": f"Fat{request}-{number}",
                "service": "db",
                **{f"l{each}": "x" * 16_000 for each in range(15)},
            }
        }
        for number in range(alerts)
    ]


async def post(ours: System, path: str, secret: str | None, alerts: object) -> Reply:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return await ours.post(path, alerts, headers=headers)


def held(ours: System) -> int:
    return max(
        actor.shard.state.series.room.held
        for actor in map(ours.cluster.get, ours.shards)
        if isinstance(actor, IncidentShard)
    )


@pytest.mark.asyncio
async def test_one_token_fills_its_share_and_harms_nobody() -> None:
    async with system(**SMALL) as ours:
        admin = (await create(ours, "admin", "admin"))["token"]
        greedy = (await create(ours, "greedy", "ingest:*", by=admin))["token"]
        other = (await create(ours, "other", "ingest:*", by=admin))["token"]
        answers = [await post(ours, "/v1/alerts", greedy, fat(number)) for number in range(3)]
        again = await post(ours, "/api/v2/alerts", greedy, fat(9, 1))
        fine = await post(ours, "/v1/alerts", other, {"labels": {"alertname": "Down", "service": "db"}})

        assert [each.status for each in answers] == [207, 429, 429]
        refused = json.loads(answers[1].body)["items"][0]
        assert refused["status"] == 429
        assert "lifecycle.max_sender_share" in refused["error"]
        assert "'greedy'" in refused["error"]
        assert (again.status, fine.status) == (429, 202)
        assert int(again.headers["retry-after"]) >= 60
        assert held(ours) <= 3.1 * MIB
        metrics = (await call(ours, "GET", "/metrics", admin)).body.decode()
        assert 'bound="sender"' in metrics
        assert "llm_im_shard_bytes" in metrics


@pytest.mark.asyncio
async def test_a_full_shard_says_503_and_goes_on_with_what_it_has() -> None:
    bounds: dict[str, Any] = {"lifecycle": {"max_shard_bytes": 4 * MIB, "max_sender_share": 1.0}}
    async with system(**bounds) as ours:
        fired = await post(ours, "/v1/alerts", None, {"labels": {"alertname": "Down", "service": "db"}})
        answers = [await post(ours, "/v1/alerts", None, fat(number)) for number in range(2)]
        repeated = await post(ours, "/v1/alerts", None, {"labels": {"alertname": "Down", "service": "db"}})
        elsewhere = await post(ours, "/v1/alerts", None, {"labels": {"alertname": "Down", "service": "api"}})

        assert fired.status == 202
        # Without tokens all are one sender; here it may have all of the shard.
        assert answers[1].status == 503
        assert b"lifecycle.max_shard_bytes" in answers[1].body
        assert (repeated.status, elsewhere.status) == (202, 202)
        assert held(ours) <= 4 * MIB


@pytest.mark.asyncio
async def test_an_alert_that_is_too_large_as_a_whole_is_refused_by_name(ours: System) -> None:
    labels = {f"l{each}": "x" * 16_000 for each in range(15)}
    notes = {f"n{each}": "x" * 16_000 for each in range(15)}
    for path in ("/v1/alerts", "/api/v2/alerts"):
        answer = await post(ours, path, None, [{"labels": labels, "annotations": notes}])

        assert answer.status == 400
        assert b"lifecycle.max_alert_bytes" in answer.body
