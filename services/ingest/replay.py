"""Reads dead letters again, after a mapping, a setting or the program was mended. Called by services/api/v1/dead_letters.py.

What is stored leaves the dead letters once it is durable; what still can't be read stays, with the new reason. Each letter is a delivery
with a name, so two who replay it at once, or a crash between the two steps, store it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
import structlog

from models.alerts.alert import Content
from models.errors import (
    Busy,
    IncidentManagerError,
    Malformed,
    NotFound,
    NotOwner,
    Refused,
    ShareUsedUp,
    Unavailable,
)
from models.metrics import Meter
from models.ports import Clock, DeadLetter, DeadLetters, Tracer
from models.shard.messages import Claim
from services.ingest.arrival import Arrival
from services.ingest.formats.format import Format, Request
from services.ingest.formats.items import ListFormat
from services.ingest.formats.reading import Fault, Reading
from services.ingest.formats.remembered import encode_body
from services.ingest.intake import Intake
from services.ingest.letters import Came, came_of, request_of, still
from services.ingest.submit import Receipt

log = structlog.get_logger()

#: What a later try may mend.
PASSING = (Unavailable, Busy, NotOwner, ShareUsedUp)
#: Between tries of what can't be stored now, and how often it is tried: some three seconds in all, while a person waits.
RETRY_S = 0.2
TRIES = 5
STORED, REFUSED, WAITING = "stored", "refused", "waiting"

_content_decoder = msgspec.msgpack.Decoder(Content)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one letter.

    outcome  STORED: all of it is durable, and the letter gone. REFUSED: some or all of it can't be taken; the letter stays, with the new
             reason. WAITING: it can't be stored now; the letter stays as it was
    stored   alerts of it that are durable now
    """

    id: int
    outcome: str
    format: str
    stored: int = 0
    reason: str = ""


class Replayer:
    """One a gateway. One letter at a time: a person replays, and senders come first."""

    def __init__(
        self,
        store: DeadLetters,
        intake: Intake,
        formats: Mapping[str, Format],
        clock: Clock,
        meter: Meter,
        tracer: Tracer,
    ) -> None:
        self._store = store
        self._intake = intake
        self._formats = formats
        self._clock = clock
        self._meter = meter
        self._tracer = tracer
        self._turn = asyncio.Lock()

    async def replay(self, letter_id: int, as_format: str = "") -> Replayed:
        """Read a letter again, by the format it came by or another one. Safe to repeat. Raises NotFound, Malformed for a format that
        there is not, Unavailable when the letters can't be read or written."""
        async with self._turn:
            letter = await self._store.get(letter_id)
            if letter is None or letter.tenant != self._intake.tenant:
                raise NotFound(
                    f"there is no dead letter {letter_id}: it was replayed, dropped, or is too old"
                )
            done = await self._replayed(letter, as_format)
        self._meter.count("llm_im_dead_letters_replayed_total", door=letter.door, outcome=done.outcome)
        return done

    def check(self, as_format: str) -> None:
        """Raises Malformed for a format that there is not."""
        if as_format and as_format not in self._formats:
            known = ", ".join(sorted(self._formats))
            raise Malformed(f"format: there is no {as_format!r}; expected one of {known}")

    async def _replayed(self, letter: DeadLetter, as_format: str) -> Replayed:
        self.check(as_format)
        name = as_format or letter.door
        form, came = self._formats.get(name), came_of(letter)
        if letter.truncated:
            return Replayed(
                letter.id, REFUSED, name, 0,
                f"only its first {len(letter.payload):,} bytes were kept (dead_letters.max_payload_bytes): have its sender send it again",
            )  # fmt: skip
        if form is None:
            why = f"no format is called {name!r} any more: name another one"
            return await self._stays(letter, came, name, 0, [Fault(-1, why)])
        as_other = name != letter.door
        if as_other:
            came = msgspec.structs.replace(came, items=())
        request = request_of(letter, came, form, as_other)
        wait_s = RETRY_S
        for left in reversed(range(TRIES)):
            try:
                stored, faults = await self._taken(letter, came, form, request)
            except PASSING as error:
                why = str(error) or type(error).__name__
                if not left:
                    return Replayed(letter.id, WAITING, name, 0, why)
                await asyncio.sleep(wait_s)
                wait_s *= 2
            except IncidentManagerError as error:
                return await self._stays(letter, came, name, 0, [Fault(-1, str(error))])
            except Exception as error:
                log.exception("bug: a dead letter can't be read again", letter=letter.id, door=name)
                return await self._stays(letter, came, name, 0, [Fault(-1, f"a bug: {error!r}")])
            else:
                break
        if faults:
            return await self._stays(letter, came, name, stored, faults)
        await self._store.remove([letter.id])
        return Replayed(letter.id, STORED, name, stored)

    async def _stays(
        self, letter: DeadLetter, came: Came, name: str, stored: int, faults: list[Fault]
    ) -> Replayed:
        """Keep a letter, with the reason why it still can't be taken."""
        how, reason = still(came, faults)
        if name != letter.door or all(fault.index < 0 for fault in faults):
            how = letter.request
        if name != letter.door:
            reason = f"as {name}: {reason}"
        now = self._clock.now()
        await self._store.change(
            replace(letter, reason=reason, replays=letter.replays + 1, tried_at=now, request=how)
        )
        return Replayed(letter.id, REFUSED, name, stored, reason)

    async def _taken(
        self, letter: DeadLetter, came: Came, form: Format, request: Request
    ) -> tuple[int, list[Fault]]:
        """How many alerts of a letter are stored now, and what of it can't be taken. Raises one of PASSING when a part can't be stored
        now, Refused when nothing can be read."""
        reading = await self._intake.read(form, request)
        reading = _as_it_came(reading, form, letter.at, self._clock.now())
        reading = self._without_beats(reading, letter.at)
        stored, faults = 0, [each for each in reading.faults if not came.items or each.index in came.items]
        for item in came.items or (None,):
            columns = [column for column, place in enumerate(reading.places) if item is None or place == item]
            if not columns:
                continue
            delivery = f"dead-letter/{letter.id}" + ("" if item is None else f"/{item}")
            part = replace(reading.only(columns), faults=[])
            taken, receipt = await self._stored(form, request, part, delivery)
            faults += taken.faults
            errors = receipt.errors
            if passing := next((each for each in errors.values() if isinstance(each, PASSING)), None):
                raise passing
            faults += [Fault(taken.places[column], str(error)) for column, error in errors.items()]
            stored += len(taken.places) - len(errors)
        return stored, faults

    async def _stored(
        self, form: Format, request: Request, reading: Reading, delivery: str
    ) -> tuple[Reading, Receipt]:
        with self._tracer.span(f"REPLAY {form.name}", None, {}, kind="internal") as span:
            for named in (delivery, None):
                arrival = Arrival(
                    self._intake.tenant,
                    form.name,
                    request.sender,
                    request.received_at,
                    False,
                    named,
                    span.trace,
                )
                taken, receipt = await self._intake.store(reading, arrival)
                error = next(iter(receipt.errors.values()), None)
                # Its name was used when it said something else: an earlier replay stored it, did not live to remove it, and what
                # reads it was changed since. Then what it says counts.
                if not isinstance(error, Refused) or isinstance(error, PASSING):
                    break
        return taken, receipt

    def _without_beats(self, reading: Reading, at: float) -> Reading:
        """A heartbeat that was heard once says nothing of now."""
        beats = self._intake.beats_among(reading, at)
        if not beats:
            return reading
        return reading.only([column for column in range(len(reading.memories)) if column not in beats])


def _as_it_came(reading: Reading, form: Format, at: float, now: float) -> Reading:
    """A reading whose alerts, where they name no times themselves, began or ended when the letter came first; and fire from now on for
    as long as such ones do."""
    ends = reading.ends
    if isinstance(form, ListFormat):
        then, new = form.default_end(at), form.default_end(now)
        ends = [new if end == then else end for end in ends]
    starts: dict[int, bytes] = {}

    def body(column: int) -> bytes:
        if column not in starts:
            content = _content_decoder.decode(reading.body(column))
            if not content.starts_at:
                content = msgspec.structs.replace(content, starts_at=at)
            starts[column] = encode_body(content)
        return starts[column]

    # "It ends now" was said then.
    said = reading.said.replace(bytes([Claim.RESOLVED_NOW]), bytes([Claim.RESOLVED]))
    return replace(reading, ends=ends, body=body, said=said)
