"""LLM-Shield, which is asked for its incidents: `GET ENDPOINT/v1/incidents?after=CURSOR&limit=N`, answered by
`{"incidents": [SecurityIncident, ...], "next": CURSOR}`. The cursor is the server's own word, and moves on once all before it is stored.

Each incident is stored by itself, in the order of the list; an end waits for all that came before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

import msgspec

from models.control.polls import CURSOR_MAX_BYTES
from models.errors import Malformed, TooLarge, Unavailable
from services.actions.outbound import Answer, place_of
from services.ingest.sources.dialling import token_of
from services.ingest.sources.fetching import Fetchers
from services.ingest.sources.http import HttpFetcher
from services.ingest.sources.lease import LEASE_S
from services.ingest.sources.source import SourceNeeds

FORMAT = "llm-shield"
#: Incidents of one answer, and its bytes.
PAGE = 500
PAGE_MAX_BYTES = 16 * 1024 * 1024
TIMEOUT_S = 30.0
#: Stored side by side: enough to fill the time of an append.
AT_ONCE = 64


class Page(msgspec.Struct, gc=False):
    incidents: list[msgspec.Raw]
    next: str | int | None = None


_decoder = msgspec.json.Decoder(Page)


class ShieldPoll(HttpFetcher):
    def __init__(self, needs: SourceNeeds, settings: Mapping[str, Any], *, lease_s: float = LEASE_S) -> None:
        polled = {
            "name": "",
            "url": settings["endpoint"],
            "interval": settings["interval"],
            "timeout": TIMEOUT_S,
            "token": token_of(settings),
            **{name: settings[name] for name in ("ca_file", "cert_file", "key_file")},
        }
        super().__init__(needs, "llm-shield", polled, lease_s=lease_s)
        self.retry_s = settings["pause_s"]

    async def fetch(self) -> None:
        while True:
            after = self.lease.cursor
            asked = {"limit": str(PAGE)} | ({"after": after} if after else {})
            page = self._page(await self.get(f"{self.url}/v1/incidents?{urlencode(asked)}", PAGE_MAX_BYTES))
            await self._store([bytes(each) for each in page.incidents])
            self.reached()
            following = after if page.next in (None, "") else str(page.next)
            await self.lease.move(following)
            if following == after or not page.incidents:
                return

    def _page(self, answer: Answer) -> Page:
        place = place_of(self.url)
        if answer.cut:
            raise Unavailable(f"{place}: its answer has over {PAGE_MAX_BYTES} bytes, or did not come in time")
        try:
            page = _decoder.decode(answer.body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise Unavailable(
                f'{place}: expected {{"incidents": [...], "next": ...}}, is it LLM-Shield?'
            ) from None
        if len(str(page.next).encode()) > CURSOR_MAX_BYTES:
            raise Unavailable(f"{place}: next: over {CURSOR_MAX_BYTES} bytes")
        return page

    async def _store(self, incidents: Sequence[bytes]) -> None:
        """All, some side by side; one of the same incident, or one that may be over, waits for those before it."""
        together: list[bytes] = []
        met: set[object] = set()
        for each in incidents:
            identity, is_plain = _seen(each)
            if not is_plain or identity in met or len(together) >= AT_ONCE:
                await self._together(together)
                together, met = [], set()
            met.add(identity)
            together.append(each)
            if not is_plain:
                await self._together(together)
                together, met = [], set()
        await self._together(together)

    async def _together(self, incidents: Sequence[bytes]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for each in incidents:
                    group.create_task(self._one(each))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _one(self, incident: bytes) -> None:
        # The same again, after we were killed between storing it and moving on, changes nothing.
        delivery = f"{self.name}/{blake2b(incident, digest_size=16).hexdigest()}"
        try:
            await self.give(FORMAT, b'{"incidents":[%b]}' % incident, delivery_id=delivery)
        except (Malformed, TooLarge):
            return  # it is a dead letter


class _Seen(msgspec.Struct):
    id: str | int = ""
    mitigation_status: msgspec.Raw = msgspec.Raw(b'""')


_seen_decoder = msgspec.json.Decoder(_Seen)
#: States in which it is surely not over.
_PLAIN = frozenset({b'""', b'"None"', b'"none"', b'"InProgress"', b'"in_progress"', b"null"})


def _seen(incident: bytes) -> tuple[object, bool]:
    """Its id, and whether it surely goes on."""
    try:
        found = _seen_decoder.decode(incident)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return "", False
    return found.id, bytes(found.mitigation_status) in _PLAIN


class ShieldPolls(Fetchers):
    name = "llm-shield"

    def open(self, needs: SourceNeeds) -> list[ShieldPoll]:
        return [ShieldPoll(needs, needs.given["dial_shield"])]
