"""What is done to an incident on its page: verbs, conflicts, notes, silences, approvals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.api.gateway_in_process import System, system
from tests.api.test_playbooks import Recorder, known
from tests.browser.conftest import Desk
from tests.browser.reading import opened

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASKING = """
name: restart-api
version: "1"
severity_trigger: [P0]
steps:
  - id: fix
    type: remediation
    approval: {within: 30m, message: "Restart it?"}
    actions:
      - {type: service_restart, service: "{{ incident.service }}", method: rolling}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ours() -> AsyncIterator[System]:
    async with system(worker=Recorder(), playbooks={"enabled": True}) as started:
        yield started


async def test_who_was_faster_is_said_before_anything_is_overwritten(ours: System, desk: Desk) -> None:
    incident = await opened(ours, "Race")
    reader = await desk.reader(ours, f"/ui/incidents/{incident}")
    page = reader.page
    await expect(reader.button("Acknowledge")).to_be_visible()
    await reader.button("Resolve").click()
    await ours.post(f"/v1/incidents/{incident}/acknowledge", {}, headers={"X-Actor": "ben"})
    await ours.post(f"/v1/incidents/{incident}/reclassify", {"severity": "P0"}, headers={"X-Actor": "ben"})
    await reader.dialog.get_by_role("button", name="Resolve").click()

    question = reader.dialog.filter(has_text="It has changed meanwhile")
    await expect(question).to_contain_text("Acknowledged by: nobody → ben")
    await expect(question).to_contain_text("→ P0")
    await question.get_by_role("button", name="Leave it").click()
    await reader.asks()
    await expect(page.locator(".lead .holder")).to_have_text("ben")
    assert (await ours.get(f"/v1/incidents/{incident}")).json["acknowledged"]["by"] == "ben"


async def test_an_incident_is_resolved_with_its_cause_and_opened_again(ours: System, desk: Desk) -> None:
    incident = await opened(ours, "Ends")
    reader = await desk.reader(ours, f"/ui/incidents/{incident}")
    await reader.button("Resolve").click()
    await reader.dialog.get_by_label("Root cause").fill("batches too large")
    await reader.dialog.get_by_label("Notes").fill("Rolled back to 41.")
    await reader.dialog.get_by_role("button", name="Resolve").click()

    await expect(reader.page.locator(".notice.good")).to_contain_text("batches too large")
    assert (await ours.get(f"/v1/incidents/{incident}")).json["resolution"]["notes"] == "Rolled back to 41."
    await reader.button("Undo").click()
    await expect(reader.button("Resolve")).to_be_visible()
    assert (await ours.get(f"/v1/incidents/{incident}")).json["state"] != "Resolved"


async def test_an_incident_is_opened_by_hand(ours: System, desk: Desk) -> None:
    reader = await desk.reader(ours)
    await reader.button("New incident…").click()
    await reader.dialog.get_by_label("Title").fill("Answers repeat themselves")
    await reader.dialog.get_by_label("Service").fill("llm-api")
    await reader.dialog.get_by_label("Severity").select_option("P2")
    await reader.dialog.get_by_role("button", name="Open it").click()

    await expect(reader.page.get_by_role("heading", level=1)).to_have_text("Answers repeat themselves")
    await expect(reader.page.get_by_text("It was created by hand and has no alerts.")).to_be_visible()


async def test_alerts_are_split_off_and_a_report_is_saved(ours: System, desk: Desk) -> None:
    incident = await opened(ours, "Parts", pod="a")
    await opened(ours, "Parts", pod="b")
    reader = await desk.reader(ours, f"/ui/incidents/{incident}")
    await expect(reader.page.locator("li.alert")).to_have_count(2)
    await reader.page.get_by_text("More", exact=True).click()
    async with reader.page.expect_download() as download:
        await reader.button("Report as a file").click()
    assert "Parts (api)" in Path(await (await download.value).path()).read_text("utf-8")

    await reader.page.get_by_text("More", exact=True).click()
    await reader.button("Split alerts off…").click()
    await reader.dialog.get_by_role("checkbox").nth(1).check()
    await reader.dialog.get_by_label("Title of the new incident").fill("The other pod")
    await reader.dialog.get_by_role("button", name="Split").click()
    await expect(reader.page.get_by_role("heading", level=1)).to_have_text("The other pod")
    await expect(reader.page.locator("li.alert")).to_have_count(1)


async def test_the_apis_own_words_say_why_it_refuses(ours: System, desk: Desk) -> None:
    incident = await opened(ours, "Refused")
    reader = await desk.reader(ours, f"/ui/incidents/{incident}")
    await reader.page.get_by_text("More", exact=True).click()
    await reader.button("Merge an incident into this…").click()
    await reader.dialog.get_by_label("The other one").fill(f"http://127.0.0.1/ui/incidents/{incident}")
    await reader.dialog.get_by_role("button", name="Merge").click()

    # What was written stays.
    await expect(reader.dialog.get_by_role("alert")).to_contain_text("not the same one")
    await expect(reader.dialog.get_by_label("The other one")).not_to_have_value("")


async def test_a_silence_says_what_it_would_mute_before_it_is_made(ours: System, desk: Desk) -> None:
    incident = await opened(ours, "Noisy", "batch")
    reader = await desk.reader(ours, f"/ui/incidents/{incident}")
    await reader.button("Silence").click()
    await expect(reader.dialog.get_by_label("Matchers")).to_have_value('alertname="Noisy"\nservice="batch"')
    await expect(reader.dialog.locator(".preview")).to_contain_text("Noisy (batch)")
    await reader.dialog.get_by_label("Matchers").fill("service=")
    await reader.dialog.get_by_label("Matchers").fill('service="nobody"')
    await expect(reader.dialog.locator(".preview")).to_contain_text("Mutes none of")
    await reader.dialog.get_by_label("Matchers").fill('service="batch"')
    await expect(reader.dialog.locator(".preview")).to_contain_text("Mutes 1 of")
    await reader.dialog.get_by_label("Comment").fill("deploy of 1.8")
    await reader.dialog.get_by_role("button", name="Silence").click()

    await expect(reader.page.locator(".notices")).to_contain_text("deploy of 1.8")
    await reader.go("/ui/silences")
    silence = reader.page.locator("li.silence").filter(has_text="deploy of 1.8")
    await expect(silence).to_contain_text('service="batch"')
    await silence.get_by_role("button", name="End it now").click()
    await reader.dialog.get_by_role("button", name="End it").click()
    await expect(silence).to_have_count(0)
    assert (await ours.get("/v1/silences")).items == []


async def test_a_run_that_waits_is_approved(ours: System, desk: Desk) -> None:
    assert (await ours.post("/v1/playbooks", {"source": ASKING})).status == 200
    await known(ours, "restart-api")
    reader = await desk.reader(ours, "/ui/runs")
    await expect(reader.page.get_by_text("Nothing waits.")).to_be_visible()
    incident = await opened(ours, "Approve", severity="page")
    await ours.post(f"/v1/incidents/{incident}/reclassify", {"severity": "P0"})
    await ours.post(f"/v1/incidents/{incident}/runs", {"playbook": "restart-api"})

    run = reader.page.locator("li.run.waits")
    await expect(run).to_contain_text("Restart it?")
    await expect(reader.page.locator(".badge")).to_have_text("1")
    await run.get_by_role("button", name="Approve…").click()
    await reader.dialog.get_by_role("button", name="Approve").click()
    await expect(run).to_have_count(0)
    (found,) = (await ours.get(f"/v1/incidents/{incident}/runs")).items
    assert not found["waits_for"]
    async with asyncio.timeout(20):
        while (await ours.get(f"/v1/runs/{found['id']}")).json["status"] != "succeeded":
            await asyncio.sleep(0.02)


async def test_who_acts_is_asked_once_where_there_are_no_tokens(ours: System, desk: Desk) -> None:
    incident = await opened(ours, "Named")
    reader = await desk.reader(ours, f"/ui/incidents/{incident}", name=None)
    await reader.button("Acknowledge").click()
    await reader.dialog.get_by_label("Your name").fill("Zoë")
    await reader.dialog.get_by_role("button", name="Go on").click()

    await expect(reader.page.locator(".lead .holder")).to_have_text("Zoë")
    await reader.button("Undo").click()
    await expect(reader.page.locator(".lead .holder")).to_have_text("nobody")
