"""Contexts: which system a command talks to, and that a token goes nowhere else and is shown to nobody."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app
from services.cli.shared import context_file as contexts
from tests.cli.incident_server import IncidentServer, incident, serving

SECRET = "llm-im-token-0123456789"

pytestmark = pytest.mark.usefixtures("elsewhere")


def run(*words: str, stdin: str | None = None, **env: str) -> Result:
    return CliRunner().invoke(app, list(words), input=stdin, prog_name="llm-im", env=env)


@pytest.fixture
def prod(incidents: IncidentServer) -> IncidentServer:
    """A server that is the context `prod`, whose token is in a file."""
    Path("token").write_text(SECRET + "\n")
    assert run("context", "add", "prod", "--url", incidents.url, "--token-file", "token").exit_code == 0
    return incidents


def test_the_first_context_is_used_and_its_token_is_sent(prod: IncidentServer) -> None:
    assert run("incidents", "list").exit_code == 0

    assert prod.asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert "x-actor" not in prod.asked[0].headers


def test_the_file_is_for_its_owner_only_and_holds_no_token_that_it_was_not_asked_to(
    prod: IncidentServer,
) -> None:
    file = contexts.path()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert SECRET not in file.read_text()
    assert tomllib.loads(file.read_text())["contexts"]["prod"]["token_file"] == str(Path("token").absolute())


def test_a_token_is_kept_in_the_file_when_asked_for_and_never_shown(incidents: IncidentServer) -> None:
    added = run("context", "add", "prod", "--url", incidents.url, "--store-token", stdin=SECRET + "\n")
    shown = [run("context", "show"), run("context", "list"), run("context", "list", "-o", "json"), added]

    assert all(result.exit_code == 0 and SECRET not in result.output for result in shown)
    assert "token    this file" in shown[0].output
    run("incidents", "list")
    assert incidents.asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert stat.S_IMODE(contexts.path().stat().st_mode) == 0o600


def test_a_token_comes_from_a_variable(incidents: IncidentServer) -> None:
    run("context", "add", "prod", "--url", incidents.url, "--token-env", "PROD_TOKEN")

    missing = run("incidents", "list")
    run("incidents", "list", PROD_TOKEN=SECRET)

    assert "the token should be in the variable PROD_TOKEN, which is not set" in missing.stderr
    assert [each.headers["authorization"] for each in incidents.asked] == [f"Bearer {SECRET}"]


def test_what_stands_nearer_wins(prod: IncidentServer) -> None:
    with serving() as other:
        run("context", "add", "other", "--url", other.url)
        for words, env in (
            (["--url", other.url], {"LLM_IM_CONTEXT": "prod"}),
            (["--context", "other"], {"LLM_IM_URL": prod.url}),
            ([], {"LLM_IM_URL": other.url, "LLM_IM_CONTEXT": "prod"}),
            ([], {"LLM_IM_CONTEXT": "other"}),
        ):
            assert run("incidents", "list", *words, **env).exit_code == 0

        assert len(other.asked) == 4
        assert not prod.asked
        assert not [each for each in other.asked if "authorization" in each.headers]


def test_a_contexts_token_goes_to_its_own_url_only(prod: IncidentServer) -> None:
    with serving() as other:
        run("incidents", "list", "--url", other.url)
        run("incidents", "list", LLM_IM_URL=other.url, LLM_IM_TOKEN="for-the-other")
        run("incidents", "list", LLM_IM_TOKEN="for-the-other")

        assert [each.headers.get("authorization") for each in other.asked] == [None, "Bearer for-the-other"]
        assert prod.asked[0].headers["authorization"] == f"Bearer {SECRET}"


def test_a_token_file_goes_before_the_contexts_token(prod: IncidentServer) -> None:
    Path("mine").write_text("mine-0123\n")

    run("incidents", "list", "--token-file", "mine")
    run("incidents", "list", "--token-file", "-", stdin="piped-0123\n")
    run("incidents", "list", "--url", prod.url, LLM_IM_TOKEN_FILE="mine", LLM_IM_TOKEN="passed-over")
    missing = run("incidents", "list", "--token-file", "no-such-file")

    assert [each.headers["authorization"].removeprefix("Bearer ") for each in prod.asked] == [
        "mine-0123", "piped-0123", "mine-0123",
    ]  # fmt: skip
    assert (missing.exit_code, "can't read the token in no-such-file" in missing.stderr) == (2, True)


def test_a_refused_token_is_told_without_it(prod: IncidentServer) -> None:
    from tests.cli.incident_server import Answer

    prod.next_answers = [Answer(401, {"detail": "the token has expired"})]

    result = run("incidents", "list")

    assert result.exit_code == 7
    assert "the token has expired; give another token" in result.stderr
    assert SECRET not in result.stderr


@pytest.mark.parametrize("token", ["two\r\nX-Admin: 1", "ünïcode", "tab\tin", "two words", "x" * 500])
def test_what_can_be_no_token_is_refused_and_not_shown(incidents: IncidentServer, token: str) -> None:
    result = run("incidents", "list", "--url", incidents.url, LLM_IM_TOKEN=token)

    assert result.exit_code == 2
    assert token not in result.output
    assert not incidents.asked


def test_use_list_show_and_remove(prod: IncidentServer) -> None:
    run("context", "add", "dev", "--url", "http://127.0.0.1:8081")
    assert run("context", "list", "-o", "csv").output.splitlines() == [
        '"used","name","url","token"',
        '"false","dev","http://127.0.0.1:8081","none"',
        f'"true","prod","{prod.url}","file {Path("token").absolute()}"',
    ]
    assert run("context", "use", "dev").output == "context dev is now in use\n"
    assert "url      http://127.0.0.1:8081" in run("context", "show").output
    assert run("context", "remove", "dev").output == "context dev is removed; none is in use\n"
    assert json.loads(run("context", "list", "-o", "json").output)["items"][0]["current"] is False
    assert run("context", "show").exit_code == 5
    assert run("context", "use", "prod").exit_code == 0
    assert run("context", "use", "-").output == "no context is now in use\n"


def test_a_variable_that_wins_over_use_is_told(prod: IncidentServer) -> None:
    result = run("context", "use", "prod", LLM_IM_CONTEXT="dev")

    assert "but LLM_IM_CONTEXT is set to dev" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["use", "nowhere"], 5, "there are: prod"),
        (["show", "nowhere"], 5, "there are: prod"),
        (["remove", "nowhere"], 5, "there are: prod"),
        (["add", "prod", "--url", "http://127.0.0.1"], 6, "replace it with --force"),
        (["add", "a b", "--url", "http://127.0.0.1"], 2, "not a valid context name"),
        (["add", "x", "--url", "ftp://127.0.0.1"], 2, "is not a valid URL"),
        (["add", "x", "--url", "http://a", "--token-file", "t", "--token-env", "T"], 2, "give one"),
        (["add", "x", "--url", "http://a", "--store-token"], 2, "stdin holds no token"),
    ],
)
def test_a_wrong_context_command_changes_nothing(
    prod: IncidentServer, words: list[str], code: int, told: str
) -> None:
    before = contexts.path().read_bytes()

    result = run("context", *words, stdin="")

    assert result.exit_code == code
    assert told in result.stderr
    assert contexts.path().read_bytes() == before


def test_a_token_over_plain_http_is_warned_about() -> None:
    result = run("context", "add", "far", "--url", "http://incidents.example.org", "--token-env", "T")

    assert "unencrypted over the network" in result.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("contexts = 1", "expected a table"),
        ("[contexts.a]", "expected a table with a url"),
        ("[contexts.a]\nurl = 1", "expected a table with a url"),
        ("[contexts.a]\nurl = 'http://a'\ntoken_fiel = 'x'", "contexts.a.token_fiel: expected"),
        ("current =", "can't read"),
        ("current = 'gone'", "there is no context 'gone'"),
        ("\udcff", "can't read"),
    ],
)
def test_a_broken_file_is_told_with_its_place(text: str, told: str) -> None:
    contexts.path().parent.mkdir(parents=True)
    contexts.path().write_bytes(text.encode("utf-8", "surrogateescape"))

    result = run("incidents", "list")

    assert result.exit_code == 2
    assert told in result.stderr


def test_texts_survive_the_file() -> None:
    odd = contexts.Context('http://a/"\\\u007f\u0001日本', token_env="A")
    contexts.write(contexts.Contexts("a", {"a": odd}))

    assert contexts.read().named["a"] == odd


def test_a_write_that_fails_leaves_the_file_as_it_was(
    prod: IncidentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contexts.path().read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    result = run("context", "use", "prod")

    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert contexts.path().read_bytes() == before
    assert [each.name for each in contexts.path().parent.iterdir()] == ["contexts.toml"]


def test_send_and_stats_use_the_context_too(prod: IncidentServer) -> None:
    prod.hold(incident(1))
    Path("var").mkdir()

    assert run("send", "alertname=X").exit_code == 0
    assert run("stats").output.splitlines()[0].split() == ["open", "1"]
    assert {each.headers["authorization"] for each in prod.asked} == {f"Bearer {SECRET}"}
    assert prod.posted[0].headers["idempotency-key"]
