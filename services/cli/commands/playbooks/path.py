"""How the path of a run is shown: by `playbooks dry-run` and `playbooks simulate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from services.cli.shared import terminal

if TYPE_CHECKING:
    from models.playbook.simulation import Line


def show(lines: list[Line], as_json: bool, **more: Any) -> None:
    """The lines of a path, one each: the step, and what happens."""
    if as_json:
        rows = [
            {"step": line.step, "status": line.status, "what": line.what} | _params_of(line) for line in lines
        ]
        typer.echo(json.dumps({**more, "path": rows}))
        return
    width = max((len(line.step) for line in lines), default=0)
    before = None
    for line in lines:
        name = "" if line.step == before else line.step or "run"
        before = line.step
        typer.echo(f"{terminal.plain(name):{width}}  {terminal.plain(line.what)}".rstrip())
        for key, value in (line.params or {}).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            first, *rest = text.rstrip("\n").split("\n")
            typer.echo(f"{'':{width}}    {terminal.plain(key)}: {terminal.plain(first)}")
            for each in rest:
                typer.echo(f"{'':{width}}      {terminal.plain(each)}")


def _params_of(line: Line) -> dict[str, Any]:
    return {} if line.params is None else {"params": line.params}
