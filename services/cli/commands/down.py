"""`llm-im down`: ends what `llm-im up` began and leaves no process. Nothing acknowledged is lost: it is in the log."""

from __future__ import annotations

from pathlib import Path

import typer

from models.errors import IncidentManagerError
from services.cli import in_ray
from services.cli.shared import terminal
from services.cli.shared.where import Config, Data, place_here, ray_address


def down(config: Config = None, data: Data = None) -> None:
    """Stop the system and leave no process behind. Safe to run when nothing runs.

    With RAY_ADDRESS set, only our own actors stop; the Ray cluster keeps running.
    """
    from services.machine import launch
    from services.machine.instance import refuse_other_user

    folder = Path(place_here(config).state.path) if data is None else data.absolute()
    request = in_ray.Request(
        "withdraw", str(config) if config else None, str(folder), None, owned=not ray_address()
    )
    refuse_other_user(folder, "down")
    log = folder / "log" / "withdraw.log"
    if not request.owned:
        in_ray.run(request, log, in_ray.WITHDRAW_TIMEOUT_S, _say)
        typer.echo(f"ended in the Ray at {terminal.plain(ray_address())}, which keeps running")
        return
    if launch.running(folder) is not None:
        try:
            in_ray.run(request, log, in_ray.WITHDRAW_TIMEOUT_S, _say)
        except IncidentManagerError as error:
            # Ending in order is a kindness to the next start; the log needs none.
            _say(f"it did not stop cleanly: {error}")
    elif not (folder / "run" / "instance.json").exists():
        typer.echo(f"nothing runs on {folder}")
        return
    report = launch.stop(folder, progress=_say)
    if not report.was_running:
        typer.echo(f"nothing ran on {folder}; what a crash had left was removed")
        return
    killed = f", of which these had to be killed: {', '.join(report.killed)}" if report.killed else ""
    typer.echo(f"ended {report.ended} processes in {report.took_s:.1f} s{killed}")


def _say(text: str) -> None:
    typer.echo(f"  {text}")
