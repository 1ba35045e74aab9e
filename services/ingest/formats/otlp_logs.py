"""OpenTelemetry logs over HTTP (/v1/logs), as JSON or protobuf. Each record is an alert; what it is about (an event's name, an
exception's type, the sentence without its numbers) is what stays the same, so that a line that repeats is one alert.

Send what is worth an alert: an OpenTelemetry Collector filters by severity before it sends (docs/formats.md).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from models.errors import Malformed, TooLarge
from services.ingest.formats.answers import Answer, Refusal, encode_json, error_of, retry_after, status_of
from services.ingest.formats.format import Request
from services.ingest.formats.reading import Reading
from services.ingest.formats.values import Fields, text_of
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, stable_name
from services.ingest.submit import Receipt

#: The batches of a Collector have 8,192 records at most.
BODY_MAX_BYTES = 4 * 1024 * 1024
PROTOBUF = "application/x-protobuf"
#: Severity numbers by their first: TRACE, DEBUG, INFO, WARN, ERROR, FATAL.
_LEVELS = ((21, "fatal"), (17, "error"), (13, "warn"), (9, "info"), (1, "debug"))
#: Attributes that stay the same, and are worth a label: those of GenAI among them.
_LABELS = (
    "deployment.environment.name",
    "deployment.environment",
    "k8s.namespace.name",
    "gen_ai.provider.name",
    "gen_ai.system",
    "gen_ai.operation.name",
    "gen_ai.request.model",
    "error.type",
)
_NAMED = re.compile(r"SEVERITY_NUMBER_([A-Z]+)([234]?)")
_FIRSTS = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}
DEPTH_MAX = 16
#: Attributes of a resource or a record: OpenTelemetry's own SDKs allow 128. Those of a resource count for each of its records.
ATTRIBUTES_MAX = 256


class OtlpLogsFormat(WebhookFormat):
    name = "otlp-logs"
    path = "/v1/logs"
    content_types = ("application/json", PROTOBUF)
    summary = "OpenTelemetry logs (OTLP over HTTP)"
    shape = "resourceLogs, and neither resourceSpans nor resourceMetrics"
    severities = {"fatal": "P1", "error": "P2", "warn": "P3", "info": "P4", "debug": "P4", "": "P4"}
    max_bytes = BODY_MAX_BYTES
    wants_ids = False

    def note(self, body: object, request: Request) -> str:
        return request.content_type

    def parsed(self, request: Request) -> object:
        return _from_protobuf(request.body) if request.content_type == PROTOBUF else super().parsed(request)

    def drafts(self, body: object, request: Request) -> Iterator[Item]:
        sent = Fields(body)
        if "resourceLogs" not in sent:
            raise Malformed("resourceLogs: expected an array, as an ExportLogsServiceRequest has it")
        for resource_logs in sent.objects("resourceLogs"):
            resource = _attributes(resource_logs.inner("resource"))
            for scope_logs in resource_logs.objects("scopeLogs"):
                scope = scope_logs.inner("scope").text("name")
                yield from self.each(
                    scope_logs.members("logRecords"),
                    lambda one, of=resource, by=scope: self._record(one, of, by),  # type: ignore[misc]
                )

    def _record(self, record: Fields, resource: Mapping[str, str], scope: str) -> Draft:
        said = _attributes(record)
        body = _value(record.get("body"), record.path("body"), 0) if "body" in record else ""
        number = _severity(record)
        word = next((word for least, word in _LEVELS if number >= least), record.text("severityText").lower())
        every = {**resource, **said}
        event = record.text("eventName") or said.get("event.name", "")
        error = said.get("exception.type") or said.get("error.type", "")
        title = said.get("exception.message") or body or event or "log record"
        draft = self.alert(
            event or error or stable_name(title),
            resource.get("service.name", "") or scope,
            title=title.partition("\n")[0][:300],
            text=said.get("exception.stacktrace") or body,
            severity=word,
            labels={name.replace(".", "_"): every[name] for name in _LABELS if every.get(name)},
            notes={
                "scope": scope,
                "trace_id": record.text("traceId"),
                "span_id": record.text("spanId"),
                "severity_text": record.text("severityText"),
                **said,
            },
            starts=record.time("timeUnixNano", "observedTimeUnixNano"),
        )
        return draft

    def refused(self, refusal: Refusal) -> Answer:
        # google.rpc.Status as JSON; who sent protobuf reads the status code.
        code = 8 if refusal.status == 429 else 3 if refusal.status < 500 else 14
        body = encode_json({"code": code, "message": refusal.detail})
        return Answer(refusal.status, b"application/json", body, refusal.headers)

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        if (error := error_of(receipt)) is not None:
            body = encode_json({"code": 14, "message": str(error)})
            return Answer(status_of(error), b"application/json", body, retry_after(error))
        if reading.faults and not reading.places and not reading.filtered:
            body = encode_json({"code": 3, "message": reading.faults[0].message})
            return Answer(400, b"application/json", body)
        words = reading.faults[0].message if reading.faults else ""
        if reading.note == PROTOBUF:
            return Answer(200, PROTOBUF.encode(), _partial(len(reading.faults), words))
        partial = {"rejectedLogRecords": str(len(reading.faults)), "errorMessage": words} if words else {}
        return Answer(200, b"application/json", encode_json({"partialSuccess": partial}))

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        return isinstance(body, dict) and "resourceLogs" in body


def _severity(record: Fields) -> int:
    """A severity number; by its name too, as other JSON of protobuf has it (SEVERITY_NUMBER_ERROR2)."""
    named = _NAMED.fullmatch(record.text("severityNumber"))
    if named is None:
        return int(record.number("severityNumber") or 0)
    return _FIRSTS.get(named[1], 0) + int(named[2] or 1) - 1


def _attributes(owner: Fields) -> dict[str, str]:
    return {
        each.need("key"): _value(each.get("value"), each.path("value"), 0)
        for each in islice(owner.objects("attributes"), ATTRIBUTES_MAX)
    }


def _value(value: object, path: str, depth: int) -> str:
    """An AnyValue as text."""
    if isinstance(value, dict) and len(value) == 1:
        # Most are; what follows names what is wrong.
        said = value.get("stringValue")
        if isinstance(said, str) and said.isascii():
            return said.strip()
    if depth > DEPTH_MAX:
        raise Malformed(f"{path}: nested too deeply")
    one = Fields({} if value is None else value, path)
    for name in ("stringValue", "boolValue", "intValue", "doubleValue", "bytesValue"):
        if name in one:
            return text_of(one.get(name), one.path(name))
    if "arrayValue" in one:
        values = one.inner("arrayValue").members("values")
        return ", ".join(_value(each, where, depth + 1) for each, where in values)
    if "kvlistValue" in one:
        pairs: Iterable[Fields] = one.inner("kvlistValue").objects("values")
        return ", ".join(
            f"{each.text('key')}={_value(each.get('value'), each.path('value'), depth + 1)}" for each in pairs
        )
    return ""


def _from_protobuf(body: bytes) -> object:
    """An ExportLogsServiceRequest as its JSON. Raises Malformed, TooLarge."""
    # Here, because it takes a tenth of a second, and most gateways never need it.
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    if len(body) > BODY_MAX_BYTES:
        raise TooLarge(f"{len(body)} bytes in one request, at most {BODY_MAX_BYTES} are allowed")
    request: Any = ExportLogsServiceRequest()
    try:
        request.ParseFromString(body)
        found: dict[str, Any] = MessageToDict(request)
    except (DecodeError, ValueError, RecursionError, TypeError) as error:
        raise Malformed(
            f"the body: expected an ExportLogsServiceRequest of protobuf: {type(error).__name__}"
        ) from None
    _hex_ids(found)
    return found or {"resourceLogs": []}


def _hex_ids(found: dict[str, Any]) -> None:
    """Ids as JSON of OTLP has them, where that of protobuf has base64."""
    for resource_logs in found.get("resourceLogs", []):
        for scope_logs in resource_logs.get("scopeLogs", []):
            for record in scope_logs.get("logRecords", []):
                for name in ("traceId", "spanId"):
                    if name in record:
                        record[name] = base64.b64decode(record[name]).hex()


def _partial(rejected: int, words: str) -> bytes:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    answer: Any = ExportLogsServiceResponse()
    if rejected:
        answer.partial_success.rejected_log_records = rejected
        answer.partial_success.error_message = words
    found: bytes = answer.SerializeToString()
    return found
