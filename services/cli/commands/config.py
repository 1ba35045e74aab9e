"""`llm-im config check|show|schema|reload|import-alertmanager`: the settings as this command line would use them, and changing them while
it runs."""

from __future__ import annotations

import asyncio
import http.client
import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import IncidentManagerError
from services.cli.commands.import_alertmanager import import_alertmanager
from services.cli.shared import terminal
from services.cli.shared.exits import EPILOG, ExitCode
from services.cli.shared.where import (
    AsJson,
    Config,
    Data,
    InContext,
    TokenFile,
    Url,
    absolute,
    client_of,
    first_token,
    loaded_of,
    started_url,
)

if TYPE_CHECKING:
    from models.settings.all import Settings
    from services.settings.load import Loaded

RELOAD = "/v1/config/reload"

File = Annotated[
    Path | None, typer.Argument(metavar="FILE", help="Same as --config FILE.", show_default=False)
]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="The port you gave to `llm-im up`.", show_default=False),
]

app = typer.Typer(help="Check, show and change the settings.", no_args_is_help=True, epilog=EPILOG)


@app.command(epilog=EPILOG)
def check(file: File = None, config: Config = None, as_json: AsJson = False) -> None:
    """Check the settings file and environment, and list settings whose features are not built yet.

    Exit code 1 if `llm-im up` would refuse them. Each mistake is shown with its place, what was expected, and the closest name.
    """
    from services.settings.refusals import refusals, tls_notices

    loaded = loaded_of(file or config)
    notices = [*loaded.notices, *tls_notices(loaded.settings)]
    settings = absolute(loaded.settings)
    guarded, not_checked = has_tokens(settings)
    stops = refusals(settings, guarded, first_token(file or config, settings))
    code = ExitCode.FAILED if stops else ExitCode.OK
    not_active = [key.name for key in loaded.not_active()]
    if as_json:
        body = {
            "file": loaded.file,
            "set": len(loaded.sources),
            "notices": notices,
            "not_active": not_active,
            "up_refuses": stops,
            "not_checked": not_checked,
        }
        typer.echo(json.dumps(body))
        raise typer.Exit(code)
    for notice in notices:
        typer.echo(f"notice          {terminal.plain(notice)}")
    for section, names in groupby(not_active, lambda name: name.rpartition(".")[0]):
        words = ", ".join(name.rpartition(".")[2] for name in names)
        typer.echo(f"not active yet  {section}: {words}")
    for what in not_checked:
        typer.echo(f"not checked     {terminal.plain(what)}")
    for stop in stops:
        typer.echo(f"up refuses      {terminal.plain(stop)}")
    count = len(loaded.sources)
    where = loaded.file or "no file"
    verdict = "WRONG" if code else "good"
    typer.echo(
        f"{verdict:<15} {terminal.plain(where)}: {count} {'setting differs' if count == 1 else 'settings differ'} from the default"
    )
    raise typer.Exit(code)


def has_tokens(settings: Settings) -> tuple[bool | None, list[str]]:
    """Whether there are API tokens, where an address that others reach makes it matter; what could not be read."""
    from services.settings.refusals import unusable
    from services.wiring.slots import control_state

    if settings.server.is_loopback or settings.auth.required is not None or unusable(settings):
        return None, []
    try:
        return asyncio.run(control_state(settings)).guarded, []
    except IncidentManagerError as error:
        return None, [f"whether there is an API token, without which up refuses this address: {error}"]


@app.command(epilog=EPILOG)
def show(
    config: Config = None,
    data: Data = None,
    port: Port = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only settings that differ from the default.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show every setting and where its value comes from: default, file, variable or flag. Secrets are masked."""
    from models.settings.keys import KEYS
    from services.settings.load import DEFAULT
    from services.settings.shown import written

    loaded = loaded_of(config, data, port)
    keys = [
        key for key in KEYS.values() if loaded.source(key) is not DEFAULT or not (changed or key.is_later)
    ]
    if as_json:
        rows = [
            {
                "key": key.name,
                "value": written(key, key.of(loaded.settings)),
                "source": loaded.source(key).kind,
                "where": loaded.source(key).name,
                "active": not key.is_later,
                "changes_by": "reload" if key.is_live else "restart",
            }
            for key in keys
        ]
        typer.echo(json.dumps(rows))
        return
    _tell_notices(loaded)
    table = terminal.table("setting", "value", "from")
    for key in keys:
        value = written(key, key.of(loaded.settings))
        text = "not set" if value is None else json.dumps(value, ensure_ascii=False)
        source = f"{loaded.source(key)}{' (not active yet)' if key.is_later else ''}"
        table.add_row(key.name, terminal.plain(text), terminal.plain(source))
    terminal.console().print(table)


@app.command(epilog=EPILOG)
def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The Markdown reference instead of the JSON schema.")
    ] = False,
) -> None:
    """Print the JSON schema of the settings file, for editors and your own checks."""
    if markdown:
        from services.settings import reference

        typer.echo(reference.markdown(), nl=False)
        return
    from models.settings.all import Settings

    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()}
    typer.echo(json.dumps(found, indent=2))


app.command("import-alertmanager", epilog=EPILOG)(import_alertmanager)


@app.command(epilog=EPILOG)
def reload(
    config: Config = None,
    data: Data = None,
    port: Port = None,
    url: Url = None,
    context: InContext = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Apply the current settings file and environment to the running system, without a restart.

    If a changed setting needs a restart, it is named and nothing changes. Give the same --data and --port as to `llm-im up`.
    """
    from services.settings.shown import masked_json

    loaded = loaded_of(config, data, port)
    body = json.loads(masked_json(absolute(loaded.settings)))
    # What neither file nor environment says, a flag of `llm-im up` may have.
    for section, key in (("state", "path"), ("server", "http_port")):
        if f"{section}.{key}" not in loaded.sources:
            del body[section][key]
    # Of a system of this machine --data says where it runs.
    here = started_url(data) if data is not None and not (url or context) else None
    client = client_of(url or here, context, token_file)
    reply = client.post_json(RELOAD, body)
    answer = reply.json()
    if reply.status != http.client.OK or not isinstance(answer, dict):
        raise client.failure(reply)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    _tell_notices(loaded)
    for each in answer["changed"]:
        before, after = (json.dumps(each[name], ensure_ascii=False) for name in ("before", "after"))
        typer.echo(terminal.plain(f"{each['key']}: {before} -> {after}"))
    count = len(answer["changed"])
    if not count:
        typer.echo("nothing to change: the system already runs with these settings")
    else:
        typer.echo(
            f"{count} setting{'' if count == 1 else 's'} changed; every process uses it within about 2 s"
        )


def _tell_notices(loaded: Loaded) -> None:
    for notice in loaded.notices:
        typer.echo(f"notice: {terminal.plain(notice)}", err=True)
