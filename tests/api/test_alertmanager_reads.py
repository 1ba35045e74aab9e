"""The reading half of Alertmanager's API, against answers that Debian's Alertmanager 0.25 gave."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml
from starlette.testclient import TestClient

import services.api.reads as reads
from models.errors import Busy
from models.incidents.query import AlertView
from models.settings.all import Settings
from services.api.alertmanager.status import config_yaml
from tests.api.stand_in import AWAY, NOW, StandIn, alert

UUID = "11111111-1111-1111-1111-111111111111"


def client(stand_in: StandIn, settings: Settings | None = None) -> TestClient:
    return TestClient(stand_in.app(settings))


def labelled(labels: dict[str, str]) -> AlertView:
    return msgspec.structs.replace(alert(), labels=labels)


def test_an_alert_is_shown_with_alertmanagers_fields_in_its_order() -> None:
    shown = msgspec.structs.replace(
        alert("b", alertname="A", severity="critical"),
        annotations={"summary": "x"},
        generator_url="http://g/1",
    )

    answer = client(StandIn(alerts=[shown])).get("/api/v2/alerts")

    assert answer.headers["content-type"] == "application/json"
    # Alertmanager's own bytes for this alert, times apart.
    assert answer.text == (
        '[{"annotations":{"summary":"x"},"endsAt":"0001-01-01T00:00:00.000Z","fingerprint":"2d59daaaba83e7ba",'
        '"receivers":[{"name":"llm-im"}],"startsAt":"2026-01-02T03:04:05.678Z","status":{"inhibitedBy":[],'
        '"mutedBy":[],"silencedBy":[],"state":"active"},"updatedAt":"2026-01-02T03:04:05.678Z",'
        '"generatorURL":"http://g/1","labels":{"alertname":"A","service":"b","severity":"critical"}}]\n'
    )


def test_an_alert_without_generator_leaves_the_url_out() -> None:
    [shown] = client(StandIn(alerts=[alert()])).get("/api/v2/alerts").json()

    assert "generatorURL" not in shown


def test_alerts_come_from_all_shards_and_pages_in_the_order_of_their_fingerprints() -> None:
    stand_in = StandIn(shards=3, page=2, alerts=[alert(f"s{number}") for number in range(20)])

    shown = client(stand_in).get("/api/v2/alerts").json()

    assert len(shown) == 20
    assert [each["fingerprint"] for each in shown] == sorted(each["fingerprint"] for each in shown)


def test_only_firing_alerts_are_listed() -> None:
    stand_in = StandIn(alerts=[alert("a"), alert("b", firing=False, ends_at=NOW)])

    shown = client(stand_in).get("/api/v2/alerts").json()

    assert [each["labels"]["service"] for each in shown] == ["a"]


@pytest.mark.parametrize(
    ("query", "services"),
    [
        ("filter=service=a", ["a"]),
        ('filter=service=~"a|b"&filter=x!=1', ["b"]),
        ('filter={service=~"a|b",x=1}', ["a"]),
        ("filter=gone=", ["a", "b"]),
        ("active=false", []),
        ("active=maybe", []),
        ("active=", ["a", "b"]),
        ("active=TRUE", ["a", "b"]),
        ("silenced=false&inhibited=false&unprocessed=false", ["a", "b"]),
        ("receiver=llm-im", ["a", "b"]),
        ("receiver=llm-.*", ["a", "b"]),
        ("receiver=llm", []),
        ("receiver=", ["a", "b"]),
        ("receiver_matchers=owner=", ["a", "b"]),
        ("receiver_matchers=owner=x", []),
        ("receiver_matchers=owner!=x&receiver_matchers=owner=~.*", ["a", "b"]),
        ("muted=false&silenced=true", ["a", "b"]),
        ('filter="service"="a"', ["a"]),
    ],
)
@pytest.mark.parametrize("path", ["alerts", "alerts/groups"])
def test_alerts_and_groups_are_filtered_as_in_alertmanager(
    path: str, query: str, services: list[str]
) -> None:
    stand_in = StandIn(alerts=[alert("a", x="1"), alert("b")])

    shown = client(stand_in).get(f"/api/v2/{path}?{query}").json()

    if path == "alerts/groups":
        shown = [each for group in shown for each in group["alerts"]]
    assert sorted(each["labels"]["service"] for each in shown) == services


@pytest.mark.parametrize("path", ["alerts", "alerts/groups", "silences"])
def test_a_bad_filter_is_400_with_a_bare_string(path: str) -> None:
    answer = client(StandIn()).get(f"/api/v2/{path}", params={"filter": "[bad"})

    assert (answer.status_code, answer.json()) == (400, "bad matcher format: [bad")


@pytest.mark.parametrize("path", ["alerts", "alerts/groups", "receivers"])
def test_a_bad_receiver_matcher_is_400_with_a_bare_string(path: str) -> None:
    answer = client(StandIn()).get(f"/api/v2/{path}", params={"receiver_matchers": "[bad"})

    assert (answer.status_code, answer.json()) == (400, "bad matcher format: [bad")


def test_receivers_are_chosen_by_their_labels_of_which_ours_has_none() -> None:
    ours = client(StandIn())

    assert ours.get("/api/v2/receivers").json() == [{"name": "llm-im"}]
    assert ours.get("/api/v2/receivers?receiver_matchers=owner=x").json() == []


#: Alertmanager 0.34's own description of its API (Apache License 2.0), as it stands in its repository.
OPENAPI = yaml.safe_load((Path(__file__).parents[1] / "data/alertmanager/openapi-0.34.yaml").read_text())


@pytest.mark.parametrize("path", ["/alerts", "/alerts/groups", "/status", "/receivers", "/silences"])
def test_answers_are_those_that_alertmanager_describes(path: str) -> None:
    shown = msgspec.structs.replace(
        labelled({"service": "api", "service.name": "x"}), generator_url="http://g/1"
    )
    answer = client(StandIn(alerts=[shown, alert("b")])).get(f"/api/v2{path}")

    schema = OPENAPI["paths"][path]["get"]["responses"]["200"]["schema"]
    jsonschema.Draft4Validator({**schema, "definitions": OPENAPI["definitions"]}).validate(answer.json())
    assert answer.json() or path == "/silences"


@pytest.mark.parametrize("path", ["alerts", "alerts/groups"])
def test_a_bad_receiver_is_400_with_alertmanagers_words(path: str) -> None:
    answer = client(StandIn()).get(f"/api/v2/{path}", params={"receiver": "("})

    wanted = "failed to parse receiver param: error parsing regexp: missing closing ): `^(?:()$`"
    assert (answer.status_code, answer.json()) == (400, wanted)


@pytest.mark.parametrize("path", ["alerts", "alerts/groups"])
def test_a_shard_that_cannot_answer_makes_it_a_503_that_names_it(path: str) -> None:
    stand_in = StandIn(alerts=[alert("a"), alert("b")], silent={1: AWAY})

    answer = client(stand_in).get(f"/api/v2/{path}")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == "shard/0001 cannot answer: it is restarting"


def test_every_shard_that_cannot_answer_is_named() -> None:
    stand_in = StandIn(shards=3, silent={0: AWAY, 2: Busy("its queue is full")})

    answer = client(stand_in).get("/api/v2/alerts")

    assert (
        answer.json()
        == "shard/0000 cannot answer: it is restarting; shard/0002 cannot answer: its queue is full"
    )


def test_too_many_alerts_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "ALERTS_MAX", 5)
    stand_in = StandIn(alerts=[alert(f"s{number}") for number in range(6)])

    answer = client(stand_in).get("/api/v2/alerts")

    assert (answer.status_code, answer.json()) == (400, "more than 5 alerts match: narrow the filter")


def test_a_refused_read_gives_back_what_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "ALERTS_HELD_MAX", 5)
    stand_in = StandIn(alerts=[alert(f"s{number}") for number in range(6)])
    asked = client(stand_in)

    refused = asked.get("/api/v2/alerts")
    fewer = asked.get("/api/v2/alerts?filter=service=s1")

    assert (refused.status_code, fewer.status_code) == (503, 200)


def test_groups_and_their_alerts_stand_in_alertmanagers_order() -> None:
    """The same alerts gave this order in Debian's Alertmanager with group_by [service, alertname]; alerts
    without job and instance have none there."""
    more = [
        {"alertname": "G", "job": "z"},
        {"alertname": "G", "job": "a", "instance": "2"},
        {"alertname": "G", "job": "a", "instance": "1", "x": "1"},
        {"alertname": "G"},
        {"alertname": "G", "q": "1"},
        {"alertname": "G", "p": "1"},
    ]
    stand_in = StandIn(alerts=[labelled({"service": "b", **labels}) for labels in more])
    stand_in.alerts += [alert("b", alertname="A"), alert("a", alertname="A"), alert("only")]

    groups = client(stand_in).get("/api/v2/alerts/groups").json()

    assert [group["labels"] for group in groups] == [
        {"service": "only"},
        {"alertname": "A", "service": "a"},
        {"alertname": "A", "service": "b"},
        {"alertname": "G", "service": "b"},
    ]
    assert [each["labels"] for each in groups[3]["alerts"]] == [
        {"service": "b", **more[index]} for index in (2, 1, 0, 3, 4, 5)
    ]
    assert groups[0]["receiver"] == {"name": "llm-im"}


def test_the_status_has_all_that_clients_require() -> None:
    status = client(StandIn()).get("/api/v2/status").json()

    assert status["cluster"]["status"] == "ready"
    assert status["uptime"] == "2026-01-02T03:04:05.678Z"
    assert status["versionInfo"]["version"].startswith("0.34.0+llm-im.")
    assert set(status["versionInfo"]) == {
        "branch",
        "buildDate",
        "buildUser",
        "goVersion",
        "revision",
        "version",
    }


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"grouping": {"group_by": ["service", "alertname", "alertname", "k8s.pod.name"]}},
        {"notify": {"wait": {"P2": "90s"}, "webhook": {"url": "http://u:secret@h/"}}},
        {"lifecycle": {"resolve_timeout": "1ms"}, "notify": {"wait": {"P2": 0}}},
        {"grouping": {"group_by": [], "service_labels": ["a:b"]}},
    ],
)
def test_the_configuration_shown_is_valid_for_amtool_and_keeps_secrets(
    changed: dict[str, object], tmp_path: Path
) -> None:
    amtool = shutil.which("amtool")
    if amtool is None:
        pytest.skip("amtool is not installed: apt-get install prometheus-alertmanager")
    shown = config_yaml(Settings.model_validate(changed))
    (tmp_path / "alertmanager.yml").write_text(shown)

    checked = subprocess.run(
        [amtool, "check-config", tmp_path / "alertmanager.yml"], capture_output=True, text=True
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr + shown
    assert "secret" not in shown


def test_there_is_one_receiver_and_no_silence() -> None:
    asked = client(StandIn())

    assert asked.get("/api/v2/receivers").json() == [{"name": "llm-im"}]
    assert asked.get("/api/v2/silences").json() == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_silence_is_unknown_or_its_id_is_none(method: str) -> None:
    asked = client(StandIn())

    unknown = asked.request(method, f"/api/v2/silence/{UUID}")
    no_id = asked.request(method, "/api/v2/silence/abc")

    assert (unknown.status_code, unknown.content) == (404, b"")
    wanted = {"code": 601, "message": 'silenceID in path must be of type uuid: "abc"'}
    assert (no_id.status_code, no_id.json()) == (422, wanted)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("alerts", "GET,POST"),
        ("alerts/groups", "GET"),
        ("status", "GET"),
        ("silences", "GET,POST"),
        (f"silence/{UUID}", "DELETE,GET"),
    ],
)
def test_a_wrong_method_is_405_in_alertmanagers_shape(path: str, allowed: str) -> None:
    answer = client(StandIn()).put(f"/api/v2/{path}")

    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json() == {"code": 405, "message": f"method PUT is not allowed, but [{allowed}] are"}


def test_an_unknown_path_is_404_in_alertmanagers_shape() -> None:
    answer = client(StandIn()).get("/api/v2/nothing")

    assert (answer.status_code, answer.json()) == (
        404,
        {"code": 404, "message": "path /api/v2/nothing was not found"},
    )


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_the_probes_of_alertmanager_are_there(path: str) -> None:
    asked = client(StandIn(silent={0: AWAY, 1: AWAY}))

    assert (asked.get(path).status_code, asked.get(path).text) == (200, "OK")
    assert (asked.head(path).status_code, asked.head(path).content) == (200, b"")


def test_labels_of_any_text_are_shown_as_json() -> None:
    odd = alert("a", x='"\\\x00\n\u2028é\U0001f600')

    answer = client(StandIn(alerts=[odd])).get("/api/v2/alerts")

    assert json.loads(answer.content)[0]["labels"] == odd.labels
