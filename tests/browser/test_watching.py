"""The list of incidents: it is live, is filtered by its address, is worked by keyboard, and says since when it is stale."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from tests.api.gateway_in_process import System
from tests.browser.conftest import Desk
from tests.browser.reading import Door, opened

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_happens_is_seen_at_once_and_counted_in_the_title(ours: System, desk: Desk) -> None:
    reader = await desk.reader(ours)
    await reader.is_live()

    incident = await opened(ours, "Down", severity="critical")
    await expect(reader.row("Down (api)")).to_contain_text("nobody")
    await expect(reader.page).to_have_title(re.compile(r"P1:1 .*Incidents"))

    await ours.post(f"/v1/incidents/{incident}/acknowledge", {}, headers={"X-Actor": "ben"})
    await expect(reader.row("Down (api)").locator(".holder")).to_have_text("ben")

    await ours.post(f"/v1/incidents/{incident}/resolve", {})
    await expect(reader.row("Down (api)")).to_have_count(0)
    await expect(reader.page.get_by_text("All quiet")).to_be_visible()
    await expect(reader.page).to_have_title("Incidents")


async def test_it_is_acknowledged_with_one_tap_and_that_is_undone_with_another(
    ours: System, desk: Desk
) -> None:
    incident = await opened(ours, "Tap")
    reader = await desk.reader(ours, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)

    await reader.row("Tap (api)").get_by_role("button", name="Acknowledge").tap()
    await expect(reader.row("Tap (api)").locator(".holder")).to_have_text("ana")
    assert (await ours.get(f"/v1/incidents/{incident}")).json["acknowledged"]["by"] == "ana"

    await reader.button("Undo").tap()
    await expect(reader.row("Tap (api)").locator(".holder")).to_have_text("nobody")
    assert (await ours.get(f"/v1/incidents/{incident}")).json["acknowledged"] is None
    await ours.post(f"/v1/incidents/{incident}/resolve", {})


async def test_all_of_it_is_done_by_keyboard(ours: System, desk: Desk) -> None:
    first, second = [await opened(ours, name, severity="critical") for name in ("KeyOne", "KeyTwo")]
    reader = await desk.reader(ours)
    page = reader.page
    await expect(page.locator("li.row")).to_have_count(2)
    newest, older = ("KeyTwo (api)", "KeyOne (api)")

    await page.keyboard.press("j")
    await expect(reader.row(newest).locator("a.title")).to_be_focused()
    await page.keyboard.press("j")
    await page.keyboard.press("a")
    await expect(reader.row(older).locator(".holder")).to_have_text("ana")
    await page.keyboard.press("k")
    await expect(reader.row(newest).locator("a.title")).to_be_focused()
    # A row that changes keeps the focus.
    await ours.post(f"/v1/incidents/{second}/assign", {"add": ["ben"]})
    await expect(reader.row(newest).locator(".holder")).to_have_text("ben")
    await expect(reader.row(newest).locator("a.title")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text(newest)
    await page.keyboard.press("c")
    await page.keyboard.type("a and r are letters here")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".line").filter(has_text="a and r are letters here")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.press("a")
    await expect(page.locator(".lead .holder")).to_have_text("ana")
    await page.keyboard.press("u")
    await expect(page.locator("li.row")).to_have_count(2)
    await page.keyboard.press("g")
    await page.keyboard.press("z")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Silences")
    await page.keyboard.press("?")
    await reader.dialog.get_by_label("Single keys are shortcuts").uncheck()
    await page.keyboard.press("Escape")
    await page.keyboard.press("n")
    await expect(reader.dialog).to_have_count(0)
    for incident in (first, second):
        await ours.post(f"/v1/incidents/{incident}/resolve", {})


async def test_filters_are_in_the_address_as_in_rest(ours: System, desk: Desk) -> None:
    made = [
        await opened(ours, "GpuHot", "llm-api", severity="critical", team="ml-a"),
        await opened(ours, "DiskFull", "vector-db", severity="warning", team="data"),
    ]
    reader = await desk.reader(ours)
    page = reader.page
    await expect(page.locator("li.row")).to_have_count(2)

    await page.get_by_role("button", name="P1").click()
    await expect(page.locator("li.row")).to_have_count(1)
    assert "severity=P1" in page.url and "state=Triaged" in page.url
    await page.get_by_role("link", name="Clear").click()
    await expect(page.locator("li.row")).to_have_count(2)
    await page.get_by_label("Labels").fill('team=~"da.*"')
    await page.get_by_label("Labels").press("Enter")
    await expect(page.locator("li.row")).to_have_count(1)
    await expect(reader.row("DiskFull (vector-db)")).to_be_visible()
    # What is live goes by the filter too.
    made.append(await opened(ours, "Other", "api", team="web"))
    made.append(await opened(ours, "More", "api", team="data-eu"))
    await expect(reader.row("More (api)")).to_be_visible()
    await expect(page.locator("li.row")).to_have_count(2)
    await page.reload()
    await expect(page.get_by_label("Labels")).to_have_value('team=~"da.*"')
    await expect(page.locator("li.row")).to_have_count(2)
    await page.get_by_label("Labels").fill("team=~(")
    await page.get_by_label("Labels").press("Enter")
    await expect(page.get_by_role("alert").filter(has_text="match")).to_be_visible()
    for incident in made:
        await ours.post(f"/v1/incidents/{incident}/resolve", {})


async def test_more_than_a_page_is_read_by_cursor(ours: System, desk: Desk) -> None:
    alerts = [{"labels": {"alertname": f"Many{number:03}", "service": "api"}} for number in range(130)]
    answer = await ours.post("/v1/alerts", alerts)
    reader = await desk.reader(ours, "/ui/incidents?text=many&sort=created_at")
    await expect(reader.page.locator("li.row")).to_have_count(100)

    await reader.button("Show more").click()
    await expect(reader.page.locator("li.row")).to_have_count(130)
    await expect(reader.button("Show more")).to_have_count(0)
    ids = [each["incident_id"] for each in answer.items]
    await ours.post("/v1/incidents/bulk", {"verb": "resolve", "incidents": ids, "body": {}})


async def test_a_page_that_is_cut_off_says_since_when_and_goes_on_by_itself(ours: System, desk: Desk) -> None:
    door = Door(await ours.listen())
    await door.open()
    reader = await desk.reader(ours)
    reader.port = door.port
    await reader.go("/")
    await reader.is_live()

    await door.shut()
    notice = reader.page.locator(".not-live")
    await expect(notice).to_contain_text("Not live since")
    await expect(reader.page).to_have_title(re.compile(r"^\(stale\)"))
    incident = await opened(ours, "Meanwhile")
    await door.open()

    await expect(reader.row("Meanwhile (api)")).to_be_visible()
    await expect(notice).to_be_hidden()
    await ours.post(f"/v1/incidents/{incident}/resolve", {})
    await door.shut()
