"""What a run changes in the program meanwhile: long waits become short, logs go to the story, garbage waits. Used by world.py."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import structlog

import actors.control_tail
import actors.delivery
import actors.partition
import actors.shard
import models.shard.archiving
import models.shard.lifecycle
import services.edge.desk
import services.edge.stream
import services.ingest.line
from tests.simulation.settings import TICK_S

if TYPE_CHECKING:
    from tests.simulation.world import World


class _NoCollector:
    """A shard collects garbage by hand; here it would collect the whole test run's."""

    @staticmethod
    def collect(_generation: int = 2) -> int:
        return 0

    @staticmethod
    def freeze() -> None: ...

    @staticmethod
    def disable() -> None: ...


class _Chance:
    """A stream's id is chance, and here that of the seed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def urandom(self, size: int) -> bytes:
        return self._world.rng.randbytes(size)


@contextlib.contextmanager
def small_world(world: World) -> Iterator[None]:
    """Waits that are long beside a run of two minutes become short; logs go to the story; garbage waits."""
    patched: list[tuple[Any, str, object]] = [
        (services.edge.stream, "os", _Chance(world)),
        (services.edge.desk, "LOOK_S", 0.5),
        (actors.shard, "gc", _NoCollector),
        (actors.partition.PartitionActor, "tick_s", TICK_S),
        (actors.shard, "SWEEP_S", 20.0),
        (actors.shard, "FOLLOW_S", 1.0),
        (actors.delivery, "FILTER_CAPACITY", 1000),
        (actors.control_tail, "FOLLOW_S", 5.0),
        (models.shard.archiving, "FORGET_EVERY_PART", 4),
        (models.shard.lifecycle, "STILL_FIRING_S", 10.0),
        (services.ingest.line, "RETRY_S", 0.5),
    ]
    before = [getattr(module, name) for module, name, _value in patched]
    logs = structlog.get_config()

    def tell(_logger: object, _level: str, event: Any) -> Any:
        world.story(f"   {event.pop('actor', '')}: {event.pop('event')}", **event)
        raise structlog.DropEvent

    level = 0 if world.lines is not None else 50
    structlog.configure(
        processors=[tell],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    for module, name, value in patched:
        setattr(module, name, value)
    collects = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for (module, name, _value), old in zip(patched, before, strict=True):
            setattr(module, name, old)
        structlog.configure(**logs)
        if collects:
            gc.enable()
