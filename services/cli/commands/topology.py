"""`llm-im topology import|list|show|path|add|remove`: which services there are, and which need which."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from services.cli.shared import output, terminal
from services.cli.shared.client import Client, Reply
from services.cli.shared.exits import EPILOG, ExitCode, Failure
from services.cli.shared.options import Asked, with_options
from services.cli.shared.output import Column, Form, Row

PATH = "/v1/topology"
#: Services of one page.
PAGE = 1000
#: Of a source that neither the file nor --source names.
SOURCE = "file"
#: Who is named of those that an outage would reach.
SHOWN = 40

app = typer.Typer(help="Which services need which.", no_args_is_help=True, epilog=EPILOG)

Caller = Annotated[str, typer.Argument(metavar="CALLER", help="The service that needs the other.")]
Callee = Annotated[str, typer.Argument(metavar="CALLEE", help="The service that is needed.")]
SourceName = Annotated[
    str | None, typer.Option("--source", "-s", metavar="NAME", help="Who says so.", show_default=False)
]


def _names(edges: list[Row], field: str) -> str:
    return ", ".join(terminal.plain(each[field]) for each in edges)


COLUMNS = (
    Column("service", lambda row: terminal.plain(row["name"]), lambda row: row["name"]),
    Column("criticality", lambda row: terminal.plain(row["criticality"]), lambda row: row["criticality"]),
    Column(
        "open",
        lambda row: str(len(row["open_incidents"])),
        lambda row: len(row["open_incidents"]),
        right=True,
    ),
    Column(
        "needs",
        lambda row: _names(row["needs"], "callee"),
        lambda row: " ".join(each["callee"] for each in row["needs"]),
        gives_way=True,
    ),
    Column(
        "needed by",
        lambda row: _names(row["needed_by"], "caller"),
        lambda row: " ".join(each["caller"] for each in row["needed_by"]),
        gives_way=True,
        leaves=1,
    ),
)


@app.command("import", epilog=EPILOG)
@with_options
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON; - reads stdin.")],
    source: SourceName = None,
    *,
    asked: Asked,
) -> None:
    """Take a file of services and dependencies, in place of what its source said before. What other sources say stays.

    llm-im topology import services.yaml --source cmdb
    """
    import msgspec

    from services.topology.file import parse, read_file

    is_stdin = str(file) == "-"
    said = parse(typer.get_binary_stream("stdin").read(), "stdin") if is_stdin else read_file(file)
    body: dict[str, Any] = msgspec.to_builtins(said)
    body["source"] = source or said.source
    found = _json(asked.client().put_json(PATH, body), http.client.OK, asked)
    if asked.as_json:
        output.write_json(found)
        return
    typer.echo(
        f"{terminal.plain(found['name'])}: {found['services']:,} services, {found['dependencies']:,} dependencies"
    )


@app.command("list", epilog=EPILOG)
@with_options
def list_services(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help="Show at most this many.")
    ] = 100,
    sources: Annotated[bool, typer.Option("--sources", help="List who says so instead.")] = False,
    form: Form = output.Output.TABLE,
    *,
    asked: Asked,
) -> None:
    """List services by name, with what each needs, who needs it, and how many of its incidents are open."""
    client, found, after = asked.client(), list[Row](), ""
    while True:
        wanted = [("limit", str(min(PAGE, limit + 1))), ("after", after)]
        page = client.get_json(PATH, wanted)
        found += page["items"]
        if page["next"] is None or len(found) > limit:
            break
        after = page["next"]
    if sources:
        output.write_list(SOURCES, page["sources"], limit, output.form_of(form, asked.as_json), "no sources")
        return
    nothing = "no services; take them from a file with llm-im topology import"
    if output.form_of(form, asked.as_json) is output.Output.ID:
        output.write_ids(found[:limit], "name")
        return
    output.write_list(COLUMNS, found, limit, output.form_of(form, asked.as_json), nothing)


SOURCES = (
    Column("source", lambda row: terminal.plain(row["name"]), lambda row: row["name"]),
    Column("services", lambda row: f"{row['services']:,}", lambda row: row["services"], right=True),
    Column(
        "dependencies", lambda row: f"{row['dependencies']:,}", lambda row: row["dependencies"], right=True
    ),
    Column("said", lambda row: terminal.when(row["seen_at"]), lambda row: row["seen_at"]),
    Column("by", lambda row: terminal.plain(row["by"]), lambda row: row["by"], gives_way=True),
)


@app.command(epilog=EPILOG)
@with_options
def show(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="As incidents name it.")],
    *,
    asked: Asked,
) -> None:
    """Show one service: what it needs, and what an outage of it would reach."""
    found = asked.client().get_json(f"{PATH}/service", [("name", service)])
    if asked.as_json:
        output.write_json(found)
        return
    out, one = terminal.console(), found["service"]
    out.print(f"{terminal.plain(one['name'])}  ({one['criticality']})", style="bold")
    for title, edges, other, all_of in (
        ("needs", one["needs"], "callee", found["reaches"]),
        ("needed by", one["needed_by"], "caller", found["reached_by"]),
    ):
        out.print(f"\n{title}")
        for edge in edges:
            out.print(
                f"  {terminal.plain(edge[other])}  ({terminal.plain(', '.join(edge['kinds']))}; says "
                f"{terminal.plain(', '.join(edge['sources']))}, {terminal.when(edge['seen_at'])})"
            )
        direct = {edge[other] for edge in edges}
        further = sorted(
            (each for each in all_of if each not in direct), key=lambda each: (all_of[each], each)
        )
        if further:
            shown = ", ".join(f"{terminal.plain(each)} ({all_of[each]})" for each in further[:SHOWN])
            more = f", and {len(further) - SHOWN:,} more" if len(further) > SHOWN else ""
            out.print(f"  through others: {shown}{more}")
        if not edges:
            out.print("  nothing that a source says")
    for incident in one["open_incidents"]:
        out.print(f"\nopen incident: {incident}")


@app.command(epilog=EPILOG)
@with_options
def path(caller: Caller, callee: Callee, *, asked: Asked) -> None:
    """Show a shortest way along dependencies from one service to another.

    llm-im topology path checkout db-main
    """
    found = asked.client().get_json(f"{PATH}/path", [("caller", caller), ("callee", callee)])
    if asked.as_json:
        output.write_json(found)
        return
    if not found["items"]:
        raise Failure(f"{caller} needs nothing that leads to {callee}", ExitCode.NOT_FOUND)
    typer.echo(
        " -> ".join([terminal.plain(caller), *(terminal.plain(each["callee"]) for each in found["items"])])
    )


@app.command(epilog=EPILOG)
@with_options
def add(
    caller: Caller,
    callee: Callee,
    kind: Annotated[
        str, typer.Option("--kind", "-k", metavar="TEXT", help="How: http, grpc, database, queue ...")
    ] = "calls",
    source: SourceName = None,
    *,
    asked: Asked,
) -> None:
    """Say that one service needs another.

    llm-im topology add checkout payments --kind http
    """
    body = {
        "caller": caller,
        "callee": callee,
        "kind": kind,
        **({} if source is None else {"source": source}),
    }
    found = _json(asked.client().post_json(f"{PATH}/dependencies", body), http.client.OK, asked)
    if asked.as_json:
        output.write_json(found)
        return
    typer.echo(f"{terminal.plain(caller)} -> {terminal.plain(callee)}")


@app.command(epilog=EPILOG)
@with_options
def remove(
    caller: Annotated[str | None, typer.Argument(metavar="CALLER", show_default=False)] = None,
    callee: Annotated[str | None, typer.Argument(metavar="CALLEE", show_default=False)] = None,
    source: SourceName = None,
    *,
    asked: Asked,
) -> None:
    """Take one dependency back that a source says, or with --source alone all that it says.

    llm-im topology remove checkout payments

    llm-im topology remove --source cmdb
    """
    if (caller is None) != (callee is None) or (caller is None and source is None):
        raise Failure("expected CALLER and CALLEE, or --source alone", ExitCode.USAGE)
    named = {} if source is None else {"source": source}
    if caller is None or callee is None:
        target, words = f"{PATH}?{urlencode(named)}", f"all that {source} says"
    else:
        ends = {"caller": caller, "callee": callee, **named}
        target, words = f"{PATH}/dependencies?{urlencode(ends)}", f"{caller} -> {callee}"
    client = asked.client()
    reply = client.delete(target)
    if reply.status != http.client.NO_CONTENT:
        raise client.failure(reply)
    if asked.as_json:
        output.write_json({"removed": {**named, **({"caller": caller, "callee": callee} if caller else {})}})
        return
    typer.echo(f"{terminal.plain(words)} is forgotten")


def _json(reply: Reply, wanted: int, asked: Asked) -> Any:
    """The JSON of an answer with that status; Failure with what another one says."""
    found = reply.json()
    if reply.status != wanted or found is None:
        client: Client = asked.client()
        raise client.failure(reply)
    return found
