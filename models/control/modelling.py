"""Section `models`: which trainings were asked for, which versions of the learned classifier there are, and which one counts.

A model's file is in the log and in the snapshots: it is bounded (models/learned/model.py), changes at most once a training, and so is
backed up, copied and moved with everything else. What does not follow this section never decodes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import msgspec

from models.control.model_versions import (
    FILES_KEPT,
    TRAINING_MAX_S,
    VERSIONS_KEPT,
    WHY_MAX,
    AskTraining,
    FailTraining,
    KeepModel,
    ModelPromoted,
    ModelRolledBack,
    ModelShadowed,
    ModelState,
    ModelTrained,
    ModelVersion,
    PromoteModel,
    RollBackModel,
    ShadowModel,
    Training,
    TrainingAsked,
    TrainingFailed,
)
from models.control.section import ONLY, Section
from models.errors import Conflict, Malformed, NotFound
from models.partition.event import Event
from models.wire import Wire


class Standing(msgspec.Struct, array_like=True):
    """What a tenant's classifiers go by. `before` are the versions that were active before, the last one last."""

    active: int = 0
    shadow: int = 0
    before: list[int] = []


class _Rest(msgspec.Struct, frozen=True, array_like=True):
    version: int
    last: int
    training: Training | None
    standings: dict[str, Standing]


_encoder = msgspec.msgpack.Encoder()
_version_decoder = msgspec.msgpack.Decoder(ModelVersion)
_rest_decoder = msgspec.msgpack.Decoder(_Rest)
_VERSION, _FILE = b"v", b"f"


class ModelVersions(Section):
    """A record for each version, one for each file that is kept, and one of the rest."""

    name = "models"
    events = (TrainingAsked, TrainingFailed, ModelTrained, ModelPromoted, ModelRolledBack, ModelShadowed)
    messages = (AskTraining, FailTraining, KeepModel, PromoteModel, RollBackModel, ShadowModel)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        self.all: dict[int, ModelVersion] = {}
        #: The last training that was asked for.
        self.training: Training | None = None
        #: Grows with each event.
        self.version = 0
        self._files: dict[int, bytes] = {}
        self._last = 0
        self._standings: dict[str, Standing] = {}

    # -- reading --

    def shown(self, tenant: str) -> Iterator[ModelVersion]:
        """A tenant's, the newest first."""
        for version in sorted(self.all, reverse=True):
            if self.all[version].tenant == tenant:
                yield self.all[version]

    def find(self, version: int, tenant: str) -> ModelVersion:
        """Raises NotFound."""
        found = self.all.get(version)
        if found is None or found.tenant != tenant:
            raise NotFound(f"there is no model {version}")
        return found

    def file(self, version: int) -> bytes | None:
        """None when it is kept no more."""
        return self._files.get(version)

    def standing(self, tenant: str) -> Standing:
        """To look at."""
        return self._standings.get(tenant) or Standing()

    def tenants(self) -> list[str]:
        """Those for whom something was trained."""
        return [*self._standings]

    @property
    def under_way(self) -> Training | None:
        """The training that nobody has ended yet."""
        training = self.training
        return training if training is not None and not training.ended_at else None

    # -- deciding --

    def decide(self, message: Wire, now: float) -> list[Event]:
        """What comes of a message; nothing for a repeat. Raises Malformed, NotFound, Conflict."""
        match message:
            case AskTraining():
                return self._ask(message, now)
            case FailTraining():
                if self._is_over(message.id):
                    return []
                return [TrainingFailed(message.id, now, message.why[:WHY_MAX])]
            case KeepModel():
                return self._keep(message, now)
            case PromoteModel():
                found = self.find(message.version, message.tenant)
                if found.state is ModelState.ACTIVE:
                    return []
                self._check_kept(found)
                return [ModelPromoted(found.version, found.tenant, now, message.actor, message.why[:WHY_MAX])]
            case RollBackModel():
                return self._roll_back(message, now)
            case ShadowModel():
                return self._shadow(message, now)
        return []

    def due(self, now: float) -> list[Event]:
        """A training whose process is gone for good has failed."""
        training = self.under_way
        if training is None or now < training.at + TRAINING_MAX_S:
            return []
        return [TrainingFailed(training.id, now, f"it did not end within {TRAINING_MAX_S / 60:g} minutes")]

    def _ask(self, message: AskTraining, now: float) -> list[Event]:
        if self.training is not None and self.training.id == message.id:
            return []
        if (training := self.under_way) is not None:
            raise Conflict(
                f"a training is under way already: {training.actor} asked for it {now - training.at:.0f} s ago"
            )
        return [TrainingAsked(message.id, now, message.actor, message.tenant)]

    def _is_over(self, training: str) -> bool:
        """Whether this training, the last one, has ended. Raises Conflict for another one."""
        if self.training is None or self.training.id != training:
            raise Conflict("this training is not the last one that was asked for")
        return bool(self.training.ended_at)

    def _keep(self, message: KeepModel, now: float) -> list[Event]:
        if self._is_over(message.id):
            return []
        # Imported here: numpy is nothing that a shard waits for when it starts.
        from models.learned.model import decode_model

        decode_model(message.file)
        assert self.training is not None
        return [
            ModelTrained(
                message.id,
                self._last + 1,
                self.training.tenant,
                now,
                self.training.actor,
                message.took_s,
                hashlib.sha256(message.file).hexdigest(),
                message.file,
                message.examples,
                message.evaluation,
                message.skipped,
            )
        ]

    def _roll_back(self, message: RollBackModel, now: float) -> list[Event]:
        found = self.find(message.version, message.tenant)
        standing = self.standing(message.tenant)
        if standing.active != message.version:
            if found.state is ModelState.RETIRED:
                return []
            raise Conflict(f"model {message.version} is not active")
        to = next((each for each in reversed(standing.before) if each in self._files), 0)
        return [
            ModelRolledBack(message.version, to, message.tenant, now, message.actor, message.why[:WHY_MAX])
        ]

    def _shadow(self, message: ShadowModel, now: float) -> list[Event]:
        if message.version < 0:
            raise Malformed(f"version: expected a version, or 0 for none, not {message.version}")
        if self.standing(message.tenant).shadow == message.version:
            return []
        if message.version:
            found = self.find(message.version, message.tenant)
            if found.state is ModelState.ACTIVE:
                raise Conflict(f"model {message.version} is active: it can't be its own shadow")
            self._check_kept(found)
        return [ModelShadowed(message.version, message.tenant, now, message.actor)]

    def _check_kept(self, found: ModelVersion) -> None:
        if found.version not in self._files:
            raise Conflict(f"model {found.version} is kept no more, only what it was: train a new one")

    # -- folding --

    def apply(self, event: Event, now: float) -> None:
        self._touch(ONLY)
        self.version += 1
        match event:
            case TrainingAsked():
                self.training = Training(event.id, event.at, event.actor, event.tenant)
            case TrainingFailed():
                self._end(event.id, event.at, 0, event.why)
            case ModelTrained():
                self._end(event.training, event.at, event.version, "")
                self._trained(event)
            case ModelPromoted():
                standing = self._of(event.tenant)
                if standing.active:
                    standing.before = [*standing.before, standing.active][-FILES_KEPT:]
                    self._set(
                        standing.active,
                        ModelState.RETIRED,
                        event.actor,
                        event.at,
                        f"model {event.version} promoted",
                    )
                if standing.shadow == event.version:
                    standing.shadow = 0
                standing.active = event.version
                standing.before = [each for each in standing.before if each != event.version]
                self._set(event.version, ModelState.ACTIVE, event.actor, event.at, event.why)
            case ModelRolledBack():
                standing = self._of(event.tenant)
                self._set(
                    event.version, ModelState.RETIRED, event.actor, event.at, event.why or "rolled back"
                )
                standing.active = event.to
                # What lies between was kept no more.
                standing.before = standing.before[: standing.before.index(event.to)] if event.to else []
                if event.to == standing.shadow:
                    standing.shadow = 0
                if event.to:
                    self._set(
                        event.to,
                        ModelState.ACTIVE,
                        event.actor,
                        event.at,
                        f"model {event.version} rolled back",
                    )
            case ModelShadowed():
                self._shadowed(event.tenant, event.version, event.actor, event.at)
        self._trim()

    def _end(self, training: str, at: float, version: int, why: str) -> None:
        if self.training is not None and self.training.id == training:
            self.training = msgspec.structs.replace(self.training, ended_at=at, version=version, why=why)

    def _trained(self, event: ModelTrained) -> None:
        self._touch(_key(_VERSION, event.version))
        self._touch(_key(_FILE, event.version))
        self._last = event.version
        self._files[event.version] = event.file
        self.all[event.version] = ModelVersion(
            event.version,
            event.tenant,
            ModelState.RETIRED,
            event.at,
            event.actor,
            event.took_s,
            event.digest,
            len(event.file),
            event.examples,
            event.evaluation,
            event.skipped,
            event.actor,
            event.at,
        )
        self._shadowed(event.tenant, event.version, event.actor, event.at)

    def _shadowed(self, tenant: str, version: int, actor: str, at: float) -> None:
        standing = self._of(tenant)
        if standing.shadow:
            self._set(
                standing.shadow,
                ModelState.RETIRED,
                actor,
                at,
                f"model {version} is the shadow" if version else "no shadow",
            )
        standing.shadow = version
        if version:
            standing.before = [each for each in standing.before if each != version]
            self._set(version, ModelState.SHADOW, actor, at, "")

    def _set(self, version: int, state: ModelState, actor: str, at: float, why: str) -> None:
        found = self.all.get(version)
        if found is not None:
            self._touch(_key(_VERSION, version))
            self.all[version] = msgspec.structs.replace(
                found, state=state, changed_by=actor, changed_at=at, why=why
            )

    def _of(self, tenant: str) -> Standing:
        return self._standings.setdefault(tenant, Standing())

    def _trim(self) -> None:
        """Forget the oldest: files beyond FILES_KEPT, versions beyond VERSIONS_KEPT, and never one that counts."""
        used = {
            each
            for standing in self._standings.values()
            for each in (standing.active, standing.shadow, *standing.before[-1:])
        }
        for found, kept, kind in ((self._files, FILES_KEPT, _FILE), (self.all, VERSIONS_KEPT, _VERSION)):
            spare = sorted(each for each in found if each not in used)
            for version in spare[: max(0, len(found) - kept)]:
                self._touch(_key(kind, version))
                del found[version]

    # -- snapshots --

    def capture(self, key: bytes) -> bytes | None:
        if key == ONLY:
            return (
                _encoder.encode(_Rest(self.version, self._last, self.training, self._standings))
                if self.version
                else None
            )
        kind, version = key[:1], int(key[1:])
        if kind == _FILE:
            return self._files.get(version)
        found = self.all.get(version)
        return None if found is None else _encoder.encode(found)

    def load(self, key: bytes, record: bytes) -> None:
        if key == ONLY:
            rest = _rest_decoder.decode(record)
            self.version, self._last, self.training, self._standings = (
                rest.version,
                rest.last,
                rest.training,
                rest.standings,
            )
        elif key[:1] == _FILE:
            self._files[int(key[1:])] = record
        else:
            found = _version_decoder.decode(record)
            self.all[found.version] = found


def _key(kind: bytes, version: int) -> bytes:
    return kind + f"{version:08d}".encode()
