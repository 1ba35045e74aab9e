"""Anybody can read it: in the dark and in the light, on a phone, with a screen reader."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.api.gateway_in_process import System, system
from tests.api.test_people import RECEIVERS, ROSTER
from tests.api.test_playbooks import Recorder, known
from tests.browser.conftest import Desk
from tests.browser.reading import opened
from tests.browser.test_acting import ASKING
from tests.browser.test_hostile import put

pytestmark = pytest.mark.asyncio(loop_scope="session")

#: What is read of the text's colour and what lies behind it: the least ratio of WCAG 2, AA; large text has 3.
CONTRASTS = """
() => {
  const parse = (text) => { const found = text.match(/[\\d.]+/g).map(Number); return found.length < 4 ? [...found, 1] : found; };
  const over = (top, under) => top.slice(0, 3).map((each, place) => each * top[3] + under[place] * (1 - top[3])).concat(1);
  const light = (colour) => { const [r, g, b] = colour.slice(0, 3).map((each) => { const part = each / 255; return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({ visibilityProperty: true }) || element.closest('.skip')) continue;
    const style = getComputedStyle(element);
    let behind = [0, 0, 0, 0];
    let opacity = 1;
    for (let each = element; each; each = each.parentElement) {
      behind = over(behind, parse(getComputedStyle(each).backgroundColor)).slice(0, 3).concat(behind[3] === 1 ? 1 : Math.max(behind[3], parse(getComputedStyle(each).backgroundColor)[3]));
      opacity *= Number(getComputedStyle(each).opacity);
    }
    const text = over([...parse(style.color).slice(0, 3), opacity], behind);
    const [one, other] = [light(text), light(behind)];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)} ${element.className}: ${walker.currentNode.textContent.trim().slice(0, 40)}`);
  }
  return [...new Set(poor)];
}
"""
#: Controls that a screen reader could not name, ids that are there twice, and headings that leave a level out.
UNNAMED = """
() => {
  const faults = [];
  for (const each of document.querySelectorAll('button, a[href], input, select, textarea, summary')) {
    const label = each.labels?.length ? [...each.labels].map((one) => one.textContent).join('') : '';
    if (!(each.getAttribute('aria-label') || label || each.textContent).trim()) faults.push(`no name: ${each.outerHTML.slice(0, 120)}`);
  }
  const ids = [...document.querySelectorAll('[id]')].map((each) => each.id);
  for (const id of new Set(ids)) if (ids.filter((each) => each === id).length > 1) faults.push(`twice: ${id}`);
  for (const each of document.querySelectorAll('[aria-labelledby], [aria-describedby]')) for (const name of ['aria-labelledby', 'aria-describedby']) {
    const id = each.getAttribute(name);
    if (id && !document.getElementById(id)) faults.push(`${name} leads nowhere: ${id}`);
  }
  if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
  if (document.querySelectorAll('main').length !== 1) faults.push('not one main');
  return faults;
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ours() -> AsyncIterator[System]:
    """A bit of everything."""
    notify: dict[str, Any] = {"receivers": RECEIVERS, "route": {"receivers": ["ops"]}}
    async with system(worker=Recorder(), playbooks={"enabled": True}, notify=notify) as started:
        assert (
            await started.post("/v1/playbooks", {"source": ASKING.replace("[P0]", "[P0, P1]")})
        ).status == 200
        await known(started, "restart-api")
        await put(started, "/v1/roster", ROSTER)
        await put(started, "/v1/heartbeats/nightly", {"interval": "1d", "service": "db"})
        for severity in ("page", "critical", "warning", "info", "low"):
            await opened(
                started,
                f"Of{severity}",
                f"a-service-with-quite-a-long-name.{severity}.eu-west-1",
                severity=severity,
            )
        incident = await opened(started, "Main", "llm-api", severity="critical", team="inference")
        for verb, body in (("acknowledge", {"for": "1h"}), ("comment", {"text": "Looking."}), ("assign", {"add": ["ben"], "roles": {"commander": "ana"}})):  # fmt: skip
            assert (await started.post(f"/v1/incidents/{incident}/{verb}", body)).status == 200
        await started.post(
            "/v1/silences", {"matchers": ['team="inference"'], "duration": "2h", "comment": "deploy"}
        )
        yield started


@pytest.mark.parametrize(
    "look",
    [
        {"color_scheme": "dark"},
        {"color_scheme": "light"},
        {
            "color_scheme": "dark",
            "viewport": {"width": 360, "height": 740},
            "has_touch": True,
            "is_mobile": True,
        },
    ],
    ids=["dark", "light", "phone"],
)
async def test_every_page_can_be_read(ours: System, desk: Desk, look: dict[str, Any]) -> None:
    main = next(each["id"] for each in (await ours.get("/v1/incidents?service=llm-api")).items)
    reader = await desk.reader(ours, **look)
    page = reader.page
    faults: dict[str, list[str]] = {}
    for path in (
        "/",
        f"/ui/incidents/{main}",
        "/ui/silences",
        "/ui/runs",
        "/ui/heartbeats",
        "/ui/oncall",
        "/ui/status",
        "/ui/nowhere",
    ):
        await reader.go(path)
        await expect(page.get_by_role("heading", level=1)).to_be_attached()
        await expect(page.get_by_text("Loading…")).to_have_count(0)
        await reader.is_live()
        found = [*await page.evaluate(CONTRASTS), *await page.evaluate(UNNAMED)]
        width, room = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        if width > room:
            found.append(f"{width} px wide in {room}")
        faults[path] = found
    # The check would notice.
    await page.evaluate("document.querySelector('h1').style.color = '#777'")
    assert await page.evaluate(CONTRASTS) != []
    await reader.go(f"/ui/incidents/{main}")
    await reader.button("Silence").click()
    await expect(reader.dialog.locator(".preview b")).to_be_visible()
    faults["dialog"] = [*await page.evaluate(CONTRASTS), *await page.evaluate(UNNAMED)]

    assert json.dumps({path: found for path, found in faults.items() if found}, indent=1) == "{}"


async def test_what_is_tapped_on_a_phone_is_large_enough(ours: System, desk: Desk) -> None:
    reader = await desk.reader(ours, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    await expect(reader.page.locator("li.row")).to_have_count(6)
    for button in await reader.page.get_by_role("button", name="Acknowledge").all():
        box = await button.bounding_box()
        assert box is not None and box["height"] >= 44 and box["x"] + box["width"] <= 360


async def test_somebody_else_is_put_on_call_and_that_is_undone(ours: System, desk: Desk) -> None:
    reader = await desk.reader(ours, "/ui/oncall")
    now = reader.page.locator("li.duty .person")
    before = (await ours.get("/v1/oncall")).items[0]["person"]
    await expect(now).to_have_text(before)
    await reader.button("Somebody else for a while…").click()
    await reader.dialog.get_by_role("button", name="Put on call").click()

    await expect(now).not_to_have_text(before)
    await reader.button("Undo").click()
    await expect(now).to_have_text(before)


async def test_a_dialog_gives_the_focus_back(ours: System, desk: Desk) -> None:
    main = next(each["id"] for each in (await ours.get("/v1/incidents?service=llm-api")).items)
    reader = await desk.reader(ours, f"/ui/incidents/{main}")
    await reader.button("Resolve").focus()
    await reader.page.keyboard.press("Enter")
    await expect(reader.dialog.get_by_label("Root cause")).to_be_focused()
    await reader.page.keyboard.press("Escape")

    await reader.asks()
    await expect(reader.button("Resolve")).to_be_focused()
