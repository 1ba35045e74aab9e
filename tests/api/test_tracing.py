"""Traces: taken from the sender, carried from the door to the webhook, exported by OTLP, and never in anybody's way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from aiohttp import web

from actors.shard import IncidentShard
from models.incidents.verbs import Acknowledge
from models.partitions import decode_frame
from models.shard.messages import Command, encode
from services.machine import tracing
from services.machine.tracing import BATCH_MAX, QUEUE_MAX, OtlpTracer, traces_url
from tests.api.gateway_in_process import SqliteStores, System, alert, system
from tests.api.otlp_receiver import OtlpReceiver, Received
from tests.ports import free_port

pytestmark = pytest.mark.asyncio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Spans need not wait a second for others here.
    monkeypatch.setattr(tracing, "EVERY_S", 0.05)


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as listening:
        yield listening


@asynccontextmanager
async def a_webhook(status: int = 200) -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """A receiver of notifications: its URL, and the headers of all it got."""
    got: list[dict[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        got.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", got
    finally:
        await runner.cleanup()


async def heard(got: list[dict[str, str]], count: int = 1) -> list[dict[str, str]]:
    async with asyncio.timeout(5):
        while len(got) < count:
            await asyncio.sleep(0.01)
    return got


async def post_after(ours: System, receiver: OtlpReceiver, name: str) -> list[Received]:
    """What came of all that was asked so far: everything up to the span of one more new alert."""
    await ours.post("/v1/alerts", [alert(name)], headers={"traceparent": f"00-{'f' * 32}-{'e' * 16}-01"})
    async with asyncio.timeout(10):
        while not {"POST /v1/alerts", "commit"} <= {s.name for s in receiver.spans if s.trace_id == "f" * 32}:
            await asyncio.sleep(0.02)
    return [span for span in receiver.spans if span.trace_id != "f" * 32]


# -- from the sender to the receiver of the notification ---------------------------------------------------------


@pytest.mark.usefixtures("both_ways")
async def test_a_senders_trace_goes_through_gateway_shard_classifier_and_action(
    receiver: OtlpReceiver,
) -> None:
    began_at = time.time()
    async with (
        a_webhook() as (url, got),
        system(telemetry={"endpoint": receiver.endpoint}, notify={"webhook": {"url": url}}) as ours,
    ):
        answer = await ours.post("/v1/alerts", [alert("Down", severity="emergency")], headers=SAMPLED)
        post, commit, classify, act = await receiver.wait_for(
            "POST /v1/alerts", "commit", "classify", "act webhook"
        )
        (headers,) = await heard(got)

    assert {span.trace_id for span in (post, commit, classify, act)} == {TRACE}
    assert post.parent_id == "00f067aa0ba902b7"
    assert commit.parent_id == post.span_id
    assert (classify.parent_id, act.parent_id) == (commit.span_id, commit.span_id)
    assert [span.kind for span in (post, commit, classify, act)] == [
        "server", "internal", "internal", "client",
    ]  # fmt: skip
    assert headers["traceparent"] == f"00-{TRACE}-{act.span_id}-01"
    incident = answer.items[0]["incident_id"]
    assert commit.attributes["llm_im.incident_ids"] == [incident]
    assert (classify.attributes["llm_im.incident_id"], act.attributes["llm_im.incident_id"]) == (
        incident,
        incident,
    )
    assert post.attributes["http.response.status_code"] == 202 and post.attributes["llm_im.alerts"] == 1
    assert [span.instance for span in (post, commit, classify, act)] == [
        "gateway-test", "shard-0000-a", "classifier-0", "responder-0",
    ]  # fmt: skip
    for span in (post, commit, classify, act):
        assert began_at - 1 < span.started_at <= span.ended_at < time.time() + 1


@pytest.mark.usefixtures("both_ways")
async def test_tracestate_is_passed_on(receiver: OtlpReceiver) -> None:
    state = {**SAMPLED, "tracestate": "vendor=a b,other=1"}
    async with (
        a_webhook() as (url, got),
        system(telemetry={"endpoint": receiver.endpoint}, notify={"webhook": {"url": url}}) as ours,
    ):
        await ours.post("/v1/alerts", [alert("Down", severity="emergency")], headers=state)
        (act,) = await receiver.wait_for("act webhook")
        (headers,) = await heard(got)

    assert act.state == "vendor=a b,other=1" == headers["tracestate"]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("headers", [SAMPLED, NOT_SAMPLED])
async def test_without_telemetry_a_senders_context_reaches_the_webhook_as_it_was(
    headers: dict[str, str],
) -> None:
    async with a_webhook() as (url, got), system(notify={"webhook": {"url": url}}) as ours:
        await ours.post("/v1/alerts", [alert("Down", severity="emergency")], headers=headers)
        (heard_headers,) = await heard(got)

    assert heard_headers["traceparent"] == headers["traceparent"]


async def test_a_notification_of_the_end_belongs_to_the_request_that_brought_it(
    receiver: OtlpReceiver,
) -> None:
    ended = alert("Down", severity="emergency") | {"status": "resolved"}
    async with (
        a_webhook() as (url, got),
        system(
            telemetry={"endpoint": receiver.endpoint}, notify={"webhook": {"url": url}, "interval": "0s"}
        ) as ours,
    ):
        await ours.post("/v1/alerts", [alert("Down", severity="emergency")], headers=SAMPLED)
        await heard(got)
        await ours.post("/v1/alerts", [ended], headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
        opened, resolved = await heard(got, 2)

    assert (opened["traceparent"][3:35], resolved["traceparent"][3:35]) == (TRACE, "a" * 32)


async def test_a_failed_notification_is_a_failed_span_and_each_try_is_one(receiver: OtlpReceiver) -> None:
    notify = {"retry_first": "0.05s"}
    async with (
        a_webhook(503) as (url, got),
        system(telemetry={"endpoint": receiver.endpoint}, notify={"webhook": {"url": url}, **notify}) as ours,
    ):
        await ours.post("/v1/alerts", [alert("Down", severity="emergency")], headers=SAMPLED)
        await heard(got, 2)
        async with asyncio.timeout(10):
            while len(acts := [span for span in receiver.spans if span.name == "act webhook"]) < 2:
                await asyncio.sleep(0.02)

    assert acts[0].failed is not None and "answered 503" in acts[0].failed
    assert [act.attributes["llm_im.attempt"] for act in acts[:2]] == [0, 1]


# -- what makes a span, and what does not -----------------------------------------------------------------


@pytest.mark.usefixtures("both_ways")
async def test_alerts_that_all_repeat_make_no_span_in_the_shard(receiver: OtlpReceiver) -> None:
    batch = [alert("Down", pod=str(pod)) for pod in range(20)]
    async with system(telemetry={"endpoint": receiver.endpoint}) as ours:
        await ours.post("/v1/alerts", batch)
        for _ in range(5):
            answer = await ours.post("/v1/alerts", batch, headers=SAMPLED)
        spans = await post_after(ours, receiver, "Other")

    assert {item["decision"] for item in answer.items} == {"repeated"}
    assert [span.name for span in spans if span.trace_id == TRACE] == ["POST /v1/alerts"] * 5


@pytest.mark.usefixtures("both_ways")
async def test_a_trace_that_its_sender_does_not_record_is_not_recorded_here(receiver: OtlpReceiver) -> None:
    async with system(telemetry={"endpoint": receiver.endpoint, "sample_ratio": 1}) as ours:
        await ours.post("/v1/alerts", [alert("Down")], headers=NOT_SAMPLED)
        spans = await post_after(ours, receiver, "Other")

    assert spans == []


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("ratio", "begun"), [(0, 0), (1, 1)])
async def test_a_request_without_a_trace_begins_one_by_the_sample_ratio(
    receiver: OtlpReceiver, ratio: int, begun: int
) -> None:
    async with system(telemetry={"endpoint": receiver.endpoint, "sample_ratio": ratio}) as ours:
        await ours.post("/v1/alerts", [alert("Down")])
        spans = await post_after(ours, receiver, "Other")

    doors = [span for span in spans if span.name == "POST /v1/alerts"]
    assert len(doors) == begun
    assert all(span.parent_id == "" and len(span.trace_id) == 32 for span in doors)


async def test_a_read_is_a_span_named_by_its_route(receiver: OtlpReceiver) -> None:
    async with system(telemetry={"endpoint": receiver.endpoint}) as ours:
        opened = await ours.post("/v1/alerts", [alert("Down")])
        path = f"/v1/incidents/{opened.items[0]['incident_id']}"
        await ours.request("GET", path, [b""], [(b"traceparent", SAMPLED["traceparent"].encode())])
        (span,) = await receiver.wait_for("GET /v1/incidents/{incident_id}")

    assert span.attributes["http.route"] == "/v1/incidents/{incident_id}"
    assert span.attributes["http.response.status_code"] == 200
    assert (span.trace_id, span.kind) == (TRACE, "server")


async def test_probes_and_metrics_make_no_spans(receiver: OtlpReceiver) -> None:
    async with system(telemetry={"endpoint": receiver.endpoint, "sample_ratio": 1}) as ours:
        for path in ("/-/healthy", "/health/ready", "/metrics"):
            await ours.get(path)
        spans = await post_after(ours, receiver, "Down")

    assert spans == []


async def timeline(ours: System, path: str) -> dict[str, dict[str, str]]:
    """The metadata and actor of each line, by its kind."""
    items = json.loads((await ours.get(path)).body)["items"]
    return {item["event_type"]: {**item["metadata"], "actor": item["actor"]} for item in items}


# -- where people find the trace id ------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["on", None])
async def test_a_problem_document_has_the_trace_id(receiver: OtlpReceiver, endpoint: str | None) -> None:
    telemetry = {"endpoint": receiver.endpoint if endpoint else None, "sample_ratio": 0}
    header = [(b"traceparent", SAMPLED["traceparent"].encode())]
    async with system(telemetry=telemetry) as ours:
        refused = await ours.post("/v1/alerts", b"{}", content_type="text/plain", headers=SAMPLED)
        missing = await ours.request("GET", "/v1/nothing", [b""], header)
        outside = await ours.get("/v1/nothing")
        without = await ours.post("/v1/alerts", b"{}", content_type="text/plain")

    assert (refused.status, json.loads(refused.body)["trace_id"]) == (415, TRACE)
    assert (missing.status, json.loads(missing.body)["trace_id"]) == (404, TRACE)
    assert "trace_id" not in json.loads(outside.body) and "trace_id" not in json.loads(without.body)


async def test_the_log_has_the_trace_id_of_what_opened_and_judged_an_incident() -> None:
    async with system() as ours:
        await ours.post("/v1/alerts", [alert("Down")], headers=SAMPLED)
        shard = ours.cluster.get("shard-0000-a")
        assert isinstance(shard, IncidentShard)
        async with asyncio.timeout(5):
            while not any(each.classified_by for each in shard.shard.state.incidents.values()):
                await asyncio.sleep(0.01)
        frames = [
            decode_frame("shard/0000", stored, seq, None)
            for seq, stored in await shard.event_log.read(0, 1 << 20)
        ]

    found = {type(event).__name__: frame.trace_id for frame in frames for event in frame.events}
    assert (found["IncidentOpened"], found["IncidentClassified"]) == (TRACE, TRACE)
    assert found["ShardStarted"] is None


async def test_the_timeline_has_the_trace_id_of_whatever_a_request_led_to() -> None:
    async with (
        a_webhook() as (url, got),
        system(notify={"webhook": {"url": url}}) as ours,
    ):
        opened = await ours.post("/v1/alerts", [alert("Down", severity="emergency")], headers=SAMPLED)
        path = f"/v1/incidents/{opened.items[0]['incident_id']}/timeline"
        await heard(got)
        async with asyncio.timeout(5):
            while "NotificationSent" not in (lines := await timeline(ours, path)):
                await asyncio.sleep(0.02)

    assert {"Created", "Classified", "StateChanged", "NotificationSent"} <= lines.keys()
    assert {kind: about.get("trace_id") for kind, about in lines.items()} == dict.fromkeys(lines, TRACE)


async def test_a_recovered_shard_shows_the_same_timeline(tmp_path: Path) -> None:
    async with system(SqliteStores(tmp_path)) as ours:
        opened = await ours.post("/v1/alerts", [alert("Down")], headers=SAMPLED)
        path = f"/v1/incidents/{opened.items[0]['incident_id']}/timeline"
        async with asyncio.timeout(5):
            while "Classified" not in (before := await timeline(ours, path)):
                await asyncio.sleep(0.02)
        await ours.crash("shard-0000-a")
        await ours.cluster.restart("shard-0000-a")
        await ours.ready()
        after = await timeline(ours, path)

    assert before == after and after["Created"]["trace_id"] == TRACE


async def test_what_a_person_does_is_a_commit_of_the_requests_trace(receiver: OtlpReceiver) -> None:
    async with system(telemetry={"endpoint": receiver.endpoint, "sample_ratio": 0}) as ours:
        opened = await ours.post("/v1/alerts", [alert("Down")])
        incident = UUID(str(opened.items[0]["incident_id"]))
        command = Command(
            b"c" * 16,
            "default",
            "ann",
            incident.bytes,
            Acknowledge(),
            trace_id=TRACE,
            trace=SAMPLED["traceparent"],
        )
        await ours.gateway.station.submitter.lines[0].tell(encode(command), 1)
        (commit,) = await receiver.wait_for("commit")
        lines = await timeline(ours, f"/v1/incidents/{incident}/timeline")

    assert commit.parent_id == "00f067aa0ba902b7"
    assert commit.attributes["llm_im.incident_ids"] == [str(incident)]
    assert {"ann"} == {about["actor"] for about in lines.values() if about.get("trace_id") == TRACE}


async def test_a_log_line_about_an_effect_has_its_trace_id() -> None:
    with structlog.testing.capture_logs() as lines:
        async with system(classify=False) as ours:
            await ours.post("/v1/alerts", [alert("Down")], headers=SAMPLED)
            async with asyncio.timeout(5):
                while not (late := [line for line in lines if "not delivered" in line["event"]]):
                    await asyncio.sleep(0.01)

    assert late[0]["trace_id"] == TRACE


async def test_a_bug_is_logged_with_the_trace_id_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_given: object) -> None:
        raise ZeroDivisionError("s3cret")

    header = [(b"traceparent", SAMPLED["traceparent"].encode())]
    merged = [structlog.contextvars.merge_contextvars]
    async with system() as ours:
        monkeypatch.setattr(ours.gateway.reads, "incident", broken)
        with (
            structlog.testing.capture_logs(processors=merged) as lines,
            pytest.raises(ZeroDivisionError),
        ):
            await ours.request("GET", f"/v1/incidents/{UUID(int=7)}", [b""], header)

    (line,) = [line for line in lines if line["event"] == "bug: request failed"]
    assert (line["trace_id"], line["why"]) == (TRACE, "ZeroDivisionError")
    assert "s3cret" not in str(line) and "trace_id" not in structlog.contextvars.get_contextvars()


# -- the exporter is in nobody's way -----------------------------------------------------------------------


async def test_headers_and_path_are_those_of_the_settings(receiver: OtlpReceiver) -> None:
    telemetry = {
        "endpoint": receiver.endpoint,
        "headers": {"Authorization": "Bearer s3cret"},
        "service_name": "pager",
    }
    async with system(telemetry=telemetry) as ours:
        await ours.post("/v1/alerts", [alert("Down")], headers=SAMPLED)
        (span,) = await receiver.wait_for("POST /v1/alerts")

    assert receiver.headers[0]["authorization"] == "Bearer s3cret"
    assert receiver.headers[0]["content-type"] == "application/x-protobuf"
    assert (receiver.paths[0], span.service) == ("/v1/traces", "pager")


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://a:4318", "http://a:4318/v1/traces"),
        ("http://a:4318/", "http://a:4318/v1/traces"),
        ("https://a/otlp", "https://a/otlp/v1/traces"),
        ("https://a/otlp/v1/traces", "https://a/otlp/v1/traces"),
    ],
)
async def test_the_path_is_added_to_the_endpoint_unless_it_is_there(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url


async def test_a_receiver_that_hangs_holds_up_neither_ingest_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "CLOSE_S", 0.1)
    with OtlpReceiver(answers=None) as hanging:
        async with system(telemetry={"endpoint": hanging.endpoint, "sample_ratio": 1}) as ours:
            for number in range(50):
                answer = await ours.post("/v1/alerts", [alert(f"Down{number}")])
                assert answer.status == 202
            async with asyncio.timeout(10):
                while not hanging.asked:
                    await asyncio.sleep(0.02)
            # It hangs now, with a request of ours in its hands.
            answer = await ours.post("/v1/alerts", [alert("Last")])
            names = await ours.names()

    assert answer.status == 202 and len(names) == 51


@pytest.mark.parametrize("answers", [500, 401, None], ids=["500", "401", "refuses"])
async def test_a_receiver_that_fails_costs_spans_only_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, answers: int | None
) -> None:
    monkeypatch.setattr(tracing, "TIMEOUT_S", 0.2)
    with OtlpReceiver(answers or 500) as failing, structlog.testing.capture_logs() as lines:
        endpoint = failing.endpoint if answers else f"http://127.0.0.1:{free_port()}"
        tracer = OtlpTracer(
            "a", endpoint=endpoint, headers={"x-key": "s3cret"}, sample_ratio=1, service_name="s"
        )
        for _ in range(3):
            with tracer.span("GET /", None, kind="server"):
                pass
            await asyncio.sleep(0.3)
        await tracer.close()

    told = [line for line in lines if (line["event"], line["actor"]) == ("traces not exported", "a")]
    assert len(told) == 1 and told[0]["why"] and "s3cret" not in str(lines)


async def test_the_log_says_when_a_receiver_is_back_and_what_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with OtlpReceiver(400) as receiver, structlog.testing.capture_logs() as lines:
        tracer = OtlpTracer("a", endpoint=receiver.endpoint, headers={}, sample_ratio=1, service_name="s")
        for status in (400, 200):
            receiver.answers = status
            asked = receiver.asked
            with tracer.span("GET /", None, kind="server"):
                pass
            async with asyncio.timeout(5):
                while receiver.asked == asked:
                    await asyncio.sleep(0.01)
        await tracer.close()

    assert ("traces are exported again", 1) in [(line["event"], line.get("lost")) for line in lines]


async def test_more_spans_than_can_wait_are_lost_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "CLOSE_S", 5.0)
    with OtlpReceiver(answers=None) as receiver, structlog.testing.capture_logs() as lines:
        tracer = OtlpTracer("a", endpoint=receiver.endpoint, headers={}, sample_ratio=1, service_name="s")
        for number in range(QUEUE_MAX * 2):
            with tracer.span(f"GET /{number}", None, kind="server"):
                pass
        waiting = len(tracer._processor._batch_processor._queue)
        receiver.answers = 200
        receiver._closing.set()
        await tracer.close()

    assert waiting <= QUEUE_MAX
    assert f"GET /{QUEUE_MAX * 2 - 1}" in {span.name for span in receiver.spans}
    # What waited, and the batch that was under way.
    assert len(receiver.spans) <= QUEUE_MAX + BATCH_MAX
    assert "traces lost: more spans than the receiver takes" in [line["event"] for line in lines]


async def test_an_error_within_a_span_is_told_by_its_kind_alone(receiver: OtlpReceiver) -> None:
    tracer = OtlpTracer("a", endpoint=receiver.endpoint, headers={}, sample_ratio=1, service_name="s")
    with pytest.raises(ValueError, match="s3cret"), tracer.span("GET /", None, kind="server"):
        raise ValueError("s3cret")
    await tracer.close()

    (span,) = receiver.spans
    assert span.failed == "ValueError" and "s3cret" not in str(span)
