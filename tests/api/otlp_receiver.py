"""A small OTLP/HTTP receiver on loopback: keeps the spans it is sent. Used by test_tracing.py."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

#: Longer than a tracer waits for others to join a span.
ARRIVES_S = 10.0


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it came, and the process that sent it."""

    instance: str
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    state: str
    started_at: float
    ended_at: float
    failed: str | None
    attributes: Mapping[str, object]


class OtlpReceiver:
    """`answers` is the status of its answers; None hangs until the receiver is closed."""

    def __init__(self, answers: int | None = 200) -> None:
        self.spans: list[Received] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answers = answers
        self.asked = 0
        self._closing = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.asked += 1
                if receiver.answers is None:
                    receiver._closing.wait()
                    self.close_connection = True
                    return
                if receiver.answers == 200:
                    receiver.paths.append(self.path)
                    receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                    packed = self.headers.get("Content-Encoding") == "gzip"
                    receiver._take(gzip.decompress(body) if packed else body)
                said = ExportTraceServiceResponse().SerializeToString()
                self.send_response(receiver.answers)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: _value(each.value) for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_received(span, about) for span in scope.spans]

    async def wait_for(self, *names: str) -> list[Received]:
        """One span of each name, in that order, as soon as all have come."""
        async with asyncio.timeout(ARRIVES_S):
            while True:
                found = {span.name: span for span in reversed(self.spans)}
                if found.keys() >= set(names):
                    return [found[name] for name in names]
                await asyncio.sleep(0.02)

    def __enter__(self) -> OtlpReceiver:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()


def _received(span: OtlpSpan, about: Mapping[str, object]) -> Received:
    return Received(
        str(about["service.instance.id"]),
        str(about["service.name"]),
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        OtlpSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.trace_state,
        span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9,
        span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None,
        {each.key: _value(each.value) for each in span.attributes},
    )


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None
