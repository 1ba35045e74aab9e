"""`llm-im ingest try`: what becomes of alerts on their way in, stage by stage. Nothing is sent, and nothing need run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.shared import body_of_sender, terminal
from services.cli.shared.body_of_sender import As, File, Headers
from services.cli.shared.exits import EPILOG, ExitCode
from services.cli.shared.where import AsJson, Config, loaded_of

if TYPE_CHECKING:
    from models.alerts.alert import Content
    from models.alerts.filters import Dropped
    from models.settings.all import Settings

app = typer.Typer(help="Alerts on their way in.", no_args_is_help=True, epilog=EPILOG)


@app.callback()
def _several() -> None:
    """Alerts on their way in."""


@app.command("try", epilog=EPILOG)
def try_(
    file: File,
    as_: As = None,
    sender: Annotated[
        str,
        typer.Option(
            "--sender",
            metavar="NAME",
            help="The name of the token that it comes with, for filters that ask for one.",
            show_default=False,
        ),
    ] = "",
    header: Headers = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show what would become of the alerts in a file: how they are read, what each rule changes, what a filter says, and where they go.
    Exit code 1 if any of it would be refused, or a rule can't be applied.

    llm-im ingest try alert.json --as alertmanager
    """
    from models.errors import IncidentManagerError, Malformed
    from services.ingest.formats.table import all_formats
    from services.ingest.rules import wrong_rules

    settings: Settings = loaded_of(config).settings
    if wrong := wrong_rules(settings, all_formats()):
        raise Malformed("\n".join(wrong))
    alerts: list[dict[str, Any]] = []
    try:
        read = body_of_sender.read(settings, file, as_, header)
    except IncidentManagerError as error:
        name, faults = as_ or "", [{"index": -1, "error": str(error)}]
    else:
        stages = Stages(settings, read.format, sender)
        name, faults = read.format, read.faults
        for column, place in enumerate(read.reading.places):
            alerts.append({"index": place, **stages.of(read.content(column), read.is_end(column))})
    if as_json:
        typer.echo(json.dumps({"format": name, "alerts": alerts, "refused": faults}))
    else:
        count = f"{len(alerts)} alert{'' if len(alerts) == 1 else 's'}"
        typer.echo(f"format    {terminal.plain(name or 'none')}: {count}")
        for alert in alerts:
            _show(alert)
        body_of_sender.show_faults(faults)
    failed = faults or any(step["failed"] for alert in alerts for step in alert["rules"])
    raise typer.Exit(ExitCode.FAILED if failed else ExitCode.OK)


class Stages:
    """What settings make of alerts of one format, from a sender of one name."""

    def __init__(self, settings: Settings, format_name: str, token: str) -> None:
        from models.alerts.filters import verdicts_of
        from models.classification.rules import Classifier, compile_rule
        from services.ingest.lookup_table import read_table
        from services.ingest.rules import wanted_of

        self._settings = settings
        self._format = format_name
        self._token = token
        wanted = wanted_of(settings)
        self._relabelling, filters = wanted.compiled({path: read_table(path) for path in wanted.paths})
        self._verdict = verdicts_of(filters)
        judged = settings.classification
        self._classifier = Classifier(
            [compile_rule(**rule.model_dump()) for rule in judged.rules], builtin=judged.builtin_rules
        )

    def of(self, before: Content, is_end: bool) -> dict[str, Any]:
        """Each stage of an alert, as JSON has it."""
        from models.alerts.alert import service_of
        from models.alerts.grouping import group_of, title_of
        from models.alerts.relabel import Step
        from models.partition.sharding import TENANT, SlotMap, partition_name, slot_of

        steps: list[Step] = []
        after = self._relabelling.applied(self._format, before, steps)
        grouping, partitions = self._settings.grouping, self._settings.state.partitions
        service = service_of(after.labels, grouping.service_labels)
        slot = slot_of(TENANT, service)
        group, _labels = group_of(after.labels, service, grouping.group_by)
        title = title_of(after.labels, after.annotations, service)
        verdict = self._classified(after, service, title)
        return {
            "status": "resolved" if is_end else "firing",
            "title": title,
            "labels_before": before.labels,
            "rules": [
                {
                    "rule": step.rule,
                    "changed": {
                        name: {"before": was, "after": now} for name, (was, now) in step.changed.items()
                    },
                    "failed": step.failed,
                }
                for step in steps
            ],
            "labels": after.labels,
            "annotations": after.annotations,
            "filter": self._filtered(after, is_end),
            "service": service,
            "service_label": next((each for each in grouping.service_labels if after.labels.get(each)), None),
            "slot": slot,
            "shard": partition_name(SlotMap.even(partitions).owners[slot]),
            "shards": partitions,
            "group": group,
            "severity": verdict.severity.name,
            "type": verdict.type.value,
            "impact": verdict.impact,
            "classified_by": verdict.by,
            "inhibited_by": self._inhibiting(after.labels),
        }

    def _filtered(self, after: Content, is_end: bool) -> dict[str, Any]:
        drops = self._verdict(self._format, after.labels, after.annotations)
        found: Dropped | None = next((each for each in drops if each.token in ("", self._token)), None)
        if found is None:
            return {"dropped": False, "by": None, "why": "no filter drops it"}
        if is_end:
            why = f"{found.why}, but what ends an alert is never dropped"
            return {"dropped": False, "by": found.name, "why": why}
        return {"dropped": True, "by": found.name, "why": found.why}

    def _classified(self, after: Content, service: str, title: str) -> Any:
        from models.alerts.grouping import signal_of
        from models.partition.sharding import TENANT
        from models.shard.effects import Classify

        signal = signal_of(after.labels, after.annotations)
        signals, description = [signal] if signal else [], after.annotations.get("description", "")
        return self._classifier.classify(
            Classify(
                b"", TENANT, service, after.source, title, description, after.labels, after.annotations,
                signals, len(signals),
            )
        )  # fmt: skip

    def _inhibiting(self, labels: Mapping[str, str]) -> list[str]:
        """The rules of inhibition that mute it while their source fires."""
        from models.alerts.matchers import compile_matchers

        rules = [each.rule for each in self._settings.inhibition.rules]
        return [rule.name for rule in rules if compile_matchers(rule.target)(labels)]


def _show(alert: Mapping[str, Any]) -> None:
    filtered, lines = alert["filter"], [("before", _pairs(alert["labels_before"]))]
    for step in alert["rules"]:
        lines.append(("rule", f"{step['rule']}: {_changes(step)}"))
    if alert["rules"]:
        lines.append(("after", _pairs(alert["labels"])))
    dropped = f"dropped by {filtered['by']}: {filtered['why']}"
    lines.append(("filter", dropped if filtered["dropped"] else filtered["why"]))
    if not filtered["dropped"]:
        label = alert["service_label"]
        found = f" (label {label})" if label else " (no label names it: its alertname)"
        lines += [
            ("service", alert["service"] + found),
            ("shard", f"{alert['shard']}, of {alert['shards']} in a new system; slot {alert['slot']}"),
            ("group", alert["group"]),
            ("severity", f"{alert['severity']}, {alert['type']}, impact {alert['impact']}"),
            ("by", alert["classified_by"]),
        ]
        if alert["inhibited_by"]:
            lines.append(("muted", f"while a source fires of {', '.join(alert['inhibited_by'])}"))
    typer.echo("")
    typer.echo(f"{alert['status']:<9} {terminal.plain(alert['title'])}")
    for word, said in lines:
        typer.echo(f"{word:<9} {terminal.plain(said)}")


def _pairs(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())


def _changes(step: Mapping[str, Any]) -> str:
    if step["failed"]:
        return f"NOT APPLIED: {step['failed']}"
    words = []
    for name, change in step["changed"].items():
        if not change["after"]:
            words.append(f"{name} goes (was {change['before']})")
        else:
            words.append(
                f"{name}={change['after']}" + (f" (was {change['before']})" if change["before"] else "")
            )
    return ", ".join(words)
