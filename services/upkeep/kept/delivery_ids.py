"""Delivery ids: which requests were accepted already, and how they were answered. They run out within minutes, so those left
over make no store count as used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from models.backup import File, Part
from models.partition.sharding import slot_of_id
from models.partitions import DELIVERY_IDS
from models.ports import DeliveryIds
from models.shard.messages import CommandDone, decode_reply
from services.stores.choice import Stores
from services.upkeep.backup.target import Target
from services.upkeep.kept.port import KeptPort, Progress, Upto

#: An id, when it was accepted, and the answer.
Delivery = tuple[str, float, bytes]


class KeptDeliveryIds(KeptPort[DeliveryIds, Delivery]):
    name = DELIVERY_IDS
    counted, items = "deliveries", "delivery ids"
    fills = False
    decoder = msgspec.msgpack.Decoder(list[Delivery])

    def open(self, stores: Stores, partition: str) -> DeliveryIds:
        return stores.delivery_ids(partition)

    def pages(self, port: DeliveryIds) -> AsyncIterator[list[Delivery]]:
        return port.entries()

    async def put(self, port: DeliveryIds, items: Sequence[Delivery]) -> None:
        await port.add(items)

    def size_of(self, item: Delivery) -> int:
        return len(item[0]) + len(item[2])

    def files_in(self, part: Part) -> list[File]:
        return part.deliveries

    async def back_up(
        self,
        port: DeliveryIds,
        target: Target,
        known: dict[str, int],
        part: Part,
        latest: Part | None,
        progress: Progress,
    ) -> Part:
        return msgspec.structs.replace(part, deliveries=await self.pack(port, target, known))

    def was_there(self, item: Delivery, upto: Upto) -> bool:
        # One whose alerts are not in the log must be taken when its sender brings it again. Those of frames behind the snapshot
        # are written again by the shard's recovery; at the very time of the last frame there may be some of the frame after it.
        return item[1] < upto.end or (item[1] == upto.end and upto.is_snapshot_alone)

    def slot_of(self, item: Delivery) -> int | None:
        """What a person asked under a key goes with its incident. An alert that is sent again is known by what it says, and the
        alerts of one request are dealt to shards otherwise from now on."""
        reply = decode_reply(item[2])
        return slot_of_id(reply.incident_id) if isinstance(reply, CommandDone) else None
