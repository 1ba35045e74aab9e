"""Follows the control partition's log from outside its writer: shards and gateways have the slot map and the tokens by
it."""

from __future__ import annotations

import asyncio

from models.control import ControlState
from models.frames import NO_DIGEST, decode_frame
from models.ports import EventLog


class ControlTail:
    """The control partition as far as it was read. Goes on without its writer."""

    def __init__(self, event_log: EventLog) -> None:
        self._event_log = event_log
        self._seq = 0
        self._digest = NO_DIGEST
        self._following = asyncio.Lock()
        self.state = ControlState()

    async def follow(self) -> bool:
        """Read what is new; True when there was something. Safe to call twice at once. Raises Unavailable, Damaged."""
        async with self._following:
            if await self._event_log.last_seq() == self._seq:
                return False
            while page := await self._event_log.read(self._seq):
                for seq, stored in page:
                    frame = decode_frame(self._event_log.partition, stored, seq, self._digest)
                    self._seq, self._digest = seq, frame.digest
                    for event in frame.events:
                        self.state.apply(event)
            return True

    async def close(self) -> None:
        await self._event_log.close()
