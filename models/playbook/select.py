"""Which playbooks an incident is for, in which order, and why. Pure, and without templates: whether an expression holds is found out
by whoever runs playbooks.

All that a trigger gives must hold. A playbook whose trigger gives nothing is started by people, by its schedule and by other
playbooks only. Of several, the one with the greater `priority` goes first, then the one whose trigger gives more, then by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from models.alerts.matchers import compile_matchers, write_matcher
from models.incidents.incident import IncidentType, Severity
from models.playbook.playbook import Playbook, Trigger


class Subject(Protocol):
    """What a trigger looks at: an Incident, or a Sample."""

    @property
    def severity(self) -> Severity: ...
    @property
    def type(self) -> IncidentType: ...
    @property
    def source(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """An incident that need not exist."""

    severity: Severity
    type: IncidentType
    source: str = ""
    service: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a trigger matches. `why` names all that holds, or the first thing that does not. `expression` is still to be asked."""

    matches: bool
    why: str
    expression: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A playbook that matches, and why it stands where it does among the others."""

    playbook: Playbook
    match: Match
    place: str


def match(trigger: Trigger, subject: Subject) -> Match:
    """Whether an incident is what a trigger asks for."""
    held: list[str] = []
    for name, wanted, found in (
        ("severity", tuple(each.name for each in trigger.severities), subject.severity.name),
        ("type", tuple(map(str, trigger.types)), str(subject.type)),
        ("source", trigger.sources, subject.source),
        ("service", trigger.services, subject.service),
    ):
        if not wanted:
            continue
        if found not in wanted:
            return Match(False, f"{name} is {found or 'empty'}, not {' or '.join(wanted)}")
        held.append(f"{name} {found}")
    for each in trigger.matchers:
        if not compile_matchers([each])(subject.labels):
            return Match(
                False, f"label {each[0]} is {_label(subject.labels, each[0])}, not {write_matcher(each)}"
            )
        held.append(f"label {write_matcher(each)}")
    if not held and not trigger.expression:
        why = "it runs by the clock" if trigger.schedule else "it has no trigger"
        return Match(False, f"{why}: people and other playbooks start it")
    return Match(True, ", ".join(held) or "its expression", trigger.expression)


def specificity(trigger: Trigger) -> int:
    """How many things a trigger gives."""
    given = (trigger.severities, trigger.types, trigger.sources, trigger.services, trigger.expression)
    return sum(map(bool, given)) + len(trigger.matchers)


def rank(playbook: Playbook) -> tuple[int, int, str, str]:
    """The smaller goes first."""
    return -playbook.priority, -specificity(playbook.trigger), playbook.name, playbook.version


def choose(playbooks: Iterable[Playbook], subject: Subject) -> list[Choice]:
    """Those that match, in the order in which they run. Of one with an expression it is still to be asked whether that holds."""
    found = [(each, it) for each in playbooks if (it := match(each.trigger, subject)).matches]
    found.sort(key=lambda pair: rank(pair[0]))
    choices: list[Choice] = []
    for number, (each, it) in enumerate(found):
        place = ""
        if number:
            before = found[number - 1][0]
            if before.priority != each.priority:
                place = f"after {before.name}: priority {each.priority}, not {before.priority}"
            elif (less := specificity(each.trigger)) != (more := specificity(before.trigger)):
                place = f"after {before.name}: its trigger gives {less}, not {more}"
            else:
                place = f"after {before.name}: by name"
        choices.append(Choice(each, it, place))
    return choices


def _label(labels: Mapping[str, str], name: str) -> str:
    return repr(labels[name]) if labels and name in labels else "missing"
