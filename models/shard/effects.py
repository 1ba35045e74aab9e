"""What a shard needs done outside. An effect is pending until an event says it was done; after a crash it is requested
again.

`trace` is the trace context (models/trace.py) of what caused it, put in by actors/traces.py; after a crash it is missing.
"""

from __future__ import annotations

from models.incidents.notification import Facts
from models.wire import Wire


class Effect(Wire, frozen=True):
    """Something that a shard needs done; the component that owns it retries it (models/shard/assembly.py)."""


class Classify(Effect, frozen=True):
    """Asks a classifier for severity, type and impact. Answered by message Classified; safe to ask twice.

    `asked` is how many of the incident's signals this question covers; a verdict that covers fewer than the
    last one is ignored.
    """

    incident_id: bytes
    tenant: str
    service: str
    source: str
    title: str
    description: str
    labels: dict[str, str]
    annotations: dict[str, str]
    signals: list[str]
    asked: int
    trace: str | None = None


class Act(Effect, frozen=True):
    """Asks the responder to notify `target`, a receiver, by `action`. `key` is its idempotency key; `facts` are the
    content, which the action renders for its receiver. The smaller `urgency` (the incident's severity), the sooner its
    turn."""

    incident_id: bytes
    number: int
    attempt: int
    action: str
    target: str
    key: str
    facts: Facts
    urgency: int = 2
    trace: str | None = None


class Archive(Effect, frozen=True):
    """Asks for these closed incidents to be moved to the archive. Answered by message Archived; safe to ask twice."""

    incident_ids: list[bytes]


class Forget(Effect, frozen=True):
    """Asks the archive to delete what closed before then. Not answered: requested again at every start, safe to
    repeat."""

    closed_before: float


class SendPeerMessage(Effect, frozen=True, tag="Tell"):
    """Asks to deliver a peer message to another incident, wherever it is. Answered by message PeerMessageAnswered; safe
    to ask twice. One at a time for each sender, so that messages arrive in order."""

    tenant: str
    sender: bytes
    number: int
    to: bytes
    message: bytes
    trace: str | None = None
