"""Clocks that are set back a little for good, or are far wrong for a moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from models.shard.events import ClockSetBack
from tests.simulation.area import Area
from tests.simulation.settings import SETTINGS

if TYPE_CHECKING:
    from tests.simulation.world import World

#: How far the clock is wrong for a moment, and for how long at most: less than the grace in which nothing expires. Not
#: further behind than RETENTION_S: what closes then would be forgotten when it is right again.
LEAPS_S = (-40.0, -8.0, 8.0, 60.0, 600.0, 3600.0, 90_000.0)
LEAP_LASTS_S = 8.0


class Clocks(Area):
    events = frozenset({ClockSetBack})
    troubles = ("clock", "leap")

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.jumped_s = 0.0
        self.is_leaping = False

    def strike(self, trouble: str) -> None:
        rng = self.world.rng
        if trouble == "clock" and self.jumped_s < 5.0:
            by_s = rng.choice((0.01, 0.5, 2.0))
            self.jumped_s += by_s
            self.world.story("the clock is set back", by_s=by_s)
            self.world.clock.jump(-by_s)
        elif trouble == "leap" and not self.is_leaping:
            self.world.spawn(self._leap(rng.choice(LEAPS_S), rng.uniform(0.1, LEAP_LASTS_S)))

    async def _leap(self, by_s: float, for_s: float) -> None:
        """The clock is wrong for a moment."""
        self.is_leaping = True
        self.world.story("the clock is wrong", by_s=by_s, for_s=for_s)
        self.world.clock.jump(by_s)
        await asyncio.sleep(for_s)
        self.world.story("the clock is right again")
        self.world.clock.jump(-by_s)
        # Two in one grace would be one that is wrong for longer than it.
        await asyncio.sleep(SETTINGS.expiry_grace_s)
        self.is_leaping = False
