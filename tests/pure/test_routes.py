"""The tree of routes: who is told of what and why, as settings write it and as the choice walks it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.errors import Malformed
from models.incidents.incident import IncidentType, Severity
from models.routes.choice import Choice, Router, Subject
from models.routes.route import Route
from models.settings.all import Settings
from models.settings.processes import SHARD
from models.settings.receivers import RECEIVER_TYPES
from services.settings.load import load

HOOK = {"type": "webhook", "url": "https://example.org/hook"}
NAMES = ("ops", "db", "pager", "boss")


def router(routes: list[dict[str, object]], **root: object) -> Router:
    return Router(tree(routes, **root))


def tree(routes: list[dict[str, object]], **root: object) -> Route:
    settings = settings_of(routes, **root)
    found = settings.given_to(SHARD)["route"]
    assert isinstance(found, Route)
    return found


def settings_of(routes: list[dict[str, object]], **root: object) -> Settings:
    receivers = dict.fromkeys(NAMES, HOOK)
    root = {"receivers": ["ops"], **root}
    return Settings.model_validate({"notify": {"receivers": receivers, "route": root, "routes": routes}})


def incident(
    severity: Severity = Severity.P2, type_: IncidentType = IncidentType.UNKNOWN, **labels: str
) -> Subject:
    return Subject({"service": "llm-api", **labels}, severity, type_, labels.get("service", "llm-api"))


def told(choice: Choice) -> list[tuple[str, str]]:
    return [(chosen.receiver, chosen.route.name) for chosen in choice.told]


def test_what_no_route_takes_is_the_roots() -> None:
    found = router([{"matchers": ["team=db"], "receivers": ["db"]}])

    assert told(found.choose(incident(team="api"))) == [("ops", "root")]


def test_the_first_route_that_takes_it_is_the_last_that_is_asked_unless_it_continues() -> None:
    routes: list[dict[str, object]] = [
        {"name": "all p0", "severity": ["P0"], "receivers": ["pager"], "continue": True},
        {"matchers": ["team=db"], "receivers": ["db"]},
        {"matchers": ["team=~.+"], "receivers": ["boss"]},
    ]
    found = router(routes)

    assert told(found.choose(incident(team="db"))) == [("db", "routes[1]")]
    assert told(found.choose(incident(Severity.P0, team="db"))) == [("pager", "all p0"), ("db", "routes[1]")]
    assert told(found.choose(incident(Severity.P0))) == [("pager", "all p0")]


def test_an_incident_goes_as_deep_as_routes_take_it_and_a_receiver_is_told_once() -> None:
    routes = [
        {
            "service": ["llm-api"],
            "receivers": ["db"],
            "routes": [
                {"severity": ["P0", "P1"], "receivers": ["pager", "ops"], "continue": True},
                {"type": ["Security"], "receivers": ["boss", "ops"]},
            ],
        }
    ]
    found = router(routes)

    assert told(found.choose(incident())) == [("db", "routes[0]")]
    worst = found.choose(incident(Severity.P0, IncidentType.SECURITY))
    assert told(worst) == [
        ("pager", "routes[0].routes[0]"),
        ("ops", "routes[0].routes[0]"),
        ("boss", "routes[0].routes[1]"),
    ]
    assert told(found.choose(incident(service="other"))) == [("ops", "root")]


def test_a_route_has_from_above_what_it_leaves_out() -> None:
    routes = [
        {
            "matchers": ["team=db"],
            "repeat": "1h",
            "interval": "5m",
            "send_resolved": False,
            "escalate_to": ["boss"],
            "routes": [{"severity": ["P0"], "wait": "0s", "receivers": ["pager"]}],
        }
    ]
    (outer,) = tree(routes, wait="10s").routes
    (inner,) = outer.routes

    assert (outer.receivers, outer.wait_s, outer.repeat_s, outer.interval_s) == (
        ("ops",),
        10.0,
        3600.0,
        300.0,
    )
    assert (inner.receivers, inner.wait_s, inner.repeat_s, inner.interval_s) == (
        ("pager",),
        0.0,
        3600.0,
        300.0,
    )
    assert inner.escalate_to == ("boss",) and not inner.sends_resolved


def test_a_route_that_discards_tells_nobody_and_says_so() -> None:
    found = router([{"matchers": ["alertname=Watchdog"], "discard": True}])

    choice = found.choose(incident(alertname="Watchdog"))
    assert not choice.told and choice.discarded is not None and choice.discarded.name == "routes[0]"
    assert found.choose(incident(alertname="Down")).discarded is None


def test_what_another_route_tells_of_is_not_discarded() -> None:
    routes: list[dict[str, object]] = [
        {"matchers": ["alertname=Watchdog"], "discard": True, "continue": True},
        {"severity": ["P0"], "receivers": ["pager"]},
    ]

    choice = router(routes).choose(incident(Severity.P0, alertname="Watchdog"))

    assert told(choice) == [("pager", "routes[1]")] and choice.discarded is None


def test_who_is_told_when_nobody_acknowledges_is_nobody_that_is_told_anyway() -> None:
    routes: list[dict[str, object]] = [
        {"severity": ["P0"], "receivers": ["ops", "pager"], "escalate_to": ["pager", "boss"]}
    ]

    choice = router(routes).choose(incident(Severity.P0))

    assert [(each.receiver, each.route.name) for each in choice.escalations] == [("boss", "routes[0]")]


def test_every_step_says_why_it_took_it_or_not() -> None:
    routes: list[dict[str, object]] = [
        {"matchers": ['team="db"'], "receivers": ["db"]},
        {"severity": ["P0", "P1"], "receivers": ["pager"]},
        {"type": ["Security"]},
        {"service": ["a", "b"]},
        {"matchers": ["zone=x"]},
        {"severity": ["P2"], "matchers": ["team=~a.*"], "receivers": ["boss"]},
        {"receivers": ["ops"]},
    ]

    choice, steps = router(routes).explain(incident(team="api"))

    assert [(step.route.name, step.took, step.why) for step in steps] == [
        ("root", True, "route root: takes everything"),
        ("routes[0]", False, 'team="db" does not hold: team is "api"'),
        ("routes[1]", False, "severity is P2, not P0 or P1"),
        ("routes[2]", False, "type is Unknown, not Security"),
        ("routes[3]", False, 'service is "llm-api", not "a" or "b"'),
        ("routes[4]", False, 'zone="x" does not hold: there is no label zone'),
        ("routes[5]", True, 'route routes[5]: team=~"a.*", severity P2'),
    ]
    assert choice.told[0].why == steps[-1].why


def test_a_matcher_of_a_missing_label_matches_the_empty_text() -> None:
    found = router(
        [{"matchers": ["team!=db"], "receivers": ["boss"]}, {"matchers": ['zone=""'], "receivers": ["db"]}]
    )

    assert told(found.choose(incident())) == [("boss", "routes[0]")]
    assert told(found.choose(incident(team="db"))) == [("db", "routes[1]")]


def test_a_pattern_that_takes_too_long_takes_nothing_and_the_next_route_is_asked() -> None:
    found = router([{"matchers": ["text=~.*a(a|b){300}c"], "receivers": ["db"]}])

    long = incident(text="".join("ab"[number * number % 7 % 2] for number in range(5_000)))
    _choice, steps = found.explain(long)

    assert told(found.choose(long)) == [("ops", "root")]
    assert "takes too long" in steps[1].why
    assert told(found.choose(incident(text="a" + "b" * 300 + "c"))) == [("db", "routes[0]")]


LABELS = st.dictionaries(st.sampled_from(["team", "zone"]), st.sampled_from(["a", "b"]))
ROUTES: st.SearchStrategy[list[dict[str, object]]] = st.recursive(
    st.just([]),
    lambda below: st.lists(
        st.fixed_dictionaries(
            {
                "matchers": st.lists(st.sampled_from(["team=a", "zone!=b", "team=~a|b"]), max_size=2),
                "severity": st.lists(st.sampled_from(["P0", "P2"]), max_size=1),
                "continue": st.booleans(),
                "routes": below,
            },
            optional={"receivers": st.lists(st.sampled_from(NAMES), min_size=1), "discard": st.just(True)},
        ).map(lambda each: {**each, "receivers": []} if each.get("discard") else each),
        max_size=3,
    ),
    max_leaves=6,
)


@given(ROUTES, LABELS, st.sampled_from([Severity.P0, Severity.P2]))
def test_somebody_is_told_of_everything_or_a_route_says_that_it_discards_it(
    routes: list[dict[str, object]], labels: dict[str, str], severity: Severity
) -> None:
    found = router(routes)
    subject = Subject(labels, severity, IncidentType.UNKNOWN, "llm-api")

    choice, steps = found.explain(subject)

    assert bool(choice.told) != (choice.discarded is not None)
    receivers = [chosen.receiver for chosen in choice.told]
    assert len(receivers) == len(set(receivers)) and set(receivers) <= set(NAMES)
    assert choice == found.choose(subject)
    took = {step.route.name for step in steps if step.took}
    assert {chosen.route.name for chosen in choice.told} <= took


# -- hostile settings ------------------------------------------------------------------------------------------

HEAD = '[notify.receivers.ops]\ntype = "webhook"\nurl = "https://example.org/s3cr3t"\n'
ROUTE = HEAD + '[notify.route]\nreceivers = ["ops"]\n[[notify.routes]]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            ROUTE + 'receivers = ["nobody"]',
            "notify.routes[0].receivers: there is no receiver 'nobody'; there are ops",
        ),
        (
            ROUTE + 'matchers = ["a=b"]\n[[notify.routes.routes]]\nescalate_to = ["x"]',
            "notify.routes[0].routes[0].escalate_to: there is no receiver 'x'",
        ),
        (
            HEAD + '[notify.route]\nreceivers = ["o"]',
            "notify.route.receivers: there is no receiver 'o'; there are ops",
        ),
        (
            HEAD,
            "default: notify.route.receivers: expected who is told of what no route takes, one or more of ops",
        ),
        (
            ROUTE + 'matchers = ["a~b"]',
            "notify.routes[0].matchers: bad matcher format: a~b; expected matchers such as",
        ),
        (ROUTE + 'matchers = ["a=~("]', "notify.routes[0].matchers: "),
        (
            ROUTE + 'severity = ["P7"]',
            'notify.routes[0].severity[0]: expected P0, P1, P2, P3 or P4, not "P7"',
        ),
        (ROUTE + 'type = ["Network"]', "notify.routes[0].type[0]: "),
        (ROUTE + 'wait = "soon"', "notify.routes[0].wait: expected a duration"),
        (ROUTE + 'continue = "maybe"', "notify.routes[0].continue: expected true or false"),
        (
            ROUTE + 'receiver = ["ops"]',
            "notify.routes[0].receiver: there is no such setting; did you mean receivers?",
        ),
        (
            ROUTE + 'discard = true\nreceivers = ["ops"]',
            "notify.routes[0]: expected discard or receivers, not both",
        ),
        (
            ROUTE + 'name = "a"\n[[notify.routes]]\nname = "a"',
            "notify.routes[1].name: 'a' is the name of routes[0] too",
        ),
        (ROUTE + 'name = "root"', "notify.routes[0].name: 'root' is the name of route too"),
        (ROUTE + 'name = "a[0]"', "notify.routes[0].name: "),
        (
            ROUTE + "".join(f"[[notify.routes{'.routes' * depth}]]\n" for depth in range(1, 12)),
            "notify.routes: expected routes at most 8 deep, not 12",
        ),
        (
            '[notify.receivers."a b"]\ntype="webhook"\nurl="https://x.y"',
            "notify.receivers: 'a b': expected a name",
        ),
        (
            '[notify.receivers.ops]\nurl = "https://s3cr3t.y"',
            "notify.receivers.ops: expected its type, one of ",
        ),
        (
            '[notify.receivers.ops]\ntype = "webhok"',
            "notify.receivers.ops: type: expected one of ",
        ),
        ('[notify.receivers.ops]\ntype = "webhook"', "notify.receivers.ops.url: required, but missing"),
        (
            '[notify.receivers.ops]\ntype = "webhook"\nurl = "s3cr3t"',
            "notify.receivers.ops.url: expected an http:// or https:// URL",
        ),
        (
            HEAD + 'urls = "https://example.org/s3cr3t"',
            "notify.receivers.ops.urls: there is no such setting; did you mean url?",
        ),
        (
            '[notify.webhook]\nurl = "https://a.b"\n[notify.receivers.webhook]\ntype = "webhook"\nurl = "https://c.d"',
            "notify.receivers.webhook: there is a receiver webhook already",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "llm-im.toml"
    path.write_text(text)

    with pytest.raises(Malformed) as raised:
        load(path)

    where = "" if says.startswith("default") else f"{path}: "
    assert f"{where}{says}" in str(raised.value) and "s3cr3t" not in str(raised.value)


def test_the_webhook_of_today_is_a_receiver_and_the_roots() -> None:
    settings = Settings.model_validate({"notify": {"webhook": {"url": "https://a.b/c", "max_alerts": 7}}})

    route, receivers = settings.given_to(SHARD)["route"], settings.given_to(SHARD)["receivers"]

    assert isinstance(route, Route) and route.receivers == ("webhook",) and not route.routes
    assert isinstance(receivers, dict) and receivers["webhook"].max_alerts == 7


@pytest.mark.parametrize("type_", RECEIVER_TYPES)
def test_each_type_of_receiver_is_one_that_the_settings_take(type_: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate({"notify": {"receivers": {"x": {"type": type_, "no such": 1}}}})

    assert ("notify", "receivers", "x", type_, "no such") in [each["loc"] for each in raised.value.errors()]
