"""Labels of alerts that fire, by the key under which their sender ends them. For senders whose end says nothing but that key
(PagerDuty, Opsgenie): the service, and so the shard, is known only from what began it.

A gateway remembers what it took itself; what another one took, or this one before a restart, its shards are asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from models.alerts.matchers import MatcherTuple
from models.errors import Busy, Malformed, Unavailable
from services.ingest.arrival import Sender

#: Keys remembered, about 500 bytes each: what fires, and what ended lately.
REMEMBERED_MAX = 65_536
#: Searches of all shards at a time. One reads every alert there is, so a sender that ends what nobody began waits.
SEARCHES_MAX = 4

#: Results that wait to be taken, which happens in the next step of the same request.
FOUND_MAX = 4096

Labels = Mapping[str, str]
#: The label sets of all firing alerts of a format that match.
Find = Callable[[str, Sequence[MatcherTuple]], Awaitable[list[Labels]]]


class Found(NamedTuple):
    """The labels of something that fires: as its format read them, or as a shard has them, by whose rules they were relabelled."""

    labels: Labels
    is_relabelled: bool = False


async def _none(_format_name: str, _matchers: Sequence[MatcherTuple]) -> list[Labels]:
    return []


class OpenAlerts:
    """One a gateway. `find` asks its shards."""

    def __init__(self, find: Find = _none) -> None:
        self.find = find
        self._labels: dict[tuple[str, ...], Labels] = {}
        self._found: dict[tuple[str, ...], list[Found]] = {}
        self._searches = 0

    def put(self, key: Sequence[str], labels: Labels, sender: Sender) -> Labels:
        """The labels of what this key stands for: those of the first who said so, else these."""
        if sender.match:
            # It may be refused, and must not say what the alerts of others are called.
            return labels
        known = self._labels.get(tuple(key))
        if known is not None:
            return known
        if len(self._labels) >= REMEMBERED_MAX:
            # The oldest half: a dict keeps its order.
            for old in list(self._labels)[: REMEMBERED_MAX // 2]:
                del self._labels[old]
        self._labels[tuple(key)] = labels
        return labels

    def holds(self, key: tuple[str, ...], labels: Labels) -> bool:
        """Whether put() would give these very labels for this key."""
        return self._labels.get(key) is labels

    async def look(self, format_name: str, key: Labels, sender: Sender) -> None:
        """Find the label sets of what a format's alerts are that fire with the labels of `key`, for take(). Raises Malformed for a
        key that says nothing, which every alert without that label would match; Busy, also when a shard can't be asked: the
        sender tries again."""
        if empty := [name for name, value in key.items() if not value]:
            raise Malformed(f"{empty[0]}: expected what is to be ended, it is empty")
        place = (format_name, *key.values())
        known = None if sender.match else self._labels.get(place)
        if known is not None:
            self._note(place, [Found(known)])
            return
        if self._searches >= SEARCHES_MAX:
            raise Busy(f"{SEARCHES_MAX} searches for open alerts are under way already", retry_after_s=1.0)
        self._searches += 1
        try:
            found = await self.find(format_name, [(name, "=", value) for name, value in key.items()])
            self._note(place, [Found(labels, is_relabelled=True) for labels in found])
        except Unavailable as error:
            raise Busy(f"what this ends can't be looked up now: {error}") from error
        finally:
            self._searches -= 1

    def take(self, format_name: str, key: Labels, sender: Sender) -> list[Found]:
        """What look() found. It ends now: what comes next under this key may be something else."""
        place = (format_name, *key.values())
        if not sender.match:
            self._labels.pop(place, None)
        return self._found.get(place, [])

    def _note(self, place: tuple[str, ...], found: list[Found]) -> None:
        if len(self._found) >= FOUND_MAX:
            del self._found[next(iter(self._found))]
        self._found[place] = found
