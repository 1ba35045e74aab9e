"""What the groups of a regular expression hold: for relabelling (models/alerts/relabel.py). Whether a text matches is found by
patterns.py, in less time; this one says which part of it each group took.

The same syntax, and bounded like it: each state is visited once at each place of the text, as RE2's bit-state search does, so time
is linear in the text whatever the expression. The whole text must match, as in Prometheus; of several ways the one that Perl
would take counts: the first alternative, and as much as possible unless a quantifier is lazy.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.alerts.pattern_syntax import (
    WORD,
    Chars,
    Edge,
    Either,
    Group,
    Ranges,
    Repeat,
    Row,
    Tree,
    holds,
    parse,
)
from models.alerts.patterns import Budget, Pattern
from models.errors import TooLarge

#: States of one expression. What people write has under a hundred.
STATES_MAX = 1000
#: Groups of one expression.
GROUPS_MAX = 20
#: Characters of a text. Names of pods and hosts have under 300; of a longer text nothing is extracted.
TEXT_CHARS_MAX = 1024
#: States visited for one text, about 5 ms. A pod's name under `(.+)-[a-z0-9]+-[a-z0-9]{5}` takes 300.
VISITS_MAX = 20_000
#: Texts whose groups are remembered, of those short enough to come again: the alerts of a pod all have its name.
SEEN_MAX = 4096
SEEN_CHARS_MAX = 128

#: What each group took, by its number and by its name; number 0 is the whole. A group that took no part is "".
Groups = dict[str, str]


@dataclass(slots=True)
class _State:
    """Eats a character out of `chars`, or saves the place in `slot`, or passes an edge; then goes on to the first of `next` that
    leads to the end."""

    next: list[int]
    chars: Ranges = ()
    slot: int = -1
    only_at: str | None = None
    eats: bool = False


class Extractor:
    """One expression. Raises Malformed when `text` is none, TooLarge when it is too large."""

    def __init__(self, text: str, of: str) -> None:
        self.text = text
        self._of = of
        self._budget = Budget(of)
        self._filter = Pattern(text, self._budget)
        tree = parse(text, of, False)
        self._names: dict[str, int] = {"0": 0}
        self._states: list[_State] = []
        self._slots = 2
        self._final = self._add(_State([]))
        self._first = self._build(tree, self._final)
        self._seen: dict[str, Groups | None] = {}

    @property
    def groups(self) -> frozenset[str]:
        """What a template may name: "1", and "pod" of (?P<pod>...)."""
        return frozenset(self._names)

    def groups_of(self, text: str) -> Groups | None:
        """What the groups took of `text`; None when it does not match. Raises TooLarge for a text that is too long, or takes too
        many steps."""
        if text in self._seen:
            return self._seen[text]
        if len(text) > TEXT_CHARS_MAX:
            raise TooLarge(f"{self._of}: over {TEXT_CHARS_MAX} characters")
        self._budget.renew()
        found = self._run(text) if self._filter.matches(text) else None
        if len(text) <= SEEN_CHARS_MAX:
            if len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            self._seen[text] = found
        return found

    def _run(self, text: str) -> Groups | None:
        states, final, length = self._states, self._final, len(text)
        visited: set[int] = set()
        slots = [-1] * self._slots
        # States still to be tried, the best last; a negative one puts a slot back to what it was.
        todo: list[tuple[int, int]] = [(self._first, 0)]
        while todo:
            number, place = todo.pop()
            if number < 0:
                slots[-number - 1] = place
                continue
            if number == final:
                if place == length:
                    return self._taken(text, slots)
                continue
            visit = number * (length + 1) + place
            if visit in visited:
                continue
            if len(visited) >= VISITS_MAX:
                raise TooLarge(f"{self._of}: it takes more than {VISITS_MAX} steps")
            visited.add(visit)
            state = states[number]
            if state.eats:
                if place < length and holds(state.chars, ord(text[place])):
                    todo.append((state.next[0], place + 1))
                continue
            if state.only_at is not None and not _is_at(state.only_at, text, place):
                continue
            if state.slot >= 0:
                todo.append((-state.slot - 1, slots[state.slot]))
                slots[state.slot] = place
            todo.extend((each, place) for each in reversed(state.next))
        return None

    def _taken(self, text: str, slots: list[int]) -> Groups:
        slots[0], slots[1] = 0, len(text)
        return {
            name: text[slots[2 * number] : slots[2 * number + 1]]
            if slots[2 * number] >= 0 and slots[2 * number + 1] >= 0
            else ""
            for name, number in self._names.items()
        }

    def _add(self, state: _State) -> int:
        if len(self._states) >= STATES_MAX:
            raise TooLarge(f"{self._of}: the expression needs more than {STATES_MAX} states")
        self._states.append(state)
        return len(self._states) - 1

    def _build(self, tree: Tree, then: int) -> int:
        """The state from which `tree` leads to state `then`. Built from the back, so every target exists."""
        match tree:
            case Chars(ranges):
                return self._add(_State([then], ranges, eats=True))
            case Edge(where):
                return self._add(_State([then], only_at=where))
            case Row(parts):
                for part in reversed(parts):
                    then = self._build(part, then)
                return then
            case Either(options):
                return self._add(_State([self._build(option, then) for option in options]))
            case Group(part, number, name):
                if number > GROUPS_MAX:
                    raise TooLarge(f"{self._of}: more than {GROUPS_MAX} groups")
                self._names[str(number)] = number
                if name:
                    self._names[name] = number
                self._slots = max(self._slots, 2 * number + 2)
                end = self._add(_State([then], slot=2 * number + 1))
                return self._add(_State([self._build(part, end)], slot=2 * number))
            case Repeat(part, least, most, is_lazy):
                if most is None:
                    loop = self._add(_State([]))
                    self._states[loop].next = _preferred(self._build(part, loop), then, is_lazy)
                    then = loop
                else:
                    over = then
                    for _ in range(most - least):
                        then = self._add(_State(_preferred(self._build(part, then), over, is_lazy)))
                for _ in range(least):
                    # At least one state a round, so that `(){1000}` within others stays countable.
                    then = self._add(_State([self._build(part, then)]))
                return then


def _preferred(again: int, over: int, is_lazy: bool) -> list[int]:
    return [over, again] if is_lazy else [again, over]


def _is_at(where: str, text: str, place: int) -> bool:
    """Whether an edge is there."""
    if where == "start":
        return place == 0
    if where == "end":
        return place == len(text)
    before = place > 0 and holds(WORD, ord(text[place - 1]))
    after = place < len(text) and holds(WORD, ord(text[place]))
    return (before != after) == (where == "word")
