"""What a person sees of `llm-im`: help, errors and exit codes. No system runs here; a stand-in answers HTTP."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main
from typer.testing import CliRunner, Result

from models import VERSION
from services.cli.commands import send
from services.cli.main import app
from services.cli.shared import terminal, where
from services.cli.shared.client import Client
from tests.cli import incident_server
from tests.ports import free_port

pytestmark = pytest.mark.usefixtures("elsewhere")

ROOT = Path(__file__).resolve().parents[2]
IDS = (
    "019ab000-0000-7001-8000-00000000aaaa",
    "019ab000-1111-7001-8000-00000000bbbb",
    "019ab000-2222-7001-8000-0000000cbbbb",
)


def commands(group: Any, prefix: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Every command that there is, as its words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        else:
            yield [*prefix, name]


COMMANDS = list(commands(typer.main.get_command(app)))


def run(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=stdin, prog_name="llm-im")


def incident(identity: str, **changes: Any) -> dict[str, Any]:
    return incident_server.incident(1, id=identity, **changes)


class StandIn:
    """Answers as the real one would, with what a test puts into `answers`; keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, object]]] = {}
        self.asked: list[tuple[str, bytes]] = []
        self.retry_after = "0.1"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append((self.path, body))
                known = outer.answers.get(self.path.partition("?")[0]) or [
                    (404, {"detail": f"there is no {self.path}"})
                ]
                status, answer = known.pop(0) if len(known) > 1 else known[0]
                encoded = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(encoded)))
                self.send_header("Retry-After", outer.retry_after)
                self.end_headers()
                self.wfile.write(encoded)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.005,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[StandIn]:
    made = StandIn()
    yield made
    made.server.shutdown()
    made.server.server_close()


def silent_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


# Help


@pytest.mark.parametrize(
    "words",
    [[], ["incidents"], ["alerts"], ["log"], ["context"], ["tokens"], ["config"], *COMMANDS],
    ids=" ".join,
)
def test_every_command_explains_itself_and_its_exit_codes(words: list[str]) -> None:
    result = run(*words, "--help")

    assert result.exit_code == 0
    assert "Exit codes: 0 done" in " ".join(result.output.split())


def test_help_comes_quickly_and_imports_neither_ray_nor_pydantic() -> None:
    code = (
        "import sys\nfrom services.cli import main\n"
        "print([m for m in ('ray', 'pydantic', 'aiohttp', 'fastapi', 'apsw', 'msgspec') if m in sys.modules])"
    )

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
    # Computed, not waited: others may compute beside it.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3, "it takes 0.2 s"


def test_version() -> None:
    assert run("--version").output == f"llm-im {VERSION}\n"


def test_an_unknown_option_is_a_usage_error() -> None:
    assert run("incidents", "list", "--severety", "P1").exit_code == 2


# Nobody there


@pytest.mark.parametrize(
    "words", [["incidents", "list"], ["incidents", "show", IDS[0]], ["send", "alertname=X"]]
)
def test_a_port_where_nobody_listens_is_told_with_what_to_do(words: list[str]) -> None:
    url = silent_url()

    result = run(*words, "--url", url)

    assert result.exit_code == 3
    assert result.stderr == (
        f"llm-im: cannot reach {url}: connection refused, nothing listens there. Is the address right (--url, --context)? On its machine: llm-im status\n"
    )


def test_status_of_nothing_is_3_and_advises_nothing_that_would_start_a_second_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLM_IM_SERVER__HTTP_PORT", silent_url().rpartition(":")[2])
    monkeypatch.setenv("LLM_IM_URL", "")  # as good as none

    result = run("status")

    assert result.exit_code == 3
    assert f"nothing was ever started on {tmp_path / 'var'}" in result.stderr
    assert "llm-im up" not in result.stderr and "--data" in result.stderr


def test_status_of_a_folder_that_was_used_says_how_to_start_it_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLM_IM_SERVER__HTTP_PORT", silent_url().rpartition(":")[2])
    folder = tmp_path / "data dir #1 ü"
    (folder / "store").mkdir(parents=True)

    result = run("status", "--data", str(folder))

    assert result.exit_code == 3
    assert f"up --data '{folder}'" in result.stderr


def test_status_of_a_folder_on_which_nothing_runs_is_3_though_another_system_answers(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_IM_SERVER__HTTP_PORT", server.url.rpartition(":")[2])
    server.answers["/health/ready"] = [(200, {"status": "ready", "degraded": []})]

    result, for_programs = run("status"), run("status", "--json")

    assert (result.exit_code, for_programs.exit_code) == (3, 3)
    assert f"status --url {server.url}" in result.stderr
    assert json.loads(for_programs.stdout)["state"] == "silent"


def test_status_after_a_crash_says_that_it_was_one(tmp_path: Path) -> None:
    from services.machine.instance import Instance

    url = silent_url()
    left = Instance(
        "f" * 16, "127.0.0.1:1", "127.0.0.1", int(url.rpartition(":")[2]), 0, VERSION, "/nowhere", 1.0, {}
    )
    (tmp_path / "var" / "run").mkdir(parents=True)
    (tmp_path / "var" / "run" / "instance.json").write_bytes(msgspec.json.encode(left))

    result = run("status")

    assert result.exit_code == 3
    assert f"nothing answers at {url}: it ended without `llm-im down`, or is just starting" in result.stderr


def test_down_where_nothing_runs_is_no_failure(tmp_path: Path) -> None:
    result = run("down", "--data", str(tmp_path / "data"))

    assert result.exit_code == 0
    assert result.output == f"nothing runs on {tmp_path / 'data'}\n"


@pytest.mark.parametrize(
    "url",
    ["http://", "ftp://127.0.0.1", "http://127.0.0.1:http", "http://127.0.0.1:", "http://[::1", "http://[::1]:", "http://[::1]:x",
     "http://a b", "http://x/a b", "http://x/ü", "http://" + "a" * 70, "http://.x", "http://x:65536", "http://x/?a=b"],
)  # fmt: skip
def test_an_address_that_is_none_is_a_usage_error(url: str) -> None:
    result = run("incidents", "list", "--url", url)

    assert result.exit_code == 2
    assert "expected something like http://127.0.0.1:8080" in result.stderr


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [("http://[::1]", "::1", None), ("[::1]:8080", "::1", 8080), ("https://[::1]/x", "::1", None), ("http://bücher.example", "bücher.example", None),
     ("127.0.0.1", "127.0.0.1", None), ("http://x:80/prefix/", "x", 80)],
)  # fmt: skip
def test_an_address_may_leave_the_port_out(url: str, host: str, port: int | None) -> None:
    client = Client(url if "://" in url else f"http://{url}")

    assert (client._host, client._port) == (host, port)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    result = run("incidents", "list", "--url", "http://me:geheim@127.0.0.1:1")

    assert result.exit_code == 2
    assert "--token-file" in result.stderr
    assert "geheim" not in result.output + result.stderr


def test_a_setting_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_IM_SERVER__HTTP_PORT", "eighty")

    read, started = run("status"), run("up")

    assert (read.exit_code, started.exit_code) == (3, 1)
    assert "ignored: LLM_IM_SERVER__HTTP_PORT" in read.stderr
    assert "LLM_IM_SERVER__HTTP_PORT" in started.stderr


@pytest.mark.parametrize(
    "broken", ["x = ", "[server]\nhtp_port = 1\n", "[lifecycle]\nretention = 7\n", "\x00\xff"]
)
@pytest.mark.parametrize("name", ["DEPLOYMENT_MODE", "WORKER_TYPE", "KAFKA_BROKERS", "REDIS_CLUSTER_NODES", "RUST_LOG",
                                  "LLM_IM_NONSENSE", "LLM_IM_SERVICE_HOST"])  # fmt: skip
def test_neither_a_broken_file_nor_a_foreign_variable_keeps_anybody_from_reading_and_ending(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, name: str
) -> None:
    monkeypatch.setenv(name, "production")
    (tmp_path / "llm-im.toml").write_text(f'[state]\npath = "here"\n[other]\n{broken}')
    (tmp_path / "here" / "run").mkdir(parents=True)
    port = int(server.url.rpartition(":")[2])
    (tmp_path / "here" / "run" / "instance.json").write_text(
        json.dumps({"http_host": "127.0.0.1", "http_port": port})
    )
    server.answers["/v1/incidents"] = [(200, {"items": [], "next": None})]

    listed = run("incidents", "list")
    (tmp_path / "here" / "run" / "instance.json").unlink()
    down = run("down")

    assert (listed.exit_code, listed.stdout) == (0, "no open incidents\n")
    assert down.exit_code == 0 and f"nothing runs on {tmp_path / 'here'}\n" in down.stdout


def test_down_needs_no_settings_when_it_is_told_the_folder(tmp_path: Path) -> None:
    result = run("down", "--config", "nowhere.toml", "--data", "x")

    assert (result.exit_code, result.output) == (0, f"nothing runs on {tmp_path / 'x'}\n")


def test_the_address_is_that_of_what_was_started_here(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "var" / "run").mkdir(parents=True)
    port = int(server.url.rpartition(":")[2])
    (tmp_path / "var" / "run" / "instance.json").write_text(
        json.dumps({"http_host": "0.0.0.0", "http_port": port})
    )
    server.answers["/v1/incidents"] = [(200, {"items": [], "next": None})]

    result = run("incidents", "list")

    assert (result.exit_code, result.output) == (0, "no open incidents\n")


# Up


def test_up_says_who_holds_the_port_and_leaves_nothing_behind(server: StandIn, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]

    result = run("up", "--port", port, "--data", str(tmp_path / "data"))

    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.stderr
    assert f"pid {os.getpid()}" in result.stderr
    assert "llm-im up --port" in result.stderr
    assert not (tmp_path / "data" / "run" / "instance.json").exists()


# Status


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, {"status": "ready", "degraded": []}, 0),
        (200, {"status": "degraded", "degraded": ["shard/0001"], "reasons": {"shard/0001": "away"}}, 4),
        (503, {"status": "starting", "degraded": []}, 4),
        (503, {"status": "unavailable", "degraded": ["shard/0000"], "reasons": {"shard/0000": "away"}}, 4),
        (200, "<html>", 3),
    ],
)
def test_status_has_an_exit_code_for_each_state(
    server: StandIn, status: int, body: object, code: int
) -> None:
    server.answers["/health/ready"] = [(status, body)]

    assert run("status", "--url", server.url).exit_code == code
    assert run("status", "--url", server.url, "--json").exit_code == code


def test_status_names_the_shards_that_are_away_and_sums_what_is_open(server: StandIn) -> None:
    server.answers["/health/ready"] = [
        (
            200,
            {
                "status": "degraded",
                "degraded": ["shard/0001"],
                "reasons": {"shard/0001": "recovering"},
                "notifications": "off: notify.enabled is false (up --no-notify)",
            },
        )
    ]
    server.answers["/metrics"] = [
        (200, '# HELP x\nllm_im_open_incidents{actor="a"} 3\nllm_im_open_incidents{actor="b"} 4\n'
              'llm_im_open_series{actor="a"} 1200\nother 1\n')
    ]  # fmt: skip

    result = run("status", "--url", server.url)

    assert result.exit_code == 4
    assert result.output.splitlines() == [
        "state          degraded: not answering: shard/0001",
        f"url            {server.url}",
        "shard/0001     recovering",
        "notifications  off: notify.enabled is false (up --no-notify)",
        "open           at least 7 incidents, 1,200 alerts, without those of shard/0001",
    ]


def test_status_counts_all_that_is_open_while_a_queue_is_away(server: StandIn) -> None:
    health = {"status": "degraded", "degraded": ["nats"], "reasons": {"nats": "can't reach nats-1:4222"}}
    server.answers["/health/ready"] = [(200, health)] * 2
    server.answers["/metrics"] = [(200, 'llm_im_open_incidents{actor="a"} 3\n')] * 2

    said, read = (run("status", "--url", server.url, *more) for more in ([], ["--json"]))

    assert said.output.splitlines() == [
        "state  degraded: not answering: nats",
        f"url    {server.url}",
        "nats   can't reach nats-1:4222",
        "open   3 incidents, 0 alerts",
    ]
    assert json.loads(read.stdout)["counts_complete"]


def test_status_says_in_json_whether_all_was_counted(server: StandIn) -> None:
    metrics = (200, 'llm_im_open_incidents{actor="a"} 3\n')
    server.answers["/metrics"] = [metrics, metrics]
    server.answers["/health/ready"] = [
        (200, {"status": "degraded", "degraded": ["shard/0001"], "reasons": {}}),
        (200, {"status": "ready", "degraded": []}),
    ]

    part, whole = (json.loads(run("status", "--url", server.url, "--json").stdout) for _ in range(2))

    assert (part["open_incidents"], part["counts_complete"]) == (3, False)
    assert (whole["open_incidents"], whole["counts_complete"]) == (3, True)


# Send


def test_send_makes_an_alert_of_its_arguments(server: StandIn) -> None:
    item = {
        "index": 0,
        "status": 202,
        "decision": "opened",
        "reason": "first of its group",
        "incident_id": IDS[0],
    }
    server.answers["/v1/alerts"] = [(202, {"items": [item]})]

    result = run(
        "send", "alertname=X", "service=a=b", "-a", "summary=it is slow", "--resolved", "--url", server.url
    )

    assert result.exit_code == 0
    assert result.output == f"alert 0: opened  incident {IDS[0]}  (first of its group)\n"
    assert json.loads(server.asked[0][1]) == {
        "labels": {"alertname": "X", "service": "a=b"},
        "annotations": {"summary": "it is slow"},
        "status": "resolved",
        "source": "llm-im",
    }


def test_send_says_which_alerts_were_refused_and_fails(server: StandIn, tmp_path: Path) -> None:
    items = [
        {"index": 0, "status": 202, "decision": "joined", "reason": "new series", "incident_id": None},
        {"index": 1, "status": 400, "error": "labels: at least one label is required"},
    ]
    server.answers["/v1/alerts"] = [(207, {"items": items})]
    (tmp_path / "a.json").write_text('[{"labels": {"alertname": "X"}}, {"labels": {}}]')

    result = run("send", "a.json", "--url", server.url)

    assert result.exit_code == 1
    assert "alert 1: refused: labels: at least one label is required" in result.stderr
    assert "1 of 2 alerts are stored, 1 are not" in result.stdout


def test_send_reads_lines_from_stdin_and_answers_json(server: StandIn) -> None:
    server.answers["/v1/alerts"] = [
        (202, {"items": [{"index": 0, "status": 202}, {"index": 1, "status": 202}]})
    ]

    result = run(
        "send", "-", "--json", "--url", server.url, stdin='{"labels":{"a":"1"}}\n{"labels":{"a":"2"}}\n'
    )

    assert result.exit_code == 0
    assert json.loads(result.output)["sent"] == 2
    assert server.asked[0][1] == b'{"labels":{"a":"1"}}\n{"labels":{"a":"2"}}'


def test_send_tries_again_when_the_server_is_busy(server: StandIn) -> None:
    server.answers["/v1/alerts"] = [
        (503, {"detail": "shard-0000-a is recovering"}),
        (202, {"items": [{"index": 0, "status": 202, "decision": "opened"}]}),
    ]

    result = run("send", "alertname=X", "--url", server.url)

    assert result.exit_code == 0
    assert len(server.asked) == 2


def test_send_gives_up_on_a_server_that_stays_busy(server: StandIn) -> None:
    server.answers["/v1/alerts"] = [(503, {"detail": "shard-0000-a is recovering"})]

    result = run("send", "alertname=X", "--url", server.url)

    assert result.exit_code == 4
    assert "answered 503: shard-0000-a is recovering" in result.stderr
    assert len(server.asked) == send.TRIES


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([{"index": 0, "status": 503, "error": "shard/0001 is away"}], 4),
        (
            [{"index": 0, "status": 202, "decision": "opened"}, {"index": 1, "status": 503, "error": "away"}],
            4,
        ),
        (
            [
                {"index": 0, "status": 400, "error": "labels: required"},
                {"index": 1, "status": 503, "error": "away"},
            ],
            4,
        ),
        ([{"index": 0, "status": 400, "error": "labels: required"}], 1),
    ],
)
def test_send_says_by_its_exit_code_whether_to_send_again(
    server: StandIn, items: list[dict[str, object]], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "TRIES", 1)
    server.answers["/v1/alerts"] = [(503 if items[0]["status"] == 503 else 207, {"items": items})]

    assert run("send", "alertname=x", "--url", server.url).exit_code == code


@pytest.mark.parametrize(
    "text",
    [
        b'{"labels": {"a": "b"}}',
        b'{"labels": {"a": "b"}}\n{"labels": {"a": "c"}}\n',
        b'[{"labels": {"a": "b"}}]',
    ],
)
@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_file(text: bytes, mark: str) -> None:
    assert list(send.split(text.decode().encode(mark))) == list(send.split(text))


@pytest.mark.parametrize("words", [[], ["alertname"], ["a=1", "b"], ["=1", "a=2"], ["a=1", "-a", "x"]])
def test_send_refuses_what_is_no_alert(words: list[str]) -> None:
    result = run("send", *words, "--url", silent_url())

    assert result.exit_code == 2
    assert result.stderr.startswith("llm-im: ")


def test_a_large_file_goes_in_batches_that_keep_their_places() -> None:
    alerts = [{"labels": {"alertname": f"a{place}"}} for place in range(send.BATCH_MAX * 2 + 5)]

    batches = list(send.split(json.dumps(alerts).encode()))

    assert [batch.first for batch in batches] == [0, send.BATCH_MAX, send.BATCH_MAX * 2]
    assert [alert for batch in batches for alert in json.loads(batch.body)] == alerts


def test_what_is_no_json_goes_as_it_is_so_that_the_server_says_why() -> None:
    batches = list(send.split(b'{"labels": {"a": "1"}}\n{"labels": oops}\n\n'))

    assert [batch.body for batch in batches] == [b'{"labels": {"a": "1"}}\n{"labels": oops}']


# Incidents


def test_incidents_are_listed_whole_for_a_pipe(server: StandIn) -> None:
    server.answers["/v1/incidents"] = [(200, {"items": [incident(IDS[0], title="x" * 300)], "next": None})]

    result = run("incidents", "list", "--state", "Triaged", "--severity", "P1", "--url", server.url)

    assert result.exit_code == 0
    head, line = result.output.splitlines()
    assert head.split() == [
        "ID",
        "SEV",
        "STATE",
        "AGE",
        "FIRING",
        "DUE",
        "OWNER",
        "SERVICE",
        "ALERTNAME",
        "TITLE",
    ]
    assert line.startswith(f"{IDS[0]}  P1   Triaged")
    assert "x" * 300 in line
    assert server.asked[0][0] == "/v1/incidents?state=Triaged&severity=P1&limit=51"


def test_pages_are_followed_up_to_the_limit(server: StandIn) -> None:
    server.answers["/v1/incidents"] = [
        (200, {"items": [incident(IDS[0])], "next": "c1"}),
        (200, {"items": [incident(IDS[1])], "next": "c2"}),
    ]

    result = run("incidents", "list", "--json", "-n", "1", "--url", server.url)

    found = json.loads(result.output)
    assert [item["id"] for item in found["items"]] == [IDS[0]]
    assert found["more"] is True


def test_labels_cannot_steer_the_terminal(server: StandIn) -> None:
    server.answers["/v1/incidents"] = [
        (200, {"items": [incident(IDS[0], title="\x1b[31mred[/] [bold]\u202ehidden\nline")], "next": None})
    ]

    result = run("incidents", "list", "--url", server.url)

    assert "\x1b" not in result.output
    assert "\ufffd[31mred[/] [bold]\ufffdhidden line" in result.output


def test_show_tells_alerts_reasons_and_history(server: StandIn) -> None:
    path = f"/v1/incidents/{IDS[0]}"
    alert = {
        "fingerprint": "00000000000000aa", "generator_url": "http://prometheus.example/graph?g0.expr=up", "firing": True, "labels": {"service": "llm-api", "alertname": "HighLatency", "a": "1"}, "source": "prometheus",
        "annotations": {"summary": "p99 is 4 s"}, "starts_at": "2026-01-31T12:00:00.000Z",
        "last_seen_at": "2026-01-31T12:00:00.000Z",
        "why": [{"decision": "opened", "reason": "first alert of its group", "count": 1},
                {"decision": "repeated", "reason": "same series", "count": 1200}],
    }  # fmt: skip
    entry = {
        "timestamp": "2026-01-31T12:00:00.000Z",
        "event_type": "Created",
        "actor": "shard",
        "description": "opened",
    }
    server.answers[path] = [(200, incident(IDS[0], alerts=51))]
    ended = {**alert, "fingerprint": "00000000000000bb", "firing": False, "generator_url": ""}
    server.answers[f"{path}/alerts"] = [
        (200, {"items": [alert], "next": None}),
        (200, {"items": [{**ended, "fingerprint": f"{n:016x}"} for n in range(51)], "next": "1"}),
    ]
    server.answers[f"{path}/timeline"] = [(200, {"items": [entry], "dropped": 3})]

    result = run("incidents", "show", IDS[0], "--url", server.url)

    assert result.exit_code == 0
    for told in (
        "P1 HighLatency",
        "severity      P1  (by severity label, confidence 1.00)",
        "firing  alertname=HighLatency service=llm-api a=1",
        "summary: p99 is 4 s",
        "why: repeated x1,200: same series",
        "and 1 more",
        "(3 earlier entries are no longer kept)",
        "opened  (shard)",
    ):
        assert told in result.output


def test_an_id_may_be_shortened_to_its_end(server: StandIn) -> None:
    server.answers["/v1/incidents"] = [
        (200, {"items": [incident(identity) for identity in IDS], "next": None})
    ]

    assert (
        f"there is no /v1/incidents/{IDS[0]};" in run("incidents", "show", "aaaa", "--url", server.url).stderr
    )


@pytest.mark.parametrize(
    ("part", "code", "words"),
    [
        ("bbbb", 2, "may be any of 2 incidents"),
        ("019ab000", 2, "may be any of 3 incidents"),
        ("dddd", 5, "none of the newest"),
        ("abc", 2, "is not an incident id"),
        ("HighLatency", 2, "is not an incident id"),
    ],
)
def test_an_id_that_names_none_or_several_is_refused(
    server: StandIn, part: str, code: int, words: str
) -> None:
    server.answers["/v1/incidents"] = [
        (200, {"items": [incident(identity) for identity in IDS], "next": None})
    ]

    result = run("incidents", "show", part, "--url", server.url)

    assert result.exit_code == code
    assert words in result.stderr


def test_a_shard_that_is_away_makes_a_list_fail_with_its_name(server: StandIn) -> None:
    server.answers["/v1/incidents"] = [
        (503, {"title": "Unavailable", "detail": "shard/0001 does not answer"})
    ]

    result = run("incidents", "list", "--url", server.url)

    assert result.exit_code == 4
    assert "shard/0001 does not answer" in result.stderr


# Words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (59.9, "59s"), (61, "1m 1s"), (3600, "1h"), (3661, "1h 1m"), (90061, "1d 1h"), (-5, "0s")],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert terminal.duration(seconds) == words


# What is printed to be typed


def test_commands_that_up_prints_are_quoted_for_the_shell(tmp_path: Path) -> None:
    from models.settings.all import Settings
    from services.cli.commands.up import _what_now
    from services.cli.in_ray import Request

    folder, config = str(tmp_path / "data dir #1 ü"), str(tmp_path / "it's.toml")
    settings = Settings.model_validate({"state": {"path": folder}})

    told = _what_now(
        "http://127.0.0.1:1", settings, Request("deploy", config, folder, None, owned=True), False
    )

    (down,) = [line for line in told.splitlines() if line.startswith("  stop it")]
    words = shlex.split(down.partition("   (")[0])
    assert words[-3:] == ["down", "--data", folder]
    first = shlex.split(where.first_token(Path(config), settings))
    assert first[-4:] == ["--config", config, "--data", folder]


def test_up_says_where_data_stays() -> None:
    from models.settings.all import Settings
    from services.cli.commands.up import _where_data_stays

    redis = {"state": {"backend": "redis", "redis": {"url": "redis://:geheim@h", "prefix": "im"}}}
    postgres = {"state": {"backend": "postgres", "postgres": {"url": "postgresql://u:geheim@h/d"}}}

    assert _where_data_stays(Settings.model_validate(redis)).startswith("Redis")
    assert _where_data_stays(Settings.model_validate(postgres)).startswith("postgres")
    assert _where_data_stays(Settings.model_validate({"state": {"path": "/x"}})) == "/x"
