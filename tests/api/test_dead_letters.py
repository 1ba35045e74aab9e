"""Dead letters are listed, shown, replayed and dropped over HTTP: what was mended is stored once, began when it came, and leaves them."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from models.errors import OutcomeUnknown
from models.ports import DeadLetter
from models.settings.all import Settings
from services.ingest import replay
from services.ingest.arrival import Sender
from services.ingest.dead_letters import DeadLetterBox
from services.ingest.formats.format import Request
from services.ingest.formats.reading import Fault
from services.stores.memory.dead_letters import MemoryDeadLetters
from tests.api.gateway_in_process import (
    Reply,
    SqliteStores,
    System,
    alert,
    another_gateway,
    system,
)
from tests.api.test_guard import call, create
from tests.format_cases import WEBHOOKS, samples

pytestmark = pytest.mark.asyncio

PATH = "/v1/dead-letters"
MAPPING = {"name": "probe", "each": "checks", "alertname": "title", "service": "app", "severity": "level"}
MENDED = {**MAPPING, "alertname": "name"}


def mapped(mapping: dict[str, str]) -> dict[str, Any]:
    return {"formats": {"mappings": [mapping]}}


async def mend(ours: System, **sections: Any) -> None:
    """Change settings while it runs."""
    wanted = Settings.model_validate({"state": {"partitions": 2}, **sections})
    await ours.gateway.change_settings(wanted, "ops")
    await ours.gateway.station.look()


async def listed(ours: System, query: str = "") -> list[dict[str, Any]]:
    answer = await ours.get(f"{PATH}{query}")
    assert answer.status == 200, answer.body
    return list(answer.json["items"])


async def replayed(ours: System, letter_id: int, **body: str) -> dict[str, Any]:
    answer = await ours.post(f"{PATH}/{letter_id}/replay", body)
    assert answer.status == 200, answer.body
    return dict(answer.json)


async def delete(ours: System, path: str) -> Reply:
    return await ours.request("DELETE", path, [b""], [])


def bury(ours: System, form: str, body: bytes, **how: Any) -> None:
    """A letter as a door makes it."""
    intake, found = ours.gateway.station.intake, ours.gateway.station.formats[form]
    request = Request(how.pop("path", found.path), body, ours.clock.now(), **how)
    intake.bury(found, request, [Fault(-1, "a bug that was mended", body)])


async def test_after_a_mapping_is_mended_its_letter_is_stored_began_when_it_came_and_is_gone() -> None:
    async with system(**mapped(MAPPING)) as ours:
        refused = await ours.post("/v1/events/mapped/probe", {"checks": [{"name": "Down", "app": "api"}]})
        await ours.letters()
        [letter] = await listed(ours)
        still_not = await replayed(ours, letter["id"])
        ours.clock.heard_s += 3600
        await mend(ours, **mapped(MENDED))

        stored = await replayed(ours, letter["id"])

        assert refused.status == 400
        assert letter["place"] == "item 0" and letter["sender"] == "anonymous" and letter["door"] == "mapped"
        assert "title" not in letter["reason"] and "alertname" in letter["reason"]
        assert (still_not["outcome"], still_not["reason"]) == ("refused", letter["reason"])
        assert stored == {
            "id": letter["id"], "outcome": "stored", "format": "mapped", "stored": 1, "reason": "",
        }  # fmt: skip
        [fires] = await ours.alerts()
        began = datetime.fromisoformat(fires["startsAt"]).timestamp()
        assert abs(began - datetime.fromisoformat(letter["received_at"]).timestamp()) < 0.01
        assert not await listed(ours)
        assert (await ours.post(f"{PATH}/{letter['id']}/replay", {})).status == 404


async def test_what_fails_again_stays_with_the_new_reason_and_is_no_second_letter() -> None:
    async with system(**mapped(MAPPING)) as ours:
        await ours.post("/v1/events/mapped/probe", {"checks": [{"name": "Down"}]})
        await ours.letters()
        [before] = await listed(ours)
        await mend(ours, **mapped(MENDED))

        done = await replayed(ours, before["id"])
        await replayed(ours, before["id"])

        await ours.gateway.station.intake.buried()
        [after] = await listed(ours)
        assert done["outcome"] == "refused" and "service" in done["reason"] != before["reason"]
        assert (after["reason"], after["replays"]) == (done["reason"], 2)
        assert before["tried_at"] is None and after["tried_at"] is not None


async def test_only_the_items_that_could_not_be_read_are_read_again() -> None:
    async with system(**mapped(MAPPING)) as ours:
        checks = [
            {"title": "Good", "app": "api"},
            {"name": "Bad", "app": "db"},
            {"title": "Fine", "app": "api"},
            {"name": "Worse"},
        ]
        await ours.post("/v1/events/mapped/probe", {"checks": checks})
        await ours.letters()
        [letter] = await listed(ours)
        assert letter["place"] == "items 1, 3" and letter["reason"].startswith("item 1: ")
        # Ended meanwhile: it must not begin again with its neighbours.
        await ours.post("/v1/alerts", {**alert("Good"), "status": "resolved"})
        await mend(ours, **mapped({**MAPPING, "alertname": "title || name"}))

        done = await replayed(ours, letter["id"])
        again = await replayed(ours, letter["id"])
        whole = (await ours.get(f"{PATH}/{letter['id']}")).json

        assert (done["outcome"], done["stored"], again["stored"]) == ("refused", 1, 0)
        assert whole["items"] == [3] and json.loads(whole["text"])["checks"] == checks
        assert await ours.names() == {"Bad", "Fine"}


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("/v1/alerts", alert("Good"), {"labels": {"alertname": "B", "service": "api"}, "status": "odd"}),
        ("/api/v2/alerts", alert("Good"), {"labels": {"alertname": "B"}, "startsAt": "yesterday"}),
    ],
)
async def test_an_item_of_a_list_has_a_letter_of_its_own_and_is_read_alone(
    path: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    async with system() as ours:
        await ours.post(path, [good, bad, {"labels": {}}])
        await ours.letters(2)
        first, second = sorted(await listed(ours), key=lambda each: int(each["id"]))

        done = [await replayed(ours, each["id"]) for each in (first, second)]

        # Nothing was mended: the same reasons, from the same bytes.
        assert [each["reason"] for each in done] == [first["reason"], second["reason"]]
        assert (first["place"], second["place"]) == ("item 1", "item 2")


async def test_an_item_of_an_alertmanagers_list_is_stored_once_it_may_be_that_large() -> None:
    large = {"labels": {"alertname": "Large", "service": "api"}, "annotations": {"a": "x" * 3000}}
    async with system(lifecycle={"max_alert_bytes": 2048}) as ours:
        bodies = {
            "/api/v2/alerts": [large],
            "/v1/events/alertmanager-webhook": {"version": "4", "groupKey": "x", "alerts": [large]},
        }
        for path, body in bodies.items():
            await ours.post(path, body)
        await ours.letters(2)
        assert not await ours.names()
        ours.gateway.station.shared.remembered.max_alert_bytes = 65_536

        answer = await ours.post(f"{PATH}/replay", {"reason": "BYTES"})

        assert answer.json["stored"] == 2 and answer.json["next"] is None, answer.json
        assert await ours.names() == {"Large"}


async def test_every_format_can_read_again_what_was_kept_of_its_requests() -> None:
    async with system() as ours:
        for name in WEBHOOKS:
            case = samples(name)["cases"][0]
            path, _, query = case.get("path", ours.gateway.station.formats[name].path).partition("?")
            headers = {
                each.lower().encode(): value.encode() for each, value in case.get("headers", {}).items()
            }
            body = case["body"] if isinstance(case["body"], str) else json.dumps(case["body"])
            bury(
                ours, name, body.encode(), path=path, query=query.encode(), headers=headers,
                content_type=case.get("content_type", "application/json"),
            )  # fmt: skip
        await ours.letters(len(WEBHOOKS))

        answer = await ours.post(f"{PATH}/replay", {"limit": 1000})

        assert answer.json["stored"] == len(WEBHOOKS), answer.json
        done = {each["format"]: each["stored"] for each in answer.json["items"]}
        assert all(done[name] >= len(samples(name)["cases"][0]["firing"]) for name in WEBHOOKS)


async def test_a_letter_can_be_read_as_another_format() -> None:
    async with system() as ours:
        await ours.post("/v1/events", {"labels": 7})
        body = json.dumps(alert("Down")).encode()
        bury(ours, "events", body, content_type="application/json")
        await ours.letters(2)
        wrong, right = sorted(await listed(ours), key=lambda each: int(each["id"]))

        unknown = await ours.post(f"{PATH}/{right['id']}/replay", {"format": "nobodys"})
        refused = await replayed(ours, wrong["id"], format="alertmanager")
        stored = await replayed(ours, right["id"], format="alertmanager")

        assert unknown.status == 400 and "expected one of" in unknown.json["detail"]
        assert refused["reason"].startswith("as alertmanager: ")
        assert (stored["outcome"], stored["format"]) == ("stored", "alertmanager")
        assert await ours.names() == {"Down"}


async def test_one_of_which_not_all_was_kept_is_refused_by_name() -> None:
    async with system(dead_letters={"max_payload_bytes": 64}) as ours:
        await ours.post("/v1/alerts", b"{" + b" " * 100)
        await ours.letters()
        [letter] = await listed(ours)

        done = await replayed(ours, letter["id"])

        assert letter["truncated"] and letter["size"] == 64
        assert done["outcome"] == "refused" and "max_payload_bytes" in done["reason"]
        assert len(await listed(ours)) == 1


async def test_two_who_replay_at_once_store_it_once(tmp_path: Path) -> None:
    async with system(SqliteStores(tmp_path)) as ours, another_gateway(ours) as other:
        body = json.dumps([alert(f"A{number}") for number in range(20)]).encode()
        for _ in range(3):
            bury(ours, "v1", body, content_type="application/json")
        await ours.letters(3)

        both = await asyncio.gather(*[each.post(f"{PATH}/replay", {}) for each in (ours, other)])

        assert {each.status for each in both} == {200}
        assert {each["outcome"] for one in both for each in one.json["items"]} <= {"stored"}
        assert not await listed(ours) and len(await ours.alerts()) == 20
        letters = await ours.dead_letters.stats()
        assert (letters["kept"], letters["dropped"]) == (0, 0)


async def test_a_crash_between_storing_a_letter_and_removing_it_stores_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with system() as ours:
        bury(ours, "v1", json.dumps(alert("Down")).encode(), content_type="application/json")
        await ours.letters()
        [letter] = await listed(ours)

        async def crashes(*_: Any) -> int:
            raise OutcomeUnknown("dead letters: the connection was cut")

        with monkeypatch.context() as patch:
            patch.setattr(MemoryDeadLetters, "remove", crashes)
            cut = await ours.post(f"{PATH}/{letter['id']}/replay", {})
        # Meanwhile its sender ended it: it must not begin again.
        await ours.post("/v1/alerts", {**alert("Down"), "status": "resolved"})
        done = await replayed(ours, letter["id"])

        assert cut.status == 503
        assert done["outcome"] == "stored"
        assert not await ours.alerts() and not await listed(ours)


async def test_an_end_that_is_replayed_ended_when_it_came_and_spares_what_began_later() -> None:
    async with system() as ours:
        times = [ours.clock.now() + each for each in (0, 60)]
        stamps = [datetime.fromtimestamp(each).astimezone().isoformat() for each in times]
        end = {**alert("Down"), "status": "resolved"}
        bury(ours, "v1", json.dumps(end).encode(), content_type="application/json")
        await ours.letters()
        ours.clock.heard_s += 120
        await ours.post("/v1/alerts", {**alert("Down"), "starts_at": stamps[1]})
        [letter] = await listed(ours)

        await replayed(ours, letter["id"])

        assert await ours.names() == {"Down"} and not await listed(ours)


async def test_what_cannot_be_stored_now_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "RETRY_S", 0.005)
    async with system(server={"hold": 0.05}) as ours:
        for name in ("One", "Two"):
            bury(ours, "v1", json.dumps(alert(name)).encode(), content_type="application/json")
        await ours.letters(2)
        before = await listed(ours)
        await ours.crash(ours.shards[0])

        answer = await ours.post(f"{PATH}/replay", {})

        assert (answer.json["waiting"], len(answer.json["items"])) == (1, 1)
        assert answer.json["next"] is not None
        assert await listed(ours) == before


async def test_a_bound_senders_letter_stays_within_its_bounds() -> None:
    async with system() as ours:
        sender = Sender("payments", "0" * 12, (("team", "=", "payments"),))
        for team in ("payments", "search"):
            body = json.dumps(alert(team, team=team)).encode()
            bury(ours, "v1", body, content_type="application/json", sender=sender)
        await ours.letters(2)

        answer = await ours.post(f"{PATH}/replay", {"sender": "payments"})

        assert (answer.json["stored"], answer.json["refused"]) == (1, 1)
        assert await ours.names() == {"payments"}


async def test_letters_are_listed_newest_first_by_pages_and_filters() -> None:
    async with system() as ours:
        for number in range(5):
            await ours.post("/v1/alerts", b"no %d" % number)
        await ours.post("/api/v2/alerts", b"\xff\xfe")
        await ours.letters(6)

        first = (await ours.get(f"{PATH}?limit=4")).json
        rest = (await ours.get(f"{PATH}?limit=4&cursor={first['next']}")).json

        ids = [each["id"] for each in (*first["items"], *rest["items"])]
        assert ids == sorted(ids, reverse=True) and len(ids) == 6 and rest["next"] is None
        assert len(await listed(ours, "?door=v1")) == 5 and len(await listed(ours, "?reason=GOT")) == 5
        assert not await listed(ours, "?since=2099-01-01T00:00:00Z")
        assert not await listed(ours, "?sender=nobody")
        assert (await ours.get(f"{PATH}?since=yesterday")).status == 400
        assert (await ours.get(f"{PATH}?odd=1")).status == 400
        whole = (await ours.get(f"{PATH}/{ids[0]}")).json
        assert (whole["text"], whole["base64"], whole["path"]) == (None, "//4=", "/api/v2/alerts")
        assert (await ours.get(f"{PATH}/999")).status == 404


async def test_letters_are_dropped_by_number_and_by_filter_and_never_all_by_accident() -> None:
    async with system() as ours:
        for body in (b"no 1", b"no 2", b"no 3"):
            await ours.post("/v1/alerts", body)
        await ours.letters(3)
        first = (await listed(ours))[0]["id"]

        one = await delete(ours, f"{PATH}/{first}")
        again = await delete(ours, f"{PATH}/{first}")
        accident = await delete(ours, PATH)
        some = await delete(ours, f"{PATH}?door=v1")
        rest = await delete(ours, f"{PATH}?all=true")

        assert (one.status, again.status, accident.status) == (200, 404, 400)
        assert some.json == {"dropped": 2, "more": False} and rest.json == {"dropped": 0, "more": False}


async def test_reading_needs_read_and_the_rest_respond_and_secrets_are_masked() -> None:
    async with system() as ours:
        admin = (await create(ours, "admin", "admin"))["token"]
        reader = (await create(ours, "reader", "read", by=admin))["token"]
        sender = (await create(ours, "sender", "ingest:*", by=admin))["token"]
        await ours.post(f"/v1/events?token={sender}&b=1", {"none": sender})
        await ours.letters()

        found = (await call(ours, "GET", PATH, reader)).json["items"]
        whole = await call(ours, "GET", f"{PATH}/{found[0]['id']}", reader)

        assert found[0]["sender"] == "sender" and sender.encode()[-20:] not in whole.body
        assert whole.json["query"] == "b=1" and "llmim_" in whole.json["text"]
        for method, path in (
            ("POST", f"{PATH}/replay"),
            ("POST", f"{PATH}/{found[0]['id']}/replay"),
            ("DELETE", f"{PATH}/{found[0]['id']}"),
            ("DELETE", f"{PATH}?all=true"),
        ):
            assert (await call(ours, method, path, reader, {})).status == 403
        assert (await call(ours, "GET", PATH, sender)).status == 403


async def test_letters_of_another_tenant_are_not_there() -> None:
    async with system() as ours, another_gateway(ours, "other") as other:
        await ours.post("/v1/alerts", b"no")
        await ours.letters()
        [letter] = await listed(ours)

        assert not await listed(other)
        assert (await other.get(f"{PATH}/{letter['id']}")).status == 404
        assert (await other.post(f"{PATH}/{letter['id']}/replay", {})).status == 404
        assert (await delete(other, f"{PATH}/{letter['id']}")).status == 404
        assert (await delete(other, f"{PATH}?all=true")).json["dropped"] == 0
        assert len(await listed(ours)) == 1


async def test_a_letter_of_an_older_version_can_be_replayed() -> None:
    async with system() as ours:
        body = json.dumps(alert("Down")).encode()
        await ours.dead_letters.add(
            [DeadLetter(ours.clock.now(), "default", "alertmanager", "why", body, "application/json")]
        )
        [letter] = await listed(ours)

        assert (await replayed(ours, letter["id"]))["outcome"] == "stored"
        assert await ours.names() == {"Down"}


async def test_letters_wait_for_a_store_that_is_away_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with system() as ours:
        kept, failed = MemoryDeadLetters.add, 0

        async def away(self: MemoryDeadLetters, letters: Any) -> None:
            nonlocal failed
            failed += 1
            if failed == 1:
                raise OutcomeUnknown("dead letters: away")
            await kept(self, letters)

        monkeypatch.setattr(MemoryDeadLetters, "add", away)
        await ours.post("/v1/alerts", b"no")

        assert len(await ours.letters()) == 1 and failed == 2
        box: DeadLetterBox = ours.gateway.station.dead_letters
        await box.written()
