"""Settings of receivers: what each type takes and refuses, and where its secrets may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from models.errors import Malformed
from models.settings.all import Settings
from models.settings.receivers import RECEIVER_TYPES
from models.settings.secrets import holds_secret
from services.settings.load import load

TOKEN = "t0p-s3cr3t"
#: What each type needs at least.
LEAST: dict[str, dict[str, Any]] = {
    "webhook": {"url": f"https://x.example/{TOKEN}"},
    "email": {
        "host": "mx.example.org",
        "sender": "im@example.org",
        "to": ["ana@example.org"],
        "username": "im",
        "password": TOKEN,
    },
    "slack": {"token": TOKEN, "channel": "#incidents"},
    "teams": {"url": f"https://x.example/{TOKEN}"},
    "discord": {"url": f"https://x.example/{TOKEN}"},
    "pagerduty": {"routing_key": TOKEN},
    "opsgenie": {"api_key": TOKEN},
    "victorops": {"api_key": TOKEN, "routing_key": "database"},
    "jira": {"url": "https://example.atlassian.net", "token": TOKEN, "project": "OPS"},
    "servicenow": {"url": "https://example.service-now.com", "token": TOKEN},
    "github": {"repository": "example/ops", "token": TOKEN},
    "other": {"kind": "toy", "secrets": {"url": TOKEN}},
}


def settings(receiver: object) -> dict[str, Any]:
    return {"notify": {"receivers": {"ops": receiver}, "route": {"receivers": ["ops"]}}}


def loaded(tmp_path: Path, receiver: str) -> Settings:
    file = tmp_path / "llm-im.toml"
    file.write_text(f'[notify.route]\nreceivers = ["ops"]\n[notify.receivers.ops]\n{receiver}\n')
    return load(file).settings


def refusal(tmp_path: Path, receiver: str) -> str:
    with pytest.raises(Malformed) as refused:
        loaded(tmp_path, receiver)
    return str(refused.value)


@pytest.mark.parametrize("kind", RECEIVER_TYPES)
def test_what_a_type_needs_is_enough_and_nothing_shows_its_secret(kind: str) -> None:
    written = settings({"type": kind, **LEAST[kind]})

    made = Settings.model_validate(written)

    assert holds_secret(made.notify.receivers["ops"])
    assert TOKEN not in made.model_dump_json() and TOKEN not in repr(made)
    # As settings travel: masked, and still settings.
    again = Settings.model_validate_json(made.model_dump_json())
    assert again.model_dump_json() == made.model_dump_json()


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    """Of all settings, as an editor would have it."""
    written = Settings.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(written)
    return jsonschema.Draft202012Validator(written)


@pytest.mark.parametrize("kind", RECEIVER_TYPES)
def test_the_schema_takes_what_the_loader_takes_and_secrets_by_their_place(
    kind: str, schema: jsonschema.Draft202012Validator
) -> None:
    hidden = {name: {"env": "NAME"} if value == TOKEN else value for name, value in LEAST[kind].items()}

    schema.validate(settings({"type": kind, **LEAST[kind]}))
    schema.validate(settings({"type": kind, **hidden}))


@pytest.mark.parametrize(
    ("receiver", "said"),
    [
        ('type = "slak"', "did you mean slack?"),
        ('type = "slack"', "expected token with channel, or url: one of them"),
        ('type = "slack"\ntoken = "x"\nurl = "https://a.example/b"\nchannel = "c"', "one of them"),
        ('type = "slack"\ntoken = "x"', "channel: expected the channel that messages go to"),
        ('type = "slack"\ntoken = " "\nchannel = "c"', "token: expected some text"),
        ('type = "slack"\ntoken = "x\\ny"\nchannel = "c"', "token: expected one line without control characters"),
        ('type = "slack"\ntokn = "x"', "tokn: there is no such setting; did you mean token?"),
        ('type = "webhook"', "url: required, but missing"),
        ('type = "webhook"\nurl = "ftp://x"', "url: expected an http:// or https:// URL"),
        ('type = "webhook"\nurl = "https://a.example"\nusername = "u"', "expected both username and password"),
        ('type = "webhook"\nurl = "https://a.example"\nbearer_token = "x"\nheaders = { authorization = "y" }', "they are the same header"),
        ('type = "webhook"\nurl = "https://a.example"\nheaders = { "a b" = "y" }', "headers: expected names of letters, digits and dashes"),
        ('type = "webhook"\nurl = "https://a.example"\nheaders = { Host = "y" }', "headers: Host is set by us"),
        ('type = "webhook"\nurl = "https://a.example"\nheaders = { X = "a\\nb" }', "headers: X: expected one line"),
        ('type = "email"\nhost = "mx:25"\nsender = "a@b.example"\nto = ["a@b.example"]', "host: expected a host name or an address, without a port"),
        ('type = "email"\nhost = "mx"\nsender = "nobody"\nto = ["a@b.example"]', "sender: expected an address such as im@example.org"),
        ('type = "email"\nhost = "mx"\nsender = "a@b.example\\nBcc: x@y.example"\nto = ["a@b.example"]', "sender: expected an address"),
        ('type = "email"\nhost = "mx"\nsender = "a@b.example"\nto = ["a@b.example\\n"]', "to: expected addresses such as ana@example.org"),
        ('type = "email"\nhost = "mx"\nsender = "a@b.example"\nto = ["c@d.example"]\ntls = "none"\nusername = "u"\npassword = "p"', "a password is not sent in the clear"),
        ('type = "opsgenie"\napi_key = "k"\nresponders = ["Platform"]', "responders: expected team:, user:, escalation: or schedule:"),
        ('type = "victorops"\napi_key = "k"\nrouting_key = "a/b"', "routing_key"),
        ('type = "jira"\nurl = "https://j.example"\ntoken = "t"\nproject = "OPS"\npriorities = ["High"]', "priorities: expected five names, for P0 to P4, not 1"),
        ('type = "jira"\nurl = "https://j.example"\ntoken = "t"\nproject = "OPS"\nlabels = ["a b"]', "labels: expected labels of at most 255 characters without spaces"),
        ('type = "jira"\nurl = "https://j.example"\ntoken = "t"\nproject = "a\\" OR 1"', "project"),
        ('type = "servicenow"\nurl = "https://s.example"', "expected username with password, or token: one of them"),
        ('type = "github"\nrepository = "ops"\ntoken = "t"', "repository"),
        ('type = "teams"\nurl = "https://a.example"\ntimeout = "0s"', "timeout"),
        ('type = "teams"\nurl = "https://a.example"\ntitle = "{{ incident.title | uper }}"', "title: template: line 1: No filter named 'uper'"),
        ('type = "teams"\nurl = "https://a.example"\ntext = "{% if %}"', "text: template: line 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, receiver: str, said: str) -> None:
    found = refusal(tmp_path, receiver)

    assert said in found and "notify.receivers.ops" in found


@pytest.mark.parametrize(
    "sender", ["im@example.org", "Incidents <im@example.org>", '"On Call" <im@example.org>']
)
def test_a_sender_may_have_a_name(tmp_path: Path, sender: str) -> None:
    receiver = f"type = 'email'\nhost = 'mx'\nsender = '{sender}'\nto = ['a@b.example']"

    assert "ops" in loaded(tmp_path, receiver).notify.receivers


# -- where secrets are ------------------------------------------------------------------------------------------


def token_of(settings: Settings) -> str:
    return str(getattr(settings.notify.receivers["ops"], "token").get_secret_value())  # noqa: B009


def slack(token: str) -> str:
    return f'type = "slack"\nchannel = "#incidents"\ntoken = {token}'


def test_a_secret_is_read_from_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("SLACK_TOKEN", TOKEN)

    by_variable = loaded(tmp_path, slack('{ env = "SLACK_TOKEN" }'))
    by_file = loaded(tmp_path, slack(json.dumps(str(tmp_path / "token")).join(("{ file = ", " }"))))

    assert token_of(by_variable) == token_of(by_file) == TOKEN
    assert TOKEN not in by_variable.model_dump_json()


def test_every_secret_of_the_settings_may_be_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", f"https://x.example/{TOKEN}")
    file = tmp_path / "llm-im.toml"
    file.write_text(
        '[notify.webhook]\nurl = { env = "HOOK" }\n[telemetry.headers]\nauthorization = { env = "HOOK" }\n'
    )

    found = load(file).settings

    assert found.notify.webhook.url is not None
    assert found.notify.webhook.url.get_secret_value() == f"https://x.example/{TOKEN}"
    assert found.telemetry.headers["authorization"].get_secret_value() == f"https://x.example/{TOKEN}"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ('{ env = "NOT_SET" }', "the environment variable NOT_SET, which is not set or empty"),
        (
            '{ file = "/nowhere/token" }',
            "the file /nowhere/token, which can't be read: No such file or directory",
        ),
        ('{ file = "token" }', "expected the absolute path of a file"),
        (
            '{ fil = "/a" }',
            'expected the secret as text, or the place where it is: { env = "NAME" } or { file = "/path" }',
        ),
        ('{ env = "A", file = "/a" }', "expected the secret as text, or the place where it is"),
        ("{ env = 1 }", "expected the secret as text, or the place where it is"),
        ("{}", "expected the secret as text, or the place where it is"),
    ],
)
def test_a_secret_that_is_not_at_its_place_is_told_by_the_place(
    tmp_path: Path, place: str, said: str
) -> None:
    found = refusal(tmp_path, slack(place))

    assert f"notify.receivers.ops.token: {said}" in found or said in found


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff\xfe", b"x" * 70_000])
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(data)

    found = refusal(tmp_path, slack(json.dumps(str(file)).join(("{ file = ", " }"))))

    assert "notify.receivers.ops.token" in found and str(file) in found
