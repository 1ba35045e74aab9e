"""Checks that a run did, to be asked again after it: which ones, and what they see."""

from __future__ import annotations

import msgspec

from models.incidents.incident import Incident, id_text
from models.playbook.fields import CHECKS
from models.playbook.playbook import Playbook
from models.playbook.run import Run, id_of
from models.playbook.walk import about_run, context_of, shown
from models.playbook.work import FAILED, SUCCEEDED, Context
from models.shard.core import Core
from models.shard.run_context import incident_context
from models.shard.runs import Runs
from models.shard.verification_state import CHECKS_MAX, Check, Watch

#: Bytes (packed) of a check that is kept: one with more, by its variables, is not asked again.
CHECK_MAX = 32 * 1024


def changed_something(shard: Core, incident: Incident, run: Run) -> bool:
    """Whether a run changed something, by itself or by a sub-playbook."""
    runs = shard.of(Runs).store.of(incident.id).runs
    return run.changed or any(each.changed for each in runs if each.parent == run.id)


def checks_of(book: Playbook, run: Run) -> list[Check]:
    """The checks that a run did, the last CHECKS_MAX. One that was done several times the same way counts once."""
    pending = [each.id for each in (*book.steps, *book.final) if each.id not in run.steps]
    found: list[Check] = []
    for step in book.steps:
        at = run.steps.get(step.id)
        if at is None:
            continue
        for number, action in enumerate(step.actions):
            deed = at.deeds.get(number)
            # One that could not be checked at all says nothing about the service.
            is_check = action.type in CHECKS and not action.changes
            if not is_check or deed is None or deed.status not in (SUCCEEDED, FAILED) or deed.is_final:
                continue
            for index, item in enumerate([None] if at.items is None else at.items[: at.round + 1]):
                seen = context_of(book, run, step, {})
                last = {name: params for name, params in seen.run["last"].items() if name in CHECKS}
                new = Check(run.id, step.id, number, action, seen.variables, last, pending, item, index)
                found = [each for each in found if is_other(each, new)]
                if len(_encoder.encode(new)) <= CHECK_MAX:
                    found.append(new)
    return found[-CHECKS_MAX:]


def is_other(one: Check, other: Check) -> bool:
    """Whether two checks ask for different things."""
    return (one.action.type, one.action.params, one.item) != (
        other.action.type,
        other.action.params,
        other.item,
    ) or (one.last != other.last)


def context_again(incident: Incident, check: Check, run: Run | None) -> Context:
    """What a check sees: the incident as it is now, the rest as its run left it, if that is still known."""
    steps = {name: {"status": "pending", "outputs": {}, "detail": ""} for name in check.pending}
    about = {"last": check.last}
    if run is not None:
        steps |= {
            name: {"status": shown(at.status), "outputs": at.outputs, "detail": at.detail}
            for name, at in run.steps.items()
        }
        about = about_run(run, check.last)
    return Context(incident_context(incident), check.variables, steps, about, check.item, check.index)


def key_of(incident: Incident, mine: Watch, check: Check) -> str:
    """The idempotency key of one question, the same whenever it is asked again."""
    place = f"{id_of(check.run)}.{check.step}.{check.number}.{check.index}"
    return f"{id_text(incident.id)}.watch-{mine.number}.{place}-{check.round}"


_encoder = msgspec.msgpack.Encoder()
