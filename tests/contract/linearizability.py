"""Whether a recorded history of one partition's log is linearizable: there is an order of its operations that a log which
does one thing at a time could have had, in which each takes effect between its begin and its end.

The search is Wing and Gong's, with the memory of Lowe ("Testing for linearizability", 2017): of the operations that may
come next, try each that the log as it stands would answer so; never try the same rest on the same log twice.

    begin and end    an operation may come next while none that is left ended before it began
    no end           it was cut off: it may take effect at any time after its begin, or never. It is tried last, so that
                     it takes effect where something else shows that it did
    no effect        one that was refused with nothing kept is left out; should it be visible, no order explains that

The log it goes by is models.ports.EventLog, as its docstrings promise. Two things keep the search short where much was
cut off. An epoch has one taker, so an open that was cut off can only have taken one that nobody is known to have, and of
several the first that began will do as well as any. And nobody asks what lease such an open left, or a renewal that was
cut off: while that is in force, others may be kept out or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

#: What a history of some thousand operations needs is a few steps for each. More is a tangle that nobody would read.
STEPS_MAX = 2_000_000
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Open:
    """Answered `epoch` and `last_seq`, or `owned`: NotOwner. Of one that was cut off nothing is known."""

    owner: str
    now: float
    lease_s: float
    epoch: int = 0
    last_seq: int = 0
    owned: bool = False


@dataclass(frozen=True, slots=True)
class Renew:
    epoch: int
    until: float
    fenced: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    epoch: int


@dataclass(frozen=True, slots=True)
class Append:
    epoch: int
    first_seq: int
    frames: tuple[bytes, ...]
    fenced: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """All that came behind `after`."""

    after: int
    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LastSeq:
    last_seq: int


What = Open | Renew | Release | Append | Read | LastSeq


@dataclass(frozen=True, slots=True)
class Operation:
    """`ended` is NEVER for one whose outcome nobody was told."""

    who: str
    what: What
    began: float
    ended: float

    @property
    def is_known(self) -> bool:
        return self.ended != NEVER


@dataclass(frozen=True, slots=True)
class Log:
    """The log as it stands. `place` is a node in the tree of all logs that were met: which frames are in it. `owner`: None
    when that is not known."""

    epoch: int = 0
    owner: str | None = ""
    lease_until: float = 0.0
    place: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`order`: one that explains the history, None when there is none. `why`: how far the longest explanation came, and
    what could not come next."""

    order: list[Operation] | None
    why: str = ""

    @property
    def is_linearizable(self) -> bool:
        return self.order is not None


def check(history: Sequence[Operation]) -> Verdict:
    """The verdict. Raises RuntimeError when there is none after STEPS_MAX steps."""
    return _Search(history).run()


class _Search:
    def __init__(self, history: Sequence[Operation]) -> None:
        # By their end: so the first that is left is the one that says who may come next.
        self._known = sorted((each for each in history if each.is_known), key=lambda each: each.ended)
        cut_off = [each for each in history if not each.is_known]
        self._opens = sorted(
            (each for each in cut_off if isinstance(each.what, Open)), key=lambda each: each.began
        )
        self._appends = [each for each in cut_off if isinstance(each.what, Append)]
        self._all = [*self._known, *self._opens, *self._appends]
        #: Epochs somebody is known to have taken, and those of whose lease nothing is known.
        self._taken = {
            each.what.epoch for each in self._known if isinstance(each.what, Open) and not each.what.owned
        }
        self._vague = {each.what.epoch for each in cut_off if isinstance(each.what, (Renew, Release))}
        #: The earliest begin of a known operation and of all behind it.
        self._earliest = [each.began for each in self._known]
        for number in reversed(range(len(self._earliest) - 1)):
            self._earliest[number] = min(self._earliest[number], self._earliest[number + 1])
        #: A log: the one before its last append, that append's frames, its last seq.
        self._logs: list[tuple[int, tuple[bytes, ...], int]] = [(0, (), 0)]
        self._grown: dict[tuple[int, tuple[bytes, ...]], int] = {}

    def run(self) -> Verdict:
        done, first, log = (
            0,
            0,
            Log(),
        )  # `done`: a bit for each that has come; `first`: the first known one left
        path: list[tuple[int, int, Log]] = []
        met: set[tuple[int, Log]] = set()
        furthest, why = -1, ""
        tries = [self._may_come_next(done, first)]
        for _step in range(STEPS_MAX):
            if first == len(self._known):
                return Verdict([self._all[number] for number, _first, _log in path])
            found = self._new(tries[-1], done, log, met)
            if found is not None:
                number, after = found
                path.append((number, first, log))
                done, log = done | 1 << number, after
                while first < len(self._known) and done >> first & 1:
                    first += 1
                tries.append(self._may_come_next(done, first))
                continue
            if first > furthest:
                furthest, why = first, self._why(done, first, log)
            if not path:
                return Verdict(None, why)
            tries.pop()
            number, first, log = path.pop()
            done ^= 1 << number
        raise RuntimeError(f"undecided after {STEPS_MAX} steps. {why}")

    def _may_come_next(self, done: int, first: int) -> list[int]:
        """Those that began before any that is left ended; to be taken from the end, by their own end, the cut off last."""
        if first == len(self._known):
            return []
        soonest = self._known[first].ended
        found = [
            number
            for number in range(len(self._known) + len(self._opens), len(self._all))
            if self._all[number].began <= soonest and not done >> number & 1
        ]
        for number in range(len(self._known), len(self._known) + len(self._opens)):
            if not done >> number & 1:
                found += [number] if self._all[number].began <= soonest else []
                break
        number = first
        known = []
        while number < len(self._known) and self._earliest[number] <= soonest:
            if self._known[number].began <= soonest and not done >> number & 1:
                known.append(number)
            number += 1
        return [*reversed(found), *reversed(known)]

    def _new(
        self, tries: list[int], done: int, log: Log, met: set[tuple[int, Log]]
    ) -> tuple[int, Log] | None:
        """The next that the log would answer so, and the log after it, unless that was tried before."""
        while tries:
            number = tries.pop()
            after = self._after(self._all[number], log)
            if after is not None and (found := (done | 1 << number, after)) not in met:
                met.add(found)
                return number, after
        return None

    def _after(self, operation: Operation, log: Log) -> Log | None:
        """The log after it, None where the log would have answered something else. One that was cut off is only asked
        whether it changes the log."""
        what, known = operation.what, operation.is_known
        match what:
            case Open() if not known:
                return None if log.epoch + 1 in self._taken else Log(log.epoch + 1, None, 0.0, log.place)
            case Open():
                is_free = log.owner in ("", what.owner) or log.lease_until <= what.now
                if what.owned:
                    return None if is_free and log.owner is not None else log
                if not is_free and log.owner is not None:
                    return None
                if (what.epoch, what.last_seq) != (log.epoch + 1, self._last_seq(log)):
                    return None
                owner = None if what.epoch in self._vague else what.owner
                return Log(what.epoch, owner, what.now + what.lease_s, log.place)
            case Renew():
                owns = what.epoch == log.epoch
                if what.fenced:
                    return None if owns else log
                return replace(log, lease_until=what.until) if owns else None
            case Release():
                return replace(log, lease_until=0.0) if what.epoch == log.epoch else log
            case Append():
                fits = (what.epoch, what.first_seq) == (log.epoch, self._last_seq(log) + 1)
                if what.fenced:
                    return None if fits else log
                return replace(log, place=self._grow(log.place, what.frames)) if fits else None
            case Read():
                return log if what.frames == self._behind(log.place, what.after) else None
            case LastSeq():
                return log if what.last_seq == self._last_seq(log) else None

    def _last_seq(self, log: Log) -> int:
        return self._logs[log.place][2]

    def _grow(self, place: int, frames: tuple[bytes, ...]) -> int:
        """The log with these frames behind it: always the same number for the same log."""
        if (place, frames) not in self._grown:
            self._grown[place, frames] = len(self._logs)
            self._logs.append((place, frames, self._logs[place][2] + len(frames)))
        return self._grown[place, frames]

    def _behind(self, place: int, after: int) -> tuple[bytes, ...]:
        found: list[tuple[bytes, ...]] = []
        while self._logs[place][2] > after:
            before, frames, last_seq = self._logs[place]
            found.append(frames[max(0, after - (last_seq - len(frames))) :])
            place = before
        return tuple(frame for frames in reversed(found) for frame in frames)

    def _why(self, done: int, first: int, log: Log) -> str:
        told = [
            f"the first {first} of {len(self._known)} can be explained; then the log ends at {self._last_seq(log)},"
            f" epoch {log.epoch} of {log.owner or 'somebody'} until {log.lease_until:.3f}, and none of these can come next:"
        ]
        for number in reversed(self._may_come_next(done, first)):
            each = self._all[number]
            told.append(f"  {each.began:.4f} to {each.ended:.4f} {each.who}: {_short(each.what)}")
        return "\n".join(told)


def _short(what: What) -> str:
    """Frames by their number only."""
    match what:
        case Append():
            fenced = ", fenced" if what.fenced else ""
            return f"append of {len(what.frames)} at {what.first_seq} in epoch {what.epoch}{fenced}"
        case Read():
            return f"read behind {what.after}: {len(what.frames)} frames"
    return str(what)
