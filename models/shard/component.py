"""What a component of a shard is: one capability in one file, listed in models/shard/assembly.py. Its tables say what
it owns, its hooks are called at their time. Every shard makes its own instance of each.

    class Heartbeats(Component):
        name = "heartbeats"

        def _fold_missed(self, event: BeatMissed, now: float) -> None: ...

        events = (on(BeatMissed, _fold_missed, Description(("BeatMissed",), _line)),)

What is decided becomes an event by `self.shard.do(event, now)`; events alone change what replay must find again. A
component may keep other things in memory (what it requested, an index) if they can be derived from the rest or lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from models.incidents.incident import Incident
from models.incidents.lines import Description
from models.incidents.verbs import Verb
from models.partition.checkpoint import RecordKind
from models.partition.event import Event
from models.shard.changes import Change
from models.shard.core import Core, Whose
from models.shard.effects import Effect
from models.shard.events import ClockSetBack
from models.shard.messages import Command, Message, PeerMessage, Reply, Tick

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class EventOf(Generic[E]):
    """An event that a component owns: its fold is a method of the component."""

    kind: type[E]
    fold: Callable[[Any, E, float], None]
    description: Description[E] | None = None
    whose: Whose = Whose.INCIDENT
    fold_run: Callable[[Any, Sequence[E], float], None] | None = None


def on(
    kind: type[E],
    fold: Callable[[Any, E, float], None],
    description: Description[E] | None = None,
    whose: Whose = Whose.INCIDENT,
    fold_run: Callable[[Any, Sequence[E], float], None] | None = None,
) -> EventOf[E]:
    """An event type, what it does to the state, how it reads, if it is a line of an incident's timeline, and whose it is. With
    `fold_run`, which must come to the same, replay folds many of them in a row at once; not if it is a line, nor if others fold it."""
    return EventOf(kind, fold, description, whose, fold_run)


@dataclass(frozen=True, slots=True)
class RecordOf:
    """A kind of snapshot record: `capture(component, number)` gives one as it is now, None when there is none;
    `load(component, number, record, version)` takes one that a snapshot has, also of an earlier version. Whoever changes
    what is in a record calls `self.state.checkpoint.touch(kind, number)` first."""

    kind: RecordKind
    capture: Callable[[Any, int | bytes], bytes | None]
    load: Callable[[Any, int | bytes, bytes, int], None]


class Component:
    """The base: owns nothing, and its hooks do nothing."""

    name: ClassVar[str] = ""
    #: The events that are this component's.
    events: ClassVar[Sequence[EventOf[Any]]] = ()
    #: Events of others that it folds too, after their owner; live and in replay.
    follows: ClassVar[Mapping[type[Event], Callable[[Any, Any, float], None]]] = {}
    #: Events of others that it sees right before and right after they are applied; only live.
    before: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]] = {}
    after: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]] = {}
    #: Messages that it takes, (component, message, now) -> reply.
    messages: ClassVar[Mapping[type[Message], Callable[[Any, Any, float], Reply]]] = {}
    #: What an incident may tell another one. In the shard of who is told, (component, incident, sender, message, now) -> why
    #: not, "" when it agrees; then in its sender's, (component, incident, to, message, why not, now).
    hears: ClassVar[Mapping[type[PeerMessage], Callable[[Any, Incident, bytes, Any, float], str]]] = {}
    answered: ClassVar[
        Mapping[type[PeerMessage], Callable[[Any, Incident, bytes, Any, str, float], None]]
    ] = {}
    #: Verbs that it decides about, (component, incident, verb, command, now) -> the incident it was about. Only
    #: Create has no incident yet: None.
    verbs: ClassVar[Mapping[type[Verb], Callable[[Any, Any, Any, Command, float], Incident]]] = {}
    #: Changes of incidents that it reacts to, (component, change, now).
    reactions: ClassVar[Mapping[type[Change], Callable[[Any, Any, float], None]]] = {}
    #: Effects that it owes.
    effects: ClassVar[Sequence[type[Effect]]] = ()
    #: Its kinds of snapshot record.
    records: ClassVar[Sequence[RecordOf]] = ()

    def __init__(self, shard: Core) -> None:
        self.shard = shard
        self.state = shard.state

    # -- time ----------------------------------------------------------------------------------------------

    def next_at(self, incident: Incident) -> float:
        """When this component next has something to do about an incident, 0 if never. Derived from the state: called
        again whenever an event changed the incident."""
        return 0.0

    def due(self, incident: Incident, now: float) -> None:
        """The time that next_at() gave has come. Called by a Tick."""

    def tick(self, tick: Tick, now: float) -> None:
        """What is due of the shard as a whole. Called by every Tick, before due()."""

    def settle(self, now: float) -> None:
        """The step is decided: what follows from all of it."""

    # -- debts ---------------------------------------------------------------------------------------------

    def owed(self, now: float) -> Iterable[Effect]:
        """Effects that are pending and were not requested yet. Called at the end of every step, nearly always for nothing: then
        it returns () and makes no generator, which costs as much as a small message."""
        return ()

    def ask_again(self, effect: Any) -> None:
        """An effect of this component could not be delivered: owed() gives it again."""

    def owes(self, incident: Incident) -> bool:
        """Whether a closed incident must not be archived because something about it is pending."""
        return False

    def withholds(self, incident: Incident) -> str | None:
        """Why nobody is to be told of an incident now, other than of its end; "" when that is not known yet, and so nobody is
        told before it is; None when nothing speaks against it. Makes no events."""
        return None

    # -- beginnings ----------------------------------------------------------------------------------------

    def started(self, now: float, is_set_back: bool) -> None:
        """A writer starts: earlier requests may be lost, so owed() returns all of them again. `is_set_back`: with a
        clock that is behind the log's."""

    def came(self, incident: Incident) -> None:
        """An incident is here: made, loaded from a snapshot, or from another partition."""

    def left(self, incident: Incident) -> None:
        """An incident is not here any more."""

    def carries(self, incident: Incident) -> bytes | None:
        """What this component keeps of an incident in records of its own, for one that moves to another partition."""
        return None

    def brings(self, incident: Incident, record: bytes) -> None:
        """The same in the partition where the incident is now, after came()."""

    def slots_held(self) -> Iterable[int]:
        """The slots of what this component keeps that belongs to no incident: it moves with its slot. With it come the next three."""
        return ()

    def carries_slot(self, slot: int) -> bytes | None:
        """What it keeps of a slot, for another partition; None when it has nothing."""
        return None

    def brings_slot(self, slot: int, record: bytes) -> None:
        """The same in the partition where the slot is now."""

    def drops_slot(self, slot: int) -> None:
        """What carries_slot() gave is elsewhere now: forget it."""

    def loaded(self) -> None:
        """All records of a snapshot are in."""

    def settings_changed(self) -> None:
        """shard.settings are others than before."""

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        """The clock had been ahead: correct what this component keeps in an incident (models/shard/clock.py)."""
