"""What answers of GraphQL are made of. Put together by services/api/app.py; no library of GraphQL is needed to import it."""

from __future__ import annotations

from dataclasses import dataclass

from models.ports import Clock
from services.api.heartbeats import HeartbeatDesk
from services.api.playbooks import RunReads
from services.api.reads import Reads
from services.api.silences import SilenceDesk
from services.api.v1.verb_doing import Doing


@dataclass(frozen=True, slots=True)
class Ground:
    """What answers are made of: the same that the routes of /v1 are."""

    reads: Reads
    runs: RunReads
    silences: SilenceDesk
    heartbeats: HeartbeatDesk
    doing: Doing
    clock: Clock
