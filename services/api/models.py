"""Asks for models of the learned classifier, shows them, and says which one counts. Used by services/api/v1/models.py.

The control partition decides. What returns is durable, and every classifier hears of it within a second or two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from actors.control_tail import ControlTail
from models.control.control import ControlMessage
from models.control.model_versions import (
    AskTraining,
    ModelVersion,
    PromoteModel,
    RollBackModel,
    ShadowModel,
    Training,
)
from models.control.modelling import ModelVersions, Standing
from models.errors import Conflict, NotFound, Unavailable
from models.learned.compared import Compared, decode_compared
from models.ports import Peers

#: A classifier lets others have a turn every hundredth of a second.
ASK_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often the shadow said what counted, of incidents that were classified since it is one (or since the classifiers started).
    `silent`: classifiers that did not answer."""

    version: int
    counts: Compared
    silent: list[str]


class ModelDesk:
    """The models of one tenant. Raises Malformed, NotFound, Conflict, Unavailable."""

    def __init__(
        self,
        tail: ControlTail,
        tell: Callable[[ControlMessage], Awaitable[None]],
        peers: Peers,
        classifiers: Sequence[str],
        tenant: str,
    ) -> None:
        self.tenant = tenant
        self._tail = tail
        self._tell = tell
        self._peers = peers
        self._classifiers = classifiers

    @property
    def _models(self) -> ModelVersions:
        return self._tail.state.of(ModelVersions)

    @property
    def standing(self) -> Standing:
        """What counts, as far as it was read."""
        return self._models.standing(self.tenant)

    async def all(self) -> list[ModelVersion]:
        """The newest first."""
        await self._tail.catch_up()
        return [*self._models.shown(self.tenant)]

    async def find(self, version: int) -> ModelVersion:
        """Raises NotFound."""
        await self._tail.catch_up()
        return self._models.find(version, self.tenant)

    def is_kept(self, version: int) -> bool:
        """Whether its file still is, so that it can be promoted."""
        return self._models.file(version) is not None

    async def file(self, version: int) -> bytes:
        """Raises NotFound."""
        await self.find(version)
        found = self._models.file(version)
        if found is None:
            raise NotFound(f"the file of model {version} is kept no more")
        return found

    async def training(self) -> Training | None:
        """The last one that was asked for."""
        await self._tail.catch_up()
        found = self._models.training
        return found if found is not None and found.tenant == self.tenant else None

    async def train(self, identity: str, actor: str) -> Training:
        """Ask for a training; a repeat of the same id asks for no second one. Raises Conflict while one is under way."""
        await self._tell(AskTraining(identity, actor, self.tenant))
        await self._tail.follow()
        found = self._models.training
        if found is None or found.id != identity:
            raise Unavailable("the training was asked for, but can't be seen yet: list the models")
        return found

    async def promote(self, version: int, actor: str, why: str) -> ModelVersion:
        """Safe to repeat."""
        return await self._changed(version, PromoteModel(version, actor, self.tenant, why))

    async def roll_back(self, actor: str, why: str, version: int | None = None) -> Standing:
        """Go back to what was active before `version` (None: the one that is active now). Safe to repeat with a version. Raises
        Conflict where none is active."""
        await self._tail.follow()
        active = self._models.standing(self.tenant).active if version is None else version
        if not active:
            raise Conflict("no model is active: the rules decide already")
        await self._tell(RollBackModel(active, actor, self.tenant, why))
        await self._tail.follow()
        return self._models.standing(self.tenant)

    async def shadow(self, version: int, actor: str) -> Standing:
        """Have a version compared with what counts; 0: none. Safe to repeat."""
        await self._tell(ShadowModel(version, actor, self.tenant))
        await self._tail.follow()
        return self._models.standing(self.tenant)

    async def agreement(self) -> Agreement:
        """Of the shadow there is now. Raises Conflict where there is none."""
        await self._tail.follow()
        version = self._models.standing(self.tenant).shadow
        if not version:
            raise Conflict("no model is a shadow: llm-im learn shadow VERSION makes it one")
        counts: Counter[tuple[str, str, str]] = Counter()
        silent = []
        for name in self._classifiers:
            try:
                answered = decode_compared(await self._peers.call(name, "compared", b"", ASK_TIMEOUT_S))
            except Unavailable:
                silent.append(name)
                continue
            for part, given, said, count in answered.get(version, []):
                counts[part, given, said] += count
        ordered = sorted(counts.items(), key=lambda each: (each[0][0], -each[1], each[0]))
        return Agreement(version, [(*key, count) for key, count in ordered], silent)

    async def _changed(self, version: int, message: ControlMessage) -> ModelVersion:
        await self._tell(message)
        await self._tail.follow()
        return self._models.find(version, self.tenant)
