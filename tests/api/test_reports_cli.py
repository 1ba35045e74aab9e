"""`llm-im incidents report` against a whole system."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from tests.api.for_verbs import opened
from tests.api.gateway_in_process import system

pytestmark = pytest.mark.asyncio


async def test_what_is_written_down_from_the_command_line() -> None:
    async with system() as ours:
        identity = await opened(ours)
        port = await ours.listen()

        async def run(*words: str, code: int = 0) -> str:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.cli", *words, "--url", f"http://127.0.0.1:{port}",
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, err = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == code, (words, out, err)
            return (out if not code else err).decode()

        text, page, body, missing = await asyncio.gather(
            run("incidents", "report", identity),
            run("incidents", "report", identity, "-f", "html"),
            run("incidents", "report", identity, "--json"),
            run("incidents", "report", "01a20993-901b-7483-ab53-7cb8d1609881", code=5),
        )

        title = json.loads(body)["incident"]["title"]
        assert text.startswith("# P") and title in text and "## Timeline\n\n| When |" in text
        assert page.startswith("<!doctype html>\n") and page.endswith("</html>\n")
        assert "there is no incident" in missing
