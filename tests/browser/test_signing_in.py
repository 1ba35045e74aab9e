"""Tokens: asked for, kept for the tab or the device, forgotten when they are revoked; and what a token may not do is not offered."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.api.gateway_in_process import System, system
from tests.api.test_guard import call, create
from tests.browser.conftest import Desk
from tests.browser.reading import Reader

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def admin() -> AsyncIterator[tuple[System, str]]:
    async with system() as ours:
        yield ours, (await create(ours, "admin", "admin"))["token"]


async def sign_in(reader: Reader, token: str, *, stays: bool = False) -> None:
    await reader.page.get_by_label("Token").fill(token)
    if stays:
        await reader.page.get_by_label("Stay signed in on this device").check()
    await reader.button("Sign in").click()


async def test_a_token_opens_the_page_that_was_asked_for_and_is_the_actor(
    admin: tuple[System, str], desk: Desk
) -> None:
    ours, secret = admin
    token = (await create(ours, "ana-phone", "respond", by=secret))["token"]
    made = await call(ours, "POST", "/v1/incidents", token, {"service": "api", "title": "By hand"})
    reader = await desk.reader(ours, f"/ui/incidents/{made.json['id']}", name="somebody else")
    await sign_in(reader, "llmim_0123456789ab_" + "w" * 43)
    await expect(reader.page.get_by_role("alert")).to_contain_text("not valid")
    await sign_in(reader, token)

    await expect(reader.page.get_by_role("heading", level=1)).to_have_text("By hand")
    await reader.is_live()
    await reader.button("Acknowledge").click()
    await expect(reader.page.locator(".lead .holder")).to_have_text("ana-phone")
    await reader.page.reload()
    await expect(reader.page.get_by_role("heading", level=1)).to_have_text("By hand")

    # Nothing is in the address or a cookie, and another tab of the device knows nothing.
    assert token not in reader.page.url and await reader.page.context.cookies() == []
    other = Reader(await reader.page.context.new_page(), ours, reader.port)
    await other.go("/")
    await expect(other.page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_a_token_stays_on_the_device_until_one_signs_out(admin: tuple[System, str], desk: Desk) -> None:
    ours, secret = admin
    reader = await desk.reader(ours)
    await sign_in(reader, secret, stays=True)
    await reader.is_live()
    other = Reader(await reader.page.context.new_page(), ours, reader.port)
    await other.go("/")
    await other.is_live()

    await other.button("Sign out").click()
    for each in (other, reader):
        await expect(each.page.get_by_role("heading", name="Sign in")).to_be_visible()
    kept = await other.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert secret not in kept


async def test_a_token_that_is_revoked_leads_out(admin: tuple[System, str], desk: Desk) -> None:
    ours, secret = admin
    made = await create(ours, "short", "respond", by=secret)
    reader = await desk.reader(ours, "/ui/incidents")
    await sign_in(reader, made["token"])
    await reader.is_live()

    assert (await call(ours, "DELETE", f"/v1/tokens/{made['id']}", secret)).status == 204
    await expect(reader.page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(reader.page.get_by_role("alert")).to_contain_text("no longer valid")


async def test_what_a_token_may_not_do_is_not_offered(admin: tuple[System, str], desk: Desk) -> None:
    ours, secret = admin
    token = (await create(ours, "wall", "read", by=secret))["token"]
    made = await call(ours, "POST", "/v1/incidents", secret, {"service": "api", "title": "Only read"})
    reader = await desk.reader(ours, f"/ui/incidents/{made.json['id']}")
    await sign_in(reader, token)

    await expect(reader.page.get_by_role("heading", level=1)).to_have_text("Only read")
    await expect(reader.page.locator(".lines .line").first).to_be_visible()
    for name in ("Acknowledge", "Resolve", "Silence", "Add note"):
        await expect(reader.button(name)).to_have_count(0)
    await reader.go("/")
    await expect(reader.row("Only read")).to_be_visible()
    await expect(reader.button("Acknowledge")).to_have_count(0)
