"""How what becomes of notifications reads in a timeline. Used by models/shard/notifications.py."""

from __future__ import annotations

from models.incidents.lines import SYSTEM, Around, Line, line_of, touched
from models.incidents.query import Summary
from models.shard.events import ActionFailed, ActionSucceeded, NotificationDropped, NotificationWithheld


def sent(event: ActionSucceeded, _around: Around) -> Line:
    return line_of("NotificationSent", SYSTEM, f"{event.reason}: {event.detail}", event.reason)


def failed(event: ActionFailed, _around: Around) -> Line:
    text = f"{event.reason}: {event.detail}; {end_of(event)}"
    return line_of("NotificationFailed", SYSTEM, text, event.reason)


def failed_summary(summary: Summary, event: ActionFailed, now: float) -> Summary:
    return summary if event.retry_at else touched(summary, event, now)


def failed_of(event: ActionFailed) -> tuple[bytes, ...]:
    # The first failure and the last one.
    return () if event.retry_at and event.attempt else (event.incident_id,)


def dropped(event: NotificationDropped, _around: Around) -> Line:
    return line_of("NotificationDropped", SYSTEM, event.why, event.why)


def withheld(event: NotificationWithheld, _around: Around) -> Line:
    return line_of(
        "NotificationWithheld", SYSTEM, f"{event.reason}: {event.why}", event.reason, why=event.why
    )


def end_of(failed: ActionFailed) -> str:
    """What happens to a notification after a failed attempt, in words."""
    if failed.retry_at:
        return "will retry"
    if failed.overtaken:
        return "overtaken by what came next"
    return f"given up after {failed.attempt + 1} {'try' if failed.attempt == 0 else 'tries'}"
