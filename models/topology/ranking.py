"""Which service probably causes a situation: from what shows (signs), along the graph of services. Called by situations.py.

Four things speak for a service: that what is affected depends on it, and what depends on it is affected; that a walk along dependencies
ends there (personalised PageRank); that it began before what depends on it; and how much it is affected itself. Each is between 0 and 1, and
what matters of it is said in words. Nothing here is learned: docs/correlation.md says what it is worth on published data.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest

from models.topology.graph import Criticality, Graph

#: What each of the four is worth.
BY_IMPACT, BY_WALK, BY_ONSET, BY_STRENGTH = 0.20, 0.45, 0.10, 0.25
#: A service that shows nothing itself is less probable than one that does: most are watched.
SILENT_SHARE = 0.5
#: Steps along dependencies from an affected service to what may cause it. Also the longest that a symptom is away from its cause.
REACH = 5
#: Steps within which callers show what is wrong with a service: further away something else may keep them going.
NEAR = 2
#: How signs of one service add up: 1 counts them all alike, more counts the strong ones for more.
MANY = 1.5
#: Steps of the walk: the rest of a probability after so many is a thousandth.
WALK_STEPS = 25
#: How often the walk begins anew at what is affected.
RESTART = 0.15
#: Where it may go besides along a dependency: back to a caller, so that it leaves what was met by chance, and nowhere.
BACKWARD = 0.1
STAY = 0.5
#: Services that a walk goes through beside the affected ones: those that most of them need. In a graph that is all in all thousands would
#: be met, most of them by chance.
WALKED_MAX = 2000
#: Services looked at closely: those in which the walk ends most often.
CANDIDATES_MAX = 40
#: Causes that are told.
CAUSES_MAX = 5
#: Less than this is no reason to name anybody.
SCORE_MIN = 0.1
#: What a sign counts where the walk begins, by how critical its service is.
_CRITICAL = {Criticality.CRITICAL: 2.0, Criticality.HIGH: 1.5, Criticality.NORMAL: 1.0, Criticality.LOW: 0.5}


@dataclass(frozen=True, slots=True)
class Sign:
    """Something shows in a service since `at`; `weight` is how severe it is, 0 to 1."""

    service: str
    at: float
    weight: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """A probable cause: `score` is 0 to 1, `reasons` say why. `is_silent`: nothing shows in it."""

    service: str
    score: float
    reasons: tuple[str, ...]
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class _Affected:
    """What shows in one service: since when, and how much of it compared with the one in which most shows, 0 to 1. Several signs count
    for more than one, and many weak ones for less than one that is strong (MANY)."""

    at: float
    strength: float


def rank(
    graph: Graph, signs: Sequence[Sign], *, tolerance_s: float, window_s: float, silent: bool = True
) -> list[Ranked]:
    """The most probable causes first, at most CAUSES_MAX. Onsets that differ by no more than `tolerance_s` count as the same, and
    one `window_s` later speaks for nothing. `silent`: what shows nothing itself may be a cause too."""
    affected = _affected(signs)
    if not affected:
        return []
    needed_by = _needed_by(graph, affected)
    around = _around(affected, needed_by)
    walked = _walk(graph, affected, around)
    candidates = sorted(around, key=lambda each: (-walked[each], each))
    close = [each for each in candidates if each in affected or silent][:CANDIDATES_MAX]
    most = max(walked.values()) or 1.0
    found = [
        ranked
        for each in close
        if (ranked := _judge(graph, each, affected, needed_by, walked[each] / most, tolerance_s, window_s))
        is not None
    ]
    return sorted(found, key=lambda each: (-each.score, each.service))[:CAUSES_MAX]


def _affected(signs: Sequence[Sign]) -> dict[str, _Affected]:
    at: dict[str, float] = {}
    weight: dict[str, float] = {}
    for sign in signs:
        at[sign.service] = min(at.get(sign.service, sign.at), sign.at)
        weight[sign.service] = weight.get(sign.service, 0.0) + sign.weight**MANY
    most = max(weight.values(), default=1.0) or 1.0
    return {each: _Affected(at[each], (weight[each] / most) ** (1 / MANY)) for each in at}


def _needed_by(graph: Graph, affected: Mapping[str, _Affected]) -> dict[str, int]:
    """Which of the affected services need a service within REACH steps: a bit for each, in their order. Sets of names would be
    hundreds of megabytes where hundreds of them need thousands."""
    found: dict[str, int] = {}
    for place, service in enumerate(affected):
        for each in graph.reached(service, REACH):
            found[each] = found.get(each, 0) | 1 << place
    return found


def _around(affected: Mapping[str, _Affected], needed_by: Mapping[str, int]) -> dict[str, None]:
    """The affected services, and what at least two of them need: only that can explain more than one of them. At most WALKED_MAX."""
    shared = [each for each, those in needed_by.items() if those.bit_count() > 1]
    if len(shared) > WALKED_MAX:
        shared = nsmallest(WALKED_MAX, shared, key=lambda each: (-needed_by[each].bit_count(), each))
    return {**dict.fromkeys(sorted(affected)), **dict.fromkeys(sorted(shared))}


def _walk(graph: Graph, affected: Mapping[str, _Affected], around: Collection[str]) -> dict[str, float]:
    """Personalised PageRank: how often a walk is at each service that begins at an affected one and goes to what that needs, most
    often to what is affected itself."""
    begin = {each: affected[each].strength * _CRITICAL[graph.criticality(each)] for each in affected}
    total = sum(begin.values()) or 1.0
    begin = {each: weight / total for each, weight in begin.items()}
    steps: dict[str, list[tuple[str, float]]] = {}
    for each in around:
        weights: dict[str, float] = {}
        for callee in graph.callees(each):
            if callee in around:
                weights[callee] = _pull(affected, callee)
        for caller in graph.callers(each):
            if caller in around:
                weights[caller] = max(weights.get(caller, 0.0), BACKWARD * _pull(affected, caller))
        # It stays where what is needed shows less than the service itself.
        weights[each] = max(STAY * _pull(affected, each), 0.05)
        whole = sum(weights.values())
        steps[each] = [(to, weight / whole) for to, weight in weights.items()]
    here = {each: begin.get(each, 0.0) for each in around}
    for _step in range(WALK_STEPS):
        there = {each: RESTART * begin.get(each, 0.0) for each in around}
        for each, share in here.items():
            if share:
                for to, part in steps[each]:
                    there[to] += (1.0 - RESTART) * share * part
        here = there
    return here


def _pull(affected: Mapping[str, _Affected], service: str) -> float:
    found = affected.get(service)
    return 0.2 if found is None else 0.5 + 0.5 * found.strength


def _judge(
    graph: Graph,
    service: str,
    affected: Mapping[str, _Affected],
    needed_by: Mapping[str, int],
    walked: float,
    tolerance_s: float,
    window_s: float,
) -> Ranked | None:
    """One candidate; None for one that nothing speaks for."""
    own = affected.get(service)
    others = [each for each in affected if each != service]
    those = needed_by.get(service, 0)
    dependents = [each for place, each in enumerate(affected) if those >> place & 1]
    if own is None and len(dependents) < 2:
        return None
    reasons: list[str] = []
    onset, said = _onset(own, [affected[each].at for each in dependents or others], tolerance_s, window_s)
    if said:
        reasons.append(f"{said} {'what depends on it' if dependents else 'the others'}")
    if dependents:
        reasons.append(_depend(len(dependents), len(others)))
    if own is None:
        reasons.append("it has no incident of its own")
    elif others:
        place = [*affected].index(service)
        needs_none = not any(needed_by.get(each, 0) >> place & 1 for each in others)
        if needs_none and any(True for _ in graph.callees(service)):
            reasons.append("nothing that it needs is affected")
    strength = 0.0 if own is None else own.strength
    if others and strength > max(affected[each].strength for each in others):
        reasons.append("it is affected most")
    score = (
        BY_IMPACT * _impact(graph, service, affected, dependents, others)
        + BY_WALK * walked
        + BY_ONSET * onset
        + BY_STRENGTH * strength
    )
    if own is None:
        score *= SILENT_SHARE
    if score < SCORE_MIN:
        return None
    return Ranked(service, round(score, 3), tuple(reasons), own is None)


def _impact(
    graph: Graph,
    service: str,
    affected: Mapping[str, _Affected],
    dependents: Sequence[str],
    others: Sequence[str],
) -> float:
    """How well an outage of a service would explain what is affected: how much of it needs the service, and how many of those that need
    it are affected. What everything needs explains everything, and so is no news unless all of it is affected."""
    if not dependents:
        return 0.0
    explained = sum(affected[each].strength for each in dependents) / sum(
        affected[each].strength for each in others
    )
    near = graph.reached(service, NEAR, callers=True)
    hit = sum(each in affected for each in near) / len(near) if near else 0.0
    return 2 * explained * hit / (explained + hit) if explained + hit else 0.0


def _onset(
    own: _Affected | None, others: Sequence[float], tolerance_s: float, window_s: float
) -> tuple[float, str]:
    """How much of what it would have caused began after it, and the words for that. Those that began before it speak against it the
    less, the less they were before."""
    if own is None or not others:
        return (0.0, "") if own is None else (1.0, "")
    ahead_s = min(others) - own.at
    said = ""
    if ahead_s > tolerance_s:
        said = f"it began {in_words(ahead_s)} before"
    elif -ahead_s > tolerance_s:
        said = f"it began {in_words(-ahead_s)} after the first of"
    late = [max(0.0, own.at - at - tolerance_s) for at in others]
    return sum(max(0.0, 1.0 - each / window_s) for each in late) / len(late), said


def _depend(some: int, of: int) -> str:
    if of == 1:
        return "the other affected service depends on it"
    if some == of:
        return f"all {of} other affected services depend on it"
    return f"{some} of {of} other affected services {'depends' if some == 1 else 'depend'} on it"


def in_words(seconds: float) -> str:
    """A span as people say it: 40 s, 3 min, 2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
