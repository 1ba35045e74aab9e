"""`llm-im up`: starts the system on this machine, or in the Ray of RAY_ADDRESS, and returns when it is ready.

Safe to type twice, and after a crash. What it began and could not finish, it ends again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models import VERSION
from models.errors import IncidentManagerError, Refused
from services.cli import in_ray
from services.cli.commands.config import has_tokens
from services.cli.shared import readiness, terminal, which_store
from services.cli.shared.exits import ExitCode, Failure, code_of_error
from services.cli.shared.readiness import Readiness
from services.cli.shared.where import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Config,
    Data,
    absolute,
    command_name,
    first_token,
    http_url,
    instance_url,
    loaded_of,
    options,
    ray_address,
)

if TYPE_CHECKING:
    from models.control.control import ControlState
    from models.settings.all import Settings
    from services.machine.instance import Instance
    from services.settings.load import Loaded

MIDDLEWARE = "services.wiring.serve_app.middlewares"
DOORKEEPER = "services.wiring.serve_app.keep_the_door"
#: A million alerts are replayed in under 3 s; the rest is for a machine that does something else as well.
READY_TIMEOUT_S = 120.0
_POLL_S = 0.2
#: While waiting, say again what is waited for.
_SAY_EVERY_S = 5.0

Progress = Callable[[str], None]


def up(
    config: Config = None,
    data: Data = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            help="HTTP port. Default: server.http_port (8080).",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="How long to wait until the system is ready, in seconds.")
    ] = READY_TIMEOUT_S,
    no_notify: Annotated[
        bool,
        typer.Option(
            "--no-notify",
            help="Send no notifications and run no playbooks, whatever the settings say; for a restore drill.",
        ),
    ] = False,
) -> None:
    """Start the system and return when it is ready. Safe to run twice.

    With RAY_ADDRESS set, it is deployed to the Ray cluster at that address, which stays under your control.
    """
    from services.machine.instance import refuse_other_user
    from services.settings.refusals import refuse, tls_notices
    from services.wiring.slots import as_assigned, control_state

    began = time.monotonic()

    def progress(text: str) -> None:
        typer.echo(f"{time.monotonic() - began:6.1f} s  {text}")

    loaded = loaded_of(config, data, port, no_notify=no_notify)
    settings = absolute(loaded.settings)
    refuse_other_user(Path(settings.state.path), "up")
    first = first_token(config, settings)
    refuse(loaded, has_tokens(settings)[0], first)
    for notice in [
        *loaded.notices,
        *tls_notices(settings),
        *(f"not active yet: {key.name}" for key in loaded.not_active()),
    ]:
        typer.echo(f"notice    {terminal.plain(notice)}", err=True)
    control = asyncio.run(control_state(settings))
    refuse(loaded, control.guarded, first)
    _say_partitions(loaded, as_assigned(settings, control))
    guarded = _who_gets_in(settings, control, first, progress)
    request = in_ray.Request(
        "deploy",
        str(config) if config else None,
        settings.state.path,
        port,
        owned=not ray_address(),
        no_notify=no_notify,
    )
    if request.owned:
        url, is_new = _on_this_machine(settings, request, timeout, progress)
    else:
        url, is_new = _in_a_cluster(settings, request, timeout, progress)
    if is_new:
        typer.echo(
            f"\nLLM-Incident-Manager {VERSION} is ready at {url} after {time.monotonic() - began:.1f} s\n"
        )
    else:
        typer.echo(f"LLM-Incident-Manager {VERSION} is already running at {url}\n")
    _say_who_is_told(url, no_notify)
    typer.echo(_what_now(url, settings, request, guarded))


def _say_who_is_told(url: str, no_notify: bool) -> None:
    """What runs says it, not the settings: it may have been started by others. Raises Failure when nobody was to be told."""
    told = readiness.ask(url).notifications
    if told == "on" and no_notify:
        raise Failure("the system is already running and sends notifications; first: llm-im down")
    if told not in ("", "on"):
        typer.echo(f"  no notifications are sent ({told})\n")


def _say_partitions(loaded: Loaded, assigned: Settings) -> None:
    """Who wrote another number than there are expects it to be so."""
    said, there = loaded.settings.state.partitions, assigned.state.partitions
    if said != there and "state.partitions" in loaded.sources:
        typer.echo(
            f"notice    state.partitions = {said}, but there are {there}; to move: llm-im store reshard --partitions {said}",
            err=True,
        )


def _who_gets_in(settings: Settings, control: ControlState, first: str, progress: Progress) -> bool:
    """Say who does, and whether tokens are asked for."""
    has_tokens, required = control.guarded, settings.auth.required
    if not has_tokens and required is None and settings.server.tls.clients:
        progress("no API tokens: who has no certificate that server.tls.clients names gets 401")
        return True
    if has_tokens and required is False:
        progress(
            "no tokens are required (auth.required = false): anyone who can reach this machine can do anything"
        )
    elif not has_tokens and not required:
        progress(
            f"no API tokens: anyone who can reach this machine can do anything. The first token closes it: {first}"
        )
    elif not has_tokens:
        progress(
            f"auth.required, but there is no API token yet: every request gets 401. Create the first: {first}"
        )
    return has_tokens if required is None else required


def _on_this_machine(
    settings: Settings, request: in_ray.Request, timeout_s: float, progress: Progress
) -> tuple[str, bool]:
    """Where it is ready, and whether that is our doing."""
    from services.machine import launch

    folder = Path(settings.state.path)
    known = launch.running(folder)
    with in_ray.Driver(request, folder / "log" / "deploy.log") as driver:
        if known is None:
            try:
                instance = launch.start_local(
                    folder,
                    settings.server.http_port,
                    http_host=settings.server.http_host,
                    probe_port=settings.server.probe_port,
                    grpc_port=settings.server.grpc_port if settings.server.grpc else None,
                    tls=settings.server.tls,
                    middleware=MIDDLEWARE,
                    doorkeeper=DOORKEEPER,
                    meanwhile=driver.begin,
                    progress=progress,
                )
            except Refused as error:
                raise Failure(f"{error}{_port_hint(error, request)}", code_of_error(error)) from error
        else:
            _refuse_other(known, request, folder, settings)
            instance = known
            found = readiness.ask(instance_url(known))
            if found.state == "ready":
                return instance_url(known), False
            progress(f"Ray is already running, but: {found.why}")
        url = instance_url(instance)
        which_store.note(settings, instance.instance_id)
        try:
            driver.finish(in_ray.DEPLOY_TIMEOUT_S, progress)
            _wait(url, timeout_s, progress)
        except BaseException as error:
            # A degraded system takes alerts and must not be ended by who only looked at it.
            if known is None and not (isinstance(error, Failure) and error.code is ExitCode.DEGRADED):
                progress("this start failed; stopping what it started")
                launch.stop(folder, progress=progress)
            raise
        return url, True


def _in_a_cluster(
    settings: Settings, request: in_ray.Request, timeout_s: float, progress: Progress
) -> tuple[str, bool]:

    if settings.server.tls.is_on:
        raise Failure(
            "server.tls: with RAY_ADDRESS the front door is that of your own Ray: end TLS in front of it, and leave server.tls out"
        )
    url = http_url(settings.server.http_host, settings.server.http_port)
    if readiness.ask(url).state == "ready":
        return url, False
    progress(f"attaching to the Ray at {terminal.plain(ray_address())} (RAY_ADDRESS)")
    in_ray.run(request, Path(settings.state.path) / "log" / "deploy.log", in_ray.DEPLOY_TIMEOUT_S, progress)
    _wait(url, timeout_s, progress)
    return url, True


def _wait(url: str, timeout_s: float, progress: Progress) -> None:
    """Return when every shard answers. Raises Failure when `timeout_s` has passed."""
    deadline = time.monotonic() + timeout_s
    say_at = time.monotonic() + _SAY_EVERY_S
    progress(f"waiting for {url}/health/ready")
    while True:
        found = readiness.ask(url)
        if found.state == "ready":
            return
        if found.state == "foreign" or time.monotonic() >= deadline:
            raise _not_ready(url, found, timeout_s)
        if time.monotonic() >= say_at:
            progress(f"not ready yet: {found.why}")
            say_at += _SAY_EVERY_S
        time.sleep(_POLL_S)


def _not_ready(url: str, found: Readiness, timeout_s: float) -> Failure:
    if found.state == "foreign":
        return Failure(found.why)
    if found.state == "degraded":
        return Failure(
            f"{url} accepts alerts, but after {timeout_s:g} s some shards are still {found.why}; check: "
            f"{command_name()} status --url {url}",
            ExitCode.DEGRADED,
        )
    return Failure(f"not ready after {timeout_s:g} s (--timeout): {found.why}")


def _refuse_other(known: Instance, request: in_ray.Request, folder: Path, settings: Settings) -> None:
    """What runs must be what was asked for."""
    again = f"first: {command_name()} down{options(data=folder)}"
    store = which_store.which(settings)
    if store.is_another:
        raise Failure(
            f"a system runs on {folder} that keeps its state in {store.running}, but the settings say {store.store}: are these"
            f" the settings it was started with (--config)? To start another system: {again}, or another --data",
            ExitCode.CONFLICT,
        )
    if known.version != VERSION:
        raise Failure(f"version {known.version} runs on {folder}, this program is {VERSION}; {again}")
    if request.port is not None and known.http_port != request.port:
        raise Failure(f"it already runs on {folder} at port {known.http_port}, not {request.port}; {again}")


def _port_hint(error: IncidentManagerError, request: in_ray.Request) -> str:
    again = f"{command_name()} up --port PORT{options(_config_of(request), request.data)}"
    return f" or with: {again}" if "http_port" in str(error) else ""


def _config_of(request: in_ray.Request) -> Path | None:
    return Path(request.config) if request.config else None


def _what_now(url: str, settings: Settings, request: in_ray.Request, guarded: bool) -> str:
    name = command_name()
    # The commands find what was started on ./var by themselves.
    is_found = url == http_url(DEFAULT_HOST, DEFAULT_PORT) or (
        request.owned and Path(request.data) == Path("var").absolute()
    )
    at = "" if is_found else f" --url {url}"
    token = ' -H "Authorization: Bearer $LLM_IM_TOKEN"' if guarded else ""
    alert = '{"labels": {"alertname": "HighLatency", "service": "llm-api", "severity": "critical"}}'
    return "\n".join(
        (
            f"  send an alert     curl -sS {url}/v1/alerts -H 'Content-Type: application/json'{token} \\",
            f"                      -d '{alert}'",
            f"  or                {name} send{at} alertname=HighLatency service=llm-api severity=critical",
            f"  see the incident  {name} incidents list{at}",
            *([f"  in a browser      {url}/"] if settings.server.web_page else []),
            f"  from Prometheus   alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{url.partition('//')[2]}']}}]}}]}}",
            f"  stop it           {name} down{options(data=request.data)}   (data stays in {_where_data_stays(settings)})",
        )
    )


def _where_data_stays(settings: Settings) -> str:
    """In words: a URL of a store may hold a password."""
    state = settings.state
    match state.backend:
        case "sqlite":
            return state.path
        case "redis":
            return f"Redis, under {state.redis.prefix}"
        case backend:
            return f"{backend}, schema {state.postgres.schema_name}"
