"""The group `llm-im incidents`: which commands it has, in the order that help shows them."""

from __future__ import annotations

import typer

from services.cli.commands.incidents import (
    ack,
    assign,
    close,
    comment,
    create,
    export,
    label,
    link,
    merge,
    reopen,
    report,
    resolve,
    severity,
    show,
    split,
    update,
    watch,
)
from services.cli.commands.incidents import list as listed
from services.cli.shared.exits import EPILOG

app = typer.Typer(help="List, show and handle incidents.", no_args_is_help=True, epilog=EPILOG)

_SEE, _HANDLE, _DESCRIBE, _JOIN, _END = "See", "Handle", "Say what it is", "Put together", "Open and end"
_COMMANDS = (
    ("list", listed.list_incidents, _SEE),
    ("show", show.show, _SEE),
    ("alerts", show.show_alerts, _SEE),
    ("timeline", show.show_timeline, _SEE),
    ("report", report.report, _SEE),
    ("export", export.export, _SEE),
    ("watch", watch.watch, _SEE),
    ("ack", ack.ack, _HANDLE),
    ("unack", ack.unack, _HANDLE),
    ("assign", assign.assign, _HANDLE),
    ("comment", comment.comment, _HANDLE),
    ("update", update.update, _HANDLE),
    ("label", label.label, _DESCRIBE),
    ("severity", severity.severity, _DESCRIBE),
    ("link", link.link, _JOIN),
    ("unlink", link.unlink, _JOIN),
    ("merge", merge.merge, _JOIN),
    ("unmerge", merge.unmerge, _JOIN),
    ("split", split.split, _JOIN),
    ("create", create.create, _END),
    ("resolve", resolve.resolve, _END),
    ("close", close.close, _END),
    ("reopen", reopen.reopen, _END),
)

for _name, _command, _panel in _COMMANDS:
    app.command(_name, epilog=EPILOG, rich_help_panel=_panel)(_command)
