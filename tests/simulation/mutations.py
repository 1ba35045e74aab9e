"""Ways to break the system on purpose, so that the simulation shows that it can fail. By name, see MUTATIONS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from actors.control_tail import ControlTail
from actors.delivery import DeliveryWindow
from actors.paging import Paging, Send
from actors.responder import ResponderActor
from actors.runtime.host import Host
from actors.runtime.untraced import NoTracer
from actors.shard import IncidentShard
from actors.working import WorkAsked, Working
from models.partition.event import Event
from models.ports import Channel, Clock, Worker
from models.shard.escalation import Page, Paged
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore

#: What is broken -> what the watcher says of it.
MUTATIONS = {
    "log acknowledges before it keeps": "durable frames are gone",
    "shard answers before the append": "not in the log",
    "deliveries are forgotten in a crash": "was counted twice",
    "no grace": "a start without grace",
    "the responder does again what it may have done": "was done twice, and must not be",
    "the responder pages again whom it told": "which was answered",
}


class HastyShard(IncidentShard):
    """Hands its frames to the log and does not wait."""

    async def _append(self, frames: Sequence[bytes]) -> None:
        first_seq = self.shard.seq - len(frames) + 1
        work = self.event_log.append(self._epoch, first_seq, frames)
        if first_seq == 1:
            await work
        else:
            asyncio.get_running_loop().create_task(work)


class ForgetfulWindow(DeliveryWindow):
    """Does not write what recovery met in the log."""

    def replayed(self, event: Event, at: float) -> None:
        return


class HelpfulWorking(Working):
    """Does whatever it does not remember, whichever of its lives was asked for it."""

    def _known(self, asked: WorkAsked) -> bytes | None:
        return None


class HelpfulResponder(ResponderActor):
    """A responder that means well."""

    def __init__(self, host: Host, *args: Any, worker: Worker, **more: Any) -> None:
        super().__init__(host, *args, worker=worker, **more)
        self._working = HelpfulWorking(worker, self.meter, NoTracer())


class ForgetfulPaging(Paging):
    """Tells everybody again who was told by an earlier try."""

    async def page(self, asked: Page, send: Send) -> Paged:
        return await super().page(msgspec.structs.replace(asked, done=[]), send)


class ForgetfulResponder(ResponderActor):
    """A responder that pages as ForgetfulPaging does."""

    def __init__(
        self,
        host: Host,
        receivers: Mapping[str, Channel],
        *,
        control: ControlTail,
        clock: Clock,
        **more: Any,
    ) -> None:
        super().__init__(host, receivers, control=control, clock=clock, **more)
        self._paging = ForgetfulPaging(receivers, control, clock, self.meter)


class LazyLog(MemoryEventLog):
    """Keeps an append only when the next one comes: see crashed()."""


def responder(mutation: str) -> type[ResponderActor]:
    if mutation.startswith("the responder pages again"):
        return ForgetfulResponder
    return HelpfulResponder if mutation.startswith("the responder does again") else ResponderActor


def shard(mutation: str) -> type[IncidentShard]:
    return HastyShard if mutation == "shard answers before the append" else IncidentShard


def log(mutation: str) -> type[MemoryEventLog]:
    return LazyLog if mutation == "log acknowledges before it keeps" else MemoryEventLog


def deliveries(mutation: str) -> Callable[..., DeliveryWindow]:
    return ForgetfulWindow if mutation == "deliveries are forgotten in a crash" else DeliveryWindow


def crashed(mutation: str, store: MemoryStore, partition: str) -> None:
    """The machine went down: what was only promised is gone."""
    kept = store.partition(partition)
    if mutation == "log acknowledges before it keeps" and kept.appends:
        kept.last_seq = kept.appends.pop().first_seq - 1
