"""What channels by HTTP share: the port Channel, on top of what each says how to write and to send."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import msgspec

from models.incidents.notification import Facts, Note
from models.ports import ActionResult
from services.actions.answers import FINAL
from services.actions.http_call import Attempt, HttpCall
from services.actions.plain_text import as_it_is
from services.actions.wording import Said, Wording

#: Statuses of ticket systems that no further try changes. A 400 or 422 there speaks of a field that the project wants or does not
#: know, so of settings, which are mended while we try again.
FINAL_OF_TICKETS = frozenset({413})
#: Maps in the order that they were written: the same facts have the same bytes.
_encoder = msgspec.json.Encoder()


def json_bytes(value: object) -> bytes:
    return _encoder.encode(value)


class HttpChannel(ABC):
    """Port Channel. A subclass says what is sent first for what is to be said (`body`), and sends it (`send`)."""

    #: The statuses that no further try changes.
    final: ClassVar[frozenset[int]] = FINAL
    #: What the receiver calls what it made. A ref of another form is another receiver's, which had the same name before.
    refs: ClassVar[re.Pattern[str]] = re.compile(r".+")
    #: Whether something stays open at the receiver until it is told of the end: a test is closed again at once.
    opens: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        given: Mapping[str, Any],
        *,
        escape: Callable[[str], str] = as_it_is,
        headers: Mapping[str, str] | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        """`given`: the settings of receiver `name` (models/settings/channels), plain, and `external_url`. `headers` are the
        channel's own and hold secrets, as `secrets` do."""
        self.name = name
        self.wording = Wording(given, name=name, escape=escape)
        self.http = HttpCall(
            timeout_s=given["timeout"],
            headers={**(headers or {}), **given.get("headers", {})},
            secrets=secrets,
            final=self.final,
            ca_file=given.get("ca_file") or "",
        )

    def render(self, facts: Facts) -> bytes:
        return self.body(self._said(facts))

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        return await self.send(self.http.attempt(key, trace), self._said(facts))

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        said = self.wording.of_note(note, key)
        result = await self.send(self.http.attempt(key, trace), said)
        if note.is_test and self.opens and result.ok:
            end = await self.send(self.http.attempt(f"{key}-end", trace), said.over(result.ref))
            if not end.ok:
                return replace(result, detail=f"{result.detail}; it is still open there: {end.detail}")
        return result

    async def close(self) -> None:
        await self.http.close()

    def _said(self, facts: Facts) -> Said:
        said = self.wording.of(facts)
        return said if self.refs.fullmatch(said.ref) else replace(said, ref="")

    @abstractmethod
    def body(self, said: Said) -> bytes:
        """What is sent: the first request's body. Pure, and the same for the same words."""

    @abstractmethod
    async def send(self, attempt: Attempt, said: Said) -> ActionResult:
        """Say it, in as many calls as that takes."""
