"""The next deadline of an incident is the first of what is due."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from models.incidents.incident import Acknowledgement, Incident, IncidentState, Severity
from models.shard import targets
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from models.shard.targets import Targets
from tests.scenario import ZERO, Story, alert, at

_within = st.tuples(*[st.sampled_from([0.0, 10.0, 60.0])] * 5)


@given(
    acknowledge=_within,
    resolve=_within,
    told=st.integers(0, 15),
    severity=st.sampled_from(Severity),
    state=st.sampled_from(IncidentState),
    handled=st.booleans(),
    answered=st.booleans(),
    merged=st.booleans(),
)
def test_the_next_time_is_the_first_target_that_was_not_told(
    acknowledge: tuple[float, ...],
    resolve: tuple[float, ...],
    told: int,
    severity: Severity,
    state: IncidentState,
    handled: bool,
    answered: bool,
    merged: bool,
) -> None:
    # All of a target is never told before half of it.
    told |= (told & 0b1010) >> 1
    settings = ShardSettings(acknowledge_within_s=acknowledge, resolve_within_s=resolve)
    incident = _incident()
    incident.state, incident.severity, incident.targets_told = state, severity, told
    if handled:
        incident.handled().answered_at = at(1) if answered else 0.0
        incident.handled().merged_into = b"\1" * 16 if merged else b""

    times = [time for time, *_what in targets._targets(incident, settings)]

    assert Shard("", settings).of(Targets).next_at(incident) == min(times, default=0.0)


def test_an_acknowledgement_that_ends_is_due_before_a_later_target() -> None:
    settings = ShardSettings(resolve_within_s=(0.0, 0.0, 600.0, 0.0, 0.0))
    incident = _incident()
    incident.handled().acknowledged = Acknowledgement("ann", at(1), at(50))

    assert Shard("", settings).next_at(incident) - ZERO == 50


def _incident() -> Incident:
    story = Story()
    story.push(at(0), alert("llm-api", "Down"))
    return story.incident
