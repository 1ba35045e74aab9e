"""A sender's trace, through the processes of a real instance to a real receiver."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.otlp_receiver import OtlpReceiver, Received
from tests.cluster.conftest import COLLECTOR_SECRET
from tests.cluster.instance import Cluster, until

pytestmark = pytest.mark.cluster

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def test_each_process_sends_its_span_of_an_alerts_trace(cluster: Cluster, collector: OtlpReceiver) -> None:
    labels = {"alertname": "Down", "service": cluster.service_of_shard(0, "traced"), "severity": "emergency"}

    def spans() -> list[Received]:
        return [span for span in collector.spans if span.trace_id == TRACE]

    answer = cluster.call("POST", "/v1/alerts", {"labels": labels}, headers=SAMPLED)
    assert answer.status == 202, answer.body
    until("all spans", lambda: len(spans()) >= 4, 20.0)

    by_name = {span.name: span for span in spans()}
    assert set(by_name) == {"POST /v1/alerts", "commit", "classify", "act webhook"}
    assert by_name["act webhook"].parent_id == by_name["commit"].span_id
    assert by_name["commit"].parent_id == by_name["POST /v1/alerts"].span_id
    assert len({span.instance for span in spans()}) == 4
    assert {headers["authorization"] for headers in collector.headers} == {f"Bearer {COLLECTOR_SECRET}"}

    # A killed shard comes back with telemetry on, and goes on being traced.
    cluster.kill(cluster.actor_pid("shard-0000-a"))
    answer = cluster.call("POST", "/v1/alerts", {"labels": {**labels, "alertname": "Again"}}, headers=SAMPLED)
    assert answer.status == 202, answer.body
    until("a span of the new process", lambda: [s.name for s in spans()].count("commit") >= 2, 20.0)
    logs = [*Path(cluster.instance.private_dir).rglob("worker-*.err"), *cluster.data.rglob("*.log")]
    assert logs and not [path for path in logs if COLLECTOR_SECRET in path.read_text("utf-8", "replace")]
