"""The group `llm-im incidents`: which commands it has, in the order that help shows them."""

from __future__ import annotations

import typer

from services.cli.commands.incidents import (
    creating,
    describing,
    ending,
    handling,
    joining,
    listing,
    show,
    watch,
)
from services.cli.shared.exits import EPILOG

app = typer.Typer(help="List, show and handle incidents.", no_args_is_help=True, epilog=EPILOG)

_SEE, _HANDLE, _DESCRIBE, _JOIN, _END = "See", "Handle", "Say what it is", "Put together", "Open and end"
_COMMANDS = (
    ("list", listing.list_incidents, _SEE),
    ("show", show.show, _SEE),
    ("alerts", show.show_alerts, _SEE),
    ("timeline", show.show_timeline, _SEE),
    ("watch", watch.watch, _SEE),
    ("ack", handling.ack, _HANDLE),
    ("unack", handling.unack, _HANDLE),
    ("assign", handling.assign, _HANDLE),
    ("comment", handling.comment, _HANDLE),
    ("update", handling.update, _HANDLE),
    ("label", describing.label, _DESCRIBE),
    ("severity", describing.severity, _DESCRIBE),
    ("link", joining.link, _JOIN),
    ("unlink", joining.unlink, _JOIN),
    ("merge", joining.merge, _JOIN),
    ("unmerge", joining.unmerge, _JOIN),
    ("split", joining.split, _JOIN),
    ("create", creating.create, _END),
    ("resolve", ending.resolve, _END),
    ("close", ending.close, _END),
    ("reopen", ending.reopen, _END),
)

for _name, _command, _panel in _COMMANDS:
    app.command(_name, epilog=EPILOG, rich_help_panel=_panel)(_command)
