"""Which playbooks are to run for an incident: when there is a verdict, or CHOOSE_AFTER_S after it opened, whichever is first; and
again when it gets more severe. Nothing runs for what is muted before people would be told of it. What was chosen is run by
models/shard/runs.py, one after the other.

A playbook is chosen once for each life of an incident, and only if the shard knew it before that life began. Where none matches
there is no event: a writer that starts looks again and finds the same.
"""

from __future__ import annotations

from models.incidents.incident import Incident
from models.playbook.run_events import Chosen, PlaybooksChosen
from models.playbook.select import match, rank
from models.shard.changes import Judged, Moved, Muted, Unmuted
from models.shard.component import Component
from models.shard.core import Core
from models.shard.known_playbooks import KnownPlaybooks, Offered, PlaybooksKnown
from models.shard.messages import Tick
from models.shard.runs import Runs, judged
from models.shard.schedules import is_scheduled

#: So long a verdict is waited for.
CHOOSE_AFTER_S = 0.3


class Choosing(Component):
    name = "playbooks chosen"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: Incidents to look at in this step.
        self._look: dict[bytes, None] = {}
        #: Those that something withholds: looked at again at each tick.
        self._held: dict[bytes, None] = {}
        #: Those that were looked at, with the beginning of their life then.
        self._seen: dict[bytes, float] = {}
        #: Those that were looked at with a verdict.
        self._verdict: dict[bytes, None] = {}

    @property
    def _is_on(self) -> bool:
        return self.shard.settings.playbooks and bool(self.shard.of(KnownPlaybooks).offered)

    # -- when --

    def next_at(self, incident: Incident) -> float:
        if not self._is_on or not incident.is_open or incident.merged_into:
            return 0.0
        if (
            incident.opened_at < self.shard.of(KnownPlaybooks).since
            or self._seen.get(incident.id) == incident.opened_at
        ):
            return 0.0
        if incident.id in self._held:
            return 0.0
        return incident.opened_at + CHOOSE_AFTER_S

    def due(self, incident: Incident, now: float) -> None:
        self._look[incident.id] = None

    def _judged(self, change: Judged, now: float) -> None:
        """At its first verdict, and whenever it gets more severe."""
        incident = change.incident
        if self._is_on and (incident.severity < change.before or incident.id not in self._verdict):
            self._verdict[incident.id] = None
            self._look[incident.id] = None

    def _moved(self, change: Moved, now: float) -> None:
        if not change.incident.is_open:
            self._held.pop(change.incident.id, None)

    def _mutes_changed(self, change: Muted | Unmuted, now: float) -> None:
        if change.incident.id in self._held:
            self._look[change.incident.id] = None

    def _known(self, _change: PlaybooksKnown, now: float) -> None:
        """The wheel was set when there was nothing to choose from."""
        since = self.shard.of(KnownPlaybooks).since
        if self._is_on:
            for identity, incident in self.state.incidents.items():
                is_new = incident.opened_at >= since and self._seen.get(identity) != incident.opened_at
                if incident.is_open and is_new:
                    self.state.stirred[identity] = None

    def tick(self, tick: Tick, now: float) -> None:
        self._look.update(self._held)

    def started(self, now: float, is_set_back: bool) -> None:
        self._seen.clear()
        self._verdict = {key: None for key, each in self.state.incidents.items() if each.is_classified}
        self._held.clear()

    def left(self, incident: Incident) -> None:
        self._seen.pop(incident.id, None)
        self._verdict.pop(incident.id, None)
        self._held.pop(incident.id, None)

    def settle(self, now: float) -> None:
        if not self._look:
            return
        look, self._look = self._look, {}
        for identity in look:
            incident = self.state.incidents.get(identity)
            # A run by the clock has its playbook: no other is to repair it.
            if incident is not None and not is_scheduled(incident):
                self._choose(incident, now)

    # -- which --

    def _choose(self, incident: Incident, now: float) -> None:
        self._held.pop(incident.id, None)
        if not self._is_on or not incident.is_open or incident.merged_into:
            return
        found = self._matching(incident)
        if found and self.shard.withholds(incident) is not None:
            self._held[incident.id] = None
            return
        self._seen[incident.id] = incident.opened_at
        self.state.stirred[incident.id] = None
        if found:
            self.shard.do(PlaybooksChosen(incident.id, incident.severity, found), now)
            self.shard.of(Runs).look_at(incident.id)

    def _matching(self, incident: Incident) -> list[Chosen]:
        known, mine = self.shard.of(KnownPlaybooks), self.shard.of(Runs).store.of(incident.id)
        waiting = {each.playbook for each in (*mine.chosen, *mine.asking)}
        found: list[tuple[Offered, str]] = []
        for offered in known.offered.values():
            if (
                offered.mode == "paused"
                or known.heard_at(offered) > incident.opened_at
                or offered.name in waiting
            ):
                continue
            if any(at >= incident.opened_at for at in mine.started.get(offered.name, ())):
                continue
            opened_at, severity = mine.refused.get(offered.name, (0.0, 0))
            if opened_at == incident.opened_at and judged(incident) >= severity:
                continue
            held = match(known.book(offered).trigger, incident)
            if held.matches:
                found.append((offered, held.why))
        found.sort(key=lambda each: rank(known.book(each[0])))
        return [
            Chosen(
                offered.name,
                offered.version,
                offered.digest,
                why,
                offered.mode == "shadow",
                known.book(offered).trigger.expression,
            )
            for offered, why in found
        ]

    reactions = {
        Judged: _judged,
        Moved: _moved,
        Muted: _mutes_changed,
        Unmuted: _mutes_changed,
        PlaybooksKnown: _known,
    }
