"""What an incident is, and the only moves its state may make (names: Appendix A of the plan)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from uuid import UUID

import msgspec

from models.partition.sharding import SLOTS

ID_BYTES = 16
#: The receiver that there was before there were several.
WEBHOOK = "webhook"


class Severity(IntEnum):
    """P0 is the worst; smaller is more severe. Written as "P0".."P4" wherever people read."""

    P0 = 0
    P1 = 1
    P2 = 2
    P3 = 3
    P4 = 4


class IncidentType(StrEnum):
    INFRASTRUCTURE = "Infrastructure"
    APPLICATION = "Application"
    SECURITY = "Security"
    DATA = "Data"
    PERFORMANCE = "Performance"
    AVAILABILITY = "Availability"
    COMPLIANCE = "Compliance"
    UNKNOWN = "Unknown"


class IncidentState(StrEnum):
    DETECTED = "Detected"
    TRIAGED = "Triaged"
    INVESTIGATING = "Investigating"
    REMEDIATING = "Remediating"
    RESOLVED = "Resolved"
    CLOSED = "Closed"


_S = IncidentState

#: Every legal move. Forward, possibly skipping states, up to Resolved; from Investigating back to Triaged when nobody
#: is on it any more; Resolved closes or reopens; only a person can reopen a Closed one.
LEGAL_MOVES: dict[IncidentState, frozenset[IncidentState]] = {
    _S.DETECTED: frozenset({_S.TRIAGED, _S.INVESTIGATING, _S.REMEDIATING, _S.RESOLVED}),
    _S.TRIAGED: frozenset({_S.INVESTIGATING, _S.REMEDIATING, _S.RESOLVED}),
    _S.INVESTIGATING: frozenset({_S.TRIAGED, _S.REMEDIATING, _S.RESOLVED}),
    _S.REMEDIATING: frozenset({_S.RESOLVED}),
    _S.RESOLVED: frozenset({_S.CLOSED, _S.INVESTIGATING, _S.TRIAGED}),
    _S.CLOSED: frozenset({_S.INVESTIGATING, _S.TRIAGED}),
}

OPEN_STATES = frozenset({_S.DETECTED, _S.TRIAGED, _S.INVESTIGATING, _S.REMEDIATING})


class TimelineEntry(msgspec.Struct, frozen=True, array_like=True):
    """One line of an incident's history. `kind` is an EventType of Appendix A or one of ours (docs/concepts.md).

    `details` is for programs: "reason", "trace_id" and what else the kind has.
    """

    at: float
    kind: str
    actor: str
    text: str
    details: dict[str, str] = {}


#: How an incident was resolved or reopened: automatically, or by a person.
AUTOMATED, MANUAL = "Automated", "Manual"


class Resolution(msgspec.Struct, frozen=True, array_like=True):
    """How an incident ended. `method`: Automated, Manual or AutoAssistedManual."""

    at: float
    by: str
    method: str
    notes: str
    root_cause: str | None = None


class Acknowledgement(msgspec.Struct, frozen=True, array_like=True):
    """Who is on an incident, since when, and until when (0: until it ends)."""

    by: str
    at: float
    until: float = 0.0


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """The classification of an incident: it counts where no person overrode it."""

    severity: Severity
    type: IncidentType
    impact: str


class Override(msgspec.Struct, frozen=True, array_like=True):
    """What people set an incident to; None where they set nothing."""

    severity: Severity | None = None
    type: IncidentType | None = None
    impact: str | None = None


class StakeholderUpdate(msgspec.Struct, frozen=True, array_like=True):
    """A stakeholder update. `next_due_at` 0: no next one was promised."""

    at: float
    by: str
    audience: str
    text: str
    next_due_at: float = 0.0


class Child(msgspec.Struct, frozen=True, array_like=True):
    """A child: an incident that was merged into this one, with the state it last reported.

    `pending` is "merge" or "unmerge" while the other half of that operation is owed: until it is known what becomes of
    it, it counts as open. `ended_by` is the number of the
    message that asked it to end, 0 when none did: what it said before it heard that counts no more.
    """

    is_open: bool = True
    severity: Severity = Severity.P4
    pending: str = ""
    ended_by: int = 0


class OwedPeerMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message (models/shard/peer_messages.py, encoded) that one incident owes another. Numbers of a sender only grow."""

    number: int
    to: bytes
    message: bytes


class Handling(msgspec.Struct, array_like=True):
    """What people did about an incident, and how it hangs together with others. Most incidents have none: they come
    and go by themselves.

    `judged` is what the classifiers say, kept beside what people `said`. `answered_at` is when somebody first
    acknowledged it or was assigned. `owed` are its messages to other incidents, oldest first; `heard` the number of the
    last message of each sender and why it was refused, "" when it was not. With `still_firing_at` (0: never) it is opened
    again at that time if some of its alerts still fire then. `labels` are those that people set, and as None those that
    they removed; None: a snapshot of 0.2.0 or earlier does not say (models/shard/sharing.py works it out). `title` is one that a person gave.
    """

    verdict: Verdict
    acknowledged: Acknowledgement | None = None
    answered_at: float = 0.0
    roles: dict[str, str] = {}
    override: Override = Override()
    related: list[bytes] = []
    merged_into: bytes = b""
    children: dict[bytes, Child] = {}
    split_from: bytes = b""
    owed: list[OwedPeerMessage] = []
    owed_number: int = 0
    heard: dict[bytes, tuple[int, str]] = {}
    updates: list[StakeholderUpdate] = []
    update_due_at: float = 0.0
    written_lines: int = 0
    written_bytes: int = 0
    still_firing_at: float = 0.0
    labels: dict[str, str | None] | None = None
    title: str = ""


class Notification(msgspec.Struct, array_like=True):
    """What one receiver was told of one incident, and the notification that is pending for it. `reason` is None if there is
    none. `number` increases with each
    notification, `attempt` with each attempt at it; both are in the idempotency key. `told` says whether the receiver may
    have been notified of the incident: only then is `resolved` sent. `queued` is the reason of a notification that
    waits for the outcome of this one. `given_up`: the last one was not accepted. models/shard/notifications.py goes by
    what comes then: `sure` is what the receiver surely knows ("firing", "resolved", "" if unknown), `heard_at` when it
    may last have received something, `reopenings` when alerts last opened the incident again, and `flapping` whether
    the receiver knows that it flaps. `withheld` is the reason that nobody was told, while all that fires is muted
    (models/shard/mutes.py); "" when nothing is held back. `route` is the name of the route that last chose the receiver, `ref`
    what the receiver calls what it made ("" if it did not say), and `seen` how many of the incident's series it was told of
    (-1: unknown).
    """

    number: int = 0
    reason: str | None = None
    due_at: float = 0.0
    attempt: int = 0
    told: bool = False
    queued: str | None = None
    owed_since: float = 0.0
    given_up: bool = False
    sure: str = ""
    heard_at: float = 0.0
    reopenings: list[float] = []
    flapping: bool = False
    withheld: str = ""
    route: str = ""
    ref: str = ""
    seen: int = -1


class Incident(msgspec.Struct, array_like=True):
    """An incident as its shard keeps it: changed only by Shard.apply, encoded as it is into snapshots.

    Times are seconds since the epoch, 0 when not (yet) reached. `group_labels` always has "service",
    and every label of the group_by that it was opened under, "" when its alerts lack it.
    `firing` counts its firing series. `signals` are the severity words its series brought; the last verdict
    knew the first `signals_asked` of them.

    `version` grows with all that people may change, and not with what only counts. `severity`, `type` and `impact` are
    what counts: what people said, else what was judged, and at least as severe as any open child of it. Its response
    targets run from `opened_at`, when it opened or was last opened again; `targets_told` is a set of bits
    (models/shard/targets.py).

    `title`, `description`, `labels` and `annotations` are what its firing alerts share, with what people set
    (models/shard/sharing.py). `joined` counts the new series that its timeline does not tell of yet; it last did at
    `joined_told_at`. `counted` is how many alerts its title says there are, 0 when it says no number or 0.2.0 or earlier wrote it;
    it was last described at `counted_at`. `began_at` is when the alert that opened it began, as its sender says.

    `notifications` has what each receiver knows, by its name; `to_webhook` is where records of before there were several
    have that of the receiver `webhook`, and None since. `discarded` is the route that discarded it, "" if none did.
    """

    id: bytes
    slot: int
    tenant: str
    service: str
    group_key: str
    group_labels: dict[str, str]
    title: str
    description: str
    source: str
    labels: dict[str, str]
    annotations: dict[str, str]
    created_at: float
    updated_at: float
    state: IncidentState = IncidentState.DETECTED
    severity: Severity = Severity.P2
    type: IncidentType = IncidentType.UNKNOWN
    impact: str = ""
    classified_by: str = ""
    confidence: float = 0.0
    firing: int = 0
    series_seen: int = 0
    signals: list[str] = []
    classify_owed: bool = True
    reopened: int = 0
    resolved_at: float = 0.0
    closed_at: float = 0.0
    resolution: Resolution | None = None
    assignees: list[str] = []
    overflow: list[str] | None = None
    overflow_count: int = 0
    to_webhook: Notification | None = None
    timeline: list[TimelineEntry] = []
    timeline_dropped: int = 0
    signals_asked: int = 0
    version: int = 0
    created_by: str = "system"
    opened_at: float = 0.0
    targets_told: int = 0
    handling: Handling | None = None
    #: What it counts for in models/alerts/room.py; 0 until a shard has counted it.
    held_bytes: int = 0
    joined: int = 0
    joined_told_at: float = 0.0
    #: Only in the archive: its runs of playbooks (models/shard/run_state.py, Carried), which a shard keeps beside it.
    runs: bytes = b""
    notifications: dict[str, Notification] = {}
    discarded: str = ""
    counted: int = 0
    counted_at: float = 0.0
    began_at: float = 0.0

    def __post_init__(self) -> None:
        if self.to_webhook is not None:
            if self.to_webhook.number or self.to_webhook.withheld:
                self.notifications = {WEBHOOK: self.to_webhook, **self.notifications}
            self.to_webhook = None

    def notification_of(self, receiver: str) -> Notification:
        """What a receiver knows of it and is owed; one of its own, to look at, if nothing ever was to be told there."""
        return self.notifications.get(receiver) or Notification()

    @property
    def is_owed_notification(self) -> bool:
        """Somebody is still to be told something of it."""
        return any(each.reason is not None for each in self.notifications.values())

    @property
    def withheld(self) -> str:
        """Why somebody would be told of it, were it not muted; "" when nothing is held back."""
        return next((each.withheld for each in self.notifications.values() if each.withheld), "")

    @property
    def is_open(self) -> bool:
        """It is not over: alerts of its group join it. A merged one too, but it sends no notifications."""
        return self.state in OPEN_STATES

    @property
    def counts(self) -> Verdict:
        """What it is, as it counts now."""
        return Verdict(self.severity, self.type, self.impact)

    @property
    def is_classified(self) -> bool:
        """It has been classified."""
        return bool(self.classified_by)

    @property
    def present_group_labels(self) -> dict[str, str]:
        """The labels of its group that its alerts have: one that they lack makes the group and is not shown."""
        return {name: value for name, value in self.group_labels.items() if value}

    @property
    def counts_as_open(self) -> bool:
        """Open as people see it: neither resolved nor closed, and not a child of another."""
        return self.state in OPEN_STATES and (self.handling is None or not self.handling.merged_into)

    @property
    def is_attended(self) -> bool:
        """Somebody is on it: it is acknowledged, or people are assigned or have a role."""
        handling = self.handling
        return bool(self.assignees) or (
            handling is not None and (handling.acknowledged is not None or any(handling.roles.values()))
        )

    @property
    def is_known_of(self) -> bool:
        """Somebody may have seen it as it was, so what joins it now is news to them."""
        is_told = any(each.told for each in self.notifications.values())
        if self.handling is None:
            return is_told or bool(self.assignees)
        return is_told or self.is_attended or bool(self.merged_into)

    @property
    def merged_into(self) -> bytes:
        """Its parent, b"" if it has none."""
        return b"" if self.handling is None else self.handling.merged_into

    @property
    def related(self) -> list[bytes]:
        """The incidents that people linked it to."""
        return [] if self.handling is None else self.handling.related

    @property
    def children(self) -> dict[bytes, Child]:
        """Its children: the incidents merged into it."""
        return {} if self.handling is None else self.handling.children

    def handled(self) -> Handling:
        """Its handling, made when a person first touches it."""
        if self.handling is None:
            self.handling = Handling(Verdict(self.severity, self.type, self.impact), labels={})
        return self.handling

    def heard_of(self, sender: bytes) -> tuple[int, str]:
        """The number of the last message heard of `sender` (0: none), and why it was refused."""
        return (0, "") if self.handling is None else self.handling.heard.get(sender, (0, ""))

    def settle(self) -> None:
        """Set severity, type and impact to what counts now. A person's override wins over its children as well."""
        if self.handling is None:
            return
        counts = settled(self.handling.verdict, self.handling.override, self.handling.children)
        self.severity, self.type, self.impact = counts.severity, counts.type, counts.impact

    @property
    def is_by_hand(self) -> bool:
        """Created by a person: it has no group, and no alert joins it."""
        return not self.group_key


def settled(judged: Verdict, said: Override, children: Mapping[bytes, Child]) -> Verdict:
    """What counts, given its classification, overrides and children."""
    worst = min([judged.severity, *(child.severity for child in children.values() if child.is_open)])
    return Verdict(
        worst if said.severity is None else said.severity,
        judged.type if said.type is None else said.type,
        judged.impact if said.impact is None else said.impact,
    )


def id_text(identity: bytes) -> str:
    """An incident's id as people write it; bytes that are none in hex."""
    return str(UUID(bytes=identity)) if len(identity) == ID_BYTES else identity.hex()


def incident_id(slot: int, at: float, epoch: int, seq: int, group_key: str) -> bytes:
    """A UUIDv7 (16 bytes) that carries its slot in rand_a; the rest derives from what opened it.

    Pure: the same arguments give the same id, so replay needs no randomness. epoch and seq make it unique
    within a partition, group_key within one message.
    """
    if not 0 <= slot < SLOTS:
        raise ValueError(f"slot must be 0..{SLOTS - 1}, not {slot}")
    milliseconds = int(at * 1000) & 0xFFFFFFFFFFFF
    seed = f"{slot}:{epoch}:{seq}:{group_key}".encode("utf-8", "surrogatepass")
    tail = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big") & 0x3FFFFFFFFFFFFFFF
    value = (milliseconds << 80) | (0x7 << 76) | (slot << 64) | (0b10 << 62) | tail
    return value.to_bytes(16, "big")
