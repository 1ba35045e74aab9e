"""What actions take: the catalog, the table that does them, and the page that describes them say the same; mistakes are named before
anything runs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.durations import duration_text
from models.playbook.catalog import CATALOG, wrong_params
from models.playbook.parameters import Say, Seconds, convert, names_of
from models.playbook.policy import HouseRules, constrained
from services.playbooks.table import PLAYBOOK_ACTIONS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "actions.md").read_text("utf-8")


def test_every_kind_of_the_catalog_is_done_and_no_other() -> None:
    assert PLAYBOOK_ACTIONS.keys() == CATALOG.keys()
    assert all(PLAYBOOK_ACTIONS[name].spec is spec for name, spec in CATALOG.items())


@pytest.mark.parametrize("name", CATALOG)
def test_the_page_says_what_a_kind_takes(name: str) -> None:
    spec = CATALOG[name]
    if spec.params is Say:
        _, _, section = PAGE.partition("\n## Telling people\n")
        assert f"`{name}`" in section
    else:
        _, heading, section = PAGE.partition(f"\n### {name}\n")
        assert heading
    table = re.split(r"\n##", section)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", table, flags=re.MULTILINE))

    assert rows == {field.encode_name: _default(field) for field in msgspec.structs.fields(spec.params)}
    changes = spec.changes and spec.params is not Say
    if changes:
        assert "hange" in table


def _default(field: Any) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return "none"
    if isinstance(value, Seconds):
        return f'`"{duration_text(float(value)) if value else "0s"}"`'
    return f"`{json.dumps(value)}`"


@pytest.mark.parametrize(
    ("type_", "written", "said"),
    [
        ("logs_capture", {"query": "{{ a }}", "max_lines": "x"}, "max_lines: expected int, got str"),
        ("logs_capture", {"max_lines": 3}, "query: expected, and not given"),
        ("service_restart", {"service": "{{ x }}", "max_attempts": "{{ v }}", "timeout": "{{ t }}"}, ""),
        ("wait", {"duration": "30 parsecs"}, 'duration: expected a duration such as "30s", "5m", "1h" or "90d", not \'30 parsecs\''),
        ("wait", {"duration": "10d"}, "duration: expected a duration of 0 to 604800 s"),
        ("wait", {"duraton": "{{ x }}", "duration": 3}, "duraton: there is no such parameter (there are: duration)"),
        ("severity_increase", {"from": "P1", "to": "P0"}, ""),
        ("http", {"url": "x", "headers": {"a": [1]}}, "headers: expected str, got array at [...]"),
        ("http", {"url": "x", "method": "BREW"}, "method: invalid enum value 'BREW'"),
        ("service_restart", {"method": "all-at-once"}, "method: invalid enum value 'all-at-once'"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named_before_anything_runs(
    type_: str, written: dict[str, Any], said: str
) -> None:
    assert wrong_params(CATALOG[type_], written) == said


def test_a_number_that_a_template_wrote_is_a_number() -> None:
    assert convert(CATALOG["wait"].params, {"duration": "30"}).duration == 30.0  # type: ignore[attr-defined]


def test_reading_with_http_changes_nothing() -> None:
    spec = CATALOG["http"]

    assert [spec.changes_with({"method": each}) for each in ("GET", "head", "POST")] == [False, False, True]
    assert not spec.changes_with({})
    assert not CATALOG["health_check"].changes_with({"method": "POST"})


# Constraints and house rules


@pytest.mark.parametrize(
    ("constraints", "expected"),
    [
        ({"max_replicas": 5}, {"replicas": 5}),
        ({"replicas": {"max": 5}}, {"replicas": 5}),
        ({"replicas": {"min": 20}}, {"replicas": 20}),
        ({"replicas": 3}, {"replicas": 3}),
        ({"replicas": {"one_of": [10]}}, {"replicas": 10}),
        ({"wait_for_healthy": True}, {"replicas": 10, "wait_for_healthy": True}),
        ({"max_by": 2}, {"replicas": 10}),
    ],
)
def test_constraints_are_merged(constraints: dict[str, Any], expected: dict[str, Any]) -> None:
    made, changed = constrained({"replicas": 10}, constraints, names_of(CATALOG["scale"].params))

    assert made == expected
    assert bool(changed) == (expected != {"replicas": 10})


@pytest.mark.parametrize(
    "constraints",
    [
        {"window": "night"},
        {"replicas": {"one_of": [1, 2]}},
        {"replicas": {"max": "five"}},
        {"replicas": {"one_of": 3}},
    ],
)
def test_constraints_that_cannot_be_kept_refuse(constraints: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="policy"):
        constrained({"replicas": 10}, constraints, names_of(CATALOG["scale"].params))


def test_house_rules_know_an_action_by_any_of_its_names() -> None:
    rules = HouseRules(
        allowed=("service-restart", "UserBanning"), approval_for=("user_banning",), auto_isolate=False
    )

    assert not rules.why_not(["service_restart", "Restart"])
    assert rules.why_not(["rollback", "Rollback"])
    assert rules.why_approval(["http", "UserBanning"])
    assert rules.why_approval(["isolate", "Isolate"])
    assert not HouseRules().why_not(["anything"])
    assert not HouseRules().why_approval(["isolate"])
