"""By what an alert is muted: silences, and the alert that inhibits it."""

from __future__ import annotations

import msgspec


class MutedBy(msgspec.Struct, frozen=True, array_like=True):
    """Ids of silences, and of inhibition the rule, the fingerprint and the title of the alert that it is because of."""

    silences: tuple[str, ...] = ()
    rule: str = ""
    fingerprint: str = ""
    title: str = ""

    def __bool__(self) -> bool:
        return bool(self.silences or self.rule)


NOTHING = MutedBy()


class Mute(msgspec.Struct, frozen=True, array_like=True):
    """One thing that mutes alerts of an incident: a silence (`until`, `by` whom, `comment`), or the alert `title` by a `rule`."""

    alerts: int
    silence: str = ""
    until: float = 0.0
    by: str = ""
    comment: str = ""
    rule: str = ""
    fingerprint: str = ""
    title: str = ""


class IncidentMutes(msgspec.Struct, frozen=True, array_like=True):
    """What mutes an incident's alerts. `is_muted`: all that fire, so that nobody is told of it; `withheld` is what nobody was
    told because of that, "" when there was nothing to tell."""

    alerts: int
    is_muted: bool
    withheld: str
    by: list[Mute]
