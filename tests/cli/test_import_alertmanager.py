"""`llm-im config import-alertmanager`: what it writes passes `config check`, and routes as Alertmanager does."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from models.alerts.matchers import write_matcher
from models.errors import Malformed, TooLarge
from models.incidents.incident import IncidentType, Severity
from models.routes.choice import Router, Subject
from models.routes.route import Route
from models.settings.all import Settings
from models.settings.processes import SHARD
from services.cli.main import app
from services.importing.alertmanager import import_alertmanager
from services.settings.load import load

CONFIGS = Path(__file__).parents[1] / "data/alertmanager/configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yml"))
#: Newer than Debian's amtool.
OLD_ENOUGH = [name for name in NAMES if name != "newer"]
AMTOOL = shutil.which("amtool")
LABELS = {
    "small": {"service": ["foo1", "foo12", "files", "database", ""], "severity": ["critical", "warning"], "owner": ["team-X", "team-Y", ""]},
    "kubernetes": {"alertname": ["Watchdog", "InfoInhibitor", "Down"], "severity": ["critical", "info"], "namespace": ["prod", "dev-1", "test", ""]},
    "large": {
        "team": ["db", "ml", "web", ""], "severity": ["critical", "page", "warning"], "env": ["prod", "dev", ""], "loud": ["yes", ""],
        "model": ["gpt-5", "llama-4", "gpt", ""], "note": ['a "quoted" value, with a comma', ""], "path": ["/var/x.log", "/var/xlog"],
    },
}  # fmt: skip
#: Of the label sets of one file, so many are tried: each is a run of amtool.
TRIED = 24


class Place:
    """A copy of a configuration whose files of secrets are there."""

    def __init__(self, name: str, folder: Path) -> None:
        secrets = folder / "secrets"
        secrets.mkdir()
        text = (CONFIGS / f"{name}.yml").read_text()
        text = re.sub(r"/(?:run|etc/alertmanager)/secrets(?=/)", str(secrets), text)
        for each in re.findall(rf"{secrets}/([\w-]+)", text):
            (secrets / each).write_text("https://example.org/s3cr3t\n")
        self.file = folder / "alertmanager.yml"
        self.file.write_text(text)
        self.output = folder / "llm-im.toml"

    def imported(self, monkeypatch: pytest.MonkeyPatch) -> Result:
        """Imports it, and sets the variables that the report asks for."""
        result = run("config", "import-alertmanager", str(self.file), "-o", str(self.output))
        assert result.exit_code == 0, result.stderr
        for name in re.findall(r'env = "(\w+)"', self.output.read_text()):
            assert name in result.stderr
            monkeypatch.setenv(name, "https://example.org/s3cr3t" if "URL" in name else "s3cr3t")
        return result

    def theirs(self) -> dict[str, str]:
        """By the name of each of our receivers, the one that it was made of."""
        found = re.findall(r"^# line \d+: (.*)\n\[notify\.receivers\.(.+)\]$", self.output.read_text(), re.M)
        return {ours: theirs for theirs, ours in found}


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_passes_our_check(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(name, tmp_path)
    place.imported(monkeypatch)

    result = run("config", "check", str(place.output))

    assert result.exit_code == 0, result.output + result.stderr
    assert result.stdout.startswith(("good", "not checked"))


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_copied_or_told(name: str, tmp_path: Path) -> None:
    made = import_alertmanager((CONFIGS / f"{name}.yml").read_text(), "alertmanager.yml")

    assert not re.search(r"s3cr3t|c0ffee|1{32}|2{32}|3{32}", made.text + "\n".join(made.report))


@pytest.mark.skipif(AMTOOL is None, reason="amtool is not installed: apt-get install prometheus-alertmanager")
@pytest.mark.parametrize("name", OLD_ENOUGH)
def test_alertmanager_itself_takes_the_configurations_of_these_tests(name: str) -> None:
    subprocess.run(
        [str(AMTOOL), "check-config", str(CONFIGS / f"{name}.yml")], check=True, capture_output=True
    )


@pytest.mark.skipif(AMTOOL is None, reason="amtool is not installed: apt-get install prometheus-alertmanager")
@pytest.mark.parametrize("name", OLD_ENOUGH)
def test_an_alert_goes_where_alertmanager_sends_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(name, tmp_path)
    place.imported(monkeypatch)
    router, theirs = Router(_route(load(place.output).settings)), place.theirs()
    reached = set()

    for labels in _label_sets(name):
        words = [write_matcher((key, "=", value)) for key, value in labels.items()]
        command = [str(AMTOOL), "config", "routes", "test", f"--config.file={place.file}", *words]
        expected = set(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().split(",")
        )
        subject = Subject(labels, Severity.P2, IncidentType.UNKNOWN, labels.get("service", ""))
        told = {theirs[chosen.receiver] for chosen in router.choose(subject).told}
        # One that sends nothing is none of ours.
        assert told == expected - {"null", "blackhole"}, labels
        reached |= expected

    assert reached >= set(theirs.values())


def _label_sets(name: str) -> list[dict[str, str]]:
    values = LABELS[name]
    every = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    chosen = every if len(every) <= TRIED else random.Random(1).sample(every, TRIED)
    # Empty is missing, and amtool can't be given an empty one.
    return [{key: value for key, value in each.items() if value} for each in chosen]


def _route(settings: Settings) -> Route:
    route = settings.given_to(SHARD)["route"]
    assert isinstance(route, Route)
    return route


def test_each_thing_without_a_counterpart_is_reported_with_its_line(tmp_path: Path) -> None:
    text = (CONFIGS / "large.yml").read_text()
    report = import_alertmanager(text, "am.yml").report
    lines = text.split("\n")

    def line_of(words: str) -> int:
        return next(number for number, line in enumerate(lines, 1) if words in line)

    for words, told in (
        ("proxy_url", "http_config.proxy_url: no counterpart; left out"),
        ("slack_api_url", "slack_api_url: a secret, not copied: put it into the environment variable NOTIFY_SLACK_API_URL"),
        ("templates/*.tmpl", "templates: /etc/alertmanager/templates/*.tmpl: Go templates; ours are Jinja2, in title and text"),
        ("[office]", "active_time_intervals: office: there are no times of day in routes yet: it counts always"),
        ("insecure_skip_verify", "insecure_skip_verify: certificates are always verified; name yours in [outbound] ca_file"),
        ("actions:", "actions: no counterpart; left out"),
        ("telegram_configs", "telegram_configs: there is no such channel here yet; left out"),
        ("images:", "images: no counterpart; left out"),
        ("html:", "html: no counterpart; left out"),
    ):  # fmt: skip
        assert f"am.yml:{line_of(words)}: {told}" in report
    assert [int(each.split(":")[1]) for each in report] == sorted(int(each.split(":")[1]) for each in report)


def test_whoever_has_no_channel_here_is_replaced_by_those_above_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place("large", tmp_path)
    report = place.imported(monkeypatch).stderr
    router = Router(_route(load(place.output).settings))

    choice = router.choose(Subject({"team": "sms"}, Severity.P2, IncidentType.UNKNOWN, ""))

    assert {place.theirs()[each.receiver] for each in choice.told} == {"catch all"}
    assert "receiver 'phones': it has no channel that there is here" in report


def test_timings_and_defaults_are_alertmanagers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place("small", tmp_path)
    place.imported(monkeypatch)
    settings = load(place.output).settings

    assert settings.lifecycle.resolve_timeout == 300
    assert settings.grouping.group_by == ["alertname", "cluster"]
    assert (settings.notify.interval, settings.notify.route.wait, settings.notify.route.repeat) == (
        300,
        30,
        10_800,
    )
    resolved = {name: each.send_resolved for name, each in settings.notify.receivers.items()}
    assert resolved == {
        "team-X-mails": False, "team-X-pager-email": False, "team-X-pager-pagerduty": True, "team-Y-mails": True,
        "team-Y-pager": True, "team-DB-pager": True,
    }  # fmt: skip
    assert [rule.equal for rule in settings.inhibition.rules] == [["alertname", "cluster", "service"]]


def test_it_goes_to_stdout_and_overwrites_nothing(tmp_path: Path) -> None:
    place = Place("small", tmp_path)
    to_stdout = run("config", "import-alertmanager", str(place.file))
    place.output.write_text("mine")

    refused = run("config", "import-alertmanager", str(place.file), "--output", str(place.output))

    assert to_stdout.stdout.startswith(f"# Made of {place.file} by llm-im")
    assert (refused.exit_code, place.output.read_text()) == (1, "mine")
    assert f"{place.output} is there already" in refused.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty; a configuration of Alertmanager was expected"),
        ("route: [", "am.yml:2: not YAML"),
        ("a: &a [*a]", "contains itself"),
        ("a: !python/object/apply:os.system [id]", "tag"),
        ("x: {y: 1}\nx: 2", "stands twice"),
        ("a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(f"{c}: &{c} [{', '.join(['*' + b] * 10)}]\n" for b, c in itertools.pairwise("abcdefg")), "values, aliases counted"),
        ("[" * 100, "levels"),
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_refused_with_its_line(text: str, told: str) -> None:
    with pytest.raises((Malformed, TooLarge), match=re.escape(told)):
        import_alertmanager(text, "am.yml")


def _odd_values() -> Iterator[str]:
    values = ("null", "7", "text", "[]", "[1, {}]", "{}", "{a: [b]}", "'{{ x }}'", "true", "[[]]")
    keys = ("global", "route", "receivers", "inhibit_rules", "templates", "time_intervals")
    for key, value in itertools.product(keys, values):
        yield f"{key}: {value}"
    for kind, value in itertools.product(("webhook", "email", "slack", "pagerduty", "opsgenie", "victorops", "msteams", "discord", "jira"), values):  # fmt: skip
        yield f"receivers: [{{name: x, {kind}_configs: {value}}}]"
        for key in ("url", "to", "api_url", "routing_key", "api_key", "responders", "webhook_url", "http_config", "headers", "send_resolved"):  # fmt: skip
            yield f"receivers: [{{name: x, {kind}_configs: [{{{key}: {value}}}]}}]"
    for key, value in itertools.product(
        ("receiver", "routes", "matchers", "match", "group_wait", "group_by"), values
    ):
        yield (
            f"route: {{receiver: x, {key}: {value}}}"
            if key != "receiver"
            else f"route: {{receiver: {value}}}"
        )


def test_whatever_stands_where_something_else_was_expected_is_reported_and_no_traceback() -> None:
    count = 0
    for text in _odd_values():
        made = import_alertmanager(text, "am.yml")
        assert made.report, text
        count += 1
    assert count > 1000


def test_a_file_by_a_relative_path_is_left_out_and_that_is_said() -> None:
    text = (
        "route: {receiver: ops}\nreceivers:\n- name: ops\n  email_configs:\n"
        "  - {to: ops@example.org, from: am@example.org, smarthost: 'mail.example.org:587', tls_config: {ca_file: ca.pem}}\n"
    )

    found = import_alertmanager(text, "am.yml")

    assert "am.yml:5: tls_config.ca_file: set it by its absolute path; left out" in found.report
    assert "ca.pem" not in found.text
