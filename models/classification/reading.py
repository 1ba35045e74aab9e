"""Reads an incident's words by the vocabulary: which terms there are, and what they say together."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from models.classification.severity import IMPACTS
from models.classification.vocabulary import LEXICON, PAIR_STARTS, PAIRS, TOPIC_SET, TOPICS, TYPES, WORDS
from models.incidents.incident import IncidentType, Severity
from models.shard.effects import Classify

#: Characters read of a title and of a description, so that a 10 MB label costs no more than a long one.
#: 3,000 characters of description take about 0.2 ms; real ones have 50 to 300.
TITLE_CHARS = 400
DESCRIPTION_CHARS = 1500
#: Terms, and rules given up, named in `by`.
TERMS_NAMED = 3


class Reading(NamedTuple):
    """The terms found in an incident's words. `severity` is None when no term spoke of it."""

    severity: Severity | None
    severity_terms: tuple[str, ...]
    type: IncidentType | None
    type_terms: tuple[str, ...]
    impact: str | None
    impact_term: str


#: One token: p99, an acronym with or without plural, a word of a CamelCase name, a number such as 429 or 5xx.
#: No branch can match what a neighbour repeats, so it is linear in the text.
TOKEN = re.compile(r"[pP]\d+|[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+[a-z]*")

#: Templates that rules leave in their texts when they are read unrendered: "{{ $labels.node }}" says nothing.
TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")


def text_of(effect: Classify) -> str:
    return "\n".join(
        (
            effect.labels.get("alertname", "")[:TITLE_CHARS],
            effect.title[:TITLE_CHARS],
            effect.description[:DESCRIPTION_CHARS],
        )
    )


def read(effect: Classify) -> Reading:
    labels = effect.labels
    name = labels.get("alertname", "")
    title = effect.title[:TITLE_CHARS]
    head = title if name in ("", effect.title) else f"{name[:TITLE_CHARS]} . {title}"
    if effect.source:
        head = f"{head} . {effect.source[:TITLE_CHARS]}"
    body = effect.description
    if not body:
        notes = effect.annotations
        body = notes.get("description") or notes.get("message") or notes.get("summary") or ""
    body = body[:DESCRIPTION_CHARS]
    if not TOPIC_SET.isdisjoint(labels):
        for topic in TOPICS:
            if topic in labels:
                body = f"{body} . {labels[topic][:TITLE_CHARS]}"

    if effect.service not in ("", name):
        # "after-migration is down" says nothing of a migration. A service that has its name from the alert speaks for it.
        head, body = without(head, effect.service), without(body, effect.service)
    if "{{" in body or "{{" in head:
        head, body = TEMPLATE.sub(" ", head), TEMPLATE.sub(" ", body)
    in_head = _terms_of_head(head)
    return _weighed(in_head, _terms(body) - in_head)


def without(text: str, name: str) -> str:
    """A text with " . " in the place of a name wherever that stands by itself, in whatever case.

    An expression made of each name would cost twenty times as much: every flood brings names that were never met.
    """
    folded, wanted = text.lower(), name.lower()
    if len(folded) != len(text):
        # A letter of it is two in lower case, and places would be others: then the case counts.
        folded, wanted = text, name
    parts, at, place = [], 0, folded.find(wanted)
    while place >= 0:
        end = place + len(wanted)
        if _is_part(folded[place - 1 : place]) or _is_part(folded[end : end + 1]):
            place = folded.find(wanted, place + 1)
            continue
        parts.append(text[at:place])
        at, place = end, folded.find(wanted, end)
    parts.append(text[at:])
    return " . ".join(parts)


def _is_part(letter: str) -> bool:
    """Whether a name goes on with this, "" where the text begins or ends."""
    return letter.isalnum() or letter in ("_", "-")


@lru_cache(
    maxsize=4096
)  # The rules of an installation use some hundred sets of terms; a set is under a kilobyte.
def _weighed(in_head: frozenset[str], in_body: frozenset[str]) -> Reading:
    score = 0.0
    types = [0.0] * len(TYPES)
    severity_terms: list[tuple[float, str]] = []
    type_terms: list[tuple[float, int, str]] = []
    impact: tuple[int, str] | None = None
    for terms, factor in ((in_head, 2.0), (in_body, 1.0)):
        for term in terms:
            meaning = LEXICON[term]
            if meaning.severity:
                score += meaning.severity * factor
                severity_terms.append((-abs(meaning.severity) * factor, term))
            if meaning.weight:
                types[meaning.type] += meaning.weight * factor
                type_terms.append((-meaning.weight * factor, meaning.type, term))
            # What is over or planned harms nobody now, however wide it was: "none" outranks "critical".
            if meaning.impact is not None and (
                impact is None or (-meaning.impact, term) < (-impact[0], impact[1])
            ):
                impact = (meaning.impact, term)

    severity_terms.sort()
    top = max(types)
    kind = types.index(top) if top > 0 else -1
    type_terms.sort()
    return Reading(
        severity=_severity_of(score) if severity_terms else None,
        severity_terms=tuple(term for _, term in severity_terms[:TERMS_NAMED]),
        type=TYPES[kind] if kind >= 0 else None,
        type_terms=tuple([term for _, of, term in type_terms if of == kind][:TERMS_NAMED]),
        impact=None if impact is None else IMPACTS[impact[0]],
        impact_term="" if impact is None else impact[1],
    )


def _terms(text: str) -> frozenset[str]:
    """The terms of LEXICON in a text: single words and neighbouring pairs."""
    # Case decides where CamelCase is split, so it is lowered after that: once, as a whole.
    tokens = " ".join(TOKEN.findall(text)).lower().split(" ")
    found = WORDS.intersection(tokens)
    if not PAIR_STARTS.isdisjoint(tokens):
        found = found.union([PAIRS[pair] for pair in PAIRS.keys() & set(pairwise(tokens))])
    return found


@lru_cache(maxsize=1024)  # Of a rule's incidents the titles are alike but for the service. 2 kB each at most.
def _terms_of_head(text: str) -> frozenset[str]:
    return _terms(text)


def _severity_of(score: float) -> Severity:
    for least, severity in _SEVERITY_FROM:
        if score >= least:
            return severity
    return Severity.P4


#: A score of at least this much is this severe (a title counts double). 2 is where real rules begin to be called
#: critical by half their authors (benchmarks/classify_quality.py); the others are round numbers on either side.
_SEVERITY_FROM = (
    (8.0, Severity.P0),
    (2.0, Severity.P1),
    (-2.5, Severity.P2),
    (-6.0, Severity.P3),
)
