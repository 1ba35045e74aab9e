"""A model is trained by a process of its own, which is killed in the middle, and is gone when it is done."""

from __future__ import annotations

import pytest

from tests.cluster.instance import Cluster, until

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install llm-incident-manager[learn]")
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

#: As many as learning.min_examples asks for by default.
SERVICES = [f"learned-{number}" for number in range(25)]
WANTED = {
    "LearnedQuotaGone": {"severity": "P0", "incident_type": "Compliance"},
    "LearnedReportOdd": {"severity": "P4", "incident_type": "Data"},
}


def test_a_trainer_that_is_killed_is_started_again_and_is_gone_when_it_is_done(cluster: Cluster) -> None:
    alerts = [{"labels": {"alertname": name, "service": service}} for service in SERVICES for name in WANTED]
    stored = cluster.call("POST", "/v1/alerts", alerts).json()["items"]
    for sent, kept in zip(alerts, stored, strict=True):
        path = f"/v1/incidents/{kept['incident_id']}/reclassify"
        assert cluster.call("POST", path, WANTED[sent["labels"]["alertname"]]).status == 200

    asked = cluster.call("POST", "/v1/models/train", {}, headers={"X-Actor": "ann"}).json()
    until("the trainer is there", lambda: cluster.actor_pid("trainer-0"), 60)
    cluster.kill(cluster.actor_pid("trainer-0"))
    until("the training ended", lambda: cluster.get("/v1/models")["training"]["ended_at"], 120)

    training, (model,) = cluster.get("/v1/models")["training"], cluster.get("/v1/models")["items"]
    assert (training["id"], training["version"], training["reason"]) == (asked["id"], 1, "")
    assert (model["state"], model["corrected"], model["evaluated_by"]) == ("shadow", 50, "service")
    until("nothing of it stays", lambda: "trainer-0" not in cluster.actors(), 30)
