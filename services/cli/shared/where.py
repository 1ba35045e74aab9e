"""Where things are: the settings of a command line, the data folder, the address of the running system, our own name.

Every command asks here, so that `llm-im up --data X` and `llm-im log verify --data X` mean the same folder.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.shared import context_file as contexts
from services.cli.shared import terminal
from services.cli.shared.client import TIMEOUT_S, Client, Trust, reach
from services.cli.shared.context_file import CONTEXT_VARIABLE
from services.cli.shared.exits import ExitCode, Failure
from services.machine.front import FOLDER, LOCAL, authority, called_at

if TYPE_CHECKING:
    from models.settings.all import Settings
    from services.machine.instance import Instance
    from services.settings.load import Loaded

URL_VARIABLE = "LLM_IM_URL"
TOKEN_VARIABLE, TOKEN_FILE_VARIABLE = "LLM_IM_TOKEN", "LLM_IM_TOKEN_FILE"
CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE = "LLM_IM_CA_FILE", "LLM_IM_CERT", "LLM_IM_KEY"
#: Set, a bug shows its traceback.
TRACEBACK_VARIABLE = "LLM_IM_TRACEBACK"
#: Variables of the command line, which are no settings of the system.
OURS = frozenset(
    {
        TRACEBACK_VARIABLE, URL_VARIABLE, TOKEN_VARIABLE, TOKEN_FILE_VARIABLE, CONTEXT_VARIABLE,
        CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE,
    }
)  # fmt: skip
#: What the sections server and state of models/settings/ say too; written here again because importing it takes longer than a command.
DEFAULT_HOST, DEFAULT_PORT, DEFAULT_DATA = "127.0.0.1", 8080, "var"

#: Where help lists these options: apart from those that say what a command does.
WHERE_PANEL = "Which system"

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Settings file. Default: LLM_IM_CONFIG, else ./llm-im.toml if it exists.",
        show_default=False,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Data folder. Default: state.path from the settings (./var).",
        show_default=False,
        readable=False,  # who may read it is said by name (services/machine/instance.py)
    ),
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
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        help=f"For https: file with the authorities to trust. Else the context's, else {CA_VARIABLE}, else this machine's.",
        show_default=False,
        rich_help_panel=WHERE_PANEL,
    ),
]
Cert = Annotated[
    Path | None,
    typer.Option(
        "--cert",
        help=f"For https: file with our client certificate. Else the context's, else {CERT_VARIABLE}.",
        show_default=False,
        rich_help_panel=WHERE_PANEL,
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        "--key",
        help=f"File with its key, if it is not in the same one. Else the context's, else {KEY_VARIABLE}.",
        show_default=False,
        rich_help_panel=WHERE_PANEL,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


#: What says where the system of this machine runs.
_PLACE = ("state.path", "server.http_host", "server.http_port", "server.tls.cert_file", "server.tls.key_file")
#: What commands need that read or write the stores: nothing else of the settings is looked at.
STORES = ("state",)


def loaded_of(
    config: Path | None,
    data: Path | None = None,
    port: int | None = None,
    only: Collection[str] = (),
    *,
    no_notify: bool = False,
) -> Loaded:
    """The settings with where each came from, what the command line says on top. Of `only` some sections, when a command
    needs no others. Raises Malformed."""
    from services.settings.load import load

    flags = _flags(data, port)
    if no_notify:
        # A playbook tells people as well, and repairs what the drill has no business with.
        flags["notify.enabled"] = flags["playbooks.enabled"] = False
    return load(config, flags, only=only)


def settings_of(
    config: Path | None,
    data: Path | None = None,
    port: int | None = None,
    only: Collection[str] = (),
    *,
    no_notify: bool = False,
) -> Settings:
    """The settings, with what the command line says on top and an absolute data folder. Raises Malformed."""
    return absolute(loaded_of(config, data, port, only, no_notify=no_notify).settings)


def place_here(config: Path | None = None, data: Path | None = None) -> Settings:
    """Where the system of this machine runs: its data folder, host and port, and nothing else. A file or a variable that
    can't be used is told on stderr, and is no reason to find nothing."""
    from services.settings.load import load

    loaded = load(config, _flags(data, None), only=_PLACE, leniently=True)
    for notice in loaded.notices:
        typer.echo(f"llm-im: ignored: {terminal.plain(notice)}; see: llm-im config check", err=True)
    return absolute(loaded.settings)


def _flags(data: Path | None, port: int | None) -> dict[str, object]:
    flags: dict[str, object] = {}
    if data is not None:
        flags["state.path"] = str(data)
    if port is not None:
        flags["server.http_port"] = port
    return flags


def absolute(settings: Settings) -> Settings:
    """The same with absolute folders and files: our processes run in another one."""
    tls = settings.server.tls
    if tls.is_on:
        names = ("cert_file", "key_file", "client_ca_file")
        files = {
            each: str(Path(found).expanduser().absolute()) for each in names if (found := getattr(tls, each))
        }
        server = settings.server.model_copy(update={"tls": tls.model_copy(update=files)})
        settings = settings.model_copy(update={"server": server})
    state = settings.state.model_copy(update={"path": str(Path(settings.state.path).absolute())})
    recovery = settings.disaster_recovery
    if (target := recovery.backup_target) and "://" not in target:
        absolute_target = str(Path(target).expanduser().absolute())
        recovery = recovery.model_copy(update={"backup_target": absolute_target})
    return settings.model_copy(update={"state": state, "disaster_recovery": recovery})


def ray_address() -> str:
    """The Ray cluster of somebody else that we are to live in; "" for one of our own."""
    return os.environ.get("RAY_ADDRESS", "")


def client_of(
    url: str | None,
    context: str | None,
    token_file: Path | None = None,
    timeout_s: float = TIMEOUT_S,
    trust: Trust | None = None,
) -> Client:
    """Who to call, with the token that belongs there.

    What stands nearer wins: --url or --context, then LLM_IM_URL, then LLM_IM_CONTEXT, then the context in use, then what
    runs here. A context's token goes to its own URL only; the variables' is for where no context names one. So it is with the
    files for https, of which `trust` has those that were typed.
    """
    if url and context:
        raise Failure("give either --url or --context, not both", ExitCode.USAGE)
    given = url or ("" if context else os.environ.get(URL_VARIABLE, ""))
    if given:
        where = given if "://" in given else f"http://{given}"
        return Client(where, timeout_s, token_of(token_file), trust_of(trust))
    if (found := context_of(context)) is None:
        return Client(url_here(), timeout_s, token_of(token_file), trust_of(trust))
    token = found.secret() if token_file is None and found.has_token else token_of(token_file)
    return Client(found.url, timeout_s, token, trust_of(trust, found))


def trust_of(typed: Trust | None, context: contexts.Context | None = None) -> Trust:
    """The files for https: what was typed, else the context's, else the variables'."""
    typed = typed or Trust()
    ca_file = typed.ca_file or (context.ca_file if context else "") or os.environ.get(CA_VARIABLE, "")
    for cert, key in (
        (typed.cert_file, typed.key_file),
        (context.cert, context.key) if context else ("", ""),
        (os.environ.get(CERT_VARIABLE, ""), os.environ.get(KEY_VARIABLE, "")),
    ):
        # A certificate and the key of another place would not fit.
        if cert:
            return Trust(os.path.expanduser(ca_file), os.path.expanduser(cert), os.path.expanduser(key))
    return Trust(os.path.expanduser(ca_file))


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
    host, port, data, https = DEFAULT_HOST, DEFAULT_PORT, Path(DEFAULT_DATA), False
    if os.path.isfile("llm-im.toml") or any(
        value and name.startswith("LLM_IM_") and name not in OURS for name, value in os.environ.items()
    ):
        settings = place_here()
        host, port, data = settings.server.http_host, settings.server.http_port, Path(settings.state.path)
        https = settings.server.tls.is_on
    return started_url(data) or http_url(host, port, https=https)


def started_url(data: Path) -> str | None:
    """Where the last start on a data folder put it; None when it was ended in order, or never started."""
    try:
        # Not by services.machine.launch, whose imports take longer than a command.
        instance = json.loads((data / "run" / "instance.json").read_bytes())
        private_dir = str(instance.get("private_dir", ""))
        return url_of(
            str(instance["http_host"]),
            int(instance["http_port"]),
            private_dir,
            https=bool(instance.get("https")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def http_url(host: str, port: int, *, https: bool = False) -> str:
    """The URL under which a server that listens on `host` is called from this machine."""
    return f"http{'s' if https else ''}://{authority(called_at(host), port)}"


def instance_url(instance: Instance) -> str:
    """As url_of()."""
    return url_of(instance.http_host, instance.http_port, instance.private_dir, https=instance.https)


def url_of(host: str, port: int, private_dir: str, *, https: bool) -> str:
    """The URL of an instance of this machine. With TLS, its own user reaches it by a socket in its folder: no certificate is made for
    loopback, and `up` and `status` have none to show."""
    url = http_url(host, port, https=https)
    at = os.path.join(private_dir, FOLDER, LOCAL)
    if https and private_dir and os.access(private_dir, os.X_OK) and os.path.exists(os.path.dirname(at)):
        reach(url, at)
    return url


def command_name() -> str:
    """How a person types this program from where they are, for their shell."""
    beside = Path(sys.executable).parent / "llm-im"
    on_path = shutil.which("llm-im")
    if on_path and (not beside.exists() or Path(on_path).resolve() == beside.resolve()):
        return "llm-im"
    if beside.exists():
        here = Path.cwd()
        return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))
    return f"{Path(sys.executable).name} -m services.cli"


def first_token(config: Path | None, settings: Settings) -> str:
    """The command that makes the first token of these settings' system."""
    where = options(config, settings.state.path)
    return f"{command_name()} tokens create admin --scope admin --local{where}"


def options(config: Path | None = None, data: str | Path | None = None) -> str:
    """The options that name the same system again, for a command that is printed: quoted for a shell, with a space in
    front. Nothing for what is found without them."""
    said = f" --config {shlex.quote(str(config))}" if config else ""
    if data and Path(data).absolute() != Path(DEFAULT_DATA).absolute():
        said += f" --data {shlex.quote(str(data))}"
    return said
