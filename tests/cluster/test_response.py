"""A P0 alert reaches a webhook within a second, also when who sends it was killed meanwhile."""

from __future__ import annotations

import time
from typing import Any, cast
from uuid import UUID

import pytest

from tests.cluster.instance import Cluster, until
from tests.cluster.receiver import Post, Receiver

pytestmark = pytest.mark.cluster

#: Of a body of Alertmanager's webhook, version 4.
FIELDS = {
    "receiver", "status", "alerts", "groupLabels", "commonLabels", "commonAnnotations", "externalURL", "version",
    "groupKey", "truncatedAlerts",
}  # fmt: skip


def send(cluster: Cluster, service: str, **more: str) -> float:
    """A P0 alert, acknowledged; when (time.time())."""
    labels = {"alertname": "Down", "service": service, "severity": "emergency"}
    answer = cluster.call("POST", "/v1/alerts", {"labels": labels, **more})
    assert answer.status == 202, answer.body
    return time.time()


def first(receiver: Receiver, service: str, status: str, timeout_s: float) -> Post:
    def found() -> list[Post]:
        return [post for post in receiver.of(service) if post.taken and post.body["status"] == status]

    until(f"a notification that {service} is {status}", found, timeout_s)
    return found()[0]


def check_body(post: Post, service: str) -> None:
    body = post.body
    assert set(body) >= FIELDS and body["version"] == "4"
    (alert,) = cast("list[Any]", body["alerts"])
    assert alert["labels"]["service"] == service and alert["status"] == body["status"]
    incident = body["incident"]
    assert isinstance(incident, dict) and incident["severity"] == "P0"
    # <incident>-<number>-<attempt>: the receiver can tell a repeat.
    identity, _number, _attempt = post.key.rsplit("-", 2)
    assert UUID(identity) == UUID(incident["id"])


def test_a_p0_alert_is_told_within_a_second_and_so_is_its_end(cluster: Cluster, receiver: Receiver) -> None:
    send(cluster, "warm-up")
    first(receiver, "warm-up", "firing", 10.0)

    acknowledged_at = send(cluster, "paging")
    post = first(receiver, "paging", "firing", 5.0)
    print(f"first notification {post.at - acknowledged_at:.3f} s after the acknowledgement")
    assert post.at - acknowledged_at < 1.0
    check_body(post, "paging")

    ended_at = send(cluster, "paging", status="resolved")
    post = first(receiver, "paging", "resolved", 5.0)
    print(f"notification of the end {post.at - ended_at:.3f} s after the acknowledgement")
    check_body(post, "paging")


@pytest.mark.parametrize("actor", ["classifier-0", "responder-0"])
def test_a_notification_arrives_although_an_actor_on_its_way_is_killed(
    cluster: Cluster, receiver: Receiver, actor: str
) -> None:
    service = f"killed-{actor}"

    cluster.kill(cluster.actor_pid(actor))
    acknowledged_at = send(cluster, service)

    post = first(receiver, service, "firing", 20.0)
    print(f"{actor} killed: first notification {post.at - acknowledged_at:.3f} s after the acknowledgement")
    check_body(post, service)
    assert len({each.key for each in receiver.of(service)}) == 1


def test_a_notification_that_is_owed_survives_its_shard(cluster: Cluster, receiver: Receiver) -> None:
    service = cluster.service_of_shard(0, "owed")
    receiver.refuse = 1

    send(cluster, service)
    until("a first try that is refused", lambda: receiver.of(service), 10.0)
    cluster.kill(cluster.actor_pid("shard-0000-a"))

    post = first(receiver, service, "firing", 20.0)
    check_body(post, service)
    assert [each.taken for each in receiver.of(service)] == [False, True]
