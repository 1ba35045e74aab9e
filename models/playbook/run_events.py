"""What happens to the runs of playbooks, in the past tense: events of the shard of the incident that a run is about. What they make
of a run is models/playbook/run.py; which comes next, models/playbook/walk.py.

`step`, `round` and `number` name a place in a run: the step, which item of its `for_each` (0 without one), and which of its
actions; before the first action come ENTRY (is it to be done, and over what), GATE (may it) and CHILD (the run of its sub-playbook).
"""

from __future__ import annotations

from typing import Any

import msgspec

from models.incidents.incident import Severity
from models.partition.event import Event

#: Places of a step beside its actions.
ENTRY, GATE, CHILD = -1, -2, -3


class Chosen(msgspec.Struct, frozen=True, array_like=True):
    """A playbook that is to run for an incident, and why."""

    playbook: str
    version: str
    digest: str
    why: str
    dry: bool = False
    #: It is to run if this holds as well, which nobody knows yet.
    expression: str = ""


class PlaybooksChosen(Event, frozen=True):
    """These are to run for an incident, in this order, beside those that were chosen before. Of those with an expression it is
    asked whether it holds; with `answered` none of them waits any more."""

    incident_id: bytes
    severity: Severity
    chosen: list[Chosen]
    answered: bool = False


class PlaybookTaken(Event, frozen=True):
    """The shard has its own copy of a playbook (`body`, encoded) from now on, as long as a run goes by it. `book` is what runs call
    it: each tenant has a copy of its own, since no order between the events of two tenants matters."""

    incident_id: bytes
    book: str
    body: bytes


class RunStarted(Event, frozen=True, tag="PlaybookStarted"):
    """A run began, as `run` from now on; it ends by `until`. `by`: a person, or system. `parent` is the run whose step it is."""

    incident_id: bytes
    run: bytes
    number: int
    playbook: str
    version: str
    digest: str
    by: str
    why: str
    until: float
    dry: bool = False
    parent: bytes = b""
    parent_step: str = ""
    #: The copy of the playbook that it goes by (PlaybookTaken).
    book: str = ""
    #: Why what it would change is not done; its other actions are.
    refused: str = ""


class RunNotStarted(Event, frozen=True, tag="PlaybookNotStarted"):
    """A playbook that was chosen does not run after all, for this reason. Of all that waited when `playbook` is ""."""

    incident_id: bytes
    playbook: str
    why: str


class StepBegan(Event, frozen=True):
    """A step began, for the `turn`th time that any of the run did. A jump to it skips some and lets others be done anew."""

    incident_id: bytes
    run: bytes
    step: str
    turn: int
    skipped: list[str] = []
    anew: list[str] = []


class RoundBegan(Event, frozen=True):
    """A step goes on with the next item of its `for_each`."""

    incident_id: bytes
    run: bytes
    step: str
    round: int


class ActionAsked(Event, frozen=True):
    """The responder is asked to do something, for the `attempt`th time. It may be done from now on, whatever is heard of it."""

    incident_id: bytes
    run: bytes
    step: str
    number: int
    attempt: int
    undo: bool = False
    changes: bool = False


class ActionAnswered(Event, frozen=True, tag="ActionExecuted"):
    """What became of it. `at`: when it is tried again, or a wait ends; 0: it is over. `reached`: it may have had its effect.
    `items`: of ENTRY, what to repeat the step for. `action` is its type, `decided` what policy said. `told`: the receiver at which it
    opened something for the incident, which it calls `ref`."""

    incident_id: bytes
    run: bytes
    step: str
    number: int
    attempt: int
    status: str
    detail: str
    action: str = ""
    undo: bool = False
    at: float = 0.0
    reached: bool = False
    outputs: dict[str, Any] = {}
    items: list[Any] | None = None
    decided: str = ""
    playbook: str = ""
    dry: bool = False
    final: bool = False
    told: str = ""
    ref: str = ""


class ApprovalAsked(Event, frozen=True):
    """`needed` of `who` must agree until `until` (empty: of those who may respond). `digest`: to an action with these parameters
    only; "" for a step."""

    incident_id: bytes
    run: bytes
    step: str
    number: int
    who: list[str]
    needed: int
    until: float
    message: str
    playbook: str = ""
    digest: str = ""


class ApprovalGiven(Event, frozen=True):
    """Somebody agreed, or with `denied` did not."""

    incident_id: bytes
    run: bytes
    step: str
    number: int
    actor: str
    denied: bool = False
    reason: str = ""
    playbook: str = ""


class UndoBegan(Event, frozen=True):
    """A step failed, and what it did is rolled back, the last first. The rest is what StepEnded will say."""

    incident_id: bytes
    run: bytes
    step: str
    detail: str
    jump: str = ""
    then: str = ""


class StepEnded(Event, frozen=True):
    """A step is over: succeeded, failed or skipped. `blocked`: skipped because what it needs failed. `jump`: the step to go on with.
    `then`: what becomes of the incident or the run, where no step has that name: escalate, resolve, abort."""

    incident_id: bytes
    run: bytes
    step: str
    status: str
    detail: str = ""
    blocked: bool = False
    jump: str = ""
    then: str = ""
    playbook: str = ""


class RunHeld(Event, frozen=True, tag="PlaybookPaused"):
    """Somebody paused a run, or let it go on."""

    incident_id: bytes
    run: bytes
    actor: str
    paused: bool
    reason: str = ""
    playbook: str = ""


class RunEnding(Event, frozen=True):
    """Nothing more of it is begun but what is done at the end (`finally`), until `until`; then it is over, as `status`."""

    incident_id: bytes
    run: bytes
    status: str
    detail: str
    until: float
    actor: str = ""


class RunEnded(Event, frozen=True, tag="PlaybookCompleted"):
    """A run is over: succeeded, failed, aborted or cancelled."""

    incident_id: bytes
    run: bytes
    status: str
    detail: str
    playbook: str
    version: str
    dry: bool = False


class CaptureKept(Event, frozen=True):
    """What an action recorded for people, packed (Zstandard). `size` is its bytes unpacked."""

    incident_id: bytes
    run: bytes
    capture: bytes
    step: str
    name: str
    media_type: str
    packed: bytes
    size: int
    cut: bool = False


class TaskPlanned(Event, frozen=True):
    """Something is to be done by people after the incident."""

    incident_id: bytes
    run: bytes
    text: str
    due_at: float
    playbook: str = ""
