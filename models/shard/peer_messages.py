"""What one incident tells another, in whichever shard that is. No event is written in two shards at once, so a message is
first owed by its sender: the event that leads to it is in the log with it. It is brought by effect SendPeerMessage, one at a
time for each sender so that they arrive in their order, until an answer to it is logged. A crash in between leaves the
debt, and the recovered shard asks again; a repeated message gets the same answer (`Handling.heard`).

    sender                                                     receiver
      send():  PeerMessageOwed                                    |
      |---------------- PeerMessageArrived --------------------->|  hears[...], PeerMessageReceived
      |<--------------- PeerMessageAnswered ---------------------|
      |  PeerMessageDelivered, answered[...]                      |

What a message leads to is the matter of the component that owns its type, in the shards of both (`Component.hears`,
`answered`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from models.errors import Busy, Conflict, Malformed
from models.incidents.incident import ID_BYTES, Incident, OwedPeerMessage, id_text
from models.incidents.verbs import CHILDREN_MAX, LINKS_MAX
from models.partition.event import Event
from models.shard.changes import Paid
from models.shard.component import Component, on
from models.shard.core import Core
from models.shard.effects import Effect, SendPeerMessage
from models.shard.messages import Done, Failed, PeerMessage, PeerMessageAnswered, PeerMessageArrived, Reply


class PeerMessageOwed(Event, frozen=True, tag="NoteOwed"):
    """This incident owes another one a peer message (models/shard/peer_messages.py, encoded)."""

    incident_id: bytes
    number: int
    to: bytes
    message: bytes


class PeerMessageDelivered(Event, frozen=True, tag="NoteDelivered"):
    """The other one answered: `refused` is why not, "" when it agreed."""

    incident_id: bytes
    number: int
    refused: str = ""


class PeerMessageReceived(Event, frozen=True, tag="NoteHeard"):
    """A peer message of `sender` was answered, and how: a repeat of it gets the same answer."""

    incident_id: bytes
    sender: bytes
    number: int
    refused: str = ""


#: Incidents that one incident ever hears from, 60 bytes each, kept while it lives: who links and unlinks others by program
#: would make it grow without end.
HEARD_MAX = 1000
#: Messages of one incident that wait for others' shards before a person's next one is refused: all its links, and all its
#: children asked to end, twice over.
OWED_MAX = 2 * (LINKS_MAX + CHILDREN_MAX)

_encoder = msgspec.msgpack.Encoder()


class PeerMessages(Component):
    name = "peer messages"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        #: Incidents that may have a pending peer message, and the number of the last one that was requested for each.
        self._owing: dict[bytes, None] = {}
        self._asked: dict[bytes, int] = {}

    # -- messages ------------------------------------------------------------------------------------------

    def _arrived(self, arrived: PeerMessageArrived, now: float) -> Reply:
        """A message for one of our incidents: Done when it agrees, Failed when it does not; asked again, the same."""
        shard = self.shard
        incident = self.state.incidents.get(arrived.to)
        if incident is None or incident.tenant != arrived.tenant:
            return Failed("NotFound", f"there is no incident {id_text(arrived.to)}, or it is archived")
        number, refused = incident.heard_of(arrived.sender)
        if not number and incident.handling is not None and arrived.sender not in incident.children:
            if len(incident.handling.heard) >= HEARD_MAX:
                return Failed("Conflict", f"it has received messages from {HEARD_MAX} incidents already")
        if arrived.number > number:
            try:
                message = shard.decode_peer_message(arrived.message)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                return Failed("Malformed", f"peer message can't be read: {error}")
            refused = shard.hear(incident, arrived.sender, message, now)
            shard.do(PeerMessageReceived(incident.id, arrived.sender, arrived.number, refused), now)
        return Failed("Conflict", refused) if refused else Done()

    def _answered(self, answer: PeerMessageAnswered, now: float) -> Reply:
        """The other incident answered: the message is settled, and the second half can be done here."""
        shard = self.shard
        incident = self.state.incidents.get(answer.sender)
        if incident is None or incident.handling is None:
            return Done()
        owed = incident.handling.owed
        if not owed or owed[0].number != answer.number:
            return Done()
        sent = owed[0]
        shard.do(PeerMessageDelivered(incident.id, sent.number, answer.refused), now)
        shard.report(Paid(incident), now)
        shard.answered(incident, sent.to, shard.decode_peer_message(sent.message), answer.refused, now)
        return Done()

    # -- debts ---------------------------------------------------------------------------------------------

    def started(self, now: float, is_set_back: bool) -> None:
        self._asked.clear()
        for incident in self.state.incidents.values():
            if self.owes(incident):
                self._owing[incident.id] = None

    def owed(self, now: float) -> Iterable[Effect]:
        return self._unsent() if self._owing else ()

    def _unsent(self) -> Iterator[Effect]:
        for identity in self._owing:
            incident = self.state.incidents.get(identity)
            if incident is not None and incident.handling is not None and incident.handling.owed:
                first = incident.handling.owed[0]
                if self._asked.get(identity) != first.number:
                    self._asked[identity] = first.number
                    yield SendPeerMessage(incident.tenant, identity, first.number, first.to, first.message)
        self._owing.clear()

    def ask_again(self, effect: SendPeerMessage) -> None:
        self._asked.pop(effect.sender, None)
        if effect.sender in self.state.incidents:
            self._owing[effect.sender] = None

    def owes(self, incident: Incident) -> bool:
        return incident.handling is not None and bool(incident.handling.owed)

    def left(self, incident: Incident) -> None:
        self._asked.pop(incident.id, None)

    def look_again(self, incident: Incident) -> None:
        """What this incident owes first may be another message than before."""
        self._owing[incident.id] = None

    # -- live and in replay ----------------------------------------------------------------------------------

    def _fold_owed(self, event: PeerMessageOwed, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        handling = incident.handled()
        if self._is_replaced(handling.owed, event):
            handling.owed.pop()
        handling.owed.append(OwedPeerMessage(event.number, event.to, event.message))
        handling.owed_number = event.number
        self.look_again(incident)

    def _fold_delivered(self, event: PeerMessageDelivered, now: float) -> None:
        incident = self.state.changing(event.incident_id)
        handling = incident.handled()
        handling.owed = [each for each in handling.owed if each.number > event.number]
        self.look_again(incident)

    def _fold_received(self, event: PeerMessageReceived, now: float) -> None:
        handling = self.state.changing(event.incident_id).handled()
        handling.heard[event.sender] = event.number, event.refused

    def _is_replaced(self, owed: list[OwedPeerMessage], event: PeerMessageOwed) -> bool:
        """Whether the message that was owed last need not be sent any more. The first may be on its way."""
        if len(owed) < 2 or owed[-1].to != event.to:
            return False
        before, after = map(self.shard.decode_peer_message, (owed[-1].message, event.message))
        return type(before) is type(after) and after.only_newest

    messages = {PeerMessageArrived: _arrived, PeerMessageAnswered: _answered}
    effects = (SendPeerMessage,)
    events = (
        on(PeerMessageOwed, _fold_owed),
        on(PeerMessageDelivered, _fold_delivered),
        on(PeerMessageReceived, _fold_received),
    )


def send(shard: Core, incident: Incident, to: bytes, message: PeerMessage, now: float) -> int:
    """`incident` owes another one a message from now on. Returns its number, among those of this sender."""
    number = 1 if incident.handling is None else incident.handling.owed_number + 1
    shard.do(PeerMessageOwed(incident.id, number, to, _encoder.encode(message)), now)
    return number


def withdraw(shard: Core, incident: Incident, to: bytes, kind: type[PeerMessage]) -> None:
    """Messages of a kind to another incident are owed no more. Part of a fold."""
    handling = incident.handled()
    handling.owed = [each for each in handling.owed if each.to != to or not _is_a(shard, each, kind)]
    shard.of(PeerMessages).look_again(incident)


def is_owed(shard: Core, incident: Incident, to: bytes, kind: type[PeerMessage]) -> bool:
    """Whether a message of a kind waits to be brought to that incident."""
    owed = [] if incident.handling is None else incident.handling.owed
    return any(each.to == to and _is_a(shard, each, kind) for each in owed)


def check_other(incident: Incident, other: bytes) -> None:
    """Raises Malformed, Conflict when `other` can't be an incident that this one has to do with."""
    if len(other) != ID_BYTES:
        raise Malformed("incident: expected an incident's id")
    if other == incident.id:
        raise Conflict("incident: expected another incident, not the same one")


def check_owed(incident: Incident) -> None:
    """Raises Busy when too many of its messages wait for a person to cause one more."""
    waiting = 0 if incident.handling is None else len(incident.handling.owed)
    if waiting >= OWED_MAX:
        raise Busy(
            f"{waiting} messages to other incidents are waiting for their shards: try again when those are back"
        )


def _is_a(shard: Core, owed: OwedPeerMessage, kind: type[PeerMessage]) -> bool:
    return isinstance(shard.decode_peer_message(owed.message), kind)
