"""The loop over a list of alerts, which most formats are: each is looked up by its bytes, checked if it is new, or a fault.

It runs for every alert there is: a call a time costs 2 % of a gateway's work (docs/performance.md).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import ClassVar, Generic, TypeVar

import msgspec

from models.alerts.alert import Content
from models.alerts.relabel import Relabelling
from models.errors import Malformed, TooLarge
from models.shard.messages import Claim
from services.ingest.formats.format import Format, Request
from services.ingest.formats.json_text import json_error
from services.ingest.formats.reading import Fault, Reading
from services.ingest.formats.remembered import Memory, encode_body, seen_digest
from services.ingest.rules import Ruled

#: Alerts in one request; Prometheus sends 64 or 256.
ALERTS_MAX = 100_000
#: What msgspec raises for a sender's bytes.
UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)

#: An item as split() gives it, not looked into; and a posted alert, taken apart into raw slices.
Item = TypeVar("Item")
Posted = TypeVar("Posted")

#: A posted alert; the slices by which it is known again; its end as written (b"" for none); whether it says that it is
#: resolved.
Taken = tuple[Posted, Sequence[bytes | msgspec.Raw], bytes, bool]


class ListFormat(Format, Generic[Item, Posted]):
    """A format whose requests are lists of alerts."""

    #: The name of the end field, and the error for an end before the start.
    end_field: ClassVar[str]
    end_too_early: ClassVar[str]

    @abstractmethod
    def split(self, request: Request) -> Iterator[Sequence[Item]]:
        """The items of a request, a slice of at most SLICE_ALERTS at a time. Raises Malformed, TooLarge, UNREADABLE."""

    @abstractmethod
    def take(self, item: Item) -> Taken[Posted]:
        """One item taken apart; its fields are not looked into. Raises Malformed."""

    @abstractmethod
    def content(self, alert: Posted) -> Content:
        """All that an alert says but its end, checked. Raises Malformed."""

    def is_relabelled(self, alert: Posted) -> bool:
        """Whether its labels come from a shard: the rules of the settings were applied to them before."""
        return False

    def ruled(self, alert: Posted) -> tuple[Content, Ruled | None]:
        """content() by the rules of the settings, and what they say of it; None when there are no rules for it."""
        content, rules = self.content(alert), self.shared.remembered.rules
        if rules is None or self.is_relabelled(alert):
            return content, None
        return rules.over(self.name, content)

    def content_again(self, alert: Posted, memory: Memory) -> Content:
        """What ruled() gave when its memory was made: by the same rules, which may have changed since."""
        content, ruled = self.content(alert), memory.ruled
        return content if ruled is None else ruled.relabelling.applied(self.name, content)

    def content_by(self, alert: Posted, relabelling: Relabelling) -> Content | None:
        """content() by other rules; None for what no rule may touch."""
        return None if self.is_relabelled(alert) else relabelling.applied(self.name, self.content(alert))

    @abstractmethod
    def default_end(self, now: float) -> float:
        """When an alert ends that gives no end; inf for never."""

    @abstractmethod
    def said_end(self, alert: Posted) -> bytes:
        """The end of an alert, as it was written."""

    @abstractmethod
    def written(self, item: Item) -> bytes:
        """An item as a dead letter keeps it."""

    def steps(self, request: Request) -> Generator[None, None, Reading]:
        return self.taken(request, self.split)

    def taken(
        self,
        request: Request,
        split: Callable[[Request], Iterator[Sequence[Item]]],
        note: Callable[[], str] = str,
    ) -> Generator[None, None, Reading]:
        """steps() of what `split` gives; `note` is asked at the end."""
        remembered, now = self.shared.remembered, request.received_at
        find, known_ends, end_field = remembered.find, remembered.times, self.end_field
        take, default_end = self.take, self.default_end(now)
        places: list[int] = []
        memories: list[Memory] = []
        ends: list[float] = []
        alerts: list[Posted] = []
        learned: dict[int, bytes] = {}
        claims: dict[int, Claim] = {}
        faults: list[Fault] = []
        place = -1
        try:
            for items in split(request):
                if place + len(items) >= ALERTS_MAX:
                    raise TooLarge(f"over {ALERTS_MAX} alerts in one request")
                young = remembered.young
                for item in items:
                    place += 1
                    try:
                        alert, raws, raw_end, is_resolved = take(item)
                        seen = seen_digest(raws)
                        memory = young.get(seen) or find(seen)
                        body = b""
                        if memory is None:
                            content, ruled = self.ruled(alert)
                            body = encode_body(content)
                            memory = remembered.learn(seen, content, len(body), ruled)
                        end = known_ends.get(raw_end)
                        if end is None:
                            end = remembered.time(raw_end, end_field)
                        if is_resolved:
                            # Whatever its times: they may be by a clock that is ahead of ours, or was just put right.
                            claims[len(places)] = Claim.RESOLVED if 0.0 < end <= now else Claim.RESOLVED_NOW
                            end = min(end or now, now)
                        elif not end:
                            end = default_end
                        elif memory.starts > end:
                            raise Malformed(self.end_too_early)
                    except Malformed as error:
                        faults.append(Fault(place, str(error), self.written(item)))
                        continue
                    if body:
                        # What was just read for checking need not be read again for its shard.
                        learned[len(places)] = body
                    places.append(place)
                    memories.append(memory)
                    ends.append(end)
                    alerts.append(alert)
                yield
        except UNREADABLE as error:
            raise Malformed(json_error(error)) from None

        def body_of(column: int) -> bytes:
            return learned.get(column) or encode_body(self.content_again(alerts[column], memories[column]))

        def said_end(column: int) -> bytes:
            return self.said_end(alerts[column])

        def content_by(column: int, relabelling: Relabelling) -> Content | None:
            return self.content_by(alerts[column], relabelling)

        said = bytes(claims.get(column, Claim.NOTHING) for column in range(len(places))) if claims else b""
        return Reading(place + 1, places, memories, ends, body_of, faults, said_end, said, note(), content_by)
