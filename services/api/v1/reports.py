"""GET /v1/incidents/{id}/report: what happened, who did what and when, for people and for programs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, FastAPI, Query
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from models.incidents.query import PAGE_MAX
from models.ports import Clock
from models.settings.all import Settings
from models.settings.targets import AcknowledgeTargets, ResolveTargets
from services.api.auth import READ, requires
from services.api.playbooks import RunReads
from services.api.problems import AWAY, NOT_FOUND, REFUSED, problems
from services.api.reads import Reads
from services.api.v1.bodies import incident_body, json_response
from services.api.v1.fields import any_case
from services.api.v1.incidents import PREFIX, IncidentId, NoSuchIncident
from services.reports.document import document_of
from services.reports.html import POLICY, as_html
from services.reports.markdown import as_markdown
from services.reports.report import Facts, ReportBody, report_of

PATH = f"{PREFIX}/incidents/{{incident_id}}/report"


class ReportFormat(StrEnum):
    """How a report is written."""

    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


class ReportParams(BaseModel):
    """How to write it."""

    model_config = ConfigDict(extra="forbid")

    format: Annotated[
        ReportFormat,
        Field(description="`json`, `markdown` or `html`."),
        BeforeValidator(any_case(ReportFormat)),
    ] = ReportFormat.JSON


class Reporting:
    """Makes the reports of one gateway."""

    def __init__(self, reads: Reads, runs: RunReads, clock: Clock, settings: Callable[[], Settings]) -> None:
        self._reads = reads
        self._runs = runs
        self._clock = clock
        self._settings = settings

    async def of(self, incident_id: bytes) -> ReportBody | None:
        """The report of an incident, open, closed or archived; None when there is no such incident. Raises Unavailable."""
        found = await self._reads.incident(incident_id)
        if found is None:
            return None
        [counted] = await self._reads.counted([found.view])
        alerts = await self._reads.incident_alerts(incident_id, limit=PAGE_MAX)
        runs = await self._runs.of_incident(incident_id)
        # An archived incident has none that are still to be done.
        tasks = [] if found.archived is not None else (await self._runs.repairs())[1]
        targets = self._settings().targets
        facts = Facts(
            found.view,
            incident_body(found.view, counted),
            alerts.items if alerts is not None else [],
            runs or [],
            [each for each in tasks if each.incident_id == incident_id],
            _within(targets.acknowledge),
            _within(targets.resolve),
            self._clock.now(),
        )
        return report_of(facts)


def add_report_route(app: FastAPI, reporting: Reporting) -> None:
    """The route."""

    async def report(incident_id: IncidentId, params: Annotated[ReportParams, Query()]) -> Response:
        """A post-incident report: summary, times against targets, people, timeline, alerts, runs of playbooks,
        notifications, what was muted, and what is still to be done."""
        made = await reporting.of(incident_id.bytes)
        if made is None:
            raise NoSuchIncident(incident_id)
        match params.format:
            case ReportFormat.MARKDOWN:
                text = await asyncio.to_thread(lambda: as_markdown(document_of(made)))
                return Response(text, media_type="text/markdown")
            case ReportFormat.HTML:
                text = await asyncio.to_thread(lambda: as_html(document_of(made)))
                headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
                return Response(text, media_type="text/html", headers=headers)
            case ReportFormat.JSON:
                return json_response(made)

    text: dict[str, object] = {"schema": {"type": "string"}}
    app.add_api_route(
        PATH,
        report,
        methods=["GET"],
        response_model=ReportBody,
        responses={
            200: {"content": {"text/markdown": text, "text/html": text}},
            **problems(REFUSED, NOT_FOUND, AWAY),
        },
        dependencies=[Depends(requires(READ))],
        tags=["incidents"],
    )


def _within(targets: AcknowledgeTargets | ResolveTargets) -> tuple[float, ...]:
    found = (targets.P0, targets.P1, targets.P2, targets.P3, targets.P4)
    return tuple(float(each or 0.0) for each in found)
