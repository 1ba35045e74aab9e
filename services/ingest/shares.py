"""What each sender holds of something bounded (places of a gateway, bytes of bodies, a line to a shard), so that none keeps the others
out. Used by line.py, body.py and doors/http.py.
"""

from __future__ import annotations

from services.ingest.arrival import ANONYMOUS

#: A sender that holds something already may hold so many times what is free: alone three quarters of the whole, two of them three
#: sevenths each. Whatever others hold, something is free for the next one.
TIMES_FREE = 3
#: "" is ourselves. Without tokens all are one sender: there is nobody to keep from the others.
UNBOUNDED = frozenset({"", ANONYMOUS.name})


class Shares:
    """One of each bounded thing."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def held_by(self, sender: str) -> int:
        return self._held.get(sender, 0)

    def is_over(self, sender: str, amount: int, free: int) -> bool:
        """Whether so much more would be over a sender's share, while so much is free. Who holds nothing may have anything."""
        held = self._held.get(sender)
        return held is not None and held + amount > TIMES_FREE * free

    def take(self, sender: str, amount: int, free: int) -> bool:
        """add() unless it is_over()."""
        if sender in UNBOUNDED:
            return True
        held = self._held
        had = held.get(sender)
        if had is None:
            held[sender] = amount
        elif had + amount > TIMES_FREE * free:
            return False
        else:
            held[sender] = had + amount
        return True

    def add(self, sender: str, amount: int) -> None:
        """Until drop() of as much."""
        if amount and sender not in UNBOUNDED:
            self._held[sender] = self._held.get(sender, 0) + amount

    def drop(self, sender: str, amount: int) -> None:
        if amount and sender not in UNBOUNDED:
            if left := self._held[sender] - amount:
                self._held[sender] = left
            else:
                del self._held[sender]
