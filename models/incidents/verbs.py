"""What a person may do to an incident: the verbs of a Command (models/shard/messages.py). The component that has a verb in its
`verbs` decides about it; services/api names them in its paths, `llm-im incidents` as its commands.

Laid out as arrays with their name as tag, like everything that crosses a process. A field is only added at the end,
with a default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from models.incidents.incident import IncidentType, Severity
from models.partition.event import one_of


class Verb(msgspec.Struct, frozen=True, array_like=True, tag=True, tag_field="verb"):
    """One thing that a person does. The Command says who and why."""


class Acknowledge(Verb, frozen=True):
    """Somebody is on it, until `until` (seconds since the epoch; 0: until it ends). A mark, not a state."""

    until: float = 0.0


class Unacknowledge(Verb, frozen=True):
    """Withdraw the acknowledgement."""


class Assign(Verb, frozen=True):
    """Who works on it. `roles` names a person per role; "" takes the role away."""

    add: list[str] = []
    remove: list[str] = []
    roles: dict[str, str] = {}


class Comment(Verb, frozen=True):
    text: str


class Label(Verb, frozen=True):
    """Set and remove labels of the incident; the labels of its alerts do not change."""

    set: dict[str, str] = {}
    remove: list[str] = []


class Reclassify(Verb, frozen=True):
    """An override, which wins over the classification until cleared. `clear` names "severity", "type", "impact"."""

    severity: Severity | None = None
    type: IncidentType | None = None
    impact: str | None = None
    clear: list[str] = []


class Link(Verb, frozen=True):
    """Link two related incidents."""

    other: bytes


class Unlink(Verb, frozen=True):
    other: bytes


class Merge(Verb, frozen=True):
    """`source` becomes a child of this incident."""

    source: bytes


class Unmerge(Verb, frozen=True):
    """`source` becomes independent again."""

    source: bytes


class Split(Verb, frozen=True):
    """These series (16-byte series ids) move to a new incident. `title` "": the same title."""

    series: list[bytes]
    title: str = ""


class Resolve(Verb, frozen=True):
    """Resolve it. `method`: Manual, AutoAssistedManual or Automated."""

    method: str = "Manual"
    root_cause: str | None = None
    notes: str = ""


class Close(Verb, frozen=True):
    """Close a resolved incident."""


class Reopen(Verb, frozen=True):
    """Reopen a resolved or closed incident."""


class Update(Verb, frozen=True):
    """A stakeholder update. `next_due_at` (seconds since the epoch, 0: none) is when the next one is promised."""

    audience: str
    text: str
    next_due_at: float = 0.0


class Resend(Verb, frozen=True):
    """Tell of it again, now: everybody who is told of it, or one receiver."""

    receiver: str = ""


class Create(Verb, frozen=True):
    """An incident by hand: it has no alerts and no group, and only a person resolves it."""

    service: str
    title: str
    description: str = ""
    severity: Severity | None = None
    type: IncidentType | None = None
    impact: str = ""
    labels: dict[str, str] = {}
    assignees: list[str] = []


class StartRun(Verb, frozen=True):
    """Run a playbook for it. `dry`: everything is decided and nothing done."""

    playbook: str
    dry: bool = False


class HoldRun(Verb, frozen=True):
    """Pause a run of a playbook (by its id), or let it go on."""

    run: bytes
    paused: bool


class CancelRun(Verb, frozen=True):
    """End a run: what was asked for is waited for, and what is to be done at the end is done."""

    run: bytes


class ApproveRun(Verb, frozen=True):
    """Agree to what a run waits for, or with `denied` don't. `step` "": to all that it waits for. `question`: only if it still asks
    this (question_of in models/playbook/run.py), "" for whatever it asks now."""

    run: bytes
    step: str = ""
    denied: bool = False
    question: str = ""


#: Any of the above, and a decoder's union of them.
AnyVerb: TypeAlias = Verb
if not TYPE_CHECKING:
    AnyVerb = one_of(Verb.__subclasses__())

#: Bounds of what people write. An incident is read whole and kept in memory, so that all of it must stay small.
TEXT_MAX = 8_192  # a comment, notes, a stakeholder update: two screens
REASON_MAX = 1_024
TITLE_MAX = 256
NAME_MAX = 128  # a person, a role, a label's name, an audience
LABEL_VALUE_MAX = 1_024
LABELS_MAX = 64
ASSIGNEES_MAX = 50
ROLES_MAX = 20
LINKS_MAX = 100
#: Children of one incident: all are asked when it is read.
CHILDREN_MAX = 100
#: Series that one Split moves: 10 ms of the shard's time.
SPLIT_MAX = 5_000
#: Comments and updates of one incident, and bytes of them together. Beyond that people are asked to link another
#: incident.
WRITTEN_LINES_MAX = 1_000
WRITTEN_BYTES_MAX = 262_144
METHODS = ("Manual", "AutoAssistedManual", "Automated")
#: What a Reclassify may clear.
CLEARABLE = ("severity", "type", "impact")

_encoder = msgspec.msgpack.Encoder()


def encode(verb: AnyVerb) -> bytes:
    """MessagePack of a verb."""
    return _encoder.encode(verb)
