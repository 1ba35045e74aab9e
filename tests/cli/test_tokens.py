"""`llm-im tokens` as a person uses it: against a real gateway over HTTP, and --local where nothing runs."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from services.cli.main import app
from services.cli.shared import local_control
from services.cli.shared.where import settings_of
from services.wiring.slots import control_state
from tests.api.gateway_in_process import system


def run(*words: str, stdin: str | None = None, **environment: str) -> Result:
    return CliRunner().invoke(app, list(words), input=stdin, env=environment, prog_name="llm-im")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder and none of our variables."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("LLM_IM_", "RAY_"))]:
        monkeypatch.delenv(name)
    yield
    structlog.reset_defaults()  # --local makes it quiet, for its own process


@pytest.fixture
def server() -> Iterator[str]:
    """A gateway's URL. In a thread: a command blocks while it waits for an answer."""
    begun, ended = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with system() as ours:
            found.append(f"http://127.0.0.1:{await ours.listen()}")
            begun.set()
            while not ended.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert begun.wait(20)
        yield found[0]
    finally:
        ended.set()
        thread.join(20)


@pytest.fixture
def admin(server: str) -> Callable[..., Result]:
    """Runs a command as an admin of that server."""
    secret = run("tokens", "create", "admin", "--scope", "admin", "--url", server).stdout.strip()

    def as_admin(*words: str, **more: str) -> Result:
        return run(*words, LLM_IM_TOKEN=secret, LLM_IM_URL=server, **more)

    return as_admin


# By HTTP


def test_the_secret_alone_is_on_stdout(server: str) -> None:
    made = run("tokens", "create", "admin", "--scope", "admin", "--url", server)

    assert made.exit_code == 0
    assert made.stdout.startswith("llmim_") and made.stdout.count("\n") == 1
    assert "may admin" in made.stderr and "llmim_" not in made.stderr


def test_a_token_is_made_listed_rotated_and_revoked(admin: Callable[..., Result], server: str) -> None:
    old = admin(
        "tokens", "create", "p", "--scope", "ingest:*", "--scope", "read", "--expires-in", "90d"
    ).stdout.strip()
    new = admin("tokens", "rotate", "p", "--overlap", "1h").stdout.strip()
    listed = json.loads(admin("tokens", "list", "--json").stdout)["items"]
    table = admin("tokens", "list").stdout

    both = [run("incidents", "list", "--url", server, LLM_IM_TOKEN=each).exit_code for each in (old, new)]
    revoked = admin("tokens", "revoke", "p")
    after = run("incidents", "list", "--url", server, LLM_IM_TOKEN=new)

    assert old != new and both == [0, 0]
    assert [each["name"] for each in listed] == ["admin", "p"]
    assert "ingest:*,read" in table and "llmim_" not in table
    assert (revoked.exit_code, after.exit_code) == (0, 7)
    assert "not known here" in after.stderr


def test_a_token_is_bound_to_labels(admin: Callable[..., Result]) -> None:
    bound = ("--match", 'team="pay"', "--match", "env!=dev")
    made = admin("tokens", "create", "ci", "--scope", "ingest:v1", *bound)
    local = run("tokens", "create", "admin", "--scope", "admin", *bound, "--local")
    refused = admin("tokens", "create", "x", "--scope", "respond", "--scope", "ingest:v1", *bound)

    assert 'only alerts with team="pay", env!=dev' in made.stderr
    assert 'team="pay", env!=dev' in " ".join(admin("tokens", "list").stdout.split())
    for each in (local, refused):
        assert each.exit_code != 0
        assert "can resolve anything" in each.output


def test_the_last_admin_is_not_revoked_without_force(admin: Callable[..., Result]) -> None:
    refused = admin("tokens", "revoke", "admin")
    still = admin("tokens", "list")
    gone = admin("tokens", "revoke", "admin", "--force")

    assert (refused.exit_code, still.exit_code, gone.exit_code) == (6, 0, 0)
    assert "Make another one first" in refused.stderr and "--force" in refused.stderr
    assert admin("tokens", "list").exit_code == 7


def test_a_token_that_there_is_not_is_5(admin: Callable[..., Result]) -> None:
    assert [admin("tokens", verb, "nope").exit_code for verb in ("rotate", "revoke")] == [5, 5]


def test_json_has_the_whole_answer(admin: Callable[..., Result]) -> None:
    made = json.loads(admin("tokens", "create", "p", "--scope", "read", "--json").stdout)

    assert made["name"] == "p" and made["token"].startswith(f"llmim_{made['id']}_")


def test_out_writes_a_file_that_only_its_owner_reads_and_never_over_another(
    admin: Callable[..., Result], tmp_path: Path
) -> None:
    made = admin("tokens", "create", "p", "--scope", "read", "--out", "p.token")
    again = admin("tokens", "create", "q", "--scope", "read", "--out", "p.token")

    file = tmp_path / "p.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("llmim_") and "llmim_" not in made.output
    assert again.exit_code == 2
    assert "q" not in [each["name"] for each in json.loads(admin("tokens", "list", "--json").stdout)["items"]]


def test_a_token_comes_from_a_file_from_stdin_or_from_the_environment(
    admin: Callable[..., Result], server: str, tmp_path: Path
) -> None:
    secret = admin("tokens", "create", "reader", "--scope", "read").stdout
    (tmp_path / "t").write_text(secret)

    results = [
        run("incidents", "list", "--url", server, "--token-file", "t"),
        run("incidents", "list", "--url", server, "--token-file", "-", stdin=secret),
        run("incidents", "list", "--url", server, LLM_IM_TOKEN_FILE="t"),
        run("incidents", "list", "--url", server, LLM_IM_TOKEN_FILE="t", LLM_IM_TOKEN="llmim_wrong"),
        run("incidents", "list", LLM_IM_URL=server, LLM_IM_TOKEN=f" {secret}"),
    ]

    assert [each.exit_code for each in results] == [0] * 5, [each.output for each in results]


def test_without_a_token_one_hears_how_to_give_one(admin: Callable[..., Result], server: str) -> None:
    result = run("incidents", "list", "--url", server)

    assert result.exit_code == 7
    assert "--token-file" in result.stderr and "LLM_IM_TOKEN" in result.stderr


def test_without_the_scope_one_hears_which(admin: Callable[..., Result], server: str) -> None:
    secret = admin("tokens", "create", "reader", "--scope", "read").stdout.strip()

    sent = run("send", "alertname=A", "--url", server, LLM_IM_TOKEN=secret)
    made = run("tokens", "create", "x", "--scope", "admin", "--url", server, LLM_IM_TOKEN=secret)

    assert (sent.exit_code, made.exit_code) == (7, 7)
    assert "'ingest:v1'" in sent.stderr and "'admin'" in made.stderr


def test_status_needs_no_token_for_how_it_is(admin: Callable[..., Result], server: str) -> None:
    # The server is in this process, and logs that it refused a caller.
    without = json.loads(run("status", "--json", "--url", server).stdout.splitlines()[-1])
    with_one = json.loads(admin("status", "--json").stdout.splitlines()[-1])

    assert without["state"] == "ready" and "open_incidents" not in without
    assert with_one["open_incidents"] == 0


@pytest.mark.parametrize(
    "held", ["", "two words", "llmim_\x00", "é", "a\nb", "x" * 500], ids=["nothing", "words", "nul", "not ascii", "lines", "long"]
)  # fmt: skip
def test_a_file_that_holds_no_token_is_refused_and_not_shown(held: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(held)

    result = run("incidents", "list", "--token-file", "t")

    assert result.exit_code == 2
    assert "t holds no token" in result.stderr
    assert not held or held not in result.output


def test_a_token_file_that_is_not_there_is_a_usage_error() -> None:
    result = run("incidents", "list", "--token-file", "nowhere")

    assert result.exit_code == 2
    assert "nowhere" in result.stderr


def test_no_command_takes_a_token_as_an_argument() -> None:
    import typer.main

    def options(command: object) -> Iterator[str]:
        for each in getattr(command, "commands", {}).values():
            yield from options(each)
        for each in getattr(command, "params", []):
            yield from each.opts

    assert "--token-file" in set(options(typer.main.get_command(app)))
    assert not {"--token", "--secret", "--password"} & set(options(typer.main.get_command(app)))


# --local


def test_the_first_token_can_be_made_before_the_first_start() -> None:
    made = run("tokens", "create", "admin", "--scope", "admin", "--local")
    listed = json.loads(run("tokens", "list", "--local", "--json").stdout)["items"]

    assert made.exit_code == 0, made.output
    assert [each["name"] for each in listed] == ["admin"]
    assert listed[0]["created_by"].startswith("local")
    state = asyncio.run(control_state(settings_of(None)))
    assert state.guarded
    assert state.slots is None, "how many partitions there are is decided by the first start"


def test_local_tokens_are_rotated_and_revoked() -> None:
    old = run("tokens", "create", "admin", "--scope", "admin", "--local").stdout
    new = run("tokens", "rotate", "admin", "--overlap", "0s", "--local").stdout
    refused = run("tokens", "revoke", "admin", "--local")
    gone = run("tokens", "revoke", "admin", "--local", "--force")

    assert new.startswith("llmim_") and old != new
    assert (refused.exit_code, gone.exit_code) == (6, 0)
    assert "last token with the scope 'admin'" in refused.stderr
    assert json.loads(run("tokens", "list", "--local", "--json").stdout)["items"] == []


def test_while_another_writer_holds_the_log_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.runtime.clock import SystemClock
    from models.control.control import CONTROL
    from services.wiring.bootstrap import open_log

    async def take() -> None:
        held = open_log(settings_of(None), CONTROL)
        await held.open("control-a", SystemClock().now(), 60.0)
        await held.close()

    asyncio.run(take())
    monkeypatch.setattr(local_control, "PATIENCE_S", 0.5)

    result = run("tokens", "create", "admin", "--scope", "admin", "--local")

    assert result.exit_code == 4
    assert "another process holds it" in result.stderr
    assert not asyncio.run(control_state(settings_of(None))).guarded


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["create", "x", "--scope", "read"], 6, "first token needs the scope 'admin'"),
        (["create", "x", "--scope", "root"], 1, "expected one or more of"),
        (["create", "", "--scope", "admin"], 1, "name: expected"),
        (["create", "x", "--scope", "admin", "--expires-in", "soon"], 2, 'expires_in: expected a duration such as "30s"'),
        (["rotate", "x"], 5, "there is no token 'x'"),
        (["revoke", "x"], 5, "there is no token 'x'"),
    ],
)  # fmt: skip
def test_what_can_not_be_done_locally_is_refused_in_words(words: list[str], code: int, says: str) -> None:
    result = run("tokens", *words, "--local")

    assert result.exit_code == code
    assert says in result.stderr


# up


def test_up_refuses_a_public_address_without_a_token_and_says_how_to_make_one() -> None:
    result = run("up", LLM_IM_SERVER__HTTP_HOST="0.0.0.0")

    assert result.exit_code == 1
    assert "server.http_host 0.0.0.0" in result.stderr
    assert "tokens create admin --scope admin --local" in result.stderr


def test_up_refuses_a_public_address_that_lets_everybody_in() -> None:
    run("tokens", "create", "admin", "--scope", "admin", "--local")

    result = run("up", LLM_IM_SERVER__HTTP_HOST="192.0.2.1", LLM_IM_AUTH__REQUIRED="false")

    assert result.exit_code == 1
    assert "auth.required = false" in result.stderr


@pytest.mark.parametrize(
    ("environment", "token", "says", "guarded"),
    [
        ({}, False, "no API tokens: anyone who can reach this machine can do anything", False),
        ({}, True, "", True),
        ({"LLM_IM_AUTH__REQUIRED": "false"}, True, "no tokens are required", False),
        ({"LLM_IM_AUTH__REQUIRED": "true"}, False, "every request gets 401. Create the first:", True),
        ({"LLM_IM_SERVER__HTTP_HOST": "0.0.0.0", "LLM_IM_AUTH__REQUIRED": "true"}, False, "gets 401", True),
        ({"LLM_IM_SERVER__HTTP_HOST": "0.0.0.0"}, True, "", True),
    ],
)  # fmt: skip
def test_up_says_who_gets_in(
    environment: dict[str, str], token: bool, says: str, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.cli.commands.up import _who_gets_in

    if token:
        run("tokens", "create", "admin", "--scope", "admin", "--local")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []

    settings = settings_of(None)
    assert _who_gets_in(settings, asyncio.run(control_state(settings)), "make it", said.append) is guarded
    assert bool(said) is bool(says)
    assert says in "".join(said)
