"""How often the ranking of causes (models/topology/ranking.py) names the right service, on published failure injections.

python -m benchmarks.rca_quality PATH [--json FILE]

PATH is a folder with `topologies.json` ({set: {nodes, edges: [[caller, callee]]}}) and `SET.jsonl.gz`, a case a line: {case_id, symptom,
alerts: [{service, metric, fires: [[ts, value, score]]}], gold: {service}}. Each alerting metric of a service is an incident that begins
with its first firing, as severe as its score is large among those of its case. Of ties the expected place counts. AC@k is the share of
cases whose right service is among the first k; beside it stand what needs no graph: the largest score, the first to fire, and chance.

Nothing is learned here: the weights are those that run. They were chosen with two published sets in view (docs/correlation.md), so only
another set says what they are worth.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.own import say, write
from models.topology.graph import Criticality, Dependency, Graph, Service, Source
from models.topology.ranking import Sign, rank

KS = (1, 3, 5)
#: As the settings have it.
WINDOW_S = 300.0


def graph_of(topology: Mapping[str, Any], critical: str = "") -> Graph:
    """`critical` is the service that users complain of, where the case says so."""
    graph = Graph()
    links = {
        (caller, callee): Dependency(caller, callee)
        for caller, callee, *_ in topology["edges"]
        if caller != callee
    }
    services = {each: Service(each) for each in topology["nodes"]}
    if critical in services:
        services[critical] = Service(critical, Criticality.CRITICAL)
    graph.put(Source("set", services, links))
    return graph


def peaks(case: Mapping[str, Any]) -> dict[str, float]:
    """The largest score of each service."""
    found: dict[str, float] = {}
    for alert in case["alerts"]:
        score = max((abs(fire[2]) for fire in alert["fires"]), default=0.0)
        found[alert["service"]] = max(found.get(alert["service"], 0.0), score)
    return found


def signs_of(case: Mapping[str, Any]) -> list[Sign]:
    """An incident for each alerting metric; the largest score of a case is a P0, the smallest a P4."""
    rows = [
        (alert["service"], alert["fires"][0][0], max(abs(fire[2]) for fire in alert["fires"]))
        for alert in case["alerts"]
        if alert["fires"]
    ]
    logs = [math.log1p(score) for _service, _at, score in rows]
    low, high = min(logs, default=0.0), max(logs, default=0.0)
    span = (high - low) or 1.0
    return [
        Sign(service, float(at), 0.2 + 0.8 * (level - low) / span)
        for (service, at, _score), level in zip(rows, logs, strict=True)
    ]


def sampled_every_s(case: Mapping[str, Any]) -> float:
    """What setting correlation.tolerance is to be: how often alerts are evaluated."""
    gaps = [
        later[0] - earlier[0]
        for alert in case["alerts"]
        for earlier, later in zip(alert["fires"], alert["fires"][1:], strict=False)
        if later[0] > earlier[0]
    ]
    return float(median(gaps)) if gaps else 0.0


def expected_hit(scores: Mapping[str, float], gold: str, k: int) -> float:
    """The probability that `gold` is among the first k when ties are in any order."""
    if gold not in scores:
        return 0.0
    own = scores[gold]
    better = sum(each > own for each in scores.values())
    alike = sum(each == own for each in scores.values())
    return min(1.0, max(0.0, (k - better) / alike))


def measure(rows: Iterable[tuple[Mapping[str, float], str]]) -> dict[str, float]:
    rows = [*rows]
    found = {f"AC@{k}": sum(expected_hit(scores, gold, k) for scores, gold in rows) / len(rows) for k in KS}
    found["Avg@5"] = (
        sum(sum(expected_hit(scores, gold, k) for scores, gold in rows) / len(rows) for k in range(1, 6)) / 5
    )
    return {name: round(value, 3) for name, value in found.items()}


def ours(graph: Graph, case: Mapping[str, Any]) -> dict[str, float]:
    found = rank(graph, signs_of(case), tolerance_s=sampled_every_s(case), window_s=WINDOW_S)
    return {each.service: each.score for each in found}


def first(case: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for sign in signs_of(case):
        found[sign.service] = max(found.get(sign.service, -math.inf), -sign.at)
    return found


def one_set(name: str, topology: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    graphs = [graph_of(topology, (case["symptom"] or {}).get("service", "")) for case in cases]
    begun = time.process_time()
    told = [(ours(graph, case), case["gold"]["service"]) for graph, case in zip(graphs, cases, strict=True)]
    took_ms = 1000 * (time.process_time() - begun) / len(cases)
    nodes = dict.fromkeys(topology["nodes"], 0.0)
    return {
        "set": name,
        "cases": len(cases),
        "services": len(topology["nodes"]),
        "ours": measure(told),
        "largest score": measure((peaks(case), case["gold"]["service"]) for case in cases),
        "first to fire": measure((first(case), case["gold"]["service"]) for case in cases),
        "chance": measure((nodes, case["gold"]["service"]) for case in cases),
        "ms a case": round(took_ms, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/rca_quality.json")
    asked = parser.parse_args()
    topologies = json.loads((asked.path / "topologies.json").read_text())
    found = []
    for name, topology in topologies.items():
        file = asked.path / f"{name}.jsonl.gz"
        if not file.exists():
            continue
        with gzip.open(file, "rt") as lines:
            cases = [json.loads(line) for line in lines]
        found.append(one_set(name, topology, cases))
        say(json.dumps(found[-1]))
    if asked.save:
        write("rca_quality", found)


if __name__ == "__main__":
    main()
