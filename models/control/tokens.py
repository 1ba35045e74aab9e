"""API tokens: what they may do, how they are written, and whether a presented one is valid.

    llmim_4f1c9a0b72de_Zk0...      "llmim", the token's id, 32 random bytes as base64url

A secret is kept as its digest only. It has 256 random bits, so a fast hash without salt is as good as a slow one with
salt: nobody can guess it. The id in front finds the token, and the digest is then compared in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from models.alerts.matchers import parse_filters
from models.errors import Malformed, TooLarge, Unauthorized
from models.incidents.verbs import NAME_MAX

READ, RESPOND, ADMIN = "read", "respond", "admin"
#: What a token may send: alerts of one format, `ingest:<format>`, or of all that there are and will be.
INGEST = "ingest:"
EVERY_FORMAT = f"{INGEST}*"
#: A name that a format may have. Which ones there are a gateway knows (services/ingest/formats/table.py).
FORMAT_PATTERN = r"[a-z0-9][a-z0-9_.-]{0,39}"
_ONE_FORMAT = re.compile(INGEST + FORMAT_PATTERN)
#: The scopes that are not about one format, in the order in which people are told of them.
_FIXED = (EVERY_FORMAT, READ, RESPOND, ADMIN)
#: Names of actors that no token may have.
RESERVED = frozenset({"system", "anonymous"})

ID_PATTERN = r"[0-9a-f]{12}"
ID_BYTES, KEY_BYTES = 6, 32
#: Matchers of a token: a team, a cluster, and a few exceptions. Each alert that is new to a gateway is checked against
#: all of them.
MATCH_MAX = 16
MATCH_CHARS_MAX = 1024
#: A header that is longer is no credential of ours, and not worth decoding.
HEADER_MAX_BYTES = 512
#: Tokens at a time; every gateway holds them all. Hundreds of senders with one each are a large installation.
TOKENS_MAX = 1000
LIFETIME_MIN_S = 1.0
LIFETIME_MAX_S = 10 * 365 * 86400.0
#: If an old secret stayed valid for longer, it would not be a rotation.
OVERLAP_MAX_S = 30 * 86400.0
#: How often the use of a busy token is recorded: the control log is read at every start.
USE_KEPT_S = 3600.0
#: How long an expired token is still listed, for people looking for the reason of a 401.
EXPIRED_SHOWN_S = 30 * 86400.0

EXPECTED = (
    "expected a token: the header `Authorization: Bearer llmim_...`, or HTTP Basic with it as the password"
)
UNKNOWN = "this token is not known here: mistyped, revoked, or replaced long ago"
_SECRET = re.compile(rf"llmim_({ID_PATTERN})_[A-Za-z0-9_-]{{43}}")
_SECRETS = re.compile(rb"llmim_(%b)_[A-Za-z0-9_-]{43}" % ID_PATTERN.encode())


class Token(msgspec.Struct, frozen=True):
    """A token, without its secret. Times are seconds since the epoch, 0 is never.

    `lifetime_s` is what it was given when it was made, 0 for ever: a new secret gets it again. `previous` is the digest
    of the secret before this one, which is good until `previous_until`. The labels of what it sends and resolves must
    match all matchers in `match`.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    digest: bytes
    created_at: float
    created_by: str
    lifetime_s: float = 0.0
    expires_at: float = 0.0
    rotated_at: float = 0.0
    previous: bytes = b""
    previous_until: float = 0.0
    used_at: float = 0.0
    match: tuple[str, ...] = ()

    def is_live(self, now: float) -> bool:
        return not self.expires_at or now < self.expires_at


def written(identity: bytes, key: bytes) -> tuple[str, str]:
    """(id, secret) of ID_BYTES and KEY_BYTES of chance."""
    return identity.hex(), secret_of(identity.hex(), key)


def secret_of(token_id: str, key: bytes) -> str:
    """The secret as it is presented."""
    return f"llmim_{token_id}_{base64.urlsafe_b64encode(key).decode().rstrip('=')}"


def digest_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.blake2b(secret.encode(), digest_size=32, person=b"llm-im token").digest()


def presented(header: bytes | None) -> str:
    """The secret in an Authorization header. Raises Unauthorized, which never repeats what was there."""
    if header is None:
        raise Unauthorized(EXPECTED)
    scheme, _, rest = header.partition(b" ")
    secret = rest.strip()
    if len(header) > HEADER_MAX_BYTES:
        raise Unauthorized(f"the Authorization header is longer than {HEADER_MAX_BYTES} bytes; {EXPECTED}")
    match scheme.lower():
        # Opsgenie's clients send their key as GenieKey.
        case b"bearer" | b"geniekey":
            pass
        case b"basic":
            try:
                secret = base64.b64decode(secret, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                raise Unauthorized(f"the Basic credentials are not base64; {EXPECTED}") from None
        case _:
            raise Unauthorized(EXPECTED)
    return secret.decode("latin-1")


def id_in(header: bytes) -> str:
    """The id of the token that an Authorization header presents, if it has the form of one: for a log line."""
    try:
        match = _SECRET.fullmatch(presented(header))
    except Unauthorized:
        return ""
    return match[1] if match else ""


def without_secrets(raw: bytes) -> bytes:
    """The same without the secrets of tokens that stand in it; their ids stay."""
    return _SECRETS.sub(rb"llmim_\1_...", raw) if b"llmim_" in raw else raw


def check(tokens: Mapping[str, Token], secret: str, now: float) -> tuple[Token, float]:
    """The token of a secret, and until when it is good. Raises Unauthorized.

    Only a caller with a complete secret learns what happened to it; nobody else can find out whether an id exists.
    """
    match = _SECRET.fullmatch(secret)
    token = tokens.get(match[1]) if match else None
    # Even without a token: the time must reveal nothing either.
    digest = digest_of(secret)
    until = math.inf
    if token is not None and hmac.compare_digest(digest, token.digest):
        until = token.expires_at or math.inf
    elif token is not None and hmac.compare_digest(digest, token.previous):
        until = token.previous_until
    else:
        raise Unauthorized(UNKNOWN)
    if now >= until:
        how = "expired" if until == token.expires_at else "was replaced by a new secret"
        raise Unauthorized(f"the token {token.name!r} {how}; ask for another one")
    return token, until


def every_scope(formats: Iterable[str]) -> tuple[str, ...]:
    """The scopes a token may have, given these formats, in display order."""
    return (*(f"{INGEST}{name}" for name in formats), *_FIXED)


def granted(scopes: Iterable[str], every: Sequence[str]) -> frozenset[str]:
    """All scopes that these include: `respond` includes `read`, `admin` includes everything."""
    found = set(scopes)
    if ADMIN in found:
        return frozenset(every)
    if RESPOND in found:
        found.add(READ)
    if EVERY_FORMAT in found:
        found |= {scope for scope in every if scope.startswith(INGEST)}
    return frozenset(found)


def name_of(given: str) -> str:
    """A name that a token may have. Raises Malformed."""
    if not given or len(given) > NAME_MAX or not given.isprintable() or given != given.strip():
        raise Malformed(f"name: expected 1 to {NAME_MAX} printable characters, no space at either end")
    if given in RESERVED:
        raise Malformed(f"name: {given!r} is reserved for requests without a token; choose another name")
    return given


def scopes_of(given: Iterable[str]) -> tuple[str, ...]:
    """Scopes as a token holds them, each once, in their own order. Raises Malformed for one that no format can make a scope:
    which formats there are may differ between two versions, so refuse_unknown is asked where a token is made."""
    wanted = set(given)
    formats = sorted(scope for scope in wanted if _ONE_FORMAT.fullmatch(scope))
    refuse_unknown(wanted, (*formats, *_FIXED))
    return (*formats, *(scope for scope in _FIXED if scope in wanted))


def refuse_unknown(given: Iterable[str], every: Sequence[str]) -> None:
    """Raises Malformed for a scope that is not among `every`, and for none at all."""
    wanted = set(given)
    unknown = sorted(wanted.difference(every))
    if unknown or not wanted:
        which = f"there is no {unknown[0][:NAME_MAX]!r}; " if unknown else ""
        raise Malformed(f"scopes: {which}expected one or more of {', '.join(every)}")


def match_of(given: Iterable[str], scopes: Iterable[str]) -> tuple[str, ...]:
    """Label matchers that a token with these scopes may be bound to. Raises Malformed."""
    texts = tuple(given)
    if not texts:
        return ()
    if len(texts) > MATCH_MAX:
        raise Malformed(f"match: {len(texts)} matchers, at most {MATCH_MAX} are allowed")
    if any(not scope.startswith(INGEST) and scope != READ for scope in scopes):
        raise Malformed(
            f"match: limits what a token may send; a token with the scope {RESPOND} or {ADMIN} can resolve anything"
        )
    if not any(scope.startswith(INGEST) for scope in scopes):
        raise Malformed(f"match: limits what a token may send; expected a scope that begins with {INGEST}")
    for text in texts:
        if len(text) > MATCH_CHARS_MAX:
            raise Malformed(
                f"match: a matcher of {len(text)} characters, at most {MATCH_CHARS_MAX} are allowed"
            )
    try:
        parse_filters(texts)
    except (Malformed, TooLarge) as error:
        raise Malformed(f'match: {error}; expected matchers such as team="payments"') from None
    return texts
