"""How tests type commands (tests/command_line.py): what a command says is its own."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from tests.command_line import CommandLine

log = structlog.get_logger()


@pytest.mark.asyncio
async def test_what_the_system_logs_meanwhile_is_no_part_of_what_a_command_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        log.warning("settings changed")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"
            + b'{"items":[]}'
        )
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("LLM_IM_URL", "http://127.0.0.1:1")  # the tester's own
    async with server:
        run = CommandLine(f"http://127.0.0.1:{port}", "dead-letters")
        assert await run("list") == "no dead letters\n"
