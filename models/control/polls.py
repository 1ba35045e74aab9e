"""Section `polls`: which process polls or reads from whom, under a lease, and how far it got.

A lease runs out by itself. Each time another process takes one its epoch grows, and what a process says under an older epoch is
refused: two systems, or a process that was only slow, never move a cursor past what the other one has not taken.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from models.control.events import CursorMoved, PollTaken
from models.control.section import Section
from models.errors import Conflict, Malformed, TooLarge
from models.partition.event import Event
from models.wire import Wire

#: Ten times what one would poll. Beyond it the one whose lease ran out the longest ago is forgotten.
POLLS_MAX = 1000
#: "taxii/threat-feed"; a process with its host and a part of chance.
NAME_MAX_BYTES = 200
#: A time, a number, or what a server calls a page.
CURSOR_MAX_BYTES = 4096
#: A process that is gone keeps the others waiting for no longer.
LEASE_MAX_S = 3600.0


class TakePoll(Wire, frozen=True):
    """Let `owner`, a process, be the only one to poll `name` for `lease_s` from now. Again, in time, to go on."""

    name: str
    owner: str
    lease_s: float


class ReleasePoll(Wire, frozen=True):
    """`owner` polls no more. Nothing if it does not hold the lease."""

    name: str
    owner: str


class MoveCursor(Wire, frozen=True):
    """What came before `cursor` was stored. Under the epoch of the lease."""

    name: str
    epoch: int
    cursor: str


class Poll(msgspec.Struct, frozen=True, array_like=True):
    """Who polls it until when, and how far it got; "" for nothing yet."""

    owner: str
    epoch: int
    until: float
    cursor: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Poll)


class Polls(Section):
    """A record for each, by its name."""

    name = "polls"
    events = (PollTaken, CursorMoved)
    messages = (TakePoll, ReleasePoll, MoveCursor)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        self.polls: dict[str, Poll] = {}

    # -- deciding --

    def decide(self, message: Wire, now: float) -> list[Event]:
        """What comes of a message. Raises Conflict for who does not hold the lease, Malformed, TooLarge."""
        if isinstance(message, TakePoll):
            return self._take(message, now)
        if isinstance(message, ReleasePoll):
            found = self.polls.get(message.name)
            if found is None or found.owner != message.owner or found.until <= now:
                return []
            return [PollTaken(message.name, found.owner, found.epoch, now)]
        assert isinstance(message, MoveCursor)
        return self._move(message)

    def _take(self, message: TakePoll, now: float) -> list[Event]:
        for field in ("name", "owner"):
            size = len(getattr(message, field).encode())
            if not 1 <= size <= NAME_MAX_BYTES:
                raise Malformed(f"{field}: expected 1 to {NAME_MAX_BYTES} bytes, got {size}")
        if not 0.0 < message.lease_s <= LEASE_MAX_S:
            raise Malformed(f"lease_s: expected more than 0, at most {LEASE_MAX_S:g}, not {message.lease_s}")
        found = self.polls.get(message.name)
        # One that is longer than any may be was given by a clock that is wrong no more.
        is_held = found is not None and now < found.until <= now + LEASE_MAX_S
        if found is not None and is_held and found.owner != message.owner:
            raise Conflict(
                f"{found.owner} polls {message.name} already, at least for {found.until - now:.0f} s"
            )
        if found is None:
            self._check_room(now)
        epoch = 1 if found is None else found.epoch + (found.owner != message.owner)
        return [PollTaken(message.name, message.owner, epoch, now + message.lease_s)]

    def _move(self, message: MoveCursor) -> list[Event]:
        found = self.polls.get(message.name)
        if found is None or found.epoch != message.epoch:
            owner = "nobody" if found is None else found.owner
            raise Conflict(f"{owner} polls {message.name} by now: this cursor came too late")
        if len(message.cursor.encode()) > CURSOR_MAX_BYTES:
            raise TooLarge(f"cursor: over {CURSOR_MAX_BYTES} bytes")
        if message.cursor == found.cursor:
            return []
        return [CursorMoved(message.name, message.epoch, message.cursor)]

    def _check_room(self, now: float) -> None:
        if len(self.polls) >= POLLS_MAX and min(each.until for each in self.polls.values()) > now:
            raise TooLarge(f"{POLLS_MAX} are polled already")

    # -- folding --

    def apply(self, event: Event, now: float) -> None:
        if isinstance(event, PollTaken):
            if event.name not in self.polls and len(self.polls) >= POLLS_MAX:
                oldest = min(self.polls, key=lambda name: (self.polls[name].until, name))
                self._touch(oldest.encode())
                del self.polls[oldest]
            before = self.polls.get(event.name)
            cursor = "" if before is None else before.cursor
            self._touch(event.name.encode())
            self.polls[event.name] = Poll(event.owner, event.epoch, event.until, cursor)
            return
        assert isinstance(event, CursorMoved)
        self._touch(event.name.encode())
        self.polls[event.name] = msgspec.structs.replace(self.polls[event.name], cursor=event.cursor)

    def capture(self, key: bytes) -> bytes | None:
        found = self.polls.get(key.decode())
        return None if found is None else _encoder.encode(found)

    def load(self, key: bytes, record: bytes) -> None:
        self.polls[key.decode()] = _decoder.decode(record)
