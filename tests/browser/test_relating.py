"""Incidents that belong together, where correlation is on: what an incident says of it, and the situation's own page."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.api.gateway_in_process import system
from tests.api.test_correlation import ON, declare, fire, related
from tests.browser.conftest import Desk

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_belongs_together_and_its_cause_are_shown(desk: Desk) -> None:
    async with system(correlation=ON) as ours:
        await declare(ours)
        await fire(ours, "db", "api", "web")
        incident = await related(ours, "web")
        reader = await desk.reader(ours)
        page = reader.page
        await expect(page.locator("li.row")).to_have_count(3)
        await expect(page.get_by_role("navigation", name="Pages")).to_contain_text("Situations")

        await reader.go(f"/ui/incidents/{incident['id']}")
        together = page.get_by_role("region", name="What belongs to it")
        await expect(together).to_contain_text("of 3 incidents that belong together")
        await expect(together.locator(".causes > li").first).to_contain_text("db")
        await together.get_by_role("link", name="All of them").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Situation")
        await expect(page.locator("li.row")).to_have_count(3)
        await expect(page.locator(".causes > li").first).to_contain_text("db")
        await page.get_by_role("link", name="Situations").click()
        await expect(page.locator("li.situation")).to_contain_text("3 incidents")
