"""LLM-Edge-Agent as a server: EdgeAgent. Says on each stream that it is well, then each message of its file, again on each stream; answers
what it is asked for.

    python -m tests.peers.edge PORT FOLDER
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict

from services.proto import incident_pb2 as pb
from services.proto import incident_pb2_grpc as services
from tests.peers.lines import read_lines, write_line

AGENT = "edge-1"


class Agent(services.EdgeAgentServicer):
    def __init__(self, folder: Path) -> None:
        self._says = folder / "says.jsonl"
        self._heard = folder / "heard.jsonl"

    async def Attach(
        self, requests: AsyncIterator[pb.IncidentToEdgeMsg], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.EdgeToIncidentMsg]:
        out: asyncio.Queue[pb.EdgeToIncidentMsg] = asyncio.Queue()
        well = pb.EdgeHealthUpdate(agent_id=AGENT, status=pb.HEALTH_STATUS_HEALTHY, services=["llm-api"])
        out.put_nowait(pb.EdgeToIncidentMsg(health=well))
        tasks = [asyncio.create_task(self._hear(requests, out)), asyncio.create_task(self._say(out))]
        try:
            while True:
                yield await out.get()
        finally:
            for task in tasks:
                task.cancel()

    async def _hear(
        self, requests: AsyncIterator[pb.IncidentToEdgeMsg], out: asyncio.Queue[pb.EdgeToIncidentMsg]
    ) -> None:
        async for message in requests:
            write_line(self._heard, MessageToDict(message))
            if message.WhichOneof("message") == "health_check":
                well = pb.EdgeHealthUpdate(
                    agent_id=AGENT,
                    status=pb.HEALTH_STATUS_HEALTHY,
                    request_id=message.health_check.request_id,
                )
                out.put_nowait(pb.EdgeToIncidentMsg(health=well))

    async def _say(self, out: asyncio.Queue[pb.EdgeToIncidentMsg]) -> None:
        said = 0
        while True:
            for each in read_lines(self._says)[said:]:
                said += 1
                out.put_nowait(ParseDict(each, pb.EdgeToIncidentMsg()))
            await asyncio.sleep(0.01)


async def main(port: int, folder: Path) -> None:
    server = grpc.aio.server()
    services.add_EdgeAgentServicer_to_server(Agent(folder), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    write_line(folder / "heard.jsonl", {"listens": port})
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
