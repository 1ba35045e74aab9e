"""Where things are: the settings of a command line, the data folder, the address of the running system, our own name.

Every command asks here, so that `llm-im up --data X` and `llm-im log verify --data X` mean the same folder.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli import contexts
from services.cli.client import TIMEOUT_S, Client
from services.cli.contexts import CONTEXT_VARIABLE
from services.cli.exits import ExitCode, Failure

if TYPE_CHECKING:
    from models.config import Settings
    from services.settings import Loaded

URL_VARIABLE = "LLM_IM_URL"
TOKEN_VARIABLE, TOKEN_FILE_VARIABLE = "LLM_IM_TOKEN", "LLM_IM_TOKEN_FILE"
#: Variables of the command line, which are no settings of the system.
OURS = frozenset({URL_VARIABLE, TOKEN_VARIABLE, TOKEN_FILE_VARIABLE, CONTEXT_VARIABLE})
#: What models/config.py says too; written here again because importing it takes longer than a command.
DEFAULT_HOST, DEFAULT_PORT, DEFAULT_DATA = "127.0.0.1", 8080, "var"
#: Addresses that mean "every interface": one listens there, but calls loopback.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound

#: Where help lists these options: apart from those that say what a command does.
WHERE_PANEL = "Which system"

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Settings file; else what LLM_IM_CONFIG names, else ./llm-im.toml when there is one.",
        show_default=False,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Data folder; else the settings' state.path, ./var.", show_default=False),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help=f"Where it runs; also {URL_VARIABLE}. Else the context, else what ./var says, "
        f"else http://{DEFAULT_HOST}:{DEFAULT_PORT}.",
        show_default=False,
        rich_help_panel=WHERE_PANEL,
    ),
]
InContext = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help=f"A name of `llm-im context list`; also {CONTEXT_VARIABLE}. Else the one in use.",
        show_default=False,
        rich_help_panel=WHERE_PANEL,
        autocompletion=lambda: sorted(contexts.read().named),
    ),
]
#: A token on the command line would be seen by everybody who types `ps`.
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help=f"File that holds the API token, - for stdin. Else the context's, else {TOKEN_FILE_VARIABLE}, "
        f"else the token in {TOKEN_VARIABLE}.",
        show_default=False,
        rich_help_panel=WHERE_PANEL,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON.")]


def loaded_of(
    config: Path | None, data: Path | None = None, port: int | None = None, no_notify: bool = False
) -> Loaded:
    """The settings with where each came from, what the command line says on top. Raises Malformed."""
    from services.settings import load

    flags: dict[str, object] = {}
    if data is not None:
        flags["state.path"] = str(data)
    if port is not None:
        flags["server.http_port"] = port
    if no_notify:
        flags["notify.enabled"] = False
    return load(config, flags)


def settings_of(
    config: Path | None, data: Path | None = None, port: int | None = None, no_notify: bool = False
) -> Settings:
    """The settings, with what the command line says on top and an absolute data folder. Raises Malformed."""
    return absolute(loaded_of(config, data, port, no_notify).settings)


def absolute(settings: Settings) -> Settings:
    """The same with an absolute data folder: Ray's workers run in another one."""
    state = settings.state.model_copy(update={"path": str(Path(settings.state.path).absolute())})
    return settings.model_copy(update={"state": state})


def client_of(
    url: str | None, context: str | None, token_file: Path | None = None, timeout_s: float = TIMEOUT_S
) -> Client:
    """Who to call, with the token that belongs there.

    What stands nearer wins: --url or --context, then LLM_IM_URL, then LLM_IM_CONTEXT, then the context in use, then what
    runs here. A context's token goes to its own URL only; the variables' is for where no context names one.
    """
    if url and context:
        raise Failure("--url and --context both say where: give one", ExitCode.USAGE)
    given = url or ("" if context else os.environ.get(URL_VARIABLE, ""))
    if given:
        return Client(given if "://" in given else f"http://{given}", timeout_s, token_of(token_file))
    if (found := context_of(context)) is None:
        return Client(url_here(), timeout_s, token_of(token_file))
    token = found.secret() if token_file is None and found.has_token else token_of(token_file)
    return Client(found.url, timeout_s, token)


def token_of(given: Path | None) -> str:
    """The API token to present: from the file that was named, else LLM_IM_TOKEN_FILE, else LLM_IM_TOKEN; "" for none.
    Raises Failure, which never repeats what it read."""
    named = str(given) if given else os.environ.get(TOKEN_FILE_VARIABLE)
    if named:
        return contexts.token_in(named)
    found = os.environ.get(TOKEN_VARIABLE, "").strip()
    return contexts.token_of(found, TOKEN_VARIABLE) if found else ""


def context_of(given: str | None) -> contexts.Context | None:
    """The context that was named, else the one in use, else None."""
    named = given or os.environ.get(CONTEXT_VARIABLE)
    known = contexts.read()
    if named or known.current:
        return known.get(named or known.current)
    return None


def url_here() -> str:
    """Where the system of this machine runs: what runs on ./var (or the settings' folder), else the settings."""
    host, port, data = DEFAULT_HOST, DEFAULT_PORT, Path(DEFAULT_DATA)
    if Path("llm-im.toml").exists() or any(
        name.startswith("LLM_IM_") and name not in OURS for name in os.environ
    ):
        settings = settings_of(None)
        host, port, data = settings.server.http_host, settings.server.http_port, Path(settings.state.path)
    return started_url(data) or http_url(host, port)


def started_url(data: Path) -> str | None:
    """Where the last start on a data folder put it; None when it was ended in order, or never started."""
    try:
        # Not by services.launch, whose imports take longer than a command.
        instance = json.loads((data / "run" / "instance.json").read_bytes())
        return http_url(str(instance["http_host"]), int(instance["http_port"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def http_url(host: str, port: int) -> str:
    """The URL under which a server that listens on `host` is called from this machine."""
    host = _EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def command_name() -> str:
    """How a person types this program from where they are."""
    beside = Path(sys.executable).parent / "llm-im"
    on_path = shutil.which("llm-im")
    if on_path and (not beside.exists() or Path(on_path).resolve() == beside.resolve()):
        return "llm-im"
    if beside.exists():
        here = Path.cwd()
        return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)
    return f"{Path(sys.executable).name} -m services.cli"
