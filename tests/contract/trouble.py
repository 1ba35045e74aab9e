"""What any log on a server across a network must survive: cuts on either side of a commit, late requests, writers that take over,
a server that is killed, restarted, slow, silent. test_redis_trouble.py and test_postgres_trouble.py inherit these tests and say
what is different in theirs, and have beside them what only their server can suffer.

A file that inherits them has the fixtures `logs`, `server`, `own_server` (which a test may break) and `proxy` (before `server`).
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Protocol

import pytest

from models.errors import Fenced, OutcomeUnknown, Unavailable
from models.partition.frames import encode_frame
from models.partitions import decode_frame
from models.ports import Archive, EventLog, Opened
from tests.contract.conftest import PARTITION, Chain
from tests.contract.proxy import Proxy
from tests.contract.test_archive import incident

#: Opens a log at a server or a proxy; options of its store by name. All of one test are in one place of their own.
Logs = Callable[..., EventLog]


class Server(Protocol):
    """One that runs on a port of loopback; `stop` takes the signal that ends it."""

    port: int

    def start(self) -> object: ...
    def stop(self, by: signal.Signals = ...) -> None: ...


async def seqs(log: EventLog) -> list[int]:
    found: list[int] = []
    while page := await log.read(found[-1] if found else 0):
        found += [seq for seq, _frame in page]
    return found


async def refused(work: Awaitable[object]) -> BaseException:
    """The error that it ends with."""
    try:
        await work
    except Exception as error:
        return error
    raise AssertionError("it was not refused")


async def opened_once_it_may(log: EventLog) -> Opened:
    """As the shard does: again and again while the store is away."""
    for _attempt in range(100):
        try:
            return await log.open("a", 100.0, 10.0)
        except Unavailable:
            await asyncio.sleep(0.1)
    raise AssertionError("the log could not be opened")


class Trouble(ABC):
    #: What is in a request that appends, and in the one that makes a put of the archive last.
    APPEND: ClassVar[str]
    PUT: ClassVar[str]
    #: Ends the server as a crash does.
    CRASH: ClassVar[signal.Signals]
    #: What its library says where nobody listens.
    REFUSED: ClassVar[str]
    #: Options of a log that soon gives up what is not answered; of one that soon finds its peer gone; of one whose connections
    #: may be half open for as long as its `timeout_s`.
    IMPATIENT: ClassVar[Mapping[str, Any]]
    VANISHED: ClassVar[Mapping[str, Any]]
    HALF_OPEN: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def archive(self, at: Proxy) -> Archive:
        """One in a place of its own."""

    @abstractmethod
    def forget(self, server: Any, log: Any) -> None:
        """All that it knows of this log, as a failover to a replica does that had not heard of it."""

    @abstractmethod
    async def lose(self, server: Any, log: Any, append: Callable[[], Awaitable[None]]) -> None:
        """Do `append`, and lose what it kept."""

    @abstractmethod
    def give_up_soon(self, patch: pytest.MonkeyPatch) -> None:
        """Whatever it waits longer than its options say."""

    @abstractmethod
    def look_before_use(self, patch: pytest.MonkeyPatch) -> None:
        """That a connection still lives is asked each time, as after a long rest."""

    @abstractmethod
    async def connect_both(self, log: Any) -> None:
        """The connection that it writes over and the one that it reads over."""

    async def open_again(self, log: EventLog) -> Opened:
        """After its peer had vanished and is back."""
        return await log.open("a", 1.0, 10.0)

    # --- outcome unknown ---

    @pytest.mark.asyncio
    @pytest.mark.parametrize(("trouble", "kept"), [("before", 1), ("after", 2)])
    async def test_a_connection_cut_in_the_middle_of_an_append_leaves_the_outcome_unknown_until_it_is_opened_again(
        self, logs: Logs, proxy: Proxy, chain: Chain, trouble: str, kept: int
    ) -> None:
        log = logs(proxy)
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        await log.append(epoch, 1, chain.next())
        proxy.hurt(trouble, self.APPEND)

        with pytest.raises(OutcomeUnknown):
            await log.append(epoch, 2, chain.next())
        for write in (log.append(epoch, 2, chain.next()), log.put_records(epoch, 1, [("a", b"1")])):
            with pytest.raises(OutcomeUnknown):
                await write
        again = await log.open("a", 1.0, 10.0)
        chain.back_to(again.last_seq)
        await log.append(again.epoch, again.last_seq + 1, chain.next())

        assert again.last_seq == kept
        assert await seqs(log) == list(range(1, kept + 2))

    @pytest.mark.asyncio
    async def test_an_append_that_arrives_after_the_log_was_opened_again_is_refused(
        self, logs: Logs, proxy: Proxy, server: Server, chain: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.give_up_soon(monkeypatch)
        log = logs(proxy, **self.IMPATIENT)
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        proxy.hurt("late", self.APPEND)
        with pytest.raises(OutcomeUnknown):
            await log.append(epoch, 1, chain.next())

        again = await log.open("a", 1.0, 10.0)
        await proxy.deliver()
        chain.back_to(0)
        await log.append(again.epoch, 1, chain.next(2))

        assert again.last_seq == 0
        assert await seqs(logs(server)) == [1, 2]

    @pytest.mark.asyncio
    async def test_an_append_cancelled_in_the_middle_stops_the_writer_until_it_opens_again(
        self, logs: Logs, proxy: Proxy, chain: Chain
    ) -> None:
        log = logs(proxy)
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        proxy.hurt("late", self.APPEND)
        appending = asyncio.create_task(log.append(epoch, 1, chain.next()))
        await proxy.hit.wait()
        appending.cancel()
        await asyncio.wait([appending])

        with pytest.raises(OutcomeUnknown):
            await log.append(epoch, 1, chain.next())
        assert (await log.open("a", 1.0, 10.0)).last_seq == 0

    @pytest.mark.asyncio
    async def test_an_archive_put_cut_after_it_happened_may_be_repeated(self, proxy: Proxy) -> None:
        archive = self.archive(proxy)
        await archive.count()
        proxy.hurt("after", self.PUT)

        with pytest.raises(Unavailable):
            await archive.put([incident(1), incident(2)])
        await archive.put([incident(1), incident(2)])

        assert await archive.count() == 2
        await archive.close()

    # --- fencing ---

    @pytest.mark.asyncio
    @pytest.mark.parametrize("seed", range(5))
    async def test_writers_that_take_over_at_any_moment_leave_one_history_with_everything_acknowledged(
        self, logs: Logs, server: Server, seed: int
    ) -> None:
        chance = random.Random(seed)
        acknowledged: list[tuple[int, int]] = []

        async def write(log: EventLog, writer: int, ready: asyncio.Event) -> None:
            opened = await log.open(f"w{writer}", 100.0 * writer, 10.0)
            ready.set()
            seq, digest = opened.last_seq, opened.last_digest
            while True:
                frame, digest = encode_frame(seq + 1, 0.0, "default", f"writer {writer}", (), digest)
                await log.append(opened.epoch, seq + 1, [frame])
                seq += 1
                acknowledged.append((seq, writer))

        writers: list[asyncio.Task[None]] = []
        for writer in range(8):
            ready = asyncio.Event()
            writers.append(asyncio.create_task(write(logs(server), writer, ready)))
            await ready.wait()
            await asyncio.sleep(chance.random() * 0.03)
        ended = await asyncio.gather(*writers[:-1], return_exceptions=True)
        writers[-1].cancel()
        await asyncio.wait([writers[-1]])

        frames = await logs(server).read(0)
        who = {
            seq: int((decode_frame(PARTITION, frame, seq, None).trace_id or "").split()[1])
            for seq, frame in frames
        }
        assert all(isinstance(each, Fenced) for each in ended)
        assert [who[seq] for seq, _writer in acknowledged] == [writer for _seq, writer in acknowledged]
        assert [who[seq] for seq in sorted(who)] == sorted(who.values())

    @pytest.mark.asyncio
    async def test_the_same_epoch_taken_twice_because_the_store_went_back_does_not_let_both_write(
        self, logs: Logs, server: Server, chain: Chain
    ) -> None:
        log, other = logs(server), logs(server)
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        self.forget(server, log)

        again = (await other.open("b", 1.0, 10.0)).epoch

        assert again == epoch
        with pytest.raises(Fenced, match="went back"):
            await log.append(epoch, 1, chain.next())
        with pytest.raises(Fenced, match="went back"):
            await log.put_records(epoch, 1, [("a", b"1")])
        assert await other.last_seq() == 0

    @pytest.mark.asyncio
    async def test_a_log_that_lost_what_was_acknowledged_fences_its_writer(
        self, logs: Logs, server: Server, chain: Chain
    ) -> None:
        log = logs(server)
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        await log.append(epoch, 1, chain.next())
        await self.lose(server, log, lambda: log.append(epoch, 2, chain.next()))

        with pytest.raises(Fenced, match="ends at 1"):
            await log.append(epoch, 3, chain.next())

    # --- a server in trouble ---

    @pytest.mark.asyncio
    async def test_what_was_acknowledged_survives_a_kill_of_the_server_in_the_middle(
        self, logs: Logs, own_server: Server, chain: Chain
    ) -> None:
        log = logs(own_server)
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        acknowledged = 0

        async def write() -> None:
            nonlocal acknowledged
            while True:
                await log.append(epoch, chain.seq + 1, chain.next(7, size=3000))
                acknowledged = chain.seq

        writing = asyncio.create_task(write())
        await asyncio.sleep(0.3)
        own_server.stop(self.CRASH)
        await asyncio.wait([writing])
        away = [await refused(log.open("a", 1.0, 10.0)), await refused(log.read(0))]
        own_server.start()
        opened = await log.open("a", 1.0, 10.0)

        assert isinstance(writing.exception(), OutcomeUnknown)
        assert [type(each) for each in away] == [Unavailable, Unavailable]
        assert self.REFUSED in str(away[1])
        assert 0 < acknowledged <= opened.last_seq <= acknowledged + 7
        assert await seqs(log) == list(range(1, opened.last_seq + 1))

    @pytest.mark.asyncio
    async def test_a_writer_that_was_idle_while_its_server_restarted_goes_on(
        self, logs: Logs, own_server: Server, chain: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.look_before_use(monkeypatch)
        log = logs(own_server)
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        await log.append(epoch, 1, chain.next())

        own_server.stop()
        own_server.start()
        await log.append(epoch, 2, chain.next())

        assert await seqs(log) == [1, 2]

    @pytest.mark.asyncio
    async def test_a_peer_that_vanished_without_a_word_is_found_in_bounded_time(
        self, logs: Logs, proxy: Proxy, chain: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.give_up_soon(monkeypatch)
        log = logs(proxy, **self.VANISHED)
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        await log.read(0)
        proxy.silent = True
        begun = time.monotonic()

        under_way = [await refused(log.append(epoch, 1, chain.next())), await refused(log.read(0))]
        self.look_before_use(monkeypatch)
        idle = [await refused(log.open("a", 1.0, 10.0)), await refused(log.renew(epoch, 5.0))]
        took_s = time.monotonic() - begun
        proxy.silent = False

        assert [type(each) for each in under_way] == [OutcomeUnknown, Unavailable]
        assert [type(each) for each in idle] == [Unavailable, Unavailable]
        assert took_s < 10
        assert (await self.open_again(log)).last_seq == 0

    @pytest.mark.asyncio
    async def test_once_a_half_open_connection_was_found_the_others_are_not_waited_for(
        self, logs: Logs, proxy: Proxy, chain: Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.give_up_soon(monkeypatch)
        log = logs(proxy, **self.HALF_OPEN)
        epoch = (await log.open("a", 0.0, 10.0)).epoch
        await self.connect_both(log)
        proxy.vanish()

        unknown = await refused(log.append(epoch, 1, chain.next()))
        async with asyncio.timeout(self.HALF_OPEN["timeout_s"]):  # another one that is dead would take longer
            found = await log.read(0)

        assert isinstance(unknown, OutcomeUnknown)
        assert found == []
        assert (await log.open("a", 1.0, 10.0)).last_seq == 0

    @pytest.mark.asyncio
    async def test_one_packet_in_a_hundred_dropped_only_makes_it_slow(
        self, logs: Logs, proxy: Proxy, chain: Chain
    ) -> None:
        log = logs(proxy)
        epoch = (await log.open("a", 0.0, 60.0)).epoch
        proxy.drop, proxy.chance = 0.01, random.Random(4711)

        while proxy.dropped < 3:
            await log.append(epoch, chain.seq + 1, chain.next(2, size=3000))

        assert await seqs(log) == list(range(1, chain.seq + 1))
