"""The Ray Serve deployments, and how all actors are put on a cluster. With actors/runtime/cluster.py the only importer of ray.

    HAProxy ── replica of Gateways ─┬─ http_protocol.Protocol: plain requests of alerts, without ASGI
              (two or more)         ├─ HotRoute (bare ASGI, in front of Serve): the doors for alerts
                                    └─ Serve ── FastAPI: everything else

HotRoute runs in the replica's process and event loop before any of Serve's work on a request: three times the
requests a second (docs/decisions/0004-hot-route.md). Serve does not count what passes there; uvicorn's own
shutdown waits for it when a replica leaves.

HAProxy is a child of Serve's HAProxyManager, which is told to look after it: `Doorkeeper`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ray
from ray import serve
from ray.serve._private.api import _create_controller_and_proxy_refs
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.haproxy import HAProxyManager
from ray.serve.config import ControllerOptions

from actors.runtime import cluster
from models.control.control import CONTROL
from models.errors import Unavailable
from services.ingest.body import Receive, Scope, Send
from services.machine import http_protocol

if TYPE_CHECKING:
    from starlette.middleware import Middleware

    from models.settings.all import Settings
    from services.wiring.gateway import Gateway

APPLICATION = "llm-im"
DEPLOYMENT = "Gateways"
#: Bound on Serve's side for everything but the hot route, which has its own (services/ingest/doors/http.py).
ONGOING_MAX = 512
#: A leaving replica finishes what it has: a request waits at most `hold` (5 s) for a shard.
LEAVE_S = 15.0
#: A gateway's collector looks at the young only. A full collection walks all that the gateway remembers, half a
#: million entries, and holds every request up for a tenth of a second; what it would find is next to nothing.
COLLECT = (2000, 20, 1_000_000)
HEALTH_PERIOD_S = 2.0
HEALTH_TIMEOUT_S = 10.0
#: An HAProxy that does not start is tried again so often and after so long; then Serve's own way, which takes seconds.
OPENINGS_MAX = 3
OPENING_PAUSE_S = 0.2
#: How long HAProxy and Serve's fallback may take once the gateways stand; as long as serve.start() gives them.
PROXIES_TIMEOUT_S = 60.0

_gateway: Gateway | None = None
#: Serve's own, whose settings decide where it goes (ray-last/serve/*.log).
_serve_log = logging.getLogger("ray.serve")


class HotRoute:
    """ASGI middleware in front of Serve's own handling. Passes on what is not for the doors, and everything in a
    process that has no gateway (Serve's fallback proxy)."""

    def __init__(self, app: Callable[[Scope, Receive, Send], object]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = _gateway
        if gateway is not None and gateway.takes(scope):
            await gateway.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)  # type: ignore[misc]


def middlewares() -> list[Middleware]:
    """Serve's HTTP callback (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH): runs in every replica and proxy."""
    from starlette.middleware import Middleware

    _bind_grpc_to_loopback()
    http_protocol.install()
    return [Middleware(HotRoute)]


def _bind_grpc_to_loopback() -> None:
    # Two of Ray 2.60's gRPC listeners are hard-coded to [::] with no setting: each replica's internal server and the
    # direct gRPC ingress. Found by ss -ltnp; tests/cluster/test_listeners.py watches it.
    for module, name in (
        ("ray.serve._private.replica", "add_port_to_grpc_server"),
        ("ray.serve._private.default_impl", "add_grpc_address"),
    ):
        found = import_module(module)
        bind = getattr(found, name)
        if not hasattr(bind, "__wrapped__"):
            setattr(found, name, _to_loopback(bind))


def _to_loopback(bind: Callable[[object, str], object]) -> Callable[[object, str], object]:
    @wraps(bind)
    def bind_to_loopback(server: object, address: str) -> object:
        return bind(server, address.replace("[::]", "127.0.0.1"))

    return bind_to_loopback


class Doorkeeper(HAProxyManager.__ray_actor_class__):  # type: ignore[name-defined, misc]  # Ray makes it
    """Serve's manager of HAProxy, which starts a dead HAProxy again at once, with the replicas it knew.

    Serve's own way takes five seconds: its controller looks three times, then starts this process anew, then tells
    it again who the replicas are. That way still answers for all that fails here.
    """

    def __init__(self, *options: object, **more: object) -> None:
        super().__init__(*options, **more)
        self._watch = self.event_loop.create_task(self._keep())
        self._certificates = self.event_loop.create_task(self._keep_certificates())

    async def shutdown(self) -> None:
        """HAProxy is to end: let it. Not in the middle of a start, which would leave a process that nobody knows."""
        async with self._reload_lock:
            self._watch.cancel()
            self._certificates.cancel()
        await super().shutdown()

    async def _reload_haproxy(self) -> None:
        try:
            await super()._reload_haproxy()
        except Exception:
            # The new HAProxy asks the old one to go as soon as it listens. If it dies then, the old one is still
            # there, with its last answers, and takes no connection.
            await self._reopen()
            raise

    async def _keep(self) -> None:
        await self._haproxy_start_task
        while (process := self._haproxy._proc) is not None:
            await process.wait()
            for _attempt in range(OPENINGS_MAX):
                try:
                    await self._reopen()
                    break
                except (RuntimeError, OSError) as error:
                    _serve_log.error("HAProxy did not start: %s", error)
                    await asyncio.sleep(OPENING_PAUSE_S)
            else:
                return  # Serve sees it too, and starts this process anew.

    async def _keep_certificates(self) -> None:
        """Give HAProxy new certificates while it runs. That they can't be used is told by the gateways, which look at them too."""
        from services.machine import front_tls

        if (front := front_tls.read(front_tls.private_folder())) is not None:
            await self._haproxy_start_task
            await front_tls.keep(front, lambda: str(self._haproxy.cfg.socket_path), _serve_log.error)

    async def _reopen(self) -> None:
        # A reload holds this lock until its HAProxy is known, or has failed.
        async with self._reload_lock:
            front = self._haproxy
            if front._is_running():
                if await front._get_running_pid() == front._proc.pid:
                    return
                front._old_procs.append(front._proc)  # it ends what it has and goes
            _serve_log.error("HAProxy is gone, restarting it")
            await front.start()


def keep_the_door() -> None:
    """Serve's controller callback (RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH): runs before it starts HAProxyManager."""
    controller = import_module("ray.serve._private.controller")
    controller.HAProxyManager = ray.remote(num_cpus=0)(Doorkeeper)  # type: ignore[attr-defined]


class Gateways:
    """What a replica is: services.wiring.gateway.Gateway as an ASGI application under Serve."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings_json: str, start: str, port: int, other_actors: list[str]
    ) -> None:
        from actors.runtime.clock import SystemClock
        from models.settings.all import Settings
        from services.machine import front_tls, logs
        from services.machine.front import called_at
        from services.wiring import bootstrap
        from services.wiring.gateway import Gateway

        settings = Settings.model_validate_json(settings_json)
        logs.configure(settings.logging.level, settings.logging.format)
        shards = [bootstrap.shard_actor_name(index) for index in range(settings.state.partitions)]
        replica = serve.get_replica_context().replica_id.unique_id
        self.gateway = Gateway(
            f"gateway-{replica}",
            settings,
            cluster.RayPeers(),
            SystemClock(),
            bootstrap.open_log(settings, CONTROL),
            bootstrap.open_archives(settings),
            bootstrap.open_dead_letters(settings),
            shards,
            other_actors,
            bootstrap.CONTROL_ACTOR,
            (called_at(settings.server.http_host), port),
            [bootstrap.open_log(settings, name) for name in bootstrap.shard_names(settings)],
            bootstrap.open_tracer(settings, f"gateway-{replica}"),
            start=start,
            front_tls=front_tls.read(front_tls.private_folder()) if settings.server.tls.is_on else None,
        )
        await self.gateway.start()
        gc.set_threshold(*COLLECT)
        global _gateway
        _gateway = self.gateway
        http_protocol.Protocol.hot = self.gateway.hot

    def __serve_build_asgi_app__(self) -> Callable[[Scope, Receive, Send], object]:
        """What Serve serves: the whole gateway, so that it works without HotRoute too."""
        gateway = self.gateway

        # A plain function: uvicorn takes a bound method for an ASGI 2 application.
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                while True:
                    event = str((await receive())["type"])
                    await send({"type": f"{event}.complete"})
                    if event == "lifespan.shutdown":
                        return
            await gateway.app(scope, receive, send)

        return application

    async def __del__(self) -> None:
        await self.gateway.stop()


def deploy(settings: Settings, http_port: int, *, progress: Callable[[str], None]) -> None:
    """Put all actors and gateways on the Ray this process has joined. Returns when they are up; what lives under
    its name already is left as it is. Raises Unavailable naming what did not start, Conflict naming settings that are
    others than it goes by."""
    from models.settings.processes import SHARD
    from services.wiring.actors import for_gateways, plan

    start = _start(settings)
    actors = plan(settings, start)
    progress(f"starting {len(actors)} actors ({settings.state.partitions} shards)")
    for actor in actors:
        cluster.start(actor.name, actor.factory, actor.config)
    proxies = _begin_serve(http_port)
    # They started beside Serve's controller, and gateways read the logs that they begin.
    cluster.begin([actor.name for actor in actors])
    others = [actor.name for actor in actors if actor.kind != SHARD]
    progress(f"starting {settings.server.gateways} gateways")
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=settings.server.gateways,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=ONGOING_MAX,
        graceful_shutdown_timeout_s=LEAVE_S,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )(serve.ingress()(Gateways))
    serve.run(
        deployment.bind(for_gateways(settings), start, http_port, others),
        name=APPLICATION,
        route_prefix="/",
    )
    try:
        ray.get(proxies, timeout=PROXIES_TIMEOUT_S)
    except ray.exceptions.GetTimeoutError:
        raise Unavailable(f"HAProxy did not start within {PROXIES_TIMEOUT_S:g} s of the gateways") from None
    except ray.exceptions.RayActorError:
        # Serve began another in its place, as it does with one that takes too long. Who waits for the front door sees.
        progress("HAProxy's keeper is being started again")


def prepare() -> None:
    """Import what deploy() will need."""
    import_module("services.wiring.actors")
    import_module("services.wiring.reload")


def _begin_serve(http_port: int) -> list[ray.ObjectRef[Any]]:
    """Start Serve's controller, and return what tells that its proxies stand; nothing if it runs already. serve.start() waits for
    these before a gateway may start: three seconds of importing side by side instead of one after the other."""
    http = {"host": "127.0.0.1", "port": http_port, "keep_alive_timeout_s": 75}
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        _controller, proxies = _create_controller_and_proxy_refs(
            http, None, None, None, ControllerOptions(), "HeadOnly"
        )
        return proxies
    serve.start(proxy_location="HeadOnly", http_options=http)
    return []


def withdraw(*, progress: Callable[[str], None]) -> None:
    """Take requests no more, then stop every actor of ours, in the reverse order of start, each releasing its lease."""
    from services.wiring.actors import ending_order

    progress("stopping gateways")
    serve.shutdown()  # type: ignore[no-untyped-call]
    # Whatever is in our namespace was started by deploy(), and by nobody else.
    named = ray.util.list_named_actors(all_namespaces=True)
    order = ending_order(each["name"] for each in named if each["namespace"] == cluster.NAMESPACE)
    progress(f"stopping {len(order)} actors")
    cluster.stop(order)


def _start(settings: Settings) -> str:
    """What this start is called; what is started again into one that lives bears its name, and its settings. Raises
    Conflict when these are others."""
    from services.wiring.bootstrap import CONTROL_ACTOR
    from services.wiring.reload import refuse_other

    status = cluster.ask(CONTROL_ACTOR, "status")
    if status is None:
        return uuid4().hex
    running = json.loads(status)
    refuse_other(running["settings"], settings)
    return str(running["start"])
