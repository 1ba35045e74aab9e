"""The events of escalations, and how they read in a timeline. Used by models/shard/escalation.py."""

from __future__ import annotations

from models.incidents.lines import SYSTEM, Around, Line, line_of
from models.incidents.notification import rfc3339
from models.partition.event import Event
from models.people.policy import Outline
from models.shard.escalation_state import NOBODY, OVER


class PoliciesKnown(Event, frozen=True):
    """The shard heard which escalation policies there are, by their shape, as the control partition has them at `version`."""

    version: int
    outlines: list[Outline]


class EscalationBegan(Event, frozen=True):
    """A level of `policy`, which `route` names, is told at `due_at` unless somebody is on it before: the first, or, of what comes and goes,
    the one (`level`, from 0) that it had come to."""

    incident_id: bytes
    policy: str
    route: str
    due_at: float
    why: str
    level: int = 0
    round: int = 0


class EscalationUnknown(Event, frozen=True):
    """Nobody is paged: its route names a policy that does not exist."""

    incident_id: bytes
    policy: str


class LevelDue(Event, frozen=True):
    """Page `number`: the people of `level` (from 0; OVER: all who were told, that it is over) are to be told now. The next level is due
    at `next_at`, 0 when none follows. `falls_back`: it is the policy's fallback."""

    incident_id: bytes
    number: int
    level: int
    round: int
    next_at: float
    falls_back: bool = False


class LevelTold(Event, frozen=True):
    """What a try (`attempt`, from 0) at page `number` came to: who was told (person:way), what failed, and whom nobody could be found
    for. It is tried again at `retry_at`, 0: never. `next_at`: when the next level is due instead, 0: as it was.
    `final`: who was not told and is not tried again."""

    incident_id: bytes
    number: int
    attempt: int
    told: list[str]
    failed: list[str]
    missed: list[str]
    retry_at: float
    next_at: float = 0.0
    level: int = 0
    policy: str = ""
    final: list[str] = []


class EscalationPaused(Event, frozen=True):
    """The next level waits: the incident is muted."""

    incident_id: bytes
    why: str


class EscalationResumed(Event, frozen=True):
    """The next level is due at `due_at`."""

    incident_id: bytes
    due_at: float
    why: str


class EscalationStopped(Event, frozen=True):
    """Nobody more is paged, because of what `actor` did. What is still owed is dropped. `ack_until`: see Escalation."""

    incident_id: bytes
    why: str
    actor: str = SYSTEM
    ack_until: float = 0.0


class EscalationEnded(Event, frozen=True):
    """All levels were told as often as the policy says, and nobody acknowledged."""

    incident_id: bytes
    policy: str
    rounds: int


def began(event: EscalationBegan, around: Around) -> Line:
    wait_s = event.due_at - around.now
    when = f", level {event.level + 1} at {rfc3339(event.due_at)}" if wait_s > 0 else ""
    text = f"by policy {event.policy} of route {event.route}{when}: {event.why}"
    return line_of("EscalationBegan", SYSTEM, text, event.why, policy=event.policy, route=event.route)


def unknown(event: EscalationUnknown, _around: Around) -> Line:
    text = f"nobody is paged: there is no escalation policy {event.policy}"
    return line_of("EscalationFailed", SYSTEM, text, policy=event.policy)


def due(event: LevelDue, _around: Around) -> Line | None:
    if event.level == OVER:
        return None
    again = f", round {event.round + 1}" if event.round else ""
    what = "the fallback" if event.falls_back else f"level {event.level + 1}"
    until = f"; next at {rfc3339(event.next_at)}" if event.next_at else ""
    return line_of("EscalationLevelDue", SYSTEM, f"{what}{again}{until}", level=str(event.level + 1))


def told(event: LevelTold, _around: Around) -> Line:
    parts = []
    if event.told:
        parts.append(f"told {', '.join(map(in_words, event.told))}")
    parts += [f"failed: {each}" for each in event.failed]
    parts += [f"nobody told: {each}" for each in event.missed]
    if event.retry_at:
        parts.append("will retry")
    what = "resolved" if event.level == OVER else f"level {event.level + 1}"
    kind = "EscalationTold" if event.told else "EscalationFailed"
    return line_of(
        kind, SYSTEM, f"{what}: {'; '.join(parts) or 'nobody is left to be told'}", policy=event.policy
    )


def told_of(event: LevelTold) -> tuple[bytes, ...]:
    # The first failure and the last one, and whoever was told.
    return () if event.retry_at and event.attempt and not event.told else (event.incident_id,)


def paused(event: EscalationPaused, _around: Around) -> Line:
    return line_of("EscalationPaused", SYSTEM, event.why, event.why)


def resumed(event: EscalationResumed, _around: Around) -> Line:
    return line_of("EscalationResumed", SYSTEM, event.why, event.why)


def stopped(event: EscalationStopped, _around: Around) -> Line:
    return line_of("EscalationStopped", event.actor, event.why, event.why)


def ended(event: EscalationEnded, _around: Around) -> Line:
    rounds = f"{event.rounds} {'round' if event.rounds == 1 else 'rounds'}"
    text = f"nobody acknowledged after {rounds} of policy {event.policy}"
    return line_of("EscalationEnded", SYSTEM, text, policy=event.policy)


def in_words(reached: str) -> str:
    """ "ana by mail" of "ana:mail"; a receiver that stands for itself is "*:ops"."""
    person, _, way = reached.partition(":")
    return f"receiver {way}" if person == NOBODY else f"{person} by {way}"
