"""The section of the control partition that keeps versions of the learned classifier."""

from __future__ import annotations

import numpy as np
import pytest

from models.control import model_versions
from models.control.model_versions import (
    AskTraining,
    Counted,
    FailTraining,
    KeepModel,
    ModelState,
    PromoteModel,
    RollBackModel,
    ShadowModel,
)
from models.control.modelling import ModelVersions
from models.errors import Conflict, Malformed, NotFound
from models.learned.evaluate import Evaluation
from models.learned.model import Head, Model, encode_model
from models.wire import Wire

HEAD = Head(("P0", "P1"), np.ones((1, 2), np.float32), np.zeros(2, np.float32), 1.0)
FILE = encode_model(Model(np.array([7], np.uint32), np.ones(1, np.float32), 1.0, {"severity": HEAD}))


class Kept:
    """The section, driven as the control partition drives it."""

    def __init__(self) -> None:
        self.touched: set[bytes] = set()
        self.section = ModelVersions(self.touched.add)
        self.now = 100.0

    def tell(self, message: Wire) -> int:
        """How many events come of it."""
        events = self.section.decide(message, self.now)
        for event in events:
            self.section.apply(event, self.now)
        return len(events)

    def train(self, name: str, file: bytes = FILE) -> int:
        self.tell(AskTraining(name, "ann", "default"))
        return self.tell(
            KeepModel(name, file, 1.0, Counted(60, 20, 30), Evaluation({}, "service", 5, 0.7), {})
        )

    @property
    def states(self) -> dict[int, ModelState]:
        return {version: each.state for version, each in self.section.all.items()}

    def counts(self) -> tuple[int, int]:
        standing = self.section.standing("default")
        return standing.active, standing.shadow

    def again(self) -> Kept:
        """What a snapshot brings back."""
        other = Kept()
        for key in sorted(self.touched):
            record = self.section.capture(key)
            if record is not None:
                other.section.load(key, record)
        return other


def test_a_new_model_is_the_shadow_until_somebody_promotes_it() -> None:
    kept = Kept()
    assert kept.train("one") == 1
    assert kept.counts() == (0, 1)

    assert kept.tell(PromoteModel(1, "ann", "default", "better")) == 1
    assert kept.tell(PromoteModel(1, "ann", "default", "better")) == 0  # a repeat

    assert kept.counts() == (1, 0)
    assert (kept.section.all[1].changed_by, kept.section.all[1].why) == ("ann", "better")


def test_rolling_back_goes_to_the_one_before_and_then_to_the_rules() -> None:
    kept = Kept()
    for name, version in (("one", 1), ("two", 2)):
        kept.train(name)
        kept.tell(PromoteModel(version, "ann", "default"))

    assert kept.tell(RollBackModel(2, "bob", "default", "pages too often")) == 1
    assert kept.tell(RollBackModel(2, "bob", "default", "pages too often")) == 0  # a repeat goes back once
    assert kept.counts() == (1, 0)
    assert kept.states == {1: ModelState.ACTIVE, 2: ModelState.RETIRED}

    kept.tell(RollBackModel(1, "bob", "default"))
    assert kept.counts() == (0, 0)


def test_one_training_at_a_time_and_a_repeat_asks_for_no_second_one() -> None:
    kept = Kept()
    kept.tell(AskTraining("one", "ann", "default"))

    assert kept.tell(AskTraining("one", "ann", "default")) == 0
    with pytest.raises(Conflict, match="ann asked for it 0 s ago"):
        kept.tell(AskTraining("two", "bob", "default"))
    kept.tell(FailTraining("one", "too few"))
    assert kept.tell(FailTraining("one", "too few")) == 0
    assert kept.tell(AskTraining("two", "bob", "default")) == 1


def test_a_training_that_nobody_ends_has_failed_after_an_hour() -> None:
    kept = Kept()
    kept.tell(AskTraining("one", "ann", "default"))
    assert kept.section.due(kept.now + 3599.0) == []

    (failed,) = kept.section.due(kept.now + 3600.0)
    kept.section.apply(failed, kept.now)

    assert kept.section.under_way is None
    assert kept.section.training is not None and "60 minutes" in kept.section.training.why
    kept.train("two")
    with pytest.raises(Conflict, match="not the last one"):
        kept.tell(FailTraining("one", "late"))


@pytest.mark.parametrize("file", [b"", FILE[:-1], b"\x80\x04\x95" + FILE])
def test_what_is_no_model_is_never_kept(file: bytes) -> None:
    with pytest.raises(Malformed):
        Kept().train("one", file)


def test_a_shadow_can_be_chosen_and_done_without() -> None:
    kept = Kept()
    kept.train("one")
    kept.train("two")
    assert kept.states == {1: ModelState.RETIRED, 2: ModelState.SHADOW}

    kept.tell(ShadowModel(1, "ann", "default"))
    assert kept.counts() == (0, 1)
    kept.tell(ShadowModel(0, "ann", "default"))
    assert kept.counts() == (0, 0)
    kept.tell(PromoteModel(1, "ann", "default"))
    with pytest.raises(Conflict, match="its own shadow"):
        kept.tell(ShadowModel(1, "ann", "default"))


def test_versions_are_one_tenants() -> None:
    kept = Kept()
    kept.train("one")

    with pytest.raises(NotFound):
        kept.tell(PromoteModel(1, "eve", "other"))
    assert kept.section.standing("other").shadow == 0


def test_old_files_are_forgotten_but_none_that_counts_or_that_one_may_go_back_to() -> None:
    kept = Kept()
    for version in (1, 2):
        kept.train(f"t{version}")
        kept.tell(PromoteModel(version, "ann", "default"))
    for version in range(3, 4 + model_versions.FILES_KEPT):
        kept.train(f"t{version}")

    files = [version for version in kept.section.all if kept.section.file(version) is not None]
    assert len(files) == model_versions.FILES_KEPT and {1, 2} < {*files}
    with pytest.raises(Conflict, match="kept no more"):
        kept.tell(PromoteModel(3, "ann", "default"))
    kept.tell(RollBackModel(2, "ann", "default"))
    assert kept.counts()[0] == 1


def test_a_snapshot_brings_back_what_is_known() -> None:
    kept = Kept()
    for version in range(1, 9):
        kept.train(f"t{version}")
    kept.tell(PromoteModel(8, "ann", "default"))
    kept.tell(AskTraining("last", "ann", "default"))

    again = kept.again()

    assert {name: value for name, value in vars(again.section).items() if name != "_touch"} == {
        name: value for name, value in vars(kept.section).items() if name != "_touch"
    }
