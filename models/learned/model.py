"""A trained model: two linear classifiers over hashed features, as plain arrays, and the file that it is kept in.

A file is b"LIM1", the sha256 of what follows, and MessagePack of it (`_Stored`). Reading one runs no code, allocates no more than
the file's own size, and checks everything: a model comes from a store, and may be damaged there.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import Malformed
from models.incidents.incident import IncidentType, Severity
from models.learned.features import FEATURES_VERSION

#: Features that a model knows; of more, those that most examples have. 8,192 with 13 classes are 460 kB.
FEATURES_MAX = 8192
#: A file of that many features and all classes, with room for its header.
FILE_BYTES_MAX = 512 * 1024
#: Words named as the reason of a guess.
WORDS_NAMED = 3
#: A guess that is less sure is never heard, and its words are not looked for: they take as long as the rest.
NAMED_FROM = 0.5
#: How much of what an incident says a model must know (the share of the square of its length), or it is sure of nothing: otherwise
#: it would call what it has never seen by whatever is the most common.
FAMILIAR_MIN = 0.15
#: What a class scores that no example of a head had.
NEVER = -20.0

SEVERITY, TYPE = "severity", "type"
#: The classes of each head, in their order. A head may lack some.
CLASSES: Mapping[str, tuple[str, ...]] = {
    SEVERITY: tuple(each.name for each in Severity),
    TYPE: tuple(each.value for each in IncidentType if each is not IncidentType.UNKNOWN),
}
_MAGIC = b"LIM1"
_DIGEST_BYTES = 32

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What says the severity, or the type. weights: float32 (features, classes); bias: float32 (classes,). Scores are divided by
    `temperature` before they become probabilities: what makes a model as sure as it is right. It is never surer than `ceiling`: who was
    right twelve times out of twelve is not sure of the thirteenth."""

    classes: tuple[str, ...]
    weights: Floats
    bias: Floats
    temperature: float
    ceiling: float = 1.0


@dataclass(frozen=True, slots=True)
class Guess:
    """The most probable class, how probable it is, and the words that weighed most. `confidence` is 0 where too little of the incident
    is known to say."""

    label: str
    confidence: float
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """hashes: uint32, ascending; rarity: float32, what each feature counts for. One that is not among them counts `unknown` in
    the length of what was said, and for no class: so a model is unsure of what it has never seen."""

    hashes: NDArray[np.uint32]
    rarity: Floats
    unknown: float
    heads: Mapping[str, Head]

    def guess(self, features: Mapping[int, str]) -> dict[str, Guess]:
        """By head. `features` as models/learned/features.py makes them."""
        places, values = self.known(features)
        texts = [*features.values()]
        is_familiar = float(np.dot(values, values)) >= FAMILIAR_MIN
        return {name: self._by(head, places, values, texts, is_familiar) for name, head in self.heads.items()}

    def known(self, features: Mapping[int, str]) -> tuple[NDArray[np.intp], Floats]:
        """Of each feature its row, and what it counts for: 0 for one that is not known."""
        asked = np.fromiter(features, dtype=np.uint32, count=len(features))
        places = np.searchsorted(self.hashes, asked)
        places[places == len(self.hashes)] = 0
        is_known = self.hashes[places] == asked
        counts = np.where(is_known, self.rarity[places], np.float32(self.unknown))
        length = float(np.sqrt(np.dot(counts, counts))) or 1.0
        values: Floats = np.where(is_known, counts / np.float32(length), np.float32(0.0)).astype(np.float32)
        return places, values

    @staticmethod
    def _by(
        head: Head, places: NDArray[np.intp], values: Floats, texts: Sequence[str], is_familiar: bool
    ) -> Guess:
        parts = head.weights[places] * values[:, None]
        chances = probabilities((head.bias + parts.sum(axis=0))[None, :], head.temperature)[0]
        best = int(chances.argmax())
        confidence = min(float(chances[best]), head.ceiling) if is_familiar else 0.0
        if confidence < NAMED_FROM:
            return Guess(head.classes[best], confidence, ())
        # For this class and against the mean of the others.
        others = (parts.sum(axis=1) - parts[:, best]) / max(1, len(head.classes) - 1)
        weighed: dict[str, float] = {}
        for text, weight in zip(texts, (parts[:, best] - others).tolist()):
            weighed[text] = weighed.get(text, 0.0) + weight
        named = sorted(
            (each for each in weighed if weighed[each] > 0.0), key=lambda each: (-weighed[each], each)
        )
        return Guess(head.classes[best], confidence, tuple(named[:WORDS_NAMED]))


def probabilities(scores: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    """float64 (n, classes), rows sum to 1, of scores of that shape."""
    heat = scores.astype(np.float64) / temperature
    raised = np.exp(heat - heat.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return found


# -- the file --------------------------------------------------------------------------------------------------


class _StoredHead(msgspec.Struct, frozen=True, array_like=True):
    name: str
    classes: list[str]
    weights: bytes
    bias: bytes
    temperature: float
    ceiling: float = 1.0


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    features_version: int
    hashes: bytes
    rarity: bytes
    unknown: float
    heads: list[_StoredHead]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)
_HASH, _FLOAT = np.dtype("<u4"), np.dtype("<f4")


def encode_model(model: Model) -> bytes:
    """The file. The same model gives the same bytes."""
    stored = _Stored(
        FEATURES_VERSION,
        model.hashes.astype(_HASH).tobytes(),
        model.rarity.astype(_FLOAT).tobytes(),
        model.unknown,
        [
            _StoredHead(
                name,
                [*head.classes],
                head.weights.astype(_FLOAT).tobytes(),
                head.bias.astype(_FLOAT).tobytes(),
                head.temperature,
                head.ceiling,
            )
            for name, head in sorted(model.heads.items())
        ],
    )
    body = _encoder.encode(stored)
    return _MAGIC + hashlib.sha256(body).digest() + body


def decode_model(file: bytes) -> Model:
    """Raises Malformed that says what is wrong with it."""
    if len(file) > FILE_BYTES_MAX:
        raise Malformed(f"a model of {len(file):,} bytes: expected at most {FILE_BYTES_MAX:,}")
    start = len(_MAGIC) + _DIGEST_BYTES
    if file[: len(_MAGIC)] != _MAGIC or len(file) <= start:
        raise Malformed("not a model's file")
    if not hmac.compare_digest(hashlib.sha256(file[start:]).digest(), file[len(_MAGIC) : start]):
        raise Malformed("the model is damaged: its sha256 is another one")
    try:
        stored = _decoder.decode(file[start:])
    except msgspec.MsgspecError as error:
        raise Malformed(f"the model can't be read: {error}") from error
    if stored.features_version != FEATURES_VERSION:
        raise Malformed(
            f"the model was trained on features of version {stored.features_version}, this program has {FEATURES_VERSION}: "
            "train it again"
        )
    hashes = _array(stored.hashes, _HASH, "hashes")
    count = len(hashes)
    if not 0 < count <= FEATURES_MAX or any(before >= after for before, after in pairwise(hashes.tolist())):
        raise Malformed(f"the model's hashes: expected 1 to {FEATURES_MAX} different ones in ascending order")
    rarity = _floats(stored.rarity, count, "rarity")
    if not 0.0 < stored.unknown < 1e6:
        raise Malformed("the model's unknown: expected a number over 0")
    heads = {each.name: _head(each, count) for each in stored.heads}
    if not heads or len(heads) != len(stored.heads):
        raise Malformed("the model's heads: expected severity, type, or both")
    return Model(hashes.astype(np.uint32), rarity, stored.unknown, heads)


def _head(stored: _StoredHead, features: int) -> Head:
    known = CLASSES.get(stored.name, ())
    classes = tuple(stored.classes)
    if len(classes) < 2 or len({*classes}) != len(classes) or not {*classes} <= {*known}:
        raise Malformed(
            f"the model's head {stored.name!r}: expected two or more of {', '.join(known) or 'no classes'}"
        )
    if not 1e-3 < stored.temperature < 1e3:
        raise Malformed(f"the model's head {stored.name!r}: a temperature of {stored.temperature:g}")
    if not 0.0 < stored.ceiling <= 1.0:
        raise Malformed(f"the model's head {stored.name!r}: a ceiling of {stored.ceiling:g}")
    weights = _floats(stored.weights, features * len(classes), f"weights of {stored.name}")
    bias = _floats(stored.bias, len(classes), f"bias of {stored.name}")
    return Head(classes, weights.reshape(features, len(classes)), bias, stored.temperature, stored.ceiling)


def _floats(stored: bytes, count: int, name: str) -> Floats:
    found = _array(stored, _FLOAT, name)
    if len(found) != count or not bool(np.isfinite(found).all()):
        raise Malformed(f"the model's {name}: expected {count} finite numbers, got {len(found)}")
    return found.astype(np.float32)


def _array(stored: bytes, kind: np.dtype[Any], name: str) -> NDArray[Any]:
    if len(stored) % kind.itemsize:
        raise Malformed(f"the model's {name}: {len(stored)} bytes are no whole number of items")
    return np.frombuffer(stored, dtype=kind)
