"""A sender's trace, through the processes of a real instance to a real receiver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.otlp_receiver import OtlpReceiver
from tests.cluster.instance import Cluster, free_port, until
from tests.cluster.receiver import Receiver

pytestmark = pytest.mark.cluster

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


@pytest.fixture
def collector() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as found:
        yield found


@pytest.fixture
def traced(tmp_path: Path, receiver: Receiver, collector: OtlpReceiver) -> Iterator[Cluster]:
    """An instance of its own: telemetry is decided when it starts."""
    cluster = Cluster(
        tmp_path / "data",
        free_port(),
        {
            "LLM_IM_NOTIFY__WEBHOOK__URL": receiver.url,
            "LLM_IM_TELEMETRY__ENDPOINT": collector.endpoint,
            "LLM_IM_TELEMETRY__HEADERS": '{"authorization": "Bearer s3cret"}',
            "LLM_IM_TELEMETRY__SAMPLE_RATIO": "0",
        },
    )
    cluster.up()
    try:
        yield cluster
    finally:
        cluster.down()


def test_each_process_sends_its_span_of_an_alerts_trace(traced: Cluster, collector: OtlpReceiver) -> None:
    labels = {"alertname": "Down", "service": "api", "severity": "emergency"}
    answer = traced.call("POST", "/v1/alerts", {"labels": labels}, headers=SAMPLED)
    assert answer.status == 202, answer.body

    until("all spans", lambda: len(collector.spans) >= 4, 20.0)

    by_name = {span.name: span for span in collector.spans}
    assert set(by_name) == {"POST /v1/alerts", "commit", "classify", "act webhook"}
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert by_name["act webhook"].parent_id == by_name["commit"].span_id
    assert by_name["commit"].parent_id == by_name["POST /v1/alerts"].span_id
    assert len({span.instance for span in collector.spans}) == 4
    assert {headers["authorization"] for headers in collector.headers} == {"Bearer s3cret"}

    # A killed shard comes back with telemetry on, and goes on being traced.
    traced.kill(traced.actor_pid("shard-0000-a"))
    answer = traced.call("POST", "/v1/alerts", {"labels": {**labels, "alertname": "Again"}}, headers=SAMPLED)
    assert answer.status == 202, answer.body
    until("a span of the new process", lambda: [s.name for s in collector.spans].count("commit") >= 2, 20.0)
    logs = [*Path(traced.instance.private_dir).rglob("worker-*.err"), *traced.data.rglob("*.log")]
    assert logs and not [path for path in logs if "s3cret" in path.read_text("utf-8", "replace")]
