"""What a shard keeps of repairs: of each incident that one was tried for, and what came of those of each playbook. Records of their own
in snapshots, so that an incident is no larger for them."""

from __future__ import annotations

from typing import Any

import msgspec

from models.incidents.incident import Incident
from models.partition.checkpoint import RecordKind
from models.playbook.playbook import PlannedAction
from models.playbook.repaired import Repaired, repaired_id
from models.shard.state import ShardState

WATCHES = RecordKind("watches", has_ids=True)
REPAIRED = RecordKind("repaired", has_ids=True)

#: Repairs of one life of an incident that are remembered: what follows is the effect of the last one.
REPAIRS_MAX = 5
#: Checks of one incident that are asked again: the last ones its runs did.
CHECKS_MAX = 10
#: Other incidents of the service that are named for one repair.
SIDE_EFFECTS_MAX = 10
#: Versions of playbooks of one tenant that are counted in a shard; the one used longest ago goes first.
VERSIONS_MAX = 200


class Check(msgspec.Struct, array_like=True):
    """A check that a run did, as action `number` of `step`, to be asked again. `last`, `variables`, `pending`, `item` and `index` are what it saw beside its run and
    the incident. `round` counts the answers, `failures` those that failed in a row, `passed` those that did not."""

    run: bytes
    step: str
    number: int
    action: PlannedAction
    variables: dict[str, Any] = {}
    last: dict[str, Any] = {}
    pending: list[str] = []
    item: Any = None
    index: int = 0
    at: float = 0.0
    round: int = 0
    failures: int = 0
    passed: int = 0
    detail: str = ""


class Repair(msgspec.Struct, frozen=True, array_like=True):
    """A run that changed something, and is over."""

    run: bytes
    playbook: str
    version: str
    started_at: float
    status: str


class Watch(msgspec.Struct, array_like=True):
    """All about the repairs of one incident, in its present life. `until`: its resolve is watched until then; 0: it is not.
    `number` counts the watches. `healed_by`: the repair after which it was resolved, `quiet`: and its alerts had ended."""

    repairs: list[Repair] = []
    checks: list[Check] = []
    number: int = 0
    began_at: float = 0.0
    until: float = 0.0
    side_effects: list[bytes] = []
    healed_by: Repair | None = None
    quiet: bool = False

    @property
    def credited(self) -> Repair | None:
        """The repair whose effect it is what happens: the one that it was resolved after, or else the last."""
        return self.healed_by or (self.repairs[-1] if self.repairs else None)


class WatchStore:
    """The state. Every change is touched here first."""

    def __init__(self, state: ShardState) -> None:
        self._state = state
        self.watches: dict[bytes, Watch] = {}
        self.repaired: dict[bytes, Repaired] = {}
        # What follows from them.
        self._by_service: dict[tuple[str, str], dict[bytes, None]] = {}
        self._by_tenant: dict[str, dict[bytes, None]] = {}

    def changing(self, incident: Incident) -> Watch:
        self._state.checkpoint.touch(WATCHES, incident.id)
        self._state.stirred[incident.id] = None
        mine = self.watches.get(incident.id)
        if mine is None:
            mine = self.watches[incident.id] = Watch()
            self.came(incident)
        return mine

    def counts(self, incident: Incident, repair: Repair, now: float) -> Repaired:
        """What is counted of a repair's playbook, for changing."""
        identity = repaired_id(incident.tenant, repair.playbook, repair.version)
        self._state.checkpoint.touch(REPAIRED, identity)
        found = self.repaired.get(identity)
        if found is None:
            found = Repaired(incident.tenant, repair.playbook, repair.version)
            self._put(identity, found)
            mine = self._by_tenant[incident.tenant]
            if len(mine) > VERSIONS_MAX:
                oldest = min(
                    (each for each in mine if each != identity),
                    key=lambda each: (self.repaired[each].last_at, each),
                )
                self._state.checkpoint.touch(REPAIRED, oldest)
                del self.repaired[oldest], mine[oldest]
        found.last_at = max(found.last_at, now)
        return found

    def neighbours(self, incident: Incident) -> list[bytes]:
        """Incidents of the same service that something is kept of."""
        found = self._by_service.get((incident.tenant, incident.service), ())
        return [each for each in found if each != incident.id]

    def of_tenant(self, tenant: str) -> list[Repaired]:
        return [self.repaired[each] for each in self._by_tenant.get(tenant, ())]

    def came(self, incident: Incident) -> None:
        mine = self.watches.get(incident.id)
        if mine is not None:
            self._by_service.setdefault((incident.tenant, incident.service), {})[incident.id] = None
            if mine.until:
                self._state.watched[incident.id] = None

    def left(self, incident: Incident) -> None:
        if self.watches.pop(incident.id, None) is None:
            return
        self._state.checkpoint.touch(WATCHES, incident.id)
        self._state.watched.pop(incident.id, None)
        place = (incident.tenant, incident.service)
        self._by_service[place].pop(incident.id, None)
        if not self._by_service[place]:
            del self._by_service[place]

    def carried(self, incident: Incident) -> bytes | None:
        mine = self.watches.get(incident.id)
        return None if mine is None else _encoder.encode(mine)

    def bring(self, incident: Incident, record: bytes) -> None:
        self._state.checkpoint.touch(WATCHES, incident.id)
        self._state.stirred[incident.id] = None
        self.watches[incident.id] = _watch_decoder.decode(record)
        self.came(incident)

    # -- snapshots --

    def capture_watch(self, identity: int | bytes) -> bytes | None:
        found = self.watches.get(bytes(identity)) if isinstance(identity, bytes) else None
        return None if found is None else _encoder.encode(found)

    def load_watch(self, identity: int | bytes, record: bytes, _version: int) -> None:
        assert isinstance(identity, bytes)
        self.watches[identity] = _watch_decoder.decode(record)

    def capture_repaired(self, identity: int | bytes) -> bytes | None:
        found = self.repaired.get(bytes(identity)) if isinstance(identity, bytes) else None
        return None if found is None else _encoder.encode(found)

    def load_repaired(self, identity: int | bytes, record: bytes, _version: int) -> None:
        assert isinstance(identity, bytes)
        self._put(identity, _repaired_decoder.decode(record))

    def _put(self, identity: bytes, found: Repaired) -> None:
        self.repaired[identity] = found
        self._by_tenant.setdefault(found.tenant, {})[identity] = None


_encoder = msgspec.msgpack.Encoder()
_watch_decoder = msgspec.msgpack.Decoder(Watch)
_repaired_decoder = msgspec.msgpack.Decoder(Repaired)
