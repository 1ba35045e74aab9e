"""What has happened in the control partition, in the past tense. Its fold is models/control/control.py.

An event type is only added, or superseded; a field is only added at the end, with a default.
"""

from __future__ import annotations

from models.partition.event import Event


class SlotsAssigned(Event, frozen=True):
    """Which shard partition holds each slot, as 4,096 little-endian u16s. `guarded`: the log before this
    one was lost, and nobody knows whether there were tokens, so nobody comes in without one."""

    version: int
    owners: bytes
    guarded: bool = False


class SlotsMoving(Event, frozen=True):
    """Resharding to this map has begun. SlotsAssigned of the same version ends it."""

    version: int
    owners: bytes


class CopyBegan(Event, frozen=True):
    """In a copy: everything before this came from another system's log, and the shards' logs are still being copied.
    `source` says from where. CopyEnded says that all is there."""

    source: str


class CopyEnded(Event, frozen=True):
    """In a copy: it is complete, and may be started."""


class PartitionsBegan(Event, frozen=True):
    """These partitions have a log from now on; one without a log has lost it."""

    partitions: list[str]


class StoreMoved(Event, frozen=True):
    """All of it was copied, and goes on there: `to` says in words where. "" when this store was taken up
    again after all."""

    to: str
    at: float
    actor: str


class TokenCreated(Event, frozen=True):
    """An API token was made. Of its secret there is only the digest. 0 for `expires_at`: never."""

    id: str
    name: str
    scopes: list[str]
    digest: bytes
    at: float
    expires_at: float
    lifetime_s: float
    actor: str
    match: list[str] = []


class TokenRotated(Event, frozen=True):
    """A token has a new secret; the previous one is valid until `previous_until`."""

    id: str
    digest: bytes
    at: float
    expires_at: float
    previous_until: float
    actor: str


class TokenRevoked(Event, frozen=True):
    """A token was revoked."""

    id: str
    at: float
    actor: str


class TokensUsed(Event, frozen=True):
    """When tokens were last used, by id. Coarse: at most once an hour for one that is used all day."""

    uses: dict[str, float]


class SettingsChanged(Event, frozen=True):
    """`actor` changed settings of the running system. It holds for what was started as `start`.

    `changes` by key for people, as one would write the new values. The rest is everything that each kind of process
    goes by from now on: `settings` (JSON without secrets) for gateways, `shard` (MessagePack of ShardSettings),
    `classifier` (MessagePack of rules, and whether the built-in ones follow), `level` of the log for all.
    """

    start: str
    actor: str
    changes: dict[str, str]
    settings: str
    shard: bytes
    classifier: bytes
    level: str
    processes: dict[str, bytes] = {}


class PollTaken(Event, frozen=True):
    """`owner`, a process, alone polls `name` until then. `epoch` grows with each owner."""

    name: str
    owner: str
    epoch: int
    until: float


class CursorMoved(Event, frozen=True):
    """What came before `cursor` was stored."""

    name: str
    epoch: int
    cursor: str
