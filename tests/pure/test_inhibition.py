"""Inhibition: which alerts are muted while others fire."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from models.alerts.inhibition import Inhibition, Inhibitor, InhibitRule, Key, Rules
from models.alerts.matchers import compile_matchers
from models.partition.sharding import TENANT

CRITICAL = InhibitRule(
    "severity", (("severity", "=", "critical"),), (("severity", "=~", "warning|info"),), ("service", "pod")
)
#: Source and target overlap: all alerts of a cluster that is down, by the one that says so.
DOWN = InhibitRule("down", (("alertname", "=", "ClusterDown"),), (("cluster", "!=", ""),), ("cluster",))
ALIKE = InhibitRule("alike", (("team", "=", "a"),), (("team", "=", "a"),), ())


def fires(inhibition: Inhibition, number: int, **labels: str) -> None:
    say(inhibition, inhibition.fires(number, labels, TENANT))


def ends(inhibition: Inhibition, number: int) -> None:
    say(inhibition, inhibition.ends(number))


def say(inhibition: Inhibition, keys: list[Key], who: str = "here") -> None:
    inhibition.hear(who, {key: lead(inhibition, key) for key in keys})


def lead(inhibition: Inhibition, key: Key) -> Inhibitor | None:
    number = inhibition.leads.get(key)
    return None if number is None else Inhibitor(*key, f"{number:016x}", f"#{number}", inhibition.both(key))


def by(inhibition: Inhibition, number: int) -> str | None:
    found = inhibition.inhibitor(number)
    return None if found is None else f"{found.rule} {found.title}"


def test_a_source_mutes_targets_with_equal_labels_only() -> None:
    inhibition = Inhibition(Rules([CRITICAL]))
    fires(inhibition, 1, severity="critical", service="api", pod="a")
    fires(inhibition, 2, severity="warning", service="api", pod="a")
    fires(inhibition, 3, severity="warning", service="api", pod="b")

    assert [by(inhibition, number) for number in (1, 2, 3)] == [None, "severity #1", None]


def test_a_label_that_both_lack_is_equal() -> None:
    inhibition = Inhibition(Rules([CRITICAL]))
    fires(inhibition, 2, severity="info", service="api")
    fires(inhibition, 1, severity="critical", service="api")

    assert by(inhibition, 2) == "severity #1"


def test_an_alert_of_another_tenant_mutes_nothing() -> None:
    inhibition = Inhibition(Rules([CRITICAL]))
    fires(inhibition, 2, severity="info", service="api")
    say(inhibition, inhibition.fires(1, {"severity": "critical", "service": "api"}, "acme"))

    assert by(inhibition, 2) is None


def test_it_ends_with_the_last_source() -> None:
    inhibition = Inhibition(Rules([CRITICAL]))
    fires(inhibition, 2, severity="info", service="api")
    fires(inhibition, 1, severity="critical", service="api", alertname="x")
    fires(inhibition, 3, severity="critical", service="api", alertname="y")

    ends(inhibition, 1)
    after_one = by(inhibition, 2)
    ends(inhibition, 3)

    assert (after_one, by(inhibition, 2)) == ("severity #3", None)


def test_an_alert_that_is_both_does_not_mute_itself() -> None:
    inhibition = Inhibition(Rules([DOWN]))
    fires(inhibition, 1, alertname="ClusterDown", cluster="eu")
    fires(inhibition, 2, alertname="PodDown", cluster="eu")

    assert [by(inhibition, number) for number in (1, 2)] == [None, "down #1"]


def test_two_that_are_both_do_not_mute_each_other() -> None:
    inhibition = Inhibition(Rules([ALIKE]))
    fires(inhibition, 1, team="a")
    fires(inhibition, 2, team="a")

    assert [by(inhibition, number) for number in (1, 2)] == [None, None]


def test_one_that_is_a_source_only_mutes_one_that_is_both() -> None:
    rule = InhibitRule("r", (("kind", "=", "s"),), (("level", "=", "t"),))
    inhibition = Inhibition(Rules([rule]))
    fires(inhibition, 1, kind="s", level="t")
    fires(inhibition, 2, kind="s", level="t", pod="b")
    fires(inhibition, 3, kind="s")

    assert [by(inhibition, number) for number in (1, 2, 3)] == ["r #3", "r #3", None]


def test_a_source_of_another_shard_mutes_as_well() -> None:
    here, there = Inhibition(Rules([CRITICAL])), Inhibition(Rules([CRITICAL]))
    fires(here, 2, severity="info", service="api")
    keys = there.fires(1, {"severity": "critical", "service": "api"}, TENANT)

    here.hear("there", {key: lead(there, key) for key in keys})
    muted = by(here, 2)
    here.hear("there", {key: lead(there, key) for key in there.ends(1)})

    assert (muted, by(here, 2), here.heard) == ("severity #1", None, {})


_labels = st.fixed_dictionaries(
    {},
    optional={
        "severity": st.sampled_from(["critical", "warning"]),
        "team": st.sampled_from(["a", "b"]),
        "cluster": st.sampled_from(["eu", "us"]),
        "alertname": st.sampled_from(["ClusterDown", "x"]),
        "service": st.just("api"),
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(_labels, st.integers(0, 6)), max_size=14), st.booleans())
def test_it_is_what_trying_every_pair_finds(steps: list[dict[str, str] | int], two_shards: bool) -> None:
    rules = [CRITICAL, DOWN, ALIKE]
    shards = [Inhibition(Rules(rules)) for _ in range(2 if two_shards else 1)]
    firing: dict[int, dict[str, str]] = {}
    number = 0
    for step in steps:
        mine = number if isinstance(step, dict) else step
        shard = shards[mine % len(shards)]
        if isinstance(step, dict):
            firing[number] = step
            keys = shard.fires(number, step, TENANT)
            number += 1
        else:
            firing.pop(step, None)
            keys = shard.ends(step)
        for each in shards:
            each.hear(f"{shards.index(shard)}", {key: lead(shard, key) for key in keys})

    for target, labels in firing.items():
        wanted = any(
            compile_matchers(rule.target)(labels)
            and compile_matchers(rule.source)(other)
            and all(labels.get(name, "") == other.get(name, "") for name in rule.equal)
            and not (compile_matchers(rule.source)(labels) and compile_matchers(rule.target)(other))
            for rule in rules
            for other in firing.values()
        )
        assert (shards[target % len(shards)].inhibitor(target) is not None) == wanted
