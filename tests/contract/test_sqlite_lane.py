"""The one thread of a SQLite connection (services/stores/sqlite/files.py): what is given to it is done in order, and comes back."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from models.errors import Broken, Unavailable
from services.stores.sqlite.files import Lane

pytestmark = pytest.mark.asyncio


class Connection:
    """What a lane holds."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.threads: set[int] = set()
        self.is_closed = False

    def do(self, what: object) -> object:
        self.threads.add(threading.get_ident())
        self.done.append(what)
        return what

    def note(self, what: object) -> None:
        self.do(what)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.is_closed = True


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest_asyncio.fixture
async def lane(connection: Connection) -> AsyncIterator[Lane[Connection]]:
    opened = Lane("here", lambda: connection)
    yield opened
    await opened.close()


async def test_all_is_done_in_order_by_one_thread_that_is_not_the_loops(
    lane: Lane[Connection], connection: Connection
) -> None:
    first = [asyncio.ensure_future(lane.run(lambda c, n=n: c.do(n))) for n in range(100)]  # type: ignore[misc]
    await asyncio.sleep(0)
    lane.later(lambda c: c.note("later"))
    found = await asyncio.gather(*first, lane.run(lambda c: c.do("last")))

    assert found == [*range(100), "last"]
    assert connection.done[:100] == [*range(100)] and {*connection.done[100:]} == {"later", "last"}
    assert len(connection.threads) == 1 and threading.get_ident() not in connection.threads


async def test_an_error_comes_to_who_asked_as_one_of_ours_and_the_next_goes_on(
    lane: Lane[Connection], connection: Connection
) -> None:
    def broken(_connection: Connection) -> None:
        raise TypeError("no")

    bad, good = await asyncio.gather(
        lane.run(broken), lane.run(lambda c: c.do("good")), return_exceptions=True
    )
    lane.later(broken)

    assert isinstance(bad, Broken) and good == "good"
    assert await lane.run(lambda c: c.do("after")) == "after"


async def test_what_was_cancelled_before_its_turn_is_not_done_and_what_was_begun_is(
    lane: Lane[Connection], connection: Connection
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(found: Connection) -> None:
        begun.set()
        go_on.wait(5)
        found.do("slow")

    under_way = asyncio.ensure_future(lane.run(slow))
    behind = asyncio.ensure_future(lane.run(lambda c: c.do("behind")))
    await asyncio.to_thread(begun.wait, 5)
    for each in (under_way, behind):
        each.cancel()
    await asyncio.sleep(0)
    go_on.set()

    assert await lane.run(lambda c: c.do("last")) == "last"
    assert connection.done == ["slow", "last"]


async def test_closing_waits_for_what_is_under_way_and_nothing_comes_after(
    lane: Lane[Connection], connection: Connection
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(found: Connection) -> None:
        begun.set()
        go_on.wait(5)
        found.do("slow")

    under_way = asyncio.ensure_future(lane.run(slow))
    await asyncio.to_thread(begun.wait, 5)
    closing = asyncio.ensure_future(lane.close())
    await asyncio.sleep(0.01)
    lane.later(lambda c: c.note("too late"))
    with pytest.raises(Unavailable, match="closed"):
        await lane.run(lambda c: c.do("too late"))
    assert not closing.done()
    go_on.set()

    await asyncio.gather(under_way, closing, lane.close())
    assert connection.is_closed and connection.done == ["slow"]
    assert len(connection.threads) == 1


async def test_a_lane_that_nobody_used_has_no_thread(connection: Connection) -> None:
    before = threading.active_count()
    unused = Lane("here", lambda: connection)
    assert threading.active_count() == before
    await unused.close()
    assert not connection.is_closed


async def test_the_thread_of_a_lane_that_nobody_closed_ends_with_it(connection: Connection) -> None:
    forgotten = Lane("forgotten", lambda: connection)
    await forgotten.run(lambda c: c.do(1))
    thread = next(each for each in threading.enumerate() if each.name == "sqlite forgotten")
    del forgotten
    gc.collect()

    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()


async def test_a_loop_that_ended_meanwhile_ends_no_thread(connection: Connection) -> None:
    lane = Lane("ended", lambda: connection)
    begun, go_on = threading.Event(), threading.Event()

    def slow(found: Connection) -> None:
        begun.set()
        go_on.wait(5)
        found.do("slow")

    def other_loop() -> None:
        async def ask() -> None:
            asking = asyncio.ensure_future(lane.run(slow))
            await asyncio.to_thread(begun.wait, 5)
            del asking

        asyncio.run(ask())

    await asyncio.to_thread(other_loop)
    go_on.set()

    assert await lane.run(lambda c: c.do("next")) == "next"
    await lane.close()
