"""What packages of others add to our tables, and what they may not."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing

from services.wiring.extensions import extended
from tests.extension import install

GROUP = "llm_incident_manager.tests"
OURS = {"ours": "built in"}


def test_an_entry_point_is_a_row_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "one", GROUP, {"theirs": "{module}:ROW"}, "ROW = 'added'")

    assert extended(GROUP, str, OURS) == {"ours": "built in", "theirs": "added"}
    assert OURS == {"ours": "built in"}


@pytest.mark.parametrize(
    ("value", "code", "why"),
    [
        ("{module}:ROW", "raise RuntimeError('broken')", "RuntimeError('broken')"),
        ("{module}:OTHER", "ROW = 'added'", "AttributeError"),
        ("no_such_module_of_ours:ROW", "", "ModuleNotFoundError"),
        ("{module}:ROW", "ROW = 7", "expected str, got int"),
    ],
)
def test_one_that_cannot_be_loaded_is_named_in_the_log_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, code: str, why: str
) -> None:
    install(tmp_path, monkeypatch, "bad", GROUP, {"bad": value}, code)
    install(tmp_path, monkeypatch, "good", GROUP, {"good": "{module}:ROW"}, "ROW = 'added'")

    with structlog.testing.capture_logs() as logs:
        rows = extended(GROUP, str, OURS)

    assert rows == {**OURS, "good": "added"}
    [line] = logs
    assert (line["event"], line["name"]) == ("extension can't be loaded, skipped", "bad")
    assert why in line["why"]


def test_our_names_are_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "rival", GROUP, {"ours": "{module}:ROW"}, "ROW = 'rival'")

    with structlog.testing.capture_logs() as logs:
        assert extended(GROUP, str, OURS) == OURS

    assert [(each["event"], each["name"], each["why"]) for each in logs] == [
        ("extension refused: its name or path is taken", "ours", "built in")
    ]


def test_a_name_that_two_packages_give_is_neithers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("one", "two"):
        install(tmp_path, monkeypatch, package, GROUP, {"same": "{module}:ROW"}, "ROW = 'added'")

    with structlog.testing.capture_logs() as logs:
        assert extended(GROUP, str, OURS) == OURS

    assert [each["why"] for each in logs] == ["another package's too"] * 2
