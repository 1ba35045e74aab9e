"""Whoever is told of incidents, and what they must have heard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from models.incidents.incident import Incident, IncidentState, Notification
from models.incidents.notification import FIRING, RESOLVED, Facts, Note
from models.ports import ActionResult
from models.shard.events import (
    ActionFailed,
    ActionSucceeded,
    NotificationDiscarded,
    NotificationDropped,
    NotificationFellBack,
    NotificationOwed,
)
from models.shard.flapping import FLAP_WINDOW
from models.shard.mutes import Mutes
from models.shard.notifications import Notifications as ShardNotifications
from models.shard.relations import PATIENCE_S
from models.shard.runs import Runs
from models.shard.targets import TargetPassed
from tests.simulation.area import Area
from tests.simulation.settings import LONGEST_INTERVAL_S, RECEIVERS, TICK_S
from tests.simulation.watch import Watcher

if TYPE_CHECKING:
    from tests.simulation.world import World


class Receiver:
    """Port Channel: whoever is told. Remembers all; may fail, wait, or take it and say nothing."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.taken: set[str] = set()
        #: incident id -> [(number, reason)] of what may have been heard, in the order they came, whatever was answered.
        self.sent: dict[str, list[tuple[int, str]]] = {}
        #: incident id -> number -> the status that was taken, "firing" or "resolved".
        self.heard: dict[str, dict[int, str]] = {}
        self.refused: set[str] = set()
        #: What it did not take: it says the same again of the same try, which the wire may bring twice.
        self.declined: dict[str, ActionResult] = {}

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        return ActionResult(ok=True, detail="said")

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        world = self.world
        incident, number = key[:36], key.rsplit("-", 2)[1]
        if facts.receiver != self.name:
            world.fail(f"{self.name} is told what is for {facts.receiver}")
        reason, status = facts.reason, RESOLVED if facts.is_over else FIRING
        if key in self.declined:
            return self.declined[key]
        fate = world.rng.random() if world.is_troubled else 1.0
        if fate < 0.06:
            later_s = world.rng.choice((0.0, 0.0, 5.0))
            self.declined[key] = ActionResult(False, "429", retry_after_s=later_s, reached=False)
            return self.declined[key]
        if fate < 0.07:
            self.refused.add(incident)
            self.declined[key] = ActionResult(False, "422", final=True, reached=False)
            return self.declined[key]
        sent = self.sent.setdefault(incident, [])
        # A shard that can't know whether an earlier try arrived tells the truth all the same.
        is_doubted = any(
            (UUID(incident).bytes, self.name) in each.doubted for each in world.watchers.values()
        )
        is_known = is_doubted or any(before < int(number) for before, _reason in sent)
        if reason == "resolved" and not is_known:
            world.fail(f"{self.name} hears that {incident} is resolved and never heard of it")
        sent.append((int(number), reason))
        if facts.ref not in ("", f"{self.name}/{incident}"):
            world.fail(f"{self.name} is told of {incident} as {facts.ref}")
        if fate < 0.11:
            return ActionResult(False, "503")
        if fate < 0.2:
            await asyncio.sleep(world.rng.choice((0.1, 2.0, 10.0)))
        self.taken.add(key)
        self.heard.setdefault(incident, {})[int(number)] = status
        world.story("heard", by=self.name, incident=incident[-4:], reason=reason, number=number)
        if fate < 0.23:
            return ActionResult(False, "the answer was lost")
        if fate < 0.25:
            world.kill("responder-0", "after it has sent")
            await asyncio.get_running_loop().create_future()
        return ActionResult(True, "200", ref=f"{self.name}/{incident}")

    def render(self, facts: Facts) -> bytes:
        return facts.reason.encode()

    async def close(self) -> None:
        """Nothing is open."""


class Notifications(Area):
    events = frozenset(
        {
            NotificationOwed,
            NotificationDropped,
            NotificationDiscarded,
            NotificationFellBack,
            ActionSucceeded,
            ActionFailed,
            TargetPassed,
        }
    )

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.receivers = {name: Receiver(world, name) for name in RECEIVERS}

    def holds_for(self, watcher: Watcher) -> None:
        mirror = watcher.mirror
        for identity, incident in {**watcher.gone, **mirror.state.incidents}.items():
            name = str(UUID(bytes=identity))
            if incident.classify_owed and incident.is_open:
                watcher.fail(f"{name} was never classified")
            if (
                incident.state is IncidentState.RESOLVED
                and not incident.firing
                and not incident.is_owed_notification
                and self.world.clock.now() - incident.resolved_at > 32.0
            ):
                watcher.fail(f"{name} is resolved and was not closed")
            choice = mirror.of(ShardNotifications).audience.of(incident)
            chosen = {each.receiver for each in choice.told}
            paged = mirror.of(Runs).store.of(identity).told
            for receiver in {*chosen, *incident.notifications, *paged}:
                if why := self._wrong(watcher, incident, receiver, receiver in chosen):
                    watcher.fail(f"{name} {why} ({receiver})")
            if why := self._wrong_fallback(watcher, incident):
                watcher.fail(f"{name} {why}")
            if incident.counts_as_open and choice.discarded and not incident.notifications:
                if incident.discarded != choice.discarded.name:
                    watcher.fail(f"{name} is discarded, and nothing says so")

    def _wrong(self, watcher: Watcher, incident: Incident, receiver: str, is_chosen: bool) -> str:
        """What is wrong with what a receiver knows of an incident when all is quiet, "" if nothing is."""
        name, told = str(UUID(bytes=incident.id)), self.receivers[receiver]
        notification, heard = incident.notification_of(receiver), told.heard.get(name, {})
        last = heard[max(heard)] if heard else ""
        if name in told.refused:
            return ""
        if notification.reason is not None:
            # For its interval, or for quiet.
            return "" if self._waits(notification) else f"is still owed {notification.reason}"
        if incident.merged_into:
            return ""  # its whole says it
        if incident.is_open and watcher.mirror.of(Mutes).is_muted(incident):
            is_silent = not heard and not notification.withheld and is_chosen
            return "is muted, and nothing is held back" if is_silent else ""
        if incident.is_open and not heard and is_chosen:
            return "is open and it was not told"
        if incident.is_open and last == "resolved" and is_chosen:
            return "is open and the last word was that it is resolved"
        is_told_of_ends = RECEIVERS[receiver].sends_resolved
        # What a page opened is known when its answer arrived: then it is owed the end as well.
        paged = watcher.mirror.of(Runs).store.of(incident.id).told
        was_told = receiver in paged or any(number for number, _reason in told.sent.get(name, ()))
        if not incident.is_open and was_told and last != "resolved" and is_told_of_ends:
            return f"is {incident.state} and the last word was {last!r}"
        return ""

    def _wrong_fallback(self, watcher: Watcher, incident: Incident) -> str:
        """What is wrong with who stands in for whom, "" if nothing is."""
        name = str(UUID(bytes=incident.id))
        for receiver, row in RECEIVERS.items():
            spare = self.receivers.get(row.fallback)
            if spare is None or name in spare.refused or not incident.notification_of(receiver).given_up:
                continue
            is_quiet = not incident.counts_as_open or watcher.mirror.of(Mutes).is_muted(incident)
            if not is_quiet and not spare.heard.get(name) and not self.receivers[receiver].heard.get(name):
                return f"was given up for {receiver}, and {row.fallback} never heard of it"
        return ""

    def _waits(self, notification: Notification) -> bool:
        """Whether its notification has not begun and its time comes, or came just now: the next tick sends it, or the first after its
        incident has waited for the correlator's word."""
        due_s = notification.due_at - self.world.clock.now()
        longest_s = FLAP_WINDOW * LONGEST_INTERVAL_S
        return notification.attempt == 0 and -TICK_S - PATIENCE_S < due_s <= longest_s
