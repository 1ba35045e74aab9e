"""What a shard shows of repairs and of tasks. Called by views.py for a query of models/incidents/query.py."""

from __future__ import annotations

from models.incidents.query import PAGE_MAX, ListRepairs, RepairPage, TaskView
from models.shard.core import Core
from models.shard.runs import Runs
from models.shard.verification import Verification


def list_repairs(shard: Core, query: ListRepairs) -> RepairPage:
    """What came of the repairs of each playbook here, and the dated tasks of incidents that are not archived."""
    store, incidents = shard.of(Runs).store, shard.state.incidents
    tasks = [
        TaskView(identity, incidents[identity].title, each.text, each.due_at, each.by, each.told_at)
        for identity, mine in store.by_incident.items()
        if mine.tasks and incidents[identity].tenant == query.tenant
        for each in mine.tasks
        if each.due_at
    ]
    tasks.sort(key=lambda each: (each.due_at, each.incident_id))
    return RepairPage(shard.of(Verification).store.of_tenant(query.tenant), tasks[:PAGE_MAX])
