"""Runs of a small playbook that counts at a local server what it does, and what must hold after processes were killed meanwhile. Used
by test_playbooks.py and tests/soak."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tests.cluster.instance import Cluster, until
from tests.cluster.played import CounterApi

BOOK = """
name: counted {story}
version: "1"
trigger:
  labels: {{story: "{story}"}}
variables:
  rounds: {rounds}
steps:
  - id: begin
    type: remediation
    retry: 3
    actions:
      - {{type: http, method: POST, url: "http://{place}/begin/{{{{ incident.service }}}}"}}
  - id: rounds
    type: remediation
    retry: 3
    for_each: "{{{{ variables.rounds }}}}"
    actions:
      - {{type: http, method: POST, url: "http://{place}/round-{{{{ index }}}}/{{{{ incident.service }}}}"}}
      - {{type: http, method: POST, url: "http://{place}/once-{{{{ index }}}}/{{{{ incident.service }}}}", once: true, on_failure: next_action}}
      - {{type: wait, duration: 1s}}
"""
#: What an action that is marked `once` asks for begins so.
ONCE = "once-"
#: Of a short test: its runs are under way for as long as four kills take.
ROUNDS = 8
#: Sent in one request.
BATCH = 100
#: All is well again some seconds after the last kill, and a run takes some seconds.
TIMEOUT_S = 180.0


def apply_and_send(cluster: Cluster, place: str, count: int, *, rounds: int = ROUNDS) -> str:
    """Apply the playbook, whose runs take a second and more for each of their `rounds`, and open so many incidents that it runs for.
    What this story is called."""
    story = place.rsplit(":", 1)[1]
    book = Path(cluster.data).parent / f"counted-{story}.yaml"
    book.write_text(BOOK.format(story=story, place=place, rounds=list(range(rounds))))
    cluster.cli("playbooks", "apply", str(book), "--url", cluster.url)
    # A shard runs it for what opens after it heard of it, some tenths of a second from now.
    probes: dict[int, set[str]] = {shard: set() for shard in range(cluster.partitions)}

    def have_heard() -> bool:
        for shard, sent in probes.items():
            sent.add(cluster.service_of_shard(shard, f"heard-{story}-{len(sent)}"))
        _send(cluster, story, [name for sent in probes.values() for name in sent])
        found = _services(cluster, story)
        return all(found & sent for sent in probes.values())

    until("all shards know the playbook", have_heard, 20.0, poll_s=0.5)
    names = [f"counted-{story}-{number}" for number in range(count)]
    for first in range(0, count, BATCH):
        _send(cluster, story, names[first : first + BATCH])
    until("all runs have begun", lambda: _services(cluster, story) >= {*names}, TIMEOUT_S, poll_s=0.2)
    return story


def check(cluster: Cluster, counter: CounterApi, story: str, *, rounds: int = ROUNDS) -> None:
    """Wait until every run is over, and check what was done: each action under one key, and `once` not twice."""
    until(
        "every run is over",
        lambda: all(run["ended_at"] for run in runs_of(cluster, story)),
        TIMEOUT_S,
        poll_s=0.5,
    )
    runs = runs_of(cluster, story)
    assert counter.wrong == []
    assert Counter(run["status"] for run in runs) == {"succeeded": len(runs)}, [
        run for run in runs if run["detail"]
    ][:3]
    services = {str(run["service"]) for run in runs}
    assert len(services) == len(runs), "one run an incident"

    repeated = doubted = 0
    for (what, name), keys in counter.keys.items():
        assert name in services
        if what.startswith(ONCE):
            assert keys.total() == 1, f"{what} of {name}: {keys}; {_told(cluster, name)}"
        assert len(keys) == 1, f"{what} of {name}: {keys}; {_told(cluster, name)}"
        repeated += keys.total() - 1
    asked = Counter(what for what, _name in counter.keys)
    for what, count in asked.items():
        if what.startswith(ONCE):
            doubted += len(runs) - count
        else:
            assert count == len(runs), f"{what} was done for {count} of {len(runs)}"
    assert len(asked) == 1 + 2 * rounds
    print(
        f"{len(runs)} runs over; {repeated} calls repeated by their key; "
        f"{doubted} of `once` never arrived, and were not asked for again"
    )


def runs_of(cluster: Cluster, story: str) -> list[dict[str, Any]]:
    found, cursor = [], ""
    while True:
        page = cluster.get(f"/v1/runs?limit=1000&playbook=counted%20{story}{cursor}")
        found += page["items"]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


def _told(cluster: Cluster, name: str) -> list[str]:
    """What the timeline of a service's incident says."""
    (found,) = cluster.incidents(f"&service={name}")
    incident = cluster.get(f"/v1/incidents/{found['id']}")
    return [
        f"{line['timestamp']} {line['event_type']} {line['description']}" for line in incident["timeline"]
    ]


def _services(cluster: Cluster, story: str) -> set[str]:
    return {str(run["service"]) for run in runs_of(cluster, story)}


def _send(cluster: Cluster, story: str, names: list[str]) -> None:
    alerts = [
        {"labels": {"alertname": "Counted", "service": name, "severity": "warning", "story": story}}
        for name in names
    ]
    answer = cluster.call("POST", "/api/v2/alerts", alerts)
    assert answer.status == 200, answer.body
