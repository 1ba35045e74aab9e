"""By what alerts are muted, in words and as people see it. Used by models/shard/mutes.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from models.alerts.muted import Mute, MutedBy
from models.control.silences import Silence
from models.incidents.notification import rfc3339

#: Muted series of one incident that are looked at to say by what it is muted: 1 ms.
LOOKED_AT = 2000
#: Silences, or what else mutes, named in one line.
NAMED = 5
#: Things that mute, shown of one incident.
SHOWN = 50
#: Characters of a silence's comment in a line.
COMMENT_CHARS = 200


def words(by: MutedBy, silences: Mapping[str, Silence]) -> str:
    """A silence with its end, its author and its comment; the alert that inhibits, and by which rule."""
    said = [_silenced(each, silences.get(each)) for each in by.silences[:NAMED]]
    if by.rule:
        said.append(f"inhibited by {by.title} (rule {by.rule})")
    return "; ".join(said)


def words_of(muted: Iterable[MutedBy], silences: Mapping[str, Silence]) -> str:
    """The same of all alerts of an incident that are muted."""
    found = dict.fromkeys(islice(muted, LOOKED_AT))
    return "; ".join([words(by, silences) for by in islice(found, NAMED)])


def shown(muted: Iterable[MutedBy], silences: Mapping[str, Silence]) -> list[Mute]:
    """Each thing that mutes some of these alerts, and how many."""
    found: dict[tuple[str, str], Mute] = {}
    for by in islice(muted, LOOKED_AT):
        for identity in by.silences:
            found[identity, ""] = _mute(identity, silences.get(identity), found.get((identity, "")))
        if by.rule:
            key = by.rule, by.fingerprint
            before = found[key].alerts if key in found else 0
            found[key] = Mute(before + 1, rule=by.rule, fingerprint=by.fingerprint, title=by.title)
    return [*islice(found.values(), SHOWN)]


def _silenced(identity: str, silence: Silence | None) -> str:
    if silence is None:
        return f"silenced by {identity}"
    comment = " ".join(silence.comment.split())[:COMMENT_CHARS]
    about = ", ".join(each for each in (silence.created_by, comment) if each)
    return f"silenced until {rfc3339(silence.ends_at)} by {identity}" + (f" ({about})" if about else "")


def _mute(identity: str, silence: Silence | None, before: Mute | None) -> Mute:
    alerts = 1 if before is None else before.alerts + 1
    if silence is None:
        return Mute(alerts, identity)
    return Mute(alerts, identity, silence.ends_at, silence.created_by, silence.comment)
