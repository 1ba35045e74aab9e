"""Trains a model when the control log says that one is wanted, and gives it to the control partition. Hired by its writer
(actors/control.py) for as long as a training is under way, so that nothing of what training needs stays in memory.

It keeps nothing: one that was killed is hired again, reads the same order, and begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from actors.control_tail import ControlTail
from actors.runtime.ending import end
from models.control.control import ControlMessage
from models.control.model_versions import FailTraining, KeepModel, PromoteModel, Training
from models.control.modelling import ModelVersions
from models.errors import IncidentManagerError, Refused, Unavailable
from models.metrics import Meter
from models.metrics import encode as encode_metrics

log = structlog.get_logger()

#: How often it looks whether there is something to do, and how long it waits for a shard that is away.
LOOK_S = 0.25
#: Who promotes where a rule of the settings does.
RULE = "learning.promote_when_better"


class Learner(Protocol):
    """What trains: services/learning/learner.py."""

    async def learn(self, training: Training) -> KeepModel:
        """A model of all that this tenant's incidents teach. Raises Refused that says why there is none, and Unavailable where it could not
        read them now."""

    def may_promote(self, found: KeepModel) -> str:
        """Why a model is to be active by itself, "" when a person has to say so."""

    async def close(self) -> None:
        """Close the files. Safe to call twice."""


class TrainerActor:
    """See the top of this file. `tell` has the control partition decide about a message."""

    def __init__(
        self,
        name: str,
        control: ControlTail,
        learner: Learner,
        tell: Callable[[ControlMessage], Awaitable[None]],
    ) -> None:
        self._name = name
        self._control = control
        self._learner = learner
        self._tell = tell
        self._meter = Meter(name)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Give up what is under way. Safe to call twice."""
        if self._task is not None:
            await end([self._task])
            self._task = None
        await self._learner.close()
        await self._control.close()

    async def metrics(self, _payload: bytes) -> bytes:
        return encode_metrics(self._meter.read())

    async def _work(self) -> None:
        while True:
            await self._control.catch_up()
            training = self._control.state.of(ModelVersions).under_way
            if training is not None:
                await self._train(training)
            await asyncio.sleep(LOOK_S)

    async def _train(self, training: Training) -> None:
        """End one training, or leave it for the next look."""
        try:
            try:
                found = await self._learner.learn(training)
                await self._tell(found)
            except Refused as error:
                log.warning("no model was trained", training=training.id, why=str(error))
                await self._tell(FailTraining(training.id, str(error)))
            else:
                await self._promote(training, found)
        except Unavailable as error:
            log.warning("can't train yet, retrying", training=training.id, why=str(error))
        except Exception as error:
            why = str(error) if isinstance(error, IncidentManagerError) else type(error).__name__
            log.error("training failed", training=training.id, why=why, exc_info=True)
            try:
                await self._tell(FailTraining(training.id, f"it failed: {why}"))
            except IncidentManagerError as away:
                log.warning("can't train yet, retrying", training=training.id, why=str(away))

    async def _promote(self, training: Training, found: KeepModel) -> None:
        await self._control.follow()
        section = self._control.state.of(ModelVersions)
        ended = section.training
        if ended is None or ended.id != training.id or not ended.version:
            return
        log.info(
            "model trained",
            version=ended.version,
            examples=found.examples.all,
            seconds=round(found.took_s, 1),
        )
        if why := self._learner.may_promote(found):
            await self._tell(PromoteModel(ended.version, RULE, training.tenant, why))
