"""Whoever gets the webhooks, and what they must have heard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from models.incidents.incident import Incident, IncidentState
from models.incidents.notification import FIRING, RESOLVED, Facts, Note
from models.ports import ActionResult
from models.shard.events import ActionFailed, ActionSucceeded, NotificationDropped, NotificationOwed
from models.shard.flapping import FLAP_WINDOW
from models.shard.mutes import Mutes
from models.shard.targets import TargetPassed
from tests.simulation.area import Area
from tests.simulation.settings import TICK_S
from tests.simulation.watch import Watcher

if TYPE_CHECKING:
    from tests.simulation.world import World


class Receiver:
    """Port Action: whoever gets the webhooks. Remembers all; may fail, wait, or take it and say nothing."""

    def __init__(self, world: World) -> None:
        self.world = world
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
        incident, number, _attempt = key.rsplit("-", 2)
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
        is_doubted = any(UUID(incident).bytes in each.doubted for each in world.watchers.values())
        is_known = is_doubted or any(before < int(number) for before, _reason in sent)
        if reason == "resolved" and not is_known:
            world.fail(f"the receiver hears that {incident} is resolved and never heard of it")
        sent.append((int(number), reason))
        if fate < 0.11:
            return ActionResult(False, "503")
        if fate < 0.2:
            await asyncio.sleep(world.rng.choice((0.1, 2.0, 10.0)))
        self.taken.add(key)
        self.heard.setdefault(incident, {})[int(number)] = status
        world.story("heard", incident=incident[-4:], reason=reason, number=number)
        if fate < 0.23:
            return ActionResult(False, "the answer was lost")
        if fate < 0.25:
            world.kill("responder-0", "after it has sent")
            await asyncio.get_running_loop().create_future()
        return ActionResult(True, "200")

    def render(self, facts: Facts) -> bytes:
        return facts.reason.encode()

    async def close(self) -> None:
        """Nothing is open."""


class Notifications(Area):
    events = frozenset({NotificationOwed, NotificationDropped, ActionSucceeded, ActionFailed, TargetPassed})

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.receiver = Receiver(world)

    def holds_for(self, watcher: Watcher) -> None:
        mirror = watcher.mirror
        for identity, incident in {**watcher.gone, **mirror.state.incidents}.items():
            name = str(UUID(bytes=identity))
            heard = self.receiver.heard.get(name, {})
            if name in self.receiver.refused:
                continue
            last = heard[max(heard)] if heard else ""
            if incident.classify_owed and incident.is_open:
                watcher.fail(f"{name} was never classified")
            elif incident.notification.reason is not None and self._waits(incident):
                continue  # for its interval, or for quiet
            elif incident.notification.reason is not None:
                watcher.fail(
                    f"{name} is still owed notification {incident.notification.number} ({incident.notification.reason})"
                )
            elif incident.merged_into:
                continue  # its whole says it
            elif incident.is_open and mirror.of(Mutes).is_muted(incident):
                if not heard and not incident.notification.withheld:
                    watcher.fail(f"{name} is muted, and nothing is held back")
            elif incident.is_open and not heard:
                watcher.fail(f"{name} is open and nobody was told")
            elif incident.is_open and last == "resolved":
                watcher.fail(f"{name} is open and the last word was that it is resolved")
            elif not incident.is_open and name in self.receiver.sent and last != "resolved":
                watcher.fail(f"{name} is {incident.state} and the last word was {last!r}")
            elif (
                incident.state is IncidentState.RESOLVED
                and not incident.firing
                and self.world.clock.now() - incident.resolved_at > 32.0
            ):
                watcher.fail(f"{name} is resolved and was not closed")

    def _waits(self, incident: Incident) -> bool:
        """Whether its notification has not begun and its time comes, or came just now: the next tick sends it."""
        due_s = incident.notification.due_at - self.world.clock.now()
        longest_s = FLAP_WINDOW * self.world.settings.interval_s
        return incident.notification.attempt == 0 and -TICK_S < due_s <= longest_s
