"""How well a learned classifier does on sources that it was not trained on, beside the rules and the commonest class; and how long it
takes. Called by a person.

    python -m benchmarks.learn_quality RULES.jsonl LLM_INCIDENTS.jsonl [--rows N]

Then what corrections within one source are worth: half of its alert names are learned, the other half is tried.

RULES: alert rules with `alertname, summary, description, labels, source_repo, gold{sev3, sev_p, type}`, each source left out in turn.
LLM_INCIDENTS: `created_at, title, first_body, components, gold{impact, sev_p}`: the newer half by a model of the older half. Nothing else
of a row is read. The model is trained as the system trains it, and neither it nor its bounds are fitted to these files.
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
from statistics import median
from typing import Any

import msgspec
import xxhash

from benchmarks.classify_quality import OF_THREE, Row, incident_question, rule_question
from models.classification.rules import Classifier
from models.errors import Conflict
from models.incidents.incident import IncidentType, Severity
from models.learned.bounds import CONFIDENCE
from models.learned.evaluate import Pair, accuracy, calibration_error, macro_f1
from models.learned.examples import SEEN, Example
from models.learned.features import features_of
from models.learned.judging import LearnedClassifier, Versioned, decided
from models.learned.model import SEVERITY, TYPE, Guess, Model
from models.learned.train import train
from models.shard.effects import Classify
from services.learning.fitting import fit

#: A batch, as a shard asks it, and how often it is timed.
BATCH = 64
ROUNDS = 50
#: A source of which half is learned has this many rows at least, and so many of each half are taken at most: what people correct in a
#: few weeks.
WITHIN_LEAST, WITHIN_MOST = 300, 400
#: Three levels on ours, where a source has no more: what the rules make of the same words.
OF_LEVEL = {"critical": Severity.P1, "warning": Severity.P2, "info": Severity.P4}
#: What a model that has no such head says.
NOTHING = Guess("", 0.0, ())


def rule_example(row: Row) -> Example:
    gold = row["gold"]
    severity = Severity[gold["sev_p"]] if gold["sev_p"] else OF_LEVEL.get(gold["sev3"] or "")
    type_ = next((each for each in IncidentType if each.value.lower() == gold["type"]), None)
    # The source in the place of the service: examples are held out by it within training too.
    question = msgspec.structs.replace(rule_question(row), service=row["source_repo"])
    return _example(question, severity, type_)


def incident_example(row: Row) -> Example:
    sev = row["gold"]["sev_p"]
    first = (row["components"] or ["none"])[0]
    return _example(
        msgspec.structs.replace(incident_question(row), service=first), Severity[sev] if sev else None, None
    )


def _example(question: Classify, severity: Severity | None, type_: IncidentType | None) -> Example:
    return Example(
        question, 0.0, severity, SEEN if severity is not None else 0.0, type_, SEEN if type_ else 0.0
    )


class Answers:
    """What the commonest class, the rules, the model, and rules and model together say; severity on three levels."""

    def __init__(self) -> None:
        self.said: dict[str, list[Pair]] = defaultdict(list)
        self.confidence: list[float] = []

    def add(self, gold: str, guess: Guess, three: bool, **said: str) -> None:
        def level(word: str) -> str:
            return OF_THREE[Severity[word]] if three else word

        for who, word in {**said, "model": guess.label or said["rules"]}.items():
            self.said[who].append((level(gold), level(word)))
        self.confidence.append(guess.confidence)

    def figures(self) -> dict[str, float]:
        found: dict[str, float] = {"n": len(self.confidence)}
        for who in ("commonest", "rules", "model", "both"):
            found[f"{who}_acc"], found[f"{who}_f1"] = accuracy(self.said[who]), macro_f1(self.said[who])
        sure = [index for index, each in enumerate(self.confidence) if each >= CONFIDENCE]
        found["sure"] = len(sure) / max(1, len(self.confidence))
        found["sure_acc"] = accuracy([self.said["model"][index] for index in sure])
        found["sure_rules_acc"] = accuracy([self.said["rules"][index] for index in sure])
        found["calibration_error"] = calibration_error(self.said["model"], self.confidence)
        return found


def measure(
    train_on: Sequence[Example], test_on: Sequence[Example], answers: dict[str, Answers], three: bool
) -> Model | None:
    rules = Classifier()
    try:
        model = train(train_on, rules.rule, fit, confidence=CONFIDENCE, least=1).model
    except Conflict as error:
        print(f"  not trained: {error}", file=sys.stderr)
        return None
    severities = Counter(each.severity.name for each in train_on if each.severity is not None)
    types = Counter(each.type.value for each in train_on if each.type is not None)
    for each in test_on:
        ruling = rules.rule(each.question)
        guesses = model.guess(features_of(each.question))
        both = decided(ruling, guesses, 0, CONFIDENCE)
        if each.severity is not None:
            answers[SEVERITY].add(
                each.severity.name, guesses.get(SEVERITY, NOTHING), three,
                commonest=severities.most_common(1)[0][0], rules=ruling.severity.name, both=both.severity.name,
            )  # fmt: skip
        if each.type is not None and types:
            answers[TYPE].add(
                each.type.value, guesses.get(TYPE, NOTHING), False,
                commonest=types.most_common(1)[0][0], rules=ruling.type.value, both=both.type.value,
            )  # fmt: skip
    return model


def within(examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """What is said of a source's other alert names once half of them were corrected; of all such sources together."""
    answers: dict[str, Answers] = defaultdict(Answers)
    sources = Counter(each.question.service for each in examples)
    for source in sorted(name for name, count in sources.items() if count >= WITHIN_LEAST):
        halves: tuple[list[Example], list[Example]] = ([], [])
        for each in examples:
            if each.question.service == source:
                # Within training, examples are held out by their alert name.
                its = msgspec.structs.replace(
                    each, question=msgspec.structs.replace(each.question, service="")
                )
                halves[xxhash.xxh32_intdigest(its.question.labels["alertname"].encode()) % 2].append(its)
        measure(halves[0][:WITHIN_MOST], halves[1][:WITHIN_MOST], answers, True)
    return {name: each.figures() for name, each in answers.items()}


def latency(model: Model, questions: Sequence[Classify]) -> dict[str, float]:
    """Milliseconds of CPU for a batch of 64, by the rules alone and with a model."""
    found = {}
    for name, judge in (
        ("rules", Classifier()),
        ("learned", LearnedClassifier(Classifier(), Versioned(1, model))),
    ):
        took = []
        for turn in range(ROUNDS):
            batch = [questions[(turn * BATCH + place) % len(questions)] for place in range(BATCH)]
            began = time.process_time()
            for question in batch:
                judge.classify(question)
            took.append((time.process_time() - began) * 1e3)
        found[f"{name}_ms_p50"], found[f"{name}_ms_max"] = median(took), max(took)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rules", type=Path)
    parser.add_argument("incidents", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, help="of the rules, every so manieth only, to be quicker")
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "confidence": CONFIDENCE,
    }

    rows = [json.loads(line) for line in options.rules.read_text().splitlines()]
    if options.rows:
        rows = rows[:: max(1, len(rows) // options.rows)]
    examples = [rule_example(row) for row in rows]
    result["within"] = within(examples)
    answers: dict[str, Answers] = defaultdict(Answers)
    model = None
    for source in sorted({each.question.service for each in examples}):
        others = [each for each in examples if each.question.service != source]
        model = (
            measure(others, [each for each in examples if each.question.service == source], answers, True)
            or model
        )
    result["rules"] = {name: each.figures() for name, each in answers.items()}

    if options.incidents is not None:
        lines = [json.loads(line) for line in options.incidents.read_text().splitlines()]
        told = [incident_example(row) for row in sorted(lines, key=lambda row: str(row["created_at"]))]
        answers = defaultdict(Answers)
        measure(told[: len(told) // 2], told[len(told) // 2 :], answers, False)
        result["llm_incidents"] = {name: each.figures() for name, each in answers.items()}

    if model is not None:
        result["batch_of_64"] = latency(model, [each.question for each in examples])
    for part in ("within", "rules", "llm_incidents"):
        for name, values in result.get(part, {}).items():
            print(part, name, "  ".join(f"{key}={value:.3f}" for key, value in values.items()))
    print(result.get("batch_of_64"))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
