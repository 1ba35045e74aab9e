"""The table of contents of a shard: its components, in the order in which they react and are called. A new one is a
file and a line here; nothing else lists them.

The tables below derive from it: who folds an event and how it reads, who handles a message, a verb or a change, who
retries an effect, and what a log and a snapshot may hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from models.errors import Broken
from models.incidents.lines import CHANGED, Description
from models.partition.event import Event, one_of
from models.partition.frames import Frames
from models.shard.archiving import Archiving
from models.shard.attention import Attention
from models.shard.by_hand import ByHand
from models.shard.children import Children
from models.shard.classification import Classifying
from models.shard.commands import Commands
from models.shard.component import Component, EventOf
from models.shard.core import NAMED_BY
from models.shard.edge_outbox import EdgeOutbox
from models.shard.escalation import Escalations
from models.shard.follow_ups import FollowUps
from models.shard.heartbeats import HeartbeatsOfShard
from models.shard.inhibitors import Inhibitors
from models.shard.intake import Intake
from models.shard.known_playbooks import KnownPlaybooks
from models.shard.known_silences import KnownSilences
from models.shard.links import Links
from models.shard.messages import Message, PeerMessage, Tick
from models.shard.mutes import Mutes
from models.shard.notifications import Notifications
from models.shard.openings import Openings
from models.shard.peer_messages import PeerMessages
from models.shard.people import People
from models.shard.reception import Reception
from models.shard.relations import Relations
from models.shard.run_choosing import Choosing
from models.shard.run_verbs import RunVerbs
from models.shard.runs import Runs
from models.shard.schedules import Schedules
from models.shard.sharing import Sharing
from models.shard.slot_transfer import SlotTransfer
from models.shard.splitting import Splitting
from models.shard.states import States
from models.shard.targets import Targets
from models.shard.verification import Verification
from models.wire import tag_of

COMPONENTS: tuple[type[Component], ...] = (
    Intake,
    Openings,
    Commands,
    ByHand,
    Classifying,
    Archiving,
    PeerMessages,  # a parent is told before anybody else
    Children,
    Links,
    Splitting,
    KnownSilences,
    Inhibitors,
    Mutes,  # after what mutes, before who is told
    Relations,  # before who is told, too
    Notifications,
    Escalations,  # as those are told whom routes name
    KnownPlaybooks,
    Choosing,  # before what is run of them
    Runs,
    Schedules,  # after what became of runs
    RunVerbs,
    Verification,  # after what runs do
    FollowUps,
    Targets,
    Sharing,
    Attention,
    People,
    States,
    EdgeOutbox,
    HeartbeatsOfShard,
    SlotTransfer,
    Reception,  # last, because the others look at times that it corrects
)


class Assembly:
    """Some components, and what follows from what they own. Raises Broken when two own the same, and for an event that does not
    say whose it is."""

    def __init__(self, components: Sequence[type[Component]]) -> None:
        self.components = tuple(components)
        self.events: dict[type[Event], EventOf[Any]] = {}
        owners: dict[object, str] = {}
        for each in components:
            owned: Iterable[object] = (
                f"the name {each.name}",
                *(event.kind for event in each.events),
                *each.messages,
                *each.hears,
                *each.verbs,
                *each.effects,
                *(f"records {record.kind.name}" for record in each.records),
            )
            for thing in owned:
                if thing in owners:
                    raise Broken(f"both {owners[thing]} and {each.__name__} own {thing}")
                owners[thing] = each.__name__
            if each.hears.keys() != each.answered.keys():
                raise Broken(
                    f"{each.__name__} must both hear and take the answer of what incidents tell each other"
                )
            for event in each.events:
                field = NAMED_BY.get(event.whose)
                if field is not None and field not in event.kind.__struct_fields__:
                    raise Broken(f"{event.kind.__name__} of {each.__name__} has no {field}: whose is it?")
            self.events.update((event.kind, event) for event in each.events)
        #: How their log is read.
        self.frames = Frames(self.events)
        #: How events that may be lines of a timeline are worded.
        self.descriptions: dict[type[Event], Description[Any]] = {
            kind: event.description for kind, event in self.events.items() if event.description is not None
        }
        #: Their names as a log has them.
        self.described = frozenset(tag_of(kind) for kind in self.descriptions)
        #: Every kind of line, in the order in which the components have them.
        self.kinds = tuple(dict.fromkeys(kind for each in self.descriptions.values() for kind in each.kinds))
        #: Kinds that can make an incident leave or enter a filter. What it was before may not be known to a follower.
        self.sifting = frozenset(
            {CHANGED, *(kind for each in self.descriptions.values() if each.sifts for kind in each.kinds)}
        )
        messages: list[type[Message]] = [Tick, *(kind for each in components for kind in each.messages)]
        self._messages: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(one_of(messages))
        self._peer_messages: msgspec.msgpack.Decoder[PeerMessage] = msgspec.msgpack.Decoder(
            one_of(kind for each in components for kind in each.hears)
        )

    def decode_message(self, data: bytes) -> Message:
        """The message in `data`. Raises msgspec.ValidationError or DecodeError when it is none."""
        return self._messages.decode(data)

    def decode_peer_message(self, data: bytes) -> PeerMessage:
        """What one incident tells another. Raises as decode_message()."""
        return self._peer_messages.decode(data)


ASSEMBLY = Assembly(COMPONENTS)
decode_message = ASSEMBLY.decode_message
