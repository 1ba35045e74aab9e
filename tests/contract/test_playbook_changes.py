"""Actions that change a service, by the Kubernetes API and by a hook: against local servers that check each request, and that remember
what was done with which key.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from models.playbook.work import FAILED, SUCCEEDED
from models.settings.playbook_targets import ServiceTarget
from services.playbooks.actions import changes
from services.playbooks.means.kubernetes import DONE, RESTARTED_AT
from tests.contract.kubernetes_stand_in import TOKEN, Kubernetes
from tests.contract.playbook_world import Desk, Serving, answering, desk, serving

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "POLL_S", 0.01)


@dataclass
class Cluster:
    api: Kubernetes
    server: Serving
    desk: Desk

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [
            (got.method, got.path.rpartition("/prod/")[2]) for got in self.server.got if got.method != "GET"
        ]


@asynccontextmanager
async def cluster(looks: int = 0, **service: Any) -> AsyncIterator[Cluster]:
    api = Kubernetes(looks=looks)
    api.deployment()
    async with serving(api.serve) as server:
        given = {
            "kubernetes": {"api": server.url, "token": TOKEN, "ca_file": ""},
            "services": {"llm-api": {"namespace": "prod", **service}, "away-*": {"namespace": "prod"}},
        }
        async with desk(given) as here:
            yield Cluster(api, server, here)


# Kubernetes


async def test_a_restart_changes_the_pod_template_once_for_a_key() -> None:
    async with cluster() as here:
        first = await here.desk.do("service_restart", service="llm-api", method="rolling", key="k1")
        again = await _another(here, "service_restart", key="k1")
        other = await here.desk.do("service_restart", key="k2")
        late = await _another(here, "service_restart", key="k1")

    assert [each.status for each in (first, again, other, late)] == [SUCCEEDED] * 4
    assert here.api.restarts == 2
    assert here.writes == [("PATCH", "deployments/llm-api")] * 2
    assert set(here.api.workload["spec"]["template"]["metadata"]["annotations"]) == {RESTARTED_AT}
    assert here.api.workload["metadata"]["annotations"][DONE] == "k1,k2"
    assert "before" in again.detail


async def _another(here: Cluster, type_: str, **more: Any) -> Any:
    """As a responder that was started anew asks: it remembers nothing."""
    given = {
        "kubernetes": {"api": here.server.url, "token": TOKEN, "ca_file": ""},
        "services": {"llm-api": {"namespace": "prod"}},
    }
    async with desk(given) as fresh:
        return await fresh.do(type_, again=True, **more)


async def test_a_change_that_others_interfere_with_is_decided_anew() -> None:
    async with cluster() as here:
        here.api.conflicts = 2
        done = await here.desk.do("service_restart")
        here.api.conflicts = 100
        given_up = await here.desk.do("service_restart")

    assert done.status == SUCCEEDED
    assert here.api.restarts == 1
    assert given_up.status == FAILED
    assert "the object has been modified" in given_up.detail


async def test_a_restart_waits_until_it_is_rolled_out() -> None:
    async with cluster(looks=4) as here:
        done = await here.desk.do("service_restart", wait_for_healthy=True)

    assert done.status == SUCCEEDED
    assert done.detail.endswith("and it is well")
    assert sum(got.method == "GET" for got in here.server.got) >= 5


async def test_a_rollout_that_gets_stuck_is_a_failure_that_says_why() -> None:
    async with cluster(looks=-1) as here:
        done = await here.desk.do("service_restart", wait_for_healthy=True)
    async with cluster(looks=10_000) as slow:
        late = await slow.desk.do("service_restart", wait_for_healthy=True, timeout_s=0.3)

    assert done.status == FAILED
    assert "did not progress within its deadline" in done.detail
    assert late.status == FAILED
    assert "it is not well: " in late.detail


async def test_a_restarted_service_must_also_answer_at_its_health_url() -> None:
    asked = 0

    async def recovers(_request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(status=200 if asked > 3 else 503)

    async with serving(recovers) as health, cluster(health_url=f"{health.url}/healthz") as here:
        done = await here.desk.do("service_restart", wait_for_healthy=True)

    assert done.detail.endswith("and it is well")
    assert asked == 4


async def test_no_more_restarts_than_max_attempts() -> None:
    async with cluster() as here:
        last = await here.desk.do(
            "service_restart", attempt=2, max_attempts="{{ variables.n }}", variables={"n": 3}
        )
        over = await here.desk.do("service_restart", attempt=3, max_attempts=3)

    assert last.status == SUCCEEDED
    assert (over.final, over.detail) == (True, "service_restart: not tried again: max_attempts is 3")
    assert here.api.restarts == 1


async def test_a_rollback_takes_the_template_of_the_revision_before_once_for_a_key() -> None:
    async with cluster() as here:
        done = await here.desk.do("rollback", key="k1", wait_for_healthy=True)
        image = here.api.workload["spec"]["template"]["spec"]["containers"][0]["image"]
        again = await _another(here, "rollback", key="k1")
        still = here.api.workload["spec"]["template"]["spec"]["containers"][0]["image"]
        named = await here.desk.do("rollback", to_revision=2)

    assert done.outputs == {"from_revision": 2, "to_revision": 1}
    assert (image, still) == ("llm:1", "llm:1")
    assert here.api.workload["spec"]["template"]["metadata"]["labels"] == {"app": "llm-api"}
    assert again.status == SUCCEEDED
    assert named.outputs == {"from_revision": 3, "to_revision": 2}
    assert here.api.workload["spec"]["template"]["spec"]["containers"][0]["image"] == "llm:2"


async def test_another_try_of_a_rollback_or_of_so_many_more_does_not_do_it_again() -> None:
    """A try that was carried out may count as failed: the service was not well in time."""
    async with cluster() as here:
        first = await here.desk.do("rollback", key="run.1.0.2-0")
        second = await here.desk.do("rollback", key="run.1.0.2-1", attempt=1)
        image = here.api.workload["spec"]["template"]["spec"]["containers"][0]["image"]
        up = await here.desk.do("scale", by=2, key="run.1.0.3-0")
        more = await here.desk.do("scale", by=2, key="run.1.0.3-1", attempt=1)
        restarts = [await here.desk.do("service_restart", key=f"run.1.0.4-{n}", attempt=n) for n in (0, 1)]

    assert (first.outputs["to_revision"], second.status, image) == (1, SUCCEEDED, "llm:1")
    assert up.outputs == more.outputs == {"replicas_before": 3, "replicas": 5}
    assert ["being restarted" in each.detail for each in restarts] == [True, True]


async def test_another_try_still_knows_what_there_was_before_the_first() -> None:
    """What undoes a change is written with its outputs: those of a later try must not be what an earlier one made."""
    maps = "/api/v1/namespaces/prod/configmaps/settings"
    routes = "/apis/gateway.networking.k8s.io/v1/namespaces/prod/httproutes/split"
    async with cluster(config_map="settings", http_route="split") as here:
        here.api.put(maps, {"data": {"model": "large"}})
        backends = [{"name": "blue", "weight": 90}, {"name": "green", "weight": 10}]
        here.api.put(routes, {"spec": {"rules": [{"backendRefs": backends}]}})
        tries = []
        for attempt in (0, 1):
            configured = await here.desk.do(
                "config_change", data={"model": "small"}, key=f"run.1-{attempt}", attempt=attempt
            )
            shifted = await here.desk.do(
                "traffic_shift", weights={"blue": 0, "green": 1}, key=f"run.2-{attempt}", attempt=attempt
            )
            scaled = await here.desk.do("scale", replicas=6, key=f"run.3-{attempt}", attempt=attempt)
            tries.append((configured.outputs, shifted.outputs, scaled.outputs))
        other = await here.desk.do("traffic_shift", weights={"blue": 50, "green": 50}, key="run.4-0")

    assert tries[0] == tries[1]
    assert tries[1] == (
        {"before": {"model": "large"}}, {"before": {"blue": 90, "green": 10}}, {"replicas_before": 3, "replicas": 6},
    )  # fmt: skip
    assert other.outputs == {"before": {"blue": 0, "green": 1}}


async def test_a_hook_is_told_the_same_key_for_all_tries_of_what_must_not_add_up() -> None:
    async with serving(answering()) as server, desk(_hooked(server.url)) as here:
        for attempt in (0, 1):
            await here.do("rollback", key=f"run.1.0.2-{attempt}", attempt=attempt)
            await here.do("service_restart", key=f"run.1.0.3-{attempt}", attempt=attempt)

    keys = [(got.json["action"], got.headers["Idempotency-Key"]) for got in server.got]
    assert keys == [
        ("rollback", "run.1.0.2"), ("restart", "run.1.0.3-0"), ("rollback", "run.1.0.2"), ("restart", "run.1.0.3-1"),
    ]  # fmt: skip


async def test_what_cannot_be_rolled_back_says_why() -> None:
    async with cluster() as here:
        missing = await here.desk.do("rollback", to_revision=9)
        here.api.workload["spec"]["paused"] = True
        paused = await here.desk.do("rollback")
    async with cluster(kind="statefulset") as other:
        kind = await other.desk.do("rollback")

    assert "no revision 9 to go back to (there are: 1)" in missing.detail
    assert "is paused" in paused.detail
    assert "only a deployment" in kind.detail
    assert all(each.final and each.status == FAILED for each in (missing, paused, kind))


async def test_scaling_is_by_the_subresource_and_relative_once_for_a_key() -> None:
    async with cluster(max_replicas=8) as here:
        absolute = await here.desk.do("scale", replicas=5)
        up = await here.desk.do("scale", by=2, key="k1")
        again = await _another(here, "scale", by=2, key="k1")
        bounded = await here.desk.do("scale", replicas=1000)
        none = await here.desk.do("scale", replicas=0)

    assert absolute.outputs == {"replicas_before": 3, "replicas": 5}
    assert up.outputs == again.outputs == {"replicas_before": 5, "replicas": 7}
    assert bounded.outputs["replicas"] == 8
    assert none.outputs["replicas"] == 1
    assert [path for _, path in here.writes].count("deployments/llm-api/scale") == 4


async def test_a_scaling_that_was_noted_and_not_done_is_done() -> None:
    async with cluster() as here:
        await here.desk.do("scale", by=2, key="k1")
        here.api.workload["spec"]["replicas"] = 3  # the responder died between the two writes
        again = await _another(here, "scale", by=2, key="k1")

    assert again.outputs == {"replicas_before": 3, "replicas": 5}
    assert here.api.workload["spec"]["replicas"] == 5


async def test_configuration_traffic_and_isolation() -> None:
    maps, routes = (
        "/api/v1/namespaces/prod/configmaps/settings",
        "/apis/gateway.networking.k8s.io/v1/namespaces/prod/httproutes/split",
    )
    policies = "/apis/networking.k8s.io/v1/namespaces/prod/networkpolicies/llm-im-isolate-llm-api"
    async with cluster(config_map="settings", http_route="split") as here:
        here.api.put(maps, {"data": {"model": "large", "api_token": "s3cret"}})
        backends = [{"name": "blue", "port": 80, "weight": 90}, {"name": "green", "port": 80, "weight": 10}]
        here.api.put(
            routes, {"spec": {"rules": [{"matches": [{"path": {"value": "/"}}], "backendRefs": backends}]}}
        )
        configured = await here.desk.do(
            "config_change", data={"model": "small", "debug": True, "api_token": "n3w"}
        )
        shifted = await here.desk.do("traffic_shift", weights={"blue": 0, "green": 100})
        strange = await here.desk.do("traffic_shift", weights={"red": 100})
        isolated = await here.desk.do("isolate", key="k1")
        policy = here.api.at(policies)
        twice = await here.desk.do("isolate", key="k2")
        released = await here.desk.do("isolate", release=True)
        nothing = await here.desk.do("isolate", release=True)

    assert here.api.at(maps)["data"] == {"model": "small", "debug": "true", "api_token": "n3w"}
    assert configured.outputs == {"before": {"model": "large", "debug": None, "api_token": "***"}}
    assert here.api.at(routes)["spec"]["rules"][0]["backendRefs"] == [
        {"name": "blue", "port": 80, "weight": 0}, {"name": "green", "port": 80, "weight": 100},
    ]  # fmt: skip
    assert shifted.outputs == {"before": {"blue": 90, "green": 10}}
    assert "no backend red" in strange.detail
    assert policy["spec"] == {
        "podSelector": {"matchLabels": {"app": "llm-api"}},
        "policyTypes": ["Ingress", "Egress"],
    }
    assert "already" in twice.detail
    assert [each.status for each in (isolated, released, nothing)] == [SUCCEEDED] * 3
    assert policies not in here.api.objects


async def test_a_service_without_a_selector_is_not_isolated_with_its_whole_namespace() -> None:
    async with cluster() as here:
        here.api.workload["spec"]["selector"] = {}
        done = await here.desk.do("isolate")

    assert (done.status, done.final) == (FAILED, True)
    assert not here.writes


async def test_a_snapshot_shows_the_configuration_without_secrets() -> None:
    async with cluster(config_map="settings") as here:
        here.api.put(
            "/api/v1/namespaces/prod/configmaps/settings",
            {"data": {"model": "large", "api_token": "s3cret-of-the-map"}},
        )
        done = await here.desk.do("config_snapshot")

    config = json.loads(done.captures[0].text)
    assert config == done.outputs["config"]
    assert (config["revision"], config["replicas"], config["ready"]) == ("2", 3, 3)
    assert config["containers"][0]["env"] == {
        "MODEL": "large",
        "API_TOKEN": "***",
        "FROM": "(from elsewhere)",
    }
    assert config["config_map"] == {"model": "large", "api_token": "***"}
    assert "s3cret" not in repr(done)


async def test_what_kubernetes_refuses_is_told_in_its_words_and_without_the_token() -> None:
    async with cluster() as here:
        away = await here.desk.do("service_restart", service="away-1")
        unknown = await here.desk.do("service_restart", service="other")
        odd = await here.desk.do("service_restart", service="away-1/../../secrets")
        no_config = await here.desk.do("config_change", data={"a": "b"})
        async with desk(
            {
                "kubernetes": {"api": here.server.url, "token": "wrong-t0ken-of-ours"},
                "services": {"llm-api": {}},
            }
        ) as stranger:
            wrong = await stranger.do("service_restart")
    async with desk({"services": {"llm-api": {}}}) as outside:
        nowhere = await outside.do("service_restart")

    assert "Kubernetes answered 404" in away.detail and away.final
    assert "not known: name it, or a pattern, in [playbooks.services]" in unknown.detail
    assert "is not known" in odd.detail
    assert "no config_map is set" in no_config.detail
    assert "Kubernetes answered 401" in wrong.detail and not wrong.final and "t0ken" not in wrong.detail
    assert "no Kubernetes API is known" in nowhere.detail or "no token" in nowhere.detail


# A hook


def _hooked(url: str, **more: Any) -> dict[str, Any]:
    return {
        "services": {
            "llm-*": {
                "by": "http",
                "url": f"{url}/hooks/{{action}}/{{service}}",
                "token": "hook-t0ken-1",
                **more,
            }
        }
    }


async def test_a_hook_is_told_what_to_do() -> None:
    async with serving(answering(202, {"outputs": {"job": 7}})) as server, desk(_hooked(server.url)) as here:
        done = await here.do("scale", replicas=5, key="k1", timeout_s=30.0)

    [got] = server.got
    assert (got.method, got.path, got.headers["Idempotency-Key"]) == ("POST", "/hooks/scale/llm-api", "k1")
    assert got.headers["Authorization"] == "Bearer hook-t0ken-1"
    assert got.json | {"incident_id": ""} == {
        "action": "scale", "service": "llm-api", "incident_id": "", "key": "k1",
        "parameters": {"replicas": 5, "by": None, "wait_for_healthy": False}, "timeout_seconds": 30.0,
    }  # fmt: skip
    assert (done.status, done.outputs) == (SUCCEEDED, {"job": 7})


@pytest.mark.parametrize(
    ("status", "body", "final", "reached"),
    [
        (200, {"status": "failed", "detail": "no such job"}, False, True),
        (200, {"ok": False, "error": "quota"}, False, True),
        (503, {}, False, True),
        (429, {}, False, False),
        (422, {"detail": "replicas"}, True, False),
        (302, {}, True, False),
        (401, {}, False, False),
    ],
)
async def test_a_hook_that_fails_or_lies_is_no_success(
    status: int, body: dict[str, Any], final: bool, reached: bool
) -> None:
    handler = answering(status, body, Location="http://169.254.169.254/")
    async with serving(handler) as server, desk(_hooked(server.url)) as here:
        done = await here.do("service_restart")

    assert (done.status, done.final, done.reached) == (FAILED, final, reached)
    assert len(server.got) == 1
    assert "t0ken" not in repr(done)


@pytest.mark.parametrize(
    ("status", "posts", "outcome"),
    [
        ("succeeded", 0, SUCCEEDED),
        ("running", 0, SUCCEEDED),
        ("failed", 0, FAILED),
        ("unknown", 1, SUCCEEDED),
        (None, 1, SUCCEEDED),
    ],
)
async def test_a_change_that_may_have_been_made_is_asked_about_first(
    status: str | None, posts: int, outcome: str
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.json_response({})
        assert request.query["key"] == "k1"
        return web.json_response({"status": status}) if status else web.Response(status=404)

    async with (
        serving(handler) as server,
        desk(_hooked(server.url, status_url=f"{server.url}/jobs?v=1")) as here,
    ):
        done = await here.do("service_restart", key="k1", again=True)

    assert done.status == outcome
    assert sum(got.method == "POST" for got in server.got) == posts


async def test_a_status_that_cannot_be_asked_repeats_nothing() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async with serving(handler) as server, desk(_hooked(server.url, status_url=f"{server.url}/jobs")) as here:
        done = await here.do("service_restart", again=True)

    assert (done.status, done.final) == (FAILED, False)
    assert [got.method for got in server.got] == ["GET"]


async def test_waiting_needs_something_to_ask() -> None:
    async with serving(answering()) as server, desk(_hooked(server.url)) as here:
        nothing = await here.do("service_restart", wait_for_healthy=True)
        # An incident's annotation may say where; it is no address that the settings trust.
        private = await here.do(
            "service_restart",
            wait_for_healthy=True,
            incident={"metadata": {"health_url": "http://127.0.0.1:1/"}},
        )

    assert "needs a health_url or a status_url" in nothing.detail
    assert private.status == FAILED
    assert "loopback" in private.detail
    assert len(server.got) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://{service}.llm.svc:8080/{action}", ""),
        ("https://deployer.internal/{service}/{action}", ""),
        ("http://{service}-api.llm.svc/", ""),
        ("http://{service}/{action}", "a fixed domain behind {service}"),
        ("http://x@{service}:8080/", "a fixed domain behind {service}"),
        ("http://api-{service}?x=.y", "a fixed domain behind {service}"),
        ("deployer.internal/{action}", "expected an http:// or https:// URL"),
    ],
)
@pytest.mark.parametrize("name", ["url", "status_url", "health_url"])
async def test_who_sends_alerts_never_chooses_the_host(name: str, url: str, said: str) -> None:
    given = {"by": "http", "url": "https://deployer.internal/", name: url}
    if not said:
        ServiceTarget.model_validate(given)
        return
    with pytest.raises(ValidationError, match=re.escape(said)):
        ServiceTarget.model_validate(given)
