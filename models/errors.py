"""Every error of ours, in one tree; adapters translate foreign errors into these at their edge.

IncidentManagerError
├── Refused                 the caller must change something before asking again
│   ├── Malformed           the input can't be read; names the field and what was expected
│   ├── TooLarge            the input is over a named limit
│   ├── Unauthorized        the caller did not prove who it is
│   ├── Forbidden           the caller may not do this; says which scope it needs
│   ├── NotFound            there is no such thing here
│   ├── Conflict            its state does not allow this; says which
│   ├── Stale               it was changed meanwhile: read it again
│   ├── ShareUsedUp         the caller has used up its share
│   ├── Busy                a bounded queue is full; try again after `retry_after_s`
│   │   └── RateLimited     the caller sends faster than it may; nothing of it was taken
│   └── NotOwner            another actor owns this partition; ask `owner`
├── Unavailable             the same call may succeed later
│   ├── Full                the store has no room left
│   └── OutcomeUnknown      an append may or may not have happened: reopen and replay, never repeat blindly
└── Broken                  a bug or damaged data; let it crash
    ├── Fenced              a newer epoch owns the partition; this writer must stop at once
    └── Damaged             stored bytes fail their checksum; names partition, seq and place
"""

from __future__ import annotations


class IncidentManagerError(Exception):
    """Root of the tree drawn above."""


class Refused(IncidentManagerError):
    """The caller must change something before asking again."""


class Malformed(Refused):
    """The input can't be read. The message names the field and what was expected."""


class TooLarge(Refused):
    """The input is over a named limit."""


class Unauthorized(Refused):
    """The caller did not prove who it is. The message never repeats what was presented."""


class Forbidden(Refused):
    """The caller may not do this. The message says which scope it needs, and never what a token is."""


class NotFound(Refused):
    """There is no such thing here."""


class Conflict(Refused):
    """Its state does not allow this. The message says which state, and what to do instead."""


class Stale(Refused):
    """It was changed since the caller read it: read it again, then decide again."""


class ShareUsedUp(Refused):
    """The caller has used up its share. Trying again makes sense once some of it has ended."""


class Busy(Refused):
    """A bounded queue is full; try again after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(Busy):
    """The caller, or all callers together, send faster than they may; nothing of the request was taken, and after `retry_after_s`
    seconds there is room again. `limit` is "sender" or "all"; `quota` alerts in `window_s` seconds are allowed."""

    def __init__(
        self, message: str, retry_after_s: float, limit: str = "sender", quota: int = 0, window_s: int = 1
    ) -> None:
        super().__init__(message, retry_after_s)
        self.limit = limit
        self.quota = quota
        self.window_s = window_s


class NotOwner(Refused):
    """Another actor owns this partition; ask it, by the name in `owner`."""

    def __init__(self, partition: str, owner: str) -> None:
        super().__init__(f"partition {partition} is owned by {owner}")
        self.partition = partition
        self.owner = owner


class Unavailable(IncidentManagerError):
    """The same call may succeed later."""


class Full(Unavailable):
    """The store has no room left. Nothing of the append was kept."""


class OutcomeUnknown(Unavailable):
    """An append may or may not have happened: reopen and replay, never repeat it blindly."""


class Broken(IncidentManagerError):
    """A bug or damaged data: let the process crash and start again from the log."""


class Fenced(Broken):
    """A newer epoch owns the partition; this writer must stop at once."""


class Damaged(Broken):
    """Stored bytes fail their checksum. `partition` and `seq` say where, the message says how."""

    def __init__(self, partition: str, seq: int, how: str) -> None:
        super().__init__(f"partition {partition} is damaged at seq {seq}: {how}")
        self.partition = partition
        self.seq = seq
