"""Classification of incidents: requested for each new one, and again when its alerts bring something new."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from models.alerts.alert import Content
from models.alerts.grouping import title_of
from models.incidents.incident import Incident, IncidentType, Severity, Verdict
from models.incidents.lines import SYSTEM, Around, Description, Line, changed, counted_anew
from models.incidents.query import Summary
from models.partition.event import Event
from models.shard import lifecycle
from models.shard.changes import Opened, Signalled, SplitOff
from models.shard.component import Component, on
from models.shard.core import Core
from models.shard.effects import Classify, Effect
from models.shard.messages import Classification, Classified, Done, Reply
from models.shard.sharing import first_alert, labelled


class IncidentClassified(Event, frozen=True):
    incident_id: bytes
    severity: Severity
    type: IncidentType
    impact: str
    by: str
    confidence: float
    asked: int


def _line(event: IncidentClassified, around: Around) -> Line | None:
    counts = around.after.counts
    text = f"{counts.severity.name} {counts.type}, by {event.by}"
    if around.before is None or not around.before.is_classified:
        return Line("Classified", SYSTEM, text)
    if around.before.counts.severity == counts.severity:
        return None
    return Line("SeverityChanged", SYSTEM, text)


def _summary(summary: Summary, event: IncidentClassified, now: float) -> Summary:
    verdict = Verdict(event.severity, event.type, event.impact)
    return counted_anew(changed(summary, now, verdict=verdict, is_classified=True))


class Classifying(Component):
    name = "classification"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: What is to be asked, with what its first alert says where that is at hand.
        self._wanted: dict[bytes, Content | None] = {}

    def _classified(self, message: Classified, now: float) -> Reply:
        for verdict in message.verdicts:
            judge(self.shard, verdict, now)
        return Done()

    def _opened(self, change: Opened, _now: float) -> None:
        self._wanted[change.incident.id] = change.content

    def _wants(self, change: SplitOff | Signalled, _now: float) -> None:
        if change.incident.classify_owed:
            self._wanted.setdefault(change.incident.id, None)

    def started(self, now: float, is_set_back: bool) -> None:
        self._wanted = {
            identity: None for identity, each in self.state.incidents.items() if each.classify_owed
        }

    def owed(self, now: float) -> Iterable[Effect]:
        return self._questions() if self._wanted else ()

    def _questions(self) -> Iterator[Effect]:
        for identity, first in self._wanted.items():
            incident = self.state.incidents.get(identity)
            if incident is not None and incident.classify_owed:
                yield self._question(incident, first or first_alert(self.state, incident))
        self._wanted.clear()

    def ask_again(self, effect: Classify) -> None:
        if effect.incident_id in self.state.incidents:
            self._wanted[effect.incident_id] = None

    def _question(self, incident: Incident, first: Content | None) -> Classify:
        # Of its first alert, so that a rule about a label that its alerts do not share (pod) goes on being asked, and
        # the answer does not depend on how many had joined when it was asked. Labels that people set count as well.
        if first is None:
            title, description = incident.title, incident.description
            labels, annotations = incident.labels, incident.annotations
        else:
            labels, annotations = labelled(incident, first.labels), first.annotations
            title = title_of(first.labels, annotations, incident.service)
            description = annotations.get("description", "")
        return Classify(
            incident.id,
            incident.tenant,
            incident.service,
            incident.source,
            title,
            description,
            labels,
            annotations,
            list(incident.signals),
            len(incident.signals),
        )

    def _fold(self, event: IncidentClassified, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        verdict = Verdict(event.severity, event.type, event.impact)
        if incident.handling is None:
            incident.severity, incident.type, incident.impact = event.severity, event.type, event.impact
        else:
            incident.handling.verdict = verdict
            incident.settle()
        incident.classified_by = event.by
        incident.confidence = event.confidence
        incident.signals_asked = event.asked
        incident.classify_owed = event.asked < len(incident.signals)
        incident.updated_at = now
        incident.version += 1

    messages = {Classified: _classified}
    reactions = {Opened: _opened, SplitOff: _wants, Signalled: _wants}
    effects = (Classify,)
    events = (
        on(
            IncidentClassified,
            _fold,
            Description(
                ("Classified", "SeverityChanged"), _line, summary=_summary, compares=True, sifts=True
            ),
        ),
    )


def rate(shard: Core, incident: Incident, severity: Severity, why: str, now: float) -> None:
    """Give an incident another severity for a reason of our own. A person's still wins."""
    before = incident.severity
    verdict = Verdict(severity, incident.type, incident.impact)
    shard.do(
        IncidentClassified(
            incident.id, verdict.severity, verdict.type, verdict.impact, why, 1.0, incident.signals_asked
        ),
        now,
    )
    lifecycle.judged(shard, incident, before, why, SYSTEM, now)


def judge(shard: Core, verdict: Classification, now: float) -> None:
    """Apply one classification. One that covers fewer signals than the last is ignored."""
    incident = shard.state.incidents.get(verdict.incident_id)
    if incident is None or verdict.asked < incident.signals_asked or not incident.classify_owed:
        return
    before = incident.severity
    shard.do(
        IncidentClassified(
            incident.id,
            verdict.severity,
            verdict.type,
            verdict.impact,
            verdict.by,
            verdict.confidence,
            verdict.asked,
        ),
        now,
    )
    lifecycle.judged(shard, incident, before, f"classified by {verdict.by}", SYSTEM, now)
