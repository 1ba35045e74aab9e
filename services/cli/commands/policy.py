"""`llm-im policy test`: what the policy and the settings say of an action for an incident. Nothing is done, and nothing need run."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.shared import terminal
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.where import AsJson, Config, loaded_of

if TYPE_CHECKING:
    from models.playbook.work import Do
    from services.playbooks.worker import Judged

app = typer.Typer(help="Try out policies on actions of playbooks.", no_args_is_help=True, epilog=EPILOG)


@app.command("test", epilog=EPILOG)
def test(
    incident: Annotated[
        str,
        typer.Option(
            "--incident",
            metavar="FILE",
            help="The incident, as `llm-im incidents show --json` prints it; - for stdin.",
        ),
    ],
    action: Annotated[
        str, typer.Option("--action", metavar="TYPE", help="The type of the action, such as service_restart.")
    ],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", metavar="NAME=VALUE", help="A parameter of the action. Repeatable.", show_default=False
        ),
    ] = None,
    approved_by: Annotated[
        list[str] | None,
        typer.Option(
            "--approved-by", metavar="NAME", help="Who has approved it. Repeatable.", show_default=False
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="FILE",
            help="Policies in Rego (.rego) and data (.json) to test, instead of what the settings name. Repeatable.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show whether an action would be allowed, and who would have to approve it. Nothing is done.

    No running system is needed; a policy server in the settings is asked. Exit code 0: allowed; 6: needs approval; 7: denied.

    llm-im policy test --incident incident.json --action scale --param replicas=20

    llm-im policy test --incident incident.json --action rollback --policy incidents.rego
    """
    work = _work(_incident(incident), action, param or [], approved_by or [])
    judged = asyncio.run(_judge(_given(config, policy or []), work))
    outcome, why = _outcome(judged, bool(approved_by))
    response = judged.decision.response
    if as_json:
        import msgspec

        typer.echo(
            json.dumps(
                {
                    "outcome": outcome,
                    "why": why,
                    "policy": msgspec.to_builtins(response),
                    "asked": judged.decision.asked,
                    "settings": {"refused": judged.refused, "approval": judged.approval},
                    "request": msgspec.to_builtins(judged.request),
                }
            )
        )
    else:
        rows = [
            (outcome, why),
            ("policy", judged.decision.text or "none is configured"),
            ("approvers", ", ".join(response.approvers)),
            ("constraints", json.dumps(response.constraints) if response.constraints else ""),
            ("settings", judged.refused or judged.approval),
        ]
        for word, said in rows:
            if said or word == outcome:
                typer.echo(f"{word:<15} {terminal.plain(said)}".rstrip())
    raise typer.Exit(
        {"allowed": ExitCode.OK, "needs approval": ExitCode.CONFLICT}.get(outcome, ExitCode.FORBIDDEN)
    )


def _outcome(judged: Judged, is_approved: bool) -> tuple[str, str]:
    """What would become of it, and why."""
    response = judged.decision.response
    if judged.refused:
        return "denied", judged.refused
    if not response.allowed:
        return "denied", response.reason
    approval = (
        (response.reason or "policy requires approval") if response.require_approval else judged.approval
    )
    if approval and not is_approved:
        return "needs approval", approval
    return "allowed", response.reason


def _given(config: Path | None, files: list[str]) -> dict[str, Any]:
    """What a responder would go by, with these files as its policies."""
    from models.settings.processes import RESPONDER
    from models.settings.secrets import revealed

    settings = loaded_of(config).settings
    given = revealed(
        {
            **settings.outbound.for_process(RESPONDER, 1),
            **settings.playbooks.given_to_responder(),
            **settings.integrations.for_process(RESPONDER, 1),
        }
    )
    assert isinstance(given, dict)
    if files:
        given["playbook_targets"]["policy"]["files"] = [*map(str, files)]
        given["governance"]["url"] = ""
    return given


async def _judge(given: dict[str, Any], work: Do) -> Judged:
    from actors.runtime.clock import SystemClock
    from services.playbooks.open import open_worker

    worker = open_worker(given, {}, SystemClock(), strict=True)
    try:
        return await worker.judge(work)
    finally:
        await worker.close()


def _work(incident: dict[str, Any], action: str, params: list[str], approved_by: list[str]) -> Do:
    from models.playbook.playbook import PlannedAction
    from models.playbook.work import Context, Do

    run = {"name": "policy test", "version": "1"}
    planned = PlannedAction(action, dict(map(_param, params)))
    return Do(
        "policy-test",
        "test",
        0,
        0,
        planned,
        Context(incident, run=run),
        approved_by=tuple(approved_by),
        dry=True,
    )


def _param(text: str) -> tuple[str, Any]:
    """A value is JSON where it can be read so, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise Failure(f"{text!r} is not a parameter: expected NAME=VALUE", ExitCode.USAGE)
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def _incident(name: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(
            f"can't read {name}: {getattr(error, 'strerror', None) or 'expected UTF-8'}", ExitCode.USAGE
        ) from error
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failure(f"{name}: not JSON: {error}", ExitCode.USAGE) from None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise Failure(f"{name}: expected an incident, which is an object", ExitCode.USAGE)
    # As a run sees it.
    notes, labels = found.get("annotations") or {}, found.get("labels") or {}
    found.setdefault(
        "metadata", {**labels, **notes} if isinstance(notes, dict) and isinstance(labels, dict) else {}
    )
    found.setdefault("affected_resources", [found["service"]] if found.get("service") else [])
    return found
