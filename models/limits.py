"""How fast alerts may come: token buckets that several gateways share. Used by services/ingest/limits.py, and by the control actor,
which keeps the true levels (docs/decisions/0024-rate-limits.md). Times are seconds of any clock that only grows.
"""

from __future__ import annotations

import msgspec

#: A gateway that has not asked for so long is not counted among those that share a limit. It asks ten times as often.
ACTIVE_S = 1.0
#: Buckets that the control actor keeps. There is one a sender; past it those that are full, and say nothing, go.
BUCKETS_MAX = 10_000
#: The bucket of all senders together.
ALL = "all"


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """`quota` alerts in every `window_s` seconds, as it was written ("60/m"), of which `burst` may come at once."""

    quota: int
    window_s: int
    burst: float

    @property
    def rate(self) -> float:
        """Alerts a second."""
        return self.quota / self.window_s


class Bucket:
    """What a limit has left. Whoever finds something in it may take more than that: the bucket is then in debt, and the next one
    waits until that is paid. So a request of any size passes, and small ones never keep a large one out; what passes in `t`
    seconds is at most burst + rate * t, and the last request."""

    __slots__ = ("_at", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        self._at = now

    def fill(self, now: float) -> None:
        """Add what time has brought."""
        if now > self._at:
            self.level = min(self.burst, self.level + (now - self._at) * self.rate)
            self._at = now

    def wait_s(self, now: float) -> float:
        """0.0 when a request may pass, else in how many seconds one may, if nobody else takes from it."""
        if self.level >= 1.0:
            return 0.0
        self.fill(now)
        # A part of a limit of one alert an hour is less than one.
        missing = min(1.0, self.burst) - self.level
        # What is a rounding error short would never arrive.
        return missing / self.rate if missing > 1e-9 else 0.0

    def take(self, alerts: float) -> None:
        self.level -= alerts

    def go_by(self, rate: float, burst: float, now: float) -> None:
        """Another rate from now on."""
        self.fill(now)
        self.rate, self.burst = rate, burst
        self.level = min(self.level, burst)


class Used(msgspec.Struct, frozen=True, array_like=True):
    """What a gateway took from one bucket since it last said so, or tried to."""

    limit: Limit
    alerts: float


class Report(msgspec.Struct, frozen=True, array_like=True):
    """A gateway's, by the names of its buckets."""

    gateway: str
    used: dict[str, Used]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What a gateway may take on: its part of the level, and among how many the rate is divided."""

    level: float
    sharers: int


class _Shared:
    """A true bucket, and when each gateway last asked."""

    __slots__ = ("asked", "bucket", "limit")

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit = limit
        self.bucket = Bucket(limit.rate, limit.burst, now)
        self.asked: dict[str, float] = {}


class Pool:
    """The buckets of all gateways. It knows no settings: each report names the limit it goes by. Lost with its process, it begins
    with full buckets."""

    def __init__(self) -> None:
        self._shared: dict[str, _Shared] = {}

    def report(self, report: Report, now: float) -> dict[str, Part]:
        """Take off what a gateway used, and say what it may use next."""
        parts = {}
        for name, used in report.used.items():
            shared = self._shared.get(name)
            if shared is None:
                self._make_room(now)
                shared = self._shared[name] = _Shared(used.limit, now)
            elif shared.limit != used.limit:
                shared.limit = used.limit
                shared.bucket.go_by(used.limit.rate, used.limit.burst, now)
            bucket = shared.bucket
            bucket.fill(now)
            bucket.take(used.alerts)
            shared.asked[report.gateway] = now
            shared.asked = {each: at for each, at in shared.asked.items() if at > now - ACTIVE_S}
            sharers = len(shared.asked)
            parts[name] = Part(bucket.level / sharers, sharers)
        return parts

    def _make_room(self, now: float) -> None:
        if len(self._shared) < BUCKETS_MAX:
            return
        for shared in self._shared.values():
            shared.bucket.fill(now)
        self._shared = {
            name: shared
            for name, shared in self._shared.items()
            if shared.bucket.level < shared.bucket.burst or name == ALL
        }


_encoder = msgspec.msgpack.Encoder()
_reports = msgspec.msgpack.Decoder(Report)
_parts = msgspec.msgpack.Decoder(dict[str, Part])


def encode_report(report: Report) -> bytes:
    return _encoder.encode(report)


def decode_report(payload: bytes) -> Report:
    return _reports.decode(payload)


def encode_parts(parts: dict[str, Part]) -> bytes:
    return _encoder.encode(parts)


def decode_parts(payload: bytes) -> dict[str, Part]:
    return _parts.decode(payload)
