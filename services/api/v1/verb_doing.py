"""A verb done to one incident, from a body that was read to the incident afterwards. Called by the verb's own path
(verb_routes.py) and by its mutation (services/api/graphql/mutations.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.incidents.query import IncidentView
from models.ports import Clock
from services.api.reads import Reads
from services.api.v1.commands import Commands
from services.api.v1.requests import Origin, digest_of
from services.api.v1.verb_bodies import Body, CreateBody, MergeBody, UnmergeBody
from services.api.v1.verb_table import Asked, VerbRoute


@dataclass(frozen=True, slots=True)
class Done:
    """The incident afterwards: the new one, if the verb made another. `changed`: False if nothing needed to change.
    `settled`: False while the other incident's shard has not answered yet."""

    view: IncidentView
    changed: bool = True
    settled: bool = True


class Doing:
    """All verbs of one gateway. What returns is durable. Raises what a shard refuses, Conflict, NotFound, Stale,
    Unavailable."""

    def __init__(self, reads: Reads, commands: Commands, clock: Clock) -> None:
        self._reads = reads
        self._commands = commands
        self._clock = clock

    async def create(self, origin: Origin, body: CreateBody) -> Done:
        """Open an incident by hand."""
        done = await self._commands.do(
            origin,
            b"",
            body.verb(self._clock.now()),
            reason=body.reason,
            content=digest_of("create", b"", body),
        )
        return Done(await self._commands.after(done))

    async def do(
        self,
        verb: VerbRoute,
        origin: Origin,
        incident_id: bytes,
        body: Body,
        versions: Sequence[int] | None = None,
    ) -> Done:
        """Do a verb of the table to an incident, if it has one of `versions` (None: whatever it has)."""
        wanted = body.verb(self._clock.now())
        content = digest_of(verb.name, incident_id, body)
        if verb.prepare is not None:
            asked = Asked(self._reads, self._commands, origin, incident_id, body)
            wanted = await verb.prepare(asked, wanted)
        done = await self._commands.do(
            origin, incident_id, wanted, reason=body.reason, versions=versions, content=content
        )
        if verb.asks_child:
            assert isinstance(body, MergeBody | UnmergeBody)
            view, settled = await self._commands.settled(done, body.incident.bytes)
            return Done(view, done.changed, settled)
        return Done(await self._commands.after(done), done.changed)
