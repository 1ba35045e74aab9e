"""What the verbs of /v1 take: one dataclass a verb, all of one shape. `verb()` makes of it what a shard is told; the table of
verb_table.py names it.

Strict: an unknown field is refused, and nothing is converted. Bounds are those of models/incidents/verbs.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Protocol

from pydantic import ConfigDict, Field

from models.incidents import verbs
from services.api.v1.fields import (
    FINGERPRINT,
    ClearableName,
    ClearableWord,
    Id,
    LabelName,
    LabelValue,
    MethodName,
    MethodWord,
    Name,
    NameOrNone,
    SeverityWord,
    Text,
    TextOrNone,
    Title,
    TypeWord,
    Why,
    WrittenDuration,
    WrittenTime,
    time_to_come,
)

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Body(Protocol):
    """The body of a verb."""

    @property
    def reason(self) -> str: ...
    def verb(self, now: float) -> verbs.AnyVerb:
        """The verb for the shard. Raises Malformed for what a schema can't express."""


def _described(text: str) -> object:
    return Field(description=text)


@dataclass(frozen=True, slots=True)
class AcknowledgeBody:
    """Acknowledge it: the caller is on it. Without `until` and `for`, until it ends."""

    __pydantic_config__ = STRICT
    until: Annotated[WrittenTime | None, _described("Until when, RFC 3339, in the future.")] = None
    for_: Annotated[
        WrittenDuration | None, Field(alias="for", description='For how long from now: "30m", "4h".')
    ] = None
    reason: Why = ""

    def verb(self, now: float) -> verbs.Acknowledge:
        return verbs.Acknowledge(time_to_come(self.until, self.for_, ("until", "for"), now))


@dataclass(frozen=True, slots=True)
class UnacknowledgeBody:
    """Withdraw the acknowledgement."""

    __pydantic_config__ = STRICT
    reason: Why = ""

    def verb(self, now: float) -> verbs.Unacknowledge:
        return verbs.Unacknowledge()


@dataclass(frozen=True, slots=True)
class AssignBody:
    """Say who works on it, and in which role."""

    __pydantic_config__ = STRICT
    add: Annotated[list[Name], Field(max_length=verbs.ASSIGNEES_MAX, description="People to assign.")] = (
        field(default_factory=list)
    )
    remove: Annotated[
        list[Name], Field(max_length=verbs.ASSIGNEES_MAX, description="People who no longer work on it.")
    ] = field(default_factory=list)
    roles: Annotated[
        dict[Name, NameOrNone],
        Field(
            max_length=verbs.ROLES_MAX,
            description="A person for a role: commander, communications, scribe, or a role of your own. An empty name removes the role.",
        ),
    ] = field(default_factory=dict)
    reason: Why = ""

    def verb(self, now: float) -> verbs.Assign:
        return verbs.Assign(self.add, self.remove, self.roles)


@dataclass(frozen=True, slots=True)
class CommentBody:
    """Add a comment to the timeline."""

    __pydantic_config__ = STRICT
    text: Annotated[Text, _described("The text.")]
    reason: ClassVar[str] = ""

    def verb(self, now: float) -> verbs.Comment:
        return verbs.Comment(self.text)


@dataclass(frozen=True, slots=True)
class LabelBody:
    """Set and remove labels of the incident; the labels of its alerts do not change."""

    __pydantic_config__ = STRICT
    set: Annotated[
        dict[LabelName, LabelValue], Field(max_length=verbs.LABELS_MAX, description="Labels to set.")
    ] = field(default_factory=dict)
    remove: Annotated[
        list[LabelName], Field(max_length=verbs.LABELS_MAX, description="Names of labels to remove.")
    ] = field(default_factory=list)
    reason: Why = ""

    def verb(self, now: float) -> verbs.Label:
        return verbs.Label(self.set, self.remove)


@dataclass(frozen=True, slots=True)
class ReclassifyBody:
    """Override severity, type or impact. This wins over the classification until it is cleared."""

    __pydantic_config__ = STRICT
    severity: Annotated[SeverityWord | None, _described("Its severity.")] = None
    incident_type: Annotated[TypeWord | None, _described("Its type.")] = None
    impact: Annotated[Name | None, _described("Its impact, in your words: who is affected, and how.")] = None
    clear: Annotated[
        list[ClearableWord],
        Field(
            max_length=3,
            description="What to drop of the values people set; the classification counts again.",
        ),
    ] = field(default_factory=list)
    reason: Why = ""

    def verb(self, now: float) -> verbs.Reclassify:
        return verbs.Reclassify(
            None if self.severity is None else self.severity.severity,
            self.incident_type,
            self.impact,
            ["type" if each is ClearableName.INCIDENT_TYPE else str(each) for each in self.clear],
        )


@dataclass(frozen=True, slots=True)
class LinkBody:
    """Link two related incidents."""

    __pydantic_config__ = STRICT
    incident: Annotated[Id, _described("The other incident's id.")]
    reason: Why = ""

    def verb(self, now: float) -> verbs.Link:
        return verbs.Link(self.incident.bytes)


@dataclass(frozen=True, slots=True)
class UnlinkBody:
    """Remove a link."""

    __pydantic_config__ = STRICT
    incident: Annotated[Id, _described("The other incident's id.")]
    reason: Why = ""

    def verb(self, now: float) -> verbs.Unlink:
        return verbs.Unlink(self.incident.bytes)


@dataclass(frozen=True, slots=True)
class MergeBody:
    """Make the named incident a child of the one in the path."""

    __pydantic_config__ = STRICT
    incident: Annotated[Id, _described("The id of the incident that becomes its child.")]
    reason: Why = ""

    def verb(self, now: float) -> verbs.Merge:
        return verbs.Merge(self.incident.bytes)


@dataclass(frozen=True, slots=True)
class UnmergeBody:
    """Make a child independent again."""

    __pydantic_config__ = STRICT
    incident: Annotated[Id, _described("The id of the child.")]
    reason: Why = ""

    def verb(self, now: float) -> verbs.Unmerge:
        return verbs.Unmerge(self.incident.bytes)


@dataclass(frozen=True, slots=True)
class SplitBody:
    """Move some of its alerts to a new incident."""

    __pydantic_config__ = STRICT
    alerts: Annotated[
        list[Annotated[str, Field(pattern=FINGERPRINT)]],
        Field(min_length=1, max_length=verbs.SPLIT_MAX, description="Fingerprints of its alerts."),
    ]
    title: Annotated[Title | None, _described("Title of the new incident. Default: the same title.")] = None
    reason: Why = ""

    def verb(self, now: float) -> verbs.Split:
        # Which series these are is looked up: verb_table.py.
        return verbs.Split([], self.title or "")


@dataclass(frozen=True, slots=True)
class ResolveBody:
    """It is over."""

    __pydantic_config__ = STRICT
    method: Annotated[MethodWord, _described("How it was resolved.")] = MethodName.MANUAL
    root_cause: Annotated[TextOrNone | None, _described("The root cause.")] = None
    notes: Annotated[TextOrNone, _described("What was done, and what to remember next time.")] = ""
    reason: ClassVar[str] = ""

    def verb(self, now: float) -> verbs.Resolve:
        return verbs.Resolve(str(self.method), self.root_cause, self.notes)


@dataclass(frozen=True, slots=True)
class CloseBody:
    """Close a resolved incident."""

    __pydantic_config__ = STRICT
    reason: Why = ""

    def verb(self, now: float) -> verbs.Close:
        return verbs.Close()


@dataclass(frozen=True, slots=True)
class ReopenBody:
    """Reopen a resolved or closed incident."""

    __pydantic_config__ = STRICT
    reason: Why = ""

    def verb(self, now: float) -> verbs.Reopen:
        return verbs.Reopen()


@dataclass(frozen=True, slots=True)
class ResendBody:
    """Tell everybody of it again, now: whoever is told of it, or one receiver. The version stays."""

    __pydantic_config__ = STRICT
    receiver: Annotated[NameOrNone, _described("Only this receiver; empty: all that are told of it.")] = ""
    reason: Why = ""

    def verb(self, now: float) -> verbs.Resend:
        return verbs.Resend(self.receiver)


@dataclass(frozen=True, slots=True)
class UpdateBody:
    """A stakeholder update, and when the next one is promised."""

    __pydantic_config__ = STRICT
    audience: Annotated[Name, _described("Who the update is for: customers, support, management ...")]
    text: Annotated[Text, _described("The text of the update.")]
    next_due_at: Annotated[WrittenTime | None, _described("When you promise the next update, RFC 3339.")] = (
        None
    )
    next_due_in: Annotated[
        WrittenDuration | None, _described('How long from now you promise the next update: "30m".')
    ] = None
    reason: ClassVar[str] = ""

    def verb(self, now: float) -> verbs.Update:
        due_at = time_to_come(self.next_due_at, self.next_due_in, ("next_due_at", "next_due_in"), now)
        return verbs.Update(self.audience, self.text, due_at)


@dataclass(frozen=True, slots=True)
class CreateBody:
    """Create an incident by hand. It has no alerts, and only a person can resolve it."""

    __pydantic_config__ = STRICT
    service: Annotated[Name, _described("The affected service; decides which shard keeps it.")]
    title: Annotated[Title, _described("What is wrong, in one line.")]
    description: Annotated[TextOrNone, _described("What is known about it.")] = ""
    severity: Annotated[SeverityWord | None, _described("Its severity. Default: a classifier decides.")] = (
        None
    )
    incident_type: Annotated[TypeWord | None, _described("Its type. Default: a classifier decides.")] = None
    impact: Annotated[Name | None, _described("Its impact. Default: a classifier decides.")] = None
    labels: Annotated[
        dict[LabelName, LabelValue], Field(max_length=verbs.LABELS_MAX, description="Its labels.")
    ] = field(default_factory=dict)
    assignees: Annotated[
        list[Name], Field(max_length=verbs.ASSIGNEES_MAX, description="Who works on it.")
    ] = field(default_factory=list)
    reason: Why = ""

    def verb(self, now: float) -> verbs.Create:
        return verbs.Create(
            self.service,
            self.title,
            self.description,
            None if self.severity is None else self.severity.severity,
            self.incident_type,
            self.impact or "",
            self.labels,
            self.assignees,
        )
