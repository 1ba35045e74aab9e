"""Versions of the learned classifier: what is kept of each, and what happens to them. The section is models/control/modelling.py.

    asked --> trained --> shadow --promote--> active --promote another, or roll back--> retired
         \\-> failed, which says why

A new version is the shadow: classifiers ask it, and only count whether it agrees. Promoting makes it active; rolling back makes the one
before it active again, or none.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from models.learned.evaluate import Evaluation
from models.partition.event import Event
from models.wire import Wire

#: Versions that can still be looked at; of the older ones nothing is known any more.
VERSIONS_KEPT = 50
#: Versions whose model is kept, so that it can be promoted: of 0.5 MB each, in every process that follows them.
FILES_KEPT = 5
#: What a training says of itself: why it failed, what it skipped.
WHY_MAX = 1000
#: What nobody ended after so long has no process any more.
TRAINING_MAX_S = 3600.0


class ModelState(StrEnum):
    SHADOW = "shadow"
    ACTIVE = "active"
    RETIRED = "retired"


class Training(msgspec.Struct, frozen=True, array_like=True):
    """One that was asked for. `ended_at` 0: it is under way. `version` is the model that came of it, 0 while none; `why` says why none
    did."""

    id: str
    at: float
    actor: str
    tenant: str
    ended_at: float = 0.0
    version: int = 0
    why: str = ""


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """Examples that a version was trained on: all of them, those that a person corrected, and those that somebody worked on."""

    all: int
    corrected: int
    seen: int


class ModelVersion(msgspec.Struct, frozen=True, array_like=True):
    """One version. `digest` is the sha256 of its file. `skipped` by what it does not decide, with why. `changed_by`, `changed_at` and
    `why` are of its last change of state."""

    version: int
    tenant: str
    state: ModelState
    trained_at: float
    asked_by: str
    took_s: float
    digest: str
    file_bytes: int
    examples: Counted
    evaluation: Evaluation
    skipped: dict[str, str]
    changed_by: str
    changed_at: float
    why: str = ""


# -- messages --


class AskTraining(Wire, frozen=True):
    """Train a model. A repeat of the same id changes nothing."""

    id: str
    actor: str
    tenant: str


class FailTraining(Wire, frozen=True):
    """A training came to nothing."""

    id: str
    why: str


class KeepModel(Wire, frozen=True):
    """What came of the training `id`. `file` is the model's (models/learned/model.py)."""

    id: str
    file: bytes
    took_s: float
    examples: Counted
    evaluation: Evaluation
    skipped: dict[str, str]


class PromoteModel(Wire, frozen=True):
    """Have classifiers go by this version. Safe to repeat."""

    version: int
    actor: str
    tenant: str
    why: str = ""


class RollBackModel(Wire, frozen=True):
    """Have classifiers go by what was active before `version`, which is active now. Safe to repeat."""

    version: int
    actor: str
    tenant: str
    why: str = ""


class ShadowModel(Wire, frozen=True):
    """Have classifiers compare with this version, with none for 0. Safe to repeat."""

    version: int
    actor: str
    tenant: str


# -- events --


class TrainingAsked(Event, frozen=True):
    """Somebody, or the schedule, wants a model trained."""

    id: str
    at: float
    actor: str
    tenant: str


class TrainingFailed(Event, frozen=True):
    """No model came of it."""

    id: str
    at: float
    why: str


class ModelTrained(Event, frozen=True):
    """A version there is from now on, as a shadow, with its file."""

    training: str
    version: int
    tenant: str
    at: float
    actor: str
    took_s: float
    digest: str
    file: bytes
    examples: Counted
    evaluation: Evaluation
    skipped: dict[str, str]


class ModelPromoted(Event, frozen=True):
    """This version is active; what was is retired."""

    version: int
    tenant: str
    at: float
    actor: str
    why: str


class ModelRolledBack(Event, frozen=True):
    """`version` is active no more; `to` is again, none for 0."""

    version: int
    to: int
    tenant: str
    at: float
    actor: str
    why: str


class ModelShadowed(Event, frozen=True):
    """This version is compared with, none for 0."""

    version: int
    tenant: str
    at: float
    actor: str
