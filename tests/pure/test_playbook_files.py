"""The playbooks that come with it: read without a warning, as their schema says, tried for an incident, and with every action failing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from models.errors import Malformed
from models.incidents.incident import IncidentType, Severity
from models.playbook.catalog import CATALOG
from models.playbook.document import read_document
from models.playbook.parameters import TIMEOUT, convert
from models.playbook.playbook import Playbook
from models.playbook.reading import read
from models.playbook.schema import schema
from models.playbook.select import Sample, choose
from models.playbook.simulation import Line, Script, rehearse, simulate

ROOT = Path(__file__).parents[2]
APPENDIX_B = ROOT / "tests" / "data" / "playbooks" / "appendix-b.yaml"
FILES = sorted((ROOT / "playbooks").glob("*.yaml"))
EACH = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)

#: What each is for: labels of an incident beside `service`, and what the alert says beside them.
MEANT: dict[str, tuple[IncidentType, dict[str, str], dict[str, str]]] = {
    "critical-infrastructure-failure": (
        IncidentType.INFRASTRUCTURE,
        {},
        {"health_url": "https://llm-api.example/health"},
    ),
    "default-triage": (IncidentType.UNKNOWN, {}, {"runbook_url": "https://runbooks.example/1"}),
    "gpu-out-of-memory": (IncidentType.INFRASTRUCTURE, {"alertname": "GPUOutOfMemory"}, {}),
    "guardrail-block-rate": (IncidentType.SECURITY, {"alertname": "GuardrailBlockRateHigh"}, {}),
    "prompt-injection-burst": (
        IncidentType.SECURITY,
        {"alertname": "PromptInjectionBurst", "source_ip": "203.0.113.9"},
        {"block_url": "https://waf.example/block"},
    ),
    "provider-outage-failover": (
        IncidentType.AVAILABILITY,
        {"alertname": "LLMProviderOutage", "provider": "acme"},
        {},
    ),
    "provider-rate-limit": (IncidentType.PERFORMANCE, {"alertname": "ProviderRateLimited"}, {}),
    "quality-regression-after-rollout": (IncidentType.DATA, {"alertname": "EvalQualityRegression"}, {}),
    "token-cost-runaway": (
        IncidentType.PERFORMANCE,
        {"alertname": "LLMTokenCostRunaway", "tenant_id": "acme"},
        {"limits_url": "https://gateway.example/limits"},
    ),
    "vector-store-saturation": (IncidentType.PERFORMANCE, {"alertname": "VectorStoreSaturated"}, {}),
}
#: What may be changed without anybody agreeing: it is guarded by a check, or bounded and taken back when it does not help.
UNASKED = {
    ("critical-infrastructure-failure", "service_restart"),
    ("vector-store-saturation", "scale"),
    ("provider-rate-limit", "scale"),
    ("prompt-injection-burst", "config_change"),
}


def book_of(file: Path) -> Playbook:
    found = read(file.read_text("utf-8"), file.name)
    assert found.warnings == ()
    return found.playbook


def incident_for(file: Path) -> dict[str, Any]:
    kind, labels, annotations = MEANT[file.stem]
    return {
        "id": "019ab000-0000-7001-8000-00000000aaaa", "title": "Something is wrong", "description": "It is.", "severity": "P1",
        "type": str(kind), "incident_type": str(kind), "service": "llm-api", "affected_resources": ["llm-api"],
        "labels": {"service": "llm-api", **labels}, "annotations": annotations, "assignees": ["ann"],
        "metadata": {"service": "llm-api", **labels, **annotations},
    }  # fmt: skip


def test_there_is_one_for_each_of_the_usual_troubles() -> None:
    assert {file.stem for file in FILES} == set(MEANT)


@EACH
def test_it_is_what_the_schema_says(file: Path) -> None:
    written = read_document(file.read_text("utf-8"), file.name).plain()

    jsonschema.Draft202012Validator(schema()).validate(written)


def test_the_plans_own_playbook_is_what_the_schema_says() -> None:
    jsonschema.Draft202012Validator(schema()).validate(
        read_document(APPENDIX_B.read_text("utf-8"), "b").plain()
    )


@EACH
def test_all_that_it_would_do_for_its_incident_is_known_beforehand(file: Path) -> None:
    book = book_of(file)

    for fails in (Script(incident=incident_for(file)), _everything(book, incident_for(file))):
        lines = rehearse(book, fails)

        assert [line.what for line in lines if line.status == "unknown"] == []
        assert not any("template:" in line.what for line in lines)


@EACH
def test_what_its_actions_are_given_is_what_they_take(file: Path) -> None:
    book, incident = book_of(file), incident_for(file)

    given = [
        (line.what, line.params)
        for script in (Script(incident=incident), _everything(book, incident))
        for line in rehearse(book, script)
        if line.params is not None
    ]

    assert given
    for kind, params in given:
        convert(CATALOG[kind].params, {name: value for name, value in params.items() if name != TIMEOUT})


@EACH
def test_it_is_the_first_that_is_chosen_for_its_incident(file: Path) -> None:
    incident = incident_for(file)
    subject = Sample(Severity.P1, IncidentType(incident["type"]), "", "llm-api", incident["labels"])

    chosen = choose([book_of(each) for each in FILES], subject)

    assert chosen[0].playbook.name == book_of(file).name


@EACH
def test_it_ends_whatever_fails(file: Path) -> None:
    book, incident = book_of(file), incident_for(file)
    for step in (*book.steps, *book.final):
        for failing in (
            *(f"{step.id}.{action.type}:{number}" for number, action in enumerate(step.actions, 1)),
            step.id,
        ):
            lines = simulate(book, Script(frozenset((failing,)), incident=incident))

            assert lines[-1].step == "" and lines[-1].status in ("succeeded", "failed"), failing


@EACH
def test_when_its_repair_fails_help_is_called(file: Path) -> None:
    book = book_of(file)
    repairs = [step for step in book.steps if any(action.changes for action in step.actions)]
    if not repairs:
        return

    lines = simulate(book, _everything(book, incident_for(file)))

    escalations = {step.id for step in book.steps if step.type == "escalation"}
    assert [line for line in lines if line.step in escalations and line.what == "begins"]
    assert lines[-1].status == "failed"


@EACH
def test_nothing_dangerous_is_done_unless_somebody_agrees(file: Path) -> None:
    for step in book_of(file).steps:
        for action in step.actions:
            if action.changes and step.approval is None and (file.stem, action.type) not in UNASKED:
                raised = f"{step.id}.{action.type}"
                # A step of its own asked before it.
                assert "agree" in step.condition, raised


@EACH
def test_who_says_no_is_not_paged(file: Path) -> None:
    book = book_of(file)
    asking = frozenset(step.id for step in book.steps if step.approval is not None)
    checks = frozenset(
        f"{step.id}.{action.type}"
        for step in book.steps
        for action in step.actions
        if action.type == "verify_resolution" and step.type == "diagnosis"
    )
    if not asking:
        return

    lines = simulate(
        book,
        Script(
            asking | (checks if file.stem.startswith("provider-outage") else frozenset()),
            incident=incident_for(file),
        ),
    )

    assert not [line for line in lines if line.step == "escalate" and "pagerduty" in line.what]


def test_the_restart_of_a_service_that_is_well_is_left_out() -> None:
    lines = _of("repair", simulate(book_of(FILES[0]), Script(incident=incident_for(FILES[0]))))

    assert "service_restart skipped: not needed: the check before it succeeded" in lines
    assert lines[-1] == "succeeded, goes on with resolve (verify_resolution)"


def test_a_shift_of_traffic_that_does_not_help_is_taken_back() -> None:
    file = ROOT / "playbooks" / "provider-outage-failover.yaml"
    fails = frozenset(("confirm.verify_resolution", "failover.verify_resolution"))

    lines = _of("failover", simulate(book_of(file), Script(fails, incident=incident_for(file))))

    assert "rollback traffic_shift succeeded" in lines
    assert lines[-1].startswith("failed, goes on with escalate")


def _everything(book: Playbook, incident: dict[str, Any]) -> Script:
    """Every check and every repair fails."""
    fails = {
        f"{step.id}.{action.type}"
        for step in book.steps
        for action in step.actions
        if action.changes or action.type in ("health_check", "verify_resolution")
    }
    return Script(frozenset(fails), incident=incident)


def _of(step: str, lines: list[Line]) -> list[str]:
    return [line.what for line in lines if line.step == step]


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("severity: P1", "severity: P9"),
        ("name: Default triage", "nam: Default triage"),
        ("type: metrics_snapshot", "type: metrics_snapshots"),
        ("duration: 30m", "duration: soon"),
        ("parallel: true", "parallel: yes"),
        ("type: data_collection", "type: data_colection"),
        ("id: record", "id: re-cord"),
        ("max_lines:", "max_line:"),
    ],
)
def test_the_schema_sees_what_the_reading_sees(written: str, wrong: str) -> None:
    text = (
        (ROOT / "playbooks" / "default-triage.yaml")
        .read_text("utf-8")
        .replace("severity: [P0, P1, P2]", "severity: P1")
    )
    validator = jsonschema.Draft202012Validator(schema())
    assert written in text and validator.is_valid(read_document(text, "p").plain())

    text = text.replace(written, wrong)

    assert not validator.is_valid(read_document(text, "p").plain())
    with pytest.raises(Malformed):
        read(text)
