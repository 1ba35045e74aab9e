"""Creates, rotates, revokes and lists API tokens: POST /v1/tokens and `llm-im tokens --local` both come here.

The secret is made here, where it is handed out, and goes nowhere else: the control partition gets its digest.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated

from actors.control_tail import ControlTail
from models.control.control import ControlMessage
from models.control.issuing import CreateToken, RevokeToken, RotateToken
from models.control.tokens import (
    ID_BYTES,
    KEY_BYTES,
    Token,
    digest_of,
    every_scope,
    refuse_unknown,
    secret_of,
    written,
)
from models.errors import Unavailable
from services.api.v1.fields import Time, says
from services.ingest.formats.table import all_formats

OVERLAP_DEFAULT_S = 86400.0


@dataclass(frozen=True, slots=True)
class TokenBody:
    """An API token, without its secret. `previous_until`: until when the previous secret is valid too.
    `last_used_at` is coarse: about a minute for the first use, about an hour afterwards."""

    id: Annotated[str, says("Its id; part of the secret too.")]
    name: Annotated[str, says("Who uses it; shown as the actor of everything done with it.")]
    scopes: Annotated[list[str], says("What it may do.")]
    created_at: Annotated[Time, says("When it was created.")]
    created_by: Annotated[str, says("Who created it.")]
    expires_at: Annotated[Time | None, says("When it expires; null: never, until it is revoked.")]
    rotated_at: Annotated[
        Time | None, says("When it got its present secret by rotation; null: it has its first one.")
    ]
    previous_until: Annotated[
        Time | None, says("Until when the previous secret is valid too; null: it is not valid.")
    ]
    last_used_at: Annotated[Time | None, says("When it was last used, within about an hour; null: not yet.")]
    match: Annotated[
        list[str],
        says("Matchers that the labels of every alert it sends or resolves must meet; empty: no limit."),
    ]


@dataclass(frozen=True, slots=True)
class NewTokenBody(TokenBody):
    """A token with its secret, `token`, which is shown only once and stored nowhere."""

    token: Annotated[str, says("The secret. It is shown only here, once.")]


class TokenDesk:
    """`tell` sends a message to the control partition's writer and returns when it is durable; `tail` shows the result.
    Raises Malformed, NotFound, Conflict, Unavailable."""

    def __init__(self, tail: ControlTail, tell: Callable[[ControlMessage], Awaitable[None]]) -> None:
        self._tail = tail
        self._tell = tell

    def all(self) -> list[TokenBody]:
        """All that are not revoked, by name; expired ones too, for a while."""
        tokens = self._tail.state.tokens.values()
        return [body_of(each) for each in sorted(tokens, key=lambda each: (each.name, each.created_at))]

    async def create(
        self, name: str, scopes: list[str], lifetime_s: float, actor: str, match: Sequence[str] = ()
    ) -> NewTokenBody:
        refuse_unknown(scopes, every_scope(all_formats()))
        token_id, secret = written(secrets.token_bytes(ID_BYTES), secrets.token_bytes(KEY_BYTES))
        await self._tell(CreateToken(token_id, name, scopes, digest_of(secret), lifetime_s, actor, [*match]))
        return await self._with_secret(token_id, secret)

    async def rotate(self, token_id: str, overlap_s: float, actor: str) -> NewTokenBody:
        secret = secret_of(token_id, secrets.token_bytes(KEY_BYTES))
        await self._tell(RotateToken(token_id, digest_of(secret), overlap_s, actor))
        return await self._with_secret(token_id, secret)

    async def revoke(self, token_id: str, actor: str, *, force: bool = False) -> None:
        """The last admin token needs `force`, else Conflict. Safe to repeat."""
        await self._tell(RevokeToken(token_id, actor, force))
        await self._tail.follow()

    async def _with_secret(self, token_id: str, secret: str) -> NewTokenBody:
        await self._tail.follow()
        found = self._tail.state.tokens.get(token_id)
        if found is None:
            raise Unavailable("the token was created, but can't be read yet; revoke it in the list of tokens")
        return NewTokenBody(**asdict(body_of(found)), token=secret)


def body_of(token: Token) -> TokenBody:
    """A token as people see it."""
    return TokenBody(
        id=token.id,
        name=token.name,
        scopes=list(token.scopes),
        created_at=_time(token.created_at),
        created_by=token.created_by,
        expires_at=_time_or_none(token.expires_at),
        rotated_at=_time_or_none(token.rotated_at),
        previous_until=_time_or_none(token.previous_until),
        last_used_at=_time_or_none(token.used_at),
        match=list(token.match),
    )


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _time_or_none(at: float) -> str | None:
    return _time(at) if at else None
