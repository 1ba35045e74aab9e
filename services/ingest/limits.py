"""How much each sender may send, and all of them together (`[resource_limits]`). Asked by intake.py for whatever door alerts come by.

Every gateway has buckets of its own and decides at once. Ten times a second it tells the control actor what was taken from them, and
hears which part of the true level is its own: the limits are those of the whole system, and no alert waits for a call.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from models.errors import IncidentManagerError, RateLimited
from models.limits import ACTIVE_S, ALL, Bucket, Limit, Report, Used, decode_parts, encode_report
from models.metrics import Meter
from models.ports import Clock, Peers
from services.ingest.arrival import Sender
from services.ingest.headers import quota_headers

if TYPE_CHECKING:
    from models.settings.resource_limits import ResourceLimits

log = structlog.get_logger()

#: How often gateways agree on what is left: a tenth of a second's worth is what one may take that another took too.
SHARE_S = 0.1
SHARE_TIMEOUT_S = 1.0
#: A sender that is refused is logged so often, with the number of requests that were.
TELL_S = 60.0
#: Senders remembered. There is one a token; past it those go that have not sent for a while, and begin anew when they do.
SENDERS_MAX = 10_000
#: Between looks while a stream waits for its turn: another gateway may leave some over.
LOOK_S = 1.0
#: Windows of limits as they are written.
UNITS = {1: "s", 60: "m", 3600: "h"}
Headers = list[tuple[bytes, bytes]]


class _Known(Bucket):
    """A limit here: our part of its bucket, what was taken since the control actor heard of it, and whether anybody asked since then."""

    __slots__ = ("asked", "limit", "name", "seen_at", "taken")

    def __init__(self, name: str, limit: Limit, sharers: int, now: float) -> None:
        super().__init__(limit.rate / sharers, limit.burst / sharers, now)
        self.name = name
        self.limit = limit
        self.taken = 0.0
        self.asked = False
        self.seen_at = now

    def share(self, sharers: int, now: float) -> None:
        """Go by a part of the limit."""
        self.go_by(self.limit.rate / sharers, self.limit.burst / sharers, now)


class _Sender:
    """`own` is its own limit, `fair` its part of what all may send: who keeps to that is let in while others use up the rest."""

    __slots__ = ("fair", "name", "own", "refused", "seen_at", "told_at")

    def __init__(self, name: str, own: _Known | None, fair: Bucket | None, now: float) -> None:
        self.name = name
        self.own = own
        self.fair = fair
        self.seen_at = now
        self.refused = 0
        self.told_at = -math.inf

    def owe(self, alerts: int, left: float) -> None:
        """Take it off its equal part. Who took what nobody else wanted owes it to nobody, but a debt of all (`left`) is no reason to let
        the debtor in."""
        fair = self.fair
        assert fair is not None
        fair.level -= alerts
        if fair.level < -fair.burst:
            fair.level = max(fair.level, min(left, -fair.burst))


class Limits:
    """One a process that takes alerts. `gateways` is how many such processes there are: while the control actor is away, each
    lets its part through."""

    def __init__(
        self, peers: Peers, control: str, clock: Clock, meter: Meter, gateway: str, gateways: int
    ) -> None:
        self._peers = peers
        self._control = control
        self._clock = clock
        self._meter = meter
        self._gateway = gateway
        self._gateways = gateways
        #: Whether anything is limited. Where nothing is, nobody asks further.
        self.is_on = False
        self._limit_of: Callable[[str], Limit | None] = lambda _name: None
        self._all: _Known | None = None
        self._senders: dict[str, _Sender] = {}
        self._wake = asyncio.Event()
        #: What the gauges say.
        self._shown: dict[tuple[str, str], float] = {}
        self._is_away = False

    def take_settings(self, section: ResourceLimits) -> None:
        """Go by these from now on. What was taken already counts on."""
        now = self._clock.monotonic()
        self.is_on = section.limits_ingestion
        self._limit_of = section.limit_of_sender
        self._all = self._renewed(self._all, ALL, section.limit_of_all, now)
        for sender in self._senders.values():
            sender.own = self._renewed(sender.own, f"sender/{sender.name}", self._limit_of(sender.name), now)
            sender.fair = None
        self._divide(now)

    # -- what doors ask --------------------------------------------------------------------------------------

    def check(self, sender: Sender) -> None:
        """Raises RateLimited when a request of this sender would be refused whatever it holds."""
        found, everybody = self._senders.get(sender.name), self._all
        if found is not None:
            own = found.own
            if (own is None or own.level >= 1.0) and (everybody is None or everybody.level >= 1.0):
                return
        now = self._clock.monotonic()
        found = found or self._meet(sender.name, now)
        if (held := self._held_up(found, now)) is not None:
            raise self._refusal(found, *held, now)

    def take(self, sender: Sender, alerts: int) -> None:
        """Count what a request holds. Raises RateLimited, and then nothing is counted.

        Without a look at the clock where there is enough: time is added to a bucket at the first request after gateways agreed, and
        whenever it runs out. What it lacks until then is less than a tenth of a second's worth."""
        found, everybody = self._senders.get(sender.name), self._all
        if found is not None:
            own = found.own
            if (own is None or (own.level >= 1.0 and own.asked)) and (
                everybody is None or (everybody.level >= 1.0 and everybody.asked)
            ):
                if own is not None:
                    own.level -= alerts
                    own.taken += alerts
                if everybody is not None:
                    everybody.level -= alerts
                    everybody.taken += alerts
                    found.owe(alerts, everybody.level)
                return
        self.check(sender)
        self.charge(sender, alerts)

    def charge(self, sender: Sender, alerts: int) -> None:
        """Count it whatever is left: what is known only afterwards."""
        now, everybody = self._clock.monotonic(), self._all
        found = self._senders.get(sender.name) or self._meet(sender.name, now)
        found.seen_at = now
        if found.own is not None:
            self._count(found.own, alerts, now)
        if everybody is not None:
            self._count(everybody, alerts, now)
            assert found.fair is not None
            found.fair.fill(now)
            found.owe(alerts, everybody.level)
        self._wake.set()

    async def admitted(self, sender: Sender) -> None:
        """Returns once this sender may send: streams and queues wait instead of being refused."""
        while self.is_on:
            now = self._clock.monotonic()
            found = self._senders.get(sender.name) or self._meet(sender.name, now)
            if (held := self._held_up(found, now)) is None:
                return
            await asyncio.sleep(min(held[1], LOOK_S))

    def standing(self, sender: Sender) -> Headers:
        """What a sender has left, as headers: of its own limit, or of that of all."""
        found = self._senders.get(sender.name)
        known = None if found is None else found.own or self._all
        if known is None:
            return []
        name = ALL if known is self._all else "sender"
        return quota_headers(name, known.limit.quota, known.limit.window_s, max(0, math.floor(known.level)))

    def measure(self) -> None:
        """Set the gauges."""
        rates = {} if self._all is None else {(ALL, ""): self._all.limit.rate}
        rates |= {
            ("sender", each.name): each.own.limit.rate
            for each in self._senders.values()
            if each.own is not None
        }
        # 0 where there was a limit and is none any more.
        for name, token in self._shown.keys() | rates.keys():
            self._meter.set("llm_im_rate_limit", rates.get((name, token), 0.0), limit=name, token=token)
        self._shown = rates

    # -- what gateways agree on ------------------------------------------------------------------------------

    async def keep_up(self) -> None:
        """Share with the other gateways until cancelled. Asks nobody while nothing is sent."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._share()
            await asyncio.sleep(SHARE_S)

    async def _share(self) -> None:
        known = {
            each.name: each
            for each in (self._all, *(sender.own for sender in self._senders.values()))
            if each is not None and (each.asked or each.taken)
        }
        if not known:
            return
        used = {name: Used(each.limit, each.taken) for name, each in known.items()}
        for each in known.values():
            each.asked = False
        payload = encode_report(Report(self._gateway, used))
        try:
            answered = await self._peers.call(self._control, "limits", payload, SHARE_TIMEOUT_S)
            parts = decode_parts(answered)
        except (IncidentManagerError, ValueError) as error:
            if not self._is_away:
                log.warning("rate limits are not shared: each gateway lets its part through", why=str(error))
            self._is_away = True
            now = self._clock.monotonic()
            for each in known.values():
                each.share(self._gateways, now)
            self._divide(now)
            return
        self._is_away = False
        now = self._clock.monotonic()
        for name, part in parts.items():
            each = known[name]
            each.taken -= used[name].alerts
            if each.limit == used[name].limit:
                each.share(part.sharers, now)
                # What was taken while it was asked, it does not know yet.
                each.level = min(part.level - each.taken, each.burst)
        self._divide(now)

    def _divide(self, now: float) -> None:
        """Give everybody who sends an equal part of what all may send."""
        if len(self._senders) > SENDERS_MAX:
            self._senders = {
                name: each for name, each in self._senders.items() if each.seen_at > now - TELL_S
            }
        if self._all is None:
            return
        active = [each for each in self._senders.values() if each.seen_at > now - ACTIVE_S]
        rate, burst = self._fair(max(1, len(active)))
        for each in self._senders.values():
            if each.fair is None:
                each.fair = Bucket(rate, burst, now)
            else:
                each.fair.go_by(rate, burst, now)

    def _fair(self, senders: int) -> tuple[float, float]:
        assert self._all is not None
        return self._all.rate / senders, max(1.0, self._all.burst / senders)

    # -- one by one ------------------------------------------------------------------------------------------

    def _meet(self, name: str, now: float) -> _Sender:
        own = self._renewed(None, f"sender/{name}", self._limit_of(name), now)
        fair = None
        if self._all is not None:
            active = sum(each.seen_at > now - ACTIVE_S for each in self._senders.values())
            fair = Bucket(*self._fair(active + 1), now)
        found = self._senders[name] = _Sender(name, own, fair, now)
        return found

    def _renewed(self, known: _Known | None, name: str, limit: Limit | None, now: float) -> _Known | None:
        if limit is None:
            return None
        if known is None:
            return _Known(name, limit, self._gateways, now)
        if known.limit != limit:
            known.limit = limit
            known.share(self._gateways, now)
        return known

    def _count(self, known: _Known, alerts: int, now: float) -> None:
        if now - known.seen_at > ACTIVE_S:
            # Others may have taken from it since: until the control actor says more, it is our part and no more.
            known.share(self._gateways, now)
        known.seen_at = now
        known.asked = True
        known.taken += alerts
        known.fill(now)
        known.level -= alerts

    def _held_up(self, sender: _Sender, now: float) -> tuple[_Known, float] | None:
        """The limit that keeps a sender out, and for how many seconds."""
        own, everybody = sender.own, self._all
        if own is not None and (wait_s := own.wait_s(now)):
            return self._asked(sender, own, now), wait_s
        if everybody is not None and (wait_s := everybody.wait_s(now)):
            assert sender.fair is not None
            if fair_wait_s := sender.fair.wait_s(now):
                return self._asked(sender, everybody, now), min(wait_s, fair_wait_s)
        return None

    def _asked(self, sender: _Sender, known: _Known, now: float) -> _Known:
        """Have our part of it kept up to date: somebody waits."""
        known.asked = True
        sender.seen_at = now
        self._wake.set()
        return known

    def _refusal(self, sender: _Sender, known: _Known, wait_s: float, now: float) -> RateLimited:
        limit = known.limit
        name = ALL if known is self._all else "sender"
        allowed = f"{limit.quota}/{UNITS[limit.window_s]}"
        self._meter.count("llm_im_rate_limited_total", limit=name, token=sender.name)
        sender.refused += 1
        if now - sender.told_at >= TELL_S:
            log.warning(
                "requests refused: too many alerts",
                token=sender.name,
                limit=name,
                allowed=allowed,
                requests=sender.refused,
            )
            sender.told_at, sender.refused = now, 0
        why = (
            f"all senders together may send {allowed} alerts (resource_limits.max_ingestion_rate)"
            if name == ALL
            else f"{sender.name} may send {allowed} alerts"
        )
        return RateLimited(why, wait_s, name, limit.quota, limit.window_s)
