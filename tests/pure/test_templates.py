"""Templates of playbooks and messages: what they read, what they give, and that none gets out of bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from models.errors import Malformed, Refused, TooLarge
from models.playbook.budget import STEPS_MAX, TEXT_MAX, Budget
from models.playbook.template import check, evaluate, holds, names_in, render, render_value

CONTEXT: dict[str, Any] = {
    "incident": {
        "title": "API down",
        "labels": {"service": "llm-api", "items": "a label that is called as a method is"},
        "assignees": ["ann", "bob"],
        "affected_resources": ["llm-api"],
    },
    "alerts": [{"labels": {"pod": f"pod-{number}", "rank": number}} for number in range(50)],
    "variables": {"attempts": 3, "off": "false"},
    "steps": {"repair": {"status": "failed"}},
}


def test_a_text_is_filled_in() -> None:
    assert (
        render("{{ incident.title }} on {{ incident.affected_resources[0] }}", CONTEXT)
        == "API down on llm-api"
    )


def test_a_text_without_templates_is_left_as_it_is() -> None:
    assert render("100 % of }} { nothing", CONTEXT) == "100 % of }} { nothing"


def test_only_what_is_filled_in_goes_through_what_escapes_it() -> None:
    text = render(
        "<!here> {{ name }}{% if 1 %} {{ name|upper }}{% endif %}",
        {"name": "<b>"},
        written=lambda t: t.replace("<", "&lt;"),
    )

    assert text == "<!here> &lt;b> &lt;B>"


def test_a_label_comes_before_a_method_of_the_same_name() -> None:
    assert render("{{ incident.labels.items }}", CONTEXT).startswith("a label")


def test_loops_conditions_and_filters_work_as_in_jinja() -> None:
    text = (
        "{% for a in alerts|sort(attribute='labels.rank', reverse=true) if a.labels.rank > 47 %}"
        "{{ loop.index }}/{{ loop.length }} {{ a.labels.pod|upper }}{% if not loop.last %}, {% endif %}{% endfor %}"
        " {{ alerts|map(attribute='labels.rank')|sum }} {{ incident.team|default('nobody') }}"
    )

    assert render(text, CONTEXT) == "1/2 POD-49, 2/2 POD-48 1225 nobody"


def test_a_lone_expression_keeps_its_type() -> None:
    value = {
        "attempts": "{{ variables.attempts }}",
        "who": "{{ incident.assignees }}",
        "n": 5,
        "text": "{{ 1 }}{{ 2 }}",
    }

    assert render_value(value, CONTEXT) == {"attempts": 3, "who": ["ann", "bob"], "n": 5, "text": "12"}


def test_a_list_within_a_list_of_a_playbook_is_put_in_item_by_item() -> None:
    assert render_value(["{{ incident.assignees }}", "leads"], CONTEXT) == ["ann", "bob", "leads"]
    assert render_value([["written", "so"], "leads"], CONTEXT) == [["written", "so"], "leads"]


@pytest.mark.parametrize(
    "condition",
    ["steps.repair.status == 'failed'", "{{ steps.repair.status == 'failed' }}", "'ann' in incident.assignees", "true", "1 < 2"],
)  # fmt: skip
def test_a_condition_holds_with_and_without_braces(condition: str) -> None:
    assert holds(condition, CONTEXT)


@pytest.mark.parametrize("condition", ["{{ variables.off }}", "0", "none", "[]", "incident.title == 'x'"])
def test_a_condition_does_not_hold(condition: str) -> None:
    assert not holds(condition, CONTEXT)


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("{{ incident.titel }}", Malformed, "no 'titel'; did you mean 'title'?"),
        ("{{ nope }}", Malformed, "'nope' is not known here"),
        ("{{ incident.title|uper }}", Malformed, "Did you mean 'upper'?"),
        ("a\n{{ incident.", Malformed, "line 2"),
        ("{{ 1 / 0 }}", Malformed, "division by zero"),
        ("{{ incident.title + 1 }}", Malformed, "a text + a number"),
        ("{% for a in 5 %}{% endfor %}", Malformed, "a list was expected to loop over"),
        ("{{ incident.labels.get }}", Malformed, "only numbers, texts, lists and objects"),
        ("{{ self }}", Malformed, "only numbers, texts, lists and objects"),
        ("{{ ''.__class__.__mro__ }}", Malformed, "is not allowed"),
        ("{{ incident['__class__'] }}", Malformed, "__class__"),
        ("{{ incident.labels.update({}) }}", Malformed, "can't be called"),
        ("{{ alerts.append(1) }}", Malformed, "can't be called"),
        ("{% include '/etc/passwd' %}", Malformed, "`include` can't be used"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", Malformed, "a macro can't be used"),
        ("{{ namespace() }}", Malformed, "can't be called"),
        ("{{ '{0.__class__}'.format(1) }}", Malformed, "can't be called"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, error: type[Refused], why: str) -> None:
    with pytest.raises(error) as raised:
        render(text, CONTEXT)

    assert why in str(raised.value)


#: Each would take gigabytes or hours without a bound.
EXPLOSIONS = [
    "{{ 'x' * 10 ** 10 }}",
    "{{ 10 ** 10 ** 10 ** 10 }}",
    "{% for a in range(10 ** 9) %}x{% endfor %}",
    "{% for a in range(5000) %}{% for b in range(5000) %}{% for c in range(5000) %}x{% endfor %}{% endfor %}{% endfor %}",
    "{{ 'x'|center(10 ** 9) }}",
    "{{ 'x'|center(1000000000) }}",
    "{{ 'x'|indent(1000000000) }}",
    "{{ 'x'.ljust(1000000000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ 1.5|round(1000000000, 'ceil') }}",
    "{{ [1]|batch(1000000000, 1) }}",
    "{{ [1]|slice(1000000000) }}",
    "{{ range(9000)|join('x' * 60000) }}",
    "{{ ('x' * 60000)|replace('x', 'y' * 60000) }}",
    "{{ ('x' * 60000)|replace('', 'y' * 60000) }}",
    "{% for a in range(9000) %}{{ 'y' * 60000 }}{% endfor %}",
    "{% for a in range(9000) %}{% set x = 'y' * 60000 %}{% endfor %}",
    "{% for a in range(9000) %}{{ ('x' * 60000).strip('y' * 60000) }}{% endfor %}",
    "{% for a in range(9000) %}{{ range(9000)|sort|length }}{% endfor %}",
    "{% for a in range(9000) %}{{ alerts|tojson|length }}{% endfor %}",
    "{% for a in range(9000) %}{{ a in alerts }}{% endfor %}",
    "{% for a in range(9000) %}{% if range(9000) == range(9000) %}{% endif %}{% endfor %}",
    "{% set a = 'x' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
    "{% set a = 'x' %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
    "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
    "{% set a = [1] %}" + "{% set a = (a + a)|batch(9000) %}" * 60 + "{{ a }}",
    "{% set a = (1,) %}" + "{% set a = (a, a) %}" * 60 + "{{ {a: 1} }}",
    "{% set a = [1] %}{% set b = [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40 + "{{ a == b }}",
    "{% set p = '0.' * 8000 ~ '0' %}{{ range(9000)|map('string')|list|map(attribute=p)|list|length }}",
    "{% set a = 2 %}" + "{% set a = a * a %}" * 60 + "{{ a }}",
    "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
    "{{ " + "not " * 3000 + "1 }}",
    "{{ a" + ".b" * 5000 + " }}",
    "{{ 1" + "+1" * 2500 + " }}",
    "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "{{" * 8000,
    "x" * 20_000 + "{{ 1 }}",
]


@pytest.mark.parametrize("text", EXPLOSIONS, ids=range(len(EXPLOSIONS)))
def test_a_template_that_explodes_ends_with_an_error(text: str) -> None:
    with pytest.raises(Refused):
        render(text, CONTEXT)


def test_templates_that_explode_take_little_memory() -> None:
    """All of them, in a process that may have 300 MB of address space beyond what it has when it begins."""
    script = """
import json, resource, sys
from models.errors import Refused
from models.playbook.template import render
texts, context = json.load(sys.stdin)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for text in texts:
    try:
        render(text, context)
    except Refused as error:
        assert error.__cause__ is None or type(error.__cause__) is not MemoryError, text
        continue
    raise AssertionError(text)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps([EXPLOSIONS, CONTEXT]),
        text=True,
        capture_output=True,
    )

    assert ended.returncode == 0, ended.stderr


def test_what_a_value_renders_is_bounded_as_a_whole() -> None:
    loops = ["{% for a in range(9000) %}{% endfor %}"] * 1000

    with pytest.raises(TooLarge, match="steps"):
        render_value(loops, CONTEXT)


def test_the_longest_text_is_still_written() -> None:
    assert len(render("{{ 'x' * n }}", {"n": TEXT_MAX})) == TEXT_MAX


def test_a_message_about_fifty_alerts_is_far_from_the_bound() -> None:
    budget = Budget()

    render(
        "{% for a in alerts %}- {{ a.labels.pod }} ({{ a.labels.rank|int + 1 }})\n{% endfor %}",
        CONTEXT,
        budget=budget,
    )

    assert budget.left > STEPS_MAX * 0.97


def test_a_template_can_be_checked_before_there_is_anything_to_fill_in() -> None:
    check("{{ whatever.is.there }}")

    with pytest.raises(Malformed, match="line 1"):
        check("{{ whatever. }}")


def test_the_names_that_a_template_reads_are_known() -> None:
    found = names_in("{{ steps['a-b'].status }} {{ variables.x|default(steps.c.outputs.y) }}")

    assert sorted(found) == [("steps", "a-b", "status"), ("steps", "c", "outputs", "y"), ("variables", "x")]


def test_an_expression_is_one_expression() -> None:
    assert evaluate("{{ [1, 2] }}", {}) == [1, 2]

    for wrong in ("", "a }} {{ b", "{{ a }} {{ b }}", "text {{ a }}"):
        with pytest.raises(Malformed):
            evaluate(wrong, {"a": 1, "b": 2})
