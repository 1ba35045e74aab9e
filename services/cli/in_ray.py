"""The part of `up` and `down` that needs Ray, in a process of its own: `python -m services.cli.in_ray REQUEST`.

A process of its own, because a driver whose Ray is stopped under it hangs or dies, because Ray's own words belong
in a log file, and because a call that hangs can be ended. Importing Ray and Serve takes seconds, so `up` begins it while Ray
itself still starts, and tells it when that stands:

    parent   {"verb", "config", "data", "port", "owned", ...}    one JSON argument
    child    (imports)
    parent   a line on stdin: Ray stands. Without one the child does nothing
    child    {"progress": "..."} ... {"error": "..."}            JSON lines on stdout; Ray's words go to stderr
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from models.errors import IncidentManagerError, Unavailable

#: Importing Ray and Serve takes 3-5 s, Serve's controller and replicas 10-20 s on two busy cores.
DEPLOY_TIMEOUT_S = 180.0
#: Past this `down` ends the processes without asking them; their leases then run out by themselves.
WITHDRAW_TIMEOUT_S = 45.0
_END_TIMEOUT_S = 5.0
_LAST_WORDS = 3
_GO = b"go\n"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What to do. `owned`: into the instance of the data folder, else into the Ray of RAY_ADDRESS."""

    verb: Literal["deploy", "withdraw"]
    config: str | None
    data: str
    port: int | None
    owned: bool
    no_notify: bool = False


class Driver:
    """The child process of one request. Leaving the context ends it, whatever it does; its log is at `log`."""

    def __init__(self, request: Request, log: Path) -> None:
        self._request = request
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_error: object) -> None:
        child = self._child
        if child is None:
            return
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for end in (child.stdin, child.stdout):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.close()

    def begin(self) -> None:
        """Let it import what it needs. The instance is written down already, Ray need not stand yet. Safe to call twice."""
        from services.machine.instance import fresh_log

        if self._child is not None:
            return
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        with fresh_log(self._log) as noise:
            self._child = subprocess.Popen(
                # -P: the working folder is not for imports.
                [sys.executable, "-P", "-m", "services.cli.in_ray", json.dumps(asdict(self._request))],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=noise,
            )

    def finish(self, timeout_s: float, progress: Progress) -> None:
        """Ray stands: do the request. Raises Unavailable with the child's reason."""
        self.begin()
        child = self._child
        assert child is not None and child.stdin is not None
        late = threading.Timer(timeout_s, child.kill)
        late.start()
        try:
            # One that failed already has said why.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(_GO)
                child.stdin.flush()
            error = _relay(child, progress)
            code = child.wait()
        finally:
            was_late = not late.is_alive()
            late.cancel()
        if error:
            raise Unavailable(f"{error} (log: {self._log})")
        if code != 0:
            how = f"was not done after {timeout_s:g} s" if was_late else f"ended with exit code {code}"
            raise Unavailable(
                f"{self._request.verb} {how}; its last output: {_last_words(self._log)} (log: {self._log})"
            )


def run(request: Request, log: Path, timeout_s: float, progress: Progress) -> None:
    """Do it in the Ray that stands. Raises Unavailable with the child's reason; its log is at `log`."""
    with Driver(request, log) as driver:
        driver.finish(timeout_s, progress)


def _relay(child: subprocess.Popen[bytes], progress: Progress) -> str:
    error = ""
    assert child.stdout is not None
    for line in child.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # not ours
        if "progress" in said:
            progress(str(said["progress"]))
        error = str(said.get("error", error))
    return error


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-_LAST_WORDS:]) or "none"


# In the child


def main() -> int:
    """Do one request; the exit code."""
    request = Request(**json.loads(sys.argv[1]))
    wire = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints: this is not its place

    def tell(kind: str, text: str) -> None:
        wire.write(json.dumps({kind: text}) + "\n")
        wire.flush()

    try:
        _do(request, lambda text: tell("progress", text))
    except IncidentManagerError as error:
        tell("error", str(error))
        return 1
    except Exception as error:  # noqa: BLE001 - told to the parent, whatever it is
        traceback.print_exc()
        tell("error", f"{type(error).__name__}: {error}")
        return 1
    return 0


def _do(request: Request, progress: Progress) -> None:
    from services.cli.shared.where import settings_of
    from services.machine import launch
    from services.machine.instance import empty_folder, read_instance
    from services.wiring.slots import as_assigned

    folder, port = Path(request.data), request.port
    if request.owned:
        instance = read_instance(folder)
        if instance is None:
            raise _ray_ended()
        launch.adopt(instance)
        port = instance.http_port
    settings = None
    if request.verb == "deploy":
        # Not to end it: a broken file must not keep anything running. Read where it was typed: what it names is beside it.
        config = Path(request.config) if request.config else None
        settings = as_assigned(settings_of(config, folder, port, no_notify=request.no_notify))
    # Ray puts its driver's working folder first on the import path of all workers.
    os.chdir(empty_folder(folder))

    # Ray reads its settings when it is imported: not before adopt().
    from actors.runtime import cluster
    from services.wiring import serve_app

    if settings is not None:
        serve_app.prepare()
    if sys.stdin.buffer.readline() != _GO:
        return  # there will be no Ray: who began this gave up, or is gone
    if request.owned:
        instance = launch.running(folder)
        if instance is None:
            raise _ray_ended()
        os.environ["RAY_ADDRESS"] = instance.ray_address
    address = os.environ["RAY_ADDRESS"]
    progress(f"joining Ray at {address}")
    cluster.connect(address)
    if settings is not None:
        serve_app.deploy(settings, settings.server.http_port, progress=progress)
    else:
        serve_app.withdraw(progress=progress)
    cluster.disconnect()


def _ray_ended() -> Unavailable:
    return Unavailable("Ray ended in the meantime")


if __name__ == "__main__":
    sys.exit(main())
