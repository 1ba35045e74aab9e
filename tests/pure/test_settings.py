"""Settings from file, environment and flags: who wins, what is refused and in which words, what the plan's samples are."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from unittest.mock import patch

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.durations import duration_s, duration_text
from models.errors import Malformed, Refused
from models.settings.all import Settings
from models.settings.keys import KEYS, Key
from models.settings.values import DURATION_MAX_S
from services.settings.load import DEFAULT, Source, load, load_settings, shards_here
from services.settings.names import VARIABLES, variable_of
from services.settings.refusals import refusals, refuse
from services.settings.shown import masked_json, written
from services.stores.choice import place_of
from services.wiring.actors import plan
from services.wiring.bootstrap import PUBLISHER_ACTOR

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "tests/data/config").glob("*.toml"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder and none of our variables."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LLM_IM_") or name in VARIABLES]:
        monkeypatch.delenv(name)


def problem(text: str = "", **variables: str) -> str:
    """What is said of a file with a mistake."""
    Path("llm-im.toml").write_text(text, "utf-8")
    with patch.dict(os.environ, variables), pytest.raises(Malformed) as raised:
        load()
    return str(raised.value)


# Who wins


@pytest.mark.parametrize(("cores", "shards"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (16, 8), (64, 8)])
def test_a_first_start_makes_a_shard_for_each_two_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, shards: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(cores)))

    assert load().settings.state.partitions == shards
    assert load(None, {"state.partitions": 3}).settings.state.partitions == 3
    assert "state.partitions" not in load().sources


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("llm-im.toml").write_text(
        '[server]\nhttp_port = 1\ngateways = 3\nhold = "1s"\n[state]\npath = "a"\n', "utf-8"
    )
    monkeypatch.setenv("LLM_IM_SERVER__HTTP_PORT", "2")
    monkeypatch.setenv("LLM_IM_SERVER__GATEWAYS", "4")
    monkeypatch.setenv("LLM_IM_STATE__PATH", "b")

    loaded = load(None, {"state.path": "c", "server.http_port": 3})

    found = {
        name: (KEYS[name].of(loaded.settings), loaded.source(KEYS[name]))
        for name in ("server.http_port", "server.gateways", "server.hold", "state.path", "state.partitions")
    }
    assert found == {
        "server.http_port": (3, Source("flag", "--port")),
        "server.gateways": (4, Source("variable", "LLM_IM_SERVER__GATEWAYS")),
        "server.hold": (1.0, Source("file", "llm-im.toml")),
        "state.path": ("c", Source("flag", "--data")),
        "state.partitions": (shards_here(), DEFAULT),
    }


def test_a_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.toml").write_text("[server]\nhttp_port = 9999\n", "utf-8")
    (tmp_path / "llm-im.toml").write_text("[server]\nhttp_port = 1111\n", "utf-8")
    monkeypatch.setenv("LLM_IM_CONFIG", str(tmp_path / "other.toml"))

    assert load_settings().server.http_port == 9999


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    Path("llm-im.toml").write_text("[server]\nhttp_port = 81\n", "utf-8-sig")

    assert load_settings().server.http_port == 81


@pytest.mark.parametrize("text", ['["alertname", "team"]', "alertname, team"])
def test_a_list_in_the_environment_is_json_or_words_with_commas(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_IM_GROUPING__GROUP_BY", text)

    assert load_settings().grouping.group_by == ["alertname", "team"]


def test_a_section_in_the_environment_is_json_and_adds_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("llm-im.toml").write_text('[notify.wait]\nP2 = "1m"\nP3 = "1m"\n', "utf-8")
    monkeypatch.setenv("LLM_IM_NOTIFY__WAIT", '{"P3": "5s"}')

    loaded = load()

    assert (loaded.settings.notify.wait.P2, loaded.settings.notify.wait.P3) == (60.0, 5.0)
    assert loaded.source(KEYS["notify.wait.P3"]) == Source("variable", "LLM_IM_NOTIFY__WAIT")


def test_none_takes_a_target_away() -> None:
    Path("llm-im.toml").write_text('[targets.resolve]\nP0 = "none"\n', "utf-8")

    assert load_settings().targets.resolve.P0 is None


# Mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nhtp_port = 1", "server.htp_port: there is no such setting; did you mean server.http_port?"),
        ("[servr]\nhttp_port = 1", "servr: there is no such section; did you mean server?"),
        ('retention = "1d"', "retention: there is no such section; did you mean lifecycle.retention?"),
        ('[server]\nretention = "1d"', "server.retention: there is no such setting; did you mean lifecycle.retention?"),
        ("[notify.wait]\nP5 = 1", "notify.wait.P5: there is no such setting; there are P0, P1, P2, P3, P4"),
        ("[ha]\nmin_replica = 1", "ha.min_replica: there is no such setting; did you mean ha.min_replicas?"),
        ("[integrations.llm_sentinal]\nenabled = true", "integrations.llm_sentinal: there is no such setting; did you mean integrations.llm_sentinel?"),
        ('[dedup]\nxyzzy = 1', "dedup.xyzzy: there is no such setting; there are dedup_window"),
        ('[server]\nhttp_port = "eighty"', 'server.http_port: expected a whole number, not "eighty"'),
        ("[server]\nhttp_port = 80.5", "server.http_port: expected a whole number, not 80.5"),
        ("[server]\nhttp_port = true", "server.http_port: expected a whole number, not true"),
        ("[server]\nhttp_port = 0", "server.http_port: expected 1 or more, not 0"),
        ("[server]\nhttp_port = 65536", "server.http_port: expected at most 65535, not 65536"),
        ("[server]\nhttp_host = 1", "server.http_host: expected text in quotes, not 1"),
        ('[server]\nhold = "2m"', 'server.hold: expected at most 1m, not "2m"'),
        ('[server]\nhold = "5 minutes"', 'server.hold: expected a duration such as "30s", "5m", "1h" or "90d", not \'5 minutes\''),
        ('[playbooks]\nfolder = "books"', "playbooks.folder: expected an absolute path, not 'books': every process has a working folder of its own"),
        ('[messaging]\ntls_ca = "ca.pem"', "messaging.tls_ca: expected an absolute path, not 'ca.pem': every process has a working folder of its own"),
        ('[server]\nhttp_host = "*"', "server.http_host: expected an address such as 127.0.0.1, ::1 or 0.0.0.0, or a host name, not '*'"),
        ('[server]\nhttp_host = ""', "server.http_host: expected an address such as 127.0.0.1, ::1 or 0.0.0.0, or a host name, not ''"),
        ('[server]\nhttp_host = "127.0.0.1:80"', "server.http_host: expected an address such as 127.0.0.1, ::1 or 0.0.0.0, or a host name, not '127.0.0.1:80'"),
        ("[server]\nhold = -1", "server.hold: expected 0s or more, not -1"),
        ("[server]\nhold = true", 'server.hold: expected a duration such as "30s", not true'),
        ("[server]\nhold = nan", "server.hold: expected at most 1m, not nan"),
        ('[lifecycle]\nretention = "999999999w"', 'lifecycle.retention: expected at most 36500d, not "999999999w"'),
        ("[telemetry]\nsample_ratio = true", "telemetry.sample_ratio: expected a number, not true"),
        ('[telemetry]\nsample_ratio = "half"', 'telemetry.sample_ratio: expected a number, not "half"'),
        ("[telemetry]\nsample_ratio = 2", "telemetry.sample_ratio: expected at most 1.0, not 2"),
        ("server = 5", "server: expected a table, not 5"),
        ("[[server]]\nhttp_port = 1", 'server: expected a table, not [{"http_port":1}]'),
        ('[resource_limits]\nmax_sender_rate = "fast"', 'resource_limits.max_sender_rate: expected a rate such as "5000/s", not "fast"'),
        ('[resource_limits]\nsender_rates = {ci = "fast"}', 'resource_limits.sender_rates.ci: expected a rate such as "5000/s", or "none", not "fast"'),
        ('[[heartbeats.expected]]\nname = "a"\ninterval = "1h"\nseverity = "high"', 'heartbeats.expected[0].severity: expected P0, P1, P2, P3 or P4, not "high"'),
        ('[[pull.taxii]]\nname = "a"\nurl = "http://a/c"\nadded_after = "yesterday"', 'pull.taxii[0].added_after: expected a time such as "2026-01-31T12:00:00Z", not "yesterday"'),
        ('[grouping]\ngroup_by = "alertname"', 'grouping.group_by: expected a list, as in ["a", "b"], not "alertname"'),
        ("[grouping]\ngroup_by = [1]", "grouping.group_by[0]: expected text in quotes, not 1"),
        ('[grouping]\ngroup_by = ["..."]', 'grouping.group_by: "..." (all labels) would open an incident for every single alert: list the labels that distinguish one outage from another'),
        ('[grouping]\ngroup_by = ["alertname", "alert name"]', "grouping.group_by: expected label names such as cluster or k8s.pod.name, not 'alert name'"),
        ('[grouping]\ngroup_by = [""]', "grouping.group_by: expected label names such as cluster or k8s.pod.name, not ''"),
        ('[grouping]\ngroup_by = ["pod{"]', "grouping.group_by: expected label names such as cluster or k8s.pod.name, not 'pod{'"),
        ('[grouping]\nservice_labels = ["service name"]', "grouping.service_labels: expected label names such as cluster or k8s.pod.name, not 'service name'"),
        ('[grouping]\nservice_labels = ["..."]', "grouping.service_labels: expected label names such as cluster or k8s.pod.name, not '...'"),
        (f"[grouping]\ngroup_by = {['a'] * 17}", "grouping.group_by: expected at most 16 entries, not 17"),
        ('[state]\npath = ""', "state.path: must not be empty"),
        ('[state]\nbackend = "sqlit"', 'state.backend: expected sqlite, sled, redb, redis, postgres or cockroachdb, not "sqlit"; did you mean sqlite?'),
        ('[logging]\nlevel = "info"', 'logging.level: expected DEBUG, INFO, WARNING or ERROR, not "info"; did you mean INFO?'),
        ('[logging]\nlevel = "LOUD"', 'logging.level: expected DEBUG, INFO, WARNING or ERROR, not "LOUD"'),
        ('[classification]\nbuiltin_rules = "maybe"', 'classification.builtin_rules: expected true or false, not "maybe"'),
        ('[[classification.rules]]\nseverity = "P1"', "classification.rules[0].name: required, but missing"),
        ('[[classification.rules]]\nname = "a"\nseverty = "P1"', "classification.rules[0].severty: there is no such setting; did you mean severity?"),
        ('[[classification.rules]]\nname = "a"\nseverity = "P9"', 'classification.rules[0].severity: expected P0, P1, P2, P3 or P4, not "P9"'),
        ('[[classification.rules]]\nname = "a"\nwords = "("', "classification.rules[0].words: expected a regular expression in RE2's syntax, not '(': error parsing regexp: missing closing ): `^(?:()$`"),
        ('[resource_limits]\nmax_ingestion_rate = "lots"', 'resource_limits.max_ingestion_rate: expected a rate such as "5000/s", not "lots"'),
        ("[resource_limits]\nmax_concurrent_incidents = 0", "lifecycle.max_concurrent_incidents: expected 1 or more, not 0"),
        (
            "[lifecycle]\nmax_concurrent_incidents = 1\n[resource_limits]\nmax_concurrent_incidents = 2",
            "resource_limits.max_concurrent_incidents: set twice, also as lifecycle.max_concurrent_incidents",
        ),
        ("[server\n", 'not TOML: Expected \']\' at the end of a table declaration (at line 1, column 8)'),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_told_with_its_place_and_what_was_expected(text: str, said: str) -> None:
    assert problem(text) == f"llm-im.toml: {said}"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LLM_IM_SERVER__HTP_PORT", "1", "there is no such setting; did you mean LLM_IM_SERVER__HTTP_PORT?"),
        ("LLM_IM_SERVER_HTTP_PORT", "1", "there is no such setting; did you mean LLM_IM_SERVER__HTTP_PORT?"),
        ("LLM_IM_XYZ_XYZ_XYZ", "1", "there is no such setting; names are LLM_IM_SECTION__KEY, as in LLM_IM_SERVER__HTTP_PORT"),
        ("LLM_IM_SERVER__HTTP_PORT", "eighty", 'server.http_port: expected a whole number, not "eighty"'),
        ("LLM_IM_SERVER__HOLD", "5", "server.hold: expected a duration such as \"30s\", \"5m\", \"1h\" or \"90d\", not '5'"),
        ("LLM_IM_GROUPING__GROUP_BY", "[alertname", "grouping.group_by: expected JSON: JSON is malformed: invalid character (byte 1)"),
        ("LLM_IM_NOTIFY__WAIT", "5s", 'notify.wait: expected a table, not "5s"'),
        ("LLM_IM_NOTIFY__WAIT", '{"P7": "5s"}', "notify.wait.P7: there is no such setting; there are P0, P1, P2, P3, P4"),
        ("DEPLOYMENT_MODE", "workr", 'deployment.mode: expected standalone, worker, sidecar or ha, not "workr"; did you mean worker?'),
    ],
)  # fmt: skip
def test_a_mistake_in_the_environment_is_told_with_the_variable(name: str, value: str, said: str) -> None:
    assert problem(**{name: value}) == f"{name}: {said}"


def test_all_mistakes_are_told_at_once_each_with_its_source() -> None:
    said = problem("[server]\nhttp_port = 0\nhttp_prt = 1\n", LLM_IM_LOGGING__LEVEL="LOUD")

    assert said.splitlines() == [
        "3 settings are wrong:",
        "  llm-im.toml: server.http_prt: there is no such setting; did you mean server.http_port?",
        "  llm-im.toml: server.http_port: expected 1 or more, not 0",
        '  LLM_IM_LOGGING__LEVEL: logging.level: expected DEBUG, INFO, WARNING or ERROR, not "LOUD"',
    ]


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b'a = "\xff"')

    with pytest.raises(Malformed, match="nowhere: can't be read: No such file"):
        load(tmp_path / "nowhere")
    with pytest.raises(Malformed, match="binary: not TOML: expected UTF-8, but byte 5 is not"):
        load(tmp_path / "binary")
    with pytest.raises(Malformed, match="can't be read: Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ('[notify.webhook]\nurl = "s3cr3t"', {}),
        ('[notify]\nwebhook = "https://s3cr3t"', {}),
        ('notify = ["https://s3cr3t"]', {}),
        ('[notify.webhook]\nurl = ["s3cr3t"]', {}),
        ('[state]\nconnection_string = ["s3cr3t"]', {}),
        ("", {"LLM_IM_NOTIFY__WEBHOOK__URL": "s3cr3t"}),
        ("", {"LLM_IM_NOTIFY__WEBHOOK": '{"url": "s3cr3t"}'}),
        ("", {"LLM_IM_NOTIFY__WEBHOOK": '["s3cr3t"]'}),
        ("", {"LLM_IM_NOTIFY__WEBHOOK": "s3cr3t"}),
        ('[telemetry]\nheaders = {authorization = ["s3cr3t"]}', {}),
        ('[telemetry]\nheaders = {"a b" = "s3cr3t"}', {}),
        ('[telemetry]\nheaders = {a = "s3cr3t\\n"}', {}),
        ('[telemetry]\nheaders = "s3cr3t"', {}),
    ],
)
def test_no_mistake_shows_a_secret(text: str, variables: dict[str, str]) -> None:
    said = problem(text, **variables)

    assert "expected" in said
    assert "s3cr3t" not in said


_names = st.sampled_from(sorted({part for key in KEYS.values() for part in key.path})) | st.text(max_size=5)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=8,
)


@given(
    section=st.sampled_from(list(Settings.model_fields)), value=st.dictionaries(_names, _values, max_size=4)
)
def test_whatever_a_section_holds_it_is_taken_or_refused_in_words(section: str, value: object) -> None:
    variables = {f"LLM_IM_{section.upper()}": json.dumps(value)}
    with patch.dict(os.environ, variables, clear=True):
        try:
            loaded = load()
        except Malformed as error:
            assert f"LLM_IM_{section.upper()}: " in str(error)
        else:
            assert loaded.settings


# Durations


@given(st.integers(0, int(DURATION_MAX_S * 1000)))
def test_a_duration_is_written_as_it_is_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000

    assert duration_s(duration_text(seconds)) == pytest.approx(seconds, rel=1e-6)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0s"), (300.0, "5m"), (5400.0, "90m"), (0.25, "250ms"), (604800.0, "7d")]
)
def test_a_duration_has_the_largest_unit_that_is_exact(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


# The plan's samples, and other names


#: Sections of each sample that nothing answers yet, and what of it `llm-im up` refuses.
NOT_ACTIVE = {
    "llm_sentinel": (set(), ["integrations.llm_sentinel.auth_token_env"]),
    "llm_shield": ({"integrations"}, []),
    "llm_edge_agent": ({"integrations"}, ["integrations.llm_edge_agent.discovery_mode"]),
    "llm_governance_core": ({"integrations"}, ["integrations.llm_governance_core.auth_token_env"]),
    "standalone": (set(), []),
    "worker": (
        {"deployment", "coordination", "worker"},
        ["deployment.mode", "coordination.backend", "coordination.cluster_nodes"],
    ),
    "sidecar": ({"deployment", "sidecar", "local_actions", "forwarding"}, ["deployment.mode"]),
    "ha": (
        {"deployment", "ha", "failover", "disaster_recovery"},
        ["deployment.mode", "disaster_recovery.backup_interval", "failover.enabled"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_of_the_plan_loads_and_says_what_is_not_active_and_what_up_refuses(sample: Path) -> None:
    sections, refused = NOT_ACTIVE[sample.stem]

    loaded = load(sample)

    assert {key.path[0] for key in loaded.not_active()} == sections
    assert [each.split(" ")[0] for each in refusals(loaded.settings)] == refused


def test_the_settings_of_backups_are_active(tmp_path: Path) -> None:
    file = tmp_path / "llm-im.toml"
    file.write_text(
        '[disaster_recovery]\nbackup_target = "s3://bucket/llm-im"\nbackup_interval = "1h"\nbackup_retention = "30d"\n'
    )

    loaded = load(file)

    assert not loaded.not_active() and not refusals(loaded.settings)
    assert loaded.settings.disaster_recovery.backup_retention == 30 * 86400.0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('backup_target = "s3://key:secret@bucket/llm-im"', "without user, password or query"),
        ('backup_target = "s3://bucket/llm-im?token=x"', "without user, password or query"),
        ('backup_target = ""', "expected a folder or a URL"),
        ('backup_interval = "10s"', 'expected "1m" or more, or "none", not "10s"'),
    ],
)
def test_a_wrong_setting_of_backups_is_told_without_its_secret(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "llm-im.toml"
    file.write_text(f"[disaster_recovery]\n{line}\n")

    with pytest.raises(Malformed) as told:
        load(file)

    assert said in str(told.value) and "disaster_recovery." in str(told.value)
    assert "secret" not in str(told.value)


def test_sled_means_sqlite_and_is_told_and_the_plans_limit_is_ours() -> None:
    loaded = load(ROOT / "tests/data/config/standalone.toml")

    assert loaded.settings.state.backend == "sqlite"
    assert loaded.settings.state.path == "/var/lib/incident-manager/state"
    assert loaded.settings.lifecycle.max_concurrent_incidents == 10_000
    told = [notice.partition(": ")[2] for notice in loaded.notices]
    assert told == [
        "state.backend: sled is not available here; SQLite is used instead",
        "resource_limits.max_concurrent_incidents is read as lifecycle.max_concurrent_incidents",
    ]


def test_redb_means_sqlite_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_IM_STATE__BACKEND", "redb")

    loaded = load()

    assert loaded.settings.state.backend == "sqlite"
    assert loaded.notices == [
        "LLM_IM_STATE__BACKEND: state.backend: redb is not available here; SQLite is used instead"
    ]


@pytest.mark.parametrize(
    "sample",
    [path for path in SAMPLES if path.stem not in ("standalone", "llm_shield")],
    ids=lambda path: path.stem,
)
def test_what_is_not_built_is_refused_by_name_with_its_file(sample: Path) -> None:
    with pytest.raises(Refused) as raised:
        refuse(load(sample))

    said = str(raised.value).splitlines()
    assert said[0] == "nothing was started, because these settings can't be used or are not built yet:"
    assert all(line.startswith(f"  {sample}: ") for line in said[1:])


def test_the_kubernetes_examples_variables_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUST_LOG", "info,llm_incident_manager=debug")
    monkeypatch.setenv("DEPLOYMENT_MODE", "worker")
    monkeypatch.setenv("WORKER_TYPE", "all")
    monkeypatch.setenv("REDIS_CLUSTER_NODES", "redis-cluster:6379")
    monkeypatch.setenv("KAFKA_BROKERS", "kafka-0.kafka:9092,kafka-1.kafka:9092,kafka-2.kafka:9092")

    loaded = load()

    found = loaded.settings
    assert found.logging.level == "DEBUG"
    assert (found.deployment.mode, found.deployment.worker_type) == ("worker", "all")
    assert found.coordination.cluster_nodes == ["redis-cluster:6379"]
    assert len(found.messaging.brokers) == 3
    with pytest.raises(Refused, match=r"KAFKA_BROKERS: messaging\.brokers = .*: needs messaging\.backend"):
        refuse(loaded)


@pytest.mark.parametrize(
    ("filters", "level"),
    [("warn", "WARNING"), ("trace", "DEBUG"), ("hyper=debug", "INFO"), ("h2=off,llm_incident_manager=error", "ERROR"),
     ("", "INFO"), ("llm_incident_manager", "INFO"), ("nonsense", "INFO")],
)  # fmt: skip
def test_rust_log_sets_the_level_when_it_says_something_of_us(
    filters: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUST_LOG", filters)

    assert load_settings().logging.level == level


def test_our_own_variable_wins_over_another_name_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUST_LOG", "debug")
    monkeypatch.setenv("LLM_IM_LOGGING__LEVEL", "ERROR")

    assert load_settings().logging.level == "ERROR"


# The schema


@pytest.mark.parametrize("file", [*SAMPLES, ROOT / "llm-im.example.toml"], ids=lambda path: path.stem)
def test_the_schema_takes_the_samples_and_the_example(file: Path) -> None:
    jsonschema.Draft202012Validator(Settings.model_json_schema()).validate(tomllib.loads(file.read_text()))


@pytest.mark.parametrize(
    "wrong", [{"servr": {}}, {"server": {"http_port": 0}}, {"server": {"hold": "5 minutes"}}, {"logging": {"level": "LOUD"}}]
)  # fmt: skip
def test_the_schema_refuses_what_the_loader_refuses(wrong: object) -> None:
    assert not jsonschema.Draft202012Validator(Settings.model_json_schema()).is_valid(wrong)


# Secrets


def test_masked_settings_hold_no_secret_but_say_whether_it_is_the_same() -> None:
    def of(url: str) -> str:
        return masked_json(Settings.model_validate({"notify": {"webhook": {"url": url}}}))

    one = of("https://example.org/s3cr3t")

    assert "s3cr3t" not in one and "example.org" not in one
    assert one == of("https://example.org/s3cr3t") != of("https://example.org/other")
    # A gateway, which has only this, makes the same of it.
    assert masked_json(Settings.model_validate_json(one)) == one


def test_headers_of_the_receiver_of_traces_are_masked_each() -> None:
    settings = Settings.model_validate(
        {"telemetry": {"headers": {"authorization": "s3cr3t", "x-a": "s3cr3t"}}}
    )

    one = masked_json(settings)

    assert "s3cr3t" not in one
    assert masked_json(Settings.model_validate_json(one)) == one
    assert written(KEYS["telemetry.headers"], settings.telemetry.headers) == "********"


def test_a_secret_is_written_as_a_mask() -> None:
    settings = Settings.model_validate({"notify": {"webhook": {"url": "https://example.org/s3cr3t"}}})
    key = KEYS["notify.webhook.url"]

    assert written(key, key.of(settings)) == "********"
    assert written(key, key.of(Settings())) is None


# Stores


def redis(**values: object) -> Settings:
    return Settings.model_validate({"state": {"backend": "redis", "redis": values}})


def test_a_redis_with_its_url_is_no_refusal_and_all_of_it_reaches_the_adapters() -> None:
    settings = redis(url="redis://user:word@host:1/2", replicas=2, prefix="ours", replica_timeout="300ms")

    place = place_of(settings)

    assert refusals(settings) == []
    assert (place["backend"], place["replicas"], place["prefix"]) == ("redis", 2, "ours")
    assert (place["url"], place["replica_timeout_s"]) == ("redis://user:word@host:1/2", 0.3)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "state.redis.url: required"),
        ({"url": "https://:word@host"}, "state.redis.url: expected redis://"),
        (
            {"url": "redis+sentinel://:word@host"},
            "state.redis.url: the Sentinel service name is missing",
        ),
    ],
)
def test_a_redis_that_is_nowhere_stops_up_by_name_and_without_its_password(
    values: dict[str, str], why: str
) -> None:
    [refusal] = refusals(redis(**values))

    assert refusal.startswith(why)
    assert "word" not in refusal


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://:pass-w@host", "publish.redis.url: expected redis://"),
        ("redis+sentinel://:pass-w@host", "publish.redis.url: the Sentinel service name is missing"),
        ("redis://:pass-w@host:0", "publish.redis.url: a host can't be read"),
        ("redis+cluster://:pass-w@host/3", "publish.redis.url: a Redis Cluster has database 0 only"),
        ("redis://:pass-w@host?retry=pass-w", "publish.redis.url: 'retry' is not known"),
    ],
)
def test_a_feed_that_is_nowhere_stops_up_by_name_and_without_its_password(url: str, why: str) -> None:
    [refusal] = refusals(Settings.model_validate({"publish": {"redis": {"url": url}}}))

    assert refusal.startswith(why)
    assert "pass-w" not in refusal


def test_a_publisher_is_started_only_where_there_is_something_to_publish_to() -> None:
    without = Settings()
    with_feed = Settings.model_validate(
        {"publish": {"redis": {"url": "redis://:s3cr3t@127.0.0.1:1", "prefix": "x"}}}
    )

    assert [each.name for each in plan(without)] == [
        each.name for each in plan(with_feed) if each.name != PUBLISHER_ACTOR
    ]
    assert plan(with_feed)[-1].kind == "publisher"
    assert refusals(with_feed) == []
    assert "s3cr3t" not in masked_json(with_feed)


@pytest.mark.parametrize("backend", ["postgres", "cockroachdb"])
def test_a_postgresql_that_is_nowhere_stops_up_by_name(backend: str) -> None:
    [refusal] = refusals(Settings.model_validate({"state": {"backend": backend}}))

    assert refusal == f'state.postgres.url: required, because state.backend = "{backend}"'


def stored(backend: str, **state: object) -> Settings:
    """Settings of a store that is somewhere."""
    where = {
        "redis": {"url": "redis+sentinel://h/main", "replicas": 1},
        "postgres": {"url": "postgresql://u:pass-word@h/d"},
    }
    return Settings.model_validate({"state": {"backend": backend, **where, **state}})


@pytest.mark.parametrize("backend", ["sqlite", "redis", "postgres", "cockroachdb"])
def test_no_store_answers_before_it_is_durable_and_who_asks_for_that_is_refused(backend: str) -> None:
    [refusal] = refusals(stored(backend, consistency="eventual"))

    assert refusal.startswith('state.consistency = "eventual": ')


@pytest.mark.parametrize(
    ("backend", "state", "refused"),
    [
        ("sqlite", {"consistency": "strong"}, None),
        ("sqlite", {"replication": "synchronous"}, "state.replication: SQLite does not replicate"),
        ("redis", {"consistency": "strong"}, 'state.consistency = "strong": a Redis failover can lose'),
        ("redis", {"consistency": "strong", "redis": {"url": "redis://h"}}, None),
        ("redis", {"replication": "synchronous"}, "state.replication: for Redis, set the number of replicas in state.redis.replicas"),
        ("postgres", {"consistency": "strong", "replication": "synchronous"}, None),
        ("postgres", {"replication": "multi-region"}, "state.replication: this store offers 'synchronous' or nothing"),
        ("cockroachdb", {"consistency": "strong", "replication": "multi-region"}, None),
        ("cockroachdb", {"replication": "synchronous"}, "state.replication: this store offers 'multi-region' or nothing"),
    ],
)  # fmt: skip
def test_consistency_and_replication_are_what_the_store_offers_or_refused_by_name(
    backend: str, state: dict[str, object], refused: str | None
) -> None:
    found = refusals(stored(backend, **state))

    assert len(found) == (refused is not None)
    assert all(refused is not None and each.startswith(refused) for each in found)


def test_the_plans_connection_string_is_the_url_of_postgresql_and_stays_a_secret() -> None:
    loaded = load(ROOT / "tests/data/config/ha.toml")

    url = loaded.settings.state.postgres.url
    assert url is not None
    assert url.get_secret_value() == "postgresql://cockroach:26257/incidents?sslmode=verify-full"
    assert any(
        each.endswith("state.connection_string is read as state.postgres.url") for each in loaded.notices
    )
    assert "26257" not in repr(loaded.settings)


@pytest.mark.parametrize(
    ("written", "address", "is_loopback"),
    [
        ("[::1]", "::1", True),
        ("0:0:0:0:0:0:0:1", "::1", True),
        ("0:0:0:0:0:0:0:0", "::", False),
        ("127.0.0.2", "127.0.0.2", True),
        ("2001:DB8::7", "2001:db8::7", False),
        ("LocalHost", "localhost", True),
        ("llm-im.example.org", "llm-im.example.org", False),
    ],
)
def test_an_address_has_one_way_to_be_written(written: str, address: str, is_loopback: bool) -> None:
    server = Settings.model_validate({"server": {"http_host": written}}).server

    assert (server.http_host, server.is_loopback) == (address, is_loopback)


@pytest.mark.parametrize("ports", ["probe_port = 8080", "http_port = 9090\nprobe_port = 9090"])
def test_the_port_for_probes_is_another_one(ports: str) -> None:
    assert problem(f"[server]\n{ports}") == (
        "llm-im.toml: server.probe_port: expected a different port than server.http_port"
    )


# -- the webhook's URL ------------------------------------------------------------------------------------------

WEBHOOK = "LLM_IM_NOTIFY__WEBHOOK__URL"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://", "a host"), ("https:///s3cr3t", "a host"), ("http://?s3cr3t", "a host"), ("http:s3cr3t", "a host"),
        ("//host/s3cr3t", "a host"), ("ftp://host/s3cr3t", "http:// or https://"), ("http:\\\\host\\s3cr3t", "a host"),
        ("http://user:s3cr3t@", "valid host name"), ("http://:80/s3cr3t", "valid host name"), ("http://host:/s3cr3t", "a port of 1"),
        ("http://host:0/s3cr3t", "a port of 1"), ("http://host:65536/s3cr3t", "a port of 1"),
        ("http://host:s3cr3t/", "a port of 1"), ("http://[::1/s3cr3t", "valid host name"), ("http://[::g]/s3cr3t", "valid host name"),
        ("http://ho<st/s3cr3t", "valid host name"), ("http://host/s3cr3t\n", "control characters"),
        ("http://host/\x00s3cr3t", "control characters"), ("http://host/\x7fs3cr3t", "control characters"),
        (" http://host/s3cr3t", "control characters"), ("http://host/a s3cr3t", "control characters"),
        ("http://host/hook?sig=a#s3cr3t", "without #"), ("http://$HOST/s3cr3t", "valid host name"), ("http://{{host}}/s3cr3t", "valid host name"),
        ("http://*/s3cr3t", "valid host name"), ("http://a,b/s3cr3t", "valid host name"), ("http://./s3cr3t", "valid host name"),
        ("http://a..b/s3cr3t", "valid host name"), ("http://-a/s3cr3t", "valid host name"), ("http://%41/s3cr3t", "valid host name"),
        (f"http://{'a' * 64}/s3cr3t", "valid host name"), (f"http://{'a.' * 127}a/s3cr3t", "valid host name"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("setting", ["url", "external_url"])
def test_a_url_that_cannot_be_called_is_refused_by_name_and_not_repeated(
    url: str, said: str, setting: str
) -> None:
    problems = problem(f"[notify.webhook]\n{setting} = {json.dumps(url)}")

    assert problems.startswith(f"llm-im.toml: notify.webhook.{setting}: expected a")
    assert said in problems and "s3cr3t" not in problems


@pytest.mark.parametrize(
    "url",
    [
        "http://host", "https://example.org/hook?sig=a%2Fb&x=%zz", "HTTP://Host:1/", "http://[::1]:9/h", "http://127.0.0.1/",
        "http://my_service:8080/x", "https://user:p%40ss@example.org./", "https://bücher.example/ü?q=ü", "http://h?x=1",
    ],
)  # fmt: skip
def test_a_url_that_can_be_called_is_taken_as_it_is_written(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WEBHOOK, url)

    found = load().settings.notify.webhook.url

    assert found is not None and found.get_secret_value() == url


@pytest.mark.parametrize("nobody", ["", "none", "NONE", " "])
def test_an_empty_url_and_none_say_that_nobody_is_told(nobody: str) -> None:
    Path("llm-im.toml").write_text(f'[notify.webhook]\nurl = "{nobody}"\n')

    assert load().settings.notify.webhook.url is None


@pytest.mark.parametrize("nobody", ["none", "NONE"])
def test_a_variable_says_that_nobody_is_told_whatever_the_file_says(
    nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("llm-im.toml").write_text('[notify.webhook]\nurl = "https://example.org/hook"\n')
    monkeypatch.setenv(WEBHOOK, nobody)

    assert load().settings.notify.webhook.url is None


# What a command does not need


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.name)
def test_an_empty_variable_counts_as_unset(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of(key), "")

    assert load().sources == {}


def test_an_empty_variable_of_an_unknown_name_or_another_spelling_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LLM_IM_NONSENSE", "LLM_IM_NOTIFY", "LLM_IM_CONFIG", *VARIABLES):
        monkeypatch.setenv(name, "")

    assert load().sources == {}


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "LLM_IM_SERVICE_HOST": "10.0.0.7",
        "LLM_IM_SERVICE_PORT": "8080",
        "LLM_IM_SERVICE_PORT_HTTP": "8080",
        "LLM_IM_PORT": "tcp://10.0.0.7:8080",
        "LLM_IM_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        "LLM_IM_PORT_8080_TCP_PROTO": "tcp",
        "LLM_IM_PORT_8080_TCP_PORT": "8080",
        "LLM_IM_PORT_8080_TCP_ADDR": "10.0.0.7",
    }.items():
        monkeypatch.setenv(name, value)

    assert load().sources == {}


def test_only_the_sections_that_are_needed_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("llm-im.toml").write_text('nonsense = 1\n[server]\nhttp_port = 0\n[state]\npath = "here"\n', "utf-8")
    monkeypatch.setenv("DEPLOYMENT_MODE", "production")
    monkeypatch.setenv("LLM_IM_NONSENSE", "1")

    loaded = load(only=("state",))

    assert loaded.settings.state.path == "here"
    assert list(loaded.sources) == ["state.path"]
    with pytest.raises(Malformed, match=r"state\.pth"):
        Path("llm-im.toml").write_text("[state]\npth = 1\n", "utf-8")
        load(only=("state",))


@pytest.mark.parametrize(
    "broken",
    ["[server", "[server]]\nhttp_port = 1", "notify.webhook.url = http://x", "x = 'a", "= 5", "\x00", 'y = """', "[state]", "a.b = 1\na = 2",
     "\ufffd\ufffd", "x = [1,"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["before", "behind"])
def test_leniently_a_broken_line_costs_only_itself(broken: str, place: str) -> None:
    good = '[state]\npath = "here"\n'
    Path("llm-im.toml").write_text(
        f"{broken}\n{good}" if place == "before" else f"{good}[other]\n{broken}\n", "utf-8"
    )

    loaded = load(only=("state.path",), leniently=True)

    assert loaded.notices and "llm-im.toml: not TOML" in loaded.notices[0]
    takes_in_what_follows = ('y = """', "x = [1,", "x = 'a", "[state]")
    if place == "behind" or broken not in takes_in_what_follows:
        assert loaded.settings.state.path == "here"


def test_leniently_a_wrong_value_is_told_and_the_default_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_IM_SERVER__HTTP_PORT", "eighty")
    monkeypatch.setenv("LLM_IM_SERVER__HTTP_HOST", "::1")

    loaded = load(only=("server.http_host", "server.http_port"), leniently=True)

    assert (loaded.settings.server.http_host, loaded.settings.server.http_port) == ("::1", 8080)
    assert loaded.notices == [
        'LLM_IM_SERVER__HTTP_PORT: server.http_port: expected a whole number, not "eighty"'
    ]


def test_leniently_a_file_that_was_named_and_can_t_be_opened_is_refused_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Malformed, match="can't be read"):
        load(Path("nowhere.toml"), leniently=True)
    monkeypatch.setenv("LLM_IM_CONFIG", "nowhere.toml")
    assert "can't be read" in load(leniently=True).notices[0]


def test_what_is_done_with_a_topic_is_said_by_its_name() -> None:
    def of(*topics: str) -> tuple[str, str, str]:
        found = Settings.model_validate(
            {"messaging": {"backend": "kafka", "brokers": ["kafka-1"], "topics": [*topics]}}
        ).messaging
        return found.ingest, found.process, found.orchestrate

    assert of("incidents.ingest", "incidents.process", "incidents.orchestrate") == (
        "incidents.ingest",
        "incidents.process",
        "incidents.orchestrate",
    )
    assert of("alerts", "eu.process") == ("alerts", "eu.process", "")
    assert of("incidents.orchestrate") == ("", "", "incidents.orchestrate")
    for wrong in (("one", "two"), ("incidents.ingest", "other"), ("a.process", "b.process")):
        with pytest.raises(ValueError, match="expected"):
            of(*wrong)


def test_a_broker_that_is_only_written_to_has_an_announcer_and_no_collector() -> None:
    def kinds(*topics: str) -> set[str]:
        found = Settings.model_validate(
            {"messaging": {"backend": "nats", "brokers": ["nats"], "topics": [*topics]}}
        )
        return {each.kind for each in plan(found)} & {"announcer", "collector"}

    assert kinds("incidents.process") == {"announcer"}
    assert kinds("incidents.ingest") == {"collector"}
    assert kinds("incidents.ingest", "incidents.process") == {"announcer", "collector"}
