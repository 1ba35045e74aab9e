"""`llm-im playbooks dry-run`: what a playbook would do for an incident."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.commands.playbooks import path
from services.cli.commands.playbooks.files import Fails, OneFile, read_file, text_of
from services.cli.shared import ids, terminal
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.options import System, with_options
from services.cli.shared.where import AsJson

#: What an incident has where a file does not say it: templates see the same names as in a real run.
_EMPTY: dict[str, Any] = {
    "id": "", "title": "", "description": "", "state": "Detected", "severity": "P2", "source": "", "service": "unknown", "tenant": "",
    "labels": {}, "annotations": {}, "group_labels": {}, "group_key": "", "impact": "", "confidence": 0.0, "assignees": [], "roles": {},
    "acknowledged_by": "", "alerts_firing": 1, "alerts": 1, "reopened": 0, "is_open": True, "opened_at": "", "created_at": "",
    "updated_at": "", "related_incidents": [],
}  # fmt: skip


@with_options
def dry_run(
    file: OneFile,
    incident: Annotated[
        str,
        typer.Option(
            "--incident",
            "-i",
            metavar="FILE|ID",
            help="An incident as JSON, or the id of one of the running system.",
        ),
    ],
    fail: Fails = None,
    as_json: AsJson = False,
    *,
    options: System,
) -> None:
    """Show what a playbook would do for an incident. Nothing is done.

    Whether it is chosen, which steps are skipped, and what each action is given. What depends on the result of a step stays a template.

    llm-im playbooks dry-run critical.yaml --incident 4e5f60718293

    llm-im playbooks dry-run critical.yaml --incident incident.json --fail repair.health_check
    """  # fmt: skip
    from models.playbook.select import Match, match
    from models.playbook.simulation import Script, rehearse
    from models.playbook.template import holds

    book = read_file(file).playbook
    seen = seen_of(_from_file(incident) if Path(incident).exists() else _from_system(options, incident))
    chosen = match(book.trigger, sample_of(seen))
    if chosen.matches and chosen.expression:
        holding = holds(chosen.expression, {"incident": seen})
        why = f"its expression {'holds' if holding else 'does not hold'}: {chosen.expression}"
        chosen = Match(holding, f"{chosen.why}; {why}" if holding else why)
    if not as_json:
        said = "is chosen" if chosen.matches else "is not chosen"
        typer.echo(terminal.plain(f"{book.name} {book.version} {said}: {chosen.why}"))
        typer.echo()
    lines = rehearse(book, Script(frozenset(fail or ()), incident=seen))
    path.show(lines, as_json, name=book.name, version=book.version, chosen=chosen.matches, why=chosen.why)


def _from_file(name: str) -> dict[str, Any]:
    try:
        found = json.loads(text_of(name))
    except ValueError as error:
        raise Failure(f"{name}: not JSON: {error}") from error
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise Failure(f"{name}: an incident was expected, as llm-im incidents show ID --json writes it")
    return found


def _from_system(options: System, word: str) -> dict[str, Any]:
    if "/" in word or "." in word:
        raise Failure(f"{word}: there is no such file", ExitCode.NOT_FOUND)
    client = options.client()
    found: dict[str, Any] = client.get_json(f"/v1/incidents/{ids.find_one(client, word)}")
    return found


def seen_of(shown: dict[str, Any]) -> dict[str, Any]:
    """The incident as templates see it in a real run (models/shard/run_context.py)."""
    seen = {**_EMPTY, **{name: value for name, value in shown.items() if value is not None}}
    kind = seen.get("incident_type") or seen.get("type") or "Unknown"
    seen |= {"incident_type": kind, "type": kind}
    seen.setdefault("affected_resources", [seen["service"]])
    seen.setdefault("metadata", {**seen["labels"], **seen["annotations"]})
    return seen


def sample_of(seen: dict[str, Any]) -> Any:
    from models.incidents.incident import IncidentType, Severity
    from models.playbook.select import Sample

    try:
        return Sample(
            Severity[str(seen["severity"]).upper()], IncidentType(seen["type"]), seen["source"], seen["service"], seen["labels"]
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise Failure(f"the incident: {error} is no severity (P0 to P4) or type") from error
