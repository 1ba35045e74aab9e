"""A system that is broken on purpose is found out."""

from __future__ import annotations

import pytest

from tests.simulation.many import run_many
from tests.simulation.mutations import MUTATIONS

#: A mutation must be found within so many seeds.
FOUND_WITHIN = 40


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_system_broken_on_purpose_is_found_out(mutation: str) -> None:
    failed, _reached = run_many(range(FOUND_WITHIN), mutation=mutation, stop_at_first=True)

    assert failed, f"{FOUND_WITHIN} seeds did not find that {mutation}"
    assert MUTATIONS[mutation] in failed[0].violations[0]
