"""What the control partition decides: which shard partition holds each slot, the API tokens, and settings changed while it
runs. Silences follow. Its writer is actors/control.py; all others fold the same events (actors/control_tail.py).
"""

from __future__ import annotations

from array import array

import msgspec

from models.control.events import (
    CopyBegan,
    CopyEnded,
    PartitionsBegan,
    SettingsChanged,
    SlotsAssigned,
    SlotsMoving,
    StoreMoved,
    TokenCreated,
    TokenRevoked,
    TokenRotated,
    TokensUsed,
)
from models.control.tokens import (
    ADMIN,
    EXPIRED_SHOWN_S,
    LIFETIME_MAX_S,
    LIFETIME_MIN_S,
    OVERLAP_MAX_S,
    TOKENS_MAX,
    USE_KEPT_S,
    Token,
    match_of,
    name_of,
    scopes_of,
)
from models.errors import Broken, Conflict, Malformed, NotFound
from models.partition.event import Event
from models.partition.sharding import SLOTS, SlotMap, partition_name
from models.wire import Wire


class CreateToken(Wire, frozen=True):
    """Make a token. `digest` is all that is told of its secret; a repeat with the same id changes nothing."""

    id: str
    name: str
    scopes: list[str]
    digest: bytes
    lifetime_s: float
    actor: str
    match: list[str] = []


class RotateToken(Wire, frozen=True):
    """Give a token a new secret; the old one stays good for `overlap_s`, but no longer than it was."""

    id: str
    digest: bytes
    overlap_s: float
    actor: str


class RevokeToken(Wire, frozen=True):
    """A token is good for nothing any more, from now on. The last one with the scope admin goes with `force` only."""

    id: str
    actor: str
    force: bool = False


class TokensSeen(Wire, frozen=True):
    """A gateway says when it last met tokens, by id. Makes an event only when what is kept is an hour old."""

    uses: dict[str, float]


#: Settings are decided by who compared them (services/wiring/reload.py): their event is its own message.
ControlMessage = CreateToken | RotateToken | RevokeToken | TokensSeen | SettingsChanged

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ControlMessage)


def encode_message(message: ControlMessage) -> bytes:
    return _encoder.encode(message)


def decode_message(payload: bytes) -> ControlMessage:
    """Raises Malformed."""
    try:
        message: ControlMessage = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a message to the control partition: {error}") from error
    return message


class ControlState:
    """The fold of the control partition's events."""

    def __init__(self) -> None:
        self.slots: SlotMap | None = None
        #: The map that resharding is on its way to; None when none is under way.
        self.moving_to: SlotMap | None = None
        #: From where this is being copied; "" when it is whole.
        self.copied_from = ""
        #: To where all of it was copied, and goes on there; None while it is used here.
        self.moved: StoreMoved | None = None
        #: Partitions that had a log: one without has lost it.
        self.begun: set[str] = set()
        self.tokens: dict[str, Token] = {}
        #: True from the first token on, and for ever: when the last one expires, or a control log with tokens may have been
        #: lost, the doors must not open to all.
        self.guarded = False
        #: Grows with every change that decides who may come in: what was remembered of a token before is void.
        self.token_version = 0
        #: Ids of the last tokens that were revoked, so that a repeated revocation is one.
        self._revoked: dict[str, None] = {}
        #: The last change of settings, also one of an earlier start, which holds no more.
        self.settings: SettingsChanged | None = None

    @property
    def slot_version(self) -> int:
        return 0 if self.slots is None else self.slots.version

    def begin(self, partitions: int) -> list[Event]:
        """What the first start decides; nothing when it was decided before. The number of partitions stays what it
        was then, whatever the settings say now: slots move only by resharding."""
        if self.slots is not None:
            return []
        first = SlotMap.even(partitions)
        return [SlotsAssigned(first.version, _owners(first))]

    @staticmethod
    def begin_after_loss(slots: SlotMap) -> list[Event]:
        """What begins in the place of a control log that was lost: the doors stay closed until there is a token again."""
        names = [partition_name(index) for index in range(slots.partitions)]
        return [SlotsAssigned(slots.version, _owners(slots), guarded=True), PartitionsBegan(names)]

    def reshard(self, partitions: int) -> list[Event]:
        """What begins moving slots to so many partitions; nothing when that is under way. Raises Conflict."""
        if self.slots is None:
            raise Conflict("there are no slots yet: the first start makes them, as state.partitions says")
        if self.moving_to is not None:
            if self.moving_to.partitions != partitions:
                raise Conflict(
                    f"resharding to {self.moving_to.partitions} partitions is under way: finish that first"
                )
            return []
        if self.slots.partitions == partitions:
            raise Conflict(f"there are {partitions} partitions already")
        wanted = self.slots.spread(partitions)
        return [SlotsMoving(wanted.version, _owners(wanted))]

    def resharded(self) -> list[Event]:
        """What ends it, when every slot is where it is to be."""
        moved = self.moving_to
        return [] if moved is None else [SlotsAssigned(moved.version, _owners(moved))]

    def decide(self, message: ControlMessage, now: float) -> list[Event]:
        """What comes of a message; nothing for a repeat. Raises Malformed, NotFound, Conflict."""
        match message:
            case SettingsChanged():
                return [] if message == self.settings else [message]
            case CreateToken():
                return self._create(message, now)
            case RotateToken():
                return self._rotate(message, now)
            case RevokeToken():
                return self._revoke(message, now)
            case TokensSeen():
                return self._seen(message, now)
            case _:
                raise Broken(f"{type(message).__name__} is not decided here")

    def apply(self, event: Event) -> None:
        """Fold one event in. Raises Broken for one that belongs to a shard."""
        match event:
            case SlotsAssigned():
                self.slots, self.moving_to = _map_of(event), None
                self.guarded = self.guarded or event.guarded
            case PartitionsBegan():
                self.begun.update(event.partitions)
            case StoreMoved():
                self.moved = event if event.to else None
            case SlotsMoving():
                self.moving_to = _map_of(event)
            case CopyBegan():
                self.copied_from = event.source
            case CopyEnded():
                self.copied_from = ""
            case SettingsChanged():
                self.settings = event
            case TokenCreated():
                self._forget_expired(event.at - EXPIRED_SHOWN_S)
                self.tokens[event.id] = Token(
                    event.id,
                    event.name,
                    tuple(event.scopes),
                    event.digest,
                    event.at,
                    event.actor,
                    event.lifetime_s,
                    event.expires_at,
                    match=tuple(event.match),
                )
                self._forget_oldest_expired(event.at)
                self.guarded = True
                self.token_version += 1
            case TokenRotated():
                before = self.tokens[event.id]
                self.tokens[event.id] = msgspec.structs.replace(
                    before,
                    digest=event.digest,
                    expires_at=event.expires_at,
                    rotated_at=event.at,
                    previous=before.digest,
                    previous_until=event.previous_until,
                )
                self.token_version += 1
            case TokenRevoked():
                del self.tokens[event.id]
                self._revoked[event.id] = None
                if len(self._revoked) > TOKENS_MAX:
                    del self._revoked[next(iter(self._revoked))]
                self.token_version += 1
            case TokensUsed():
                for token_id, at in event.uses.items():
                    if (token := self.tokens.get(token_id)) is not None:
                        self.tokens[token_id] = msgspec.structs.replace(token, used_at=at)
            case _:
                raise Broken(f"{type(event).__name__} does not belong to the control partition")

    # -- tokens --

    def _create(self, message: CreateToken, now: float) -> list[Event]:
        name, scopes = name_of(message.name), scopes_of(message.scopes)
        match = match_of(message.match, scopes)
        if (known := self.tokens.get(message.id)) is not None and known.digest == message.digest:
            return []
        if known is not None or message.id in self._revoked:
            raise Conflict(f"token {message.id} already exists")
        lifetime_s = message.lifetime_s
        if lifetime_s and not LIFETIME_MIN_S <= lifetime_s <= LIFETIME_MAX_S:
            raise Malformed(f"expires_in: expected {LIFETIME_MIN_S:g} s to {LIFETIME_MAX_S / 86400:g} days")
        if not self.guarded and ADMIN not in scopes:
            raise Conflict(
                f"the first token needs the scope {ADMIN!r}: from then on every request needs a token, and only an "
                "admin can make more"
            )
        if any(token.name == name and token.is_live(now) for token in self.tokens.values()):
            raise Conflict(
                f"there is a token named {name!r} already: rotate it, revoke it, or choose another name"
            )
        if sum(token.is_live(now) for token in self.tokens.values()) >= TOKENS_MAX:
            raise Conflict(f"there are {TOKENS_MAX} tokens already: revoke some first")
        expires_at = now + lifetime_s if lifetime_s else 0.0
        return [
            TokenCreated(
                message.id,
                name,
                list(scopes),
                message.digest,
                now,
                expires_at,
                lifetime_s,
                message.actor,
                list(match),
            )
        ]

    def _rotate(self, message: RotateToken, now: float) -> list[Event]:
        token = self._token(message.id)
        if token.digest == message.digest:
            return []
        if not 0 <= message.overlap_s <= OVERLAP_MAX_S:
            raise Malformed(f"overlap: expected 0 s to {OVERLAP_MAX_S / 86400:g} days")
        others = (each for each in self.tokens.values() if each.id != token.id)
        if any(each.name == token.name and each.is_live(now) for each in others):
            raise Conflict(f"it expired, and another token is named {token.name!r} now")
        until = now + message.overlap_s
        if token.expires_at:
            until = min(until, token.expires_at)
        expires_at = now + token.lifetime_s if token.lifetime_s else 0.0
        return [TokenRotated(token.id, message.digest, now, expires_at, until, message.actor)]

    def _revoke(self, message: RevokeToken, now: float) -> list[Event]:
        if message.id in self._revoked:
            return []
        token = self._token(message.id)
        admins = [each.id for each in self.tokens.values() if ADMIN in each.scopes and each.is_live(now)]
        if admins == [token.id] and not message.force:
            raise Conflict(
                f"{token.name!r} is the last token with the scope {ADMIN!r}: without it, nobody can make, rotate or "
                "revoke tokens over HTTP. Make another one first, or revoke it anyway: tokens revoke --force, "
                "or ?force=true"
            )
        return [TokenRevoked(token.id, now, message.actor)]

    def _seen(self, message: TokensSeen, now: float) -> list[Event]:
        known = {
            token_id: min(at, now)
            for token_id, at in message.uses.items()
            if token_id in self.tokens and at > self.tokens[token_id].used_at
        }
        if all(at < self.tokens[token_id].used_at + USE_KEPT_S for token_id, at in known.items()):
            return []
        return [TokensUsed(known)]

    def _token(self, token_id: str) -> Token:
        found = self.tokens.get(token_id)
        if found is None:
            raise NotFound("there is no such token")
        return found

    def _forget_oldest_expired(self, now: float) -> None:
        """Who makes short-lived tokens by program has thousands that expired within EXPIRED_SHOWN_S."""
        if len(self.tokens) > 2 * TOKENS_MAX:
            expired = [each for each in self.tokens.values() if not each.is_live(now)]
            del self.tokens[min(expired, key=lambda each: each.expires_at).id]

    def _forget_expired(self, before: float) -> None:
        for token in [each for each in self.tokens.values() if each.expires_at and each.expires_at < before]:
            del self.tokens[token.id]


def _map_of(event: SlotsAssigned | SlotsMoving) -> SlotMap:
    owners = array("H", event.owners)
    if len(owners) != SLOTS:
        raise Broken(f"a slot map has {SLOTS} slots, this one {len(owners)}")
    return SlotMap(event.version, tuple(owners))


def _owners(slots: SlotMap) -> bytes:
    return array("H", slots.owners).tobytes()
