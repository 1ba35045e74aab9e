"""Incidents that have to do with each other: a person links two of them, and takes that back. Each of the two knows of it; the
other one hears by a message (models/shard/peer_messages.py)."""

from __future__ import annotations

from models.errors import NotFound, TooLarge
from models.incidents.incident import Incident, id_text
from models.incidents.lines import SYSTEM, Description, about_another, noted
from models.incidents.verbs import LINKS_MAX, Link, Unlink
from models.partition.event import Event
from models.shard import peer_messages
from models.shard.component import Component, on
from models.shard.messages import Command, PeerMessage


class IncidentLinked(Event, frozen=True):
    incident_id: bytes
    other: bytes
    actor: str
    reason: str


class IncidentUnlinked(Event, frozen=True):
    incident_id: bytes
    other: bytes
    actor: str
    reason: str


class LinkAsked(PeerMessage, frozen=True):
    """The sender is linked to you or, with `gone`, no longer."""

    actor: str
    reason: str
    gone: bool = False


class Links(Component):
    name = "links"

    # -- verbs ---------------------------------------------------------------------------------------------

    def _link(self, incident: Incident, verb: Link, command: Command, now: float) -> Incident:
        other, actor, reason = verb.other, command.actor, command.reason
        peer_messages.check_other(incident, other)
        if other in incident.related:
            return incident
        if len(incident.related) >= LINKS_MAX:
            raise TooLarge(f"incident: an incident has at most {LINKS_MAX} links")
        peer_messages.check_owed(incident)
        self.shard.do(IncidentLinked(incident.id, other, actor, reason), now)
        peer_messages.send(self.shard, incident, other, LinkAsked(actor, reason), now)
        return incident

    def _unlink(self, incident: Incident, verb: Unlink, command: Command, now: float) -> Incident:
        other, actor, reason = verb.other, command.actor, command.reason
        if other not in incident.related:
            raise NotFound(f"incident {id_text(other)} is not linked to it")
        peer_messages.check_owed(incident)
        self.shard.do(IncidentUnlinked(incident.id, other, actor, reason), now)
        peer_messages.send(self.shard, incident, other, LinkAsked(actor, reason, gone=True), now)
        return incident

    # -- from one incident to the other ----------------------------------------------------------------------

    def _link_asked(self, incident: Incident, sender: bytes, asked: LinkAsked, now: float) -> str:
        related = incident.related
        if asked.gone:
            if sender in related:
                self.shard.do(IncidentUnlinked(incident.id, sender, asked.actor, asked.reason), now)
        elif sender not in related:
            if len(related) >= LINKS_MAX:
                return f"it has {LINKS_MAX} links already"
            self.shard.do(IncidentLinked(incident.id, sender, asked.actor, asked.reason), now)
        return ""

    def _link_answered(
        self, incident: Incident, to: bytes, asked: LinkAsked, refused: str, now: float
    ) -> None:
        # An unlinked one that is gone is unlinked. Of one that a person links anew the later answer counts.
        if asked.gone or not refused or to not in incident.related:
            return
        if not peer_messages.is_owed(self.shard, incident, to, LinkAsked):
            self.shard.do(IncidentUnlinked(incident.id, to, SYSTEM, refused), now)

    # -- live and in replay ----------------------------------------------------------------------------------

    def _fold_linked(self, event: IncidentLinked, now: float) -> None:
        _incident, handling = self.state.edited(event.incident_id, now)
        handling.related.append(event.other)

    def _fold_unlinked(self, event: IncidentUnlinked, now: float) -> None:
        _incident, handling = self.state.edited(event.incident_id, now)
        handling.related.remove(event.other)

    verbs = {Link: _link, Unlink: _unlink}
    hears = {LinkAsked: _link_asked}
    answered = {LinkAsked: _link_answered}
    events = (
        on(
            IncidentLinked,
            _fold_linked,
            Description(
                ("Linked",), lambda e, _: about_another("Linked", e.actor, e.other, e.reason), summary=noted
            ),
        ),
        on(
            IncidentUnlinked,
            _fold_unlinked,
            Description(
                ("Unlinked",),
                lambda e, _: about_another("Unlinked", e.actor, e.other, e.reason),
                summary=noted,
            ),
        ),
    )
