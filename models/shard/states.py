"""The states of an incident: what a move does to it, and the moves that time causes."""

from __future__ import annotations

from models.incidents.incident import AUTOMATED, OPEN_STATES, Incident, IncidentState, Resolution
from models.incidents.lines import SYSTEM, Around, Description, Line, changed, line_of
from models.incidents.query import Summary
from models.shard import clock, lifecycle
from models.shard.component import Component, on
from models.shard.events import ClockSetBack, IncidentStateChanged


def _line(event: IncidentStateChanged, _around: Around) -> Line:
    if event.after is IncidentState.RESOLVED:
        cause = event.root_cause or ""
        return line_of(
            "Resolved", event.actor, event.reason, event.reason, method=event.method, root_cause=cause
        )
    text = f"{event.before} -> {event.after}: {event.reason}"
    return line_of(
        "StateChanged", event.actor, text, event.reason, before=event.before.value, after=event.after.value
    )


def _summary(summary: Summary, event: IncidentStateChanged, now: float) -> Summary:
    if event.after is IncidentState.RESOLVED:
        return changed(summary, now, state=event.after, resolved_at=now)
    if event.after is IncidentState.CLOSED:
        return changed(summary, now, state=event.after, closed_at=now)
    if summary.state not in OPEN_STATES:
        again = summary.reopened + 1
        return changed(summary, now, state=event.after, resolved_at=0.0, closed_at=0.0, reopened=again)
    return changed(summary, now, state=event.after)


class States(Component):
    name = "states"

    def next_at(self, incident: Incident) -> float:
        if incident.state is not IncidentState.RESOLVED:
            return 0.0
        if incident.firing:
            # Not closed while an alert still fires that a person resolved.
            return 0.0 if incident.handling is None else incident.handling.still_firing_at
        # Nor while a notification is pending, or it is watched; when that is done, this is checked again.
        if incident.is_owed_notification or incident.id in self.state.watched:
            return 0.0
        return self._close_at(incident)

    def due(self, incident: Incident, now: float) -> None:
        if incident.firing:
            reason = f"{incident.firing} of its alerts still fire"
            lifecycle.reopen(self.shard, incident, now, reason=reason)
        else:
            lifecycle.move(
                self.shard, incident, IncidentState.CLOSED, SYSTEM, "resolved for close_after", now
            )

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        if incident.handling is not None and incident.resolved_at > event.after:
            incident.handling.still_firing_at = clock.due(incident.handling.still_firing_at, event)

    def _close_at(self, incident: Incident) -> float:
        # Closed is past reopening: while reopen_window is open the incident must be there to be reopened.
        settings = self.shard.settings
        return incident.resolved_at + max(settings.close_after_s, settings.reopen_window_s)

    def _fold(self, event: IncidentStateChanged, now: float) -> None:
        state = self.state
        incident = state.changing(event.incident_id)
        was_open = incident.is_open
        incident.state = event.after
        incident.updated_at = now
        incident.version += 1
        handling = incident.handling
        if event.still_firing_at:
            handling = incident.handled()
        if handling is not None:
            handling.still_firing_at = event.still_firing_at
        state.open_count += incident.is_open - was_open
        if event.after is IncidentState.RESOLVED:
            incident.resolved_at = now
            incident.resolution = Resolution(now, event.actor, event.method, event.reason, event.root_cause)
        elif event.after is IncidentState.CLOSED:
            incident.closed_at = now
            group = (incident.tenant, incident.group_key)
            if state.by_group.get(group) is incident:
                del state.by_group[group]
        elif not was_open:
            incident.reopened += 1
            incident.resolved_at = incident.closed_at = 0.0
            incident.resolution = None
            incident.opened_at = now
            incident.targets_told = 0
            if handling is not None:
                attended = handling.acknowledged is not None or incident.assignees
                handling.answered_at = now if attended else 0.0
            if not incident.is_by_hand:
                state.by_group[incident.tenant, incident.group_key] = incident

    events = (
        on(IncidentStateChanged, _fold, Description(("StateChanged", "Resolved"), _line, summary=_summary)),
    )


def is_begun_by_alerts(event: IncidentStateChanged) -> bool:
    """Whether its alerts opened an incident again. Until 0.2.0 they did so without a method, and as the system."""
    is_reopening = event.before not in OPEN_STATES and event.after in OPEN_STATES
    return is_reopening and (event.method == AUTOMATED or event.actor == SYSTEM)
