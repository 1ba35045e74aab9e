"""The control partition, whose writer is killed like any other process. Who else has a part in it goes on by what it knows."""

from __future__ import annotations

from tests.simulation.area import Area


class Control(Area):
    troubles = ("control",)

    def strike(self, trouble: str) -> None:
        self.world.kill("control-a", "by chance")
