"""A stream over gRPC that we open: messages as bytes, both ways. Used by the sources beside this; the one file of them that knows
the library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from models.errors import Unavailable

if TYPE_CHECKING:
    import grpc

#: A server that is there answers in milliseconds; over a slow line in a second or two.
CONNECT_S = 10.0
#: A connection that is dead without having been closed is noticed after the two together.
KEEPALIVE_S = 20.0
KEEPALIVE_ANSWER_S = 10.0
#: One message of a stranger. An alert may have a megabyte.
MESSAGE_MAX_BYTES = 4 * 1024 * 1024
#: Characters of a reason that are kept.
DETAIL_CHARS = 200


def token_of(settings: Mapping[str, Any]) -> str:
    """The bearer token that the settings hold or name; "" for none."""
    return str(settings["token"] or os.environ.get(settings["token_env"] or "", ""))


class Stream:
    """One stream. Enter it to connect; raises Unavailable then, and whenever it breaks. One task reads, one writes."""

    def __init__(
        self, endpoint: str, method: str, settings: Mapping[str, Any], max_bytes: int = MESSAGE_MAX_BYTES
    ) -> None:
        """`method`: "/llm.incident.v1.SentinelFeed/Subscribe". `settings`: those of models/settings/dialled.py. A message of more than
        `max_bytes` breaks the stream."""
        self._endpoint = endpoint.removeprefix("https://")
        self._is_secure = endpoint.startswith("https://") or any(
            settings[each] for each in ("ca_file", "cert_file")
        )
        self._method = method
        self._settings = settings
        self._max_bytes = max_bytes
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    async def __aenter__(self) -> Stream:
        import asyncio

        import grpc

        options = (
            ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
            ("grpc.keepalive_timeout_ms", int(KEEPALIVE_ANSWER_S * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.max_receive_message_length", self._max_bytes),
            ("grpc.enable_retries", 0),
            # Ours would be shared with whoever else connects there, with its backoff.
            ("grpc.use_local_subchannel_pool", 1),
        )
        if self._is_secure:
            self._channel = grpc.aio.secure_channel(self._endpoint, self._credentials(), options)
        else:
            self._channel = grpc.aio.insecure_channel(self._endpoint, options)
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._channel.channel_ready()
        except TimeoutError:
            await self.close()
            raise Unavailable(f"{self._endpoint}: no connection within {CONNECT_S:g} s") from None
        except BaseException:
            await self.close()
            raise
        token = token_of(self._settings)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._call = self._channel.stream_stream(self._method)(metadata=metadata)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def read(self) -> bytes | None:
        """The next message; None when the server ended the stream well."""
        import grpc

        try:
            message = await self._call.read()
            if message is not grpc.aio.EOF:
                return bytes(message)
            if (code := await self._call.code()) is grpc.StatusCode.OK:
                return None
            raise self._broken(code, await self._call.details())
        except grpc.aio.AioRpcError as error:
            raise self._broken(error.code(), error.details()) from None

    async def write(self, *messages: bytes) -> None:
        """Send messages. Waits while the server does not read."""
        import asyncio

        import grpc

        try:
            for message in messages:
                await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise self._broken(error.code(), error.details()) from None
        except asyncio.InvalidStateError:
            # It ended: who reads learns why.
            raise Unavailable(f"{self._endpoint}: the stream ended") from None

    async def close(self) -> None:
        """Safe to call twice."""
        if self._call is not None:
            self._call.cancel()
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _credentials(self) -> grpc.ChannelCredentials:
        import grpc

        files = {name: self._settings[name] for name in ("ca_file", "key_file", "cert_file")}
        try:
            ca, key, cert = (Path(file).read_bytes() if file else None for file in files.values())
        except OSError as error:
            raise Unavailable(f"{error.filename}: can't be read: {error.strerror}") from None
        return grpc.ssl_channel_credentials(ca, key, cert)

    def _broken(self, code: object, details: object) -> Unavailable:
        name = getattr(code, "name", "UNKNOWN")
        token = token_of(self._settings)
        said = " ".join(str(details or "").split())
        said = (said.replace(token, "***") if token else said)[:DETAIL_CHARS]
        return Unavailable(f"{self._endpoint}: {name}" + (f": {said}" if said else ""))
