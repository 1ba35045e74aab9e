"""/v1/playbooks and /v1/runs over a whole system in one process, with a worker that records what it does."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from actors.runtime.local import LocalCluster
from models.playbook.work import FAILED, SUCCEEDED, WAIT, Capture, Do, Done, Enter, IncidentEffect, Work
from models.shard.known_playbooks import KnownPlaybooks
from tests.api.gateway_in_process import FIRST_SHARD_SERVICE, Reply, System, alert, system

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH, RUNS = "/v1/playbooks", "/v1/runs"
HEAL = """
name: {name}
version: "{version}"
severity_trigger: [{severity}]
metadata: {{description: tries a restart}}
steps:
  - id: fix
    type: remediation
    actions:
      - type: service_restart
        service: "{{{{ incident.service }}}}"
        method: rolling
"""
ALL = "P0, P1, P2, P3, P4"


class Recorder:
    """Port Worker: remembers each key, and answers as it is told."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.answer: Callable[[Work], Done] = lambda _work: Done(SUCCEEDED)
        self.held = asyncio.Event()
        self.held.set()

    async def work(self, work: Work, trace: str | None = None) -> Done:
        if isinstance(work, Do):
            self.done[work.key] += 1
            await self.held.wait()
        return Done(SUCCEEDED) if isinstance(work, Enter) else self.answer(work)

    async def close(self) -> None:
        """Nothing is open."""


@pytest_asyncio.fixture(loop_scope="module")
async def recorder() -> Recorder:
    return Recorder()


@pytest_asyncio.fixture(loop_scope="module")
async def ours(recorder: Recorder) -> AsyncIterator[System]:
    async with system(playbooks={"enabled": True}, worker=recorder) as started:
        yield started


async def send(ours: System, method: str, path: str, body: object = None, **headers: str) -> Reply:
    data = b"" if body is None else json.dumps(body).encode()
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if body is not None:
        sent.append((b"content-type", b"application/json"))
    return await ours.request(method, path, [data], sent)


async def applied(
    ours: System, name: str = "heal", version: str = "1", severity: str = ALL, **more: str
) -> Any:
    source = HEAL.format(name=name, version=version, severity=severity)
    answer = await send(ours, "POST", PATH, {"source": source, **more})
    assert answer.status == 200, answer
    await known(ours, name, version)
    return answer.json


async def known(ours: System, name: str, version: str = "1", mode: str = "active") -> None:
    """Until every shard knows it."""
    async with asyncio.timeout(10):
        for shard in map(ours.cluster.get, ours.shards):
            while True:
                found = shard.shard.of(KnownPlaybooks).offered.get(name)  # type: ignore[union-attr]
                if found is not None and (found.version, found.mode) == (version, mode):
                    break
                await asyncio.sleep(0.01)


async def opened(ours: System, name: str = "Down", service: str = FIRST_SHARD_SERVICE) -> str:
    """An alert opens an incident. Its id."""
    ours.clock.heard_s += 1.0
    answer = await send(ours, "POST", "/api/v2/alerts", [alert(name, service)])
    assert answer.status == 200, answer
    listed = (await ours.get(f"/v1/incidents?service={service}")).items
    return str(next(each["id"] for each in listed if each["labels"].get("alertname") == name))


async def until(ours: System, path: str, holds: Callable[[Any], bool]) -> Any:
    """What is there once it is as wanted. Time goes on meanwhile."""
    async with asyncio.timeout(20):
        while True:
            found = (await ours.get(path)).json
            if holds(found):
                return found
            ours.clock.heard_s += 0.2
            await asyncio.sleep(0.02)


async def over(ours: System, incident: str) -> Any:
    """The only run of an incident, once it is over."""
    path = f"/v1/incidents/{incident}/runs"
    page = await until(ours, path, lambda page: page["items"] and page["items"][-1]["ended_at"])
    return page["items"][-1]


async def test_a_playbook_that_is_applied_runs_for_the_next_incident(
    ours: System, recorder: Recorder
) -> None:
    recorder.answer = lambda _work: Done(
        SUCCEEDED,
        "3 pods",
        captures=(Capture("logs", "text/plain", "line"),),
        effects=(IncidentEffect("resolve", "ok"),),
    )
    body = await applied(ours)
    incident = await opened(ours)

    run = await over(ours, incident)
    shown = (await ours.get(f"{RUNS}/{run['id']}")).json
    capture = (await ours.get(f"{RUNS}/{run['id']}/captures/{run['captures'][0]['id']}")).json
    after = (await ours.get(f"/v1/incidents/{incident}")).json

    assert body["changed"] and body["runs"] and body["playbook"]["mode"] == "active"
    assert (run["status"], run["playbook"], run["version"], run["by"]) == ("succeeded", "heal", "1", "system")
    assert [each["action"] for each in run["steps"][0]["actions"]] == ["service_restart"]
    assert shown == run
    assert (capture["name"], capture["text"]) == ("logs", "line")
    assert (after["state"], after["resolution"]["resolved_by"]) == ("Resolved", "playbook heal")
    assert after["active_playbook"] is None
    kinds = [line["event_type"] for line in after["timeline"] if line["event_type"] != "TaskPlanned"]
    assert kinds.pop(-2) == "WatchBegan"
    assert kinds[-4:] == ["StateChanged", "ActionExecuted", "Resolved", "PlaybookCompleted"]
    assert [*recorder.done.values()] == [1]


async def test_a_run_is_in_graphql_in_the_report_and_among_the_repairs(
    ours: System, recorder: Recorder
) -> None:
    recorder.answer = lambda _work: Done(SUCCEEDED, "3 | pods", effects=(IncidentEffect("resolve", "ok"),))
    await applied(ours)
    incident = await opened(ours, "Shown")
    run = await over(ours, incident)
    query = f"""{{ incident(id: "{incident}") {{ activePlaybook runs {{ id status by
        steps {{ id status outputs actions {{ action status detail undo }} }} captures {{ name }} waitsFor {{ step }} }} }} }}"""

    shown = (await ours.post("/graphql", {"query": query})).json
    report = (await ours.get(f"/v1/incidents/{incident}/report?format=markdown")).body.decode()
    rows = (await ours.get("/v1/analytics/rows")).items

    assert "errors" not in shown, shown
    [found] = shown["data"]["incident"]["runs"]
    assert (found["id"], found["status"], found["by"]) == (run["id"], "succeeded", "system")
    assert [each["action"] for each in found["steps"][0]["actions"]] == ["service_restart"]
    assert "## Run of heal 1\n" in report
    assert r"| fix | service\_restart | succeeded | 3 \| pods |" in report
    assert [each["repaired_by"] for each in rows if each["id"] == incident] == ["heal"]


async def test_a_version_never_changes_and_the_same_again_is_no_news(ours: System) -> None:
    await applied(ours)

    again = await applied(ours)
    other = await send(ours, "POST", PATH, {"source": HEAL.format(name="heal", version="1", severity="P0")})

    assert again["changed"] is False
    assert other.status == 409 and "give this one a new version" in other.json["detail"]
    newer = await applied(ours, version="2", severity="P0")
    assert [each["version"] for each in newer["playbook"]["versions"]] == ["1", "2"]
    back = await applied(ours, version="1")
    assert back["playbook"]["version"] == "1"


async def test_what_is_wrong_with_a_playbook_is_said_line_by_line(ours: System) -> None:
    answer = await send(
        ours, "POST", PATH, {"source": "name: x\nversion: 1.0\nstepz: []\n", "file": "x.yaml"}
    )

    assert answer.status == 400
    assert "x.yaml" in answer.json["detail"] and "stepz" in answer.json["detail"]


async def test_a_paused_playbook_does_not_run_but_by_hand(ours: System, recorder: Recorder) -> None:
    await applied(ours, name="by hand")
    paused = await send(ours, "POST", f"{PATH}/by hand/mode", {"mode": "paused"})
    assert paused.status == 200 and paused.json["mode"] == "paused"
    await known(ours, "by hand", mode="paused")
    incident = await opened(ours)
    await until(ours, f"/v1/incidents/{incident}", lambda found: found["classified_by"])

    assert (await ours.get(f"/v1/incidents/{incident}/runs")).items == []
    started = await send(
        ours, "POST", f"/v1/incidents/{incident}/runs", {"playbook": "by hand"}, x_actor="ann"
    )

    assert started.status == 201, started
    assert started.headers["location"] == f"{RUNS}/{started.json['id']}"
    assert (await over(ours, incident))["by"] == "ann"
    missing = await send(ours, "POST", f"/v1/incidents/{incident}/runs", {"playbook": "nobody's"})
    assert missing.status == 404 and "nobody's" in missing.json["detail"]


async def test_a_run_is_paused_resumed_and_cancelled(ours: System, recorder: Recorder) -> None:
    recorder.answer = lambda _work: Done(WAIT, wait_s=3600.0)
    await applied(ours)
    incident = await opened(ours)
    page = await until(ours, f"{RUNS}?active=true", lambda page: page["items"])
    run = page["items"][0]["id"]
    assert (await ours.get(f"/v1/incidents/{incident}")).json["active_playbook"] == run

    paused = await send(ours, "POST", f"{RUNS}/{run}/pause", {"reason": "I look"}, x_actor="ann")
    resumed = await send(ours, "POST", f"{RUNS}/{run}/resume")
    cancelled = await send(ours, "POST", f"{RUNS}/{run}/cancel", {"reason": "mine"}, x_actor="ann")
    late = await send(ours, "POST", f"{RUNS}/{run}/pause")

    assert [paused.json["status"], resumed.json["status"]] == ["paused", "running"]
    assert (cancelled.json["status"], cancelled.json["detail"]) == ("cancelled", "cancelled by ann: mine")
    assert late.status == 409 and "is over" in late.json["detail"]
    assert (await ours.get(f"{RUNS}?active=true")).items == []
    assert len((await ours.get(f"{RUNS}?playbook=heal")).items) == 1


async def test_pages_of_runs_join_without_gaps(ours: System) -> None:
    await applied(ours)
    for number in range(5):
        await over(ours, await opened(ours, f"Down{number}", f"service-{number}"))

    found: list[str] = []
    cursor = ""
    while True:
        page = (await ours.get(f"{RUNS}?limit=2{cursor}")).json
        found += [each["id"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"

    assert len(found) == len(set(found)) == 5
    assert found == sorted(found, reverse=True)


async def test_a_shard_that_dies_at_work_asks_by_the_same_key_and_nothing_is_done_twice(
    ours: System, recorder: Recorder
) -> None:
    recorder.held.clear()
    await applied(ours)
    incident = await opened(ours)
    async with asyncio.timeout(10):
        while not recorder.done:
            ours.clock.heard_s += 0.2
            await asyncio.sleep(0.01)

    await ours.crash(ours.shards[0])
    await ours.cluster.restart(ours.shards[0])
    await ours.ready()
    recorder.held.set()

    assert (await over(ours, incident))["status"] == "succeeded"
    assert [*recorder.done.values()] == [1]


async def test_without_a_responder_a_run_waits_and_goes_on(ours: System, recorder: Recorder) -> None:
    await applied(ours)
    responder = ours.cluster.kill("responder-0")
    assert responder is not None
    incident = await opened(ours)
    # What it would change is to be checked first.
    await until(ours, f"/v1/incidents/{incident}", lambda found: found["classified_by"])
    assert (await send(ours, "GET", f"/v1/incidents/{incident}/runs")).json["items"] == []

    cluster: LocalCluster = ours.cluster
    await cluster.restart("responder-0")

    assert (await over(ours, incident))["status"] == "succeeded"


async def test_playbooks_that_are_off_are_kept_and_do_not_run(recorder: Recorder) -> None:
    async with system(worker=recorder) as off:
        body = await applied(off)
        incident = await opened(off)
        await until(off, f"/v1/incidents/{incident}", lambda found: found["classified_by"])
        refused = await send(off, "POST", f"/v1/incidents/{incident}/runs", {"playbook": "heal"})

        assert body["runs"] is False
        assert refused.status == 409 and "playbooks.enabled" in refused.json["detail"]
        assert not recorder.done


async def test_a_failed_run_says_why(ours: System, recorder: Recorder) -> None:
    recorder.answer = lambda _work: Done(FAILED, "no such deployment", final=True)
    await applied(ours)

    run = await over(ours, await opened(ours))

    assert run["status"] == "failed"
    assert "no such deployment" in run["detail"]


async def test_a_removed_playbook_is_gone_and_its_versions_are_remembered(ours: System) -> None:
    await applied(ours)
    for _ in range(2):
        assert (await send(ours, "DELETE", f"{PATH}/heal")).status == 204

    assert (await ours.get(PATH)).items == []
    assert (await ours.get(f"{PATH}/heal")).status == 404
    other = await send(ours, "POST", PATH, {"source": HEAL.format(name="heal", version="1", severity="P0")})
    assert other.status == 409


CHECKED = """
name: heal
version: "1"
severity_trigger: [P0, P1, P2, P3, P4]
steps:
  - id: fix
    type: remediation
    actions:
      - type: service_restart
        service: "{{ incident.service }}"
        method: rolling
      - type: health_check
        endpoint: http://127.0.0.1:1/health
"""


async def test_a_check_that_fails_later_reopens_what_was_repaired(recorder: Recorder) -> None:
    is_ill = False

    def answer(work: Work) -> Done:
        assert isinstance(work, Do)
        if work.action.type == "health_check":
            return Done(FAILED, "503") if is_ill else Done(SUCCEEDED)
        return Done(SUCCEEDED, effects=(IncidentEffect("resolve", "restarted"),))

    recorder.answer = answer
    watched = {"watch": "10m", "every": "1s"}
    async with system(playbooks={"enabled": True}, verification=watched, worker=recorder) as ours:
        applied_ = await send(ours, "POST", PATH, {"source": CHECKED})
        assert applied_.status == 200, applied_
        await known(ours, "heal")
        incident = await opened(ours)
        path = f"/v1/incidents/{incident}"
        assert (await over(ours, incident))["status"] == "succeeded"

        def asked(found: Any) -> bool:
            return sum(".watch-" in key for key in recorder.done) > 1

        well = await until(ours, path, asked)
        assert well["state"] == "Resolved"
        is_ill = True
        after = await until(ours, path, lambda found: found["state"] != "Resolved")

        lines = [line for line in after["timeline"] if line["event_type"] == "StateChanged"]
        assert "fix, health_check fails" in lines[-1]["description"] and "503" in lines[-1]["description"]
        (repair,) = (await ours.get("/v1/repairs")).items
        assert (repair["playbook"], repair["runs"], repair["healed"]) == ("heal", 1, 1)
        assert (repair["held"], repair["regressed"], repair["failed"]) == (0, 1, 0)
        assert all(not task["due"] for task in (await ours.get("/v1/tasks")).items)


async def test_a_playbook_runs_by_the_clock_and_its_incident_is_resolved(
    ours: System, recorder: Recorder
) -> None:
    recorder.answer = lambda _work: Done(SUCCEEDED)
    source = HEAL.replace("severity_trigger: [{severity}]", 'trigger: {{schedule: "* * * * *"}}')
    answer = await send(ours, "POST", PATH, {"source": source.format(name="sweep", version="1")})
    assert answer.status == 200 and answer.json["warnings"] == []
    await known(ours, "sweep")
    assert (await ours.get(f"{PATH}/sweep")).json["next_due"] > answer.json["playbook"]["since"]

    page = await until(
        ours, "/v1/incidents?service=sweep&state=Resolved&state=Closed", lambda page: len(page["items"]) >= 2
    )
    (run,) = (await ours.get(f"/v1/incidents/{page['items'][0]['id']}/runs")).json["items"]
    await send(ours, "POST", f"{PATH}/sweep/mode", {"mode": "paused"})

    assert (run["playbook"], run["status"], run["why"]) == ("sweep", "succeeded", "its schedule * * * * *")
    assert {each["title"] for each in page["items"]} == {"Scheduled run of sweep"}
    assert (await ours.get(f"{PATH}/sweep")).json["next_due"] is None
