"""What the components of a shard build on: the state, the settings, and the step being decided. Made by
models/shard/shard.py, which fills in who folds, reacts and is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby, islice
from typing import Any, TypeVar, cast

from models.errors import Broken
from models.incidents.incident import Incident, IncidentState
from models.incidents.lines import CHANGED, SYSTEM, Around, Description, Glance
from models.partition.event import Event
from models.partition.ordered import behind
from models.partition.timers import Timers
from models.shard.changes import Change
from models.shard.messages import Command, PeerMessage
from models.shard.settings import ShardSettings
from models.shard.state import ShardState

#: Incidents of which it is found out in one step when they are due, after a change of settings: 3 to 4 ms.
WATCH_STRETCH = 4000

T = TypeVar("T")
Fold = Callable[[Any, float], None]


class Whose(Enum):
    """Whose an event is, and so the tenant of its frame (models/shard/tenants.py)."""

    #: Its incident's: it has `incident_id`. One after which nobody has the incident says its `tenant` too.
    INCIDENT = 1
    #: That of its series, which it has the `number` of.
    SERIES = 2
    #: That of the message which led to it.
    REQUEST = 3
    #: Everyone's: it is about the shard itself.
    SHARD = 4
    #: That of its `tenant`: it is about something else than an incident or a series.
    TENANT = 5


#: The field that an event must have by which it is found whose it is.
NAMED_BY = {Whose.INCIDENT: "incident_id", Whose.SERIES: "number", Whose.TENANT: "tenant"}


@dataclass(slots=True)
class Row:
    """What one type of event triggers. `fold` and `follows` run live and in replay; `before` and `after` only live."""

    fold: Fold
    #: The same of many in a row, where its owner has it: only for replay.
    fold_run: Callable[[Any, float], None] | None = None
    #: How it reads; None when it never is a line of a timeline.
    description: Description[Any] | None = None
    whose: Whose = Whose.INCIDENT
    follows: list[Fold] = field(default_factory=list)
    before: list[Callable[[Any], None]] = field(default_factory=list)
    after: list[Callable[[Any], None]] = field(default_factory=list)


class Core:
    """A partition deciding, as its components see it. `epoch`, `seq` and `trace_id` are those of the frame being made or
    applied."""

    #: What one incident tells another, from its bytes. Raises msgspec.ValidationError or DecodeError when it is none.
    decode_peer_message: Callable[[bytes], PeerMessage]

    def __init__(self, partition: str, settings: ShardSettings) -> None:
        self.partition = partition
        self.settings = settings
        self.state = ShardState(partition, settings.group_by)
        self.epoch = 0
        self.seq = 0
        self.trace_id: str | None = None
        #: The clock itself, where `now` may stand still (models/shard/clock.py).
        self.clock = 0.0
        #: The sender whose alerts are being decided; "" if there is none.
        self.sender = ""
        self.events: list[Event] = []
        self.timers = Timers()
        #: Where watch_all() continues in the order of incidents, None when all were looked at.
        self._watch_from: tuple[Any, ...] | None = None
        self._rows: dict[type[Event], Row] = {}
        self._reactions: dict[type[Change], Sequence[Callable[[Any, float], None]]] = {}
        self._verbs: dict[type, Callable[..., Incident]] = {}
        self._hears: dict[type[PeerMessage], Callable[..., str]] = {}
        self._answered: dict[type[PeerMessage], Callable[..., None]] = {}
        self._set_back: Sequence[Callable[[Incident, Any], None]] = ()
        self._came: Sequence[Callable[[Incident], None]] = ()
        self._left: Sequence[Callable[[Incident], None]] = ()
        self._carries: dict[str, Callable[[Incident], bytes | None]] = {}
        self._brings: dict[str, Callable[[Incident, bytes], None]] = {}
        self._slots_held: Sequence[Callable[[], Iterable[int]]] = ()
        self._carries_slot: dict[str, Callable[[int], bytes | None]] = {}
        self._brings_slot: dict[str, Callable[[int, bytes], None]] = {}
        self._drops_slot: dict[str, Callable[[int], None]] = {}
        self._next_at: Sequence[Callable[[Incident], float]] = ()
        self._owes: Sequence[Callable[[Incident], bool]] = ()
        self._withholds: Sequence[Callable[[Incident], str | None]] = ()
        self._components: dict[type, object] = {}

    @property
    def actor(self) -> str:
        """The actor, for timelines, of what the current alert causes."""
        return self.sender or SYSTEM

    def of(self, kind: type[T]) -> T:
        """The component of a class: for code that shows its state. Components inform each other by report()."""
        return cast(T, self._components[kind])

    def whose(self, event: Event) -> Whose:
        """Whose a kind of event is."""
        return self._row(event).whose

    def decide(self, incident: Incident | None, command: Command, now: float) -> Incident:
        """Do what a person requests, by the component that owns the verb. Raises Refused."""
        found: Incident = self._verbs[type(command.verb)](incident, command.verb, command, now)
        return found

    def hear(self, incident: Incident, sender: bytes, message: PeerMessage, now: float) -> str:
        """Another incident tells one of this shard something: why it does not agree, "" when it does."""
        return self._hears[type(message)](incident, sender, message, now)

    def answered(self, incident: Incident, to: bytes, message: PeerMessage, refused: str, now: float) -> None:
        """The other incident answered what one of this shard told it."""
        self._answered[type(message)](incident, to, message, refused, now)

    # -- deciding ------------------------------------------------------------------------------------------

    def do(self, event: Event, now: float) -> None:
        """A decision: it is true from here on, and goes to the log with this step."""
        row = self._rows.get(type(event)) or self._row(event)
        for watch in row.before:
            watch(event)
        if row.description is None:
            # As in _apply(): nearly all that a flood of alerts leads to.
            self.state.now = now
            row.fold(event, now)
            for fold in row.follows:
                fold(event, now)
        else:
            self._apply(row, event, now)
        for watch in row.after:
            watch(event)
        self.events.append(event)

    def report(self, change: Change, now: float) -> None:
        """Something changed: the components that it concerns react, in their order."""
        for react in self._reactions.get(type(change), ()):
            react(change, now)

    # -- live and in replay --------------------------------------------------------------------------------

    def apply(self, event: Event, now: float) -> None:
        """Fold one event, of a frame made at `now`, into the state. Raises Broken when it does not fit."""
        self._apply(self._rows.get(type(event)) or self._row(event), event, now)

    def replay(self, events: Sequence[Event], now: float) -> None:
        """apply() of each event of a frame: a frame of new series is a run of those, and another of what their incidents say."""
        for kind, run in groupby(events, type):
            row = self._rows.get(kind)
            if row is None or row.description is not None or row.follows:
                for event in run:
                    self.apply(event, now)
                continue
            self.state.now = now
            if row.fold_run is not None:
                row.fold_run([*run], now)
                continue
            fold = row.fold
            for event in run:
                fold(event, now)

    def _row(self, event: Event) -> Row:
        row = self._rows.get(type(event))
        if row is None:
            raise Broken(f"a shard does not know the event {type(event).__name__}")
        return row

    def _apply(self, row: Row, event: Event, now: float) -> None:
        self.state.now = now
        description = row.description
        if description is None:
            row.fold(event, now)
            for fold in row.follows:
                fold(event, now)
            return
        incidents = self.state.incidents
        about = description.of(event)
        before = glance(incidents.get(about[0])) if description.compares and about else None
        row.fold(event, now)
        for fold in row.follows:
            fold(event, now)
        for nth, identity in enumerate(about):
            incident = incidents[identity]
            line = description.line(event, Around(now, nth, before, incident))
            if line is not None and line.kind != CHANGED:
                self.state.write(incident, now, line, self.trace_id)

    # -- incidents come and go -----------------------------------------------------------------------------

    def enter(self, incident: Incident) -> None:
        """A new incident, the newest of all."""
        self.state.enter(incident)
        self.came(incident)

    def came(self, incident: Incident) -> None:
        """An incident is here that was not, whether new or from elsewhere."""
        for come in self._came:
            come(incident)

    def forget(self, incident: Incident) -> None:
        """An incident whose series are gone is not here any more."""
        self.state.forget(incident)
        self.timers.set(incident.id, 0.0)
        for leave in self._left:
            leave(incident)

    def carried(self, incident: Incident) -> dict[str, bytes]:
        """What components keep of an incident in records of their own, by their names."""
        found = {name: carries(incident) for name, carries in self._carries.items()}
        return {name: record for name, record in found.items() if record is not None}

    def bring(self, incident: Incident, carried: dict[str, bytes]) -> None:
        """The same in the partition where the incident is now."""
        for name, record in carried.items():
            self._brings[name](incident, record)

    def slots_held(self) -> set[int]:
        """The slots of which components keep something that belongs to no incident."""
        return {slot for held in self._slots_held for slot in held()}

    def carried_of_slot(self, slot: int) -> dict[str, bytes]:
        """What that is of one slot, by the components' names."""
        found = {name: carries(slot) for name, carries in self._carries_slot.items()}
        return {name: record for name, record in found.items() if record is not None}

    def bring_slot(self, slot: int, carried: dict[str, bytes]) -> None:
        """The same in the partition where the slot is now."""
        for name, record in carried.items():
            self._brings_slot[name](slot, record)

    def drop_slot(self, slot: int, carried: Iterable[str]) -> None:
        """What these components kept of a slot is elsewhere now."""
        for name in carried:
            self._drops_slot[name](slot)

    def set_back(self, incident: Incident, event: Event) -> None:
        """The clock had been ahead: the components correct what they keep in an incident."""
        for put_right in self._set_back:
            put_right(incident, event)

    def owes(self, incident: Incident) -> bool:
        """Whether a component still has something pending about it."""
        return any(owes(incident) for owes in self._owes)

    def withholds(self, incident: Incident) -> str | None:
        """Why a component wants nobody to be told of it now; see Component.withholds."""
        for withholds in self._withholds:
            why = withholds(incident)
            if why is not None:
                return why
        return None

    def may_be_archived(self, incident: Incident) -> bool:
        """It is closed and nothing is pending about it."""
        return incident.state is IncidentState.CLOSED and not self.owes(incident)

    def next_at(self, incident: Incident) -> float:
        """When something of it is due next, 0 when nothing is."""
        times = [at for next_at in self._next_at if (at := next_at(incident))]
        return min(times) if times else 0.0

    def watch_all(self) -> None:
        """Find out again when each incident is due, a stretch at each watch(): what that depends on changed."""
        self._watch_from = ()

    def watch(self) -> None:
        """Find out again when the incidents that changed since the last call are due, and where they stand."""
        state = self.state
        if self._watch_from is not None:
            stretch = [*islice(state.order.up(self._watch_from), WATCH_STRETCH)]
            state.stirred.update((identity, None) for _created_at, identity in stretch)
            self._watch_from = behind(stretch[-1]) if len(stretch) == WATCH_STRETCH else None
        state.places.go_on(state.incidents)
        stirred, state.stirred = state.stirred, {}
        for identity in stirred:
            incident = state.incidents.get(identity)
            if incident is not None:
                self.timers.set(identity, self.next_at(incident))
                state.places.put(incident)


def glance(incident: Incident | None) -> Glance | None:
    """What a line may compare with."""
    if incident is None:
        return None
    return Glance(incident.counts, incident.is_classified, incident.labels)
