"""Which store a command reads, and whether the system that runs here is on it: said by every command that opens one itself,
because settings that were forgotten once lead to another store without a word."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from models.errors import IncidentManagerError

if TYPE_CHECKING:
    from models.settings.all import Settings

#: In the data folder: what `llm-im up` started on which store.
NOTE = "run/store.json"


@dataclass(frozen=True, slots=True)
class Which:
    """The settings' store in words, and that of the system that runs on their data folder: "" when none does, None when nobody
    knows."""

    store: str
    running: str | None

    @property
    def is_another(self) -> bool:
        """A system runs here, on a store that the settings do not name."""
        return bool(self.running) and self.running != self.store

    def in_words(self, folder: str) -> str:
        if self.running is None:
            on = f"a system runs on {folder}"
        elif not self.running:
            on = f"nothing runs on {folder}"
        elif self.is_another:
            on = f"NOT the store of the system that runs on {folder}: it uses {self.running}"
        else:
            on = f"the system that runs on {folder} uses it"
        return f"{self.store}; {on}"


def which(settings: Settings) -> Which:
    """Raises Malformed for settings that name none."""
    return Which(_described(settings), running_store(settings))


def say(settings: Settings) -> None:
    """To stderr, so that stdout holds the result alone; also that all of it was moved, which the control log says."""
    import asyncio

    from services.wiring.slots import control_state, moved_away

    typer.echo(f"store     {which(settings).in_words(settings.state.path)}", err=True)
    try:
        moved = asyncio.run(control_state(settings)).moved
    except IncidentManagerError:
        return  # the command itself says what is wrong with it
    if moved is not None:
        typer.echo(f"WARNING   {moved_away(moved)}", err=True)


def note(settings: Settings, instance_id: str) -> None:
    """`instance_id` is started on the settings' store."""
    path = Path(settings.state.path) / NOTE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"instance": instance_id, "store": _described(settings)}))


def running_store(settings: Settings) -> str | None:
    """Of the system that runs on the data folder: "" when none does, None when it did not say."""
    from services.machine import launch

    folder = Path(settings.state.path)
    instance = launch.running(folder)
    if instance is None:
        return ""
    try:
        said = json.loads((folder / NOTE).read_bytes())
        return str(said["store"]) if said["instance"] == instance.instance_id else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _described(settings: Settings) -> str:
    from services.stores.choice import described

    return described(settings)
