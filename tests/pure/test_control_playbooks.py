"""The section of the control partition that keeps playbooks: versions never change, and all is bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.control import shelf as shelves
from models.control.playbooks import (
    VERSIONS_KEPT,
    ApplyPlaybook,
    Mode,
    PlaybookApplied,
    PlaybookModeSet,
    RemovePlaybook,
    SetPlaybookMode,
)
from models.control.section import ONLY
from models.control.shelf import Shelf
from models.errors import Conflict, Malformed, NotFound, TooLarge
from models.playbook.playbook import Playbook, encode
from models.wire import Wire
from tests.runs import act, book, step


class Kept:
    """A shelf, driven as the control partition drives it."""

    def __init__(self) -> None:
        self.touched: set[bytes] = set()
        self.shelf = Shelf(self.touched.add)
        self.now = 100.0

    def tell(self, message: Wire) -> list[str]:
        """What comes of it, by name."""
        self.now += 1.0
        events = self.shelf.decide(message, self.now)
        for event in events:
            self.shelf.apply(event, self.now)
        return [type(event).__name__ for event in events]

    def apply(self, version: str = "1", name: str = "heal", text: str = "", mode: str = "") -> list[str]:
        return self.tell(applied(book(name, [step("fix", act())], version), text, mode))


def applied(playbook: Playbook, text: str = "", mode: str = "", digest: str = "") -> ApplyPlaybook:
    digest = digest or playbook.digest
    return ApplyPlaybook(playbook.name, playbook.version, digest, encode(playbook), text, "ann", mode)


def test_a_version_is_applied_once_and_never_changes() -> None:
    kept = Kept()
    assert kept.apply() == [PlaybookApplied.__name__]
    assert kept.apply() == []

    changed = book("heal", [step("other", act())], "1")
    other = Playbook("heal", "1", "another digest", changed.trigger, changed.steps)
    with pytest.raises(Conflict, match="give this one a new version"):
        kept.tell(applied(other))

    assert kept.apply("2") == [PlaybookApplied.__name__]
    assert kept.apply("1") == [PlaybookApplied.__name__]  # back to what was before
    assert kept.shelf.find("heal").current == "1"


def test_going_back_to_a_version_does_not_write_it_again() -> None:
    kept = Kept()
    kept.apply("1", text="one")
    kept.apply("2", text="two")
    (event,) = kept.shelf.decide(applied(book("heal", [step("fix", act())], "1"), "one"), 200.0)

    assert isinstance(event, PlaybookApplied)
    assert event.body == b"" and event.source == ""


def test_a_removed_playbook_keeps_its_versions_taken() -> None:
    kept = Kept()
    kept.apply()
    assert kept.tell(RemovePlaybook("heal", "ann"))
    assert kept.tell(RemovePlaybook("heal", "ann")) == []
    with pytest.raises(NotFound):
        kept.shelf.find("heal")

    other = Playbook("heal", "1", "another digest", book("heal", []).trigger, ())
    with pytest.raises(Conflict):
        kept.tell(applied(other))
    assert kept.apply()
    assert kept.shelf.find("heal").mode is Mode.ACTIVE


def test_a_mode_is_set_once_and_stays_with_the_next_version() -> None:
    kept = Kept()
    kept.apply()
    assert kept.tell(SetPlaybookMode("heal", "paused", "ann")) == [PlaybookModeSet.__name__]
    assert kept.tell(SetPlaybookMode("heal", "paused", "ann")) == []
    kept.apply("2")

    assert kept.shelf.find("heal").mode is Mode.PAUSED
    assert kept.apply("2", mode="active") == [PlaybookModeSet.__name__]
    with pytest.raises(Malformed, match="mode"):
        kept.tell(SetPlaybookMode("heal", "asleep", "ann"))


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (lambda: applied(book("", [])), Malformed),
        (lambda: applied(book("a/b", [])), Malformed),
        (lambda: applied(book("x", [], "1" * 65)), Malformed),
        (lambda: applied(book("x", []), "y" * (256 * 1024 + 1)), TooLarge),
        (lambda: applied(book("x", []), digest="another"), Malformed),
        (lambda: ApplyPlaybook("x", "1", "d", b"junk", "", "ann"), Malformed),
        (lambda: SetPlaybookMode("nobody", "paused", "ann"), NotFound),
        (lambda: RemovePlaybook("nobody", "ann"), NotFound),
    ],
)
def test_what_is_no_playbook_is_refused(message: Callable[[], Wire], error: type[Exception]) -> None:
    with pytest.raises(error):
        Kept().tell(message())


def test_all_of_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "PLAYBOOKS_MAX", 3)
    monkeypatch.setattr(shelves, "BYTES_MAX", 20_000)
    kept = Kept()
    for number in range(VERSIONS_KEPT + 5):
        kept.apply(str(number))
    found = kept.shelf.find("heal")
    assert len(found.versions) == VERSIONS_KEPT
    assert found.digest_of("0") == "digest of heal 0"  # of those that are not kept the digest is known
    kept.apply(name="b")
    kept.apply(name="c")
    with pytest.raises(TooLarge, match="3 playbooks already"):
        kept.apply(name="d")
    with pytest.raises(TooLarge, match="bytes already"):
        kept.apply("99", text="x" * 20_000)


def test_a_snapshot_gives_what_the_events_gave() -> None:
    kept = Kept()
    kept.apply()
    kept.apply("2", text="two")
    kept.apply(name="other")
    kept.tell(RemovePlaybook("other", "ann"))
    again = Shelf(lambda _key: None)
    for key in sorted(kept.touched | {ONLY}):
        record = kept.shelf.capture(key)
        if record is not None:
            again.load(key, record)
    again.loaded()

    assert (again.all, again.version) == (kept.shelf.all, kept.shelf.version)
