"""What the commands about a running system's playbooks and runs have in common."""

from __future__ import annotations

import http.client
from typing import Annotated, Any
from urllib.parse import quote

import typer

from services.cli.shared import terminal
from services.cli.shared.client import Client, Reply
from services.cli.shared.exits import ExitCode, Failure
from services.cli.shared.ids import walk, whole
from services.cli.shared.output import Column

PATH, RUNS = "/v1/playbooks", "/v1/runs"
REPAIRS, TASKS = "/v1/repairs", "/v1/tasks"
#: How far back a shortened id of a run is looked for.
LOOKED_THROUGH = 1000

Name = Annotated[str, typer.Argument(metavar="NAME", help="The playbook's name.")]
RunOrName = Annotated[
    str,
    typer.Argument(
        metavar="RUN|NAME", help="A run's id, or four or more characters of its end; or a playbook's name."
    ),
]
RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or four or more characters of its beginning or end.")
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", "-r", metavar="TEXT", help="Why; kept in the timeline.", show_default=False),
]

RUN_COLUMNS = (
    Column("id", lambda row: terminal.short_id(terminal.plain(row["id"])), lambda row: row["id"]),
    Column(
        "playbook", lambda row: terminal.plain(row["playbook"]), lambda row: row["playbook"], gives_way=True
    ),
    Column("version", lambda row: terminal.plain(row["version"]), lambda row: row["version"], leaves=1),
    Column("status", lambda row: terminal.plain(status(row)), lambda row: row["status"]),
    Column("started", lambda row: terminal.when(row["started_at"]), lambda row: row["started_at"]),
    Column("service", lambda row: terminal.plain(row["service"]), lambda row: row["service"], gives_way=True),
    Column(
        "incident",
        lambda row: terminal.short_id(terminal.plain(row["incident"])),
        lambda row: row["incident"],
    ),
    Column(
        "detail",
        lambda row: terminal.plain(row["detail"]),
        lambda row: row["detail"],
        gives_way=True,
        leaves=2,
    ),
)


def status(row: dict[str, Any]) -> str:
    return f"{row['status']} (shadow)" if row["shadow"] else str(row["status"])


def path_of(name: str) -> str:
    """Where a playbook is, by its name."""
    return f"{PATH}/{quote(name, safe='')}"


def json_of(client: Client, reply: Reply, *wanted: int, hint: str = "") -> Any:
    """What was answered. Raises Failure with what the server says otherwise."""
    if reply.status in (wanted or (http.client.OK,)):
        return reply.json()
    raise client.failure(reply, hint) if hint else client.failure(reply)


def find_run(client: Client, word: str) -> str:
    """The whole id of a run. Raises Failure when a word names none, or several."""
    if (identity := whole(word)) is not None:
        return identity
    part = word.lower().strip()
    if len(part) < 4 or not set(part) <= set("0123456789abcdef-"):
        raise Failure(f"{word!r} is not the id of a run: see llm-im playbooks history", ExitCode.USAGE)
    found = [
        str(each["id"])
        for each in walk(client, [], LOOKED_THROUGH, RUNS)
        if str(each["id"]).startswith(part) or str(each["id"]).endswith(part)
    ]
    if len(found) != 1:
        many = (
            f"may be any of {len(found)} runs" if found else f"is none of the newest {LOOKED_THROUGH:,} runs"
        )
        raise Failure(f"{word!r} {many}", ExitCode.USAGE if found else ExitCode.NOT_FOUND)
    return found[0]


def is_run(word: str) -> bool:
    """Whether a word is meant as a run's id: whole, or its last twelve characters or fewer."""
    return whole(word) is not None or (4 <= len(word) <= 12 and set(word.lower()) <= set("0123456789abcdef"))


def say_run(row: dict[str, Any], done: str) -> None:
    """One line for what was done to a run."""
    terminal.console().print(
        terminal.short_id(terminal.plain(row["id"])),
        f" {done} ",
        terminal.plain(row["playbook"]),
        terminal.plain(status(row)),
    )
