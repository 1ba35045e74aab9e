"""How many partitions there are: what the control log says, once there is one. Asked by whoever starts a system, or opens
its stores."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.begun import Kept, held, lost_control
from models.control.control import CONTROL
from models.errors import Conflict, Damaged
from models.partition.sharding import index_of
from services.times import timestamp

if TYPE_CHECKING:
    from models.control.control import ControlState
    from models.control.events import StoreMoved
    from models.settings.all import Settings


async def control_state(settings: Settings) -> ControlState:
    """What the control log says; an empty state where there is none. Raises Damaged, Unavailable."""
    from actors.folding import fold_control
    from services.stores.choice import open_stores, place_of

    log = open_stores(place_of(settings)).log(CONTROL)
    try:
        return await fold_control(log)
    finally:
        await log.close()


def as_assigned(settings: Settings, state: ControlState | None = None) -> Settings:
    """The settings, with as many partitions as there are: `state.partitions` is for the first start. Raises Conflict while
    resharding or copying is under way, or when all of it was moved elsewhere; Damaged, also for a control log that is gone;
    Unavailable."""
    state = asyncio.run(control_state(settings)) if state is None else state
    if state.moved is not None:
        raise Conflict(moved_away(state.moved))
    if state.slots is None:
        asyncio.run(refuse_lost_control(settings))
    if state.copied_from:
        raise Conflict(
            f"this is an unfinished copy of {state.copied_from}: finish it first, by repeating the same command"
        )
    if state.moving_to is not None:
        partitions = state.moving_to.partitions
        raise Conflict(
            f"resharding to {partitions} partitions is not finished: llm-im store reshard --partitions {partitions}"
        )
    if state.slots is None or state.slots.partitions == settings.state.partitions:
        return settings
    changed = settings.state.model_copy(update={"partitions": state.slots.partitions})
    return settings.model_copy(update={"state": changed})


async def refuse_lost_control(settings: Settings) -> None:
    """Raises Damaged where shards hold something: for who found nothing in the control log."""
    if holding := await shards_held(settings):
        raise lost_control(CONTROL, holding)


async def shards_held(settings: Settings) -> list[str]:
    """The shards' partitions that hold anything, whatever the control log says. Raises Unavailable."""
    from services.stores.choice import open_stores, place_of

    stores = open_stores(place_of(settings))
    return await held(Kept(stores.log, stores.archive), settings.state.partitions)


def moved_away(moved: StoreMoved) -> str:
    """What is said of a store that was copied to another one."""
    return f"this store was moved to {moved.to} at {timestamp(moved.at)}, and was not changed since; name the settings of that store (--config, --data), or use this one again: llm-im store take-up"


def partitions_of(settings: Settings) -> int:
    """How many there are to be looked at, also in the middle of resharding, and when the control log can't be read."""
    try:
        state = asyncio.run(control_state(settings))
    except Damaged:
        return settings.state.partitions
    if state.slots is None and (holding := asyncio.run(shards_held(settings))):
        return max(settings.state.partitions, index_of(holding[-1]) + 1)
    maps = [each for each in (state.slots, state.moving_to) if each is not None]
    return max((each.partitions for each in maps), default=settings.state.partitions)
