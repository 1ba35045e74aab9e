"""What the calls of a responder's process go through, each to its target: a receiver, or the host of an HTTP action. Used by
actors/responder.py and services/playbooks.

Kept nowhere: a process that starts anew begins with closed breakers, and learns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec
import structlog

from models.durations import per_second
from models.metrics import Meter
from models.ports import ActionResult, Clock
from models.response.breaker import State
from models.response.target import Limits, NotNow, Target, TargetView, Why

log = structlog.get_logger()

#: Targets that are known at once. Hosts of playbooks come out of templates: the one that was not called for longest is
#: forgotten.
TARGETS_MAX = 1000
#: Targets with metrics of their own, in the order in which they came; the others are counted together.
METERED_MAX = 200


class Targets:
    """By name: "receiver:NAME", or "host:NAME:PORT" of an action's URL."""

    def __init__(
        self,
        clock: Clock,
        *,
        limits: Limits | None = None,
        own: Mapping[str, Limits] | None = None,
        receivers: Iterable[str] = (),
    ) -> None:
        """`limits` for all but those that have their `own`. `receivers` are shown before they are called."""
        self._clock = clock
        self._limits = limits or Limits()
        self._own = dict(own or {})
        self._by_name: dict[str, Target] = {}
        self._metered: set[str] = set()
        self._refused: Counter[tuple[str, Why]] = Counter()
        self._broken: Counter[str] = Counter()
        for name in receivers:
            self._target(receiver_target(name))

    @staticmethod
    def of(given: Mapping[str, Any], clock: Clock, receivers: Iterable[str]) -> Targets:
        """By what the settings give a responder."""
        return Targets(clock, limits=limits_of(given), own=_own_of(given), receivers=receivers)

    def take(self, given: Mapping[str, Any]) -> None:
        """Use the changed settings from the next call on."""
        self._limits, self._own = limits_of(given), _own_of(given)
        for name, target in self._by_name.items():
            target.take(self._own.get(name, self._limits), self._clock.monotonic())

    def may_i(self, name: str, *, is_urgent: bool = False) -> int | NotNow:
        """As Target.may_i(); who got a period gives it to over()."""
        answer = self._target(name).may_i(self._clock.monotonic(), is_urgent=is_urgent)
        if isinstance(answer, NotNow):
            self._refused[self._metered_name(name), answer.why] += 1
        return answer

    def over(self, name: str, period: int, result: ActionResult | None) -> None:
        """What became of a call; None: it was abandoned. A final refusal speaks of one request, and one of a place of
        whom it was for: the target works, and must stay open for everybody else."""
        target, now = self._target(name), self._clock.monotonic()
        before = target.breaker.state
        if result is None:
            target.given_back(period)
        elif result.ok or result.final or result.of_place:
            target.succeeded(period, now)
        else:
            target.failed(period, now, result.detail, at_least_s=result.retry_after_s)
        self._tell(name, before, target)

    async def call(
        self, name: str, do: Callable[[], Awaitable[ActionResult]], *, is_urgent: bool = False
    ) -> ActionResult:
        """What `do` gives, if the target may be called; else at once a result that says why not and for how long."""
        period = self.may_i(name, is_urgent=is_urgent)
        if isinstance(period, NotNow):
            return result_of(period)
        result = None
        try:
            result = await do()
        finally:
            self.over(name, period, result)
        return result

    def why_broken(self, name: str) -> str:
        """Why a target is not called now, "" while it is. Asks nothing of it."""
        target = self._by_name.get(name)
        return "" if target is None else target.why_broken()

    def views(self) -> list[TargetView]:
        """All that are known, by name."""
        return [self._view(name, target) for name, target in sorted(self._by_name.items())]

    def measure(self, meter: Meter) -> None:
        """Bring the metrics of all targets up to date."""
        for (name, why), count in self._refused.items():
            meter.total("llm_im_target_calls_refused_total", count, target=name, why=why)
        for name, count in self._broken.items():
            meter.total("llm_im_target_opened_total", count, target=name)
        for name in self._metered & self._by_name.keys():
            target = self._by_name[name]
            is_broken = target.breaker.state is not State.CLOSED
            meter.set("llm_im_target_broken", float(is_broken), target=name)
            meter.set("llm_im_target_in_flight", target.in_flight, target=name)

    def _target(self, name: str) -> Target:
        target = self._by_name.get(name)
        if target is None:
            if len(self._by_name) >= TARGETS_MAX:
                self._forget_one()
            now = self._clock.monotonic()
            target = self._by_name[name] = Target(self._own.get(name, self._limits), now)
            if len(self._metered) < METERED_MAX:
                self._metered.add(name)
        return target

    def _forget_one(self) -> None:
        idle = {name: each.used_at for name, each in self._by_name.items() if not each.in_flight}
        if idle:
            del self._by_name[min(idle, key=idle.__getitem__)]

    def _metered_name(self, name: str) -> str:
        return name if name in self._metered else "others"

    def _tell(self, name: str, before: State, target: Target) -> None:
        now = target.breaker.state
        if now is before or (before is State.HALF_OPEN and now is State.OPEN):
            return
        if now is State.OPEN:
            self._broken[self._metered_name(name)] += 1
            log.warning(
                "target fails, not calling it for a while",
                target=name,
                why=target.breaker.why,
                last_error=target.last_error,
            )
        elif now is State.CLOSED:
            log.info("target works again", target=name)

    def _view(self, name: str, target: Target) -> TargetView:
        breaker, ahead = target.breaker, self._clock.now() - self._clock.monotonic()
        is_open = breaker.state is State.OPEN
        return TargetView(
            target=name,
            state=breaker.state,
            since=breaker.since + ahead,
            broken_since=breaker.broken_since and breaker.broken_since + ahead,
            retry_at=breaker.until + ahead if is_open else 0.0,
            failures=breaker.failures,
            last_error=target.last_error,
            last_error_at=target.last_error_at and target.last_error_at + ahead,
            in_flight=target.in_flight,
            max_in_flight=target.limits.max_in_flight,
            rate_per_s=target.limits.rate_per_s,
        )


def receiver_target(name: str) -> str:
    """The target that a receiver is."""
    return f"receiver:{name}"


def limits_of(given: Mapping[str, Any]) -> Limits:
    """The bounds of every target that has none of its own."""
    return msgspec.convert({"max_in_flight": given["concurrency"], **given["target_limits"]}, Limits)


def _own_of(given: Mapping[str, Any]) -> dict[str, Limits]:
    """The bounds of the receivers that have some of their own."""
    common, found = limits_of(given), {}
    for name, receiver in given["changed_receivers"].items():
        places, rate = receiver.get("max_in_flight"), receiver.get("rate")
        if places or rate:
            found[receiver_target(name)] = msgspec.structs.replace(
                common,
                max_in_flight=places or common.max_in_flight,
                rate_per_s=per_second(rate) if rate else common.rate_per_s,
            )
    return found


def result_of(not_now: NotNow) -> ActionResult:
    """A call that was not made: it reached nobody, and makes sense after a while."""
    return ActionResult(ok=False, detail=not_now.detail, retry_after_s=not_now.wait_s, reached=False)


_encoder = msgspec.msgpack.Encoder()


def encode_views(views: Iterable[TargetView]) -> bytes:
    return _encoder.encode(list(views))


def decode_views(data: bytes) -> list[TargetView]:
    """Raises msgspec.ValidationError or DecodeError when it is none."""
    return msgspec.msgpack.decode(data, type=list[TargetView])
