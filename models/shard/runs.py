"""Runs of playbooks, as state of the incident's shard. What is next is walk.next_move(); here it becomes events, the questions that
the responder is asked (effect Perform) and what follows for the incident.

An action is in the log as asked for before it leaves. So after a crash it is known what may have been done: it is asked for again by
the same key, and says that it is (`again`).

Runs of one incident go one after the other, those that do nothing (shadows) and sub-playbooks beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

import msgspec
import zstandard

from models.incidents.incident import Incident, Severity, id_text, incident_id
from models.partition.event import Event
from models.playbook import run as folds
from models.playbook.check import says_how_to_go_on
from models.playbook.playbook import Playbook
from models.playbook.run import ASKED, CANCELLED, Run, key_of
from models.playbook.run_events import (
    CHILD,
    ActionAnswered,
    ActionAsked,
    ApprovalAsked,
    ApprovalGiven,
    CaptureKept,
    Chosen,
    PlaybooksChosen,
    PlaybookTaken,
    RoundBegan,
    RunEnded,
    RunEnding,
    RunHeld,
    RunNotStarted,
    RunStarted,
    StepBegan,
    StepEnded,
    TaskPlanned,
    UndoBegan,
)
from models.playbook.walk import (
    FINALLY_S,
    ChildWanted,
    answered,
    asked_key,
    next_at,
    next_move,
    questions,
    work_of,
)
from models.playbook.work import (
    CAPTURE_MAX,
    FAILED,
    OUTPUTS_MAX,
    STATUSES,
    SUCCEEDED,
    Capture,
    Choose,
    Context,
    Done,
    Work,
    decode_done,
    encode_work,
    is_plain,
)
from models.shard import clock, run_effects, run_lines
from models.shard.changes import Merging, Moved, Paid, RunOver, ToldByRun
from models.shard.component import Component, RecordOf, on
from models.shard.core import Core
from models.shard.effects import Effect
from models.shard.events import ClockSetBack, NotificationOwed
from models.shard.known_playbooks import KnownPlaybooks, Offered
from models.shard.messages import Done as Taken
from models.shard.messages import Message, Reply, Tick
from models.shard.run_checks import CHECK, RunChecks
from models.shard.run_context import incident_context
from models.shard.run_state import BOOKS, CAPTURES, RUNS, RUNS_KEPT, IncidentRuns, RunStore, Task

#: Runs of one playbook for one incident, whatever time lies between them: one that reopens again and again is for people.
RUNS_OF_ONE_MAX = 10
#: Sub-playbooks within sub-playbooks.
DEPTH_MAX = 5
#: Runs that one run begins, its sub-playbooks' included: playbooks that call each other must not grow without end.
WITHIN_MAX = 100
#: Moves of one run made in one step: what is more goes on with the next message.
MOVES_MAX = 500
HOUR_S = 3600.0
#: The place of a question about which playbooks are to run.
CHOICE = ""


class Perform(Effect, frozen=True):
    """Asks the responder for `work` (models/playbook/work.py, encoded) of a run. Answered by message Performed; `key` is its
    idempotency key. `again`: an earlier request with it may have been carried out. `once`: it must not be done twice, even if
    nobody knows whether it was done. The smaller `urgency` (the incident's severity), the sooner its turn."""

    incident_id: bytes
    run: bytes
    step: str
    number: int
    undo: bool
    key: str
    work: bytes
    again: bool = False
    once: bool = False
    urgency: int = 2
    trace: str | None = None


class Performed(Message, frozen=True):
    """What came of effect Perform: `done` is an encoded playbook.work.Done."""

    incident_id: bytes
    run: bytes
    step: str
    number: int
    undo: bool
    key: str
    done: bytes


class Runs(Component):
    name = "runs"

    def __init__(self, shard: Core) -> None:
        super().__init__(shard)
        self.store = RunStore(shard.state)
        #: Incidents whose runs may go on in this step.
        self._look: dict[bytes, None] = {}
        #: Incidents with something to ask for that was not requested yet, or has to be again.
        self._unasked: dict[bytes, None] = {}
        #: Keys that this process requested, and those that may have been requested before.
        self._asked: set[str] = set()
        self._doubted: set[str] = set()
        #: Incidents whose playbooks wait until other runs of this shard are over.
        self._crowded: dict[bytes, None] = {}
        self._checks = RunChecks()

    def look_at(self, identity: bytes) -> None:
        """Something may go on for an incident."""
        self._look[identity] = None

    def active_run(self, incident: Incident) -> bytes:
        """The run that is under way for an incident, b"" when none is. One that does something before one that does not."""
        active = self.store.of(incident.id).active if incident.id in self.store.by_incident else []
        first = min(active, key=lambda run: (run.dry, bool(run.parent), run.number), default=None)
        return b"" if first is None else first.id

    # -- time ----------------------------------------------------------------------------------------------

    def next_at(self, incident: Incident) -> float:
        mine = self.store.by_incident.get(incident.id)
        if mine is None:
            return 0.0
        times = [at for run in mine.active if (at := next_at(self.store.book(run.book), run))]
        return min(times, default=0.0)

    def due(self, incident: Incident, now: float) -> None:
        self._look[incident.id] = None

    def tick(self, tick: Tick, now: float) -> None:
        if self._crowded:
            self._look.update(self._crowded)

    def settle(self, now: float) -> None:
        while self._look:
            identity = next(iter(self._look))
            del self._look[identity]
            incident = self.state.incidents.get(identity)
            if incident is not None and identity in self.store.by_incident:
                self._go_on(incident, now)

    def set_back(self, incident: Incident, event: ClockSetBack) -> None:
        if incident.id not in self.store.by_incident:
            return
        mine = self.store.changing(incident.id)
        mine.started = {name: [clock.then(at, event) for at in times] for name, times in mine.started.items()}
        mine.refused = {name: (clock.then(at, event), worst) for name, (at, worst) in mine.refused.items()}
        mine.told = {name: (clock.then(at, event), ref) for name, (at, ref) in mine.told.items()}
        for run in mine.runs:
            run_effects.set_back(run, event)

    # -- debts ---------------------------------------------------------------------------------------------

    def started(self, now: float, is_set_back: bool) -> None:
        self._asked.clear()
        self._crowded.clear()
        self._checks.clear()
        self._doubted = set()
        for identity, mine in self.store.by_incident.items():
            if mine.active or mine.asking or mine.chosen:
                self._look[identity] = None
            for run in mine.active:
                book = self.store.book(run.book)
                for step, number, undo, _deed in questions(book, run):
                    self._doubted.add(asked_key(run, step.id, number, undo))
                    self._unasked[identity] = None
            if mine.asking:
                self._unasked[identity] = None

    def owed(self, now: float) -> Iterable[Effect]:
        return self._asks() if self._unasked else ()

    def _asks(self) -> Iterator[Effect]:
        unasked, self._unasked = self._unasked, {}
        for identity in unasked:
            incident = self.state.incidents.get(identity)
            if incident is not None:
                yield from self._questions(incident)

    def _questions(self, incident: Incident) -> Iterator[Effect]:
        mine = self.store.of(incident.id)
        about = None
        for run in mine.active:
            book = self.store.book(run.book)
            for step, number, undo, _deed in questions(book, run):
                key = asked_key(run, step.id, number, undo)
                if key in self._asked:
                    continue
                about = about or incident_context(incident)
                again = key in self._doubted
                work = work_of(book, run, step, number, undo, about, again)
                once = bool(getattr(getattr(work, "action", None), "once", False)) and not run.dry
                yield self._ask(incident, run.id, step.id, number, undo, key, work, again, once)
        key = self._checks.key(incident.id)
        if key and key not in self._asked:
            about = about or incident_context(incident)
            check = self._checks.question(incident.id, about)
            yield self._ask(incident, b"", CHECK, 0, False, key, check, False, False)
        key = choice_key(incident.id, mine)
        if mine.asking and key not in self._asked:
            asks = Choose(
                key,
                tuple(each.expression for each in mine.asking),
                Context(about or incident_context(incident)),
            )
            yield self._ask(incident, b"", CHOICE, 0, False, key, asks, False, False)

    def _ask(
        self,
        incident: Incident,
        run: bytes,
        step: str,
        number: int,
        undo: bool,
        key: str,
        work: Work,
        again: bool,
        once: bool,
    ) -> Perform:
        self._asked.add(key)
        encoded = encode_work(work)
        return Perform(
            incident.id, run, step, number, undo, key, encoded, again, once, int(incident.severity)
        )

    def ask_again(self, effect: Perform) -> None:
        # Whoever was asked may have done it, and only the answer was lost.
        self._asked.discard(effect.key)
        if effect.incident_id in self.state.incidents:
            self._doubted.add(effect.key)
            self._unasked[effect.incident_id] = None

    def owes(self, incident: Incident) -> bool:
        mine = self.store.by_incident.get(incident.id)
        return mine is not None and bool(mine.active or mine.chosen or mine.asking)

    # -- answers -------------------------------------------------------------------------------------------

    def _performed(self, said: Performed, now: float) -> Reply:
        incident = self.state.incidents.get(said.incident_id)
        if incident is None:
            return Taken()
        if not said.run and said.step == CHECK:
            if self._checks.answered(incident.id, said.key, read_done(said.done)):
                self._asked.discard(said.key)
                self._look[incident.id] = None
            return Taken()
        if not said.run:
            self._chosen_by_expression(incident, said, now)
            return Taken()
        run = self.store.find(said.run)
        if run is None or asked_key(run, said.step, said.number, said.undo) != said.key:
            return Taken()  # of an earlier try, or given up
        book, done = self.store.book(run.book), read_done(said.done)
        self._asked.discard(said.key)
        if done.status != FAILED or done.reached:
            # A try that reached nobody says nothing of an earlier one by that key.
            self._doubted.discard(said.key)
        step = next(each for each in (*book.steps, *book.final) if each.id == said.step)
        for capture in done.captures:
            self._capture(run, said, capture, now)
        move = answered(book, run, step, said.number, said.undo, done, now)
        self.shard.do(move, now)
        if isinstance(move, ActionAnswered) and move.status == SUCCEEDED and not run.dry:
            for effect in done.effects:
                run_effects.apply(self.shard, incident, run, effect, now)
            if move.told and not incident.is_open:
                # It ended while this was under way.
                self._tell_end(incident, now)
        self._look[incident.id] = None
        return Taken()

    def _chosen_by_expression(self, incident: Incident, said: Performed, now: float) -> None:
        mine = self.store.of(incident.id)
        if not mine.asking or choice_key(incident.id, mine) != said.key:
            return
        self._asked.discard(said.key)
        done = read_done(said.done)
        holds = {each for each in done.items if isinstance(each, int)} if done.status == SUCCEEDED else set()
        found = [each for place, each in enumerate(mine.asking) if place in holds]
        failed = [] if done.status == SUCCEEDED else [each.playbook for each in mine.asking]
        self.shard.do(PlaybooksChosen(incident.id, incident.severity, found, answered=True), now)
        for playbook in failed:
            self.shard.do(RunNotStarted(incident.id, playbook, f"its expression: {done.detail}"), now)
        self._look[incident.id] = None

    def _capture(self, run: Run, said: Performed, capture: Capture, now: float) -> None:
        """Keep what an action recorded, if there is room."""
        raw = capture.text.encode("utf-8", "surrogatepass")
        packed = zstandard.compress(raw[:CAPTURE_MAX])
        if not self.store.has_room(run.incident_id, len(packed)):
            return
        count = len(self.store.of(run.incident_id).captures)
        identity = blake2b(f"{said.key}/{count}".encode(), digest_size=16).digest()
        cut = capture.cut or len(raw) > CAPTURE_MAX
        size = min(len(raw), CAPTURE_MAX)
        name, media_type = capture.name[:200], capture.media_type[:100]
        self.shard.do(
            CaptureKept(run.incident_id, run.id, identity, said.step, name, media_type, packed, size, cut),
            now,
        )

    # -- going on ------------------------------------------------------------------------------------------

    def _go_on(self, incident: Incident, now: float) -> None:
        """Make the moves that can be made now, of all runs of an incident, and begin those whose turn has come."""
        moves = 0
        moved = True
        while moved:
            moved = False
            for run in self.store.of(incident.id).active:
                book = self.store.book(run.book)
                while (move := next_move(book, run, now, incident.is_open)) is not None:
                    self._make(incident, run, book, move, now)
                    moved = True
                    moves += 1
                    if moves >= MOVES_MAX:
                        self._crowded[incident.id] = None
                        return
            moved = self._start_chosen(incident, now) or moved

    def _make(
        self, incident: Incident, run: Run, book: Playbook, move: Event | ChildWanted, now: float
    ) -> None:
        if isinstance(move, ChildWanted):
            self._start_child(incident, run, move, now)
            return
        if isinstance(move, ActionAsked):
            if move.changes and not move.undo and incident.is_open:
                run_effects.remediating(self.shard, incident, run, now)
            self._unasked[incident.id] = None
        self.shard.do(move, now)
        if isinstance(move, StepEnded | RunEnding):
            self._end_children(incident, run, move, now)
        if isinstance(move, StepEnded) and move.then:
            run_effects.follow(self.shard, incident, run, move, now)
        elif isinstance(move, RunEnded):
            self._forget_asked(run)
            self.shard.report(RunOver(incident, run, book), now)
            self.shard.report(Paid(incident), now)

    def _end_children(self, incident: Incident, run: Run, move: StepEnded | RunEnding, now: float) -> None:
        """Sub-playbooks that nobody waits for any more, because of a timeout or an abort, do nothing more."""
        step = move.step if isinstance(move, StepEnded) else ""
        for each in self.store.of(incident.id).active:
            if each.parent == run.id and not each.ends_as and step in ("", each.parent_step):
                self.end(incident, each, CANCELLED, f"{run.playbook} does not wait for it any more", now)

    def _forget_asked(self, run: Run) -> None:
        """What a run asked for and gave up waiting for."""
        for step in run.steps.values():
            for undo, deeds in ((False, step.deeds), (True, step.undos)):
                for number, deed in deeds.items():
                    if deed.status == ASKED:
                        key = key_of(run, step, number, deed.attempt, undo)
                        self._asked.discard(key)
                        self._doubted.discard(key)

    def _start_child(self, incident: Incident, run: Run, wanted: ChildWanted, now: float) -> None:
        offered = self.shard.of(KnownPlaybooks).offered.get(wanted.playbook)
        why_not = ""
        depth, above = 0, run
        while above.parent:
            depth += 1
            above = self.store.find(above.parent) or Run(b"", b"", 0, "", "", "", "", "", 0.0, 0.0)
        if offered is None:
            why_not = f"there is no playbook {wanted.playbook!r}"
        elif offered.mode == "paused":
            why_not = f"{wanted.playbook} is paused"
        elif depth >= DEPTH_MAX:
            why_not = f"sub-playbooks go {DEPTH_MAX} deep at most"
        elif self.store.of(incident.id).number - above.number >= WITHIN_MAX:
            why_not = f"a run begins {WITHIN_MAX} runs of sub-playbooks at most"
        if offered is None or why_not:
            self.shard.do(
                ActionAnswered(
                    incident.id, run.id, wanted.step, CHILD, 0, FAILED, why_not, playbook=run.playbook
                ),
                now,
            )
            return
        self.begin(
            incident,
            offered,
            run_lines.by(run.playbook),
            f"step {wanted.step}",
            now,
            dry=run.dry or offered.mode == "shadow",
            parent=run,
            step=wanted.step,
        )

    def _start_chosen(self, incident: Incident, now: float) -> bool:
        """Begin the next of those that were chosen, if it is its turn. Whether anything changed."""
        mine = self.store.of(incident.id)
        self._crowded.pop(incident.id, None)
        if not mine.chosen:
            return False
        if not incident.is_open or incident.merged_into or not self.shard.settings.playbooks:
            self._asked.discard(self._checks.drop(incident.id))
            self.shard.do(RunNotStarted(incident.id, "", self._why_none(incident)), now)
            self.shard.report(Paid(incident), now)
            return True
        known = self.shard.of(KnownPlaybooks)
        busy = any(not each.dry and not each.parent for each in mine.active)
        for each in mine.chosen:
            if busy and not each.dry:
                continue
            if len(self.store.active) >= self.shard.settings.playbooks_at_once:
                self._crowded[incident.id] = None
                return False
            if not known.is_told:
                self._crowded[incident.id] = None
                return False
            offered = known.offered.get(each.playbook)
            why_not, refused = self._why_not(incident, mine, each, offered, now), ""
            if offered is not None and not why_not and not each.dry:
                book = known.book(offered)
                found = self._checks.why_refused(incident.id, mine.number + 1, book, "system")
                if found is None:
                    self._unasked[incident.id] = None
                    busy = True
                    continue
                refused = found
                why_not = "" if says_how_to_go_on(book) else refused
            if not each.dry:
                self._asked.discard(self._checks.drop(incident.id))
            if why_not or offered is None:
                self.shard.do(RunNotStarted(incident.id, each.playbook, why_not), now)
                self.shard.report(Paid(incident), now)
            else:
                self.begin(incident, offered, "system", each.why, now, dry=each.dry, refused=refused)
            return True
        return False

    def _why_none(self, incident: Incident) -> str:
        if incident.merged_into:
            return f"merged into {id_text(incident.merged_into)}: what was chosen does not run"
        return "playbooks are off" if incident.is_open else "the incident is over before they began"

    def _why_not(
        self, incident: Incident, mine: IncidentRuns, chosen: Chosen, offered: Offered | None, now: float
    ) -> str:
        """Why a playbook that was chosen does not run. One that reopens again and again must not restart a service for ever."""
        settings = self.shard.settings
        if offered is None or offered.mode == "paused":
            return "it was paused or removed since it was chosen"
        if offered.digest != chosen.digest:
            return f"version {chosen.version} is not the current one any more"
        if chosen.dry:
            return ""
        before = mine.started.get(chosen.playbook, [])
        if before and now - before[-1] < settings.playbooks_again_after_s:
            minutes = (now - before[-1]) / 60
            return f"it ran for this incident {minutes:.0f} min ago (playbooks.again_after)"
        if len(before) >= RUNS_OF_ONE_MAX:
            return f"it ran for this incident {RUNS_OF_ONE_MAX} times already: this is for people"
        if self._runs_of_service(incident, now) >= settings.playbooks_per_service:
            return (
                f"{settings.playbooks_per_service} runs for {incident.service} began within an hour "
                "(playbooks.per_service): this is for people"
            )
        return ""

    def _runs_of_service(self, incident: Incident, now: float) -> int:
        """Runs that began within an hour for incidents of the same service."""
        count = 0
        for identity in self.state.by_label.get(("service", incident.service), ()):
            if self.state.incidents[identity].tenant != incident.tenant:
                continue
            for run in self.store.of(identity).runs:
                count += not run.dry and not run.parent and now - run.started_at < HOUR_S
        return count

    def begin(
        self,
        incident: Incident,
        offered: Offered,
        by: str,
        why: str,
        now: float,
        *,
        dry: bool = False,
        parent: Run | None = None,
        step: str = "",
        refused: str = "",
    ) -> bytes:
        """A run begins. Its id. `refused`: why nothing that it would change is done."""
        number = self.store.of(incident.id).number + 1
        seed = f"run {number} of {incident.id.hex()}"
        identity = incident_id(incident.slot, now, self.shard.epoch, self.shard.seq, seed)
        book = f"{incident.tenant}/{offered.digest}"
        if book not in self.store.bodies:
            self.shard.do(PlaybookTaken(incident.id, book, offered.body), now)
        until = now + self.shard.settings.playbooks_longest_s
        if parent is not None:
            until = min(until, parent.until)
        started = RunStarted(
            incident.id,
            identity,
            number,
            offered.name,
            offered.version,
            offered.digest,
            by,
            why,
            until,
            dry,
            b"" if parent is None else parent.id,
            step,
            book,
            refused,
        )
        self.shard.do(started, now)
        self._look[incident.id] = None
        return identity

    def end(self, incident: Incident, run: Run, status: str, detail: str, now: float) -> None:
        """End a run early, and its sub-playbooks: what was asked for is waited for, and what is to be done at the end is done."""
        for each in self.store.of(incident.id).active:
            if each.parent == run.id and not each.ends_as:
                self.end(incident, each, status, detail, now)
        self.shard.do(RunEnding(incident.id, run.id, status, detail, now + FINALLY_S), now)
        self._look[incident.id] = None

    def _merging(self, change: Merging, now: float) -> None:
        """A child of another incident has no runs of its own."""
        for run in self.store.of(change.incident.id).active:
            if not run.ends_as:
                self.end(change.incident, run, CANCELLED, "merged into another incident", now)
        self._look[change.incident.id] = None

    def _moved(self, change: Moved, now: float) -> None:
        if change.ends:
            self._tell_end(change.incident, now)

    def _paid(self, change: Paid, now: float) -> None:
        # What was under way to one of them when it ended may not have arrived.
        if not change.incident.is_open:
            self._tell_end(change.incident, now)

    def _tell_end(self, incident: Incident, now: float) -> None:
        """Whoever was told by an action is owed the end, whether or not a route chooses them."""
        for receiver, (at, ref) in [*self.store.of(incident.id).told.items()]:
            self.shard.report(ToldByRun(incident, receiver, at, ref), now)

    # -- live and in replay --------------------------------------------------------------------------------

    def _fold_chosen(self, event: PlaybooksChosen, now: float) -> None:
        mine = self.store.changing(event.incident_id)
        if event.answered:
            held = {each.playbook for each in event.chosen}
            self._refuse(mine, [each for each in mine.asking if each.playbook not in held], event.incident_id)
            mine.asking = []
            mine.chosen = [*mine.chosen, *event.chosen]
            return
        mine.chosen = [*mine.chosen, *(each for each in event.chosen if not each.expression)]
        asking = [each for each in event.chosen if each.expression]
        if asking:
            mine.asking = [*mine.asking, *asking]
            mine.asked += 1
            self._unasked[event.incident_id] = None

    def _fold_taken(self, event: PlaybookTaken, now: float) -> None:
        self.store.take(event.book, event.body)

    def _fold_started(self, event: RunStarted, now: float) -> None:
        self.state.changing(event.incident_id)
        mine = self.store.changing(event.incident_id)
        run = folds.begun(event, now)
        mine.number = event.number
        over = [each for each in mine.runs if each.is_over]
        if len(over) >= RUNS_KEPT:
            mine.runs.remove(over[0])
            self.store.incident_of.pop(over[0].id, None)
        mine.runs.append(run)
        mine.chosen = [each for each in mine.chosen if event.parent or each.playbook != event.playbook]
        if not event.parent:
            times = [*mine.started.get(event.playbook, []), now]
            mine.started = {**mine.started, event.playbook: times[-RUNS_OF_ONE_MAX:]}
        elif (parent := mine.run(event.parent)) is not None:
            folds.child_began(parent, event, now)
        self.store.began(run)

    def _fold_not_started(self, event: RunNotStarted, now: float) -> None:
        self.state.changing(event.incident_id)
        mine = self.store.changing(event.incident_id)
        refused = [each for each in mine.chosen if event.playbook in ("", each.playbook)]
        self._refuse(mine, refused, event.incident_id)
        mine.chosen = [each for each in mine.chosen if event.playbook and each.playbook != event.playbook]

    def _refuse(self, mine: IncidentRuns, refused: Iterable[Chosen], identity: bytes) -> None:
        incident = self.state.incidents[identity]
        said = {each.playbook: (incident.opened_at, judged(incident)) for each in refused}
        now_too = {name: each for name, each in mine.refused.items() if each[0] == incident.opened_at}
        mine.refused = {**now_too, **said}

    def _fold_move(self, event: Event, now: float) -> None:
        run = self._run_of(event)
        folds.fold(run, event, now)

    def _fold_answered(self, event: ActionAnswered, now: float) -> None:
        self._fold_told(event, now)
        if event.told:
            mine = self.store.changing(event.incident_id)
            mine.told = {**mine.told, event.told: (now, event.ref)}

    def _fold_owed(self, event: NotificationOwed, now: float) -> None:
        if event.heard_at:
            # From here on it is a notification like others.
            self.store.changing(event.incident_id).told.pop(event.receiver, None)

    def _fold_told(self, event: Event, now: float) -> None:
        """The same for what is a line of the timeline."""
        self.state.changing(event.incident_id)  # type: ignore[attr-defined]
        self._fold_move(event, now)

    def _fold_ended(self, event: RunEnded, now: float) -> None:
        self.state.changing(event.incident_id)
        run = self._run_of(event)
        folds.fold(run, event, now)
        if run.parent and (parent := self.store.find(run.parent)) is not None:
            folds.child_ended(parent, run)
        self.store.ended(run)

    def _fold_capture(self, event: CaptureKept, now: float) -> None:
        self.store.keep(event, now)

    def _fold_task(self, event: TaskPlanned, now: float) -> None:
        self.state.changing(event.incident_id)
        mine = self.store.changing(event.incident_id)
        mine.tasks = [*mine.tasks, Task(event.text, event.due_at, run_lines.by(event.playbook))][-20:]
        self.store.plans(event.incident_id)

    def _run_of(self, event: Event) -> Run:
        mine = self.store.changing(event.incident_id)  # type: ignore[attr-defined]
        found = mine.run(event.run)  # type: ignore[attr-defined]
        assert found is not None
        return found

    def left(self, incident: Incident) -> None:
        self.store.left(incident.id)
        self._checks.drop(incident.id)
        for place in (self._look, self._unasked, self._crowded):
            place.pop(incident.id, None)

    def carries(self, incident: Incident) -> bytes | None:
        return self.store.carried(incident.id)

    def brings(self, incident: Incident, record: bytes) -> None:
        self.store.bring(incident.id, record)

    def _capture_runs(self, identity: int | bytes) -> bytes | None:
        return self.store.capture_runs(identity)

    def _load_runs(self, identity: int | bytes, record: bytes, version: int) -> None:
        self.store.load_runs(identity, record, version)

    def _capture_book(self, identity: int | bytes) -> bytes | None:
        return self.store.capture_book(identity)

    def _load_book(self, identity: int | bytes, record: bytes, version: int) -> None:
        self.store.load_book(identity, record, version)

    def _capture_captured(self, identity: int | bytes) -> bytes | None:
        return self.store.capture_captured(identity)

    def _load_captured(self, identity: int | bytes, record: bytes, version: int) -> None:
        self.store.load_captured(identity, record, version)

    messages = {Performed: _performed}
    reactions = {Merging: _merging, Moved: _moved, Paid: _paid}
    effects = (Perform,)
    follows = {NotificationOwed: _fold_owed}
    records = (
        RecordOf(RUNS, _capture_runs, _load_runs),
        RecordOf(BOOKS, _capture_book, _load_book),
        RecordOf(CAPTURES, _capture_captured, _load_captured),
    )
    events = (
        on(PlaybooksChosen, _fold_chosen),
        on(PlaybookTaken, _fold_taken),
        on(RunStarted, _fold_started, run_lines.STARTED),
        on(RunNotStarted, _fold_not_started, run_lines.NOT_STARTED),
        on(StepBegan, _fold_move),
        on(RoundBegan, _fold_move),
        on(ActionAsked, _fold_move),
        on(ActionAnswered, _fold_answered, run_lines.ANSWERED),
        on(ApprovalAsked, _fold_told, run_lines.ASKED),
        on(ApprovalGiven, _fold_told, run_lines.GIVEN),
        on(UndoBegan, _fold_move),
        on(StepEnded, _fold_told, run_lines.STEP_ENDED),
        on(RunHeld, _fold_told, run_lines.HELD),
        on(RunEnding, _fold_move),
        on(RunEnded, _fold_ended, run_lines.COMPLETED),
        on(CaptureKept, _fold_capture),
        on(TaskPlanned, _fold_task, run_lines.TASK),
    )


def judged(incident: Incident) -> int:
    """How severe an incident is; one without a verdict is less severe than any that has one, since all may change with that."""
    return incident.severity + (0 if incident.is_classified else len(Severity))


def choice_key(identity: bytes, mine: IncidentRuns) -> str:
    """The key of the question which expressions hold."""
    return f"{id_text(identity)}.choose-{mine.asked}"


def read_done(encoded: bytes) -> Done:
    """An answer within its bounds, whatever the worker says."""
    try:
        done = decode_done(encoded)
        size = len(msgspec.json.encode(done.outputs))
        items = len(msgspec.json.encode(done.items))
    except (msgspec.MsgspecError, RecursionError, TypeError, ValueError) as error:
        return Done(FAILED, f"its answer can't be read: {type(error).__name__}", final=True)
    if done.status not in STATUSES:
        return Done(FAILED, f"it answered {done.status[:40]!r}, which is no status", final=True)
    if not is_plain(done.items):
        return Done(FAILED, "its items are no plain data", final=True)
    if not is_plain(done.outputs):
        detail = f"{done.detail} (its outputs are left out: they are no plain data)"
        done, size = msgspec.structs.replace(done, outputs={}, detail=detail.strip()), 0
    if items > OUTPUTS_MAX:
        return Done(FAILED, f"its answer has {items:,} bytes of items (limit: {OUTPUTS_MAX:,})", final=True)
    if size > OUTPUTS_MAX:
        detail = f"{done.detail} (its outputs are left out: {size:,} bytes, limit: {OUTPUTS_MAX:,})"
        return msgspec.structs.replace(done, outputs={}, detail=detail.strip())
    return done
