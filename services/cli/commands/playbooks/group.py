"""The group `llm-im playbooks`: which commands it has, in the order that help shows them."""

from __future__ import annotations

import typer

from services.cli.commands.playbooks import (
    apply,
    dry_run,
    history,
    replay,
    run,
    schema,
    simulate,
    steer,
    validate,
)
from services.cli.commands.playbooks import list as listed
from services.cli.shared.exits import EPILOG

app = typer.Typer(help="Write, check and run playbooks.", no_args_is_help=True, epilog=EPILOG)

_WRITE, _KEEP, _RUN = "Write and check", "Keep", "Run"
_COMMANDS = (
    ("validate", validate.validate, _WRITE),
    ("dry-run", dry_run.dry_run, _WRITE),
    ("simulate", simulate.simulate, _WRITE),
    ("replay", replay.replay, _WRITE),
    ("schema", schema.schema, _WRITE),
    ("apply", apply.apply, _KEEP),
    ("list", listed.list_playbooks, _KEEP),
    ("show", listed.show, _KEEP),
    ("remove", apply.remove, _KEEP),
    ("run", run.run, _RUN),
    ("pause", steer.pause, _RUN),
    ("resume", steer.resume, _RUN),
    ("cancel", steer.cancel, _RUN),
    ("approve", steer.approve, _RUN),
    ("deny", steer.deny, _RUN),
    ("history", history.history, _RUN),
    ("stats", history.stats, _RUN),
    ("tasks", history.tasks, _RUN),
)

for _name, _command, _panel in _COMMANDS:
    app.command(_name, epilog=EPILOG, rich_help_panel=_panel)(_command)
