"""Alertmanager's configuration as settings of ours, and a report of what has no counterpart. Used by `llm-im config
import-alertmanager`."""

from __future__ import annotations

from dataclasses import dataclass

from models.playbook.document import read_document
from services.importing.given import Given, Report
from services.importing.matchers import matchers_of
from services.importing.receivers import Imported, receivers_of
from services.importing.toml import Document

#: A large company's file has some thousand lines.
CHARS_MAX = 4 * 1024 * 1024
NODES_MAX = 200_000

_HEAD = (
    "Made of FILE by llm-im config import-alertmanager.",
    "",
    "What is different here:",
    "- Alerts make incidents, by service and grouping.group_by; routes look at the labels that all firing alerts of an incident share.",
    "- Whoever acknowledges an incident is not told of it again (repeat).",
    "- Secrets are not in this file: see each { env = } and { file = }.",
)


@dataclass(frozen=True, slots=True)
class Import:
    """`text` is TOML; `report` has a line for each thing that a person should look at."""

    text: str
    report: list[str]


def import_alertmanager(text: str, file: str) -> Import:
    """Raises Malformed with file and line for what is no configuration, TooLarge over a bound."""
    node = read_document(
        text, file, what="configuration of Alertmanager", chars_max=CHARS_MAX, nodes_max=NODES_MAX
    )
    report = Report(file)
    given = Given(node, report)
    made = Document([line.replace("FILE", file) for line in _HEAD])

    receivers = receivers_of(given, report)
    root = given.inner("route")
    if not root.node.entries:
        report.say(given.line, "route: expected one; nobody would be told")
    if resolve_timeout := given.inner("global").duration("resolve_timeout"):
        made.add("lifecycle", values={"resolve_timeout": resolve_timeout})
    _grouping(root, made)
    _inhibition(given, made)
    routes = _Routes(receivers, report, made)
    routes.root(root)
    for each in receivers.values():
        for name, (line, fields) in each.ours.items():
            made.add("notify", "receivers", name, values=fields, comment=f"line {line}: {each.name}")
    routes.below(root, ("notify",))
    for key in ("time_intervals", "mute_time_intervals"):
        for interval in given.maps(key):
            name = interval.text("name")
            report.say(interval.line, f"{key}: {name}: there are no times of day in routes yet; left out")
    for template in given.items("templates"):
        report.say(
            template.line, f"templates: {template.text}: Go templates; ours are Jinja2, in title and text"
        )
    given.unused()
    return Import(made.text(), report.lines)


def _grouping(root: Given, made: Document) -> None:
    nodes = root.items("group_by")
    names = [each.text for each in nodes]
    if "..." in names:
        root.report.say(nodes[0].line, "group_by: '...' would open an incident for every alert; left out")
    elif names:
        made.add(
            "grouping",
            values={"group_by": names},
            comment=f"line {nodes[0].line}; the service is always added",
        )
    else:
        root.report.say(
            root.line,
            "group_by: not set, which makes one group of all alerts of a route; here grouping.group_by keeps its default",
        )


def _inhibition(given: Given, made: Document) -> None:
    for number, rule in enumerate(given.maps("inhibit_rules"), 1):
        source = matchers_of(rule, "source_match", "source_match_re", "source_matchers")
        target = matchers_of(rule, "target_match", "target_match_re", "target_matchers")
        if not source or not target:
            given.report.say(rule.line, "inhibit_rules: expected matchers for source and target; left out")
            continue
        values = {
            "name": rule.text("name") or f"inhibit rule {number}",
            "source": source,
            "target": target,
            "equal": [each.text for each in rule.items("equal")],
        }
        rule.unused("inhibit_rules: ")
        made.add("inhibition", "rules", values=values, comment=f"line {rule.line}", is_of_list=True)


class _Routes:
    """The tree, told in the order in which TOML wants it."""

    def __init__(self, receivers: dict[str, Imported], report: Report, made: Document) -> None:
        self._receivers = receivers
        self._report = report
        self._made = made

    def root(self, route: Given) -> None:
        values = self._receiver(route)
        if wait := route.duration("group_wait"):
            values["wait"] = wait
        if repeat := route.duration("repeat_interval"):
            values["repeat"] = repeat
        if interval := route.duration("group_interval"):
            self._made.add(
                "notify", values={"interval": interval}, comment=f"line {route.line_of('group_interval')}"
            )
        self._made.add("notify", "route", values=values, comment=f"line {route.line}")
        self._times(route)
        route.ignore("routes", "continue")
        route.unused("route: ")

    def below(self, route: Given, at: tuple[str, ...]) -> None:
        """The routes below one whose own table was just written."""
        for each in route.maps("routes"):
            matchers = matchers_of(each, "match", "match_re", "matchers")
            if matchers is None:
                self._report.say(
                    each.line, "route: left out with all below it; what it took goes to the next"
                )
                continue
            values: dict[str, object] = {"matchers": matchers} if matchers else {}
            values |= self._receiver(each)
            for theirs, ours in (
                ("group_wait", "wait"),
                ("group_interval", "interval"),
                ("repeat_interval", "repeat"),
            ):
                if found := each.duration(theirs):
                    values[ours] = found
            if each.flag("continue", False):
                values["continue"] = True
            if each.has("group_by"):
                self._report.say(
                    each.line_of("group_by"),
                    "group_by: one for all routes here (grouping.group_by); left out",
                )
            self._times(each)
            each.ignore("routes")
            each.unused("route: ")
            place = (*at, "routes")
            self._made.add(*place, values=values, comment=f"line {each.line}", is_of_list=True)
            self.below(each, place)

    def _times(self, route: Given) -> None:
        for key in ("mute_time_intervals", "active_time_intervals"):
            for each in route.items(key):
                self._report.say(
                    each.line,
                    f"{key}: {each.text}: there are no times of day in routes yet: it counts always",
                )

    def _receiver(self, route: Given) -> dict[str, object]:
        name = route.text("receiver")
        if not name:
            return {}
        line = route.line_of("receiver")
        found = self._receivers.get(name)
        if found is None:
            self._report.say(line, f"receiver {name!r}: there is none of that name; left out")
            return {}
        if found.is_empty:
            return {"discard": True}
        if not found.ours:
            self._report.say(
                line,
                f"receiver {name!r}: it has no channel that there is here: until you give this route receivers, those above it are told",
            )
            return {}
        return {"receivers": list(found.ours)}
