"""Closed incidents move from the shard to the archive, and are deleted there after lifecycle.retention."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from models.incidents.incident import IncidentState
from models.partition.checkpoint import META
from models.partition.event import Event
from models.shard.changes import Moved, Paid
from models.shard.component import Component, on
from models.shard.core import Core, Whose
from models.shard.effects import Archive, Effect, Forget
from models.shard.messages import Archived, Done, Reply, Tick


class IncidentArchived(Event, frozen=True):
    """The archive holds the incident; it and its series leave the shard. `numbers`: its series, little-endian u32s. `tenant`:
    whose it was, "" in logs of before that was written down."""

    incident_id: bytes
    numbers: bytes
    tenant: str = ""


class ArchiveExpired(Event, frozen=True):
    """What closed before then is deleted: `lifecycle.retention` has passed. The archive drops it."""

    closed_before: float


#: Incidents handed to the archive at once.
ARCHIVE_BATCH = 100
#: How much later than its time an incident may be deleted, so that there is one event an hour instead of one per
#: incident; with a short retention, a part of that.
FORGET_EVERY_S = 3600.0
FORGET_EVERY_PART = 24


class Archiving(Component):
    name = "archiving"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        self._closed: dict[bytes, None] = {}
        self._forget_owed = False

    def _archived(self, message: Archived, now: float) -> Reply:
        for identity, version in zip(message.incident_ids, message.versions, strict=True):
            incident = self.state.incidents.get(identity)
            if incident is None or not self.shard.may_be_archived(incident):
                continue
            if incident.version != version:
                # Somebody commented on it in the meantime: the archive's copy is not complete.
                self._closed[identity] = None
            else:
                numbers = self.state.members[identity].tobytes()
                self.shard.do(IncidentArchived(identity, numbers, incident.tenant), now)
        return Done()

    def _may_go(self, change: Moved | Paid, _now: float) -> None:
        if change.incident.state is IncidentState.CLOSED:
            self._closed[change.incident.id] = None

    def tick(self, tick: Tick, now: float) -> None:
        # Not before started(): until then nobody knows what the log says.
        if self.state.no_expiry_before:
            self._expire(now)

    def _expire(self, now: float) -> None:
        keep_s = self.shard.settings.retention_s
        before = now - keep_s
        if now < self.state.no_expiry_before:
            # Nor while the clock may be ahead: what is deleted does not come back when the clock is right again.
            return
        if before >= self.state.forgotten_before + min(FORGET_EVERY_S, keep_s / FORGET_EVERY_PART):
            self.shard.do(ArchiveExpired(before), now)
            self._forget_owed = True

    def started(self, now: float, is_set_back: bool) -> None:
        self._expire(now)
        self._forget_owed = True
        self._closed = {
            identity: None
            for identity, each in self.state.incidents.items()
            if each.state is IncidentState.CLOSED
        }

    def owed(self, now: float) -> Iterable[Effect]:
        return self._ready() if self._closed or self._forget_owed else ()

    def _ready(self) -> Iterator[Effect]:
        if self._closed:
            incidents = self.state.incidents
            closed = [
                identity
                for identity in self._closed
                if (found := incidents.get(identity)) is not None and self.shard.may_be_archived(found)
            ]
            self._closed.clear()
            for start in range(0, len(closed), ARCHIVE_BATCH):
                yield Archive(closed[start : start + ARCHIVE_BATCH])
        if self._forget_owed:
            self._forget_owed = False
            yield Forget(self.state.forgotten_before)

    def ask_again(self, effect: Archive | Forget) -> None:
        if isinstance(effect, Forget):
            self._forget_owed = True
            return
        for identity in effect.incident_ids:
            if identity in self.state.incidents:
                self._closed[identity] = None

    def _fold_archived(self, event: IncidentArchived, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        for number in array("I", event.numbers):
            self.state.touch_series(number)
            self.state.series.forget(number)
        self.shard.forget(incident)

    def _fold_expired(self, event: ArchiveExpired, now: float) -> None:
        self.state.checkpoint.touch(META, 0)
        self.state.forgotten_before = event.closed_before

    messages = {Archived: _archived}
    reactions = {Moved: _may_go, Paid: _may_go}
    effects = (Archive, Forget)
    events = (on(IncidentArchived, _fold_archived), on(ArchiveExpired, _fold_expired, whose=Whose.SHARD))
