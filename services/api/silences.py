"""Makes, changes, ends and lists silences: Alertmanager's API v2 and /v1/silences both come here.

The control partition decides. What returns is durable, and every shard hears of it within a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from hashlib import blake2b
from uuid import UUID, uuid4

import msgspec

from actors.control_tail import ControlTail
from models.control.control import ControlMessage
from models.control.silences import ExpireSilence, SetSilence, Silence
from models.control.silencing import Silences
from models.errors import Refused, Unavailable
from models.partition.sharding import TENANT
from models.ports import Clock


class SilenceDesk:
    """The silences of one tenant. `tell` sends a message to the control partition's writer and returns when it is
    durable; `tail` shows the result. Raises Malformed, TooLarge, NotFound, Unavailable.

    Reads look at the log first, so that a silence that another gateway made is there; while that can't be read they show
    what was known.
    """

    def __init__(
        self,
        tail: ControlTail,
        tell: Callable[[ControlMessage], Awaitable[None]],
        clock: Clock,
        tenant: str = TENANT,
    ) -> None:
        self.tenant = tenant
        self._tail = tail
        self._tell = tell
        self._clock = clock

    @property
    def now(self) -> float:
        return self._clock.now()

    @property
    def _silences(self) -> Silences:
        return self._tail.state.of(Silences)

    async def all(self) -> Iterator[Silence]:
        """Those that are in force or to come, and the expired ones for five days."""
        await self._tail.catch_up()
        return self._silences.shown(self.now, self.tenant)

    async def find(self, identity: str) -> Silence:
        """Raises NotFound."""
        await self._tail.catch_up()
        return self._silences.find(identity, self.now, self.tenant)

    async def set(self, wanted: SetSilence) -> Silence:
        """Make or change a silence of this tenant; a repeat with the same `new_id` gives the same one."""
        await self._tell(msgspec.structs.replace(wanted, tenant=self.tenant))
        await self._tail.follow()
        known = self._silences.all
        found = known.get(wanted.new_id) or known.get(wanted.id)
        if found is None:
            raise Unavailable("the silence was stored, but can't be read yet: list the silences")
        return found

    async def expire(self, identity: str, actor: str) -> Silence:
        """End a silence now. Safe to repeat."""
        await self.find(identity)
        await self._tell(ExpireSilence(identity, actor, self.tenant))
        return await self.find(identity)

    async def id_for(self, delivery_id: str | None, content: bytes) -> str:
        """What a new silence is called. A request with a name (`delivery_id`) calls it so again, so that a repeat makes no
        second one. Raises Refused when the name was used for other words (`content` is their digest)."""
        if delivery_id is None:
            return str(uuid4())
        await self._tail.follow()
        name = blake2b(f"{self.tenant}/{delivery_id}".encode(), digest_size=8).digest()
        identity = str(UUID(bytes=name + blake2b(content, digest_size=8).digest()))
        start = str(UUID(bytes=name + bytes(8)))[:18]
        if any(each.startswith(start) and each != identity for each in self._silences.all):
            raise Refused("this Idempotency-Key was used before for another request")
        return identity
