"""What is written to the queue: one message for each event of an incident, in the words of the live stream. docs/queues.md is for
its readers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from models.stream.happenings import Happening
from services.api.stream.bodies import rest_of
from services.times import timestamp

#: Kinds that tell what playbooks and notifications do, are to do, or wait for: these go to the topic `orchestrate` too.
ORCHESTRATED = frozenset(
    {
        "PlaybookStarted",
        "PlaybookNotStarted",
        "ActionExecuted",
        "ApprovalAsked",
        "ApprovalGiven",
        "ApprovalDenied",
        "StepFailed",
        "PlaybookPaused",
        "PlaybookResumed",
        "PlaybookCompleted",
        "TaskPlanned",
        "TaskDue",
        "Scheduled",
        "WatchBegan",
        "SideEffect",
        "WatchEnded",
        "NotificationSent",
        "NotificationFailed",
        "NotificationFellBack",
        "NotificationWithheld",
        "NotificationDropped",
        "NotificationDiscarded",
    }
)
#: The kind of the message that says that others are missing.
GAP = "gap"
#: Characters of each text of a message that is shortened because the broker takes none so large.
SHORT_CHARS = 1000


class Announcement(msgspec.Struct, frozen=True):
    """A message on its way: those of one `key` (an incident's id) keep their order. `id` is the same whenever it comes again."""

    topic: str
    key: str
    id: str
    kind: str
    body: bytes


class _Gap(msgspec.Struct, frozen=True):
    event: str
    id: str
    at: str
    partition: str
    reason: str
    detail: str


_encoder = msgspec.json.Encoder()


def topics_of(kind: str, process: str, orchestrate: str) -> list[str]:
    """Where a line of this kind is written to, of the topics that the settings name."""
    return [
        topic for topic, has in ((process, True), (orchestrate, kind in ORCHESTRATED)) if topic and has
    ]  # fmt: skip


def announcements(partition: str, happening: Happening, process: str, orchestrate: str) -> list[Announcement]:
    """The messages about a happening, one for each topic."""
    topics = topics_of(happening.line.kind, process, orchestrate)
    if not topics:
        return []
    # With the time: another log in the same place may use the same numbers again.
    identity = (
        f"{partition.replace('/', '-')}-{happening.seq}-{happening.place}-{round(happening.at * 1000):x}"
    )
    body = b'{"event":"incident","id":"%b' % identity.encode() + rest_of(happening)
    key = str(UUID(bytes=happening.after.id))
    return [Announcement(topic, key, identity, happening.line.kind, body) for topic in topics]


def gap(
    at: float, partition: str, seq: int, reason: str, process: str, orchestrate: str
) -> list[Announcement]:
    """The messages that events of a partition up to its frame `seq` may be missing."""
    identity = f"{partition.replace('/', '-')}-{seq}-{GAP}-{round(at * 1000):x}"
    detail = "events may be missing: list the incidents"
    body = _encoder.encode(_Gap(GAP, identity, timestamp(at), partition, reason, detail))
    return [
        Announcement(topic, partition, identity, GAP, body) for topic in (process, orchestrate) if topic
    ]  # fmt: skip


def shortened(message: Announcement) -> Announcement:
    """The same without labels and details, and with texts cut: for a broker that does not take it as it is. `shortened` says so."""
    body: dict[str, Any] = msgspec.json.decode(message.body)
    for name in ("text", "reason"):
        body[name] = str(body.get(name, ""))[:SHORT_CHARS]
    body["details"] = {}
    if incident := body.get("incident"):
        incident |= {"title": incident["title"][:SHORT_CHARS], "labels": {}, "assignees": []}
    return msgspec.structs.replace(message, body=_encoder.encode({**body, "shortened": True}))
