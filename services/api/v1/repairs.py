"""/v1/repairs and /v1/tasks: what came of the repairs of each playbook, and what people are to do after incidents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI
from fastapi.responses import Response

from models.incidents.query import TaskView
from models.playbook.repaired import Repaired
from services.api.auth import READ, requires
from services.api.playbooks import RunReads
from services.api.problems import AWAY, REFUSED, problems
from services.api.v1.bodies import json_response
from services.api.v1.fields import Time, says
from services.api.v1.incidents import PREFIX
from services.times import timestamp

REPAIRS, TASKS = f"{PREFIX}/repairs", f"{PREFIX}/tasks"


@dataclass(frozen=True, slots=True)
class RepairBody:
    """What came of the repairs by one version of a playbook."""

    playbook: Annotated[str, says("The playbook.")]
    version: Annotated[str, says("Its version.")]
    runs: Annotated[int, says("Runs that changed something and are over.")]
    failed: Annotated[int, says("Of these, those that did not succeed.")]
    healed: Annotated[int, says("After so many the incident was resolved.")]
    alerts_ended: Annotated[int, says("After so many its alerts had ended as well.")]
    held: Annotated[int, says("So many showed no regression while they were watched.")]
    regressed: Annotated[int, says("After so many the incident reopened while it was watched.")]
    side_effects: Annotated[int, says("Other incidents of the service that opened meanwhile.")]
    seconds_to_heal: Annotated[
        float | None, says("From the beginning of a run until the incident was resolved, on average.")
    ]
    last_at: Annotated[Time, says("When something of it was counted last.")]


@dataclass(frozen=True, slots=True)
class RepairsBody:
    """All playbooks that repaired something."""

    items: Annotated[list[RepairBody], says("By name and version.")]


@dataclass(frozen=True, slots=True)
class TaskBody:
    """Something that people are to do after an incident."""

    incident: Annotated[UUID, says("The incident.")]
    title: Annotated[str, says("The incident's title.")]
    text: Annotated[str, says("What is to be done.")]
    due_at: Annotated[Time, says("Until when.")]
    by: Annotated[str, says("Who planned it.")]
    due: Annotated[bool, says("It is due, and the timeline said so.")]


@dataclass(frozen=True, slots=True)
class TasksBody:
    """The tasks of all incidents that are not archived."""

    items: Annotated[list[TaskBody], says("The one due first comes first.")]


def repair_body(found: Repaired) -> RepairBody:
    return RepairBody(
        found.playbook,
        found.version,
        found.runs,
        found.failed,
        found.healed,
        found.quiet,
        found.held,
        found.broke,
        found.side_effects,
        round(found.heal_s / found.healed, 1) if found.healed else None,
        timestamp(found.last_at),
    )


def task_body(found: TaskView) -> TaskBody:
    identity = UUID(bytes=found.incident_id)
    return TaskBody(identity, found.title, found.text, timestamp(found.due_at), found.by, bool(found.told_at))


def add_repair_routes(app: FastAPI, runs: RunReads) -> None:
    """The two routes."""

    async def repairs() -> Response:
        """What came of the repairs of each playbook, since it was first used."""
        return json_response(RepairsBody([repair_body(each) for each in (await runs.repairs())[0]]))

    async def tasks() -> Response:
        """What people are to do after incidents, the one due first at the beginning."""
        return json_response(TasksBody([task_body(each) for each in (await runs.repairs())[1]]))

    for path, endpoint, body in ((REPAIRS, repairs, RepairsBody), (TASKS, tasks, TasksBody)):
        app.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            response_model=body,
            responses=problems(REFUSED, AWAY),
            dependencies=[Depends(requires(READ))],
            tags=["runs"],
        )
