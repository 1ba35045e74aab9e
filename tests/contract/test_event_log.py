"""What every EventLog promises (models/ports.py), run against each adapter."""

from __future__ import annotations

import asyncio

import pytest

from models.errors import Damaged, Fenced, NotOwner, OutcomeUnknown, Unavailable
from models.partition.frames import NO_DIGEST
from models.ports import EventLog, Mark
from models.shard.assembly import ASSEMBLY
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.contract.conftest import PARTITION, Chain, Place


async def opened(place: Place, owner: str = "a", now: float = 0.0) -> tuple[EventLog, int]:
    log = place.log()
    return log, (await log.open(owner, now, 10.0)).epoch


async def filled(place: Place, chain: Chain, *sizes: int) -> tuple[EventLog, int]:
    """A log opened by "a" with one append of each number of frames."""
    log, epoch = await opened(place)
    for size in sizes:
        await log.append(epoch, chain.seq + 1, chain.next(size))
    return log, epoch


def mark(chain: Chain, generation: int, seq: int) -> Mark:
    return Mark(generation, seq, chain.digests[seq], 1, b"sum")


async def snapshot(log: EventLog, generation: int) -> dict[str, bytes]:
    return {key: body async for page in log.records(generation) for key, body in page}


# --- frames ---


@pytest.mark.asyncio
async def test_frames_come_back_in_the_order_they_were_appended(place: Place, chain: Chain) -> None:
    log, _epoch = await filled(place, chain, 1, 3, 2)

    found = await log.read(0)

    assert found == [(seq, chain.frames[seq]) for seq in range(1, 7)]
    assert await log.last_seq() == 6


@pytest.mark.asyncio
@pytest.mark.parametrize("after", range(8))
async def test_a_read_begins_behind_the_seq_it_names_even_within_an_append(
    place: Place, chain: Chain, after: int
) -> None:
    log, _epoch = await filled(place, chain, 1, 3, 2)

    assert [seq for seq, _frame in await log.read(after)] == list(range(after + 1, 7))


@pytest.mark.asyncio
@pytest.mark.parametrize("limit_bytes", [1, 120, 130, 1000])
async def test_pages_hold_at_least_one_frame_and_join_without_gaps(
    place: Place, chain: Chain, limit_bytes: int
) -> None:
    log, _epoch = await filled(place, chain, 1, 3, 2)

    seqs: list[int] = []
    while page := await log.read(seqs[-1] if seqs else 0, limit_bytes):
        assert len(page) == 1 or sum(len(frame) for _seq, frame in page) <= limit_bytes
        seqs += [seq for seq, _frame in page]

    assert seqs == [1, 2, 3, 4, 5, 6]


@pytest.mark.asyncio
async def test_an_empty_log_reads_as_nothing_before_and_after_it_is_opened(place: Place) -> None:
    log = place.log()

    before = (await log.read(0), await log.last_seq(), await log.marks())
    opening = await log.open("a", 0.0, 10.0)

    assert before == ([], 0, [])
    assert (opening.first_seq, opening.last_seq, opening.anchor, opening.cut) == (0, 0, NO_DIGEST, None)
    assert opening.last_digest == NO_DIGEST
    assert await log.read(0) == []


@pytest.mark.asyncio
async def test_reopening_finds_the_place_where_the_log_ended(place: Place, chain: Chain) -> None:
    first, _epoch = await filled(place, chain, 2, 3)
    await first.close()

    again = await place.log().open("a", 1.0, 10.0)

    assert (again.epoch, again.first_seq, again.last_seq, again.cut) == (2, 1, 5, None)
    assert again.last_digest == chain.digests[5]


@pytest.mark.asyncio
async def test_a_reader_beside_the_writer_sees_each_append_once_it_returned(
    place: Place, chain: Chain
) -> None:
    log, epoch = await filled(place, chain, 1)
    reader = place.log()

    before = await reader.read(0)
    await log.append(epoch, 2, chain.next(2))
    after = await reader.read(1)

    assert [seq for seq, _frame in before] == [1]
    assert [seq for seq, _frame in after] == [2, 3]
    assert ASSEMBLY.frames.decode("p", after[0][1], 2, chain.digests[1]).seq == 2


@pytest.mark.asyncio
async def test_partitions_do_not_see_each_other(place: Place, chain: Chain) -> None:
    await filled(place, chain, 2)

    for other in ("shard/0008", "control", "shard-0007", "correlator/a/b", "correlator/a-b"):
        log = place.log(other)
        assert (await log.open("a", 0.0, 10.0)).last_seq == 0
        await log.append(1, 1, Chain().next())


@pytest.mark.asyncio
async def test_an_append_of_nothing_is_refused(place: Place) -> None:
    log, epoch = await opened(place)

    with pytest.raises(ValueError):
        await log.append(epoch, 1, [])


@pytest.mark.asyncio
async def test_appends_given_at_once_are_kept_in_order(place: Place, chain: Chain) -> None:
    log, epoch = await opened(place)

    await asyncio.gather(*(log.append(epoch, seq, chain.next()) for seq in range(1, 11)))

    assert [seq for seq, _frame in await log.read(0)] == list(range(1, 11))


@pytest.mark.asyncio
async def test_a_closed_log_is_unavailable_and_closing_twice_is_safe(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1)
    await log.close()
    await log.close()

    with pytest.raises(Unavailable):
        await log.append(epoch, 2, chain.next())


# --- who may write ---


@pytest.mark.asyncio
async def test_each_open_takes_the_next_epoch_and_fences_the_one_before(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1)
    _newer, newer_epoch = await opened(place)

    assert newer_epoch == epoch + 1
    with pytest.raises(Fenced):
        await log.append(epoch, 2, chain.next())
    assert await log.last_seq() == 1


@pytest.mark.asyncio
async def test_every_write_of_an_old_epoch_is_fenced(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1)
    await opened(place)

    for write in (
        log.renew(epoch, 99.0),
        log.put_records(epoch, 1, [("k", b"v")]),
        log.close_snapshot(epoch, mark(chain, 1, 1)),
        log.truncate(epoch, 0),
    ):
        with pytest.raises(Fenced):
            await write
    await log.release(epoch)


@pytest.mark.asyncio
@pytest.mark.parametrize("first_seq", [1, 2, 4])
async def test_an_append_that_repeats_or_skips_is_fenced(place: Place, chain: Chain, first_seq: int) -> None:
    log, epoch = await filled(place, chain, 2)

    with pytest.raises(Fenced):
        await log.append(epoch, first_seq, chain.next())
    assert await log.last_seq() == 2


@pytest.mark.asyncio
async def test_another_owner_waits_for_the_lease_and_is_told_who_holds_it(place: Place) -> None:
    await opened(place, "a", now=0.0)

    with pytest.raises(NotOwner) as refusal:
        await place.log().open("b", 9.0, 10.0)

    assert refusal.value.owner == "a"
    assert (await place.log().open("b", 10.0, 10.0)).epoch == 2


@pytest.mark.asyncio
async def test_a_renewed_lease_holds_longer(place: Place) -> None:
    log, epoch = await opened(place, "a", now=0.0)

    await log.renew(epoch, 30.0)

    with pytest.raises(NotOwner):
        await place.log().open("b", 20.0, 10.0)


@pytest.mark.asyncio
async def test_a_released_lease_is_free_at_once_and_releasing_again_takes_nothing(place: Place) -> None:
    log, epoch = await opened(place, "a", now=0.0)

    await log.release(epoch)
    await place.log().open("b", 1.0, 10.0)
    await log.release(epoch)

    with pytest.raises(NotOwner):
        await place.log().open("c", 2.0, 10.0)


@pytest.mark.asyncio
async def test_a_refused_open_does_not_fence_the_owner(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1)

    with pytest.raises(NotOwner):
        await place.log().open("b", 1.0, 10.0)

    await log.append(epoch, 2, chain.next())


# --- damage ---


@pytest.mark.asyncio
@pytest.mark.parametrize("torn_seq", [3, 4, 5])
async def test_a_torn_tail_is_cut_told_and_written_over(place: Place, chain: Chain, torn_seq: int) -> None:
    await filled(place, chain, 2, 3)
    place.damage_frame(torn_seq)

    log = place.log()
    opening = await log.open("a", 1.0, 10.0)
    chain.back_to(2)
    await log.append(opening.epoch, 3, chain.next())

    assert opening.cut is not None and "3 to 5" in opening.cut
    assert (opening.last_seq, opening.last_digest) == (2, chain.digests[2])
    assert [frame for _seq, frame in await log.read(0)] == [chain.frames[seq] for seq in (1, 2, 3)]


@pytest.mark.asyncio
async def test_a_log_of_one_torn_append_opens_empty(place: Place, chain: Chain) -> None:
    await filled(place, chain, 1)
    place.damage_frame(1)

    opening = await place.log().open("a", 1.0, 10.0)

    assert (opening.first_seq, opening.last_seq, opening.last_digest) == (0, 0, NO_DIGEST)


@pytest.mark.asyncio
async def test_a_reader_stops_before_a_torn_tail(place: Place, chain: Chain) -> None:
    await filled(place, chain, 2, 1)
    place.damage_frame(3)

    assert [seq for seq, _frame in await place.log().read(0)] == [1, 2]


@pytest.mark.asyncio
async def test_damage_before_the_last_append_is_told_with_its_place(place: Place, chain: Chain) -> None:
    await filled(place, chain, 2, 2, 1)
    place.damage_frame(2)

    log = place.log()
    await log.open("a", 1.0, 10.0)

    with pytest.raises(Damaged) as damage:
        await log.read(0)
    assert (damage.value.partition, damage.value.seq) == ("shard/0007", 2)


@pytest.mark.asyncio
async def test_two_damaged_appends_at_the_end_are_no_torn_tail(place: Place, chain: Chain) -> None:
    await filled(place, chain, 2, 1, 1)
    place.damage_frame(3)
    place.damage_frame(4)

    for _attempt in range(2):
        with pytest.raises(Damaged):
            await place.log().open("a", 1.0, 10.0)


@pytest.mark.asyncio
async def test_a_last_append_that_a_snapshot_covers_is_no_torn_tail(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 2)
    await log.close_snapshot(epoch, mark(chain, 1, 2))
    place.damage_frame(2)

    with pytest.raises(Damaged):
        await place.log().open("a", 1.0, 10.0)


@pytest.mark.asyncio
async def test_a_writer_is_told_when_its_own_last_append_went_bad(place: Place, chain: Chain) -> None:
    log, _epoch = await filled(place, chain, 2)
    place.damage_frame(2)

    with pytest.raises(Damaged):
        await log.read(0)


@pytest.mark.asyncio
async def test_a_frame_that_does_not_follow_the_one_before_is_damage(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 2)
    chain.digests[2] = b"another history!"
    await log.append(epoch, 3, chain.next())
    await log.append(epoch, 4, chain.next())

    for after in (0, 2):
        with pytest.raises(Damaged, match="chain"):
            await place.log().read(after)


@pytest.mark.asyncio
@pytest.mark.parametrize("lost", [[3], [2, 3], [1, 2, 3]])
async def test_a_log_that_lost_its_last_appends_is_damaged_for_its_readers_and_its_next_writer(
    place: Place, chain: Chain, lost: list[int]
) -> None:
    log, epoch = await filled(place, chain, 1, 1, 1)
    await log.release(epoch)

    for first_seq in lost:
        place.lose_append(first_seq)

    after = lost[0] - 1
    missing = f"frames {lost[0]} to 3 are missing"
    assert [seq for seq, _frame in await log.read(0)] == list(range(1, lost[0])) if after else True
    with pytest.raises(Damaged, match=missing):
        await log.read(after)
    with pytest.raises(Damaged, match=missing):
        await place.log().open("b", 1.0, 10.0)
    assert await log.last_seq() == 3


# --- snapshots ---


@pytest.mark.asyncio
async def test_a_snapshot_counts_only_when_its_mark_is_closed(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1)
    await log.put_records(epoch, 1, [("b", b"1"), ("a", b"1")])

    before = await place.log().marks()
    await log.close_snapshot(epoch, mark(chain, 1, 1))

    assert before == []
    assert await place.log().marks() == [mark(chain, 1, 1)]
    assert [page async for page in place.log().records(1)] == [[("a", b"1"), ("b", b"1")]]


@pytest.mark.asyncio
async def test_two_snapshots_are_kept_and_each_is_complete(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 5)
    await log.put_records(epoch, 1, [("a", b"a1"), ("b", b"b1"), ("c", b"c1")])
    await log.close_snapshot(epoch, mark(chain, 1, 1))
    await log.put_records(epoch, 2, [("a", b"a2"), ("b", None)])
    await log.close_snapshot(epoch, mark(chain, 2, 2))
    await log.put_records(epoch, 3, [("a", b"a3"), ("c", None), ("d", b"d3")])
    await log.close_snapshot(epoch, mark(chain, 3, 3))
    await log.put_records(epoch, 4, [("a", b"a4"), ("c", b"c4")])

    assert await log.marks() == [mark(chain, 3, 3), mark(chain, 2, 2)]
    assert await snapshot(log, 3) == {"a": b"a3", "d": b"d3"}
    assert await snapshot(log, 2) == {"a": b"a2", "c": b"c1"}


@pytest.mark.asyncio
async def test_records_of_a_snapshot_that_is_not_kept_are_unavailable(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 5)
    for generation in (1, 2, 3):
        await log.put_records(epoch, generation, [("a", b"x")])
        await log.close_snapshot(epoch, mark(chain, generation, generation))

    for generation in (1, 4):
        with pytest.raises(Unavailable):
            await snapshot(log, generation)


@pytest.mark.asyncio
async def test_what_neither_snapshot_needs_is_forgotten(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1)
    for generation in range(1, 30):
        await log.put_records(epoch, generation, [("a", b"x" * 100), (f"gone-{generation}", b"y" * 100)])
        await log.put_records(epoch, generation, [(f"gone-{generation - 1}", None)])
        await log.close_snapshot(epoch, mark(chain, generation, 1))

    assert (await log.stats())["record_bytes"] <= 600


@pytest.mark.asyncio
async def test_a_key_written_again_in_one_generation_holds_the_later_record(
    place: Place, chain: Chain
) -> None:
    log, epoch = await filled(place, chain, 1)
    await log.put_records(epoch, 1, [("a", b"1"), ("b", b"1"), ("a", b"2")])
    await log.put_records(epoch, 1, [("b", None)])
    await log.close_snapshot(epoch, mark(chain, 1, 1))

    assert await snapshot(log, 1) == {"a": b"2"}


@pytest.mark.asyncio
async def test_records_left_by_a_crash_before_the_mark_are_forgotten_at_open(
    place: Place, chain: Chain
) -> None:
    log, epoch = await filled(place, chain, 1)
    await log.put_records(epoch, 1, [("a", b"1")])
    await log.close_snapshot(epoch, mark(chain, 1, 1))
    await log.put_records(epoch, 2, [("a", b"lost"), ("b", b"lost")])

    again, epoch = await opened(place)
    await again.put_records(epoch, 2, [("c", b"2")])
    await again.close_snapshot(epoch, mark(chain, 2, 1))

    assert await snapshot(again, 2) == {"a": b"1", "c": b"2"}


@pytest.mark.asyncio
async def test_a_closed_generation_can_not_be_written_again(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1)
    await log.close_snapshot(epoch, mark(chain, 1, 1))

    with pytest.raises(ValueError):
        await log.put_records(epoch, 1, [("a", b"1")])
    with pytest.raises(ValueError):
        await log.close_snapshot(epoch, mark(chain, 1, 1))


@pytest.mark.asyncio
async def test_a_mark_past_the_end_of_the_log_is_refused(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1)

    with pytest.raises(ValueError):
        await log.close_snapshot(epoch, Mark(1, 2, NO_DIGEST, 1, b""))


@pytest.mark.asyncio
async def test_many_records_come_in_pages_ordered_by_key(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1)
    records = {f"k{number * 7919 % 3000:04d}": b"v" * 2500 for number in range(3000)}
    await log.put_records(epoch, 1, list(records.items()))
    await log.close_snapshot(epoch, mark(chain, 1, 1))

    pages = [page async for page in log.records(1)]

    assert len(pages) > 1
    assert [item for page in pages for item in page] == sorted(records.items())


@pytest.mark.asyncio
async def test_a_damaged_record_fails_its_snapshot_and_the_one_before_is_whole(
    place: Place, chain: Chain
) -> None:
    log, epoch = await filled(place, chain, 3)
    await log.put_records(epoch, 1, [("a", b"1"), ("b", b"1")])
    await log.close_snapshot(epoch, mark(chain, 1, 1))
    await log.put_records(epoch, 2, [("a", b"2")])
    await log.close_snapshot(epoch, mark(chain, 2, 2))
    place.damage_record("a", 2)

    with pytest.raises(Damaged, match="'a'"):
        await snapshot(log, 2)
    assert await snapshot(log, (await log.marks())[1].generation) == {"a": b"1", "b": b"1"}
    assert [seq for seq, _frame in await log.read((await log.marks())[1].seq)] == [2, 3]


# --- truncation ---


@pytest.mark.asyncio
async def test_truncation_drops_whole_appends_and_leaves_the_anchor(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 2, 3, 2)
    await log.close_snapshot(epoch, mark(chain, 1, 4))
    await log.close_snapshot(epoch, mark(chain, 2, 6))

    await log.truncate(epoch, 4)

    again = await place.log().open("a", 1.0, 10.0)
    assert (again.first_seq, again.last_seq, again.anchor) == (3, 7, chain.digests[2])
    assert [seq for seq, _frame in await place.log().read(0)] == [3, 4, 5, 6, 7]


@pytest.mark.asyncio
async def test_truncation_never_passes_the_older_of_two_snapshots(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1, 1, 1)

    with pytest.raises(ValueError):
        await log.truncate(epoch, 1)
    await log.close_snapshot(epoch, mark(chain, 1, 1))
    with pytest.raises(ValueError):
        await log.truncate(epoch, 1)
    await log.close_snapshot(epoch, mark(chain, 2, 3))
    with pytest.raises(ValueError):
        await log.truncate(epoch, 2)

    await log.truncate(epoch, 1)
    assert [seq for seq, _frame in await log.read(0)] == [2, 3]


@pytest.mark.asyncio
async def test_a_log_truncated_to_nothing_goes_on_where_it_ended(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 1, 1)
    await log.close_snapshot(epoch, mark(chain, 1, 2))
    await log.close_snapshot(epoch, mark(chain, 2, 2))
    await log.truncate(epoch, 2)

    again = place.log()
    opening = await again.open("a", 1.0, 10.0)
    await again.append(opening.epoch, 3, chain.next())

    assert (opening.last_seq, opening.last_digest, opening.anchor) == (2, chain.digests[2], chain.digests[2])
    assert [seq for seq, _frame in await again.read(0)] == [3]


@pytest.mark.asyncio
async def test_truncation_of_many_appends_is_complete(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, *[1] * 450)
    await log.close_snapshot(epoch, mark(chain, 1, 449))
    await log.close_snapshot(epoch, mark(chain, 2, 450))

    await log.truncate(epoch, 449)

    assert [seq for seq, _frame in await log.read(0)] == [450]


@pytest.mark.asyncio
async def test_stats_count_what_is_there(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 2, 3)
    await log.put_records(epoch, 1, [("a", b"12345")])

    stats = await log.stats()

    assert (stats["first_seq"], stats["last_seq"], stats["frames"], stats["epoch"]) == (1, 5, 5, 1)
    assert stats["log_bytes"] == sum(map(len, chain.frames.values()))
    assert stats["record_bytes"] == 5
    assert stats["disk_bytes"] > 0


# --- the memory adapter's faults, which the simulation builds on ---


class BreakingFaults:
    """Raises at one point, once."""

    def __init__(self, point: str, error: Exception) -> None:
        self.point = point
        self.error: Exception | None = error

    async def before(self, operation: str) -> None:
        self._reach(f"before {operation}")

    async def after(self, operation: str) -> None:
        self._reach(f"after {operation}")

    def _reach(self, point: str) -> None:
        if point == self.point and (error := self.error) is not None:
            self.error = None
            raise error


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("point", "error", "kept"),
    [("before log.append", Unavailable("away"), 1), ("after log.append", OutcomeUnknown("who knows"), 2)],
)
async def test_a_fault_before_an_append_keeps_nothing_and_one_after_it_keeps_all(
    chain: Chain, point: str, error: Exception, kept: int
) -> None:
    store = MemoryStore()
    await MemoryEventLog(store, PARTITION).open("a", 0.0, 10.0)
    await MemoryEventLog(store, PARTITION).append(1, 1, chain.next())

    with pytest.raises(type(error)):
        await MemoryEventLog(store, PARTITION, BreakingFaults(point, error)).append(1, 2, chain.next())

    assert (await MemoryEventLog(store, PARTITION).open("a", 1.0, 10.0)).last_seq == kept


# --- a copy of another log ---


@pytest.mark.asyncio
async def test_a_seeded_log_goes_on_where_the_other_one_was_cut(place: Place, chain: Chain) -> None:
    chain.next(40)
    log, epoch = await opened(place)

    epoch = await log.seed(epoch, 40, chain.digests[40], epoch_before=17)
    again = await log.seed(epoch, 40, chain.digests[40], epoch_before=17)
    await log.append(epoch, 41, chain.next(2))
    await log.put_records(epoch, 9, [("key", b"body")])
    await log.close_snapshot(epoch, Mark(9, 41, chain.digests[41], 1, b"sum"))
    await log.append(epoch, 43, chain.next(1))
    await log.close()
    other = place.log()
    reopened = await other.open("b", 100.0, 10.0)

    assert epoch == again == 17
    assert (reopened.epoch, reopened.first_seq, reopened.last_seq) == (18, 41, 43)
    assert (reopened.anchor, reopened.last_digest) == (chain.digests[40], chain.digests[43])
    assert await other.read(0) == [(seq, chain.frames[seq]) for seq in (41, 42, 43)]
    assert await snapshot(other, 9) == {"key": b"body"}


@pytest.mark.asyncio
async def test_a_log_that_has_frames_or_a_snapshot_is_not_seeded(place: Place, chain: Chain) -> None:
    log, epoch = await filled(place, chain, 2)

    with pytest.raises(ValueError, match="there is a log already"):
        await log.seed(epoch, 40, b"d" * 32, 17)

    assert await log.last_seq() == 2
    with pytest.raises(Fenced):
        await log.seed(epoch + 1, 40, b"d" * 32, 17)


@pytest.mark.asyncio
async def test_an_epoch_before_a_seed_writes_no_more(place: Place, chain: Chain) -> None:
    log, epoch = await opened(place)
    await log.seed(epoch, 0, NO_DIGEST, epoch_before=epoch + 5)

    with pytest.raises(Fenced):
        await log.append(epoch, 1, chain.next(1))


@pytest.mark.asyncio
async def test_a_seeded_log_without_frames_ends_where_the_other_one_did(place: Place, chain: Chain) -> None:
    chain.next(40)
    log, epoch = await opened(place)
    epoch = await log.seed(epoch, 40, chain.digests[40], 1)
    await log.put_records(epoch, 9, [("key", b"body")])
    await log.close_snapshot(epoch, Mark(9, 40, chain.digests[40], 1, b"sum"))

    again = await place.log().open("a", 1.0, 10.0)

    assert (again.first_seq, again.last_seq, again.last_digest) == (0, 40, chain.digests[40])
    assert await log.read(0) == []
