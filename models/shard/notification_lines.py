"""How what becomes of notifications reads in a timeline. Used by models/shard/notifications.py."""

from __future__ import annotations

from models.incidents.incident import WEBHOOK
from models.incidents.lines import SYSTEM, Around, Line, line_of, touched
from models.incidents.query import Summary
from models.shard.events import (
    ActionFailed,
    ActionSucceeded,
    NotificationDiscarded,
    NotificationDropped,
    NotificationFellBack,
    NotificationWithheld,
)


def sent(event: ActionSucceeded, _around: Around) -> Line:
    text = f"{_to(event)}: {event.detail}"
    return line_of("NotificationSent", SYSTEM, text, event.reason, receiver=_other(event))


def failed(event: ActionFailed, _around: Around) -> Line:
    text = f"{_to(event)}: {event.detail}; {end_of(event)}"
    return line_of("NotificationFailed", SYSTEM, text, event.reason, receiver=_other(event))


def failed_summary(summary: Summary, event: ActionFailed, now: float) -> Summary:
    return summary if event.retry_at else touched(summary, event, now)


def failed_of(event: ActionFailed) -> tuple[bytes, ...]:
    # The first failure and the last one.
    return () if event.retry_at and event.attempt else (event.incident_id,)


def dropped(event: NotificationDropped, _around: Around) -> Line | None:
    if not event.why:
        return None
    receiver = _other(event)
    text = f"to {receiver}: {event.why}" if receiver else event.why
    return line_of("NotificationDropped", SYSTEM, text, event.why, receiver=receiver)


def withheld(event: NotificationWithheld, _around: Around) -> Line:
    text = f"{_to(event)}: {event.why}"
    return line_of("NotificationWithheld", SYSTEM, text, event.reason, why=event.why, receiver=_other(event))


def discarded(event: NotificationDiscarded, _around: Around) -> Line:
    text = f"nobody is told, by {event.why}"
    return line_of("NotificationDiscarded", SYSTEM, text, event.why, route=event.route)


def fell_back(event: NotificationFellBack, _around: Around) -> Line:
    text = f"{event.reason} to {event.to}, because {event.receiver} can't be told: {event.why}"
    return line_of("NotificationFellBack", SYSTEM, text, event.why, receiver=event.receiver, to=event.to)


def _to(event: ActionSucceeded | ActionFailed | NotificationWithheld) -> str:
    receiver = _other(event)
    return f"{event.reason} to {receiver}" if receiver else event.reason


def _other(event: ActionSucceeded | ActionFailed | NotificationDropped | NotificationWithheld) -> str:
    """The receiver, but for the one that there was before there were several: its lines are as they were."""
    return "" if event.receiver == WEBHOOK else event.receiver


def end_of(failed: ActionFailed) -> str:
    """What happens to a notification after a failed attempt, in words."""
    if failed.retry_at:
        return "will retry"
    if failed.overtaken:
        return "overtaken by what came next"
    return f"given up after {failed.attempt + 1} {'try' if failed.attempt == 0 else 'tries'}"
