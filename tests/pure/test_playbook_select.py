"""Which playbooks an incident is for, in which order, and why."""

from __future__ import annotations

import pytest

from models.incidents.incident import IncidentType, Severity
from models.playbook.playbook import Playbook, Trigger
from models.playbook.select import Sample, choose, match

INCIDENT = Sample(Severity.P1, IncidentType.SECURITY, "shield", "llm-api", {"env": "prod-1", "team": "ml"})


def book(name: str, trigger: Trigger, priority: int = 0) -> Playbook:
    return Playbook(name, "1", "", trigger, (), priority=priority)


@pytest.mark.parametrize(
    ("trigger", "matches", "why"),
    [
        (Trigger(severities=(Severity.P0, Severity.P1)), True, "severity P1"),
        (Trigger(severities=(Severity.P0,)), False, "severity is P1, not P0"),
        (Trigger(types=(IncidentType.SECURITY,), sources=("shield", "edge")), True, "type Security, source shield"),
        (Trigger(sources=("edge", "sentinel")), False, "source is shield, not edge or sentinel"),
        (Trigger(services=("llm-api",)), True, "service llm-api"),
        (Trigger(matchers=(("env", "=~", "prod.*"), ("tier", "!=", "3"))), True, 'label env=~"prod.*", label tier!="3"'),
        (Trigger(matchers=(("env", "=", "prod"),)), False, "label env is 'prod-1', not env=\"prod\""),
        (Trigger(matchers=(("tier", "=", "1"),)), False, 'label tier is missing, not tier="1"'),
        (Trigger(expression="incident.alerts > 3"), True, "its expression"),
        (Trigger(), False, "it has no trigger: people and other playbooks start it"),
        (Trigger(schedule="0 3 * * *"), False, "it runs by the clock: people and other playbooks start it"),
    ],
)  # fmt: skip
def test_a_trigger_says_why_it_matches_or_not(trigger: Trigger, matches: bool, why: str) -> None:
    found = match(trigger, INCIDENT)

    assert (found.matches, found.why, found.expression) == (
        matches,
        why,
        trigger.expression if matches else "",
    )


def test_the_more_specific_goes_first_and_each_says_why_it_stands_there() -> None:
    books = [
        book("b", Trigger(severities=(Severity.P1,))),
        book("a", Trigger(severities=(Severity.P1,))),
        book("specific", Trigger(severities=(Severity.P1,), types=(IncidentType.SECURITY,))),
        book("urgent", Trigger(severities=(Severity.P1,)), priority=5),
        book("other", Trigger(severities=(Severity.P4,))),
    ]

    chosen = choose(books, INCIDENT)

    assert [(each.playbook.name, each.place) for each in chosen] == [
        ("urgent", ""),
        ("specific", "after urgent: priority 0, not 5"),
        ("a", "after specific: its trigger gives 1, not 2"),
        ("b", "after a: by name"),
    ]
