"""What becomes of one message of a queue: it is read by its format and stored, or kept as a dead letter, or it must wait. Used by
lane.py; what the three kinds of queue have in common ends here, and everything behind it is the intake of all doors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec
import structlog

from models.errors import (
    Busy,
    IncidentManagerError,
    Malformed,
    NotOwner,
    RateLimited,
    Refused,
    ShareUsedUp,
    TooLarge,
    Unavailable,
)
from models.trace import context_of
from services.ingest.arrival import Arrival, Sender
from services.ingest.body import Hold, Room, unpacked
from services.ingest.formats.answers import REFUSING
from services.ingest.formats.events import EventsFormat
from services.ingest.formats.format import Format, Request
from services.ingest.formats.json_text import echo
from services.ingest.formats.reading import Fault, Reading
from services.ingest.intake import AT_ONCE_BYTES
from services.ingest.sources.source import SourceNeeds
from services.ingest.submit import Receipt

log = structlog.get_logger()

#: What a later try may mend: the message stays where it is. Anything else would be the same the next time.
PASSING = (Unavailable, Busy, NotOwner, ShareUsedUp)
#: What refuses a message for good, and the errors that say so in words.
_REFUSED: tuple[type[Exception], ...] = (*REFUSING, Refused)
_SAID: tuple[type[Exception], ...] = (*REFUSING, IncidentManagerError)
#: Headers of a message that are looked at; the rest is the sender's.
FORMAT, CONTENT_TYPE, CONTENT_ENCODING = b"format", b"content-type", b"content-encoding"
#: Bytes of bodies being unpacked at once by a collector: a few of the largest.
UNPACKED_MAX = 4
_NAME = re.compile(rb"[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)?")
_JSON = "application/json"


class Message(msgspec.Struct, frozen=True, eq=False):
    """One message of a queue.

    headers   names in lower case
    place     where it is, in words for a person
    delivery  what it is called when it comes again; None: it has no name, and what it says is compared
    handle    what its queue needs to acknowledge it
    """

    body: bytes
    headers: Mapping[bytes, bytes]
    place: str
    delivery: str | None = None
    handle: object = None


Done = Callable[[IncidentManagerError | None], None]


class Messages:
    """One a source. Whatever a message contains, none stands in the way of those behind it."""

    def __init__(self, needs: SourceNeeds, source: str, format_name: str) -> None:
        self._needs = needs
        self._source = source
        self._format_name = format_name
        self._sender = Sender(source)
        self._max_bytes = needs.settings.server.max_body_bytes
        self._room = Room(UNPACKED_MAX * self._max_bytes)
        events = needs.formats[EventsFormat.name]
        assert isinstance(events, EventsFormat)
        self._events = events

    def begin(self, message: Message, done: Done) -> bool:
        """Have a small message that only fires stored, without a task: done(None) once it is, or done(why not). False, and
        nothing is done: it needs take(), when nothing before it is under way any more."""
        if CONTENT_ENCODING in message.headers or len(message.body) > AT_ONCE_BYTES:
            return False
        needs = self._needs
        begun, now = needs.clock.monotonic(), needs.clock.now()
        try:
            form, request = self._request(message, message.body, now)
        except Exception:  # noqa: BLE001 - also a bug: take() meets it again, and keeps the message
            return False
        if form.prepares:
            return False
        reading = needs.intake.read_at_once(form, request)
        if reading is None or reading.said or min(reading.ends, default=0.0) <= now:
            return False

        def stored(_reading: Reading, receipt: Receipt) -> None:
            error = worst(receipt)
            done(error)
            self._observe(begun)
            if error is None:
                self._count("stored")

        try:
            needs.intake.begin(reading, self._arrival(form, request, message.delivery, message), stored)
        except RateLimited as error:
            done(error)
        return True

    async def take(self, message: Message) -> IncidentManagerError | None:
        """Have it stored, or kept as a dead letter: None then, and not before that is durable. Else why it must wait."""
        needs = self._needs
        begun = needs.clock.monotonic()
        form: Format = self._events
        hold = Hold(self._room)
        try:
            body = message.body
            if len(body) > self._max_bytes:
                raise TooLarge(f"a message of {len(body)} bytes, at most {self._max_bytes} are allowed")
            body = await unpacked(body, message.headers, self._max_bytes, hold)
            form, request = self._request(message, body, needs.clock.now())
            error = await self._stored(form, request, message)
        except PASSING as passing:
            return passing
        except Malformed as malformed:
            if form is not self._events:
                # The intake kept it.
                await needs.intake.buried()
                self._count("dead_letter")
                return None
            error = malformed
        except _REFUSED as refused:
            error = refused
        except Exception as bug:
            log.exception(
                "bug: a message of a queue can't be taken", source=self._source, place=message.place
            )
            error = bug
        finally:
            hold.release()
        self._observe(begun)
        if isinstance(error, PASSING):
            return error
        if error is None:
            self._count("stored")
            return None
        reason = str(error) if isinstance(error, _SAID) else f"a bug: {error!r}"
        request = self._made(form.path, message.body, needs.clock.now(), _type_of(message), message)
        needs.intake.bury(form, request, [Fault(-1, reason, message.body)])
        await needs.intake.buried()
        self._count("dead_letter")
        return None

    async def _stored(self, form: Format, request: Request, message: Message) -> Exception | None:
        """None, or the error that some of its alerts met."""
        needs = self._needs
        span = needs.tracer.span(
            f"{self._source} receive",
            context_of(message.headers.items()),
            {"messaging.system": self._source, "messaging.message.id": message.place},
            kind="server",
        )
        with span:
            for delivery in (message.delivery, None):
                arrival = self._arrival(form, request, delivery, message)
                reading, receipt = await needs.intake.take(form, request, arrival, span)
                error = worst(receipt)
                # Its name was used for something else: a topic that was made anew, or a mapping that was changed since. Then what
                # it says counts.
                if not isinstance(error, Refused) or isinstance(error, PASSING) or delivery is None:
                    break
            if reading.faults:
                await needs.intake.buried()
            return error

    def _request(self, message: Message, body: bytes, now: float) -> tuple[Format, Request]:
        """The format of a message, and the message as a request to it. Raises Malformed, Unauthorized."""
        form, path = self._events.path, ""
        named = message.headers.get(FORMAT, b"").strip() or self._format_name.encode()
        content_type = _type_of(message)
        if named and named != EventsFormat.name.encode():
            name, _, rest = named.decode("latin-1").partition("/")
            found = self._needs.formats.get(name) if _NAME.fullmatch(named) else None
            if found is None:
                known = ", ".join(sorted(self._needs.formats))
                raise Malformed(f"header format: expected one of {known}, got {echo(named[:60])}")
            if not found.takes_type(content_type, message.headers):
                content_type = found.content_types[0]
            path = f"{found.path}/{rest}" if rest else found.path
            return found, self._made(path, body, now, content_type, message)
        request = self._made(form, body, now, content_type, message)
        return self._events.target(request)

    def _made(self, path: str, body: bytes, now: float, content_type: str, message: Message) -> Request:
        return Request(
            path,
            body,
            now,
            headers=message.headers,
            content_type=content_type,
            sender=self._sender,
            place=message.place,
        )

    def _arrival(self, form: Format, request: Request, delivery: str | None, message: Message) -> Arrival:
        trace = context_of(message.headers.items()) if b"traceparent" in message.headers else None
        named = None if delivery is None else f"{self._source} {delivery}"
        return Arrival(
            self._needs.intake.tenant, form.name, self._sender, request.received_at, False, named, trace
        )

    def _observe(self, begun: float) -> None:
        needs = self._needs
        needs.meter.observe("llm_im_ingest_seconds", needs.clock.monotonic() - begun, door=self._source)

    def _count(self, outcome: str) -> None:
        self._needs.meter.count("llm_im_queue_messages_total", source=self._source, outcome=outcome)


def worst(receipt: Receipt) -> IncidentManagerError | None:
    """What went wrong, None if nothing did. Of several, one that a later try mends."""
    errors = receipt.errors.values()
    return next((error for error in errors if isinstance(error, PASSING)), receipt.error)


def _type_of(message: Message) -> str:
    """What its body is. Most that write to queues do not say."""
    given = message.headers.get(CONTENT_TYPE, b"").split(b";")[0].strip().lower().decode("latin-1")
    return given or _JSON
