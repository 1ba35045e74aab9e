"""When a schedule, of a playbook or of training, is due: a cron expression, in UTC. Whole minutes; a time is seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime


def next_due(schedule: str, after: float) -> float:
    """The first time it is due later than `after`; 0.0 when it never is again."""
    return _first(schedule, after, is_backwards=False)


def last_due(schedule: str, after: float, now: float) -> float:
    """The last time it was due later than `after` and not later than `now`; 0.0 when there was none."""
    # The search goes back from before a whole minute, and this one may be it.
    at = _first(schedule, now - now % 60.0 + 60.0, is_backwards=True)
    return at if after < at <= now else 0.0


def wrong_schedule(schedule: str) -> str:
    """What is wrong with a cron expression, "" if nothing is."""
    from cronsim import CronSimError

    try:
        return "" if next_due(schedule, 0.0) else "it is never due"
    except CronSimError as error:
        return str(error)


def _first(schedule: str, at: float, *, is_backwards: bool) -> float:
    # Not above: who has no schedules need not load it.
    from cronsim import CronSim

    found = next(CronSim(schedule, datetime.fromtimestamp(at, UTC), reverse=is_backwards), None)
    return 0.0 if found is None else found.timestamp()
