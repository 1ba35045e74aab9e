"""A shard: one partition, deciding. What it knows is in models/shard/state.py, what it does in its components
(models/shard/assembly.py).

`handle(message, now)` decides and applies in turn, so that an alert sees what the alert before it in the same message
did; it returns the events for the log, the effects that are now owed and the reply. Nothing of a step may be visible
before its events are durable: actors/shard.py ensures that, and throws the state away when an append fails, so nobody
ever sees state ahead of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

import msgspec

from models.errors import Broken
from models.partition.checkpoint import SNAPSHOT_VERSION, Checkpoint, parse_key
from models.partition.event import Event
from models.shard.assembly import ASSEMBLY, Assembly
from models.shard.changes import Change
from models.shard.clock import SLACK_S
from models.shard.component import Component
from models.shard.core import Core, Row
from models.shard.effects import Effect
from models.shard.events import ShardStarted
from models.shard.messages import AlertsArrived, Done, Message, Reply, Tick
from models.shard.reception import set_back
from models.shard.settings import ShardSettings

#: Most due incidents handled in one step: about 10 ms, so that the end of an outage does not delay a batch.
DUE_MAX = 1000


class Step(msgspec.Struct, frozen=True):
    """What a message led to. `events` go to the log in one append (a frame for each tenant); then `reply` and `effects` may leave."""

    events: list[Event]
    effects: list[Effect]
    reply: Reply


#: Times that components settle in one step: a run that makes its incident worse has playbooks chosen, which run ... A few do.
SETTLINGS_MAX = 16


class Shard(Core):
    """One partition, deciding. `epoch`, `seq` and `trace_id` (of the frame being made) are set by its actor before handle()."""

    snapshot_version = SNAPSHOT_VERSION

    def __init__(self, partition: str, settings: ShardSettings, assembly: Assembly = ASSEMBLY) -> None:
        super().__init__(partition, settings)
        self.frames = assembly.frames
        self.components = [kind(self) for kind in assembly.components]
        self.decode_peer_message = assembly.decode_peer_message
        self._assemble()

    @property
    def now(self) -> float:
        """The time of the last frame."""
        return self.state.now

    @property
    def checkpoint(self) -> Checkpoint:
        return self.state.checkpoint

    def take_settings(self, settings: ShardSettings) -> None:
        """Use these settings from now on. Decisions stay; what waits for a time that they change waits for the new one,
        as soon as a tick has come to it (watch_all)."""
        self.settings = settings
        self.watch_all()
        for component in self.components:
            component.settings_changed()

    def handle(self, message: Message, now: float) -> Step:
        """Decide about a message, apply the decisions, and return the effects that are now pending. `now` is the
        clock's time in seconds: if it went back by more than clock.SLACK_S, an event corrects what depended on it.
        Deterministic. A message that was handled before (same call_id) makes no event and gets the same reply.
        """
        self.events = []
        self.sender = message.sender if isinstance(message, AlertsArrived) else ""
        now = self._at(now)
        take = self._messages.get(type(message))
        if take is None:
            raise Broken(f"a shard can't be told {type(message).__name__}")
        return self._step(take(message, now), now)

    def started(self, owner: str, now: float) -> Step:
        """The first step of a writer after recovery: notes the epoch, and asks again for all that is owed."""
        self.events = []
        self.sender = ""
        state = self.state
        # Incidents that moved here from a shard whose clock was ahead count as time of this shard.
        state.now = max(state.now, state.order.last[0] if state.order.last else 0.0)
        state.places.begin(state.order)
        # A new shard has no series whose sender could have gone unheard.
        grace_s = self.settings.expiry_grace_s if state.now else 0.0
        now = self._at(now)
        # By the wrong time a notification may have been sent that is still waiting by the right one.
        is_set_back = bool(self.events)
        self.do(ShardStarted(self.epoch, owner, now + grace_s), now)
        for component in self.components:
            component.started(now, is_set_back)
        return self._step(Done(), now)

    def ask_again(self, effect: Effect) -> None:
        """An effect could not be delivered: it is still pending, and the next step requests it again."""
        self._effects[type(effect)].ask_again(effect)

    def load(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Take records of a snapshot, in the order of their keys; finish with loaded()."""
        kinds = {kind.name: kind for kind in self.state.load}
        for key, record in records:
            kind, number, version = parse_key(key, kinds)
            self.state.checkpoint.loaded(kind, number, record, version)
            self.state.load[kind](number, record, version)

    def loaded(self) -> None:
        """All records of a snapshot are in: make what derives from them."""
        self.state.loaded()
        for component in self.components:
            component.loaded()
        for _created_at, identity in self.state.order:
            self.came(self.state.incidents[identity])

    # -- one step ------------------------------------------------------------------------------------------

    def _at(self, now: float) -> float:
        """The time at which a message is decided, given the clock: never before that of the last message, except with
        an event that says so."""
        if self.state.now - now > SLACK_S:
            self.do(set_back(self, now), now)
        self.clock = now
        self.state.now = max(now, self.state.now)
        return self.state.now

    def _tick(self, tick: Tick, now: float) -> Reply:
        for answer in self._ticks:
            answer(tick, now)
        self.watch()
        for identity in self.timers.due(now, DUE_MAX):
            incident = self.state.incidents[identity]
            self.state.stirred[identity] = None
            for component in self._timed:
                if 0 < component.next_at(incident) <= now:
                    component.due(incident, now)
        return Done()

    def _step(self, reply: Reply, now: float) -> Step:
        for _pass in range(SETTLINGS_MAX):
            made = len(self.events)
            for settle in self._settles:
                settle(now)
            # What one settles may be news to another. Left to the next step, it would stand in a frame of that step's tenant.
            if len(self.events) == made:
                break
        events, self.events = self.events, []
        effects: list[Effect] = []
        for owed in self._owed:
            if pending := owed(now):
                effects += pending
        return Step(events, effects, reply)

    # -- the tables ----------------------------------------------------------------------------------------

    def _assemble(self) -> None:
        """Build the tables of what each component owns and which hooks it has. A missing hook costs nothing."""
        parts = self.components

        def having(hook: str) -> list[Component]:
            return [each for each in parts if getattr(type(each), hook) is not getattr(Component, hook)]

        self._components = {type(each): each for each in parts}
        for each in parts:
            for record in each.records:
                self.state.keep(record.kind, bound(record.capture, each), bound(record.load, each))
            for event in each.events:
                is_line = event.description is not None and bool(event.description.kinds)
                description = event.description if is_line else None
                run = None if event.fold_run is None else bound(event.fold_run, each)
                self._rows[event.kind] = Row(bound(event.fold, each), run, description, event.whose)
        reactions: dict[type[Change], list[Callable[[Any, float], None]]] = {}
        for each in parts:
            for kind, follow in each.follows.items():
                self._rows[kind].follows.append(bound(follow, each))
            for kind, watch in each.before.items():
                self._rows[kind].before.append(bound(watch, each))
            for kind, watch in each.after.items():
                self._rows[kind].after.append(bound(watch, each))
            for change, react in each.reactions.items():
                reactions.setdefault(change, []).append(bound(react, each))
        self._reactions = {**reactions}
        self._messages: dict[type[Message], Callable[[Any, float], Reply]] = {
            Tick: self._tick,
            **{kind: bound(take, each) for each in parts for kind, take in each.messages.items()},
        }
        self._verbs = {kind: bound(decide, each) for each in parts for kind, decide in each.verbs.items()}
        self._hears = {kind: bound(hear, each) for each in parts for kind, hear in each.hears.items()}
        self._answered = {kind: bound(take, each) for each in parts for kind, take in each.answered.items()}
        self._effects = {kind: each for each in parts for kind in each.effects}
        self._timed = having("next_at")
        self._next_at = [each.next_at for each in self._timed]
        self._owes = [each.owes for each in having("owes")]
        self._withholds = [each.withholds for each in having("withholds")]
        self._came = [each.came for each in having("came")]
        self._left = [each.left for each in having("left")]
        self._carries = {each.name: each.carries for each in having("carries")}
        self._brings = {each.name: each.brings for each in having("brings")}
        self._slots_held = [each.slots_held for each in having("slots_held")]
        self._carries_slot = {each.name: each.carries_slot for each in having("carries_slot")}
        self._brings_slot = {each.name: each.brings_slot for each in having("brings_slot")}
        self._drops_slot = {each.name: each.drops_slot for each in having("drops_slot")}
        self._set_back = [each.set_back for each in having("set_back")]
        self._ticks = [each.tick for each in having("tick")]
        self._settles = [each.settle for each in having("settle")]
        self._owed = [each.owed for each in having("owed")]


def bound(function: Callable[..., Any], component: Component) -> Callable[..., Any]:
    """A function of a component's table as its method."""
    return MethodType(function, component)
