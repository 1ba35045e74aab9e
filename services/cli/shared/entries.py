"""What the commands for things with a name share: how an answer is read, and a list is written. Used by the commands for
people, schedules and escalation policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.cli.shared import output
from services.cli.shared.client import Client, Reply
from services.cli.shared.options import Asked
from services.cli.shared.output import Column, Output, Row


def answered(client: Client, reply: Reply, *statuses: int, see: str = "") -> Any:
    """The JSON of an answer with one of these statuses. Raises Failure for any other; `see`: the command that shows what there is."""
    if reply.status in statuses:
        return reply.json() if reply.body else None
    raise client.failure(reply, f"see {see}" if see and reply.status == 404 else "")


def write_all(
    columns: Sequence[Column], rows: list[Row], form: Output, asked: Asked, nothing: str, key: str = "name"
) -> None:
    """All rows in the form that was asked for; `nothing` in place of an empty table."""
    output.write_list(columns, rows, len(rows), output.form_of(form, asked.as_json), nothing, key)
