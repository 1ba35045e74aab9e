"""`llm-im edge agents|show|config|check`: the edge agents, and what they are asked to do."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from services.cli.shared import ids, output, terminal
from services.cli.shared.client import Client, Reply
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.output import Column, Form, Output, Row
from services.cli.shared.where import AsJson, InContext, TokenFile, Url, client_of

PATH = "/v1/edge/agents"
#: How often it is looked whether an agent has answered.
LOOK_S = 0.2
#: Actions that `show` prints: those of an hour on a bad day.
SHOWN_MAX = 20

app = typer.Typer(help="See and steer edge agents.", no_args_is_help=True, epilog=EPILOG)

Which = Annotated[
    str, typer.Argument(metavar="AGENT", help="As shown by llm-im edge agents.", show_default=False)
]


def _connected(row: Row) -> str:
    return "connected" if row["connected"] else "away"


COLUMNS = (
    Column("agent", lambda row: terminal.plain(row["id"]), lambda row: row["id"]),
    Column("stream", _connected, _connected),
    Column("since", lambda row: terminal.since(row["since"]), lambda row: row["since"], right=True),
    Column("health", lambda row: terminal.plain(row["status"] or "-"), lambda row: row["status"]),
    Column("open", lambda row: f"{row['open_actions']:,}", lambda row: row["open_actions"], right=True),
    Column("config", lambda row: str(row["config_version"]), lambda row: row["config_version"], right=True),
    Column(
        "services",
        lambda row: terminal.plain(", ".join(row["services"]) or "-"),
        lambda row: ", ".join(row["services"]),
        gives_way=True,
        leaves=1,
    ),
)


@app.command(epilog=EPILOG)
def agents(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most this many.")
    ] = 200,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    form: Form = Output.TABLE,
    as_json: AsJson = False,
) -> None:
    """List the edge agents: whether each is connected, how it is, what it has to do.

    llm-im edge agents
    """
    found = list(ids.walk(client_of(url, context, token_file), (), limit + 1, PATH))
    output.write_list(COLUMNS, found, limit, output.form_of(form, as_json), "no edge agent has connected")


@app.command(epilog=EPILOG)
def show(
    agent: Which,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one edge agent, with what it was asked to do within the last day."""
    found = _found(client_of(url, context, token_file), agent)
    if as_json:
        output.write_json(found)
        return
    out = terminal.console()
    config, check = found["config"], found["check"]
    for name, text in (
        ("agent", found["id"]),
        ("stream", f"{_connected(found)} for {terminal.since(found['since'])}, {found['gateway']}"),
        ("why away", found["why_away"]),
        ("health", " ".join([found["status"] or "not said", found["detail"]]).strip()),
        ("services", ", ".join(found["services"])),
        ("can do", ", ".join(found["can_do"])),
        ("has config", str(found["config_version"])),
        ("to have", "" if config is None else f"{config['version']} by {config['by']}"),
        ("values", "" if config is None else terminal.pairs(config["values"])),
        ("check", "" if check is None else _check_words(check)),
    ):
        if text:
            out.print(f"  {name:<12}{terminal.plain(text)}")
    if found["actions"]:
        table = terminal.table("ACTION", "SERVICE", "STATE", "SINCE", "DETAIL")
        for each in found["actions"][:SHOWN_MAX]:
            table.add_row(
                terminal.plain(each["type"]),
                terminal.plain(each["service"]),
                terminal.plain(each["state"]),
                terminal.since(each["ended_at"] or each["delivered_at"] or each["queued_at"]),
                terminal.plain(each["detail"] or "-"),
            )
        out.print(table)
        if len(found["actions"]) > SHOWN_MAX:
            typer.echo(f"and {len(found['actions']) - SHOWN_MAX:,} older actions: --json has all", err=True)


@app.command(epilog=EPILOG)
def config(
    agent: Which,
    values: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE...", help="All values that it is to have.", show_default=False),
    ],
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Give an edge agent a configuration: all of its values. It is sent until the agent says that it has it.

    llm-im edge config edge-1 log_level=debug sample_rate=0.1
    """
    wanted = dict(map(_pair, values))
    client = client_of(url, context, token_file)
    found = _json(client, client.post_json(f"{_path(agent)}/config", {"values": wanted}))
    if as_json:
        output.write_json(found)
        return
    version, has = found["config"]["version"], found["config_version"]
    when = "it has it" if has >= version else "sent" if found["connected"] else "sent when it connects"
    typer.echo(f"{terminal.plain(found['id'])}: configuration {version}: {when}")


@app.command(epilog=EPILOG)
def check(
    agent: Which,
    service: Annotated[
        str, typer.Option("--service", "-s", metavar="NAME", help="Ask about a service of its.")
    ] = "",
    wait: Annotated[
        int, typer.Option("--wait", min=0, max=600, help="Seconds to wait for its answer; 0: do not wait.")
    ] = 10,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask an edge agent how it is, and wait for its answer.

    llm-im edge check edge-1
    """
    client = client_of(url, context, token_file)
    found = _json(client, client.post_json(f"{_path(agent)}/health-check", {"service": service}))
    asked, until = found["check"]["id"], time.monotonic() + wait
    while found["check"]["id"] == asked and not found["check"]["answered_at"] and time.monotonic() < until:
        time.sleep(LOOK_S)
        found = _found(client, agent)
    if as_json:
        output.write_json(found)
    elif found["check"]["id"] != asked:
        raise Failure("somebody asked it again meanwhile: see llm-im edge show", ExitCode.CONFLICT)
    elif found["check"]["answered_at"] or not wait:
        typer.echo(f"{terminal.plain(found['id'])}: {terminal.plain(_check_words(found['check']))}")
    else:
        state = "it is connected" if found["connected"] else "it is away, and is asked when it connects"
        raise Failure(f"no answer within {wait} s; {state}")


def _check_words(check: Row) -> str:
    if not check["answered_at"]:
        return f"asked {terminal.since(check['asked_at'])} ago by {check['by']}, no answer yet"
    return " ".join([check["status"], check["detail"]]).strip()


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise Failure(f"expected NAME=VALUE, not {text!r}", ExitCode.USAGE)
    return name, value


def _path(agent: str) -> str:
    return f"{PATH}/{quote(agent, safe='')}"


def _found(client: Client, agent: str) -> Row:
    found: Row = _json(client, client.get(_path(agent)))
    return found


def _json(client: Client, reply: Reply) -> Any:
    if reply.status == 200:
        return reply.json()
    raise client.failure(reply, "see llm-im edge agents" if reply.status == 404 else "")
