"""Playbooks and their runs as /v1 shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from models.control.playbooks import KeptVersion, Mode, Shelved
from models.incidents.query import CaptureView, RunView
from models.playbook.run import Deed, Run, question_of
from models.playbook.run_events import CHILD, ENTRY, GATE
from models.playbook.schedule import next_due
from services.api.playbooks import book_of
from services.api.v1.fields import Time, says
from services.times import timestamp

_PLACES = {ENTRY: "condition", GATE: "approval", CHILD: "playbook"}


@dataclass(frozen=True, slots=True)
class VersionBody:
    """A version of a playbook, which never changes."""

    version: Annotated[str, says("As it calls itself.")]
    digest: Annotated[str, says("Of what was written.")]
    applied_at: Annotated[Time, says("When it was applied first.")]
    applied_by: Annotated[str, says("Who applied it.")]


@dataclass(frozen=True, slots=True)
class PlaybookBody:
    """A playbook, and what its current version says."""

    name: Annotated[str, says("Its name.")]
    mode: Annotated[Mode, says("`active`, `paused`, or `shadow`: it decides and does nothing.")]
    version: Annotated[str, says("The current version.")]
    digest: Annotated[str, says("Of what was written.")]
    since: Annotated[Time, says("It runs for incidents that opened after this.")]
    changed_by: Annotated[str, says("Who applied, paused or resumed it last.")]
    description: Annotated[str, says("Of its metadata.")]
    priority: Annotated[int, says("Of several that match, the greater goes first.")]
    steps: Annotated[list[str], says("The ids of its steps.")]
    versions: Annotated[list[VersionBody], says("Those that are kept, the one applied last at the end.")]
    source: Annotated[str | None, says("What was written (YAML); null in lists.")]
    schedule: Annotated[str, says("The cron expression by which it runs (UTC); empty if it has none.")]
    next_due: Annotated[
        Time | None, says("When it is due next by its schedule; null if it has none, or is paused.")
    ]


@dataclass(frozen=True, slots=True)
class PlaybooksBody:
    """All playbooks."""

    items: Annotated[list[PlaybookBody], says("By name.")]


@dataclass(frozen=True, slots=True)
class AppliedBody:
    """A playbook that was applied."""

    playbook: Annotated[PlaybookBody, says("As it is now.")]
    changed: Annotated[bool, says("False if it was so already.")]
    warnings: Annotated[list[str], says("What is odd about it, and no mistake.")]
    runs: Annotated[bool, says("False while `playbooks.enabled` is false: nothing runs.")]


@dataclass(frozen=True, slots=True)
class DeedBody:
    """One thing that a step does."""

    number: Annotated[int, says("Which action of the step, from 0; below 0: what comes before them.")]
    action: Annotated[str, says("Its type, or `condition`, `approval`, `playbook`.")]
    status: Annotated[
        str,
        says("`asked`, `again` (is tried again), `wait`, `approval`, `succeeded`, `failed` or `skipped`."),
    ]
    attempt: Annotated[int, says("Which try, from 0.")]
    detail: Annotated[str, says("What came of it, in words.")]
    at: Annotated[Time | None, says("When it is tried again, or its wait or approval ends.")]
    approved_by: Annotated[list[str], says("Who agreed to it.")]
    policy: Annotated[str, says("What policy said; empty: it was not asked.")]
    undo: Annotated[bool, says("It is a rollback.")]


@dataclass(frozen=True, slots=True)
class StepBody:
    """A step that was begun or skipped."""

    id: Annotated[str, says("Its id.")]
    status: Annotated[str, says("`entering`, `running`, `undoing`, `succeeded`, `failed` or `skipped`.")]
    began_at: Annotated[Time | None, says("When it began.")]
    ended_at: Annotated[Time | None, says("When it ended.")]
    detail: Annotated[str, says("Why it ended so.")]
    actions: Annotated[list[DeedBody], says("What it did, of the present item of its for_each.")]
    outputs: Annotated[dict[str, Any], says("What later steps can use.")]


@dataclass(frozen=True, slots=True)
class ApprovalBody:
    """An approval that a run waits for."""

    step: Annotated[str, says("The step.")]
    who: Annotated[
        list[str], says("Who may agree: names, or roles in the incident; empty: anybody who may respond.")
    ]
    needed: Annotated[int, says("How many must agree.")]
    approved_by: Annotated[list[str], says("Who did.")]
    until: Annotated[Time, says("After this it is too late.")]
    message: Annotated[str, says("What is asked.")]
    question: Annotated[
        str, says("A digest of all this: whoever answers gives it back, and answers nothing else by mistake.")
    ]


@dataclass(frozen=True, slots=True)
class CaptureBody:
    """Something that an action recorded."""

    id: Annotated[str, says("Its id.")]
    step: Annotated[str, says("The step that recorded it.")]
    name: Annotated[str, says("What it is.")]
    media_type: Annotated[str, says("How it is to be read.")]
    at: Annotated[Time, says("When.")]
    size: Annotated[int, says("Bytes.")]
    cut: Annotated[bool, says("There was more, which was not kept.")]
    text: Annotated[str | None, says("It; null in lists.")]


@dataclass(frozen=True, slots=True)
class RunBody:
    """A run of a playbook for an incident."""

    id: Annotated[UUID, says("Its id.")]
    incident: Annotated[UUID, says("The incident.")]
    service: Annotated[str, says("The incident's service.")]
    title: Annotated[str, says("The incident's title.")]
    number: Annotated[int, says("Which run of the incident, from 1.")]
    playbook: Annotated[str, says("The playbook.")]
    version: Annotated[str, says("The version that it goes by, whatever is applied meanwhile.")]
    status: Annotated[
        str,
        says(
            "`running`, `waiting` (for an approval), `paused`, `ending`, `succeeded`, `failed`, `aborted` or `cancelled`."
        ),
    ]
    detail: Annotated[str, says("Why it ended so.")]
    by: Annotated[str, says("Who started it: a person, another playbook, or `system`.")]
    why: Annotated[str, says("Why it was started.")]
    shadow: Annotated[bool, says("It decides and does nothing.")]
    started_at: Annotated[Time, says("When it began.")]
    ended_at: Annotated[Time | None, says("When it ended; null: it is under way.")]
    until: Annotated[Time, says("By then it is over, whatever it is at.")]
    parent: Annotated[UUID | None, says("The run whose step it is.")]
    waits_for: Annotated[list[ApprovalBody], says("The approvals that it waits for.")]
    steps: Annotated[list[StepBody], says("In the order in which they began.")]
    captures: Annotated[list[CaptureBody], says("What its actions recorded.")]


@dataclass(frozen=True, slots=True)
class RunsBody:
    """A page of runs."""

    items: Annotated[
        list[RunBody], says("The newest first; of one incident in the order in which they began.")
    ]
    next: Annotated[str | None, says("The cursor of the next page; null on the last one.")]


def playbook_body(shelved: Shelved, now: float, *, whole: bool = False) -> PlaybookBody:
    kept = shelved.version(shelved.current)
    assert kept is not None
    book = book_of(kept)
    schedule = book.trigger.schedule
    due = next_due(schedule, now) if schedule and shelved.mode is not Mode.PAUSED else 0.0
    return PlaybookBody(
        shelved.name,
        shelved.mode,
        kept.version,
        kept.digest,
        timestamp(shelved.since),
        shelved.changed_by,
        str(book.metadata.get("description", "")),
        book.priority,
        [step.id for step in (*book.steps, *book.final)],
        [version_body(each) for each in shelved.versions],
        kept.source if whole else None,
        schedule,
        timestamp(due) if due else None,
    )


def version_body(kept: KeptVersion) -> VersionBody:
    return VersionBody(kept.version, kept.digest, timestamp(kept.applied_at), kept.applied_by)


def run_body(view: RunView) -> RunBody:
    run = view.run
    return RunBody(
        UUID(bytes=run.id),
        UUID(bytes=run.incident_id),
        view.service,
        view.title,
        run.number,
        run.playbook,
        run.version,
        status_of(run),
        run.detail,
        run.by,
        run.why,
        run.dry,
        timestamp(run.started_at),
        _time(run.ended_at),
        timestamp(run.until),
        UUID(bytes=run.parent) if run.parent else None,
        []
        if run.is_over
        else [
            ApprovalBody(
                step,
                deed.who,
                deed.needed,
                deed.approved_by,
                timestamp(deed.at),
                deed.message,
                question_of(run, step, number, deed),
            )
            for step, number, deed in run.waits_for
        ],
        [
            StepBody(
                name,
                step.status,
                _time(step.began_at),
                _time(step.ended_at),
                step.detail,
                [
                    *(_deed(number, deed, False) for number, deed in sorted(step.deeds.items())),
                    *(
                        _deed(step.did[place][1], deed, True)
                        for place, deed in sorted(step.undos.items(), reverse=True)
                    ),
                ],
                step.outputs,
            )
            for name, step in sorted(
                run.steps.items(), key=lambda each: (each[1].turn or 10_000, each[1].ended_at)
            )
        ],
        [capture_body(each) for each in view.captures],
    )


def status_of(run: Run) -> str:
    """What it is at, in a word."""
    if run.is_over or run.status != "running":
        return run.status
    if run.ends_as:
        return "ending"
    return "waiting" if run.waits_for else "running"


def capture_body(capture: CaptureView, text: str | None = None) -> CaptureBody:
    return CaptureBody(
        capture.id.hex(),
        capture.step,
        capture.name,
        capture.media_type,
        timestamp(capture.at),
        capture.size,
        capture.cut,
        text,
    )


def _deed(number: int, deed: Deed, undo: bool) -> DeedBody:
    return DeedBody(
        number,
        deed.action or _PLACES.get(number, ""),
        deed.status,
        deed.attempt,
        deed.detail,
        _time(deed.at) if not deed.is_over else None,
        deed.approved_by,
        deed.decided,
        undo,
    )


def _time(at: float) -> str | None:
    return timestamp(at) if at else None
