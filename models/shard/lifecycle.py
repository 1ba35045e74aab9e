"""The moves of an incident, below all components: who decides something calls these, they make the event, and report what has
become of the incident (models/shard/changes.py). Who has to do something then reacts; nobody here knows of it.
"""

from __future__ import annotations

from models.errors import Broken
from models.incidents.incident import AUTOMATED, LEGAL_MOVES, Incident, IncidentState, Severity
from models.incidents.lines import SYSTEM
from models.shard.changes import Judged, Moved, Rerated, ResolvedByPerson, Unattended
from models.shard.core import Core
from models.shard.events import IncidentStateChanged

#: A person who resolves an incident whose alerts still fire is believed for so long; then it is opened again.
STILL_FIRING_S = 1800.0


def move(
    shard: Core,
    incident: Incident,
    after: IncidentState,
    actor: str,
    reason: str,
    now: float,
    method: str = "",
    root_cause: str | None = None,
    still_firing_at: float = 0.0,
) -> None:
    """A legal move. Raises Broken for any other."""
    before = incident.state
    if after not in LEGAL_MOVES[before]:
        raise Broken(f"incident {incident.id.hex()}: {before} -> {after} is no legal move")
    shard.do(
        IncidentStateChanged(incident.id, before, after, actor, reason, method, root_cause, still_firing_at),
        now,
    )
    shard.report(Moved(incident, before), now)


def judged(shard: Core, incident: Incident, before: Severity, reason: str, actor: str, now: float) -> None:
    """What an incident counts as may be another than `before`: what follows from that."""
    if incident.severity != before:
        shard.report(Rerated(incident, before), now)
    if not incident.is_open:
        return
    if incident.state is IncidentState.DETECTED:
        move(shard, incident, IncidentState.TRIAGED, actor, reason, now)
    shard.report(Judged(incident, before), now)


def ended(shard: Core, incident: Incident, reason: str, now: float) -> None:
    """Something of an incident ended: when nothing of it goes on, neither alerts nor children, it is resolved."""
    if incident.firing or not incident.is_open or incident.is_by_hand:
        return
    if any(child.is_open for child in incident.children.values()):
        return
    move(shard, incident, IncidentState.RESOLVED, shard.actor, reason, now, method=AUTOMATED)


def resolve(
    shard: Core,
    incident: Incident,
    actor: str,
    method: str,
    notes: str,
    now: float,
    root_cause: str | None = None,
) -> None:
    """An open incident ends because a person says so, and its children with it. Alerts that go on firing are believed again
    after STILL_FIRING_S."""
    again_at = now + STILL_FIRING_S if incident.firing else 0.0
    reason = notes or "resolved by hand"
    move(shard, incident, IncidentState.RESOLVED, actor, reason, now, method, root_cause, again_at)
    shard.report(ResolvedByPerson(incident, actor, method, notes), now)


def may_reopen(shard: Core, incident: Incident, now: float) -> bool:
    """Whether what begins now is the same incident going on. One that a person resolved never ended while its alerts
    fire."""
    return incident.state is IncidentState.RESOLVED and (
        incident.firing > 0 or now - incident.resolved_at <= shard.settings.reopen_window_s
    )


def reopen(
    shard: Core,
    incident: Incident,
    now: float,
    actor: str = SYSTEM,
    reason: str = "fires again within reopen_window",
    method: str = AUTOMATED,
) -> None:
    """Resolved or closed, it goes on: who looked after it goes on doing so."""
    handling = incident.handling
    attended = incident.assignees or (handling is not None and handling.acknowledged is not None)
    after = IncidentState.INVESTIGATING if attended else IncidentState.TRIAGED
    move(shard, incident, after, actor, reason, now, method)


def attended(shard: Core, incident: Incident, actor: str, reason: str, now: float) -> None:
    """Somebody looks after it from now on."""
    if incident.state in (IncidentState.DETECTED, IncidentState.TRIAGED):
        move(shard, incident, IncidentState.INVESTIGATING, actor, reason, now)


def left_alone(shard: Core, incident: Incident, actor: str, reason: str, now: float) -> None:
    """An acknowledgement or an assignment ended: when nobody looks after it any more, it is Triaged again."""
    if incident.state is IncidentState.INVESTIGATING and not incident.is_attended:
        move(shard, incident, IncidentState.TRIAGED, actor, reason, now)


def timed_out(shard: Core, incident: Incident, now: float) -> None:
    """The time of its acknowledgement has passed. Whoever gave it does not look after it any more, as far as anyone knows."""
    left_alone(shard, incident, SYSTEM, "the time of its acknowledgement has passed", now)
    shard.report(Unattended(incident), now)
