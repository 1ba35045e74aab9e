"""The playbooks that a shard may choose from, as the control partition has them now. Only in memory: its actor tells all of them at
each start (actors/playbooks.py), and what a run goes by is copied into the log when the run begins (models/shard/runs.py).
"""

from __future__ import annotations

import msgspec

from models.playbook.playbook import Playbook, decode
from models.shard.changes import Change
from models.shard.component import Component
from models.shard.core import Core
from models.shard.messages import Done, Message, Reply


class Offered(msgspec.Struct, frozen=True, array_like=True):
    """The current version of a playbook. `mode`: active, paused, shadow. It is for incidents that opened after `since`."""

    name: str
    version: str
    digest: str
    body: bytes
    mode: str
    since: float


class PlaybooksChanged(Message, frozen=True):
    """All playbooks that the control partition has, at `version`."""

    version: int
    offered: list[Offered]


class PlaybooksKnown(Change, frozen=True, gc=False):
    """Other playbooks may be chosen than before."""


class KnownPlaybooks(Component):
    name = "playbooks known"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        self.version = 0
        self.offered: dict[str, Offered] = {}
        #: False while a new process has not heard which playbooks there are. Its actor says so.
        self.is_told = True
        self._books: dict[str, Playbook] = {}

    def book(self, offered: Offered) -> Playbook:
        """What an offered playbook says."""
        found = self._books.get(offered.digest)
        if found is None:
            found = self._books[offered.digest] = decode(offered.body)
        return found

    def _changed(self, message: PlaybooksChanged, now: float) -> Reply:
        self.is_told = True
        self.version = message.version
        self.offered = {each.name: each for each in message.offered}
        kept = {each.digest for each in message.offered}
        self._books = {digest: book for digest, book in self._books.items() if digest in kept}
        self.shard.report(PlaybooksKnown(), now)
        return Done()

    messages = {PlaybooksChanged: _changed}
