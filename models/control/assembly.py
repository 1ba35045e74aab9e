"""The sections of the control partition, in the order in which they are asked what is due. A new one is its file and a line here;
its name and messages must be nobody else's, and its events stand in models/control/events.py."""

from __future__ import annotations

from models.control.begun import Begun
from models.control.changed_settings import ChangedSettings
from models.control.heartbeating import Heartbeats
from models.control.issuing import IssuedTokens
from models.control.modelling import ModelVersions
from models.control.people import People, Policies
from models.control.polls import Polls
from models.control.section import Section
from models.control.shelf import Shelf
from models.control.silencing import Silences
from models.control.slots import Slots

SECTIONS: tuple[type[Section], ...] = (
    Slots,
    Begun,
    IssuedTokens,
    ChangedSettings,
    Silences,
    Shelf,
    Polls,
    Heartbeats,
    People,
    Policies,
    ModelVersions,
)
