"""How many partitions there are: what the control log says, once there is one. Asked by whoever starts a system, or opens
its stores."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from models.errors import Conflict, Damaged

if TYPE_CHECKING:
    from models.config import Settings
    from models.control import ControlState


async def control_state(settings: Settings) -> ControlState:
    """What the control log says; an empty state where there is none. Raises Damaged, Unavailable."""
    from actors.folding import fold_control
    from services.bootstrap import CONTROL, open_log

    log = open_log(settings, CONTROL)
    try:
        return await fold_control(log)
    finally:
        await log.close()


def as_assigned(settings: Settings, state: ControlState | None = None) -> Settings:
    """The settings, with as many partitions as there are: `state.partitions` is for the first start. Raises Conflict while
    resharding or copying is under way, Damaged, Unavailable."""
    state = asyncio.run(control_state(settings)) if state is None else state
    if state.copied_from:
        raise Conflict(
            f"this is an unfinished copy of {state.copied_from}: end it first, by the same command"
        )
    if state.moving_to is not None:
        partitions = state.moving_to.partitions
        raise Conflict(
            f"moving to {partitions} partitions was begun and is not done: llm-im store reshard --partitions {partitions}"
        )
    if state.slots is None or state.slots.partitions == settings.state.partitions:
        return settings
    changed = settings.state.model_copy(update={"partitions": state.slots.partitions})
    return settings.model_copy(update={"state": changed})


def partitions_of(settings: Settings) -> int:
    """How many there are to be looked at, also in the middle of resharding, and when the control log can't be read."""
    try:
        state = asyncio.run(control_state(settings))
    except Damaged:
        return settings.state.partitions
    maps = [each for each in (state.slots, state.moving_to) if each is not None]
    return max((each.partitions for each in maps), default=settings.state.partitions)
