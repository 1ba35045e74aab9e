"""What some alerts have in common, kept up to date as they come, change and go without looking at all of them again. Used by
models/shard/sharing.py.

One of them is the sample, and what it says when it is picked is what each is compared with, once: for each name those with
another value are counted. When the sample ends, another is picked evenly among those that fire and all are compared anew; of
n alerts that end in whatever order, that happens about ln n times.

An alert's annotations may change with every evaluation, the sample's too. It may then say something else than the others were
compared with, which does no harm: while some have that value and some do not, they share none. Only when nobody has it any
more could all have come to say another. Then two that differ are looked for and remembered: while these differ no other needs a
look. All are compared anew only where no such two are found at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.alerts.alert import Content
from models.alerts.grouping import called, what_is_wrong
from models.alerts.series import FIRING, annotations_of
from models.incidents.incident import Incident
from models.shard.state import ShardState

#: Spreads what is picked over an incident's alerts; Knuth's multiplier.
_SPREAD = 2654435761
#: Members tried to find one that fires: where most have ended all are looked at anyway.
_TRIED_MAX = 8


@dataclass(frozen=True, slots=True)
class Common:
    """Labels and annotations that some alerts share; and for a title what is wrong, and what they are called when there are
    several."""

    labels: dict[str, str]
    annotations: dict[str, str]
    wrong: str
    called: str


@dataclass(slots=True)
class Shared:
    """What some alerts share; see the top of this file.

    content   what all were compared with: what `sample` said when it was picked
    odd       how many have other label names
    labels, annotations  by name, how many have another value than `content`
    apart     annotations of which nobody has the value in `content`, and two alerts that have different ones
    doubtful  such annotations without two such alerts: tell_apart() is to be asked
    is_cut    its incident had no room to say all of it
    """

    sample: int
    content: Content
    count: int = 1
    odd: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    annotations: dict[str, int] = field(default_factory=dict)
    apart: dict[str, tuple[int, int]] = field(default_factory=dict)
    doubtful: dict[str, None] = field(default_factory=dict)
    is_cut: bool = False
    # What follows from the counts: nearly every alert that joins leaves it as it is. None: to be made anew.
    _common: Common | None = None

    @property
    def is_told(self) -> bool:
        """Whether they share what they did when common() was last asked, and their incident says all of it."""
        return self._common is not None and not self.doubtful and not self.is_cut

    def add(self, content: Content, by: int = 1) -> None:
        """One more, or with `by` -1 one fewer."""
        self.count += by
        its, ours = content.labels, self.content.labels
        if len(its) != len(ours) or its.keys() != ours.keys():
            self.odd += by
            self._common = None
        self._differ(self.labels, its, ours, by)
        if content.annotations != self.content.annotations:
            self._differ(self.annotations, content.annotations, self.content.annotations, by)

    def leave(self, number: int, content: Content) -> None:
        """One fewer, which is not the sample."""
        self.add(content, -1)
        for name in self.annotations:
            self._doubt(name, number)

    def change(self, number: int, before: bytes, content: Content) -> bool:
        """One of them, which had the body `before`, has other annotations now. False: all must be compared anew."""
        ours, its, differing = self.content.annotations, content.annotations, self.annotations
        if number == self.sample and not its.keys() <= ours.keys():
            return False  # what the sample does not have nobody was asked for
        had: dict[str, str] | None = None
        for name, value in ours.items():
            count = differing.get(name, 0)
            is_same = its.get(name) == value
            if is_same and not count:
                continue  # all have it
            if 0 < count < self.count:
                had = had or annotations_of(before)
                was_same = had.get(name) == value
            else:
                was_same = not count  # all had it, or none
            if is_same != was_same:
                self._count(differing, name, -1 if is_same else 1)
            if not is_same:
                self._doubt(name, number)
        return True

    def tell_apart(self, other: int, of_sample: Mapping[str, str], of_other: Mapping[str, str]) -> bool:
        """Whether two of them, the sample and another, differ wherever that is in doubt. False: all must be compared anew."""
        for name in self.doubtful:
            if self.annotations[name] == self.count:
                if of_sample.get(name) == of_other.get(name):
                    return False
                self.apart[name] = self.sample, other
        self.doubtful.clear()
        return True

    def common(self, service: str) -> Common:
        """What they have in common; they are of one service. Leaves out what is in doubt."""
        if self._common is None:
            content = self.content
            labels = {name: value for name, value in content.labels.items() if not self.labels.get(name)}
            annotations = {
                name: value for name, value in content.annotations.items() if not self.annotations.get(name)
            }
            differing = [name for name, count in self.labels.items() if count]
            varying = differing[0] if len(differing) == 1 and not self.odd else ""
            wrong = what_is_wrong(labels, annotations, service)
            self._common = Common(labels, annotations, wrong, called(varying))
        return self._common

    def _differ(self, differing: dict[str, int], its: dict[str, str], ours: dict[str, str], by: int) -> None:
        for name, value in ours.items():
            if its.get(name) != value:
                self._count(differing, name, by)

    def _count(self, differing: dict[str, int], name: str, by: int) -> None:
        before = differing.get(name, 0)
        differing[name] = after = before + by
        if not before or not after:
            self._common = None

    def _doubt(self, name: str, number: int) -> None:
        """An alert says something else by this name than it did, or is gone."""
        two = self.apart.get(name)
        if two is not None and number in two:
            del self.apart[name]
            two = None
        if two is None and self.annotations.get(name) == self.count:
            self.doubtful[name] = None


def shared_of(state: ShardState, incident: Incident, nth: int) -> Shared:
    """What the firing alerts of an incident share; when none fires, those of its last life. `nth` picks the sample."""
    series, members = state.series, state.members[incident.id]
    if incident.firing:
        numbers: Sequence[int] = [number for number in members if series.status[number] == FIRING]
    else:
        begun = incident.opened_at or incident.created_at
        numbers = [number for number in members if series.seen[number] >= begun] or members
    place = _picked(nth, len(numbers))
    shared = Shared(numbers[place], series.content(numbers[place]))
    for number in numbers:
        if number != shared.sample:
            shared.add(series.content(number))
    return shared


def another(state: ShardState, incident: Incident, sample: int, nth: int) -> int | None:
    """A firing alert of an incident that is not the sample, None where none is found at once. `nth` picks it."""
    status, members = state.series.status, state.members[incident.id]
    place = _picked(nth, len(members))
    for step in range(min(_TRIED_MAX, len(members))):
        number = members[(place + step) % len(members)]
        if number != sample and status[number] == FIRING:
            return number
    return None


def _picked(nth: int, count: int) -> int:
    return nth * _SPREAD % 2**32 * count >> 32
