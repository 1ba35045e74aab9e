"""Who may import whom (CONTRIBUTING.md, "The floors"): one test a rule, which lists every file and line that breaks it.

import-linter checks the same floors with `make lint`; this one runs with the tests and knows more: what models/ may
use at all, and which file owns which client library.
"""

from __future__ import annotations

import ast
import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("models", "actors", "services", "benchmarks", "tests")
#: What a file of each floor may import of ours.
FLOORS = {
    "models": {"models"},
    "actors": {"models", "actors"},
    "services": {"models", "actors", "services"},
}
#: All that models/ may import from elsewhere: nothing here does I/O, knows the time or makes chance.
PURE = {
    "__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json", "math", "numbers", "operator",
    "re", "statistics", "string", "struct", "sys", "types", "typing", "unicodedata", "uuid",
    "cronsim", "jinja2", "msgspec", "numpy", "pydantic", "pydantic_core", "xxhash", "yaml", "zstandard",
}  # fmt: skip
#: Calls that reach outside although their module is pure.
IMPURE_CALLS = {
    "open",
    "print",
    "input",
    "now",
    "utcnow",
    "today",
    "uuid1",
    "uuid4",
    "getrandom",
    "eval",
    "exec",
}
#: The one page of models/ that may say `async def`: Protocols that wait on the world.
MAY_BE_ASYNC = {"models/ports.py"}
#: Which files may import a library that is somebody's technology. Another file asks the port instead.
OWNERS: dict[str, tuple[str, ...]] = {
    "ray": ("actors/runtime/cluster.py", "services/wiring/serve_app.py"),
    "aiohttp": ("services/actions/outbound.py",),
    "aiosmtplib": ("services/actions/email.py",),
    "jmespath": ("services/ingest/formats/mapped.py",),
    "google": ("services/ingest/formats/otlp_logs.py", "services/ingest/formats/proto.py", "services/ingest/doors/grpc/*.py", "services/proto/*.py", "services/edge/words.py"),
    "apsw": ("services/stores/sqlite/*.py",),
    "sqlite3": (),  # two SQLite libraries on one file lose each other's locks
    "fastapi": ("services/api/*.py", "services/wiring/serve_app.py"),
    "starlette": ("services/api/*.py", "services/wiring/serve_app.py"),
    "uvicorn": ("services/machine/http_protocol.py", "services/machine/websocket_protocol.py"),
    "websockets": ("services/machine/websocket_protocol.py",),
    "typer": ("services/cli/*.py",),
    "rich": ("services/cli/*.py",),
    "pybloom_live": ("actors/delivery.py",),
    "cronsim": ("models/playbook/values.py", "models/playbook/schedule.py", "services/playbooks/*.py"),
    "yaml": ("models/playbook/document.py", "services/api/alertmanager/status.py", "services/wiring/bootstrap.py"),
    "jinja2": ("models/playbook/template.py", "models/playbook/sandbox.py", "models/playbook/filters.py"),
    "polars": ("services/cli/shared/parquet.py",),
    "sklearn": ("services/learning/fitting.py",), "scipy": ("services/learning/fitting.py",),
    "graphql": ("services/api/graphql/*.py",),
    "requests": (), "httpx": (), "httpx2": (),
    "fsspec": ("services/upkeep/backup/place.py",),
    "opentelemetry": ("services/machine/tracing.py", "services/ingest/formats/otlp_logs.py"),  # imported only when telemetry is on
    "redis": ("services/stores/redis/*.py",),
    "asyncpg": ("services/stores/postgres/*.py",), "psycopg": ("services/stores/postgres/*.py",),
    "grpc": ("services/wiring/serve_app.py", "services/ingest/sources/*.py", "services/proto/*.py"),
    "h2": ("services/ingest/doors/grpc/connection.py",), "hyperframe": ("services/ingest/doors/grpc/connection.py",),
    "grpc_health": ("services/ingest/doors/grpc/health.py",), "grpc_reflection": ("services/ingest/doors/grpc/reflection.py",),
    "confluent_kafka": ("services/ingest/sources/kafka.py", "services/brokers/kafka.py", "services/feed/writers/kafka.py"),
    "nats": ("services/ingest/sources/nats.py", "services/brokers/nats.py", "services/feed/writers/nats.py"),
    "aio_pika": ("services/ingest/sources/rabbitmq.py", "services/brokers/rabbitmq.py", "services/feed/writers/rabbitmq.py"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: `actors.runtime.host`, or `services.cli.commands.up` for `from services.cli import up`."""

    name: str
    line: int

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py"))


@functools.cache
def parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text("utf-8"), file)


@functools.cache
def nodes(file: str) -> list[ast.AST]:
    """Every rule looks at all of them."""
    return list(ast.walk(parsed(file)))


def imports(file: str) -> Iterator[Import]:
    for node in nodes(file):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import; say the whole name"
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno)


PRODUCT = [file for floor in FLOORS for file in files(floor)]


def test_a_file_imports_only_from_its_own_floor_and_below() -> None:
    wrong = [
        f"{file}:{found.line}: imports {found.name}"
        for file in PRODUCT
        for found in imports(file)
        if found.top in OURS and found.top not in FLOORS[file.partition("/")[0]]
    ]

    assert not wrong


def test_a_library_is_imported_only_by_the_file_that_owns_it() -> None:
    wrong = [
        f"{file}:{found.line}: imports {found.name}, which belongs to {', '.join(OWNERS[found.top]) or 'nobody'}"
        for file in PRODUCT
        for found in imports(file)
        if found.top in OWNERS and not any(fnmatch(file, owner) for owner in OWNERS[found.top])
    ]

    assert not wrong


def test_models_are_pure() -> None:
    wrong = [
        f"{file}:{found.line}: imports {found.name}, which is not among the pure ones"
        for file in files("models")
        for found in imports(file)
        if found.top not in PURE | {"models"}
    ]
    wrong += [
        f"{file}:{node.lineno}: calls {called}()"
        for file in files("models")
        for node in nodes(file)
        if isinstance(node, ast.Call) and (called := called_name(node)) in IMPURE_CALLS
    ]

    assert not wrong


def test_nothing_in_models_waits() -> None:
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

    wrong = [
        f"{file}:{node.lineno}: {type(node).__name__}"
        for file in files("models")
        if file not in MAY_BE_ASYNC
        for node in nodes(file)
        if isinstance(node, waits)
    ]

    assert not wrong


def test_nothing_waits_by_wait_for() -> None:
    """asyncio.wait_for of Python 3.11 can lose a cancellation; `async with asyncio.timeout()` does not."""
    wrong = [
        f"{file}:{node.lineno}"
        for file in PRODUCT
        for node in nodes(file)
        if isinstance(node, ast.Attribute)
        and node.attr == "wait_for"
        and ast.unparse(node) == "asyncio.wait_for"
    ]

    assert not wrong


def test_every_folder_with_code_is_a_package() -> None:
    wrong = {
        str(Path(file).parent)
        for folder in OURS[:4]
        for file in files(folder)
        if not (ROOT / file).with_name("__init__.py").exists()
    }

    assert not wrong


def test_every_folder_with_tests_is_among_testpaths() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    paths = settings["tool"]["pytest"]["ini_options"]["testpaths"]

    found = {
        file.split("/")[1]
        for file in files("tests")
        if Path(file).name.startswith("test_") and file.count("/") > 1
    }

    assert {f"tests/{folder}" for folder in found} <= set(paths)


@pytest.mark.parametrize("floor", ["models", "actors", "services"])
def test_no_floor_has_an_import_circle(floor: str) -> None:
    """Imports for type checking count: who needs a name to say what it takes knows of it."""
    known = set(files(floor))
    arrows = {file: {target for found in imports(file) if (target := file_of(found, known))} - {file}
              for file in known}  # fmt: skip

    # What only imports files that are done is done; what is left at the end leads in a circle.
    while done := [file for file, targets in arrows.items() if not targets]:
        for file in done:
            del arrows[file]
        for targets in arrows.values():
            targets.difference_update(done)

    assert not arrows, circle_in(arrows)


def called_name(call: ast.Call) -> str:
    """`datetime.now(UTC)` is "now", `open(path)` is "open"; a method of our own is told apart by what it is called on."""
    match call.func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id="datetime" | "date" | "uuid" | "io"), attr=name):
            return name
    return ""


def file_of(found: Import, known: set[str]) -> str | None:
    """The file that an imported name is in, None when it is of another floor or a package."""
    path = found.name.replace(".", "/")
    return next((each for each in (f"{path}.py", f"{path.rpartition('/')[0]}.py") if each in known), None)


def circle_in(arrows: dict[str, set[str]]) -> str:
    path = [min(arrows)]
    while (after := min(arrows[path[-1]])) not in path:
        path.append(after)
    return " -> ".join([*path[path.index(after) :], after])
