"""A slot moves from one partition to another: which state goes along, and both folds. The events
are made by services/upkeep/resharding.py.

    old log    ... SlotLeft(slot, version, incidents, series)        it holds all that left, so nothing is lost with a kill
    new log        SlotArrived(the same)                              between the two: whoever continues reads it from there

A slot goes in portions of whole incidents with their series. Series numbers belong to a partition: they get new ones
there. What senders of unfinished requests may still repeat (call ids) stays, since nothing runs meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from models.alerts.series import FIRING, MovedSeries
from models.incidents.incident import Incident
from models.partition.event import Event
from models.partition.sharding import SlotMap, partition_name
from models.shard.component import Component, on
from models.shard.core import Core, Whose


class SlotLeft(Event, frozen=True):
    """Incidents of a slot (MessagePack of incident.Incident) moved to another partition, each with its series
    (MessagePack of a list of series.MovedSeries). `version` is that of the future slot map. `beside`: of each, what components keep
    in records of their own, by their names. `held`: by their names too, what they keep of the slot that belongs to no incident; it
    goes with the first portion."""

    slot: int
    version: int
    incidents: list[bytes]
    series: list[bytes]
    beside: list[dict[str, bytes]] = []
    held: dict[str, bytes] = {}


class SlotArrived(Event, frozen=True):
    """The same in the partition where they are now."""

    slot: int
    version: int
    incidents: list[bytes]
    series: list[bytes]
    beside: list[dict[str, bytes]] = []
    held: dict[str, bytes] = {}


#: Bytes of one portion: one frame of a log, and one value in a store. A larger incident still goes as a whole.
PORTION_BYTES = 4 * 1024 * 1024


class _Id(msgspec.Struct, array_like=True):
    """An incident of which only the id is needed."""

    id: bytes


_encoder = msgspec.msgpack.Encoder()
_incident_decoder = msgspec.msgpack.Decoder(Incident)
_id_decoder = msgspec.msgpack.Decoder(_Id)
_series_decoder = msgspec.msgpack.Decoder(list[MovedSeries])


def by_slot(shard: Core) -> dict[int, list[bytes]]:
    """The ids of all incidents by slot, each in the order of their creation; none for a slot of which there is only something else."""
    found: dict[int, list[bytes]] = {}
    for _at, identity in shard.state.order:
        found.setdefault(shard.state.incidents[identity].slot, []).append(identity)
    for slot in sorted(shard.slots_held()):
        found.setdefault(slot, [])
    return found


def leaving(
    shard: Core, slot: int, identities: Sequence[bytes], version: int, limit_bytes: int = PORTION_BYTES
) -> Iterator[SlotLeft]:
    """The incidents of a slot, portion by portion; the caller applies each before it takes the next. `version` is that
    of the future slot map."""
    waiting, held = deque(identities), shard.carried_of_slot(slot)
    while waiting or held:
        incidents: list[bytes] = []
        series: list[bytes] = []
        beside: list[dict[str, bytes]] = []
        size = 0
        while waiting and size < limit_bytes:
            incident = shard.state.incidents[waiting.popleft()]
            incidents.append(_encoder.encode(incident))
            series.append(
                _encoder.encode(
                    [shard.state.series.moved(number) for number in shard.state.members[incident.id]]
                )
            )
            beside.append(shard.carried(incident))
            size += len(incidents[-1]) + len(series[-1]) + sum(map(len, beside[-1].values()))
        yield SlotLeft(slot, version, incidents, series, beside if any(beside) else [], held)
        held = {}


def arrived(left: SlotLeft) -> SlotArrived:
    """What the new partition logs of it."""
    return SlotArrived(left.slot, left.version, left.incidents, left.series, left.beside, left.held)


def first_incident(event: SlotLeft | SlotArrived) -> bytes:
    """What distinguishes one portion of a slot from the others: b"" for one without incidents, which is the only one."""
    if not event.incidents:
        return b""
    return _id_decoder.decode(event.incidents[0]).id


class SlotTransfer(Component):
    name = "slot transfer"

    def _fold_left(self, event: SlotLeft, now: float) -> None:
        """Forget what left."""
        state = self.state
        for record in event.incidents:
            identity = _id_decoder.decode(record).id
            incident = state.changing(identity)
            for number in state.members[identity]:
                state.touch_series(number)
                state.series.forget(number)
            if state.by_group.get((incident.tenant, incident.group_key)) is incident:
                del state.by_group[incident.tenant, incident.group_key]
            state.open_count -= incident.is_open
            self.shard.forget(incident)
        self.shard.drop_slot(event.slot, event.held)

    def _fold_arrived(self, event: SlotArrived, now: float) -> None:
        """Take what arrived, as if it had always been here."""
        state = self.state
        beside = event.beside or [{} for _ in event.incidents]
        for record, encoded, carried in zip(event.incidents, event.series, beside, strict=True):
            incident = _incident_decoder.decode(record)
            state.take_in(incident)
            members = state.members[incident.id]
            for each in _series_decoder.decode(encoded):
                number = state.series.free_number()
                state.touch_series(number)
                state.series.take_in(number, each, incident)
                members.append(number)
            self.shard.came(incident)
            self.shard.bring(incident, carried)
        self.shard.bring_slot(event.slot, event.held)

    # A slot may have incidents of all tenants.
    events = (
        on(SlotLeft, _fold_left, whose=Whose.SHARD),
        on(SlotArrived, _fold_arrived, whose=Whose.SHARD),
    )


def problems(shard: Core, slots: SlotMap | None = None) -> Iterator[str]:
    """What does not fit together in a folded state, or with the slot map; nothing when all is well. For `llm-im store verify`."""
    groups: dict[tuple[str, str], bytes] = {}
    for identity, incident in shard.state.incidents.items():
        numbers = shard.state.members[identity]
        firing = sum(1 for number in numbers if shard.state.series.status[number] == FIRING)
        if firing != incident.firing:
            yield f"incident {identity.hex()}: says that {incident.firing} alerts fire, {firing} do"
        if incident.is_open and not incident.is_by_hand:
            other = groups.setdefault((incident.tenant, incident.group_key), identity)
            if other != identity:
                yield f"incidents {other.hex()} and {identity.hex()} are both open, and are of one group"
        if (incident.created_at, identity) not in shard.state.order:
            yield f"incident {identity.hex()}: is in no list"
    open_count = sum(each.is_open for each in shard.state.incidents.values())
    if open_count != shard.state.open_count:
        yield f"{open_count} incidents are open, counted as {shard.state.open_count}"
    for identity, incident in shard.state.incidents.items():
        if slots is not None and partition_name(slots.owners[incident.slot]) != shard.partition:
            yield f"incident {identity.hex()}: its slot {incident.slot} belongs to another partition"
