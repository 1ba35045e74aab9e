"""The single way in for what people do: a verb becomes a Command to the shard of its incident, and comes back as the
incident after it. Called by the routes of the verbs, single and in bulk.

What returns is durable. When a shard stays away the answer is Unavailable, and the command may have been stored: a caller
that names it (Idempotency-Key) may send it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from models.errors import Broken, Conflict, NotFound, Stale, Unavailable
from models.incidents.incident import TimelineEntry
from models.incidents.query import IncidentView
from models.incidents.verbs import AnyVerb, Create
from models.shard.messages import Command, CommandDone, Reply, encode
from models.trace import trace_id_of
from services.api.reads import Reads
from services.api.v1.requests import Origin
from services.ingest.submit import CallIds

#: How long to wait for the other half of a merge: it takes two appends, unless its shard is down.
CHILD_TIME_S = 1.0
#: Between two looks at it.
PART_POLL_S = 0.02
#: The kind of timeline entry for a merge that the other incident refused.
MERGE_REFUSED = "MergeRefused"

#: Sends an encoded message to a shard by index: ShardLine.tell.
Tell = Callable[[int, bytes], Awaitable[Reply]]


class Commands:
    """All commands of one gateway."""

    def __init__(self, tell: Tell, reads: Reads) -> None:
        self._tell = tell
        self._reads = reads
        self._ids = CallIds()

    async def do(
        self,
        origin: Origin,
        incident_id: bytes,
        verb: AnyVerb,
        *,
        reason: str = "",
        versions: Sequence[int] | None = None,
        content: bytes = b"",
    ) -> CommandDone:
        """Do `verb` to an incident, if it has one of `versions` (None: whatever it has). `content` is a digest of what the
        caller wrote. Raises what its shard refuses, Conflict for an incident that is archived, Unavailable."""
        asking = self._reads.asking
        if_version = None if versions is None else await self._version_of(origin, incident_id, versions)
        command = Command(
            next(self._ids),
            asking.tenant,
            origin.actor,
            incident_id,
            verb,
            reason,
            if_version,
            None if origin.delivery_id is None else f"{asking.tenant}/{origin.delivery_id}",
            trace_id_of(origin.trace),
            trace=origin.trace,
            content=content,
        )
        shard = (
            asking.shard_of_service(verb.service)
            if isinstance(verb, Create)
            else asking.shard_of(incident_id)
        )
        try:
            reply = await self._tell(shard, encode(command))
        except NotFound:
            if incident_id:
                await self.must_be_alive(incident_id)
            raise
        if not isinstance(reply, CommandDone):
            raise Broken(f"a shard answered a command with {type(reply).__name__}")
        return reply

    async def must_be_alive(self, incident_id: bytes, field: str = "") -> None:
        """Raises NotFound when there is no such incident, Conflict when it is archived. `field` names who asked for it."""
        prefix = f"{field}: " if field else ""
        found = await self._reads.incident(incident_id)
        if found is None:
            raise NotFound(f"{prefix}there is no incident {UUID(bytes=incident_id)}")
        if found.archived is not None:
            raise Conflict(f"{prefix}incident {UUID(bytes=incident_id)} is archived: it can only be read")

    async def after(self, done: CommandDone) -> IncidentView:
        """The incident as it is after a command, or later. Raises Unavailable."""
        found = await self._reads.incident(done.incident_id)
        if found is None or found.view.incident.version < done.version:
            raise Unavailable("it was done, but the incident can't be read yet: read it again")
        return found.view

    async def settled(self, done: CommandDone, child: bytes) -> tuple[IncidentView, bool]:
        """The incident, and True once `child` has agreed to join or leave it; False if it did not answer within
        CHILD_TIME_S. Raises Conflict with the reason if it refused to join."""
        over_at = asyncio.get_running_loop().time() + CHILD_TIME_S
        while True:
            view = await self.after(done)
            known = view.incident.children.get(child)
            if known is not None and not known.pending:
                return view, True
            if known is None:
                last = next(
                    (line for line in reversed(view.incident.timeline) if _is_about(line, child)), None
                )
                if last is not None and last.kind == MERGE_REFUSED:
                    raise Conflict(last.text)
                return view, True
            if asyncio.get_running_loop().time() >= over_at:
                return view, False
            await asyncio.sleep(PART_POLL_S)

    async def _version_of(self, origin: Origin, incident_id: bytes, versions: Sequence[int]) -> int:
        """The one of several versions that an incident may have; its shard compares again. Raises Stale, but not of a
        request with a name: it may be a repeat, which its own first time made stale, and only the shard knows."""
        if len(versions) == 1:
            return versions[0]
        found = await self._reads.incident(incident_id)
        if found is None or found.archived is not None:
            await self.must_be_alive(incident_id)
        version = -1 if found is None else found.view.incident.version
        if version not in versions:
            if origin.delivery_id is not None and versions:
                return versions[0]
            raise Stale(f"it has version {version}: somebody changed it in the meantime")
        return version


def _is_about(line: TimelineEntry, other: bytes) -> bool:
    return line.details.get("incident") == str(UUID(bytes=other))
