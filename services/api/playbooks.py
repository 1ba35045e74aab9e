"""Applies, pauses, shows and removes playbooks, and shows their runs. Called by /v1/playbooks and /v1/runs.

The control partition decides about playbooks. What returns is durable, and every shard hears of it within a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from actors.control_tail import ControlTail
from models.control.control import ControlMessage
from models.control.playbooks import (
    ApplyPlaybook,
    KeptVersion,
    RemovePlaybook,
    SetPlaybookMode,
    Shelved,
)
from models.control.shelf import Shelf
from models.errors import NotFound, Unavailable
from models.incidents.query import GetRuns, ListRepairs, ListRuns, RepairPage, RunPage, RunView, TaskView
from models.incidents.run_views import archived_runs
from models.playbook.playbook import Playbook, decode, encode
from models.playbook.repaired import Repaired
from services.api.reads import Reads


@dataclass(frozen=True, slots=True)
class Applied:
    """A playbook as it is now, whether that is news, and what is odd about it."""

    shelved: Shelved
    changed: bool
    warnings: tuple[str, ...]


class PlaybookDesk:
    """`tell` sends a message to the control partition's writer and returns when it is durable; `tail` shows the result. Raises
    Malformed, TooLarge, Conflict, NotFound, Unavailable."""

    def __init__(self, tail: ControlTail, tell: Callable[[ControlMessage], Awaitable[None]]) -> None:
        self._tail = tail
        self._tell = tell

    @property
    def _shelf(self) -> Shelf:
        return self._tail.state.of(Shelf)

    async def all(self) -> list[Shelved]:
        await self._tail.catch_up()
        return [*self._shelf.shown()]

    async def find(self, name: str) -> Shelved:
        await self._tail.catch_up()
        return self._shelf.find(name)

    async def apply(self, source: str, file: str, actor: str, mode: str = "") -> Applied:
        """Read a playbook and make it the current version of its name. The same again changes nothing."""
        # In a thread: the largest one takes longer than an alert should wait.
        book, warnings = await asyncio.to_thread(_read, source, file)
        await self._tail.catch_up()
        before = self._shelf.all.get(book.name)
        message = ApplyPlaybook(book.name, book.version, book.digest, encode(book), source, actor, mode)
        await self._tell(message)
        await self._tail.follow()
        after = self._shelf.all.get(book.name)
        if after is None:
            raise Unavailable("the playbook was stored, but can't be read yet: list the playbooks")
        return Applied(after, after != before, warnings)

    async def set_mode(self, name: str, mode: str, actor: str) -> Shelved:
        """Pause it, make it a shadow or active. Safe to repeat."""
        await self._tell(SetPlaybookMode(name, mode, actor))
        return await self.find(name)

    async def remove(self, name: str, actor: str) -> None:
        """It is chosen no more. Safe to repeat."""
        await self._tell(RemovePlaybook(name, actor))
        await self._tail.follow()


def _read(source: str, file: str) -> tuple[Playbook, tuple[str, ...]]:
    # YAML and templates are only read when somebody applies a playbook.
    from models.playbook.reading import read
    from services.playbooks.table import all_specs

    found = read(source, file, all_specs())
    return found.playbook, found.warnings


def book_of(kept: KeptVersion) -> Playbook:
    """What a version says."""
    return decode(kept.body)


class RunReads:
    """Runs, from the shards, and of archived incidents from the archive."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def of_incident(self, incident_id: bytes) -> list[RunView] | None:
        """In the order in which they began; None when there is no such incident."""
        found = await self._reads.incident(incident_id)
        if found is None:
            return None
        incident = found.view.incident
        if found.archived is not None:
            return archived_runs(incident.runs, incident.service, incident.title)
        asking = self._reads.asking
        query = GetRuns(asking.tenant, incident_id)
        return (await asking.one(asking.shard_of(incident_id), query, RunPage)).items

    async def find(self, run: bytes, whole: bool = False) -> RunView:
        """One run. Raises NotFound, also for one of an archived incident, which is shown with its incident."""
        asking = self._reads.asking
        page = await asking.one(asking.shard_of(run), GetRuns(asking.tenant, run=run, whole=whole), RunPage)
        if not page.items:
            raise NotFound(
                f"there is no run {UUID(bytes=run)} (runs of archived incidents are shown with their incident)"
            )
        return page.items[0]

    async def page(
        self, limit: int, before: bytes = b"", active: bool | None = None, playbook: str = ""
    ) -> tuple[list[RunView], bytes | None]:
        """The newest runs of all shards, and where the next page begins."""
        asking = self._reads.asking
        shards = [*range(asking.shards)]
        query = ListRuns(asking.tenant, limit, before, active, playbook)
        pages = await asking.each(shards, [query] * len(shards), RunPage)
        found = sorted(
            (each for page in pages for each in page.items), key=lambda each: each.run.id, reverse=True
        )
        more = len(found) > limit or any(page.next_before is not None for page in pages)
        found = found[:limit]
        return found, found[-1].run.id if found and more else None

    async def repairs(self) -> tuple[list[Repaired], list[TaskView]]:
        """What came of the repairs of each version of a playbook in all shards, by name; and the tasks, the one due first at the
        beginning."""
        asking = self._reads.asking
        shards = [*range(asking.shards)]
        pages = await asking.each(shards, [ListRepairs(asking.tenant)] * len(shards), RepairPage)
        found: dict[bytes, Repaired] = {}
        for each in (each for page in pages for each in page.items):
            found[each.id] = each if each.id not in found else found[each.id].plus(each)
        tasks = [each for page in pages for each in page.tasks]
        return (
            sorted(found.values(), key=lambda each: (each.playbook, each.version)),
            sorted(tasks, key=lambda each: (each.due_at, each.incident_id)),
        )
