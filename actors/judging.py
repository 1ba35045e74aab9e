"""What a classifier goes by: the rules of the settings, and the models that the control log says are active and shadow.

    actor.judge = Judging(rules, confidence, control, meter)
    look()   before a batch: takes over what the log says by now, in microseconds when nothing changed

A model that is missing, damaged or fails is left out: the rules go on, `why()` says it, and the log says it once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from actors.control_tail import ControlTail
from models.classification.rules import Classifier, Ruling
from models.control.modelling import ModelVersions
from models.errors import Malformed
from models.learned.compared import Compared
from models.metrics import Meter
from models.shard.effects import Classify
from models.shard.messages import Classification

if TYPE_CHECKING:
    from models.learned.judging import LearnedClassifier, Versioned

log = structlog.get_logger()


class Judging:
    """Judges by rules, and where it has them by models; each tenant has its own. Implements actors.classifier.Judge."""

    def __init__(self, rules: Classifier, confidence: float, control: ControlTail, meter: Meter) -> None:
        self.rules = rules
        self._confidence = confidence
        self._control = control
        self._meter = meter
        #: The section's version that what follows was made by; None: make it anew.
        self._seen: int | None = None
        self._learned: dict[str, LearnedClassifier] = {}
        self._opened: dict[int, Versioned] = {}
        self._faults: dict[int, str] = {}
        self._compared: dict[int, Counter[tuple[str, str, str]]] = {}

    def take(self, rules: Classifier, confidence: float) -> None:
        """Go by other settings."""
        self.rules, self._confidence, self._seen = rules, confidence, None

    def classify(self, effect: Classify) -> Classification:
        learned = self._learned.get(effect.tenant)
        return self.rules.classify(effect) if learned is None else learned.classify(effect)

    def look(self) -> None:
        """Go by the models that count now."""
        section = self._control.state.of(ModelVersions)
        if section.version != self._seen:
            self._seen = section.version
            self._take_models(section)

    def why(self) -> dict[str, str]:
        """What models can't be used, and why."""
        return {
            f"model {version}": f"{why}: the rules decide instead" for version, why in self._faults.items()
        }

    def compared(self) -> dict[int, Compared]:
        """How often the shadow agreed, by version."""
        return {
            version: [(*key, count) for key, count in counts.items()]
            for version, counts in self._compared.items()
        }

    def _take_models(self, section: ModelVersions) -> None:
        standings = {tenant: section.standing(tenant) for tenant in section.tenants()}
        wanted = {each for found in standings.values() for each in (found.active, found.shadow) if each}
        self._opened = {version: each for version, each in self._opened.items() if version in wanted}
        self._faults = {version: why for version, why in self._faults.items() if version in wanted}
        self._compared = {version: each for version, each in self._compared.items() if version in wanted}
        self._learned = {}
        if not wanted:
            return
        # Imported here: a system without a model needs neither numpy nor this.
        from models.learned.judging import LearnedClassifier

        for tenant, found in standings.items():
            active, shadow = self._open(section, found.active), self._open(section, found.shadow)
            if active is not None or shadow is not None:
                self._learned[tenant] = LearnedClassifier(
                    self.rules,
                    active,
                    shadow,
                    confidence=self._confidence,
                    compared=self._note,
                    failed=self._failed,
                )

    def _open(self, section: ModelVersions, version: int) -> Versioned | None:
        if not version or version in self._faults:
            return None
        if version not in self._opened:
            from models.learned.judging import Versioned
            from models.learned.model import decode_model

            file = section.file(version)
            try:
                if file is None:
                    raise Malformed("its file is missing")
                if hashlib.sha256(file).hexdigest() != section.all[version].digest:
                    raise Malformed("its file is another one than was trained")
                self._opened[version] = Versioned(version, decode_model(file))
            except Malformed as error:
                self._failed(version, str(error))
                return None
            log.info("model opened", version=version)
        return self._opened[version]

    def _failed(self, version: int, why: str) -> None:
        self._faults[version] = f"can't be used: {why}"
        self._meter.count("llm_im_model_failed_total")
        log.error("a model can't be used, the rules decide", version=version, why=why)

    def _note(self, version: int, given: Ruling, shadow: Ruling) -> None:
        counts = self._compared.setdefault(version, Counter())
        for part, said, would in (
            ("severity", given.severity.name, shadow.severity.name),
            ("type", given.type.value, shadow.type.value),
        ):
            counts[part, said, would] += 1
            agrees = "yes" if said == would else "no"
            self._meter.count("llm_im_shadow_compared_total", what=part, agrees=agrees)
