"""What a shard keeps of escalations: how far that of each incident got, and whom of its pages somebody still has to be told. Records of
their own in snapshots. People stand here by name, never by address."""

from __future__ import annotations

import msgspec

from models.partition.checkpoint import RecordKind
from models.people.policy import Outline
from models.shard import clock
from models.shard.events import ClockSetBack
from models.shard.state import ShardState

ESCALATIONS = RecordKind("escalations", has_ids=True)
#: There is one record.
POLICIES = RecordKind("policies")

#: It goes on; it waits until a mute ends; it was stopped; it came to its end; its policy does not exist.
RUNNING, PAUSED, STOPPED, ENDED, UNKNOWN = "running", "paused", "stopped", "ended", "unknown"
#: The level of a page that tells those who were paged that it is over.
OVER = -1
#: In place of a person, of a receiver that a level names itself: "*:ops".
NOBODY = "*"


class OwedPage(msgspec.Struct, array_like=True):
    """A level whose people are to be told. `attempt` counts the tries that failed, `done` who was reached by then."""

    number: int
    level: int
    round: int
    due_at: float
    owed_since: float
    attempt: int = 0
    done: list[str] = []


class Escalation(msgspec.Struct, array_like=True):
    """Of one incident. `level` is the next to be told, at `due_at`; `round` counts how often all were. `number` counts the pages of
    the incident, also of its escalations before. `reached`: who was told, as in "ana:mail". `ack_until`: when what stopped it, an
    acknowledgement without an end, expires by the policy; 0: it does not. `begun` is when it began, the last times."""

    policy: str
    route: str
    status: str
    due_at: float
    level: int = 0
    round: int = 0
    number: int = 0
    began_at: float = 0.0
    why: str = ""
    pages: list[OwedPage] = []
    reached: list[str] = []
    ack_until: float = 0.0
    begun: list[float] = []

    @property
    def goes_on(self) -> bool:
        """Whether somebody is or will be paged, if only once its policy exists."""
        return self.status in (RUNNING, PAUSED, UNKNOWN)

    def page(self, number: int) -> OwedPage | None:
        return next((each for each in self.pages if each.number == number), None)


class EscalationStore:
    """The state. Every change is touched here first."""

    def __init__(self, state: ShardState) -> None:
        self._state = state
        self.all: dict[bytes, Escalation] = {}
        #: The policies that there are, by tenant and name.
        self.outlines: dict[tuple[str, str], Outline] = {}
        self.version = 0

    def of(self, incident_id: bytes) -> Escalation | None:
        """For looking."""
        return self.all.get(incident_id)

    def changing(self, incident_id: bytes) -> Escalation:
        """For changing one that there is, in a fold whose line goes into the incident's timeline."""
        self._state.changing(incident_id)
        self._state.checkpoint.touch(ESCALATIONS, incident_id)
        return self.all[incident_id]

    def put(self, incident_id: bytes, escalation: Escalation) -> None:
        self._state.changing(incident_id)
        self._state.checkpoint.touch(ESCALATIONS, incident_id)
        self.all[incident_id] = escalation

    def take(self, outlines: list[Outline], version: int) -> None:
        self._state.checkpoint.touch(POLICIES, 0)
        self.outlines = {(each.tenant, each.name): each for each in outlines}
        self.version = version

    def set_back(self, incident_id: bytes, event: ClockSetBack) -> None:
        mine = self.changing(incident_id)
        mine.due_at = clock.due(mine.due_at, event)
        mine.ack_until = clock.due(mine.ack_until, event)
        mine.began_at = clock.then(mine.began_at, event)
        mine.begun = [clock.then(at, event) for at in mine.begun]
        for page in mine.pages:
            page.due_at = clock.due(page.due_at, event)
            page.owed_since = clock.then(page.owed_since, event)

    def left(self, incident_id: bytes) -> None:
        if self.all.pop(incident_id, None) is not None:
            self._state.checkpoint.touch(ESCALATIONS, incident_id)

    def carried(self, incident_id: bytes) -> bytes | None:
        mine = self.all.get(incident_id)
        return None if mine is None else _encoder.encode(mine)

    def bring(self, incident_id: bytes, record: bytes) -> None:
        self.put(incident_id, _decoder.decode(record))

    # -- snapshots --

    def capture(self, identity: int | bytes) -> bytes | None:
        found = self.all.get(bytes(identity)) if isinstance(identity, bytes) else None
        return None if found is None else _encoder.encode(found)

    def load(self, identity: int | bytes, record: bytes, _version: int) -> None:
        assert isinstance(identity, bytes)
        self.all[identity] = _decoder.decode(record)

    def capture_policies(self, _number: int | bytes) -> bytes | None:
        return _encoder.encode((self.version, [*self.outlines.values()])) if self.version else None

    def load_policies(self, _number: int | bytes, record: bytes, _version: int) -> None:
        version, outlines = _policies_decoder.decode(record)
        self.outlines = {(each.tenant, each.name): each for each in outlines}
        self.version = version


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Escalation)
_policies_decoder = msgspec.msgpack.Decoder(tuple[int, list[Outline]])
