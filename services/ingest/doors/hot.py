"""Plain requests for alerts, answered in the protocol itself: no task, no ASGI (docs/decisions/0004-hot-route.md).

A request is plain when it came whole in one piece, with a head like one that the HTTP parser and HttpDoor have taken before,
and its format has an answer that is always the same. Whatever else there is to it (a body that can't be read, an unknown token,
a trace, no room) is left to HttpDoor: take() says no then, and nothing has happened.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from models.errors import RateLimited
from models.ports import Span
from services.ingest.arrival import Arrival
from services.ingest.body import Unsupported
from services.ingest.certificates import CLIENT_HEADER
from services.ingest.doors.door import Credentials
from services.ingest.doors.http import HttpDoor
from services.ingest.formats.answers import Answer, refusal_of
from services.ingest.formats.format import Format, Request
from services.ingest.formats.reading import Reading
from services.ingest.intake import AT_ONCE_BYTES
from services.ingest.submit import Receipt

#: Heads that are remembered, 500 bytes each: a sender has one, whatever the length of its body; a proxy that names each client
#: in a header makes one a client. Past it the oldest goes.
HEADS_MAX = 4096
#: A longer head is not looked for: real ones have 200 to 500 bytes, and a client certificate up to 2,500 more.
HEAD_MAX_BYTES = 4096
#: Headers by which a request is something else than a plain one, or which HttpDoor alone looks at.
NOT_PLAIN = frozenset(
    {
        b"content-encoding",
        b"expect",
        b"idempotency-key",
        b"origin",
        b"te",
        b"traceparent",
        b"tracestate",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,7})\r\n")
_HEAD_END = b"\r\n\r\n"
#: Keyed by chance: nobody can make a head that is taken for another one.
_digest = blake2b(os.urandom(32), digest_size=16)


class Cut(NamedTuple):
    """A request that came in one piece, cut. `head` is a digest of its head without the length of its body, and holds no
    secret."""

    head: bytes
    head_end: int
    body: bytes


class _Plain(NamedTuple):
    """What a plain head says."""

    form: Format
    answer: Answer
    content_type: str
    #: Without what proves who sends: no secret lies about in memory.
    headers: Mapping[bytes, bytes]
    credentials: Credentials


class HotWay:
    """One a gateway. Shares the bounds of its HttpDoor."""

    def __init__(self, door: HttpDoor) -> None:
        self._door = door
        self._needs = door.needs
        self._heads: dict[bytes, _Plain] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Requests that were answered this way.
        self.taken = 0

    @staticmethod
    def cut(data: bytes) -> Cut | None:
        """What a connection brought, when it may be a whole plain request."""
        end = data.find(_HEAD_END, 0, HEAD_MAX_BYTES)
        if end < 0:
            return None
        length = _LENGTH.search(data, 0, end + 2)
        if length is None or int(length[1]) != len(data) - end - 4:
            return None
        digest = _digest.copy()
        digest.update(data[: length.start(1)])
        digest.update(data[length.end(1) : end])
        return Cut(digest.digest(), end, data[end + 4 :])

    def knows(self, cut: Cut) -> bool:
        """Whether its head was learned."""
        return cut.head in self._heads

    def may_learn(self, method: bytes, target: bytes) -> bool:
        """Whether a request to there can be plain."""
        form = self._door.format_at(method, target)
        if form is None or form.quiet is None:
            return False
        # The sender is who Authorization names, and reading waits for nothing.
        return not (form.is_signed or form.finds_token or form.token_in_body or form.prepares)

    def learn(
        self, head: bytes, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """Remember a head that the HTTP parser has read, if it is plain and from a sender who was let in before: strangers push
        nothing out. Names are in lower case."""
        form = self._door.format_at(method, target)
        if form is None or form.quiet is None or not self.may_learn(method, target):
            return
        named = dict(headers)
        if len(named) != len(headers) or not NOT_PLAIN.isdisjoint(named):
            return
        if named.get(b"connection", b"keep-alive").lower() != b"keep-alive":
            return
        try:
            content_type = self._door.content_type(form, method.decode(), named)
        except Unsupported:
            return
        doorman = self._needs.doorman
        credentials = doorman.credentials(named)
        sender = doorman.admitted(credentials, form.name)
        if sender is None or sender.match:
            return
        for secret in (b"authorization", CLIENT_HEADER):
            named.pop(secret, None)
        if len(self._heads) >= HEADS_MAX and head not in self._heads:
            del self._heads[next(iter(self._heads))]
        self._heads[head] = _Plain(form, form.quiet, content_type, named, credentials)

    def take(self, cut: Cut, answer: Callable[[Answer | None], None]) -> bool:
        """Store a request, and answer() once; None means that it can't be answered, by a bug. False: HttpDoor is to take it.
        May answer before it returns."""
        plain = self._heads.get(cut.head)
        body = cut.body
        door, needs = self._door, self._needs
        if plain is None or len(body) > AT_ONCE_BYTES:
            return False
        form = plain.form
        sender = needs.doorman.admitted(plain.credentials, form.name)
        if sender is None or sender.match or not door.has_room(len(body), sender.name):
            return False
        try:
            needs.intake.admit(sender)
        except RateLimited as error:
            # Here too, or it would cost more to refuse a flood than to take it.
            answer(door.refuse(form, refusal_of(error)))
            return True
        begun, now = needs.clock.monotonic(), needs.clock.now()
        request = Request(form.path, body, now, "POST", b"", plain.headers, plain.content_type, sender)
        reading = needs.intake.read_at_once(form, request)
        if reading is None or form.handshake(request) is not None:
            return False
        span = door.span("POST", form.path, None)
        door.hold(len(body), sender.name)
        self.taken += 1
        if span.trace is not None:
            # By chance one of many is recorded: as HttpDoor does it, in a context of its own.
            self._spawn(self._traced(form, request, begun, span, answer), answer, request)
            return True

        def stored(reading: Reading, receipt: Receipt) -> None:
            if receipt.errors:
                self._spawn(self._worded(form, reading, receipt, answer), answer, request)
                return
            door.release(len(body), sender.name)
            told = plain.answer
            try:
                if standing := needs.intake.standing(sender):
                    told = Answer(told.status, told.content_type, told.body, [*told.headers, *standing])
            finally:
                # Whatever bug there is: it is stored, and its sender waits.
                answer(told)
            needs.meter.observe("llm_im_ingest_seconds", needs.clock.monotonic() - begun, door=form.name)

        arrival = Arrival(needs.intake.tenant, form.name, sender, now, form.wants_ids)
        try:
            needs.intake.begin(reading, arrival, stored)
        except RateLimited as error:
            door.release(len(body), sender.name)
            answer(door.refuse(form, refusal_of(error)))
        return True

    async def _traced(
        self,
        form: Format,
        request: Request,
        begun: float,
        span: Span,
        answer: Callable[[Answer | None], None],
    ) -> None:
        answer(await self._door.answered(form, span, self._door.store(form, request, None, begun, span)))

    @staticmethod
    async def _worded(
        form: Format, reading: Reading, receipt: Receipt, answer: Callable[[Answer | None], None]
    ) -> None:
        answer(await form.stored(reading, receipt))

    def _spawn(
        self, work: Coroutine[None, None, None], answer: Callable[[Answer | None], None], request: Request
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._kept(work, answer, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _kept(
        self, work: Coroutine[None, None, None], answer: Callable[[Answer | None], None], request: Request
    ) -> None:
        try:
            await work
        except BaseException:
            answer(None)
            raise
        finally:
            self._door.release(len(request.body), request.sender.name)
