"""What an incident says, as features: hashes of its words, of pairs and pieces of them, and of its labels.

The same question gives the same features on every machine. Called by training, evaluation and the classifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import xxhash

from models.classification.reading import DESCRIPTION_CHARS, TEMPLATE, TITLE_CHARS, TOKEN, without
from models.shard.effects import Classify

#: Raised whenever the same question would give other features: a model is used only with the features it was trained on.
FEATURES_VERSION = 1
#: Words read of title and alert name, and of the description. Real ones have 5 to 60; these bound the time to about 0.3 ms.
HEAD_WORDS_MAX = 60
BODY_WORDS_MAX = 150
#: Labels read, in the order of their names, and the longest value that is one feature: what is longer is a text.
LABELS_MAX = 40
LABEL_NAME_CHARS, LABEL_VALUE_CHARS = 40, 64
#: Characters of a word: a longer one is a key or a path. Words are named as reasons, so they must stay short.
WORD_CHARS = 40
SIGNALS_MAX = 8
#: Pieces of the words of title and alert name: they tell "latencies" from nothing when only "latency" was learned.
PIECE_CHARS = 4
#: A number of more than three digits is an id, a size or a time, and says nothing by them; 429, 5xx and p99 do.
_LONG_NUMBER = re.compile(r"\d{4,}")
#: Labels that name one thing among many alike, or that say who sends: what is learned from them holds nowhere else.
_PASSING = frozenset(
    {"instance", "pod", "container_id", "id", "uid", "fingerprint", "generatorURL", "replica", "ip"}
)


def features_of(question: Classify) -> dict[int, str]:
    """Every feature by its hash (32 bits), each with the word or label that a person would call it by."""
    found: dict[int, str] = {}
    labels = question.labels
    head, body = _texts(question)
    heads = _words(head, HEAD_WORDS_MAX)
    bodies = _words(body, BODY_WORDS_MAX)
    for words in (heads, bodies):
        for word in words:
            found.setdefault(_hash("w", word), word)
        for first, second in pairwise(words):
            found.setdefault(_hash("2", f"{first} {second}"), f"{first} {second}")
    for word in heads:
        found.setdefault(_hash("h", word), word)
        for piece in _pieces(word):
            found.setdefault(_hash("p", piece), word)
    for name in sorted(labels)[:LABELS_MAX]:
        value = labels[name]
        if name in _PASSING or name == "alertname" or not value or len(value) > LABEL_VALUE_CHARS:
            continue
        said = f"{name[:LABEL_NAME_CHARS]}={_LONG_NUMBER.sub('0', value)}"
        found.setdefault(_hash("l", said), said)
    for signal in question.signals[:SIGNALS_MAX]:
        said = signal[:LABEL_VALUE_CHARS].casefold()
        found.setdefault(_hash("s", said), f"severity={said}")
    if question.source:
        found.setdefault(
            _hash("o", question.source[:LABEL_VALUE_CHARS]), f"source={question.source[:LABEL_VALUE_CHARS]}"
        )
    return found


def _texts(question: Classify) -> tuple[str, str]:
    """Alert name and title, and the description, neither with the service's name: that is a label."""
    name, title = question.labels.get("alertname", ""), question.title[:TITLE_CHARS]
    head = title if name in ("", question.title) else f"{name[:TITLE_CHARS]} . {title}"
    notes = question.annotations
    body = (
        question.description or notes.get("description") or notes.get("message") or notes.get("summary") or ""
    )
    body = body[:DESCRIPTION_CHARS]
    if question.service not in ("", name):
        head, body = without(head, question.service), without(body, question.service)
    if "{{" in head or "{{" in body:
        head, body = TEMPLATE.sub(" ", head), TEMPLATE.sub(" ", body)
    return head, body


def _words(text: str, most: int) -> list[str]:
    # Case decides where CamelCase is split, so it is lowered after that.
    return [word[:WORD_CHARS].lower() for word in TOKEN.findall(_LONG_NUMBER.sub("0", text))[:most]]


def _pieces(word: str) -> Iterator[str]:
    bounded = f"<{word}>"
    for at in range(len(bounded) - PIECE_CHARS + 1):
        yield bounded[at : at + PIECE_CHARS]


def _hash(kind: str, text: str) -> int:
    # A sender may send lone surrogates in JSON.
    return xxhash.xxh32_intdigest(f"{kind}{text}".encode("utf-8", "surrogatepass"))
