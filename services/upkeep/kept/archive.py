"""The archive of closed incidents. Backups have it by days: one that counts as it did in the latest backup is taken over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from models.backup import Day, File, Part, before, day_of
from models.errors import Broken, Conflict
from models.incidents.incident import Incident
from models.partition.sharding import SlotMap, partition_name, slot_of_id
from models.partitions import ARCHIVE
from models.ports import Archive, ArchivedIncident
from services.stores.choice import Stores
from services.upkeep.backup import packing
from services.upkeep.backup.target import Target
from services.upkeep.kept.port import KeptPort, Progress, Upto

#: Bytes read at once for a backup: some milliseconds of a server's time.
READ_BYTES = 1024 * 1024
_FIRST, _END = b"\x00" * 16, b"\xff" * 17

_incident_decoder = msgspec.msgpack.Decoder(Incident)


class KeptArchive(KeptPort[Archive, ArchivedIncident]):
    name = ARCHIVE
    counted, items = "archived", "archived incidents"
    decoder = msgspec.msgpack.Decoder(list[ArchivedIncident])

    def open(self, stores: Stores, partition: str) -> Archive:
        return stores.archive(partition)

    async def pages(self, port: Archive) -> AsyncIterator[list[ArchivedIncident]]:
        after = b""
        while page := await port.read(after):
            yield page
            after = page[-1].incident_id

    async def put(self, port: Archive, items: Sequence[ArchivedIncident]) -> None:
        await port.put(items)

    async def count(self, port: Archive) -> int:
        return await port.count()

    async def copy(
        self, pages: AsyncIterator[list[ArchivedIncident]], there: Archive, step: Callable[[int], None]
    ) -> int:
        copied, looked_at, newest = 0, 0, 0.0
        async for page in pages:
            looked_at += len(page)
            step(looked_at)
            newest = max(newest, expected := max(each.updated_at for each in page))
            known = await there.tally(page[0].incident_id, page[-1].incident_id + b"\x00")
            if known != (len(page), expected):
                await there.put(page)
                copied += len(page)
        found = await there.tally(_FIRST, _END)
        if found != (looked_at, newest):
            raise Conflict(f"{looked_at:,} archived incidents, the target has {found[0]:,}")
        return copied

    def size_of(self, item: ArchivedIncident) -> int:
        return len(item.record) + len(item.alerts)

    def files_in(self, part: Part) -> list[File]:
        return [file for day in part.archive for file in day.files]

    async def back_up(
        self,
        port: Archive,
        target: Target,
        known: dict[str, int],
        part: Part,
        latest: Part | None,
        progress: Progress,
    ) -> Part:
        before_it = {} if latest is None else {day.first: day for day in latest.archive}
        days: list[Day] = []
        after = b""
        while ahead := await port.read(after, 1):
            first, end = day_of(ahead[0].incident_id)
            count, newest = await port.tally(first, end)
            day = before_it.get(first)
            if day is None or (day.count, day.newest) != (count, newest):
                progress(f"{part.name}: archive, {count} incidents of a day")
                pages = _of_a_day(port, before(first), end)
                day = Day(first, end, count, newest, await self.pack_pages(pages, target, known))
            days.append(day)
            after = before(end)
        return msgspec.structs.replace(part, archive=days)

    def was_there(self, item: ArchivedIncident, upto: Upto) -> bool:
        # One that was archived later is in its shard still, and is archived anew.
        return item.updated_at <= upto.end

    async def check_files(self, target: Target, part: Part) -> int:
        archived = 0
        for day in part.archive:
            for file in day.files:
                found = await packing.items(target, file, self.decoder.decode)
                if any(not day.first <= each.incident_id < day.end for each in found):
                    raise Broken(f"file files/{file.digest} holds incidents of another day")
                archived += len(found)
        return archived

    async def verify(
        self, port: Archive, partition: str, slots: SlotMap | None, told: Callable[[str], bool]
    ) -> int:
        looked_at = 0
        async for page in self.pages(port):
            looked_at += len(page)
            for each in page:
                why = _wrong_about(each, slots, partition)
                if why and not told(f"archived incident {each.incident_id.hex()}: {why}"):
                    return looked_at
        return looked_at

    def slot_of(self, item: ArchivedIncident) -> int:
        return slot_of_id(item.incident_id)

    async def remove(self, port: Archive, items: Sequence[ArchivedIncident]) -> None:
        await port.remove([each.incident_id for each in items])


async def _of_a_day(port: Archive, after: bytes, end: bytes) -> AsyncIterator[list[ArchivedIncident]]:
    while page := await port.read(after, READ_BYTES):
        wanted = [each for each in page if each.incident_id < end]
        if wanted:
            yield wanted
        if len(wanted) < len(page):
            return
        after = page[-1].incident_id


def _wrong_about(archived: ArchivedIncident, slots: SlotMap | None, partition: str) -> str:
    identity = archived.incident_id
    try:
        found = _incident_decoder.decode(archived.record).id
    except msgspec.MsgspecError as error:
        return f"can't be read: {error}"
    if found != identity:
        return f"its record is of {found.hex()}"
    if slots is not None and partition_name(slots.owners[slot_of_id(identity)]) != partition:
        return f"its slot {slot_of_id(identity)} belongs to another partition"
    return ""
