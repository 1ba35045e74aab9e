"""How well the built-in rules classify real texts that no label helps with. Called by a person or `make bench`.

    python -m benchmarks.classify_quality RULES.jsonl LLM_INCIDENTS.jsonl [--write-predictions FILE] [--by-source]

RULES: alert rules with `alertname, summary, description, labels, gold{sev3, sev_p, type, type_ok}`.
LLM_INCIDENTS: `title, first_body, components, gold{impact}`. Only those fields are read; the rules are fitted to neither.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.classification.rules import Classifier
from models.incidents.incident import Severity
from models.shard.effects import Classify
from models.shard.messages import Classification

#: One line of a file.
Row = dict[str, Any]

#: Timed passes over all rules, after one that warms up; the fastest is told.
ROUNDS = 5

#: The five levels on Prometheus' scale of three.
OF_THREE = {
    Severity.P0: "critical",
    Severity.P1: "critical",
    Severity.P2: "warning",
    Severity.P3: "warning",
    Severity.P4: "info",
}


def accuracy(pairs: Sequence[tuple[str, str]]) -> float:
    return sum(gold == said for gold, said in pairs) / len(pairs) if pairs else 0.0


def macro_f1(pairs: Sequence[tuple[str, str]]) -> float:
    """The mean F1 over the classes that occur in gold."""
    scores = []
    for label in sorted({gold for gold, _ in pairs}):
        hits = sum(gold == label == said for gold, said in pairs)
        wrong = sum(gold != said and label in (gold, said) for gold, said in pairs)
        scores.append(2 * hits / (2 * hits + wrong) if hits else 0.0)
    return sum(scores) / len(scores) if scores else 0.0


def rule_question(row: Row) -> Classify:
    """An incident as a shard would open it from an alert of this rule. No severity label: that is the answer."""
    labels = {str(name): str(value) for name, value in row["labels"].items()}
    return Classify(
        incident_id=row["id"].encode(),
        tenant="default",
        service="",
        source="",
        title=row["summary"] or row["alertname"],
        description=row["description"] or "",
        labels={"alertname": row["alertname"], **labels},
        annotations={},
        signals=[],
        asked=0,
    )


def incident_question(row: Row) -> Classify:
    return Classify(
        incident_id=row["id"].encode(),
        tenant="default",
        service="",
        source="",
        title=row["title"],
        description=row["first_body"] or "",
        labels={"component": ", ".join(row["components"])},
        annotations={},
        signals=[],
        asked=0,
    )


def figures(rows: Sequence[Row], verdicts: Sequence[Classification]) -> dict[str, float]:
    three, five, types, accepted = [], [], [], []
    for row, verdict in zip(rows, verdicts, strict=True):
        gold = row["gold"]
        if gold["sev3"]:
            three.append((gold["sev3"], OF_THREE[verdict.severity]))
        if gold["sev_p"]:
            five.append((gold["sev_p"], verdict.severity.name))
        if gold["type"]:
            types.append((gold["type"], verdict.type.value.lower()))
        if gold["type_ok"]:
            accepted.append(verdict.type.value.lower() in gold["type_ok"])
    critical = [said for gold, said in three if gold == "critical"]
    answer = {"severity_n": len(three), "severity_acc": accuracy(three), "severity_f1": macro_f1(three)}
    if critical:
        answer["critical_missed"] = sum(said != "critical" for said in critical) / len(critical)
    if five:
        answer |= {
            "five_levels_acc": accuracy(five),
            "five_levels_within_one": sum(abs(int(g[1]) - int(s[1])) <= 1 for g, s in five) / len(five),
        }
    if types:
        answer |= {"type_n": len(types), "type_acc": accuracy(types), "type_f1": macro_f1(types)}
    if accepted:
        answer["type_accepted"] = sum(accepted) / len(accepted)
    return answer


def _micros(classifier: Classifier, questions: Sequence[Classify]) -> float:
    """CPU time an incident: the machine may be shared."""
    started = time.process_time()
    for question in questions:
        classifier.classify(question)
    return (time.process_time() - started) / len(questions) * 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rules", type=Path)
    parser.add_argument("incidents", type=Path)
    parser.add_argument("--by-source", action="store_true")
    parser.add_argument("--write-predictions", type=Path)
    options = parser.parse_args(arguments)
    classifier = Classifier()

    rows = [json.loads(line) for line in options.rules.read_text().splitlines()]
    questions = [rule_question(row) for row in rows]
    verdicts = [classifier.classify(question) for question in questions]
    micros = min(_micros(classifier, questions) for _ in range(ROUNDS))

    result: dict[str, object] = {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "n": len(rows),
        "us_an_incident": micros,
        "rules": figures(rows, verdicts),
        "severities": dict(Counter(verdict.severity.name for verdict in verdicts)),
        "types": dict(Counter(verdict.type.value for verdict in verdicts)),
    }
    if options.by_source:
        parts: dict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            parts[row["source_repo"]].append(index)
        for source, indexes in sorted(parts.items()):
            print(source, _show(figures([rows[i] for i in indexes], [verdicts[i] for i in indexes])))
    if options.write_predictions:
        lines = [
            json.dumps(
                {"id": row["id"], "severity": verdict.severity.name, "type": verdict.type.value.lower()}
            )
            for row, verdict in zip(rows, verdicts, strict=True)
        ]
        options.write_predictions.write_text("\n".join(lines) + "\n")

    incidents = [json.loads(line) for line in options.incidents.read_text().splitlines()]
    pairs = [(row["gold"]["impact"], classifier.classify(incident_question(row)).impact) for row in incidents]
    pairs = [(gold, said) for gold, said in pairs if gold in ("critical", "major", "minor", "none")]
    result["llm_incidents"] = {"n": len(pairs), "impact_acc": accuracy(pairs), "impact_f1": macro_f1(pairs)}

    print("rules        ", _show(result["rules"]))
    print("llm_incidents", _show(result["llm_incidents"]))
    print(f"{micros:.1f} us of CPU an incident (best of {ROUNDS} passes)")
    print(json.dumps(result))
    return 0


def _show(values: object) -> str:
    assert isinstance(values, dict)
    return "  ".join(
        f"{name}={value:.3f}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    )


if __name__ == "__main__":
    sys.exit(main())
