"""Heartbeats: what must be heard from regularly, and how it is missed. What becomes of them: models/control/heartbeating.py.

A shard watches those of its services (models/shard/heartbeats.py). Here is only what people decide, and that a heartbeat has begun: before
its first beat nobody misses it.
"""

from __future__ import annotations

import re

import msgspec

from models.alerts.matchers import MatcherTuple, compile_matchers
from models.errors import Malformed, TooLarge
from models.incidents.incident import Severity
from models.partition.event import Event
from models.wire import Wire

#: Heartbeats of all tenants: one for each cron job of a large company. Each shard checks those of its services.
HEARTBEATS_MAX = 20_000
#: Heartbeats that alerts are: each new alert is tried with all of them.
BY_ALERT_MAX = 500
#: A shorter one would miss beats that wait for a shard's restart.
INTERVAL_LEAST_S = 5.0
#: A year and a day: what runs once a year.
INTERVAL_MOST_S = 366 * 86_400.0
GRACE_DEFAULT_S = 60.0
#: What a path, a shell and a person can write without quotes.
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}"
LABELS_MAX = 16
#: Characters of a service, a label's name or value, and a link.
TEXT_MAX = 1024
MATCHERS_MAX = 16
#: Labels that the alert of a missed heartbeat has anyway.
TAKEN_LABELS = ("alertname", "heartbeat")

_NAME = re.compile(NAME_PATTERN)


class Heartbeat(msgspec.Struct, frozen=True, array_like=True):
    """What must be heard from at least every `interval_s`, or is missed `grace_s` later.

    service, severity, labels, runbook  of the incident that it opens when it is missed
    matchers   an alert for which all hold is a beat; none: only beats that are sent count
    paused     nobody misses it
    began      it was heard once
    from_file  the settings have it; else people made it
    """

    name: str
    interval_s: float
    grace_s: float
    service: str
    severity: Severity
    labels: dict[str, str] = {}
    runbook: str = ""
    matchers: tuple[MatcherTuple, ...] = ()
    paused: bool = False
    began: bool = False
    from_file: bool = False
    tenant: str = "default"
    changed_at: float = 0.0
    changed_by: str = ""

    @property
    def id(self) -> str:
        """Its name, which no other of any tenant has."""
        return identity(self.tenant, self.name)

    @property
    def wait_s(self) -> float:
        """How long after a beat it is missed."""
        return self.interval_s + self.grace_s


class SetHeartbeat(Wire, frozen=True):
    """Make a heartbeat, or change the one with its name. Whether it began stays. Safe to repeat."""

    heartbeat: Heartbeat
    actor: str


class RemoveHeartbeat(Wire, frozen=True):
    """Forget a heartbeat; what is open because of it is resolved. Safe to repeat."""

    name: str
    actor: str
    tenant: str = "default"


class PauseHeartbeat(Wire, frozen=True):
    """Nobody misses it from now on, or is missed again after a whole interval. Safe to repeat."""

    name: str
    paused: bool
    actor: str
    tenant: str = "default"


class HeartbeatHeard(Wire, frozen=True):
    """A heartbeat was heard, for the first time as far as the caller knows. Safe to repeat."""

    name: str
    tenant: str = "default"


class SyncHeartbeats(Wire, frozen=True):
    """The settings have these heartbeats, and no others."""

    heartbeats: list[Heartbeat]
    tenant: str = "default"


class HeartbeatSet(Event, frozen=True):
    """Control partition: a heartbeat as it is from now on, new or changed."""

    heartbeat: Heartbeat
    actor: str


class HeartbeatRemoved(Event, frozen=True):
    """Control partition: a heartbeat is gone."""

    name: str
    tenant: str
    at: float
    actor: str


class HeartbeatBegan(Event, frozen=True):
    """Control partition: a heartbeat was heard for the first time."""

    name: str
    tenant: str


def identity(tenant: str, name: str) -> str:
    return f"{tenant}/{name}"


def check(heartbeat: Heartbeat) -> None:
    """Raises Malformed, TooLarge, naming the field."""
    if _NAME.fullmatch(heartbeat.name) is None:
        raise Malformed(
            f"name: expected up to 100 letters, digits and . _ : - such as nightly-backup, got {heartbeat.name[:100]!r}"
        )
    if not INTERVAL_LEAST_S <= heartbeat.interval_s <= INTERVAL_MOST_S:
        raise Malformed("interval: expected 5s to 366d")
    if not 0.0 <= heartbeat.grace_s <= INTERVAL_MOST_S:
        raise Malformed("grace: expected 0s to 366d")
    if not heartbeat.service:
        raise Malformed(
            "service: expected the service that an incident is about when the heartbeat is missed"
        )
    for field, text in (("service", heartbeat.service), ("runbook", heartbeat.runbook)):
        _check_text(field, text)
    if len(heartbeat.labels) > LABELS_MAX:
        raise TooLarge(f"labels: {len(heartbeat.labels)} (limit: {LABELS_MAX})")
    for name, value in heartbeat.labels.items():
        if not name or name in TAKEN_LABELS:
            raise Malformed(f"labels: {name!r} can't be set")
        _check_text("labels", name)
        _check_text("labels", value)
    if len(heartbeat.matchers) > MATCHERS_MAX:
        raise TooLarge(f"matchers: {len(heartbeat.matchers)} (limit: {MATCHERS_MAX})")
    if not heartbeat.matchers:
        return
    try:
        matches_nothing = compile_matchers(heartbeat.matchers)({})
    except (Malformed, TooLarge) as error:
        raise type(error)(f"matchers: {error}") from None
    if matches_nothing:
        raise Malformed("matchers: at least one must not match an alert without labels")


def _check_text(field: str, text: str) -> None:
    if len(text) > TEXT_MAX:
        raise TooLarge(f"{field}: over {TEXT_MAX} characters")
    if not text.isprintable():
        raise Malformed(f"{field}: expected printable characters")
