"""Background work that is told to end ends, also when it did not hear it the first time."""

from __future__ import annotations

import asyncio

import pytest

from actors.runtime import ending


async def deaf(times: int) -> None:
    """Loses that many cancellations, as asyncio.wait_for of Python 3.11 may."""
    for _ in range(times):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
    await asyncio.sleep(3600)


async def broken() -> None:
    raise ZeroDivisionError


@pytest.mark.asyncio
async def test_work_that_loses_a_cancellation_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN_S", 0.01)
    tasks = [asyncio.create_task(deaf(times)) for times in (0, 1, 3)]
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await ending.end(tasks)

    assert all(task.cancelled() for task in tasks)


@pytest.mark.asyncio
async def test_work_that_puts_things_in_order_first_is_waited_for_and_told_once() -> None:
    heard = []

    async def orderly() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            for _ in range(3):
                heard.append("order")
                await asyncio.sleep(0.01)

    task = asyncio.create_task(orderly())
    await asyncio.sleep(0)
    await ending.end([task])

    assert heard == ["order"] * 3 and task.cancelled()


@pytest.mark.asyncio
async def test_what_is_over_already_or_ended_by_an_error_is_no_trouble() -> None:
    tasks = [asyncio.create_task(broken()), asyncio.create_task(asyncio.sleep(0))]
    await asyncio.sleep(0.01)

    await ending.end(tasks)
    await ending.end([])

    assert isinstance(tasks[0].exception(), ZeroDivisionError)
