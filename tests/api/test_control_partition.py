"""The control partition as a machine: snapshots, and followers that begin at one and take some sections only."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence

import pytest

from actors.control import ControlActor
from actors.control_tail import ControlTail
from actors.folding import fold_control
from actors.runtime.host import Host
from actors.runtime.local import LocalCluster
from actors.snapshots import Pace
from models.control.assembly import SECTIONS
from models.control.changed_settings import ChangedSettings
from models.control.control import CONTROL, ControlState, encode_message
from models.control.events import SettingsChanged, SlotsAssigned
from models.control.issuing import CreateToken, IssuedTokens, RevokeToken
from models.errors import Conflict, Unavailable
from models.partition.frames import NO_DIGEST, encode_frame
from models.partition.sharding import SlotMap
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.api.gateway_in_process import SettableClock

#: A snapshot behind every second frame.
OFTEN = Pace(every_frames=2, every_events=1 << 30, every_bytes=1 << 30, every_s=1e9)


class Control:
    """A control actor over a store in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.log = MemoryEventLog(store, CONTROL)
        host = Host("control-a", LocalCluster(), pytest.fail)
        self.actor = ControlActor(host, self.log, SettableClock(), 2, pace=OFTEN)

    async def __aenter__(self) -> Control:
        await self.actor.start()
        await until(lambda: self.actor._ready)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.actor.stop()

    async def make(self, *numbers: int) -> None:
        for number in numbers:
            await self.tell(
                CreateToken(token_id(number), f"t{number}", ["admin"], b"d%d" % number, 0.0, "me")
            )

    async def tell(self, message: CreateToken | RevokeToken | SettingsChanged) -> None:
        await self.actor.change(encode_message(message))

    async def snapshot(self) -> None:
        """Wait until the log begins behind a snapshot."""
        async with asyncio.timeout(5):
            while len(await self.log.marks()) < 2 or (await self.log.stats())["first_seq"] <= 1:
                await asyncio.sleep(0.01)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


def token_id(number: int) -> str:
    return f"{number:012x}"


def known(state: ControlState) -> dict[str, object]:
    """All that the sections know, by section and field."""
    return {
        f"{kind.name}.{field}": value
        for kind in SECTIONS
        for field, value in vars(state.of(kind)).items()
        if field != "_touch"
    }


def tail(store: MemoryStore, *sections: type) -> ControlTail:
    return ControlTail(MemoryEventLog(store, CONTROL), None, sections or SECTIONS)


@pytest.mark.asyncio
async def test_a_recovery_from_a_snapshot_knows_what_the_whole_log_said() -> None:
    store = MemoryStore()
    async with Control(store) as control:
        await control.make(*range(1, 8))
        await control.tell(RevokeToken(token_id(3), "me"))
        await control.tell(SettingsChanged("one", "me", {"a": "b"}, "{}", b"s", b"c", "INFO"))
        await control.snapshot()
        live = known(control.actor.state)

    assert known(await fold_control(MemoryEventLog(store, CONTROL))) == live
    async with Control(store) as again:
        assert known(again.actor.state) == live
        with pytest.raises(Conflict):
            await again.make(3)  # a revoked one is not made again
        await again.make(1)  # a repeat
        assert known(again.actor.state) == live


@pytest.mark.asyncio
async def test_a_follower_begins_at_the_newest_snapshot_and_one_that_fell_behind_begins_anew() -> None:
    store = MemoryStore()
    async with Control(store) as control:
        await control.make(1)
        early, late = tail(store), tail(store)
        await early.follow()
        await control.make(*range(2, 9))
        await control.snapshot()
        await early.follow()
        await late.follow()
        live = known(control.actor.state)

        assert known(early.state) == known(late.state) == live
        await control.make(20)
        assert await early.follow() and token_id(20) in early.state.tokens
        assert not await early.follow()


@pytest.mark.asyncio
async def test_a_follower_that_can_t_read_what_came_after_the_snapshot_knows_nothing_yet() -> None:
    """What came after it may revoke a token, or make a silence: nobody may use the snapshot alone."""
    store = MemoryStore()
    async with Control(store) as control:
        await control.make(*range(1, 8))
        await control.snapshot()
        await control.tell(RevokeToken(token_id(3), "me"))
        late = tail(store)
        read = late._event_log.read

        async def fails(*_given: object) -> None:
            raise Unavailable("away")

        late._event_log.read = fails  # type: ignore[method-assign, assignment]
        with pytest.raises(Unavailable):
            await late.follow()
        assert late.state.slots is None and not late.state.tokens

        late._event_log.read = read  # type: ignore[method-assign]
        assert await late.follow()
        assert known(late.state) == known(control.actor.state)


@pytest.mark.asyncio
async def test_a_follower_of_some_sections_knows_these_and_no_others() -> None:
    store = MemoryStore()
    async with Control(store) as control:
        await control.make(1, 2, 3)
        changed = SettingsChanged("one", "me", {}, "{}", b"", b"", "INFO")
        await control.tell(changed)
        fresh = tail(store, ChangedSettings)
        await fresh.follow()
        await control.make(4, 5)
        await control.snapshot()
        after = tail(store, ChangedSettings)
        await after.follow()

    assert fresh.state.settings == after.state.settings == changed
    with pytest.raises(KeyError):
        after.state.of(IssuedTokens)


@pytest.mark.asyncio
async def test_changes_that_come_at_once_are_one_append() -> None:
    store = MemoryStore()
    async with Control(store) as control:
        await control.make(1)
        before = len(store.partition(CONTROL).appends)
        control.actor.event_log.append = slow = Slow(control.log.append)  # type: ignore[method-assign]
        await asyncio.gather(*(control.make(number) for number in range(2, 12)))

        assert len(control.actor.state.tokens) == 11
        assert slow.calls <= 2, "the first, and all that gathered meanwhile"
        assert before


class Slow:
    """An append that takes its time."""

    def __init__(self, append) -> None:  # type: ignore[no-untyped-def]
        self._append = append
        self.calls = 0

    async def __call__(self, epoch: int, first_seq: int, frames: Sequence[bytes]) -> None:
        self.calls += 1
        await asyncio.sleep(0.05)
        await self._append(epoch, first_seq, frames)


@pytest.mark.asyncio
async def test_a_change_that_was_not_stored_is_told_as_such_and_not_known_after_it() -> None:
    store = MemoryStore()
    async with Control(store) as control:
        await control.make(1)
        append = control.log.append

        async def fails(*_given: object) -> None:
            control.log.append = append  # type: ignore[method-assign]
            raise Unavailable("away")

        control.log.append = fails  # type: ignore[method-assign, assignment]
        with pytest.raises(Unavailable):
            await control.make(2)
        await until(lambda: control.actor._ready)

        assert [*control.actor.state.tokens] == [token_id(1)]
        await control.make(2)
        assert [*control.actor.state.tokens] == [token_id(1), token_id(2)]


@pytest.mark.asyncio
async def test_a_log_of_a_version_without_snapshots_is_read_and_gets_one() -> None:
    store = MemoryStore()
    old = MemoryEventLog(store, CONTROL)
    opened = await old.open("old", 0.0, 1.0)
    slots = SlotsAssigned(1, array("H", SlotMap.even(2).owners).tobytes())
    frame, _digest = encode_frame(1, 1.0, "default", None, [slots], NO_DIGEST)
    await old.append(opened.epoch, 1, [frame])
    await old.release(opened.epoch)

    async with Control(store) as control:
        assert control.actor.state.slot_version == 1
        await control.make(1, 2, 3, 4)
        await control.snapshot()
        follower = tail(store)
        await follower.follow()

        assert follower.state.slots is not None and follower.state.slots.partitions == 2


def test_every_name_event_and_message_of_a_section_is_its_own() -> None:
    names = [each.name for each in SECTIONS]
    messages = [message for each in SECTIONS for message in each.messages]

    assert len({*names}) == len(names) and all("/" not in name and len(name) > 1 for name in names)
    assert len({*messages}) == len(messages)
