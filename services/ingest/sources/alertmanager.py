"""Alertmanagers that are polled: `GET /api/v2/alerts`. What is on the list fires, and what is no longer on it is resolved.

Each alert is given on as this Alertmanager's webhook would have brought it (services/ingest/formats/alertmanager_webhook.py), so that it
is the same series. Two annotations say where it was polled, so that a process that begins anew finds what is open (`Fetcher.begin`).

The list is believed to be complete, and what it lacks resolved, only
- when all of it was read;
- when who answered right after it has run for `settle`: an Alertmanager begins with an empty list until Prometheus has sent all again;
- when the list before lacked it too: behind one address there may be two, and one of them hears of an alert first;
- when only one answers here, also if it is asked some times more (alertmanager_instances.py). Of several a list says nothing
  until none has had the alert for `settle`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import msgspec
import structlog

from models.errors import Malformed, TooLarge, Unavailable
from services.actions.outbound import Answer, place_of
from services.ingest.sources.alertmanager_instances import Instances
from services.ingest.sources.fetching import Fetchers
from services.ingest.sources.http import HttpFetcher
from services.ingest.sources.lease import LEASE_S
from services.ingest.sources.source import SourceNeeds

log = structlog.get_logger()

FORMAT = "alertmanager-webhook"
#: Some fifty thousand alerts of Prometheus' size.
LIST_MAX_BYTES = 32 * 1024 * 1024
STATUS_MAX_BYTES = 1024 * 1024
#: Alerts given on in one request, and bytes: far below what the format takes.
GIVE_ALERTS = 500
GIVE_BYTES = 1024 * 1024
#: Lists in a row that must lack an alert before it is resolved.
MISSED = 2
#: How often the status is asked for before anything is resolved: whoever else stands behind the address, asked in turn or by chance, is
#: overlooked once in 64 times, and that only when it had not been met in any poll before.
LOOKS = 6
#: Annotations by which what is open is found again, and those that say why Alertmanager does not notify of it.
FROM, FINGERPRINT = "polled_from", "polled_fingerprint"
STATE, SILENCED_BY, INHIBITED_BY = "alertmanager_state", "silenced_by", "inhibited_by"
#: Ids shown of what silences or inhibits an alert.
SHOWN_MAX = 10
#: Of a fingerprint; Alertmanager's has 16.
FINGERPRINT_CHARS = 64

_encode = msgspec.json.Encoder(order="sorted").encode


class Status(msgspec.Struct, gc=False):
    state: str = ""
    silencedBy: list[str] = []  # noqa: N815 - the wire's own spelling
    inhibitedBy: list[str] = []  # noqa: N815


class Listed(msgspec.Struct, gc=False):
    """Alertmanager's gettableAlert, as far as it is used."""

    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: str = ""  # noqa: N815
    generatorURL: str = ""  # noqa: N815
    fingerprint: str = ""
    status: Status = msgspec.field(default_factory=Status)


class Posted(msgspec.Struct, gc=False, omit_defaults=True):
    """The same as the webhook has it."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    status: str = ""
    startsAt: str = ""  # noqa: N815
    generatorURL: str = ""  # noqa: N815


class Open(msgspec.Struct, gc=False):
    """What fires here, and how many lists in a row lacked it, the first of them when, by the monotonic clock."""

    alert: Posted
    missed: int = 0
    since: float = 0.0


_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_listed_decoder = msgspec.json.Decoder(Listed)


class AlertmanagerPoll(HttpFetcher):
    """One of them."""

    def __init__(self, needs: SourceNeeds, settings: Mapping[str, Any], *, lease_s: float = LEASE_S) -> None:
        super().__init__(needs, "alertmanager", settings, lease_s=lease_s)
        filters = "".join(f"&filter={quote(each, safe='')}" for each in settings["matchers"])
        self._list_url = (
            f"{self.url}/api/v2/alerts?active=true&silenced=true&inhibited=true&unprocessed=true{filters}"
        )
        self._settle_s: float = settings["settle"]
        self._instances = Instances(self._settle_s)
        #: By fingerprint; None until the shards were asked.
        self._open: dict[str, Open] | None = None
        #: What was refused, as it was: it is on each list, and told once.
        self._refused: dict[str, bytes] = {}

    def begin(self) -> None:
        self._open = None

    async def fetch(self) -> None:
        if self._open is None:
            self._open = await self._found_open()
        answer = await self.get(self._list_url, LIST_MAX_BYTES)
        listed, is_whole = self._read(answer)
        await self._fire(listed)
        if not is_whole:
            raise Unavailable(f"{place_of(self.url)}: part of its list can't be read, so nothing is resolved")
        missing = []
        for key, each in self._open.items():
            if key in listed:
                each.missed = 0
            else:
                missing.append(each)
        try:
            counts = await self._has_settled()
        except Unavailable:
            if missing:
                raise
            return
        now = self._needs.clock.monotonic()
        for each in missing if counts else ():
            each.missed += 1
            if each.missed == 1:
                each.since = now
        if counts and self._over() and await self._is_certain():
            await self._resolve(self._over())

    async def _found_open(self) -> dict[str, Open]:
        """What the shards know of this Alertmanager's. Raises Unavailable."""
        try:
            views = await self._needs.firing(FORMAT, [])
        except TooLarge as error:
            raise Unavailable(f"what is open can't be looked up: {error}") from error
        found = {}
        for each in views:
            key = each.annotations.get(FINGERPRINT, "")
            if key and each.annotations.get(FROM) == self.name:
                starts = datetime.fromtimestamp(each.starts_at, UTC).isoformat() if each.starts_at else ""
                found[key] = Open(Posted(each.labels, each.annotations, "", starts, each.generator_url))
        return found

    def _read(self, answer: Answer) -> tuple[dict[str, Posted], bool]:
        """The alerts of a list by fingerprint, and whether these are all. Raises Unavailable for what is no list."""
        place = place_of(self.url)
        if answer.cut:
            raise Unavailable(f"{place}: its list has over {LIST_MAX_BYTES} bytes, or did not come in time")
        try:
            raws = _list_decoder.decode(answer.body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise Unavailable(f"{place}: expected a JSON array of alerts, is it an Alertmanager?") from None
        found: dict[str, Posted] = {}
        is_whole = True
        for raw in raws:
            try:
                alert = _listed_decoder.decode(raw)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                is_whole = False
                continue
            key = (
                alert.fingerprint[:FINGERPRINT_CHARS]
                or blake2b(_encode(alert.labels), digest_size=8).hexdigest()
            )
            found[key] = self._posted(alert, key)
        return found, is_whole

    def _posted(self, alert: Listed, key: str) -> Posted:
        said = {**alert.annotations, FROM: self.name, FINGERPRINT: key}
        status = alert.status
        if status.state == "suppressed":
            said[STATE] = status.state
            for name, ids in ((SILENCED_BY, status.silencedBy), (INHIBITED_BY, status.inhibitedBy)):
                if ids:
                    said[name] = ", ".join(sorted(ids)[:SHOWN_MAX])
        return Posted(alert.labels, said, "", alert.startsAt, alert.generatorURL)

    async def _fire(self, listed: Mapping[str, Posted]) -> None:
        """Give all on, also what did not change: it still fires."""
        assert self._open is not None
        self._refused = {key: body for key, body in self._refused.items() if key in listed}
        wanted = [key for key, alert in listed.items() if self._refused.get(key) != _encode(alert)]
        for keys, refused in await self._given([(key, listed[key]) for key in wanted], "firing"):
            for key in keys:
                if key in refused:
                    self._refused[key] = _encode(listed[key])
                else:
                    self._open[key] = Open(listed[key])

    async def _resolve(self, keys: Sequence[str]) -> None:
        assert self._open is not None
        opened = self._open
        for given, _refused in await self._given([(key, opened[key].alert) for key in keys], "resolved"):
            for key in given:
                del opened[key]

    async def _given(
        self, alerts: Iterable[tuple[str, Posted]], status: str
    ) -> list[tuple[list[str], set[str]]]:
        """Store these, some at a time: their keys, and which of them were refused."""
        done = []
        keys: list[str] = []
        bodies: list[bytes] = []
        size = 0

        async def give() -> None:
            body = b'{"receiver":"polled","groupKey":"","status":"%b","alerts":[%b]}' % (
                status.encode(),
                b",".join(bodies),
            )
            reading, receipt = await self.give(FORMAT, body)
            refused = {keys[fault.index] for fault in reading.faults if fault.index >= 0}
            refused |= {keys[reading.places[column]] for column in receipt.errors}
            done.append(([*keys], refused))
            keys.clear()
            bodies.clear()

        for key, alert in alerts:
            encoded = _encode(alert)
            if keys and (len(keys) >= GIVE_ALERTS or size + len(encoded) > GIVE_BYTES):
                await give()
                size = 0
            keys.append(key)
            bodies.append(encoded)
            size += len(encoded)
        if keys:
            await give()
        return done

    def _over(self) -> list[str]:
        """What may be resolved, by all that is known of who answers here."""
        assert self._open is not None
        now = self._needs.clock.monotonic()
        at_once = not self._settle_s or self._instances.is_one(now)
        return [
            key
            for key, each in self._open.items()
            if each.missed >= MISSED and (at_once or now - each.since >= self._settle_s)
        ]

    async def _is_certain(self) -> bool:
        """Whether all that answer here have settled, as far as can be found out. Raises Unavailable."""
        for _ in range(LOOKS if self._settle_s else 0):
            if not await self._has_settled():
                return False
        return True

    async def _has_settled(self) -> bool:
        """Whether who answers has run for long enough to know its alerts. By its own clock. Raises Unavailable when it does not say."""
        if not self._settle_s:
            return True
        answer = await self.get(f"{self.url}/api/v2/status", STATUS_MAX_BYTES)
        try:
            return self._instances.saw(answer.body, _now_there(answer), self._needs.clock.monotonic())
        except Malformed:
            raise Unavailable(
                f"{place_of(self.url)}: its status does not say since when it runs, so nothing is resolved"
            ) from None


def _now_there(answer: Answer) -> float:
    """The time by the clock of who answered, by ours if it does not say."""
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return time.time()


class AlertmanagerPolls(Fetchers):
    name = "alertmanager"

    def open(self, needs: SourceNeeds) -> list[AlertmanagerPoll]:
        return [AlertmanagerPoll(needs, each) for each in needs.given["polled_alertmanagers"]]
