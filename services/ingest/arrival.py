"""Who sends alerts, and how they came: the record that goes with a request from its door to its shards (submit.py)."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from models.alerts.matchers import MatcherTuple


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender: the name and the id of a token, and the matchers that its alerts must match (none: anything)."""

    name: str
    id: str = ""
    match: tuple[MatcherTuple, ...] = ()


#: Everybody, while tokens are not required.
ANONYMOUS = Sender("anonymous")


class Arrival(msgspec.Struct, frozen=True):
    """How the alerts of one request came. A door makes one for each request; nobody changes it on the way.

    format       the name of their format: `door` in the log, in metrics and in a delivery's scope
    received_at  seconds since the epoch, once the whole request was there
    want_ids     whether its answer names the incidents
    delivery_id  what the sender calls this request; the same id again is answered alike and changes nothing
    trace        the trace context (models/trace.py) that it belongs to
    """

    tenant: str
    format: str
    sender: Sender
    received_at: float
    want_ids: bool = False
    delivery_id: str | None = None
    trace: str | None = None
