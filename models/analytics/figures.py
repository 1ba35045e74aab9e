"""Figures of many rows, in groups. Pure; called by services/api/v1/analytics.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from models.analytics.rows import Row

#: Incidents that a comparison of repaired and others needs on each side: fewer say nothing.
COMPARED_MIN = 5


class By(StrEnum):
    """What rows are put into groups by."""

    NOTHING = "nothing"
    SEVERITY = "severity"
    TYPE = "type"
    SERVICE = "service"
    LABEL = "label"
    DAY = "day"
    WEEK = "week"

    @property
    def is_in_order(self) -> bool:
        """Whether groups have an order of their own; others come with the largest first."""
        return self in (By.SEVERITY, By.DAY, By.WEEK)


@dataclass(slots=True)
class Group:
    """What the rows of one group say. docs/analytics.md says what each means."""

    key: str
    incidents: int = 0
    over: int = 0
    answered: int = 0
    told: int = 0
    muted: int = 0
    alone: int = 0
    noise: int = 0
    reopened: int = 0
    flapping: int = 0
    repaired: int = 0
    alerts: int = 0
    detect_s: list[float] = field(default_factory=list)
    notify_s: list[float] = field(default_factory=list)
    acknowledge_s: list[float] = field(default_factory=list)
    resolve_s: list[float] = field(default_factory=list)
    #: How long those took that a playbook repaired, and the others, by severity.
    repaired_s: dict[int, list[float]] = field(default_factory=dict)
    other_s: dict[int, list[float]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        self.incidents += 1
        self.over += row.is_over
        self.answered += row.answered
        self.told += row.told
        self.muted += row.muted
        self.alone += row.ended_alone
        self.noise += row.is_noise
        self.reopened += row.reopened > 0
        self.flapping += row.flaps
        self.repaired += bool(row.repaired_by)
        self.alerts += row.alerts
        for took_s, taken in (
            (row.detect_s, self.detect_s),
            (row.notify_s, self.notify_s),
            (row.acknowledge_s, self.acknowledge_s),
            (row.resolve_s, self.resolve_s),
        ):
            if took_s is not None:
                taken.append(took_s)
        if row.resolve_s is not None:
            side = self.repaired_s if row.repaired_by else self.other_s
            side.setdefault(int(row.severity), []).append(row.resolve_s)

    @property
    def saved_s(self) -> float | None:
        """About how much open time playbooks saved: for each severity, the difference of the medians of incidents with and without a
        repair, times those with one. None when no severity has COMPARED_MIN of both."""
        saved = None
        for severity, repaired in self.repaired_s.items():
            other = self.other_s.get(severity, [])
            if len(repaired) >= COMPARED_MIN and len(other) >= COMPARED_MIN:
                saved = (saved or 0.0) + (at_percent(other, 50) - at_percent(repaired, 50)) * len(repaired)
        return saved


def figures(rows: Iterable[Row], by: By, label: str = "") -> list[Group]:
    """The groups of these rows; in their own order if they have one, else with the most incidents first."""
    key_of = _KEYS[by] if by is not By.LABEL else lambda row: row.labels.get(label, "")
    found: dict[str, Group] = {}
    for row in rows:
        key = key_of(row)
        if (group := found.get(key)) is None:
            group = found[key] = Group(key)
        group.add(row)
    if by.is_in_order:
        return [found[key] for key in sorted(found)]
    return sorted(found.values(), key=lambda group: (-group.incidents, group.key))


def at_percent(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent do not exceed (nearest rank). There must be one."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _day(row: Row) -> str:
    return f"{datetime.fromtimestamp(row.created_at, UTC):%Y-%m-%d}"


def _week(row: Row) -> str:
    year, week, _day_of_week = datetime.fromtimestamp(row.created_at, UTC).isocalendar()
    return f"{year}-W{week:02}"


_KEYS: dict[By, Callable[[Row], str]] = {
    By.NOTHING: lambda _row: "",
    By.SEVERITY: lambda row: row.severity.name,
    By.TYPE: lambda row: str(row.type),
    By.SERVICE: lambda row: row.service,
    By.DAY: _day,
    By.WEEK: _week,
}
