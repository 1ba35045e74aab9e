"""What people correct is learned: trained on the system's own incidents, compared, promoted, rolled back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.classifier import ClassifierActor
from actors.judging import Judging
from models.control.modelling import ModelVersions
from services.learning import learner
from tests.api.gateway_in_process import System, alert, system
from tests.command_line import CommandLine

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install llm-incident-manager[learn]")
pytestmark = pytest.mark.asyncio

LEARNING = {"min_examples": 10, "confidence": 0.5}
#: What the rules make P2 and Unknown, and people another thing each.
QUOTA, REPORT = "TenantQuotaGone", "NightlyReportOdd"
SERVICES = [f"service-{number}" for number in range(8)]


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.02)


async def corrected(ours: System) -> None:
    """Incidents of eight services that people set right."""
    sent = await ours.post(
        "/v1/alerts", [alert(name, service) for service in SERVICES for name in (QUOTA, REPORT)]
    )
    assert sent.status == 202, sent
    for each in (await ours.get("/v1/incidents?limit=100")).items:
        is_quota = QUOTA in each["title"]
        wanted = (
            {"severity": "P0", "incident_type": "Compliance"}
            if is_quota
            else {"severity": "P4", "incident_type": "Data"}
        )
        assert (await ours.post(f"/v1/incidents/{each['id']}/reclassify", wanted)).status == 200


async def classified(ours: System, name: str, service: str) -> dict[str, Any]:
    """A new incident, once it is classified."""
    await ours.post("/v1/alerts", [alert(name, service)])
    async with asyncio.timeout(10):
        while True:
            found = (await ours.get(f"/v1/incidents?service={service}")).items
            if found and found[0]["classified_by"]:
                return found[0]
            await asyncio.sleep(0.02)


async def test_a_model_is_trained_on_what_people_corrected_and_evaluated_beside_the_rules() -> None:
    async with system(learning=LEARNING) as ours:
        run = CommandLine(f"http://127.0.0.1:{await ours.listen()}", "learn")
        assert "the rules alone decide" in await run("models")
        await corrected(ours)

        trained = await run("train")
        listed, shown = await run("models"), await run("show", "1")
        body = (await ours.get("/v1/models/1")).json

        assert "model 1 is trained, and the shadow" in trained
        assert "model 1 is the shadow" in listed and "100.0% (0.0%)" in listed
        assert "16 corrected by people" in shown and "held out    by service" in shown
        assert (
            body["evaluation"]["severity"]["accuracy"]
            == 1.0
            > body["evaluation"]["severity"]["rules_accuracy"]
        )
        # Nothing stays of what trained.
        await until(lambda: ours.cluster.get("trainer-0") is None)


async def test_too_little_to_learn_from_is_said() -> None:
    async with system() as ours:
        run = CommandLine(f"http://127.0.0.1:{await ours.listen()}", "learn")

        said = await run("train", code=1)

        assert "0 examples: expected at least 50 (learning.min_examples)" in said
        assert "made no model: 0 examples" in await run("models")


async def test_a_trainer_that_dies_is_hired_again_and_makes_one_model() -> None:
    async with system(learning=LEARNING) as ours:
        await corrected(ours)
        asked = await ours.post("/v1/models/train", {}, headers={"Idempotency-Key": "one"})
        assert asked.status == 202
        await until(lambda: ours.cluster.get("trainer-0"))
        dead = ours.cluster.kill("trainer-0")
        assert dead is not None
        await dead.stop()

        ours.clock.heard_s += 20.0
        ours.clock.ahead_s += 20.0
        async with asyncio.timeout(20):
            while (await ours.get("/v1/models")).json["training"]["version"] is None:
                await asyncio.sleep(0.05)

        repeat = await ours.post("/v1/models/train", {}, headers={"Idempotency-Key": "one"})
        assert repeat.json["id"] == asked.json["id"]
        assert [each["version"] for each in (await ours.get("/v1/models")).items] == [1]


async def test_a_version_is_tried_on_a_file(tmp_path: Path) -> None:
    rows = [{"title": QUOTA, "labels": {"alertname": QUOTA}, "severity": "P0", "type": "Compliance"}] * 3
    file, bad = tmp_path / "rows.jsonl", tmp_path / "bad.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    bad.write_text('{"title": "x", "severity": "P9"}')
    async with system(learning=LEARNING) as ours:
        run = CommandLine(f"http://127.0.0.1:{await ours.listen()}", "learn")
        assert "there is no model yet" in await run("evaluate", str(file), code=1)
        await corrected(ours)
        await run("train")

        found = json.loads(await run("evaluate", str(file), "--json"))

        assert found["evaluation"]["severity"]["model_accuracy"] == 1.0
        assert "bad.jsonl, line 1: expected" in await run("evaluate", str(bad), code=2)


async def test_a_promoted_model_classifies_where_it_is_sure_says_so_and_is_rolled_back() -> None:
    async with system(learning=LEARNING) as ours:
        run = CommandLine(f"http://127.0.0.1:{await ours.listen()}", "learn")
        await corrected(ours)
        await run("train")
        await follow(ours)
        by_rules = await classified(ours, QUOTA, "first-new")
        compared = await run("shadow")

        promoted = await run("promote", "1", "--reason", "better in shadow")
        await follow(ours)
        by_model = await classified(ours, QUOTA, "second-new")
        unknown = await classified(ours, "DiskFull", "third-new")
        person = await ours.post(f"/v1/incidents/{by_model['id']}/reclassify", {"severity": "P1"})
        back = await run("rollback", "--reason", "pages too often")
        await follow(ours)
        by_rules_again = await classified(ours, QUOTA, "fourth-new")

        assert (by_rules["severity"], by_rules["incident_type"]) != ("P0", "Compliance")
        assert (
            "model 1 would have said the same of 0 of 1 incidents" in compared
            and "by the shadow P0" in compared
        )
        assert "model 1 is active" in promoted
        assert (by_model["severity"], by_model["incident_type"]) == ("P0", "Compliance")
        assert (
            by_model["classified_by"].startswith("severity: model 1, ")
            and "quota" in by_model["classified_by"]
        )
        assert 0.5 <= by_model["confidence"] <= 1.0
        assert "model" not in unknown["classified_by"]
        assert person.json["severity"] == "P1"
        assert "the rules alone decide" in back
        assert by_rules_again["severity"] == by_rules["severity"]


async def follow(ours: System) -> None:
    """Have the classifier read the control log now instead of within a second."""
    actor = ours.cluster.get("classifier-0")
    assert isinstance(actor, ClassifierActor) and actor._control is not None
    await actor._control.follow()


async def test_a_schedule_asks_for_a_training_by_itself() -> None:
    async with system(learning={"schedule": "* * * * *"}) as ours:
        assert (await ours.get("/v1/models")).json["training"] is None

        ours.clock.heard_s += 61.0

        async with asyncio.timeout(20):
            while (found := (await ours.get("/v1/models")).json["training"]) is None or not found["ended_at"]:
                await asyncio.sleep(0.05)
        assert found["asked_by"] == "schedule" and "0 examples" in found["reason"]


async def test_a_model_that_is_better_promotes_itself_where_the_settings_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learner, "PROMOTE_MIN", 10)
    async with system(learning={**LEARNING, "promote_when_better": True}) as ours:
        await corrected(ours)
        await ours.post("/v1/models/train", {})

        async with asyncio.timeout(20):
            while (found := (await ours.get("/v1/models")).json)["active"] is None:
                await asyncio.sleep(0.05)

        (model,) = found["items"]
        assert (model["state"], model["changed_by"]) == ("active", "learning.promote_when_better")
        assert "severity right 100.0% of the time instead of 0.0%" in model["reason"]


async def test_a_damaged_model_leaves_the_rules_and_health_says_so() -> None:
    async with system(learning=LEARNING) as ours:
        await corrected(ours)
        run = CommandLine(f"http://127.0.0.1:{await ours.listen()}", "learn")
        await run("train")
        await run("promote", "1")
        await follow(ours)
        actor = ours.cluster.get("classifier-0")
        assert isinstance(actor, ClassifierActor) and actor._control is not None
        models = actor._control.state.of(ModelVersions)
        models._files[1] = models._files[1][:-1] + b"x"
        models.version += 1
        # One that it opened already it would go on with.
        assert isinstance(actor.judge, Judging)
        actor.judge._opened.clear()

        found = await classified(ours, QUOTA, "new")

        assert "model" not in found["classified_by"]
        assert json.loads(await actor.status(b"")) == {
            "model 1": "can't be used: its file is another one than was trained: the rules decide instead"
        }
