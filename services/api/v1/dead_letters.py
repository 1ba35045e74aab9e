"""/v1/dead-letters: lists, shows, replays and drops what could not be read."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from models.errors import Malformed
from models.ports import DeadLetter, LettersWanted
from services.api.auth import READ, RESPOND, Caller, requires
from services.api.dead_letters import LetterDesk
from services.api.problems import REFUSED, problems
from services.api.v1.bodies import json_response
from services.api.v1.cursors import decode_numbers, encode_numbers
from services.api.v1.fields import Time, WrittenTime, says, time_of
from services.api.v1.incidents import PREFIX
from services.api.v1.list_params import PAGE_DEFAULT, Cursor, Limit
from services.api.v1.requests import BodyKind, BodyReader, asks_for, describe_bodies, has_body
from services.ingest.letters import came_of
from services.ingest.replay import REFUSED as NOT_TAKEN
from services.ingest.replay import STORED, WAITING, Replayed
from services.times import timestamp

PATH = f"{PREFIX}/dead-letters"
#: Letters replayed by one request.
REPLAY_MAX = 1000
#: The largest id: SQLite and PostgreSQL count with 64 bits.
ID_MAX = 2**62
_NAME = Field(max_length=256)
_FORMAT = Field("", max_length=40, description="Read it as this format instead of the one it came by.")


@dataclass(frozen=True, slots=True)
class LetterBody:
    """A dead letter without its bytes."""

    id: Annotated[int, says("Its number; later ones have higher numbers.")]
    received_at: Annotated[Time, says("When it came.")]
    door: Annotated[str, says("The format it came by.")]
    sender: Annotated[str, says("Who sent it: the name of a token, of a queue, of what is polled.")]
    place: Annotated[
        str, says("Where it was: which item of its request, from 0; topic, partition and offset of a queue.")
    ]
    reason: Annotated[str, says("Why it could not be taken, at the last try.")]
    content_type: Annotated[str, says("What its sender said that it is.")]
    size: Annotated[int, says("How many bytes are kept.")]
    truncated: Annotated[bool, says("Whether that is not all of it: such a one can't be replayed.")]
    replays: Annotated[int, says("How often it was replayed and still could not be taken.")]
    tried_at: Annotated[Time | None, says("When that was last; null: never.")]


@dataclass(frozen=True, slots=True)
class WholeLetterBody(LetterBody):
    """A dead letter, with its bytes as `text` if they are UTF-8, else as `base64`. Secrets of our own tokens are masked."""

    method: Annotated[str, says("The method of its request.")]
    path: Annotated[str, says("The path of its request; empty: not known.")]
    query: Annotated[str, says("What stood behind the `?`, without what is secret.")]
    items: Annotated[list[int], says("Which items of it could not be taken; none: all of it.")]
    text: Annotated[str | None, says("Its bytes.")]
    base64: Annotated[str | None, says("Its bytes, when they are no text.")]


@dataclass(frozen=True, slots=True)
class LettersBody:
    """A page of dead letters, the newest first."""

    items: Annotated[list[LetterBody], says("The letters.")]
    next: Annotated[str | None, says("The cursor of the next page; null on the last one.")]


@dataclass(frozen=True, slots=True)
class ReplayedBody:
    """What became of one letter."""

    id: Annotated[int, says("Its number.")]
    outcome: Annotated[
        str,
        says(
            "`stored`: all of it is durable, and the letter is gone. `refused`: it still can't be taken, or not all of it; it "
            "stays, with the new reason. `waiting`: it can't be stored now; it stays as it was."
        ),
    ]
    format: Annotated[str, says("The format it was read as.")]
    stored: Annotated[int, says("Alerts of it that are durable now.")]
    reason: Annotated[str, says("Why not; empty when it is stored.")]


@dataclass(frozen=True, slots=True)
class ReplaysBody:
    """What became of several letters."""

    items: Annotated[list[ReplayedBody], says("Each, in the order in which they came.")]
    stored: Annotated[int, says("Letters that are stored now.")]
    refused: Annotated[int, says("Letters that still can't be taken.")]
    waiting: Annotated[int, says("Letters that can't be stored now.")]
    next: Annotated[str | None, says("Send it as `cursor` to go on; null: there are no more.")]


@dataclass(frozen=True, slots=True)
class DroppedBody:
    """How many letters were dropped."""

    dropped: Annotated[int, says("They are gone for good.")]
    more: Annotated[bool, says("Whether there are more of them: send it again.")]


class LetterFilter(BaseModel):
    """Which letters."""

    model_config = ConfigDict(extra="forbid")

    door: Annotated[str, _NAME] = Field("", description="Only those that came by this format.")
    sender: Annotated[str, _NAME] = Field("", description="Only those of this sender.")
    since: WrittenTime | None = Field(None, description="Only those that came then or later, RFC 3339.")
    until: WrittenTime | None = Field(None, description="Only those that came before, RFC 3339.")
    reason: str = Field(
        "",
        max_length=1024,
        description="Only those whose reason contains this, in any case of ASCII letters.",
    )

    def wanted(self) -> LettersWanted:
        """Raises Malformed."""
        return LettersWanted(
            "",
            self.door,
            self.sender,
            0.0 if self.since is None else time_of(self.since, "since"),
            0.0 if self.until is None else time_of(self.until, "until"),
            self.reason,
        )


class LetterParams(LetterFilter):
    """A page of a filtered list."""

    limit: Limit = PAGE_DEFAULT
    cursor: Cursor = None


class DropParams(LetterFilter):
    """Which letters to drop."""

    all: bool = Field(False, description="Drop all of them: needed when there is no filter.")


class ReplayRequest(BaseModel):
    """How to read a letter."""

    model_config = ConfigDict(extra="forbid")

    format: str = _FORMAT


class ReplaySomeRequest(LetterFilter):
    """Which letters to replay, and how to read them."""

    format: str = _FORMAT
    limit: Annotated[int, Field(ge=1, le=REPLAY_MAX, description="At most so many of them.")] = PAGE_DEFAULT
    cursor: Cursor = None


_Id = Annotated[int, Path(ge=1, le=ID_MAX, description="The letter's number.")]
_May = Annotated[Caller, Depends(requires(RESPOND))]
_List = Annotated[LetterParams, Query()]
_Drop = Annotated[DropParams, Query()]
_MISSING = {"404": "There is no letter with this number, or no longer."}
_AWAY = {"503": "The store of the dead letters can't be asked now."}


def add_dead_letter_routes(app: FastAPI, desk: LetterDesk, bodies: BodyReader) -> None:
    """The six routes."""
    one_kind, some_kind = BodyKind(ReplayRequest), BodyKind(ReplaySomeRequest)

    async def dead_letters(params: _List) -> Response:
        """What could not be read, the newest first, without the bytes."""
        before = _id_in(params.cursor)
        found = await desk.newest(before, params.limit + 1, params.wanted())
        page, more = found[: params.limit], len(found) > params.limit
        return json_response(
            LettersBody([_body(each) for each in page], _cursor(page[-1].id) if more else None)
        )

    async def dead_letter(letter_id: _Id) -> Response:
        """One letter, with its bytes."""
        letter = await desk.find(letter_id)
        came, body = came_of(letter), _body(letter)
        try:
            text, encoded = letter.payload.decode(), None
        except UnicodeDecodeError:
            text, encoded = None, base64.b64encode(letter.payload).decode()
        whole = WholeLetterBody(
            **asdict(body),
            method=came.method,
            path=came.path,
            query=came.query.decode("latin-1"),
            items=[*came.items],
            text=text,
            base64=encoded,
        )
        return json_response(whole)

    async def replay(letter_id: _Id, caller: _May, request: Request) -> Response:
        """Read a letter again. What is stored leaves the dead letters, and what still can't be taken stays, with the new reason.
        Safe to repeat, also by several at once: it is stored once."""
        wanted = await bodies.read(request, one_kind) if has_body(request) else ReplayRequest()
        return json_response(_replayed(await desk.replay(letter_id, wanted.format)))

    async def replay_some(caller: _May, request: Request) -> Response:
        """Read letters again, in the order in which they came, each for itself. Stops early when something can't be stored
        now, and after 15 seconds; `next` says where to go on."""
        wanted = await bodies.read(request, some_kind)
        done, last = await desk.replay_some(
            _id_in(wanted.cursor), wanted.limit, wanted.wanted(), wanted.format
        )
        counts = Counter(each.outcome for each in done)
        following = _cursor(last) if last or counts[WAITING] else None
        return json_response(
            ReplaysBody(
                [*map(_replayed, done)], counts[STORED], counts[NOT_TAKEN], counts[WAITING], following
            )
        )

    async def drop(letter_id: _Id, caller: _May) -> Response:
        """Drop a letter for good."""
        await desk.drop(letter_id)
        return json_response(DroppedBody(1, False))

    async def drop_some(params: _Drop, caller: _May) -> Response:
        """Drop letters for good, at most 10,000 at once. Without a filter it needs `all=true`."""
        wanted = params.wanted()
        if wanted == LettersWanted() and not params.all:
            raise Malformed("all: expected a filter, or all=true to drop every dead letter")
        return json_response(DroppedBody(*await desk.drop_some(wanted)))

    one = f"{PATH}/{{letter_id}}"
    asks_one = asks_for(ReplayRequest, {"format": "v1"}, required=False)
    asks_some = asks_for(ReplaySomeRequest, {"door": "mapped", "since": "2026-01-31T12:00:00Z"})
    for path, endpoint, method, body, failures, asks, scope in (
        (PATH, dead_letters, "GET", LettersBody, {}, None, READ),
        (PATH, drop_some, "DELETE", DroppedBody, {}, None, RESPOND),
        (f"{PATH}/replay", replay_some, "POST", ReplaysBody, {}, asks_some, RESPOND),
        (one, dead_letter, "GET", WholeLetterBody, _MISSING, None, READ),
        (one, drop, "DELETE", DroppedBody, _MISSING, None, RESPOND),
        (f"{one}/replay", replay, "POST", ReplayedBody, _MISSING, asks_one, RESPOND),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            response_model=body,
            responses=problems(REFUSED, failures, _AWAY),
            dependencies=[Depends(requires(scope))],
            openapi_extra=asks,
            tags=["dead letters"],
        )
    describe_bodies(app, ReplayRequest, ReplaySomeRequest)


def _body(letter: DeadLetter) -> LetterBody:
    return LetterBody(
        letter.id,
        timestamp(letter.at),
        letter.door,
        letter.sender,
        letter.place,
        letter.reason,
        letter.content_type,
        len(letter.payload),
        letter.truncated,
        letter.replays,
        timestamp(letter.tried_at) if letter.tried_at else None,
    )


def _replayed(done: Replayed) -> ReplayedBody:
    return ReplayedBody(done.id, done.outcome, done.format, done.stored, done.reason)


def _cursor(letter_id: int) -> str:
    return encode_numbers(letter_id, 0)


def _id_in(cursor: str | None) -> int:
    """Raises Malformed."""
    return 0 if cursor is None else decode_numbers(cursor)[0]
