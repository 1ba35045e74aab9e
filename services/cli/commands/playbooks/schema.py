"""`llm-im playbooks schema`: what editors complete and check playbooks by."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON Schema of playbooks.

    With it, editors complete and explain names, and mark mistakes.

    llm-im playbooks schema > playbook.schema.json
    """
    from models.playbook.schema import schema as described
    from services.playbooks.table import all_specs

    typer.echo(json.dumps(described(all_specs()), indent=2))
