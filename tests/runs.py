"""Stories about runs of playbooks, on top of tests/scenario.py. Used by tests/pure and tests/api.

story = RunStory([book("restart", [step("fix", act("service_restart"))])])
story.open(at(0))
story.perform(at(1))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from models.incidents.incident import Incident, Severity
from models.partition.event import Event
from models.playbook.playbook import Approval, PlannedAction, Playbook, Retry, Step, Trigger
from models.playbook.playbook import decode as decode_book
from models.playbook.playbook import encode as encode_book
from models.playbook.run import Run
from models.playbook.work import SUCCEEDED, Check, Choose, Do, Done, Enter, Work, decode_work, encode_done
from models.shard.effects import Effect
from models.shard.known_playbooks import KnownPlaybooks, Offered, PlaybooksChanged
from models.shard.messages import Message
from models.shard.runs import Perform, Performed, Runs
from models.shard.settings import ShardSettings
from models.shard.shard import Step as Stepped
from tests.scenario import SETTINGS as PLAIN
from tests.scenario import ZERO, Story, alert

SETTINGS = msgspec.structs.replace(PLAIN, playbooks=True, playbooks_again_after_s=60.0, notify=False)
ANY = Trigger(severities=tuple(Severity))

Answer = Callable[[Work, bool], Done | None]


def act(kind: str = "service_restart", **fields: Any) -> PlannedAction:
    """An action; it changes something unless it says otherwise."""
    fields.setdefault("changes", kind in ("service_restart", "scale", "http_call"))
    return PlannedAction(kind, **fields)


def step(name: str, *actions: PlannedAction, kind: str = "remediation", **fields: Any) -> Step:
    return Step(name, kind, actions, **fields)


def book(
    name: str,
    steps: Sequence[Step],
    version: str = "1",
    trigger: Trigger = ANY,
    *,
    in_order: bool = True,
    **fields: Any,
) -> Playbook:
    """A playbook whose steps come one after the other, as its reading would have it."""
    if in_order:
        steps = [
            each if each.needs or not place else msgspec.structs.replace(each, needs=(steps[place - 1].id,))
            for place, each in enumerate(steps)
        ]
    return Playbook(name, version, f"digest of {name} {version}", trigger, tuple(steps), **fields)


def offered(playbook: Playbook, mode: str = "active", since: float = ZERO - 1) -> Offered:
    return Offered(playbook.name, playbook.version, playbook.digest, encode_book(playbook), mode, since)


def yes(_work: Work, _again: bool) -> Done:
    """Whatever it is, it is done."""
    return Done(SUCCEEDED)


class RunStory(Story):
    """One shard that knows some playbooks."""

    def __init__(
        self, books: Sequence[Playbook] = (), settings: ShardSettings = SETTINGS, mode: str = "active"
    ) -> None:
        super().__init__(settings)
        self.books = [offered(each, mode) for each in books]
        #: What was asked for, in order, whatever was answered: keys.
        self.keys: list[str] = []
        #: What is said at once of a run that has not begun; None: nothing yet.
        self.check: Done | None = Done(SUCCEEDED)
        self.offer(ZERO - 1)

    def tell(self, when: float, message: Message) -> Stepped:
        step = super().tell(when, message)
        if self.check is not None:
            self.answer_checks(when, self.check)
        return step

    def answer_checks(self, when: float, done: Done) -> None:
        """Say this of the runs that were to begin."""
        for entry in [each for each in self.asked if isinstance(each[1], Perform)]:
            effect = entry[1]
            assert isinstance(effect, Perform)
            if entry in self.asked and isinstance(decode_work(effect.work), Check):
                self.asked.remove(entry)
                self.answer(when, effect, done)
                self.keys.remove(effect.key)

    def offer(self, when: float, *books: Offered) -> None:
        self.books = list(books) or self.books
        self.tell(when, self.heard(len(self.events) + 1))

    def heard(self, version: int) -> PlaybooksChanged:
        """What the shard is told: all schedules are its own."""
        own = [each.name for each in self.books if decode_book(each.body).trigger.schedule]
        return PlaybooksChanged(version, self.books, own)

    def restart(self, when: float) -> None:
        """Another process, which hears of the playbooks a moment later."""
        self.replayed.of(KnownPlaybooks).is_told = False
        super().restart(when)
        self.asked = [each for each in self.asked if each[0] >= when]
        self.tell(when, self.heard(1))

    def open(self, when: float, severity: Severity = Severity.P1, service: str = "llm-api") -> Incident:
        """An incident opens and is judged."""
        self.push(when, alert(service, "Down"))
        self.classify(when, severity)
        return next(each for each in reversed(self.shard.state.incidents.values()) if each.service == service)

    @property
    def work(self) -> list[tuple[Perform, Work]]:
        """What was asked for and not answered."""
        return [(each, decode_work(each.work)) for _when, each in self.asked if isinstance(each, Perform)]

    @property
    def asks(self) -> list[str]:
        """The same in words."""
        return [said(work) for _effect, work in self.work]

    def perform(self, when: float, answer: Answer = yes, most: int = 1000) -> None:
        """Answer what is asked for, and what is asked for then, until nothing is. None: no answer."""
        for _ in range(most):
            waiting = [each for each in self.asked if isinstance(each[1], Perform)]
            if not waiting:
                return
            entry = waiting[0]
            self.asked.remove(entry)
            effect = entry[1]
            assert isinstance(effect, Perform)
            work = decode_work(effect.work)
            done = answer(work, effect.again)
            if done is not None:
                self.answer(when, effect, done)

    def answer(self, when: float, effect: Effect, done: Done) -> None:
        assert isinstance(effect, Perform)
        self.keys.append(effect.key)
        self.tell(
            when,
            Performed(
                effect.incident_id,
                effect.run,
                effect.step,
                effect.number,
                effect.undo,
                effect.key,
                encode_done(done),
            ),
        )

    @property
    def runs(self) -> list[Run]:
        """All runs of the only incident."""
        return self.shard.of(Runs).store.of(self.incident.id).runs

    @property
    def run(self) -> Run:
        (found,) = self.runs
        return found

    def lines(self, *kinds: str) -> list[str]:
        """What the timeline of the only incident says of these."""
        return [line.text for line in self.incident.timeline if not kinds or line.kind in kinds]

    def happened(self, *kinds: type[Event]) -> list[Event]:
        return [event for _when, event in self.events if isinstance(event, kinds)]


def said(work: Work) -> str:
    match work:
        case Enter():
            return f"enter {work.step}"
        case Choose():
            return "choose"
        case Check():
            return "check"
        case Do():
            again = " again" if work.again else ""
            return f"{'undo' if work.undo else 'do'} {work.action.type}{again}"


__all__ = ["Approval", "Retry", "RunStory", "act", "book", "offered", "said", "step", "yes"]
