"""`llm-im playbooks run`: a playbook for an incident, now."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.commands.playbooks.remote import Name, Reason, json_of, say_run
from services.cli.shared import ids, output
from services.cli.shared.where import AsJson, InContext, TokenFile, Url, client_of


def run(
    name: Name,
    incident: ids.OneId,
    shadow: Annotated[bool, typer.Option("--shadow", help="Decide everything and do nothing.")] = False,
    reason: Reason = None,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a playbook for an incident now, whatever its trigger says.

    llm-im playbooks run restart-api 4e5f60718293 --reason "the third pod hangs too"
    """
    client = client_of(url, context, token_file)
    identity = ids.find_one(client, incident)
    body = {"playbook": name, "shadow": shadow, "reason": reason or ""}
    started = json_of(client, client.post_json(f"{ids.PATH}/{identity}/runs", body), 201)
    if as_json:
        output.write_json(started)
    else:
        say_run(started, "runs")
