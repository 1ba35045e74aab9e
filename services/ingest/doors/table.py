"""The doors there are. A new one is a file beside this and a line here (door.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.ingest.doors.door import Door, Needs
from services.ingest.doors.grpc.door import GrpcDoor
from services.ingest.doors.http import HttpDoor
from services.ingest.doors.websocket import WebSocketDoor

if TYPE_CHECKING:
    from models.settings.all import Settings

DOORS: tuple[type[Door], ...] = (HttpDoor, WebSocketDoor, GrpcDoor)


def open_doors(needs: Needs, settings: Settings) -> dict[str, Door]:
    """Each door that the settings ask for, by its name, not started yet."""
    found = {}
    for kind in DOORS:
        section = getattr(settings, kind.section)
        if kind.is_wanted(section):
            found[kind.name] = kind(needs, section)
    return found
