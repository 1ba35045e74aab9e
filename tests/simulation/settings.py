"""How a simulated system is set, and how long a run takes: waits that are long beside a run of two minutes are short here."""

from __future__ import annotations

from models.alerts.inhibition import InhibitRule
from models.incidents.incident import Severity
from models.partition.sharding import TENANT
from models.routes.route import ReceiverRow, Route
from models.settings.all import Settings
from models.shard.settings import ShardSettings

#: Two who share every shard, and have services and alerts of the same names.
TENANTS = (TENANT, "acme")
RETENTION_S = 60.0
#: While one of these fires, info alerts are muted on every shard.
INHIBIT = InhibitRule(
    "critical", (("severity", "=", "critical"), ("alertname", "=", "Down")), (("severity", "=", "info"),)
)
#: Everybody hears of everything but one kind of alert, the pager of what is urgent as well; one receiver hears of no ends, and one
#: only when nobody acknowledged in time; another only when the pager can't be told.
RECEIVERS = {
    "webhook": ReceiverRow(),
    "pager": ReceiverRow("page", fallback="spare", fallback_after_s=3.0),
    "db-team": ReceiverRow("chat", sends_resolved=False),
    "boss": ReceiverRow("page"),
    "spare": ReceiverRow("page"),
}
#: By these people on call are paged; no route names them.
PHONES = {"phone": ReceiverRow("page"), "mail": ReceiverRow("page", sends_resolved=False)}
#: The policy by which they are, and how long each of its levels waits.
POLICY = "critical"
LEVEL_S = 10.0
ROUTES = Route(
    receivers=("webhook",),
    repeat_s=35.0,
    routes=(
        Route(
            name="urgent",
            severities=(Severity.P0, Severity.P1),
            receivers=("pager",),
            continues=True,
            wait_s=0.0,
            repeat_s=25.0,
            escalate_to=("boss",),
            escalation=POLICY,
        ),
        Route(
            name="db",
            services=("vector-db",),
            receivers=("db-team", "webhook"),
            interval_s=5.0,
            repeat_s=35.0,
        ),
        Route(
            name="noise",
            services=("billing",),
            matchers=(("alertname", "=", "Slow"),),
            receivers=(),
            discards=True,
        ),
        Route(name="rest", receivers=("webhook",), repeat_s=35.0),
    ),
)
SETTINGS = ShardSettings(
    reopen_window_s=12.0,
    close_after_s=15.0,
    expiry_grace_s=12.0,
    retention_s=RETENTION_S,
    max_open=4,
    notify=True,
    wait_s=(0.0, 0.0, 3.0, 6.0, 9.0),
    interval_s=3.0,
    retry_first_s=0.5,
    retry_max_s=4.0,
    give_up_after_s=7200.0,
    acknowledge_within_s=(4.0, 8.0, 12.0, 0.0, 0.0),
    resolve_within_s=(8.0, 16.0, 24.0, 0.0, 0.0),
    inhibit=(INHIBIT,),
    playbooks=True,
    playbooks_again_after_s=10.0,
    playbooks_per_service=5,
    playbooks_longest_s=14.0,
    playbooks_at_once=6,
    verify_watch_s=8.0,
    verify_every_s=2.0,
    verify_people=True,
    review_after_s=6.0,
    mute_symptoms=True,
    mute_symptoms_for_s=12.0,
    edge_offline_after_s=4.0,
    receivers=RECEIVERS | PHONES,
    route=ROUTES,
)
#: Of any route.
LONGEST_INTERVAL_S = 5.0
#: What ends a series nobody resends. Senders resend every EVERY_S.
RESOLVE_TIMEOUT_S = 24.0
GIVEN = Settings.model_validate({"lifecycle": {"resolve_timeout": RESOLVE_TIMEOUT_S}})
EVERY_S = 4.0
#: How often a shard looks at what is due.
TICK_S = 1.5
#: How long trouble lasts, and how long all may take to come right after it.
TROUBLE_S = 40.0
SETTLE_S = 35.0


def shard_name(index: int) -> str:
    return f"shard-{index:04d}-a"
