"""The messages that a shard accepts: requests, in the imperative, or news from outside; each gets a reply.

Messages, replies, events and effects are msgspec Structs laid out as arrays with their name as tag: they
cross processes and reach the disk as MessagePack. A field is only ever added at the end, with a default.
(docs/decisions/0002-structs-on-the-wire.md says why not dataclasses.)
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

import msgspec

from models.incidents.incident import IncidentType, Severity
from models.incidents.notification import Note
from models.incidents.verbs import AnyVerb
from models.wire import Wire


class Message(Wire, frozen=True):
    """A message to a shard; one of its components handles it (models/shard/assembly.py)."""


class AlertsArrived(Message, frozen=True):
    """A request's alerts for one shard, or those of several that came at the same time, as columns of equal length.

    keys      32 bytes an alert: series id, then a digest of all else it says except its end (models/alerts/alert.py)
    ends      seconds since the epoch; inf means it has no end and fires until told otherwise
    bodies    MessagePack of alert.Content, or b"" when the gateway believes that the shard knows the key; the
              shard asks for what it needs after all (Decision.BODY_WANTED)
    `call_id` is made once per message: a repeat of it gets the same reply and makes no event. `delivery_id` is what the sender gave (Idempotency-Key ...), already scoped by tenant and door; if
    `delivered_before` is set, the log has that delivery already and this is the answer it got. `trace_id` goes into
    the log with the events; `trace` is the whole trace context (models/trace.py), for what goes on from here. `sender`
    is the name of the token it came with, "anonymous" without one. `content` is a digest of what the sender wrote, ends
    included, for a delivery with an id: what it left open (an end, say) is filled in anew with each try.
    `received_at` is the gateway's clock when it read the (first) request (0: as the shard's): what is to come by that one has not
    ended. `said` has one byte an alert (Said), or none when no sender said anything of it; what is said to be
    resolved ends at `received_at` at the latest.
    """

    call_id: bytes
    tenant: str
    door: str
    keys: list[bytes]
    ends: list[float]
    bodies: list[bytes]
    want_ids: bool = False
    delivery_id: str | None = None
    trace_id: str | None = None
    delivered_before: bytes | None = None
    trace: str | None = None
    sender: str = ""
    content: bytes = b""
    received_at: float = 0.0
    said: bytes = b""


class Claim(IntEnum):
    """What a sender states about an alert besides its times."""

    NOTHING = 0
    RESOLVED = 1  # and when: its end is by the sender's clock
    RESOLVED_NOW = 2  # and not when: its end is by the gateway's clock


class Classified(Message, frozen=True):
    """The classification of some incidents: the answer to effect Classify."""

    verdicts: list[Classification]


class Classification(msgspec.Struct, frozen=True, array_like=True):
    """One incident's classification. `by` names the rule or model that gave it; `asked` echoes Classify.asked."""

    incident_id: bytes
    severity: Severity
    type: IncidentType
    impact: str
    by: str
    confidence: float
    asked: int


class ActionOutcome(Message, frozen=True):
    """The result of effect Act. `final`: do not retry. `retry_after_s`: not sooner than that from now. `reached`: a
    receiver may have got it although the attempt failed. `receiver` is whose outcome this is, `ref` what it calls what it
    made ("" if it said nothing)."""

    incident_id: bytes
    number: int
    attempt: int
    ok: bool
    detail: str
    final: bool = False
    retry_after_s: float = 0.0
    reached: bool = True
    receiver: str = "webhook"
    ref: str = ""


class Say(msgspec.Struct, frozen=True, array_like=True):
    """Asks a responder to say something at a receiver, for a person or a run; no shard remembers it. Answered by Said."""

    receiver: str
    key: str
    note: Note


class Said(msgspec.Struct, frozen=True, array_like=True):
    """What came of it."""

    ok: bool
    detail: str


class Archived(Message, frozen=True):
    """The archive holds these closed incidents durably, at these versions: the answer to effect Archive."""

    incident_ids: list[bytes]
    versions: list[int]


class Tick(Message, frozen=True):
    """Time passes: deadlines that are due become events. Makes no event when nothing is due.

    While `in_gap` no series expires: no sender could have said that it still fires.
    """

    in_gap: bool = False


class GapEnded(Message, frozen=True, tag="Heard"):
    """A reception gap of the shard has ended (recovery, no beat for 5 s, a full store)."""

    gap_since: float
    why: str


class Command(Message, frozen=True):
    """A person does something to an incident; Create has no `incident_id` yet.

    `actor` is the name on their token. `if_version` makes it conditional: Failed as Stale when the incident has another
    version. `call_id`, `delivery_id`, `trace_id` and `trace` work as in AlertsArrived, with CommandDone as the reply
    that is remembered. `content` is a digest of what the caller wrote: the same words, sent again, may have become another
    verb ("for 30m" from now).
    """

    call_id: bytes
    tenant: str
    actor: str
    incident_id: bytes
    verb: AnyVerb
    reason: str = ""
    if_version: int | None = None
    delivery_id: str | None = None
    trace_id: str | None = None
    delivered_before: bytes | None = None
    trace: str | None = None
    content: bytes = b""


class PeerMessage(msgspec.Struct, frozen=True, array_like=True, tag=True, tag_field="peer_message"):
    """What one incident tells another; a component hears it (models/shard/peer_messages.py). A field is only added at the
    end, with a default."""

    #: The newest stands for those before it: one that waits behind another need not be sent any more.
    only_newest: ClassVar[bool] = False


class PeerMessageArrived(Message, frozen=True, tag="Told"):
    """A PeerMessage (`message`, encoded) reaches the incident it is for. Answered by Done, or Failed when it can't be; a repeat
    gets the same answer: `number` says which of its sender's messages this is."""

    tenant: str
    sender: bytes
    number: int
    to: bytes
    message: bytes
    trace: str | None = None


class PeerMessageAnswered(Message, frozen=True, tag="NoteAnswered"):
    """What the other incident said to a message: the answer to effect SendPeerMessage. `refused` is why not, "" when it agreed."""

    sender: bytes
    number: int
    refused: str = ""


class Decision(IntEnum):
    """The decision about one alert. Kept in logs and replies forever: numbers are never reused."""

    OPENED = 1  # first of its group: a new incident
    JOINED = 2  # a new series of an open incident
    REPEATED = 3  # same series, same content: only "last seen" and its end move
    CHANGED = 4  # same series, other annotations or start
    RESOLVED = 5  # its series ended
    REFIRED = 6  # a resolved series of an open incident fires again
    REOPENED = 7  # fires within reopen_window of its incident's end
    DUPLICATE = 8  # the sender delivered this before (delivery id)
    UNKNOWN_RESOLVE = 9  # an end for a series that is not firing here: kept in the log, changes nothing
    OVERFLOWED = 10  # max_concurrent_incidents is reached: joined the service's overflow incident
    LATE = 11  # the end of an earlier life than the series' present one: kept in the log, changes nothing
    BODY_WANTED = 12  # not decided: sent without its body, and the shard does not know its key (any more)
    UNREADABLE = 13  # not stored: its body is no alert; a fault of ours, not of its sender
    SPLIT_OFF = 14  # a person moved its series into an incident of its own
    COLLIDED = 20  # another label set has its series id: kept in the log, changes nothing; its sender is told
    SENDER_FULL = 21  # not stored: its sender holds its whole share of the shard's memory
    SHARD_FULL = 22  # not stored: the shard's memory is used up


#: The sentence that the API shows for each decision.
REASONS: dict[Decision, str] = {
    Decision.OPENED: "first alert of its group: opened an incident",
    Decision.JOINED: "new series of an open incident with the same group key",
    Decision.REPEATED: "same series and content as before: only its times moved",
    Decision.CHANGED: "same series as one that is firing, with different annotations or start time",
    Decision.RESOLVED: "its series was firing and has ended",
    Decision.REFIRED: "its series had ended, and its incident was still open",
    Decision.REOPENED: "fires again within reopen_window of its incident's resolution",
    Decision.DUPLICATE: "this delivery id was already accepted",
    Decision.UNKNOWN_RESOLVE: "a resolve for a series that is not firing here",
    Decision.OVERFLOWED: "max_concurrent_incidents is reached: joined the overflow incident of its service",
    Decision.LATE: "ends an earlier run of its series: its start and end are both before the current run",
    Decision.SPLIT_OFF: "a person split its series off into an incident of its own",
    Decision.SENDER_FULL: "not stored: its sender has used up its share of the shard's memory (lifecycle.max_sender_share)",
    Decision.SHARD_FULL: "not stored: the shard's memory is used up (lifecycle.max_shard_bytes)",
    Decision.COLLIDED: "joins no incident: a series with other labels has the same id; change a label",
    Decision.UNREADABLE: "not stored: what the gateway made of it can't be read",
    Decision.BODY_WANTED: "not decided yet: its shard requests the full alert",
}


_DECISIONS = {int(each): each for each in Decision}


class AlertsReply(Wire, frozen=True):
    """The receipt of AlertsArrived, sent once it is durable. One byte an alert, or one byte if all are alike.

    `incident_ids` is parallel to the alerts when asked for (b"" where an alert belongs to none), else empty.
    `content` is a digest of what a delivery with an id held, so that the id is not taken for another body.
    """

    decisions: bytes
    incident_ids: list[bytes] = []
    content: bytes = b""

    def decision(self, index: int) -> Decision:
        number = self.decisions[index if len(self.decisions) > 1 else 0]
        # Found, not made: half a microsecond for each alert.
        return _DECISIONS.get(number) or Decision(number)


class Done(Wire, frozen=True):
    """The reply to every message that needs no answer but "done"."""


class Failed(Wire, frozen=True):
    """The reply to a message that could not be handled; its neighbours in the same call were. `kind` names an
    error of models/errors.py."""

    kind: str
    detail: str
    retry_after_s: float = 0.0


class CommandDone(Wire, frozen=True):
    """The receipt of a Command, sent once it is durable: the incident it was about and its version after it.

    For Create and Split `incident_id` is the new one. `content` is a digest of the command, so that its delivery id is
    not taken for another. `changed` is False if nothing needed to change.
    """

    incident_id: bytes
    version: int
    content: bytes = b""
    changed: bool = True


Reply = AlertsReply | Done | Failed | CommandDone

_encoder = msgspec.msgpack.Encoder()
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(value: Message | Reply) -> bytes:
    """MessagePack of a message or a reply."""
    return _encoder.encode(value)


def decode_reply(data: bytes) -> Reply:
    """The reply in `data`. Raises msgspec.ValidationError or DecodeError when it is none."""
    return _reply_decoder.decode(data)
