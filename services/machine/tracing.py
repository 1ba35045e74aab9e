"""Port Tracer by OpenTelemetry: spans go to an OTLP/HTTP receiver. The only importer of opentelemetry, and imported
only when [telemetry] names an endpoint: it costs a process 0.1 s at its start.

    with tracer.span() --> queue, bounded --> a thread of its own --> POST endpoint/v1/traces

Nothing here delays the work or makes it fail. While the receiver is down the queue overflows and its oldest spans are
lost; the log says so when it begins, once a minute while it lasts, and when it is over.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

import structlog
from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace.span import TraceState

from actors.runtime.untraced import OUTSIDE, NotRecorded
from models import VERSION
from models.trace import Attribute, Kind, is_sampled, trace_id_of

log = structlog.get_logger()

#: Spans that wait, about 2 KB each. Past it the oldest are lost.
QUEUE_MAX = 2048
#: Spans in one request: making it takes 10 ms, in which the process does nothing else.
BATCH_MAX = 256
#: How long a span waits for others.
EVERY_S = 1.0
#: One request with its retries. A receiver that hangs for longer loses it.
TIMEOUT_S = 5.0
#: What stopping waits for the last spans: an actor has 5 s to stop in all.
CLOSE_S = 2.0
#: How often to log about a receiver that stays down.
COMPLAIN_EVERY_S = 60.0

_KINDS = {"internal": otel.SpanKind.INTERNAL, "server": otel.SpanKind.SERVER, "client": otel.SpanKind.CLIENT}


class OtlpTracer:
    """One a process. Whether a trace is recorded was decided by who began it; `sample_ratio` is for those that begin
    here."""

    def __init__(
        self,
        instance: str,
        *,
        endpoint: str,
        headers: Mapping[str, str],
        sample_ratio: float,
        service_name: str,
    ) -> None:
        """Opens no connection. `instance` tells the processes of one service apart."""
        self._sample_ratio = sample_ratio
        exporter = OTLPSpanExporter(
            traces_url(endpoint), headers=dict(headers), timeout=TIMEOUT_S, compression=Compression.Gzip
        )
        self._processor = BatchSpanProcessor(
            _LoggedFailures(exporter, instance),
            max_queue_size=QUEUE_MAX,
            schedule_delay_millis=EVERY_S * 1000,
            max_export_batch_size=BATCH_MAX,
        )
        # Ours alone, not the process-wide one: a library that traces by itself has not been asked to.
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(
                {
                    "service.name": service_name,
                    "service.version": VERSION,
                    "service.instance.id": instance,
                }
            ),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("llm-incident-manager", VERSION)

    def wants(self, trace: str | None) -> bool:
        return trace is not None and is_sampled(trace)

    def span(
        self,
        name: str,
        parent: str | None,
        attributes: Mapping[str, Attribute] | None = None,
        *,
        kind: Kind = "internal",
        since: float | None = None,
    ) -> NotRecorded | _Recorded:
        if parent is None:
            # Decided here, not by the SDK: it takes 10 us for one that is not to be.
            if kind != "server" or random.random() >= self._sample_ratio:  # noqa: S311 - no secret
                return OUTSIDE
            context = otel.set_span_in_context(otel.INVALID_SPAN)
        elif is_sampled(parent):
            context = otel.set_span_in_context(otel.NonRecordingSpan(_context_of(parent)))
        else:
            return NotRecorded(parent)
        started = None if since is None else int(since * 1e9)
        span = self._tracer.start_span(
            name, context, _KINDS[kind], attributes, start_time=started, record_exception=False
        )
        # It is not when the environment says OTEL_SDK_DISABLED.
        return _Recorded(span) if span.is_recording() else NotRecorded(parent)

    async def close(self) -> None:
        # A thread of its own: the SDK waits for a receiver that hangs for half a minute, and nobody here does.
        closing = threading.Thread(target=self._processor.shutdown, name="traces-close", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_S)


class _Recorded:
    """A span under way; log lines within have its trace id."""

    __slots__ = ("_bound", "_span", "trace")

    def __init__(self, span: otel.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace: str | None = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        )
        if context.trace_state:
            self.trace += f" {context.trace_state.to_header()}"

    def __enter__(self) -> _Recorded:
        self._bound = structlog.contextvars.bind_contextvars(trace_id=trace_id_of(self.trace))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        structlog.contextvars.reset_contextvars(**self._bound)
        if kind is not None:
            # Its text may hold what a sender said, or a secret.
            self.fail(kind.__name__)
        self._span.end()

    def note(self, name: str, value: Attribute) -> None:
        self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, why: str) -> None:
        self._span.set_status(otel.StatusCode.ERROR, why)


class _LoggedFailures(SpanExporter):
    """An exporter whose failures are told in our log, in few lines. Runs in the processor's thread."""

    def __init__(self, exporter: SpanExporter, instance: str) -> None:
        self._exporter = exporter
        self._log = log.bind(actor=instance)
        self._lost = 0
        self._complained_at = -COMPLAIN_EVERY_S

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            self._complain("traces not exported", why=_library.why, lost=self._lost)
        elif self._lost:
            self._log.info("traces are exported again", lost=self._lost)
            self._lost = 0
        elif _library.ran_over:
            _library.ran_over = False
            self._complain("traces lost: more spans than the receiver takes", waiting_at_most=QUEUE_MAX)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _complain(self, what: str, **fields: object) -> None:
        now = time.monotonic()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            self._log.warning(what, **fields)


class _Library(logging.Handler):
    """Takes what OpenTelemetry itself logs, which is a line or more for each span that it loses; but nobody else says
    why a request failed, and that the queue ran over."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.why = ""
        self.ran_over = False
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("opentelemetry.exporter"):
            self.why = record.getMessage()
        elif record.name == "opentelemetry.sdk._shared_internal":
            self.ran_over = True


_library = _Library()


def traces_url(endpoint: str) -> str:
    """Where traces are POSTed: OTLP's own path below the endpoint, unless it is there already."""
    base = endpoint.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"


def _context_of(trace: str) -> otel.SpanContext:
    traceparent, _, tracestate = trace.partition(" ")
    _version, trace_id, span_id, flags = traceparent.split("-")
    return otel.SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=otel.TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([tracestate]) if tracestate else None,
    )
