"""Has the control partition's writer decide about a message. Used by station.py, and by bootstrap.py for actors that have no station."""

from __future__ import annotations

import asyncio

from models.control.control import ControlMessage, encode_message
from models.errors import Unavailable
from models.ports import Peers

#: An append of the control partition takes milliseconds; one that hangs is asked for again.
CHANGE_TIMEOUT_S = 5.0
CHANGE_RETRY_S = 0.2


async def tell_control(peers: Peers, control: str, message: ControlMessage, *, hold_s: float) -> None:
    """Returns when it is decided; waits out a restart of the writer for `hold_s`. Safe, because a repeat of a message changes
    nothing. Raises Malformed, NotFound, Conflict, Unavailable."""
    payload = encode_message(message)
    give_up_at = asyncio.get_running_loop().time() + hold_s
    while True:
        try:
            await peers.call(control, "change", payload, CHANGE_TIMEOUT_S)
            return
        except Unavailable:
            if asyncio.get_running_loop().time() >= give_up_at:
                raise
        await asyncio.sleep(CHANGE_RETRY_S)
