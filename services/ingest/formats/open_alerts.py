"""Labels of alerts that fire, by the key under which their sender ends them. For senders whose end says nothing but that key
(PagerDuty, Opsgenie): the service, and so the shard, is known only from what began it.

A gateway remembers what it took itself; what another one took, or this one before a restart, its shards are asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from models.alerts.matchers import MatcherTuple
from models.errors import Busy, Unavailable

#: Keys remembered, about 500 bytes each: what fires, and what ended lately.
REMEMBERED_MAX = 65_536
#: Searches of all shards at a time. One reads every alert there is, so a sender that ends what nobody began waits.
SEARCHES_MAX = 4

#: Results that wait to be taken, which happens in the next step of the same request.
FOUND_MAX = 4096

Labels = Mapping[str, str]
#: The label sets of all firing alerts that match.
Find = Callable[[Sequence[MatcherTuple]], Awaitable[list[Labels]]]


async def _none(_matchers: Sequence[MatcherTuple]) -> list[Labels]:
    return []


class OpenAlerts:
    """One a gateway. `find` asks its shards."""

    def __init__(self, find: Find = _none) -> None:
        self.find = find
        self._labels: dict[tuple[str, ...], Labels] = {}
        self._found: dict[tuple[str, ...], list[Labels]] = {}
        self._searches = 0

    def put(self, key: Sequence[str], labels: Labels) -> Labels:
        """The labels of what this key stands for: those of the first who said so, else these."""
        known = self._labels.get(tuple(key))
        if known is not None:
            return known
        if len(self._labels) >= REMEMBERED_MAX:
            # The oldest half: a dict keeps its order.
            for old in list(self._labels)[: REMEMBERED_MAX // 2]:
                del self._labels[old]
        self._labels[tuple(key)] = labels
        return labels

    async def look(self, format_name: str, key: Labels) -> None:
        """Find the label sets of what fires with the labels of `key`, for take(). Raises Busy, also when a shard can't be asked:
        the sender tries again."""
        place = (format_name, *key.values())
        known = self._labels.get(place)
        if known is not None:
            self._note(place, [known])
            return
        if self._searches >= SEARCHES_MAX:
            raise Busy(f"{SEARCHES_MAX} searches for open alerts are under way already", retry_after_s=1.0)
        self._searches += 1
        try:
            self._note(place, await self.find([(name, "=", value) for name, value in key.items()]))
        except Unavailable as error:
            raise Busy(f"what this ends can't be looked up now: {error}") from error
        finally:
            self._searches -= 1

    def take(self, format_name: str, key: Labels) -> list[Labels]:
        """What look() found. It ends now: what comes next under this key may be something else."""
        place = (format_name, *key.values())
        self._labels.pop(place, None)
        return self._found.get(place, [])

    def _note(self, place: tuple[str, ...], found: list[Labels]) -> None:
        if len(self._found) >= FOUND_MAX:
            del self._found[next(iter(self._found))]
        self._found[place] = found
