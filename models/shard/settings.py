"""The settings a shard decides by: what the sections in models/settings/ give a process of its kind (for_process)."""

from __future__ import annotations

import msgspec

from models.alerts.inhibition import InhibitRule
from models.incidents.incident import WEBHOOK
from models.routes.route import ReceiverRow, Route


class ShardSettings(msgspec.Struct, frozen=True):
    """The settings a shard decides by; times in seconds. Each name is given by one section."""

    group_by: tuple[str, ...] = ("alertname", "cluster", "namespace")
    service_labels: tuple[str, ...] = ("service",)
    reopen_window_s: float = 1800.0
    close_after_s: float = 3600.0
    expiry_grace_s: float = 300.0
    max_open: int = 100_000
    notify: bool = False
    wait_s: tuple[float, ...] = (0.0, 0.0, 30.0, 120.0, 300.0)
    #: Least time between two notifications of an incident.
    interval_s: float = 60.0
    retry_first_s: float = 1.0
    retry_max_s: float = 300.0
    give_up_after_s: float = 86400.0
    #: Response targets by severity; 0: none.
    acknowledge_within_s: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    resolve_within_s: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    #: How long the archive keeps what is closed.
    retention_s: float = 90 * 86400.0
    #: Bytes (models/alerts/room.py) of all alerts and incidents, and of those of one sender.
    max_bytes: int = 2 * 1024**3
    sender_bytes: int = 3 * 1024**3 // 2
    #: How far ahead the end lies that a gateway gives to an alert without one: resolve_timeout, expires_after.
    given_ends_s: tuple[float, ...] = ()
    #: Which alerts mute which while they fire.
    inhibit: tuple[InhibitRule, ...] = ()
    #: Whether playbooks run, and how much of them.
    playbooks: bool = False
    playbooks_again_after_s: float = 1800.0
    playbooks_per_service: int = 20
    playbooks_longest_s: float = 21600.0
    playbooks_at_once: int = 10_000
    #: How long what a run resolved is watched for regression (0: not at all), how often checks are asked then, and whether what a
    #: person resolved is watched as well.
    verify_watch_s: float = 0.0
    verify_every_s: float = 60.0
    verify_people: bool = False
    #: How long after a P0 or P1 was resolved its review is due; 0: none is planned.
    review_after_s: float = 0.0
    #: How long an edge agent may be away before that is an alert; 0: for ever.
    edge_offline_after_s: float = 0.0
    #: Whether nobody is notified of symptoms of a cause that was, of which severities, and for how long at most.
    mute_symptoms: bool = False
    symptom_severities: tuple[int, ...] = (2, 3, 4)
    mute_symptoms_for_s: float = 3600.0
    #: Who may be told of incidents, and who is told of which.
    receivers: dict[str, ReceiverRow] = msgspec.field(default_factory=lambda: {WEBHOOK: ReceiverRow()})
    route: Route = Route()
