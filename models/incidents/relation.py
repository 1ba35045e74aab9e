"""How an incident hangs together with others: the situation that it is part of, and what probably causes it. The correlator
(models/topology) says it, an incident's shard keeps and shows it (models/shard/relations.py).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Part(StrEnum):
    """What an incident is in its situation."""

    CAUSE = "cause"
    SYMPTOM = "symptom"
    RELATED = "related"


class Cause(msgspec.Struct, frozen=True, array_like=True):
    """A probable cause of a situation: a service, with its first incident (b"" where it has none of its own). `score` is 0 to 1,
    `reasons` say in words where it comes from."""

    service: str
    score: float
    reasons: list[str] = []
    incident_id: bytes = b""
    title: str = ""

    @property
    def in_words(self) -> str:
        """For people, in a line."""
        return f"{self.service}: {'; '.join(self.reasons)}" if self.reasons else self.service


class Relation(msgspec.Struct, frozen=True, array_like=True):
    """What is known of an incident in its situation: its part, how many incidents that has, and its probable causes, the most
    probable first. `symptom_of` is the incident whose symptom it probably is, b"" for none. Until `mute_until` nobody need be told
    of it (0: it is told as ever)."""

    situation: bytes
    part: Part
    members: int
    causes: list[Cause] = []
    symptom_of: bytes = b""
    mute_until: float = 0.0

    @property
    def first(self) -> Cause | None:
        """The most probable cause."""
        return self.causes[0] if self.causes else None

    @property
    def symptom_of_service(self) -> str:
        """The service whose symptom it probably is, "" for none."""
        found = (each.service for each in self.causes if each.incident_id == self.symptom_of)
        return next(found, "") if self.symptom_of else ""
