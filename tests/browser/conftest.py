"""Fixtures of tests/browser: Debian's Chromium, one for all tests of a process, and a reader's tab that fails the test on any violation of
the page's policy and any fault of its scripts."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, async_playwright, expect

from tests.api.gateway_in_process import System, system
from tests.browser.reading import Reader

CHROMIUM = "chromium"
#: The sandbox needs rights that a container has not; the rest keeps it from calling home.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
#: A busy machine is slow, a wrong page is wrong for ever.
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)

#: What a script that got in from an alert would do, and what the browser says of what the policy forbids.
WATCH = """
window.hits = [];
for (const name of ['alert', 'confirm', 'prompt']) window[name] = () => { window.hits.push(name); };
window.hit = () => window.hits.push('hit');
document.addEventListener('securitypolicyviolation', (event) => window.hits.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Missing it fails in CI and skips elsewhere."""
    program = shutil.which(CHROMIUM)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(f"{CHROMIUM} is not installed, and CI must have it: apt-get install {CHROMIUM}")
        pytest.skip(f"{CHROMIUM} is not installed: apt-get install {CHROMIUM}")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ours() -> AsyncIterator[System]:
    """A system without tokens for a whole file."""
    async with system() as started:
        yield started


Open = Callable[..., object]


class Desk:
    """Opens tabs, and remembers what went wrong in any."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.faults: list[str] = []

    async def reader(
        self, ours: System, path: str = "/", *, name: str | None = "ana", **context: object
    ) -> Reader:
        """A reader who has opened `path`. `name`: as whom the page knows him already."""
        made = await self._browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})  # type: ignore[arg-type]
        made.set_default_timeout(PATIENCE_MS)
        self._contexts.append(made)
        await made.add_init_script(WATCH)
        if name is not None:
            await made.add_init_script(f"localStorage.setItem('llm-im.name', {name!r})")
        reader = Reader(await made.new_page(), ours, await ours.listen())
        self.watch(reader)
        await reader.go(path)
        return reader

    def watch(self, reader: Reader) -> None:
        def said(message: ConsoleMessage) -> None:
            # That an answer was no 2xx is for the page to show, and for the test to want or not.
            if message.type == "error" and not message.text.startswith("Failed to load resource"):
                self.faults.append(message.text)

        reader.page.on("console", said)
        reader.page.on("pageerror", lambda error: self.faults.append(str(error)))

    async def close(self) -> None:
        for context in self._contexts:
            for page in context.pages:
                self.faults += await page.evaluate("window.hits ?? []")
            await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def desk(browser: Browser) -> AsyncIterator[Desk]:
    made = Desk(browser)
    try:
        yield made
    finally:
        await made.close()
    assert made.faults == []
