"""Collections of TAXII 2.1 servers that are polled. Their objects are read as those that are added here
(services/ingest/formats/taxii.py).

The cursor is a time: what was added up to it is stored. A server lists objects in the order in which they were added, and many may
have been added at the same time. So within a poll the cursor moves only to the time of a page's first object, and only where the
page reaches beyond that; the time of its last object counts once there is nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

import msgspec

from models.errors import Malformed, TooLarge, Unavailable
from services.actions.outbound import Answer, place_of
from services.ingest.formats.format import Request
from services.ingest.formats.reading import Fault
from services.ingest.formats.stix import BUNDLE_MAX_BYTES
from services.ingest.formats.taxii import MEDIA_TYPE
from services.ingest.sources.fetching import Fetchers
from services.ingest.sources.http import HttpFetcher
from services.ingest.sources.lease import LEASE_S
from services.ingest.sources.source import SourceNeeds

FORMAT = "taxii"
ACCEPT = f"{MEDIA_TYPE};version=2.1"
FIRST, LAST = "x-taxii-date-added-first", "x-taxii-date-added-last"
#: One answer: a thousand objects of the usual size have one.
PAGE_MAX_BYTES = 32 * 1024 * 1024
#: What fits into one request with room for what stands around it.
OBJECT_MAX_BYTES = BUNDLE_MAX_BYTES - 1024
#: Of what a server calls the next page, and of its times.
WORD_CHARS_MAX = 1000
#: Pages in a row without an object: a server may leave out what we may not see, but one that goes on so never ends.
EMPTY_MAX = 100


class Envelope(msgspec.Struct, gc=False):
    more: bool = False
    next: str | None = None
    objects: list[msgspec.Raw] | None = None


_decoder = msgspec.json.Decoder(Envelope)


class TaxiiPoll(HttpFetcher):
    """One collection."""

    def __init__(self, needs: SourceNeeds, settings: Mapping[str, Any], *, lease_s: float = LEASE_S) -> None:
        super().__init__(needs, "taxii", settings, lease_s=lease_s)
        self._at_first: str = settings["added_after"] or ""
        self._page: int = settings["page"]

    async def fetch(self) -> None:
        after, following = self.lease.cursor or self._at_first, ""
        empty, before = 0, b""
        while True:
            answer = await self._objects(after, following)
            envelope = self._envelope(answer)
            empty = 0 if envelope.objects else empty + 1
            if following and (empty > EMPTY_MAX or answer.body == before):
                raise Unavailable(f"{self._place}: its `next` leads to nothing new, again and again")
            before = answer.body
            first, last = answer.headers.get(FIRST, ""), answer.headers.get(LAST, "")
            last = last or first
            if envelope.objects:
                await self._store(answer.body, envelope.objects)
                self.reached()
                if not last or len(last) > WORD_CHARS_MAX or len(first) > WORD_CHARS_MAX:
                    raise Unavailable(
                        f"{self._place}: expected the header X-TAXII-Date-Added-Last in its answer"
                    )
            if not envelope.more:
                if last:
                    await self.lease.move(last)
                return
            if first and first != last:
                await self.lease.move(first)
            if not envelope.next and (not last or last == after):
                raise Unavailable(f"{self._place}: it says that there is more, but not where")
            after, following = (after, envelope.next) if envelope.next else (last, "")

    async def _objects(self, after: str, following: str) -> Answer:
        asked = {"limit": str(self._page)}
        asked |= {"added_after": after} if after else {}
        asked |= {"next": following} if following else {}
        answer = await self.get(f"{self.url}/objects/?{urlencode(asked)}", PAGE_MAX_BYTES, Accept=ACCEPT)
        if answer.cut:
            raise Unavailable(
                f"{self._place}: {self._page} objects have over {PAGE_MAX_BYTES} bytes, or did not come in time: "
                "set a smaller page, or a longer timeout"
            )
        return answer

    async def _store(self, body: bytes, objects: Sequence[msgspec.Raw]) -> None:
        """Give on a page; one by one, where it can't be read as a whole."""
        if len(body) <= BUNDLE_MAX_BYTES:
            try:
                await self._give(body)
                return
            except (Malformed, TooLarge):
                if len(objects) == 1:
                    return  # it is a dead letter
        form = self._needs.formats[FORMAT]
        for each in map(bytes, objects):
            try:
                if len(each) > OBJECT_MAX_BYTES:
                    why = f"an object of {len(each)} bytes, at most {OBJECT_MAX_BYTES} are allowed"
                    now = self._needs.clock.now()
                    request = Request(form.path, each, now, content_type=MEDIA_TYPE, sender=self._sender)
                    self._needs.intake.bury(form, request, [Fault(-1, why, each)])
                else:
                    await self._give(b'{"objects":[%b]}' % each)
            except (Malformed, TooLarge):
                continue  # it is a dead letter

    async def _give(self, body: bytes) -> None:
        # The same page again, after we were killed between storing it and moving on, changes nothing.
        delivery = blake2b(body, digest_size=16).hexdigest()
        await self.give(FORMAT, body, delivery_id=f"{self.name}/{delivery}")

    def _envelope(self, answer: Answer) -> Envelope:
        try:
            found = _decoder.decode(answer.body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise Unavailable(f"{self._place}: expected a TAXII 2.1 envelope, is it a collection?") from None
        if len(found.next or "") > WORD_CHARS_MAX:
            raise Unavailable(f"{self._place}: its `next` has over {WORD_CHARS_MAX} characters")
        return found

    @property
    def _place(self) -> str:
        return place_of(self.url)


class TaxiiPolls(Fetchers):
    name = "taxii"

    def open(self, needs: SourceNeeds) -> list[TaxiiPoll]:
        return [TaxiiPoll(needs, each) for each in needs.given["polled_taxii"]]
