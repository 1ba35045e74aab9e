"""Section `tokens`: API tokens made, replaced and taken back. What a token is stands in models/control/tokens.py."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from models.control.events import SlotsAssigned, TokenCreated, TokenRevoked, TokenRotated, TokensUsed
from models.control.section import ONLY, Section
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
from models.errors import Conflict, Malformed, NotFound
from models.partition.event import Event
from models.wire import Wire


class CreateToken(Wire, frozen=True):
    """Create a token. `digest` is all that is stored of its secret; a repeat with the same id changes nothing."""

    id: str
    name: str
    scopes: list[str]
    digest: bytes
    lifetime_s: float
    actor: str
    match: list[str] = []


class RotateToken(Wire, frozen=True):
    """Give a token a new secret; the old one stays valid for `overlap_s`, but no longer than it was before."""

    id: str
    digest: bytes
    overlap_s: float
    actor: str


class RevokeToken(Wire, frozen=True):
    """Revoke a token from now on. The last one with the scope admin needs `force`."""

    id: str
    actor: str
    force: bool = False


class TokensSeen(Wire, frozen=True):
    """A gateway reports when tokens were last used, by id. Makes an event only if the stored time is an hour old."""

    uses: dict[str, float]


class _Rest(msgspec.Struct, array_like=True):
    """What is no token's own."""

    guarded: bool
    version: int
    revoked: list[str]


_encoder = msgspec.msgpack.Encoder()
_token_decoder = msgspec.msgpack.Decoder(Token)
_rest_decoder = msgspec.msgpack.Decoder(_Rest)


class IssuedTokens(Section):
    """A record for each token by its id, and one of the rest."""

    name = "tokens"
    events = (TokenCreated, TokenRotated, TokenRevoked, TokensUsed, SlotsAssigned)
    messages = (CreateToken, RotateToken, RevokeToken, TokensSeen)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        #: By id, in the order in which they were made.
        self.tokens: dict[str, Token] = {}
        #: True from the first token on, and forever: when the last one expires, or a control log with tokens may have
        #: been lost, access must not become open to all.
        self.guarded = False
        #: Increases with every change that affects who gets in: what was cached about a token before is void.
        self.version = 0
        #: Ids of the last tokens that were revoked, so that a repeated revocation is one.
        self._revoked: dict[str, None] = {}

    def decide(self, message: Wire, now: float) -> list[Event]:
        """What comes of a message; nothing for a repeat. Raises Malformed, NotFound, Conflict."""
        match message:
            case CreateToken():
                return self._create(message, now)
            case RotateToken():
                return self._rotate(message, now)
            case RevokeToken():
                return self._revoke(message, now)
            case TokensSeen():
                return self._seen(message, now)
        return []

    def apply(self, event: Event, now: float) -> None:
        self._touch(ONLY)
        match event:
            case SlotsAssigned():
                self.guarded = self.guarded or event.guarded
            case TokenCreated():
                self._forget_expired(event.at - EXPIRED_SHOWN_S)
                self._touch(event.id.encode())
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
                self.version += 1
            case TokenRotated():
                before = self.tokens[event.id]
                self._touch(event.id.encode())
                self.tokens[event.id] = msgspec.structs.replace(
                    before,
                    digest=event.digest,
                    expires_at=event.expires_at,
                    rotated_at=event.at,
                    previous=before.digest,
                    previous_until=event.previous_until,
                )
                self.version += 1
            case TokenRevoked():
                self._drop(event.id)
                self._revoked[event.id] = None
                if len(self._revoked) > TOKENS_MAX:
                    del self._revoked[next(iter(self._revoked))]
                self.version += 1
            case TokensUsed():
                for token_id, at in event.uses.items():
                    if (token := self.tokens.get(token_id)) is not None:
                        self._touch(token_id.encode())
                        self.tokens[token_id] = msgspec.structs.replace(token, used_at=at)

    def capture(self, key: bytes) -> bytes | None:
        if key == ONLY:
            return _encoder.encode(_Rest(self.guarded, self.version, [*self._revoked]))
        token = self.tokens.get(key.decode())
        return None if token is None else _encoder.encode(token)

    def load(self, key: bytes, record: bytes) -> None:
        if key == ONLY:
            rest = _rest_decoder.decode(record)
            self.guarded, self.version = rest.guarded, rest.version
            self._revoked = dict.fromkeys(rest.revoked)
        else:
            self.tokens[key.decode()] = _token_decoder.decode(record)

    def loaded(self) -> None:
        self.tokens = dict(sorted(self.tokens.items(), key=lambda item: item[1].created_at))

    def _drop(self, token_id: str) -> None:
        self._touch(token_id.encode())
        del self.tokens[token_id]

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
            self._drop(min(expired, key=lambda each: each.expires_at).id)

    def _forget_expired(self, before: float) -> None:
        for token in [each for each in self.tokens.values() if each.expires_at and each.expires_at < before]:
            self._drop(token.id)
