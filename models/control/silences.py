"""Silences: what mutes which alerts, from when until when. What becomes of them: models/control/silencing.py.

    pending --starts_at--> active --ends_at, or somebody expires it--> expired --RETENTION_S--> forgotten

By Alertmanager's rules: one that has begun can be made longer or shorter. What would change what it has muted already (its
matchers, its beginning) expires it, and a new one with another id goes on.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from models.alerts.matchers import MatcherTuple, test_of
from models.alerts.patterns import Budget, Pattern
from models.errors import Malformed, TooLarge
from models.partition.event import Event
from models.wire import Wire

#: So long an expired silence can be looked at and renewed, as in Alertmanager.
RETENTION_S = 120 * 3600.0
#: Silences that have not expired. Twice what the largest installations that we heard of have; a shard holds them all.
SILENCES_MAX = 20_000
#: Bytes of what all silences say, the expired ones too: every process of the system holds them.
BYTES_MAX = 64 * 1024 * 1024
#: Bytes of one silence: what a person writes has a few hundred.
SILENCE_BYTES_MAX = 16 * 1024
#: Matchers of one silence, as many as one query may have.
MATCHERS_MAX = 64
#: Bytes that an entry takes beside its texts.
_ENTRY_BYTES = 200


class SilenceState(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"


class Silence(msgspec.Struct, frozen=True, array_like=True):
    """Mutes every alert that all matchers hold for, from `starts_at` until `ends_at` (seconds since the epoch)."""

    id: str
    matchers: tuple[MatcherTuple, ...]
    starts_at: float
    ends_at: float
    created_by: str
    comment: str
    updated_at: float
    annotations: dict[str, str] = {}
    tenant: str = "default"
    #: The `new_id` of the message that changed it last in place: told again, that changes nothing.
    change: str = ""

    def state(self, now: float) -> SilenceState:
        if now < self.starts_at:
            return SilenceState.PENDING
        return SilenceState.ACTIVE if now < self.ends_at else SilenceState.EXPIRED


class SetSilence(Wire, frozen=True):
    """Make a silence, or change the one with `id`. `new_id` is what a new one is called: a repeat with the same changes
    nothing. `starts_at` 0: now."""

    new_id: str
    matchers: list[MatcherTuple]
    starts_at: float
    ends_at: float
    created_by: str
    comment: str
    id: str = ""
    annotations: dict[str, str] = {}
    tenant: str = "default"


class ExpireSilence(Wire, frozen=True):
    """End a silence now. Safe to repeat."""

    id: str
    actor: str
    tenant: str = "default"


class SilenceSet(Event, frozen=True):
    """Control partition: a silence as it is from now on, new or changed."""

    silence: Silence
    actor: str


class SilenceExpired(Event, frozen=True):
    """Control partition: a silence was ended at `at`, before its time. `replaced_by`: it goes on as that one."""

    id: str
    at: float
    actor: str
    replaced_by: str = ""


def wanted_of(message: SetSilence, now: float) -> Silence:
    """The silence that a message asks for."""
    return Silence(
        message.id or message.new_id,
        tuple(message.matchers),
        message.starts_at or now,
        message.ends_at,
        message.created_by,
        message.comment,
        now,
        message.annotations,
        message.tenant,
    )


def check(silence: Silence) -> None:
    """Raises Malformed with Alertmanager's text, TooLarge."""
    matchers = silence.matchers
    if not matchers:
        raise Malformed("invalid silence: at least one matcher required")
    if len(matchers) > MATCHERS_MAX:
        raise TooLarge(f"invalid silence: {len(matchers)} matchers (limit: {MATCHERS_MAX})")
    budget = Budget("silence")
    for place, matcher in enumerate(matchers):
        name, _operator, value = matcher
        where = f"invalid silence: invalid label matcher {place}"
        if not name:
            raise Malformed(f'{where}: invalid label name ""')
        try:
            test_of(matcher, budget)
        except Malformed as error:
            raise Malformed(f"{where}: invalid regular expression {_quoted(value)}: {error}") from None
        except TooLarge as error:
            raise TooLarge(f"{where}: {error}") from None
    if all(_is_met_by_nothing(matcher) for matcher in matchers):
        raise Malformed("invalid silence: at least one matcher must not match the empty string")
    if not silence.ends_at:
        raise Malformed("invalid silence: invalid zero end timestamp")
    if silence.ends_at < silence.starts_at:
        raise Malformed("invalid silence: end time must not be before start time")
    if (size := size_of(silence)) > SILENCE_BYTES_MAX:
        raise TooLarge(f"silence exceeded maximum size: {size} bytes (limit: {SILENCE_BYTES_MAX} bytes)")


def _is_met_by_nothing(matcher: MatcherTuple) -> bool:
    """As Alertmanager sees it: of a negative matcher it asks no more."""
    _name, operator, value = matcher
    if operator == "=":
        return not value
    return operator == "=~" and Pattern(value, Budget("silence")).matches("")


def size_of(silence: Silence) -> int:
    texts = sum(len(name) + len(value) + 2 for name, _operator, value in silence.matchers)
    texts += sum(len(name) + len(value) for name, value in silence.annotations.items())
    return _ENTRY_BYTES + texts + len(silence.comment) + len(silence.created_by)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
