"""LLM-Sentinel as a server: SentinelFeed. Sends each message of its file that was not acknowledged, again on each stream. With
certificates in its folder it asks for one of the client.

python -m tests.peers.sentinel PORT FOLDER
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from services.proto import incident_pb2 as pb
from services.proto import incident_pb2_grpc as services
from tests.peers.lines import read_lines, write_line

TOKEN = "sentinel-s3cret"


class Feed(services.SentinelFeedServicer):
    def __init__(self, folder: Path) -> None:
        self._says = folder / "says.jsonl"
        self._heard = folder / "heard.jsonl"

    async def Subscribe(
        self, requests: AsyncIterator[pb.AlertAck], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.AlertMessage]:
        metadata = dict(context.invocation_metadata() or ())
        if metadata.get("authorization") != f"Bearer {TOKEN}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"not {metadata.get('authorization')!s}")
        first = await anext(aiter(requests))
        assert not first.alert_id
        write_line(self._heard, {"subscribed": True})
        acks = asyncio.create_task(self._hear(requests))
        sent: set[str] = set()
        acked = {each["acked"] for each in read_lines(self._heard) if "acked" in each}
        try:
            while not acks.done():
                for said in read_lines(self._says):
                    key = f"{said['alert_id']}/{said.get('resolved', False)}"
                    if key not in acked and key not in sent:
                        sent.add(key)
                        write_line(self._heard, {"sent": key})
                        yield ParseDict(said, pb.AlertMessage())
                await asyncio.sleep(0.01)
        finally:
            acks.cancel()

    async def _hear(self, acks: AsyncIterator[pb.AlertAck]) -> None:
        ended: set[str] = set()
        async for ack in acks:
            # The beginning is acknowledged before the end of the same alert.
            key = f"{ack.alert_id}/{ack.alert_id in ended}"
            ended.add(ack.alert_id)
            write_line(
                self._heard,
                {
                    "acked": key,
                    "status": pb.AckStatus.Name(ack.status),
                    "reason": ack.reason,
                    "incident_id": ack.incident_id,
                },
            )


async def main(port: int, folder: Path) -> None:
    server = grpc.aio.server()
    services.add_SentinelFeedServicer_to_server(Feed(folder), server)  # type: ignore[no-untyped-call]
    if (folder / "server.key").exists():
        key, cert, ca = ((folder / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem"))
        credentials = grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
        server.add_secure_port(f"127.0.0.1:{port}", credentials)
    else:
        server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    write_line(folder / "heard.jsonl", {"listens": port})
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
