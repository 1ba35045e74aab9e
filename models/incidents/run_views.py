"""What a shard shows of the runs of playbooks. Called by views.py for queries of models/incidents/query.py."""

from __future__ import annotations

from models.incidents.query import PAGE_MAX, CaptureView, GetRuns, ListRuns, RunPage, RunView
from models.playbook.run import Run
from models.shard.core import Core
from models.shard.run_state import Captured, IncidentRuns, decode_carried
from models.shard.runs import Runs


def get_runs(shard: Core, query: GetRuns) -> RunPage:
    """The runs of one incident, in the order in which they began, or one run."""
    store = shard.of(Runs).store
    incident_id = query.incident_id or store.incident_of.get(query.run, b"")
    incident = shard.state.incidents.get(incident_id)
    if incident is None or incident.tenant != query.tenant:
        return RunPage([])
    captured = [*store.captured_of(incident_id)]
    views = _views(store.of(incident_id), captured, incident.service, incident.title, query.whole)
    return RunPage([each for each in views if not query.run or each.run.id == query.run])


def archived_runs(record: bytes, service: str, title: str) -> list[RunView]:
    """The runs of an archived incident, from what stands with it (Incident.runs)."""
    if not record:
        return []
    carried = decode_carried(record)
    return _views(carried.mine, carried.captures, service, title, True)


def _views(
    mine: IncidentRuns, captured: list[Captured], service: str, title: str, whole: bool
) -> list[RunView]:
    return [
        RunView(run, service, title, [_capture(each, whole) for each in captured if each.run == run.id])
        for run in mine.runs
    ]


def list_runs(shard: Core, query: ListRuns) -> RunPage:
    """A page of all runs, the newest first. Ids of runs are in the order of their time."""
    store = shard.of(Runs).store
    limit = max(1, min(query.limit, PAGE_MAX))
    # Of those under way there are few, most of the time, and they are known by themselves.
    known = store.active if query.active else store.incident_of
    found: list[RunView] = []
    for identity in sorted((each for each in known if not query.before or each < query.before), reverse=True):
        run = store.find(identity)
        incident = shard.state.incidents[store.incident_of[identity]]
        if run is None or incident.tenant != query.tenant or not _wanted(run, query):
            continue
        if len(found) == limit:
            return RunPage(found, found[-1].run.id)
        found.append(RunView(run, incident.service, incident.title))
    return RunPage(found)


def _wanted(run: Run, query: ListRuns) -> bool:
    return (query.active is None or run.is_over is not query.active) and (
        not query.playbook or run.playbook == query.playbook
    )


def _capture(captured: Captured, whole: bool) -> CaptureView:
    return CaptureView(
        captured.id,
        captured.step,
        captured.name,
        captured.media_type,
        captured.at,
        captured.size,
        captured.cut,
        captured.packed if whole else b"",
    )
