"""The traces that a shard's steps belong to: an incident's effects continue the trace of what last changed it. Used
by actors/shard.py.

Only what a sender or a person sends has a trace; mere repeats have none. Kept only in memory: after a crash pending
effects are still done, outside any trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from uuid import UUID

import msgspec

from models.partition.event import Event
from models.partition.machine import Step
from models.ports import Tracer
from models.shard.effects import Act, Classify, Effect, SendPeerMessage
from models.shard.events import AlertsObserved, CallAnswered, IncidentStateChanged
from models.shard.messages import (
    ActionOutcome,
    AlertsArrived,
    Classified,
    Command,
    Message,
    PeerMessageAnswered,
    PeerMessageArrived,
    Reply,
    Tick,
)
from models.shard.runs import Perform
from models.shard.verification import Recheck
from models.trace import Attribute, trace_id_of

#: Incidents whose trace is remembered, 300 bytes each; the oldest go first. A notification leaves within minutes of its
#: cause, and in a storm of this many new incidents nobody follows a single trace.
TRACES_MAX = 10_000
#: Incidents named by one span; more make it no easier to find.
NAMED_MAX = 16


class Traces:
    """One a shard."""

    def __init__(self, tracer: Tracer, partition: str) -> None:
        self._tracer = tracer
        self._partition = partition
        self._of: dict[bytes, str] = {}

    def id_of(self, message: Message) -> str | None:
        """The trace id for the frame of what this message leads to."""
        if isinstance(message, AlertsArrived | Command):
            return message.trace_id
        if isinstance(message, PeerMessageArrived):
            return trace_id_of(message.trace)
        if not self._of:
            return None
        match message:
            case ActionOutcome():
                return trace_id_of(self._of.get(message.incident_id))
            case PeerMessageAnswered():
                return trace_id_of(self._of.get(message.sender))
            case Classified():
                # A frame has one trace: classifications of several incidents have none.
                found = {self._of.get(verdict.incident_id) for verdict in message.verdicts}
                return trace_id_of(found.pop()) if len(found) == 1 else None
        return None

    def durable(self, message: Message, step: Step[Reply], since: float) -> None:
        """A message's step is in the log: make its span, and remember which incidents it was about. `since` is when
        its group began, seconds since the epoch."""
        if isinstance(message, AlertsArrived | Command | PeerMessageArrived) and message.trace is not None:
            news = [event for event in step.events if not isinstance(event, AlertsObserved | CallAnswered)]
            if news:
                self._follow(message.trace, message, news, since)
        elif self._of and isinstance(message, AlertsArrived | Command | PeerMessageArrived | Tick):
            # Somebody else, or time alone, ended or continued it: what is pending now does not belong to that trace.
            for event in step.events:
                if isinstance(event, IncidentStateChanged):
                    self._of.pop(event.incident_id, None)

    def on(self, effects: Sequence[Effect]) -> Sequence[Effect]:
        """The same effects, each with its incident's trace if there is one."""
        if not self._of:
            return effects
        return [self._traced(effect) for effect in effects]

    def _follow(
        self,
        trace: str,
        message: AlertsArrived | Command | PeerMessageArrived,
        news: Sequence[Event],
        since: float,
    ) -> None:
        about = dict.fromkeys(
            cast(bytes, identity) for event in news if (identity := getattr(event, "incident_id", None))
        )
        if self._tracer.wants(trace):
            attributes: dict[str, Attribute] = {
                "llm_im.partition": self._partition,
                "llm_im.events": len(news),
                "llm_im.incident_ids": [str(UUID(bytes=each)) for each in list(about)[:NAMED_MAX]],
            }
            if isinstance(message, AlertsArrived):
                attributes["llm_im.alerts"] = len(message.keys)
            with self._tracer.span("commit", trace, attributes, since=since) as span:
                trace = span.trace or trace
        for identity in about:
            self._of.pop(identity, None)
            self._of[identity] = trace
        while len(self._of) > TRACES_MAX:
            del self._of[next(iter(self._of))]

    def _traced(self, effect: Effect) -> Effect:
        match effect:
            case Classify() | Act() | Perform() | Recheck() if (
                trace := self._of.get(effect.incident_id)
            ) is not None:
                return msgspec.structs.replace(effect, trace=trace)
            case SendPeerMessage() if (trace := self._of.get(effect.sender)) is not None:
                return msgspec.structs.replace(effect, trace=trace)
        return effect
