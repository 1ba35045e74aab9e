"""The group `llm-im playbooks`: which commands it has, in the order that help shows them."""

from __future__ import annotations

import typer

from services.cli.commands.playbooks import dry_run, schema, simulate, validate
from services.cli.shared.exits import EPILOG

app = typer.Typer(help="Write, check and run playbooks.", no_args_is_help=True, epilog=EPILOG)

_WRITE = "Write and check"
_COMMANDS = (
    ("validate", validate.validate, _WRITE),
    ("dry-run", dry_run.dry_run, _WRITE),
    ("simulate", simulate.simulate, _WRITE),
    ("schema", schema.schema, _WRITE),
)

for _name, _command, _panel in _COMMANDS:
    app.command(_name, epilog=EPILOG, rich_help_panel=_panel)(_command)
