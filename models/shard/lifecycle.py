"""The moves of an incident, below all components: whoever decides something calls these; they make the event and report
the change (models/shard/changes.py). Components then react; nothing here knows about them.
"""

from __future__ import annotations

from models.errors import Broken
from models.incidents.incident import AUTOMATED, LEGAL_MOVES, Incident, IncidentState, Severity
from models.incidents.lines import SYSTEM
from models.shard.changes import Judged, Moved, Rerated, ResolvedByPerson, Unattended
from models.shard.core import Core
from models.shard.events import IncidentStateChanged

#: How long an incident stays resolved if a person resolved it while its alerts still fire; then it reopens.
STILL_FIRING_S = 1800.0
WATCHED_REASON = "fires again while its repair is watched"


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
    """What an incident counts as may have changed from `before`: do what follows."""
    if incident.severity != before:
        shard.report(Rerated(incident, before), now)
    if not incident.is_open:
        return
    if incident.state is IncidentState.DETECTED:
        move(shard, incident, IncidentState.TRIAGED, actor, reason, now)
    shard.report(Judged(incident, before), now)


def ended(shard: Core, incident: Incident, reason: str, now: float) -> None:
    """An alert or child of an incident ended: if none is left, it is resolved."""
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
    """A person resolves an open incident, and its children with it. Alerts that keep firing reopen it after
    STILL_FIRING_S."""
    again_at = now + STILL_FIRING_S if incident.firing else 0.0
    reason = notes or "resolved by hand"
    move(shard, incident, IncidentState.RESOLVED, actor, reason, now, method, root_cause, again_at)
    shard.report(ResolvedByPerson(incident, actor, method, notes), now)


def may_reopen(shard: Core, incident: Incident, now: float) -> bool:
    """Whether what begins now continues the same incident. One that a person resolved while its alerts fired never
    ended, and one that is watched has not ended for good."""
    return incident.state is IncidentState.RESOLVED and (
        incident.firing > 0
        or now - incident.resolved_at <= shard.settings.reopen_window_s
        or incident.id in shard.state.watched
    )


def reopen(
    shard: Core,
    incident: Incident,
    now: float,
    actor: str = SYSTEM,
    reason: str = "",
    method: str = AUTOMATED,
) -> None:
    """A resolved or closed incident reopens; its acknowledgement and assignees stay."""
    handling = incident.handling
    attended = incident.assignees or (handling is not None and handling.acknowledged is not None)
    after = IncidentState.INVESTIGATING if attended else IncidentState.TRIAGED
    if not reason:
        is_watched = incident.id in shard.state.watched
        reason = WATCHED_REASON if is_watched else "fires again within reopen_window"
    move(shard, incident, after, actor, reason, now, method)


def attended(shard: Core, incident: Incident, actor: str, reason: str, now: float) -> None:
    """Somebody is on it from now on."""
    if incident.state in (IncidentState.DETECTED, IncidentState.TRIAGED):
        move(shard, incident, IncidentState.INVESTIGATING, actor, reason, now)


def left_alone(shard: Core, incident: Incident, actor: str, reason: str, now: float) -> None:
    """An acknowledgement or an assignment ended: if nobody is on it any more, it is Triaged again."""
    if incident.state is IncidentState.INVESTIGATING and not incident.is_attended:
        move(shard, incident, IncidentState.TRIAGED, actor, reason, now)


def timed_out(shard: Core, incident: Incident, now: float) -> None:
    """Its acknowledgement has expired. As far as we know, whoever gave it is no longer on it."""
    left_alone(shard, incident, SYSTEM, "its acknowledgement expired", now)
    shard.report(Unattended(incident), now)
