"""Stories about one shard: push what arrives and when, look at what came of it. Used by tests/pure and tests/data.

    story = Story()
    story.push(at(1), alert("llm-api", "Down"))
    story.classify(at(1), Severity.P2)
    story.ticks(at(2), at(30))
    story.do(at(3), Acknowledge(), story.incident, by="ann")
    assert story.sent() == [(11, "opened", 0)]

Time stands still between two steps. Effects wait in `asked` until classify(), receive() or archive() answers them.
After each step the replay of all events must equal the shard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from models.alerts.alert import Content, key_digest, series_id
from models.incidents.incident import Incident, IncidentState, IncidentType, Severity
from models.incidents.verbs import AnyVerb
from models.partition.event import Event
from models.shard.effects import Act, Archive, Classify, Effect, SendPeerMessage
from models.shard.messages import (
    ActionOutcome,
    AlertsArrived,
    AlertsReply,
    Archived,
    Classification,
    Classified,
    Command,
    CommandDone,
    Decision,
    Failed,
    GapEnded,
    Message,
    PeerMessageAnswered,
    PeerMessageArrived,
    Tick,
)
from models.shard.settings import ShardSettings
from models.shard.shard import Shard, Step
from tests.simulation.dump import difference, dump, unsound

AnyEvent = TypeVar("AnyEvent", bound=Event)

#: The beginning of every story, in seconds since the epoch.
ZERO = 1767225600.0
#: What a story's shard decides by, unless it says otherwise.
SETTINGS = ShardSettings(
    reopen_window_s=60.0,
    close_after_s=120.0,
    expiry_grace_s=30.0,
    max_open=3,
    notify=True,
    wait_s=(0, 0, 10, 20, 30),
    interval_s=0.0,
)


def at(second: float) -> float:
    return ZERO + second


@dataclass(frozen=True, slots=True)
class Alert:
    """What a sender says. `ends` in seconds of the story; inf fires until told otherwise. No start is NaN."""

    labels: dict[str, str]
    annotations: dict[str, str] = field(default_factory=dict)
    starts: float = 0.0
    ends: float = math.inf

    @property
    def body(self) -> bytes:
        starts = 0.0 if math.isnan(self.starts) else ZERO + self.starts
        return msgspec.msgpack.encode(Content(self.labels, self.annotations, starts, "", "test"))

    @property
    def key(self) -> bytes:
        return series_id("default", self.labels) + key_digest(self.body)

    def ended(self, second: float) -> Alert:
        return Alert(self.labels, self.annotations, self.starts, second)


def alert(
    service: str,
    name: str,
    instance: str = "a",
    *,
    severity: str = "",
    ends: float = math.inf,
    starts: float = 0.0,
    **annotations: str,
) -> Alert:
    labels = {"service": service, "alertname": name, "instance": instance}
    if severity:
        labels["severity"] = severity
    return Alert(labels, annotations, starts, ends)


class Refusal(Exception):
    """A shard refused a command: `kind` is the error's name."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class Story:
    """One shard, driven by hand. Each step is checked: replay of its events gives the same state."""

    def __init__(self, settings: ShardSettings = SETTINGS) -> None:
        self.settings = settings
        self.shard = Shard("shard/0000", settings)
        self.shard.epoch = 1
        self.replayed = Shard("shard/0000", settings)
        self.now = ZERO
        self.asked: list[tuple[float, Effect]] = []
        self.events: list[tuple[float, Event]] = []
        self.reply: AlertsReply = AlertsReply(b"")
        self._calls = 0

    # -- what happens --------------------------------------------------------------------------------------

    def tell(self, when: float, message: Message) -> Step:
        self.shard.seq += 1
        return self._took(self.shard.handle(message, when), when)

    def restart(self, when: float) -> None:
        """The process died: another starts from the events, and asks again for all it owes."""
        self.shard = self.replayed
        self.shard.epoch += 1
        self.replayed = Shard("shard/0000", self.settings)
        for then, event in self.events:
            self.replayed.apply(event, then)
        self._took(self.shard.started("shard-0000-a", when), when)

    def push(
        self,
        when: float,
        *alerts: Alert,
        call: bytes = b"",
        delivery: str | None = None,
        before: bytes | None = None,
        said: bytes = b"",
    ) -> Step:
        self._calls += 1
        step = self.tell(
            when,
            AlertsArrived(
                call or b"%016d" % self._calls,
                "default",
                "test",
                [each.key for each in alerts],
                [ZERO + each.ends for each in alerts],
                [each.body for each in alerts],
                True,
                delivery,
                delivered_before=before,
                said=said,
            ),
        )
        assert isinstance(step.reply, AlertsReply)
        self.reply = step.reply
        return step

    def tick(self, when: float, *, in_gap: bool = False) -> Step:
        return self.tell(when, Tick(in_gap))

    def ticks(self, first: float, last: float, *, in_gap: bool = False) -> None:
        """A tick each second."""
        while first <= last:
            self.tick(first, in_gap=in_gap)
            first += 1.0

    def hear(self, when: float, since: float) -> Step:
        return self.tell(when, GapEnded(since, "no gateway called"))

    def classify(
        self, when: float, severity: Severity = Severity.P2, *, incident: Incident | None = None
    ) -> Step:
        """The classifier answers everything it was asked."""
        verdicts = [
            Classification(
                effect.incident_id, severity, IncidentType.APPLICATION, "minor", "test", 1.0, effect.asked
            )
            for effect in self._take(Classify)
        ]
        return self.tell(when, Classified(verdicts))

    def receive(
        self,
        when: float,
        *,
        ok: bool = True,
        final: bool = False,
        reached: bool = True,
        by: str = "",
        ref: str = "",
    ) -> Step:
        """A receiver (`by`; "": any) answers the oldest notification it was sent."""
        for place, (_when, effect) in enumerate(self.asked):
            if isinstance(effect, Act) and by in ("", effect.target):
                del self.asked[place]
                return self.tell(
                    when,
                    ActionOutcome(
                        effect.incident_id,
                        effect.number,
                        effect.attempt,
                        ok,
                        "test",
                        final,
                        0.0,
                        reached,
                        effect.target,
                        ref,
                    ),
                )
        raise AssertionError("nothing was sent")

    def archive(self, when: float) -> Step:
        """The archive keeps everything it was asked to."""
        ids = [identity for effect in self._take(Archive) for identity in effect.incident_ids]
        return self.tell(when, Archived(ids, [self.shard.state.incidents[each].version for each in ids]))

    def do(
        self,
        when: float,
        verb: AnyVerb,
        incident: Incident | bytes = b"",
        *,
        by: str = "ann",
        reason: str = "",
        if_version: int | None = None,
        call: bytes = b"",
        delivery: str | None = None,
        before: bytes | None = None,
        tenant: str = "default",
    ) -> Incident:
        """A person does something; returns the incident it was about. Raises Refusal."""
        self._calls += 1
        identity = incident if isinstance(incident, bytes) else incident.id
        reply = self.tell(
            when,
            Command(
                call or b"%016d" % self._calls,
                tenant,
                by,
                identity,
                verb,
                reason,
                if_version,
                delivery,
                delivered_before=before,
            ),
        ).reply
        if isinstance(reply, Failed):
            raise Refusal(reply.kind, reply.detail)
        assert isinstance(reply, CommandDone)
        self.done = reply
        return self.shard.state.incidents[reply.incident_id]

    def carry(self, when: float, others: Sequence[Story] = ()) -> None:
        """Bring every peer message to the story that has its addressee, and the answer back, until none is owed."""
        stories = [self, *others]
        while any(story.carry_one(when, stories) for story in stories):
            pass

    def carry_one(self, when: float, stories: Sequence[Story], *, lose_answer: bool = False) -> bool:
        """Bring the oldest peer message; False when there is none."""
        for place, (_when, effect) in enumerate(self.asked):
            if isinstance(effect, SendPeerMessage):
                del self.asked[place]
                told = PeerMessageArrived(
                    effect.tenant, effect.sender, effect.number, effect.to, effect.message
                )
                home = next(
                    (story for story in stories if effect.to in story.shard.state.incidents), stories[0]
                )
                reply = home.tell(when, told).reply
                if not lose_answer:
                    refused = reply.detail if isinstance(reply, Failed) else ""
                    self.tell(when, PeerMessageAnswered(effect.sender, effect.number, refused))
                return True
        return False

    # -- what is wanted ------------------------------------------------------------------------------------

    @property
    def decisions(self) -> list[Decision]:
        """About the alerts of the last push."""
        return [self.reply.decision(place) for place in range(len(self.reply.incident_ids))]

    @property
    def incident(self) -> Incident:
        """The only incident there is."""
        (found,) = self.shard.state.incidents.values()
        return found

    def open_incidents(self) -> list[Incident]:
        return [incident for incident in self.shard.state.incidents.values() if incident.is_open]

    def sent(self) -> list[tuple[float, str, int]]:
        """What waits for the receiver's answer: when (story seconds), reason, attempt."""
        return [
            (when - ZERO, effect.facts.reason, effect.attempt)
            for when, effect in self.asked
            if isinstance(effect, Act)
        ]

    def told(self, when: float, ref: str = "") -> list[tuple[str, str]]:
        """Every receiver takes what it was sent by then: who, and the reason."""
        acts = [effect for _when, effect in self.asked if isinstance(effect, Act)]
        for effect in acts:
            self.receive(when, by=effect.target, ref=ref and f"{effect.target}/{ref}")
        return [(effect.target, effect.facts.reason) for effect in acts]

    def states(self) -> list[IncidentState]:
        return [incident.state for incident in self.shard.state.incidents.values()]

    def severities(self) -> list[Severity]:
        return [incident.severity for incident in self.shard.state.incidents.values()]

    def named(self, kind: type[AnyEvent]) -> list[AnyEvent]:
        return [event for _when, event in self.events if isinstance(event, kind)]

    def kinds(self, incident: Incident) -> list[str]:
        """The kinds of line in an incident's history."""
        return [line.kind for line in incident.timeline]

    def _take(self, kind: type) -> Sequence[Any]:
        taken = [effect for _when, effect in self.asked if isinstance(effect, kind)]
        self.asked = [(when, effect) for when, effect in self.asked if not isinstance(effect, kind)]
        return taken

    def _took(self, step: Step, when: float) -> Step:
        self.now = self.shard.now
        self.events += [(self.now, event) for event in step.events]
        self.replayed.replay(step.events, self.now)
        self.asked += [(when, effect) for effect in step.effects]
        late = self.now + 10.0
        assert not difference(dump(self.shard, late), dump(self.replayed, late))
        assert not unsound(self.shard)
        return step
