"""What people do with runs: start, pause, resume, cancel, approve and deny. How runs go on: models/shard/runs.py."""

from __future__ import annotations

from models.errors import Busy, Conflict, Forbidden, NotFound, Stale
from models.incidents.incident import Incident
from models.incidents.verbs import ApproveRun, CancelRun, HoldRun, StartRun
from models.playbook.run import CANCELLED, PAUSED, Deed, Run, question_of
from models.playbook.run_events import ApprovalGiven, RunHeld
from models.shard.commands import must_be_open
from models.shard.component import Component
from models.shard.known_playbooks import KnownPlaybooks
from models.shard.messages import Command
from models.shard.runs import Runs


class RunVerbs(Component):
    name = "runs by hand"

    def _start(self, incident: Incident, verb: StartRun, command: Command, now: float) -> Incident:
        must_be_open(incident, "repaired")
        settings, runs = self.shard.settings, self.shard.of(Runs)
        if not settings.playbooks:
            raise Conflict("playbooks are off: set playbooks.enabled = true")
        known = self.shard.of(KnownPlaybooks)
        offered = known.offered.get(verb.playbook)
        if offered is None:
            if not known.is_told:
                raise Busy("this shard has not read which playbooks there are: try again", retry_after_s=1.0)
            raise NotFound(f"there is no playbook {verb.playbook!r}")
        active = runs.store.of(incident.id).active
        is_dry = verb.dry or offered.mode == "shadow"
        if not is_dry and (
            other := next((each for each in active if not each.dry and not each.parent), None)
        ):
            raise Conflict(f"{other.playbook} runs already for it: wait until it is over, or cancel it")
        if len(runs.store.active) >= settings.playbooks_at_once:
            raise Busy(
                f"{settings.playbooks_at_once} runs are under way, the most at once", retry_after_s=10.0
            )
        runs.begin(
            incident, offered, command.actor, command.reason or f"started by {command.actor}", now, dry=is_dry
        )
        return incident

    def _hold(self, incident: Incident, verb: HoldRun, command: Command, now: float) -> Incident:
        run = self._run(incident, verb.run)
        if run.ends_as:
            raise Conflict("the run is ending: it can't be paused or resumed")
        for each in self._with_children(incident, run):
            if (each.status == PAUSED) is not verb.paused:
                held = RunHeld(
                    incident.id, each.id, command.actor, verb.paused, command.reason, each.playbook
                )
                self.shard.do(held, now)
                self.shard.of(Runs).look_at(incident.id)
        return incident

    def _with_children(self, incident: Incident, run: Run) -> list[Run]:
        """A run and its sub-playbooks that are under way, and theirs: whoever stops a repair means all of it."""
        found, active = [run], self.shard.of(Runs).store.of(incident.id).active
        for parent in found:
            found += [each for each in active if each.parent == parent.id and not each.ends_as]
        return found

    def _cancel(self, incident: Incident, verb: CancelRun, command: Command, now: float) -> Incident:
        run = self._run(incident, verb.run)
        if run.parent:
            raise Conflict("it is a step of another run: cancel that one")
        if not run.ends_as:
            detail = f"cancelled by {command.actor}" + (f": {command.reason}" if command.reason else "")
            self.shard.of(Runs).end(incident, run, CANCELLED, detail, now)
        return incident

    def _approve(self, incident: Incident, verb: ApproveRun, command: Command, now: float) -> Incident:
        run = self._run(incident, verb.run)
        waits = [each for each in run.waits_for if not verb.step or each[0] == verb.step]
        if not waits:
            where = f" at step {verb.step!r}" if verb.step else ""
            raise Conflict(f"the run waits for no approval{where}")
        if verb.question:
            waits = [each for each in waits if question_of(run, *each) == verb.question]
            if not waits:
                raise Stale(
                    "the run does not ask this any more, but something else: read it again, then decide again"
                )
        for step, _number, deed in waits:
            _check_may(incident, deed, command.actor)
            if not verb.denied and now >= deed.at:
                raise Conflict(f"the time to approve step {step!r} is over")
        for step, number, deed in waits:
            if verb.denied or command.actor not in deed.approved_by:
                given = ApprovalGiven(
                    incident.id,
                    run.id,
                    step,
                    number,
                    command.actor,
                    verb.denied,
                    command.reason,
                    run.playbook,
                )
                self.shard.do(given, now)
        self.shard.of(Runs).look_at(incident.id)
        return incident

    def _run(self, incident: Incident, identity: bytes) -> Run:
        found = self.shard.of(Runs).store.of(incident.id).run(identity)
        if found is None:
            raise NotFound("there is no such run of this incident")
        if found.is_over:
            raise Conflict(f"the run is over: {found.status}")
        return found

    verbs = {StartRun: _start, HoldRun: _hold, CancelRun: _cancel, ApproveRun: _approve}


def _check_may(incident: Incident, deed: Deed, actor: str) -> None:
    """Raises Forbidden for who was not asked: by their name, or by a role that they have in the incident."""
    roles = {} if incident.handling is None else incident.handling.roles
    if deed.who and actor not in deed.who and not any(roles.get(role) == actor for role in deed.who):
        raise Forbidden(f"only {' or '.join(deed.who)} may approve this")
