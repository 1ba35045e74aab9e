"""An escalation policy: who is told first, and who next when nobody acknowledges. What becomes of one in an incident:
models/shard/escalation.py, which knows its shape only (Outline)."""

from __future__ import annotations

import msgspec

from models.errors import Malformed, TooLarge
from models.people.words import check_name

#: Everybody up to the owner of the company is reached in fewer.
LEVELS_MAX = 10
TARGETS_MAX = 20
REPEAT_MAX = 20
#: Less is no time to get up in; more is not an emergency.
TIMEOUT_LEAST_S, TIMEOUT_MOST_S = 10.0, 7 * 86400.0
TIMEOUT_DEFAULT_S = 300.0
PERSON, SCHEDULE, RECEIVER = "person", "schedule", "receiver"
KINDS = (PERSON, SCHEDULE, RECEIVER)


class Target(msgspec.Struct, frozen=True, array_like=True):
    """Who is told: a person, whoever is on call in a schedule, or a receiver of the settings."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


class Level(msgspec.Struct, frozen=True, array_like=True):
    """All `targets` are told; the next level is, when nobody acknowledged within `timeout_s`."""

    targets: tuple[Target, ...]
    timeout_s: float = TIMEOUT_DEFAULT_S


class Policy(msgspec.Struct, frozen=True, array_like=True):
    """Its levels are gone through once, and `repeat` times more; then `fallback` is told, and that is all.
    `ack_timeout_s`: an acknowledgement without an end expires then, and it all begins anew; 0: it never does."""

    name: str
    levels: tuple[Level, ...]
    repeat: int = 0
    fallback: tuple[Target, ...] = ()
    ack_timeout_s: float = 0.0

    def targets(self) -> list[Target]:
        return [*(each for level in self.levels for each in level.targets), *self.fallback]

    def told(self, level: int) -> tuple[Target, ...]:
        """Whom level `level` tells, from 0; the one after the last is the fallback."""
        if level < len(self.levels):
            return self.levels[level].targets
        return self.fallback

    @property
    def outline(self) -> Outline:
        timeouts = tuple(level.timeout_s for level in self.levels)
        return Outline(self.name, timeouts, self.repeat, bool(self.fallback), self.ack_timeout_s)


class Outline(msgspec.Struct, frozen=True, array_like=True):
    """What a shard knows of a policy: its shape, and nobody's name."""

    name: str
    timeouts_s: tuple[float, ...]
    repeat: int = 0
    falls_back: bool = False
    ack_timeout_s: float = 0.0
    tenant: str = "default"


def parse_target(text: str, field: str) -> Target:
    """From "schedule:primary". Raises Malformed."""
    kind, colon, name = text.partition(":")
    if not colon or kind not in KINDS:
        raise Malformed(f"{field}: expected person:NAME, schedule:NAME or receiver:NAME, got {text[:80]!r}")
    check_name(field, name)
    return Target(kind, name)


def check_policy(policy: Policy) -> None:
    """Raises Malformed, TooLarge, naming the field."""
    where = f"escalations.{policy.name}"
    check_name("escalations", policy.name)
    if not policy.levels:
        raise Malformed(f"{where}.levels: expected at least one")
    if len(policy.levels) > LEVELS_MAX:
        raise TooLarge(f"{where}.levels: {len(policy.levels)} (limit: {LEVELS_MAX})")
    for index, level in enumerate(policy.levels):
        _check_targets(f"{where}.levels[{index}].tell", level.targets, at_least=1)
        if not TIMEOUT_LEAST_S <= level.timeout_s <= TIMEOUT_MOST_S:
            raise Malformed(f"{where}.levels[{index}].timeout: expected 10s to 7d")
    _check_targets(f"{where}.fallback", policy.fallback)
    if not 0 <= policy.repeat <= REPEAT_MAX:
        raise Malformed(f"{where}.repeat: expected 0 to {REPEAT_MAX}")
    if policy.ack_timeout_s and not TIMEOUT_LEAST_S <= policy.ack_timeout_s <= TIMEOUT_MOST_S:
        raise Malformed(f"{where}.ack_timeout: expected 10s to 7d, or 0s for never")


def _check_targets(where: str, targets: tuple[Target, ...], at_least: int = 0) -> None:
    if len(targets) < at_least:
        raise Malformed(f"{where}: expected somebody to tell, such as schedule:primary")
    if len(targets) > TARGETS_MAX:
        raise TooLarge(f"{where}: {len(targets)} (limit: {TARGETS_MAX})")
    if len(set(targets)) < len(targets):
        raise Malformed(f"{where}: the same target stands there twice")
    for each in targets:
        if each.kind not in KINDS:
            raise Malformed(f"{where}: expected person:, schedule: or receiver:, got {each.kind[:40]!r}")
        check_name(where, each.name)
