"""Documentation that cannot rot: what the code has, docs/ names; what the documents name, is there."""

from __future__ import annotations

import ast
import configparser
import functools
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import regopy
import typer.main
import yaml
from fastapi.routing import APIRoute
from typer.core import TyperGroup

from models.control.tokens import INGEST
from models.incidents.incident import IncidentState, IncidentType, Severity
from models.metrics import METRICS
from models.settings.all import Settings
from models.settings.keys import KEYS, Key
from models.settings.secrets import Secret
from models.shard.messages import REASONS, Decision
from models.stream.happenings import KINDS
from services.api.auth import scopes_of_routes
from services.api.v1.tokens import SCOPES
from services.cli import in_ray
from services.cli.commands import up
from services.cli.shared.exits import ExitCode
from services.ingest.formats.json_format import JsonFormat
from services.ingest.formats.table import all_formats
from services.machine import head, stopping
from services.settings import reference
from services.settings.load import Source, load
from services.settings.names import variable_of
from tests.api.stand_in import StandIn
from tests.pure.test_layers import files, nodes

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*.md")),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]
EXAMPLE = "llm-im.example.toml"
#: A link of Markdown, and a file or test that a document names as code.
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"`((?:models|actors|services|tests|benchmarks|scripts|docs)/[\w./-]*)`")
NAMED_TEST = re.compile(r"`(test_\w+)`")
#: What a document tells the reader to type.
TYPED_MAKE = re.compile(r"(?:^|`| )make ([a-z-]+)(?=[`\s,;:)])", flags=re.MULTILINE)
TYPED_COMMAND = re.compile(
    r"^(?:\.venv/bin/|.*\| )?llm-im ([a-z]+(?:-[a-z]+)*(?: [a-z]+(?:-[a-z]+)*)?)", flags=re.MULTILINE
)
CODE = re.compile(r"```sh\n(.*?)```|`([^`\n]+)`", flags=re.DOTALL)
#: Figures that are still to be measured: their files are not there yet.
AWAITED = "{{"
#: As set, for the settings whose default is none.
SOMETHING = {
    "server.origins": "https://wall.example",
    "server.tls.clients": "[]",
    "learning.schedule": "0 3 * * 1",
    "correlation.mute_severities": "P3,P4",
    "correlation.topology_file": "/etc/llm-im/services.yaml",
    "heartbeats.expected": '[{"name": "backup", "interval": "1d"}]',
    "notify.route.escalation": "critical",
    "notify.webhook.external_url": "https://incidents.example.org",
    "outbound.allow": "10.0.0.0/8",
    "auth.required": "true",
    "state.redis.url": "redis://127.0.0.1",
    "state.postgres.url": "postgresql://127.0.0.1/llm_im",
    "notify.webhook.url": "https://example.org/hook",
    "publish.redis.url": "redis://127.0.0.1",
    "resource_limits.max_ingestion_rate": "5000/s",
    "resource_limits.max_sender_rate": "1000/s",
    "ingest.relabel": "[]",
    "ingest.filters": "[]",
    "integrations.llm_sentinel.filters.ignored_labels": "env=dev",
    "formats.sns_topics": "arn:aws:sns:eu-west-1:123456789012:alarms",
    "forwarding.forward_to_central": "P0,P1",
    "telemetry.endpoint": "http://127.0.0.1:4318",
    "playbooks.prometheus.url": "http://prometheus:9090",
    "playbooks.loki.url": "http://loki:3100",
    "playbooks.kubernetes.api": "https://kubernetes:6443",
    "playbooks.environment": "prod",
    "playbooks.policy.files": "/etc/llm-im/incidents.rego",
    "playbooks.loki.tenant": "llm",
    "playbooks.services": "{}",
    "pull.alertmanager": "[]",
    "pull.taxii": "[]",
    "integrations.llm_sentinel.endpoint": "llm-sentinel:9090",
    "integrations.llm_shield.endpoint": "https://llm-shield:8443",
    "integrations.llm_edge_agent.endpoints": "edge-1:9090",
    "playbooks.scripts": "{}",
    "playbooks.war_room.links": "{}",
    "integrations.llm_governance_core.endpoint": "http://opa:8181/v1/data/incidents",
    "telemetry.headers": '{"authorization": "Bearer x"}',
}


def something_for(key: Key) -> str:
    """A value that its kind takes."""
    default = key.field.default
    if isinstance(default, list):
        is_rows = key.name.endswith(("rules", "mappings", "routes", "receivers", "escalate_to"))
        return "[]" if is_rows else "a,b"
    if isinstance(default, bool):
        return str(default).lower()
    if default is not None:
        return f"{default}s" if key.is_duration else str(default)
    if key.path[-1] in ("folder", "ca_file", "tls_ca", "tls_cert", "tls_key"):
        return "/etc/llm-im/x"
    for kind, value in ((int, "1"), (float, "1h"), (bool, "true"), (Secret, "x"), (str, "x")):
        if kind in key.kinds:
            return value
    [choices] = [kind for kind in key.kinds if get_origin(kind) is Literal]
    return str(get_args(choices)[0])


@functools.cache
def text(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def commands(group: TyperGroup, prefix: str = "llm-im") -> Iterator[tuple[str, list[str]]]:
    """Every command with its options."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{prefix} {name}")
        else:
            options = [option for each in command.params for option in each.opts if option.startswith("--")]
            yield f"{prefix} {name}", options


def all_commands() -> list[tuple[str, list[str]]]:
    from services.cli.main import app

    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return list(commands(group))


def timeline_kinds() -> set[str]:
    """Every kind of line that a timeline has."""
    return set(KINDS)


def anchors(document: str) -> set[str]:
    """What `#...` may name: headings as Git forges turn them into anchors."""
    found = set()
    without_code = re.sub(r"```.*?```", "", text(document), flags=re.DOTALL)
    for heading in re.findall(r"^#+ (.+)$", without_code, flags=re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found


SETTINGS = list(KEYS.values())
ACTIVE = [key for key in SETTINGS if not key.is_later]
COMMANDS = all_commands()


def test_every_setting_is_documented_and_in_the_example() -> None:
    missing = []
    for key in ACTIVE:
        section, _, name = key.name.rpartition(".")
        described = re.search(
            rf"^## {re.escape(section)}$.*?^\| `{name}` \| .+ \| `{variable_of(key)}` \| (reload|restart) \| .+ \|$",
            text("docs/configuration.md"),
            flags=re.MULTILINE | re.DOTALL,
        )
        shown = re.search(
            rf"^(# )?{name} = |^# \[\[{re.escape(key.name)}\]\]", text(EXAMPLE), flags=re.MULTILINE
        )
        if not (described and shown and key.field.description):
            missing.append(key.name)

    assert not missing


def test_the_reference_of_the_settings_is_what_the_model_says() -> None:
    document = text("docs/configuration.md")

    assert reference.put_into(document) == document, "stale; type: make docs"


def test_the_example_file_is_the_defaults() -> None:
    loaded = load(ROOT / EXAMPLE)

    assert loaded.settings == Settings()
    assert not loaded.notices and not loaded.not_active()


def test_every_setting_can_be_set_from_the_environment_as_documented(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = []
    for key in SETTINGS:
        with monkeypatch.context() as alone:
            alone.setenv(variable_of(key), SOMETHING.get(key.name) or something_for(key))
            if load().source(key) != Source("variable", variable_of(key)):
                wrong.append(key.name)

    assert not wrong


def test_every_command_is_documented_with_its_options() -> None:
    document = text("docs/cli.md")

    missing = [command for command, _options in COMMANDS if f"\n## {command}\n" not in document]
    missing += [
        f"{command} {option}"
        for command, options in COMMANDS
        for option in options
        if f"`{option}" not in document and f"/{option}" not in document
    ]

    assert not missing


def test_every_metric_is_documented() -> None:
    document = text("docs/operate.md")

    assert not [name for name, metric in METRICS.items() if f"| `{name}` | {metric.kind} |" not in document]


def test_every_http_path_is_documented() -> None:
    app = StandIn().app()
    described = set(app.openapi()["paths"])
    served = {route.path_format for route in app.routes if isinstance(route, APIRoute)}
    document = text("docs/http-api.md")

    missing = [
        path
        for path in {*described, *served, *(kind.path for kind in all_formats().values())}
        if f"{path}`" not in document
    ]

    assert not missing


def test_every_routes_scope_is_documented() -> None:
    routes = [
        (method, path, scope) for method, path, scope in scopes_of_routes(StandIn().app()) if method != "HEAD"
    ]
    formats = [
        (method, kind.path, f"{INGEST}{name}")
        for name, kind in all_formats().items()
        for method in kind.methods
    ]
    lines = text("docs/security.md").splitlines()

    missing = [
        f"{method} {path}: {scope or 'none'}"
        for method, path, scope in [*routes, *formats]
        if not any(
            line.startswith("| ")
            and method in line
            and f"`{path}`" in line
            and line.endswith(f"| {f'`{scope}`' if scope else 'none'} |")
            for line in lines
        )
    ]

    assert not missing


def test_the_tables_of_formats_are_those_of_the_code() -> None:
    document = text("docs/formats.md")
    webhooks = {name: kind for name, kind in all_formats().items() if issubclass(kind, JsonFormat)}
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| ([^|]+) \| [^|]+ \|$", document, flags=re.MULTILINE)
    levels = re.findall(r"^\| `([^`]+)` \|" + r"([^|]*)\|" * 5 + "$", document, flags=re.MULTILINE)

    assert rows == [(name, kind.path, kind.summary) for name, kind in webhooks.items()]
    assert {
        name: {
            "" if word == "none said" else word.strip("`"): f"P{level}"
            for level, words in enumerate(columns)
            for word in filter(None, words.strip().split(", "))
        }
        for name, *columns in levels
    } == {name: dict(kind.severities) for name, kind in webhooks.items() if kind.severities}


def test_every_scope_is_documented() -> None:
    rows = set(re.findall(r"^\| `([^`]+)` \|", text("docs/security.md"), flags=re.MULTILINE))

    assert set(SCOPES) <= rows


def test_every_decision_is_documented_and_has_a_reason() -> None:
    document = text("docs/concepts.md")

    assert not [each.name for each in Decision if f"| `{each.name}` |" not in document or not REASONS[each]]


def test_every_timeline_kind_is_documented() -> None:
    document = text("docs/concepts.md")

    assert not [kind for kind in timeline_kinds() if f"| `{kind}` |" not in document]


def test_every_state_type_and_severity_is_documented() -> None:
    words = [*IncidentState, *IncidentType, *(each.name for each in Severity)]

    assert not [word for word in words if f"`{word}`" not in text("docs/concepts.md")]


def test_every_relative_link_leads_somewhere() -> None:
    broken = []
    for document in DOCUMENTS:
        lines = [line for line in text(document).splitlines() if AWAITED not in line]
        for target in LINK.findall("\n".join(lines)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            to = (ROOT / document).parent / path if path else ROOT / document
            if not to.exists() or (anchor and anchor not in anchors(str(to.resolve().relative_to(ROOT)))):
                broken.append(f"{document}: {target}")

    assert not broken


def test_every_file_and_test_that_a_document_names_is_there() -> None:
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))

    # Names in capitals stand for the reader's own: services/actions/NAME.py.
    missing = [
        f"{document}: {name}"
        for document in DOCUMENTS
        for name in NAMED_FILE.findall(text(document))
        if not re.search(r"NAME|results", name) and not (ROOT / name).exists()
    ]
    missing += [
        f"{document}: {name}"
        for document in DOCUMENTS
        for name in NAMED_TEST.findall(text(document))
        if f"def {name}(" not in tests
    ]

    assert not missing


def test_every_command_that_a_document_tells_to_type_exists() -> None:
    targets = set(" ".join(re.findall(r"^([a-z -]+):", text("Makefile"), flags=re.MULTILINE)).split())
    known = {command.removeprefix("llm-im ") for command, _options in COMMANDS}
    known |= {command.split()[0] for command in known}

    missing = []
    for document in DOCUMENTS:
        code = "\n".join(block or word for block, word in CODE.findall(text(document)))
        missing += [
            f"{document}: make {target}" for target in TYPED_MAKE.findall(code) if target not in targets
        ]
        missing += [
            f"{document}: llm-im {typed}"
            for typed in TYPED_COMMAND.findall(code)
            if typed not in known and typed.split()[0] not in known - {"incidents", "log", "config", "tokens"}
        ]

    assert not missing


@pytest.mark.parametrize("folder", ["models", "actors", "services"])
def test_every_folder_is_on_the_map(folder: str) -> None:
    """By its path, or by that of the folder it lies in; a file outside all of them by its own."""
    code_map = text("ARCHITECTURE.md").partition("## Code map")[2].partition("\n## ")[0]
    named = set()
    for row in re.findall(r"^\| (`.*?) \|", code_map, flags=re.MULTILINE):
        beside = ""
        for name in re.findall(r"`([^`]+)`", row):
            beside = name.rpartition("/")[0] if "/" in name else beside
            named.add((name if "/" in name else f"{beside}/{name}").rstrip("/"))

    files = [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py"]
    missing = [str(file) for file in files if not named & {str(file), *map(str, file.parents)}]
    gone = [name for name in named if name.startswith(f"{folder}/") and not (ROOT / name).exists()]

    assert files and not missing and not gone


def test_every_document_is_in_the_list_of_all() -> None:
    listed = {
        str(Path(os.path.normpath(Path("docs") / target.partition("#")[0])))
        for target in LINK.findall(text("docs/README.md"))
    }

    assert not {*DOCUMENTS} - {"docs/README.md"} - listed


#: What a block says that it is, and who reads it. A block of JSON with `...` in it is cut and is not read.
READERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
    "python": ast.parse,
    "ini": lambda block: configparser.RawConfigParser(strict=False).read_string(block),
    "rego": lambda block: regopy.Interpreter().add_module("block", block),
    "sh": lambda block: subprocess.run(
        ["bash", "-n"], input=block, text=True, check=True, capture_output=True
    ),
}


def test_every_block_of_code_can_be_read() -> None:
    unread = []
    blocks = [
        (document, *found)
        for document in DOCUMENTS
        for found in re.findall(r"^```(\w+)\n(.*?)^```$", text(document), flags=re.MULTILINE | re.DOTALL)
    ]
    for document, kind, block in blocks:
        if kind == "json" and "..." in block:
            continue
        try:
            READERS[kind](block)
        except (
            ValueError,
            SyntaxError,
            yaml.YAMLError,
            configparser.Error,
            regopy.RegoError,
            subprocess.CalledProcessError,
        ) as error:
            unread.append(f"{document}: {kind}: {block[:60]!r}: {error}")

    assert not unread


def unit() -> str:
    """The unit of systemd that docs/operate.md shows."""
    [found] = re.findall(r"^```ini\n(.*?)^```$", text("docs/operate.md"), flags=re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_unit_types_commands_that_are_there_and_waits_long_enough() -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(unit())
    service = parser["Service"]
    options = dict(COMMANDS)

    for key in ("ExecStart", "ExecReload", "ExecStop"):
        words = service[key].split()
        typed = words[1 : next(at for at, word in enumerate(words) if word.startswith("--"))]
        assert "--data" in options[f"llm-im {' '.join(typed)}"]
        assert words[-2:] == ["--data", "/srv/llm-im/var"]
    assert service["PIDFile"] == "/srv/llm-im/var/run/head.pid"
    assert service["SuccessExitStatus"] == str(int(ExitCode.DEGRADED))
    slowest_up_s = head.START_TIMEOUT_S + in_ray.DEPLOY_TIMEOUT_S + up.READY_TIMEOUT_S
    slowest_down_s = (
        in_ray.WITHDRAW_TIMEOUT_S + stopping.FRONT_DRAIN_S + stopping.TERM_TIMEOUT_S
        + stopping.ORPHAN_TIMEOUT_S + stopping.KILL_TIMEOUT_S
    )  # fmt: skip
    assert float(service["TimeoutStartSec"]) > slowest_up_s
    assert float(service["TimeoutStopSec"]) > slowest_down_s


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "app" / ".venv" / "bin" / "llm-im"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    (tmp_path / "llm-im.service").write_text(unit().replace("/srv/llm-im", str(tmp_path)))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "llm-im.service")],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_files_that_hold_secrets_are_git_ignored() -> None:
    ignored = (ROOT / ".gitignore").read_text().split("\n")
    written = {
        found
        for page in [
            ROOT / "README.md",
            *(ROOT / "docs").rglob("*.md"),
            *(ROOT / "services/cli").rglob("*.py"),
        ]
        for found in re.findall(
            r"(?:--out|--token-file|tokens create [^`\n]*>) (\w[\w./-]*\.\w+)", page.read_text()
        )
    }

    assert written, "the pages show where a token goes"
    for name in [*written, "llm-im.toml"]:
        assert any(fnmatch(Path(name).name, line) for line in ignored), f"{name} is not in .gitignore"


def events_of_the_log() -> set[str]:
    """What is logged as a warning or an error: the first argument of `log.warning(...)`, `.error` and `.exception`."""
    found: set[str] = set()
    for folder in ("actors", "services"):
        for file in files(folder):
            for node in nodes(file):
                if (
                    not isinstance(node, ast.Call)
                    or not isinstance(node.func, ast.Attribute)
                    or not node.args
                ):
                    continue
                if node.func.attr in ("warning", "error", "exception") and isinstance(
                    node.args[0], ast.Constant
                ):
                    found.add(str(node.args[0].value))
    return found


def test_the_troubleshooting_page_has_every_warning_and_error_of_the_log() -> None:
    page = text("docs/operate/troubleshooting.md")

    events = events_of_the_log()

    assert len(events) > 40
    assert [event for event in sorted(events) if f"`{event}`" not in page] == []
