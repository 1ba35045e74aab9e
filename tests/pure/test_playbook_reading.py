"""Playbooks as people write them: what is read, and how each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import Malformed, TooLarge
from models.incidents.incident import IncidentType, Severity
from models.playbook.catalog import CATALOG, ActionSpec
from models.playbook.parameters import Params
from models.playbook.playbook import Approval, Playbook, Retry
from models.playbook.reading import read

APPENDIX_B = Path(__file__).parents[1] / "data" / "playbooks" / "appendix-b.yaml"

HEAD = "name: a\nversion: 1\n"
STEP = "  - id: one\n    type: remediation\n    actions: [{type: wait, duration: 1s}]\n"
SMALL = HEAD + "steps:\n" + STEP


def mistakes(text: str, **more: object) -> list[str]:
    with pytest.raises((Malformed, TooLarge)) as raised:
        read(text, "p.yaml", **more)  # type: ignore[arg-type]
    return str(raised.value).splitlines()


def warnings(text: str) -> tuple[str, ...]:
    return read(text, "p.yaml").warnings


def steps(text: str) -> str:
    return HEAD + "variables: {a: 1}\nsteps:\n" + text


# -- the plan's own playbook --


@pytest.fixture(scope="module")
def appendix() -> Playbook:
    found = read(APPENDIX_B.read_text("utf-8"), APPENDIX_B.name)
    assert not found.warnings
    return found.playbook


def test_the_playbook_of_the_plan_is_read_as_it_stands(appendix: Playbook) -> None:
    assert (appendix.name, appendix.version) == ("Critical Infrastructure Failure Response", "1.0.0")
    assert appendix.trigger.severities == (Severity.P0, Severity.P1)
    assert appendix.trigger.types == (IncidentType.INFRASTRUCTURE,)
    assert appendix.variables == {
        "max_restart_attempts": 3,
        "health_check_timeout": "30s",
        "escalation_timeout": "5m",
    }
    assert appendix.metadata["last_updated"] == "2025-01-15"
    assert [step.id for step in appendix.steps] == [
        "notify_oncall", "snapshot_state", "automated_remediation", "escalate", "resolve",
    ]  # fmt: skip


def test_its_steps_run_in_the_order_written(appendix: Playbook) -> None:
    assert [step.needs for step in appendix.steps] == [
        (), ("notify_oncall",), ("snapshot_state",), ("automated_remediation",), ("escalate",),
    ]  # fmt: skip


def test_its_steps_that_ask_how_others_ended_start_after_a_failure(appendix: Playbook) -> None:
    assert [step.id for step in appendix.steps if step.tolerates] == ["escalate", "resolve"]


def test_its_health_check_guards_the_restart(appendix: Playbook) -> None:
    actions = appendix.steps[2].actions

    assert [action.guards for action in actions] == [True, False, False, False]
    assert [action.changes for action in actions] == [False, True, False, False]
    assert (actions[3].on_success, actions[3].on_failure) == ("resolve", "escalate")
    assert appendix.steps[2].retry == Retry(3, "exponential")


def test_a_timeout_that_is_a_template_stays_one(appendix: Playbook) -> None:
    assert appendix.steps[2].actions[0].params["timeout"] == "{{ variables.health_check_timeout }}"
    assert appendix.steps[1].timeout_s == 60.0


# -- the language --


def test_everything_that_may_be_said_is_read() -> None:
    book = read(
        r"""
name: everything
version: 1.0
trigger:
  severity: p0
  type: [Performance, data]
  source: [prometheus]
  service: llm-api
  labels: ['team="ml"', 'env=~"prod.*"']
  expression: incident.alerts_firing > 3
  schedule: "*/5 * * * *"
priority: 7
shadow: true
variables: {limit: 5}
steps:
  - id: ask
    type: approval
    approval: {who: [ann, sre], needed: 2, within: 10m, otherwise: help, message: "Restart {{ incident.service }}?"}
  - id: repair
    type: remediation
    needs: [ask]
    for_each: "{{ incident.affected_resources }}"
    timeout: 5m
    retry: {most: 2, backoff: linear, first: 2s, max: 30s}
    actions:
      - type: scale
        service: "{{ item }}"
        by: 2
        timeout: 90s
        once: true
        output: scaled
        rollback: {type: scale, service: "{{ item }}", by: -2}
      - type: http
        url: https://gateway.internal/limit
        method: POST
        body: {limit: "{{ variables.limit }}"}
        retry: 4
        backoff: constant
        on_failure: help
  - id: other
    type: playbook
    needs: []
    playbook: "the other one"
    variables: {limit: 9}
  - id: help
    type: escalation
    needs: [repair, other]
    condition: steps.repair.status == 'failed'
    actions: [{type: slack, message: "{{ steps.repair.outputs.scaled }}"}, {type: pagerduty}]
finally:
  - id: note
    type: notification
    actions: [{type: comment, text: "it is over: {{ steps.help.status }}"}]
"""
    ).playbook

    assert (book.version, book.priority, book.shadow) == ("1.0", 7, True)
    trigger = book.trigger
    assert (trigger.severities, trigger.types) == (
        (Severity.P0,),
        (IncidentType.PERFORMANCE, IncidentType.DATA),
    )
    assert (trigger.sources, trigger.services) == (("prometheus",), ("llm-api",))
    assert trigger.matchers == (("team", "=", "ml"), ("env", "=~", "prod.*"))
    assert (trigger.expression, trigger.schedule) == ("incident.alerts_firing > 3", "*/5 * * * *")
    ask, repair, other, help_ = book.steps
    assert ask.approval == Approval(("ann", "sre"), 2, 600.0, "help", "Restart {{ incident.service }}?")
    assert (repair.needs, repair.timeout_s, repair.for_each) == (
        ("ask",),
        300.0,
        "{{ incident.affected_resources }}",
    )
    assert repair.retry == Retry(2, "linear", 2.0, 30.0)
    scale, call = repair.actions
    assert (scale.timeout_s, scale.once, scale.output, scale.changes) == (90.0, True, "scaled", True)
    assert scale.rollback is not None and scale.rollback.params == {"service": "{{ item }}", "by": -2}
    assert (call.retry, call.on_failure, call.changes) == (Retry(4, "constant"), "help", True)
    assert (other.playbook, other.variables, other.needs) == ("the other one", {"limit": 9}, ())
    assert help_.tolerates and [action.on_failure for action in help_.actions] == [
        "next_action",
        "next_action",
    ]
    assert [(step.id, step.tolerates) for step in book.final] == [("note", True)]


def test_words_mean_what_yaml_1_2_says() -> None:
    book = read(
        HEAD
        + "variables: {off: no, norway: no, on: on, mode: 010, none: ~, real: 1.5, yes: true}\nsteps:\n"
        + STEP
    ).playbook

    assert book.variables == {
        "off": "no", "norway": "no", "on": "on", "mode": "010", "none": None, "real": 1.5, "yes": True,
    }  # fmt: skip


def test_a_call_that_only_reads_changes_nothing() -> None:
    book = read(
        steps(
            "  - {id: a, type: diagnosis, actions: [{type: http, url: 'https://x'}, {type: http, url: 'https://x', method: PUT}]}\n"
        )
    ).playbook

    assert [action.changes for action in book.steps[0].actions] == [False, True]


class Reboot(Params, frozen=True):
    host: str


def test_a_kind_of_another_package_is_checked_as_ours_are() -> None:
    text = steps("  - {id: a, type: remediation, actions: [{type: vm_reboot, host: gpu-1}]}\n")
    kinds = {**CATALOG, "vm_reboot": ActionSpec(Reboot, "Reboots a machine.", True)}

    assert read(text, kinds=kinds).playbook.steps[0].actions[0].changes
    assert "there is no action 'vm_reboot'" in mistakes(text)[0]
    assert "hots: there is no such parameter" in mistakes(text.replace("host", "hots"), kinds=kinds)[0]


def test_comments_and_layout_do_not_change_the_digest() -> None:
    first = read(SMALL).playbook.digest

    assert read("# a comment\n" + SMALL.replace("name: a", "name:   'a'")).playbook.digest == first
    assert read(SMALL.replace("1s", "2s")).playbook.digest != first


def test_a_playbook_that_was_read_can_be_kept() -> None:
    from models.playbook.playbook import decode, encode

    book = read(APPENDIX_B.read_text("utf-8")).playbook

    assert decode(encode(book)) == book


# -- mistakes --

TYPE = "  - {id: a, type: remediation, actions: "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "p.yaml: it is empty"),
        ("- a", "p.yaml:1: a playbook was expected (name, version, steps), not a list"),
        ("name: a\n  b: c", "p.yaml:2: not YAML: mapping values are not allowed in this context"),
        ("name: a\nname: b", "p.yaml:2: 'name' stands twice (before in line 1)"),
        ("name: {{ x }}", "p.yaml:1: a name was expected, not a map; put {{ }} in quotes"),
        ("a: &x [*x]", "p.yaml:1: *x contains itself"),
        ("a: !!python/name:os.system 1", "p.yaml:1: tag 'tag:yaml.org,2002:python/name:os.system' is not supported"),
        ("name: a\n---\nname: b", "p.yaml:2: a second document"),
        ("name: a\x00", "p.yaml: not YAML"),
        (SMALL.replace("version: 1\n", ""), "p.yaml:1: version was expected, and is missing"),
        (SMALL + "vriables: {}\n", "p.yaml:7: there is no field 'vriables'; did you mean 'variables'?"),
        (HEAD + "steps: []", "p.yaml:3: steps: at least one step was expected"),
        (SMALL + "severity_trigger: [P7]", "p.yaml:7: severity_trigger: 'P7' is unknown (there are: P0, P1, P2, P3, P4)"),
        (SMALL + "type_trigger: Infrastucture", "did you mean 'Infrastructure'?"),
        (SMALL + "trigger: {severity: P1}\nseverity_trigger: P1", "p.yaml:8: severity_trigger: the trigger says it too"),
        (SMALL + "trigger: {labels: ['a~b']}", "p.yaml:7: trigger, labels: a matcher such as"),
        (SMALL + "trigger: {labels: ['a=~\"(\"']}", "p.yaml:7: trigger, labels"),
        (SMALL + "trigger: {schedule: '61 * * * *'}", "p.yaml:7: trigger, schedule: a cron expression such as"),
        (SMALL + "trigger: {expression: 'incident. >'}", "p.yaml:7: trigger, expression: template: line 1"),
        (SMALL + "shadow: yes", "p.yaml:7: shadow: true or false (YAML 1.2: yes, no, on and off are texts) was expected"),
        (SMALL + "priority: high", "p.yaml:7: priority: a whole number was expected, not a text ('high')"),
        (steps("  - {id: a, type: repair, actions: [{type: wait, duration: 1s}]}"), "step a, type: 'repair' is unknown"),
        (steps("  - {id: a-b, type: remediation, actions: [{type: wait, duration: 1s}]}"), "underscores, as a_b, so that"),
        (steps("  - {id: abort, type: remediation, actions: [{type: wait, duration: 1s}]}"), "another name: abort says"),
        (steps("  - {id: a, type: remediation}"), "p.yaml:5: step a: actions: at least one was expected"),
        (steps("  - {id: a, type: approval}"), "step a: approval was expected"),
        (steps("  - {id: a, type: playbook}"), "step a: playbook was expected"),
        (steps("  - {id: a, type: remediation, playbook: b, actions: [{type: wait, duration: 1s}]}"), "only a step of type playbook"),
        (steps("  - {id: a, type: approval, approval: {needed: 0}}"), "step a, approval, needed: a number from 1 to 20"),
        (steps("  - {id: a, type: approval, approval: {otherwise: nobody}}"), "approval, otherwise: there is no step 'nobody'"),
        (steps(TYPE + "[{type: service_restrt}]}"), "step a, action 1, type: there is no action 'service_restrt'; did you mean 'service_restart'?"),
        (steps(TYPE + "[{type: wait}]}"), "step a, action 1 (wait): duration: expected, and not given"),
        (steps(TYPE + "[{type: wait, duration: soon}]}"), "step a, action 1 (wait): duration: "),
        (steps(TYPE + "[{type: slack, mesage: hi}]}"), "mesage: there is no such parameter"),
        (steps(TYPE + "[{type: wait, duration: 1s, timeout: 8d}]}"), "action 1, timeout: a duration from 1ms to 7d"),
        (steps(TYPE + "[{type: wait, duration: 1s, retry: -1}]}"), "action 1, retry: a number from 0 to 100"),
        (steps(TYPE + "[{type: wait, duration: 1s, backoff: linear}]}"), "backoff without retry"),
        (steps(TYPE + "[{type: wait, duration: 1s, retry: 1, backoff: exponental}]}"), "did you mean 'exponential'?"),
        (steps(TYPE + "[{type: wait, duration: 1s, retry: {most: 1, first: 9s, max: 2s}}]}"), "first (9s) is longer than max (2s)"),
        (steps(TYPE + "[{type: wait, duration: 1s, on_failure: escalat}]}"), "on_failure: there is no step 'escalat'; did you mean 'escalate'?"),
        (steps(TYPE + "[{type: wait, duration: 1s, on_failure: a}]}"), "a run would go in a circle: a -> a"),
        (steps(TYPE + "[{type: scale, by: 1, rollback: {type: scale, by: -1, on_failure: abort}}]}"), "a rollback has no on_failure"),
        (steps(TYPE + "[{type: scale, by: 1, rollback: {type: unscale}}]}"), "action 1, rollback, type: there is no action 'unscale'"),
        (steps(TYPE + "[{type: slack, message: '{{ incident. }}'}]}"), "step a, action 1, message: template: line 1"),
        (steps(TYPE + "[{type: slack, message: '{{ stps.a }}'}]}"), "'stps' is not known here; did you mean 'steps'?"),
        (steps(TYPE + "[{type: slack, message: '{{ steps.b.status }}'}]}"), "there is no step 'b'"),
        (steps(TYPE + "[{type: slack, message: '{{ variables.b }}'}]}"), "there is no variable 'b'"),
        (steps(TYPE + "[{type: slack, message: '{{ item }}'}]}"), "item is only known in a step with for_each"),
        (steps(TYPE + "[{type: slack, message: \"{{ 'x'|uper }}\"}]}"), "Did you mean 'upper'?"),
        (steps("  - {id: a, type: remediation, needs: [b], actions: [{type: wait, duration: 1s}]}"), "needs: there is no step 'b'"),
        (steps("  - {id: a, type: notification, actions: [{type: slack, on_failure: b}]}\n  - {id: b, type: diagnosis, actions: [{type: wait, duration: 1s}]}"), "so it can't say which"),
        (SMALL + STEP, "p.yaml:7: step one: a step of this id stands in line 4 already"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_what_was_expected(text: str, expected: str) -> None:
    found = mistakes(text)

    assert any(expected in line for line in found), found
    assert all(line.startswith("p.yaml") for line in found)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    found = mistakes(
        steps(TYPE + "[{type: x}]}\n  - {id: b, type: y, actions: [{type: wait, duration: z}]}\n")
        + "priority: q\n"
    )

    assert [line.split(":")[1] for line in found] == ["5", "6", "6", "7"]


def test_no_more_than_twenty_mistakes_are_told() -> None:
    many = "".join(f"  - {{id: s{number}, type: y}}\n" for number in range(30))

    found = mistakes(steps(many))

    assert len(found) == 21 and found[-1] == "p.yaml: and 40 more"


def three(a: str = "", b: str = "", c: str = "") -> str:
    return steps(
        "".join(
            f"  - {{id: {name}, type: remediation{more}, actions: [{{type: wait, duration: 1s{inner}}}]}}\n"
            for name, (more, _, inner) in zip("abc", (each.partition("|") for each in (a, b, c)), strict=True)
        )
    )


def test_a_circle_of_needs_is_named_step_by_step() -> None:
    assert mistakes(three(", needs: [c]", ", needs: [a]", ", needs: [b]")) == [
        "p.yaml:5: needs: the steps wait for each other: a needs c needs b needs a"
    ]


def test_a_jump_back_is_a_circle_named_step_by_step() -> None:
    assert mistakes(three(c="|, on_failure: a")) == [
        "p.yaml:7: step c, action 1 (wait), on_failure: a run would go in a circle: a -> b -> c -> a"
    ]


def test_a_step_that_is_never_reached_is_a_warning() -> None:
    assert warnings(three(a="|, on_success: c, on_failure: c")) == (
        "p.yaml:5: step a, action 1 (wait), on_failure: c has no condition: it is also done when nothing failed",
        "p.yaml:6: step b: it is never reached: a always goes on with c",
    )


def test_an_action_that_is_never_done_is_a_warning() -> None:
    text = steps(
        TYPE
        + "\n    [{type: wait, duration: 1s, on_success: done, on_failure: abort},\n     {type: wait, duration: 1s}]}\n"
    )

    assert warnings(text) == (
        "p.yaml:7: step a, action 2 (wait): it is never done: every action before it leads elsewhere",
    )


def test_what_a_template_reads_too_early_is_a_warning() -> None:
    text = steps(
        "  - {id: a, type: remediation, needs: [], condition: steps.b.status == 'failed', actions: [{type: wait, duration: 1s}]}\n"
        "  - {id: b, type: remediation, needs: [], actions: [{type: slack, message: '{{ incident.titel }}'}]}\n"
    )

    assert warnings(text) == (
        "p.yaml:5: step a, condition: step b may not be over then; say needs: [b]",
        "p.yaml:6: step b, action 1, message: an incident has no 'titel'; did you mean 'title'?",
    )


def test_a_check_that_is_cut_off_by_its_timeout_is_a_warning() -> None:
    action = "{type: verify_resolution, endpoint: 'http://x', within: 2m"

    assert warnings(steps(TYPE + f"[{action}}}]}}\n")) == (
        "p.yaml:5: step a, action 1, within: it is cut off by timeout (60s); make that longer",
    )
    assert warnings(steps(TYPE + f"[{action}, timeout: 3m}}]}}\n")) == ()


def test_names_that_a_template_makes_itself_are_known() -> None:
    message = (
        "{% for a in incident.assignees %}{{ loop.index }} {{ a.upper() }}{% endfor %}{% set n = 1 %}{{ n }}"
    )

    assert warnings(steps(TYPE + f"[{{type: slack, message: '{message}'}}]}}")) == ()


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "a: " + "{b: " * 20_000,
        "- " * 30_000,
        "\n".join(" " * level + "a:" for level in range(300)),
        "[" + "a," * 60_000 + "]",
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]" for n in range(12)),
        "a: '" + "x" * 200_000 + "'",
        HEAD + "steps:\n" + "".join(STEP.replace("one", f"s{number}") for number in range(101)),
    ],
    ids=["lists", "maps", "items", "levels", "wide", "aliases", "long", "steps"],
)  # fmt: skip
def test_a_file_out_of_bounds_is_refused(text: str) -> None:
    found = mistakes(text)

    assert len(found) == 1 and ("more than" in found[0] or "at most" in found[0])


def test_the_largest_playbook_is_read() -> None:
    actions = ", ".join(["{type: wait, duration: 1s}"] * 5)
    many = "".join(
        f"  - {{id: s{number}, type: remediation, actions: [{actions}]}}\n" for number in range(100)
    )

    assert len(read(steps(many)).playbook.steps) == 100


def test_for_each_takes_a_list_as_it_is_written() -> None:
    text = steps(TYPE + "[{type: slack, message: '{{ item }}'}], for_each: [eu, \"o'us\", 3]}\n")

    (step,) = read(text, "p.yaml").playbook.steps

    assert step.for_each == "['eu', \"o'us\", 3]"
