"""LLM-Shield as a server over HTTPS that asks for a client certificate: GET /v1/incidents, by a cursor that is a place in its file.

python -m tests.peers.shield PORT FOLDER
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

from aiohttp import web

from tests.peers.lines import read_lines, write_line


async def main(port: int, folder: Path) -> None:
    async def incidents(request: web.Request) -> web.StreamResponse:
        after = int(request.query.get("after", "0"))
        found = read_lines(folder / "says.jsonl")[after:][: min(3, int(request.query["limit"]))]
        write_line(folder / "heard.jsonl", {"after": after, "gave": len(found)})
        return web.json_response({"incidents": found, "next": str(after + len(found))})

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app.router.add_get("/v1/incidents", incidents)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    write_line(folder / "heard.jsonl", {"listens": port})
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
