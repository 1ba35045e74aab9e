"""Relabelling: rules that change an alert's labels before anything is decided by them: service, shard, group, series. Used by
services/ingest/rules.py once for each alert that is new to a gateway.

Rules are applied in their order; each sees what those before it made. A rule that can't be applied to an alert (too many steps, a
value that is too long) leaves it as it is: the alert is taken without it, and the rule is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from models.alerts.alert import Content
from models.alerts.extract import Extractor, Groups
from models.alerts.matchers import Labels, MatcherTuple, test_of
from models.alerts.patterns import Budget
from models.errors import Malformed, TooLarge

#: Steps of one rule's matchers for one alert, about 4 ms: senders choose the values.
WORK_MAX = 10_000
#: Labels that an alert may have, and bytes of one's value, as the formats have it.
LABELS_MAX = 256
VALUE_MAX_BYTES = 16 * 1024
#: The annotation that says what labels were before rules gave them another value, and how much of each value it shows.
BEFORE = "relabelled"
BEFORE_CHARS = 200
BEFORE_MAX_CHARS = 2000
#: Prefixes of what a rule reads: a label needs none, unless its name looks like one of the others.
LABEL, ANNOTATION, TITLE = "labels.", "annotations.", "title"

_REFERENCE = re.compile(r"\$(?:(\$)|(\d{1,2})|\{(\w+)\})?")

#: The rows of a CSV file: what the first column says -> labels.
Table = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Relabel:
    """One rule. It does one of: `extract` out of `read`, or look `read` up in the table `map`, either of which gives labels; or
    `set`, `drop`, `rename`. `format` "" is any; `match` are matchers that must all hold."""

    name: str
    format: str = ""
    match: tuple[MatcherTuple, ...] = ()
    read: str = ""
    extract: str = ""
    map: str = ""
    set: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What one rule did to an alert: the labels it changed, with their values before and after ("" for none), or why it could not be
    applied."""

    rule: str
    changed: dict[str, tuple[str, str]]
    failed: str = ""


Fill = Callable[[Groups], str]


class CompiledRelabel:
    """A rule, ready to apply. Raises Malformed, TooLarge for what can't be used; TooLarge too when it is applied, past its bounds."""

    def __init__(self, rule: Relabel, table: Table | None = None) -> None:
        self.rule = rule
        self.table = table or {}
        of = f"relabelling {rule.name}"
        self._budget = Budget(of, WORK_MAX)
        self._match = [test_of(matcher, self._budget) for matcher in rule.match]
        self._extractor = Extractor(rule.extract, of) if rule.extract else None
        groups = self._extractor.groups if self._extractor is not None else frozenset[str]()
        self._set = [(name, template(value, groups)) for name, value in rule.set.items()]
        self._read = reader(rule.read)

    def concerns(self, format_name: str, labels: Labels) -> bool:
        if self.rule.format not in ("", format_name):
            return False
        self._budget.renew()
        return all(test(labels) for test in self._match)

    def gives(self, labels: Labels, annotations: Labels) -> dict[str, str]:
        """The labels that change, with their new values; "" for one that goes."""
        rule = self.rule
        if rule.map:
            return dict(self.table.get(self._read(labels, annotations), {}))
        if rule.drop:
            return {name: "" for name in rule.drop if name in labels}
        if rule.rename:
            found = [(old, new) for old, new in rule.rename.items() if old in labels]
            # All at once, so that two labels can change places.
            return {old: "" for old, _new in found} | {new: labels[old] for old, new in found}
        groups: Groups | None = {}
        if self._extractor is not None:
            groups = self._extractor.groups_of(self._read(labels, annotations))
        if groups is None:
            return {}
        given = {name: fill(groups) for name, fill in self._set}
        # A group that took nothing says nothing of a label.
        return given if self._extractor is None else {name: value for name, value in given.items() if value}


class Relabelling:
    """Rules in their order. `same_as` compares what they do."""

    def __init__(self, rules: Sequence[CompiledRelabel] = ()) -> None:
        self._rules = tuple(rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def same_as(self, other: Relabelling) -> bool:
        """Whether both do the same to every alert."""
        return [(each.rule, each.table) for each in self._rules] == [
            (each.rule, each.table) for each in other._rules
        ]

    def applied(self, format_name: str, content: Content, steps: list[Step] | None = None) -> Content:
        """An alert with the labels that the rules give it. `steps` is told what each rule did, and which failed."""
        if not self._rules:
            return content
        labels, first = content.labels, content.labels
        for each in self._rules:
            try:
                if not each.concerns(format_name, labels):
                    continue
                given = each.gives(labels, content.annotations)
                changed = {
                    name: (labels.get(name, ""), value)
                    for name, value in given.items()
                    if labels.get(name, "") != value
                }
                if not changed:
                    continue
                after = _within_bounds({**labels, **given})
            except TooLarge as error:
                if steps is not None:
                    steps.append(Step(each.rule.name, {}, str(error)))
                continue
            labels = after
            if steps is not None:
                steps.append(Step(each.rule.name, changed))
        if labels is first:
            return content
        annotations = content.annotations
        if before := _before(first, labels):
            annotations = {**annotations, BEFORE: before}
        return Content(labels, annotations, content.starts_at, content.generator_url, content.source)


def _within_bounds(labels: Labels) -> dict[str, str]:
    kept = {name: value for name, value in labels.items() if value}
    if not kept:
        raise TooLarge("it would leave no label at all")
    if len(kept) > LABELS_MAX:
        raise TooLarge(f"it would make over {LABELS_MAX} labels")
    for name, value in kept.items():
        if len(value) * 4 > VALUE_MAX_BYTES and len(value.encode()) > VALUE_MAX_BYTES:
            raise TooLarge(f"it would make {name} longer than {VALUE_MAX_BYTES} bytes")
    return kept


def _before(first: Labels, labels: Labels) -> str:
    """The labels that have another value now, with the one they had. Not those that were dropped or renamed: alerts that differ only
    in such a label are to be one, and what they say of it would make them two."""
    words = [
        f"{name} was {first[name][:BEFORE_CHARS]}"
        for name in sorted(first)
        if name in labels and labels[name] != first[name]
    ]
    return "; ".join(words)[:BEFORE_MAX_CHARS]


def reader(read: str) -> Callable[[Labels, Labels], str]:
    """What a rule reads of an alert's labels and annotations: `pod` or `labels.pod`, `annotations.summary`, or `title`."""
    if read == TITLE:
        return lambda labels, annotations: (
            annotations.get("summary") or annotations.get("title") or labels.get("alertname", "")
        )
    if read.startswith(ANNOTATION):
        name = read.removeprefix(ANNOTATION)
        return lambda _labels, annotations: annotations.get(name, "")
    name = read.removeprefix(LABEL)
    return lambda labels, _annotations: labels.get(name, "")


def template(text: str, groups: frozenset[str]) -> Fill:
    """`$1` and `${name}` in a text are what the groups took, `$$` is a dollar. Raises Malformed for a group that there is not."""
    parts: list[str | tuple[str]] = []
    end = 0
    for found in _REFERENCE.finditer(text):
        parts.append(text[end : found.start()])
        end = found.end()
        name = found[2] or found[3]
        if found[1]:
            parts.append("$")
        elif name is None:
            raise Malformed(f"{text!r}: expected $1, ${{name}}, or $$ for a dollar")
        elif name not in groups:
            known = ", ".join(f"${{{each}}}" for each in sorted(groups - {"0"}))
            raise Malformed(
                f"{text!r}: there is no group {name}; "
                + (f"the expression has {known}" if known else "it needs extract with a group in parentheses")
            )
        else:
            parts.append((name,))
    parts.append(text[end:])
    return lambda taken: "".join(each if isinstance(each, str) else taken[each[0]] for each in parts)
