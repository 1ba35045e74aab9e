"""What changes without a restart, what is refused by name, and who is told what."""

from __future__ import annotations

import copy
import re
from typing import Any

import msgspec
import pytest

from models.control.events import SettingsChanged
from models.errors import Conflict
from models.incidents.incident import Incident, IncidentState, Severity
from models.settings.all import Settings
from models.settings.keys import KEYS, Key
from models.settings.processes import SHARD, given_by
from models.shard import core
from models.shard.settings import ShardSettings
from models.shard.shard import Shard
from models.shard.targets import TargetPassed
from services.settings.shown import masked, masked_json
from services.wiring.reload import Change, compare, event_of, refuse_other, wanted_over
from tests.scenario import SETTINGS, Story, alert, at

ACTIVE = [key for key in KEYS.values() if not key.is_later]
OPS = {"type": "webhook", "url": "https://example.org/ops"}
#: What a setting stands beside: without it, it would not be allowed or mean nothing.
AROUND: dict[str, dict[str, object]] = {
    "correlation.mute_symptoms": {"correlation": {"enabled": True}},
    "messaging.backend": {"messaging": {"brokers": ["nats:4222"]}},
    "notify.webhook.max_alerts": {"notify": {"webhook": {"url": "https://example.org/hook"}}},
    "notify.webhook.external_url": {"notify": {"webhook": {"url": "https://example.org/hook"}}},
}
for key in KEYS:
    if key.startswith(("notify.receivers", "notify.route")):
        AROUND[key] = {"notify": {"receivers": {"ops": OPS, "dev": OPS}, "route": {"receivers": ["ops"]}}}
#: Another value than the default, where adding one does not make one.
OTHERS: dict[str, object] = {
    "correlation.topology_file": "/etc/llm-im/services.yaml",
    "correlation.mute_symptoms": True,
    "correlation.mute_severities": ["P4"],
    "messaging.backend": "nats",
    "messaging.brokers": ["kafka:9092"],
    "messaging.topics": ["alerts"],
    "messaging.format": "datadog",
    "messaging.sasl_mechanism": "SCRAM-SHA-256",
    "server.http_host": "0.0.0.0",
    "server.gateways": 3,
    "server.hosts": ["alerts.example"],
    "server.origins": ["https://wall.example"],
    "server.probe_port": 8081,
    "server.web_page": False,
    "state.backend": "redis",
    "state.redis.url": "redis://127.0.0.1",
    "state.redis.allow_volatile": True,
    "state.postgres.url": "postgresql://127.0.0.1/llm_im",
    "state.postgres.allow_volatile": True,
    "state.consistency": "strong",
    "state.replication": "synchronous",
    "grouping.group_by": ["team"],
    "grouping.service_labels": ["team"],
    "lifecycle.expires_after": "1d",
    "lifecycle.max_concurrent_incidents": 300_000,
    "lifecycle.max_shard_bytes": 1024**3,
    "lifecycle.max_sender_share": 0.5,
    "classification.rules": [{"name": "ours", "severity": "P0"}],
    "formats.severities": {"datadog": {"error": "P0"}},
    "resource_limits.max_ingestion_rate": "5000/s",
    "resource_limits.max_sender_rate": "1000/s",
    "resource_limits.sender_rates": {"ci": "100/m"},
    "formats.mappings": [{"name": "ours", "alertname": "name", "service": "app"}],
    "ingest.relabel": [{"name": "ours", "drop": ["pod"]}],
    "heartbeats.expected": [{"name": "backup", "interval": "1h", "service": "db"}],
    "ingest.filters": [{"name": "ours", "min_severity": "P3"}],
    "integrations.llm_sentinel.filters.min_severity": "P3",
    "integrations.llm_sentinel.filters.ignored_labels": ["env=dev"],
    "formats.sns_topics": ["arn:aws:sns:eu-west-1:123456789012:alarms"],
    "server.tls.client_certificates": "ask",
    "server.tls.min_version": "1.3",
    "server.tls.clients": [{"name": "prometheus", "common_name": "prometheus"}],
    "notify.enabled": False,
    "outbound.allow": ["10.0.0.0/8"],
    "outbound.rate": "60/m",
    "outbound.breaker.failure_share": 0.25,
    "outbound.ca_file": "/etc/ssl/ours.pem",
    "notify.webhook.external_url": "https://im.example",
    "notify.receivers": {"ops": OPS | {"max_alerts": 7}, "dev": OPS},
    "notify.route.receivers": ["ops", "dev"],
    "notify.route.wait": "5s",
    "notify.route.send_resolved": False,
    "notify.route.discard": True,
    "notify.route.escalate_to": ["dev"],
    "notify.routes": [{"matchers": ["a=b"], "receivers": ["dev"], "continue": True}],
    "classification.builtin_rules": False,
    "learning.schedule": "0 3 * * 1",
    "learning.max_examples": 5000,
    "learning.confidence": 0.9,
    "notify.webhook.url": "https://example.org/hook",
    "publish.redis.url": "redis://127.0.0.1",
    "auth.required": True,
    "auth.open_metrics": True,
    "telemetry.endpoint": "http://127.0.0.1:4318",
    "telemetry.headers": {"authorization": "Bearer x"},
    "telemetry.sample_ratio": 0.5,
    "logging.level": "ERROR",
    "logging.format": "console",
    "playbooks.enabled": True,
    "playbooks.prometheus.url": "https://prometheus.example",
    "playbooks.loki.url": "https://loki.example",
    "playbooks.kubernetes.api": "https://kubernetes.example",
    "playbooks.services": {"llm-api": {"by": "kubernetes"}},
    "playbooks.scripts": {"tidy": {"path": "/bin/true"}},
    "playbooks.policy.files": ["/etc/llm-im/ours.rego"],
    "playbooks.war_room.links": {"zoom": "https://zoom.example/1"},
    "silences.force_share": 0.25,
    "inhibition.rules": [{"name": "r", "source": ["a=b"], "target": ["c=d"]}],
    "targets.acknowledge.P4": "1d",
    "targets.resolve.P4": "1d",
    "disaster_recovery.backup_interval": "1h",
    "disaster_recovery.backup_retention": "30d",
    "integrations.llm_shield.actions.auto_isolate": False,
    "integrations.llm_shield.actions.require_approval_for": ["UserBanning"],
    "integrations.llm_edge_agent.remediation.allowed_actions": ["Restart"],
    "integrations.llm_edge_agent.remediation.require_approval": ["Rollback"],
    "integrations.llm_edge_agent.remediation.timeout": "5m",
    "integrations.llm_edge_agent.remediation.retry_limit": 3,
    "pull.alertmanager": [{"name": "prod", "url": "http://alertmanager:9093"}],
    "pull.taxii": [{"name": "feed", "url": "https://taxii.example/api1/collections/1"}],
    "integrations.llm_sentinel.enabled": True,
    "integrations.llm_sentinel.endpoint": "llm-sentinel:9090",
    "integrations.llm_sentinel.protocol": "grpc",
    "integrations.llm_shield.enabled": True,
    "integrations.llm_shield.endpoint": "https://llm-shield:8443",
    "integrations.llm_shield.protocol": "https",
    "integrations.llm_edge_agent.enabled": True,
    "integrations.llm_edge_agent.discovery_mode": "static",
    "integrations.llm_edge_agent.endpoints": ["edge-1:9090"],
    "integrations.llm_governance_core.enabled": True,
    "integrations.llm_governance_core.endpoint": "https://opa.example/v1/data/incidents",
    "integrations.llm_governance_core.protocol": "https",
    "integrations.llm_governance_core.policies.evaluate_before_action": False,
    "integrations.llm_governance_core.policies.cache_decisions": False,
    "integrations.llm_governance_core.policies.fail_open": True,
}


AROUND["integrations.llm_governance_core.enabled"] = {
    "integrations": {"llm_governance_core": {"endpoint": "https://opa.example/v1/data/incidents"}}
}


def around(key: Key) -> Settings:
    """The defaults, and what a setting stands beside."""
    return Settings.model_validate(AROUND.get(key.name, {}))


def other(key: Key) -> Settings:
    """The same but for this one."""
    default = key.field.default
    value = OTHERS.get(key.name)
    if value is None:
        value = default + 1 if isinstance(default, int | float) else f"{default}x"
        if key.path[-1] in ("tls_ca", "tls_cert", "tls_key", "folder"):
            value = "/etc/llm-im/x"
    given = copy.deepcopy(AROUND.get(key.name, {}))
    section: Any = given
    for name in key.path[:-1]:
        section = section.setdefault(name, {})
    section[key.path[-1]] = value
    return Settings.model_validate(given)


def told(settings: Settings) -> SettingsChanged:
    return event_of("start", "ops", [], settings)


@pytest.mark.parametrize("key", ACTIVE, ids=lambda key: key.name)
def test_a_changed_setting_is_taken_over_or_refused_by_name(key: Key) -> None:
    wanted = other(key)

    if key.is_live:
        assert [change.key for change in compare(around(key), wanted)] == [key.name]
    else:
        with pytest.raises(Conflict, match=rf"^{re.escape(key.name)}: changed, and that needs a restart"):
            compare(around(key), wanted)


@pytest.mark.parametrize("key", [key for key in ACTIVE if key.is_live], ids=lambda key: key.name)
def test_what_is_taken_over_reaches_who_goes_by_it(key: Key) -> None:
    before, after = told(around(key)), told(other(key))

    assert Settings.model_validate_json(after.settings) == masked(other(key))
    reached = {kind for kind in before.processes if before.processes[kind] != after.processes[kind]}
    # Gateways alone ask how much a silence may mute, and they go by all settings.
    kinds = {"logging.level": len(before.processes), "silences.force_share": 0, "silences.force_at_least": 0}
    kinds |= {"formats.severities": 0, "formats.mappings": 0, "server.tls.clients": 0}
    kinds |= {key.name: 0 for key in ACTIVE if key.name.startswith("resource_limits.")}
    kinds |= {
        each: 0
        for each in KEYS
        if each.startswith(("ingest.", "heartbeats.")) or ".llm_sentinel.filters." in each
    }
    # Shards and responders.
    kinds |= {"notify.receivers": 2, "notify.webhook.max_alerts": 2}
    # Shards and the correlator.
    kinds |= {"correlation.mute_symptoms": 2, "correlation.mute_severities": 2}
    # Classifiers, and what trains beside the rules.
    kinds |= {"classification.rules": 2, "classification.builtin_rules": 2, "learning.confidence": 2}
    assert len(reached) == kinds.get(key.name, 1)


def test_one_that_needs_a_restart_among_others_refuses_all_and_only_it_is_named() -> None:
    wanted = Settings.model_validate({"server": {"gateways": 5}, "logging": {"level": "ERROR"}})

    with pytest.raises(Conflict) as raised:
        compare(Settings(), wanted)

    assert str(raised.value) == (
        "server.gateways: changed, and that needs a restart (llm-im down, then llm-im up); nothing was changed"
    )


NEW = {"type": "webhook", "url": "https://example.org/n3w"}


def receivers(table: dict[str, object]) -> Settings:
    return Settings.model_validate({"notify": {"receivers": table, "route": {"receivers": [*table]}}})


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (receivers({"ops": NEW}), "a secret that was not there at the start"),
        (receivers({"ops": OPS, "new": NEW}), "a secret that was not there at the start"),
        (Settings(), "the first one, or none any more"),
    ],
)
def test_a_new_secret_and_the_last_receiver_need_a_restart(wanted: Settings, why: str) -> None:
    with pytest.raises(Conflict, match=re.escape(why)) as raised:
        compare(receivers({"ops": OPS}), wanted)

    assert "n3w" not in str(raised.value)


def test_receivers_come_and_go_by_reload_with_the_secrets_that_are_there() -> None:
    running = receivers({"ops": OPS, "dev": NEW})

    assert compare(running, receivers({"ops": NEW})) and compare(running, receivers({"dev": OPS, "x": NEW}))
    assert b"n3w" not in msgspec.msgpack.encode(told(running))


def test_a_change_is_told_as_one_would_write_it() -> None:
    wanted = Settings.model_validate(
        {"notify": {"wait": {"P2": "1m"}}, "targets": {"resolve": {"P0": "none"}}}
    )

    assert compare(Settings(), wanted) == [
        Change("notify.wait.P2", "30s", "1m"),
        Change("targets.resolve.P0", "1h", "none"),
    ]


def test_what_the_file_leaves_out_of_flags_and_secrets_stays_as_it_runs() -> None:
    running = Settings.model_validate(
        {
            "state": {"path": "/srv"},
            "server": {"http_port": 81},
            "notify": {"webhook": {"url": "https://a.b/c"}},
        }
    )
    wanted = Settings.model_validate({"state": {"partitions": 2}, "notify": {"webhook": {"max_alerts": 5}}})

    found = wanted_over(running, wanted)

    assert (found.state.path, found.server.http_port) == ("/srv", 81)
    assert found.notify.webhook.url == running.notify.webhook.url
    assert [change.key for change in compare(running, found)] == ["notify.webhook.max_alerts"]


def test_what_the_file_says_of_flags_and_secrets_counts() -> None:
    running = Settings.model_validate(
        {"state": {"path": "/srv"}, "notify": {"webhook": {"url": "https://a.b/c"}}}
    )
    wanted = Settings.model_validate({"state": {"path": "/other"}, "notify": {"webhook": {"url": None}}})

    with pytest.raises(Conflict, match=r"^state\.path, notify\.webhook\.url: changed"):
        compare(running, wanted_over(running, wanted))


def test_the_event_holds_no_secret() -> None:
    settings = Settings.model_validate({"notify": {"webhook": {"url": "https://example.org/s3cr3t"}}})

    event = told(settings)

    assert b"s3cr3t" not in msgspec.msgpack.encode(event)
    assert given_by(event, SHARD)["notify"]


def test_response_targets_reach_the_shard_in_seconds_and_none_is_zero() -> None:
    found = msgspec.convert(given_by(told(Settings()), SHARD), ShardSettings)

    assert found.acknowledge_within_s == (300.0, 900.0, 14400.0, 86400.0, 0.0)
    assert found.resolve_within_s == (3600.0, 3600.0, 86400.0, 604800.0, 0.0)


# A shard under new settings


def resolved() -> Story:
    """An incident resolved at 10 under close_after 120 s."""
    story = Story()
    story.push(at(0), alert("api", "Down"))
    story.classify(at(0), Severity.P4)
    story.push(at(10), alert("api", "Down").ended(10))
    assert story.states() == [IncidentState.RESOLVED]
    return story


def change(story: Story, **settings: float) -> None:
    changed = msgspec.structs.replace(SETTINGS, **settings)
    story.shard.take_settings(changed)
    story.settings = changed


def test_a_resolved_incident_closes_by_a_shorter_close_after() -> None:
    story = resolved()

    change(story, close_after_s=70.0)
    story.ticks(at(75), at(79))
    assert story.states() == [IncidentState.RESOLVED]
    story.tick(at(80))

    assert story.states() == [IncidentState.CLOSED]


def test_a_resolved_incident_waits_for_a_longer_close_after_and_then_closes() -> None:
    story = resolved()

    change(story, close_after_s=200.0)
    story.ticks(at(125), at(209))
    assert story.states() == [IncidentState.RESOLVED]
    story.tick(at(210))

    assert story.states() == [IncidentState.CLOSED]


def test_after_a_change_each_tick_finds_out_for_a_stretch_of_incidents_when_they_are_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "WATCH_STRETCH", 10)
    story = Story()
    story.push(at(0), *[alert(f"api-{number}", "Down") for number in range(35)])
    shard = story.shard
    shard.watch()
    looked_at = count_looks(shard, monkeypatch)

    change(story, acknowledge_within_s=(0.0, 0.0, 500.0, 0.0, 0.0))  # type: ignore[arg-type]
    each_time = []
    for _ in range(5):
        looked_at.clear()
        shard.watch()
        each_time.append(len(looked_at))

    assert each_time == [10, 10, 10, 5, 0]
    assert all(shard.timers.at(each.id) == shard.next_at(each) for each in shard.state.incidents.values())


def count_looks(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> list[Incident]:
    """The incidents of which it is found out from now on when they are due."""
    looked_at: list[Incident] = []
    next_at = shard.next_at

    def counting(incident: Incident) -> float:
        looked_at.append(incident)
        return next_at(incident)

    monkeypatch.setattr(shard, "next_at", counting)
    return looked_at


def test_a_notification_that_waits_goes_out_when_it_was_due_and_the_next_by_the_new_wait() -> None:
    story = Story()
    story.push(at(0), alert("api", "Down"))
    story.classify(at(0), Severity.P2)

    change(story, wait_s=(0.0, 0.0, 2.0, 20.0, 30.0))  # type: ignore[arg-type]
    story.push(at(1), alert("db", "Down"))
    story.classify(at(1), Severity.P2)
    story.ticks(at(2), at(12))

    assert [when for when, _reason, _attempt in story.sent()] == [3, 10]


def test_an_open_incidents_targets_pass_by_the_new_ones() -> None:
    story = Story()
    story.push(at(0), alert("api", "Down"))
    story.classify(at(0), Severity.P2)

    change(story, acknowledge_within_s=(0.0, 0.0, 20.0, 0.0, 0.0))  # type: ignore[arg-type]
    story.ticks(at(1), at(30))

    passed = [(when - at(0), event) for when, event in story.events if isinstance(event, TargetPassed)]
    assert [(when, event.percent, event.due_at - at(0)) for when, event in passed] == [
        (10, 50, 20),
        (20, 100, 20),
    ]


@pytest.mark.parametrize("key", ["lifecycle.reopen_window", "grouping.group_by", "auth.required"])
def test_what_is_started_into_what_runs_must_go_by_the_same_settings(key: str) -> None:
    running = Settings.model_validate(
        {"server": {"http_port": 8081}, "notify": {"webhook": {"url": "https://a"}}}
    )

    refuse_other(masked_json(running), running)
    # Flags that are not said again, and secrets, are no difference.
    refuse_other(masked_json(running), Settings())
    # More gateways are what one starts again for.
    refuse_other(masked_json(running), other(KEYS["server.gateways"]))
    with pytest.raises(Conflict, match=f"^{re.escape(key)}: changed"):
        refuse_other(masked_json(running), other(KEYS[key]))


@pytest.mark.parametrize("runs", [True, False])
def test_what_tells_nobody_and_what_does_are_never_started_into_each_other(runs: bool) -> None:
    running = Settings.model_validate({"notify": {"enabled": runs}})
    asked = Settings() if not runs else Settings.model_validate({"notify": {"enabled": False}})

    refuse_other(masked_json(running), running)
    with pytest.raises(Conflict, match=r"with(out)? notifications.*llm-im down"):
        refuse_other(masked_json(running), asked)


def test_a_reload_does_not_switch_on_what_a_flag_switched_off() -> None:
    running = Settings.model_validate({"notify": {"enabled": False, "webhook": {"url": "https://a"}}})
    wanted = wanted_over(running, Settings.model_validate({"notify": {"webhook": {"url": "https://a"}}}))

    assert not wanted.notify.enabled
    assert compare(running, wanted) == []
