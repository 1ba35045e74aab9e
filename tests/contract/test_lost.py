"""What was lost in a store behind our back is noticed by who reads it: rows of snapshots, of the log, in every adapter."""

from __future__ import annotations

import pytest

from models.partition.checkpoint import Census
from models.ports import EventLog, Mark
from services.upkeep.verifying import check_log
from tests.contract.conftest import Chain, Place

RECORDS = [("i/aa", b"one"), ("k/00000000", b"two"), ("m/00000000", b"three")]


async def with_snapshot(place: Place, chain: Chain) -> EventLog:
    """Two snapshots, the second of which wrote one record anew; all others are counted in it, too."""
    log = place.log()
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next(3))
    census = Census()
    census.add(RECORDS)
    await log.put_records(epoch, 1, RECORDS)
    await log.close_snapshot(epoch, Mark(1, 1, chain.digests[1], 1, census.checksum()))
    census = Census()
    census.add([*RECORDS[:2], ("m/00000000", b"four")])
    await log.put_records(epoch, 2, [("m/00000000", b"four")])
    await log.close_snapshot(epoch, Mark(2, 2, chain.digests[2], 1, census.checksum()))
    await log.release(epoch)
    return log


@pytest.mark.asyncio
async def test_a_snapshot_whose_records_are_all_there_is_whole(place: Place, chain: Chain) -> None:
    check = await check_log(await with_snapshot(place, chain))

    assert (check.damage, check.snapshots, check.records, check.uncounted) == ("", 2, 6, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("key", [key for key, _record in RECORDS])
async def test_a_record_that_is_lost_is_missed(place: Place, chain: Chain, key: str) -> None:
    log = await with_snapshot(place, chain)

    place.lose_record(key)

    check = await check_log(log)
    assert "the snapshot is incomplete: 2 records, 3 were written" in check.damage
