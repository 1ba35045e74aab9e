"""Actors on Ray: class -> options -> name; find by name, call, retry. The one file in actors/ that imports ray.

    start("shard-0007-a", factory, config)      a detached, restarting actor that runs factory(config, host)
    RayPeers().call("shard-0007-a", "tell", b)  bytes in, bytes out, our errors as what they are

An actor process runs `factory`, a module-level function of services/wiring/bootstrap.py, which opens the ports there:
nothing live is pickled. Ray restarts a killed actor under its name (max_restarts=-1); it finds what was pending in its
log.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

import ray
import ray.actor
import ray.exceptions
import structlog

from actors.runtime import direct
from actors.runtime.direct import DirectLine, DirectServer
from actors.runtime.host import Actor, Hired, Host, answer, unwrap
from models import VERSION
from models.errors import Broken, Unavailable

log = structlog.get_logger()

NAMESPACE = "llm-im"
#: Calls an actor works on at once. Tells wait for the disk, so many are under way; bounded by the gateways' lines.
CONCURRENCY = 1000
#: How long starting an actor may take, imports and all, before it counts as failed.
START_TIMEOUT_S = 60.0
#: How long stop() gives an actor to finish its group and release its lease.
STOP_TIMEOUT_S = 5.0

Factory = Callable[[bytes, Host], Actor]


class _Remote(Protocol):
    def remote(self, *arguments: object) -> asyncio.Future[bytes]: ...


class _Handle(Protocol):
    call: _Remote


class Hosted:
    """What Ray runs: one actor of ours, made by its factory inside this process.

    `factory` is "module:function". Refuses to run with another version of the program than its starter's.
    """

    def __init__(self, name: str, factory: str, config: bytes, version: str) -> None:
        if version != VERSION:
            raise Broken(f"{name} was started by version {version}, this process has {VERSION}")
        self._name = name
        self._factory = factory
        self._config = config
        self._actor: Actor | None = None
        self._direct: DirectServer | None = None
        self._starting = asyncio.Lock()
        # Ray makes an actor with coroutine methods on its event loop: one that was killed begins its recovery
        # now, not when somebody happens to call it.
        self._beginning = asyncio.get_running_loop().create_task(self._start())

    async def call(self, method: str, payload: bytes) -> bytes:
        """One method of the hosted actor, wrapped (actors/runtime/host.py). Names with a leading underscore can't be
        called."""
        actor = self._actor or await self._start()
        if method.startswith("_"):
            raise Broken(f"{self._name}.{method} can't be called from outside")
        return await answer(getattr(actor, method), payload)

    async def begin(self) -> int:
        """Make and start the actor now instead of at the first call. Returns the process id. Safe to call twice."""
        if self._actor is None:
            await self._start()
        return os.getpid()

    async def end(self) -> None:
        """Stop the actor: finish, release the lease, close files."""
        if self._direct is not None:
            self._direct.close()
        if self._actor is not None:
            await self._actor.stop()

    async def _start(self) -> Actor:
        async with self._starting:
            if self._actor is None:
                module, _, function = self._factory.partition(":")
                factory = cast(Factory, getattr(import_module(module), function))
                actor = factory(self._config, Host(self._name, RayPeers(), self._die, replace, hire, dismiss))
                # Ray and the imports stay in memory for good: garbage collection need not walk them in the middle of a
                # recovery (40 ms).
                gc.freeze()
                await actor.start()
                if (path := direct.socket_path(self._name)) is not None:
                    self._direct = DirectServer(actor)
                    await self._direct.listen(path)
                self._actor = actor
            return self._actor

    def _die(self, why: str) -> None:
        # At once, as SIGKILL: nothing may be answered from here any more. Ray starts it again.
        log.error("actor exits, Ray restarts it", actor=self._name, why=why)
        os._exit(1)


class RayPeers:
    """Port Peers on Ray: over the actor's socket when it is on this host, else by an actor call. Handles are found
    by name once and found again when their actor was replaced."""

    def __init__(self) -> None:
        self._handles: dict[str, _Handle] = {}
        self._lines: dict[str, DirectLine] = {}

    async def call(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        line = self._lines.get(name)
        if line is None and (path := direct.socket_path(name)) is not None:
            line = self._lines[name] = DirectLine(name, path)
        if line is not None and (wrapped := await line.call(method, payload, timeout_s)) is not None:
            return unwrap(wrapped)
        return await self._call_by_ray(name, method, payload, timeout_s)

    async def _call_by_ray(self, name: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        handle = self._handles.get(name)
        if handle is None:
            handle = self._handles[name] = await asyncio.to_thread(_find, name)
        try:
            async with asyncio.timeout(timeout_s):
                wrapped = await handle.call.remote(method, payload)
        except TimeoutError:
            raise Unavailable(f"{name}.{method} did not answer within {timeout_s:g} s") from None
        except (ray.exceptions.ActorDiedError, ValueError) as error:
            self._handles.pop(name, None)
            raise Unavailable(f"{name} is away: {type(error).__name__}") from None
        except ray.exceptions.RayError as error:
            raise Unavailable(f"{name} is away: {type(error).__name__}") from None
        return unwrap(wrapped)


def start(name: str, factory: str, config: bytes, *, cpus: float = 0.0, restarts: int = -1) -> None:
    """Start an actor, unless one of this name is alive. Returns before it is ready; see begin(). Ray starts one that died anew, as
    often as `restarts` says (-1: always)."""
    # Ray names a process after its class, again after each call: `ps` shows ray::shard-0000-a.
    ray.remote(type(name, (Hosted,), {})).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=restarts,
        # Our callers retry by call_id; Ray's own retry would hide from them how long a shard is down.
        max_task_retries=0,
        max_concurrency=CONCURRENCY,
        num_cpus=cpus,
    ).remote(name, factory, config, VERSION)


def begin(names: list[str]) -> dict[str, int]:
    """Wait until these actors are made; returns their process ids. Raises Unavailable naming what failed."""
    handles = {name: ray.get_actor(name, namespace=NAMESPACE) for name in names}
    try:
        pids: list[int] = ray.get(
            [handle.begin.remote() for handle in handles.values()], timeout=START_TIMEOUT_S
        )
    except ray.exceptions.GetTimeoutError:
        raise Unavailable(f"actors did not start within {START_TIMEOUT_S:g} s: {', '.join(names)}") from None
    except ray.exceptions.RayError as error:
        raise Unavailable(f"an actor could not be started: {error}") from None
    return dict(zip(handles, pids, strict=True))


def ask(name: str, method: str) -> bytes | None:
    """An actor's answer to a call without payload; None if no actor of that name is alive."""
    try:
        handle = ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None
    try:
        wrapped = cast(bytes, ray.get(cast(Any, handle).call.remote(method, b""), timeout=START_TIMEOUT_S))
    except ray.exceptions.RayError as error:
        raise Unavailable(f"{name} is away: {type(error).__name__}") from None
    return unwrap(wrapped)


def stop(names: list[str]) -> None:
    """End these actors in order, each after it has released what it holds. Names that are not alive are skipped."""
    for name in names:
        try:
            handle = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            continue
        try:
            ray.get(handle.end.remote(), timeout=STOP_TIMEOUT_S)
        except ray.exceptions.RayError as error:
            log.warning("actor did not stop cleanly", actor=name, why=type(error).__name__)
        ray.kill(handle, no_restart=True)


def lean_head(parameters: Any, head: bool) -> None:
    """Called by `ray start` (RAY_START_HOOK), for what no switch of Ray's turns off: its remote "client" server, 90 MB on port
    10001, and the dashboard's process, which `--include-dashboard=false` leaves with 120 MB and a port of metrics that any
    local user may read."""
    parameters.ray_client_server_port = None
    constants = import_module("ray._private.ray_constants")

    def no_dashboard(node: Any, **_options: object) -> None:
        # Otherwise Ray's agent looks for its address every second forever, and logs that there is none. Nobody listens
        # on port 0.
        node.get_gcs_client().internal_kv_put(
            constants.DASHBOARD_ADDRESS.encode(), b"127.0.0.1:0", True, constants.KV_NAMESPACE_DASHBOARD
        )

    import_module("ray._private.node").Node.start_api_server = no_dashboard


def connect(address: str) -> None:
    """Join the Ray at `address`. Safe to call twice."""
    if not ray.is_initialized():
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)


async def replace(name: str) -> None:
    """Kill an actor's process at once, whatever it is doing; Ray restarts it. One that is starting is left alone."""
    path = direct.socket_path(name)
    if path is not None and direct.kill_listener(path):
        return
    with contextlib.suppress(Unavailable):
        handle = await asyncio.to_thread(_find, name)
        await asyncio.to_thread(ray.kill, cast(Any, handle), no_restart=False)


async def hire(hired: Hired) -> None:
    """Start an actor for one piece of work, unless it lives. Where no CPU is free it begins when one is. Raises Unavailable."""
    try:
        await asyncio.to_thread(start, hired.name, hired.factory, hired.config, cpus=hired.cpus, restarts=0)
    except (ray.exceptions.RayError, ValueError) as error:
        raise Unavailable(f"{hired.name} could not be started: {type(error).__name__}") from None


async def dismiss(name: str) -> None:
    """End a hired actor, after it has stopped in order. One that is gone is no error."""
    with contextlib.suppress(ray.exceptions.RayError, ValueError):
        await asyncio.to_thread(stop, [name])
    if (path := direct.socket_path(name)) is not None:
        # Nobody takes it over, unlike one of an actor that is restarted.
        path.unlink(missing_ok=True)


def disconnect() -> None:
    """Leave Ray; detached actors stay."""
    ray.shutdown()


def _find(name: str) -> _Handle:
    try:
        return cast(_Handle, ray.get_actor(name, namespace=NAMESPACE))
    except ValueError:
        raise Unavailable(f"there is no actor {name}") from None
