"""The settings of Ray and Serve that make them fit for us, as the environment of every process of an instance. Called by
launch.py."""

from __future__ import annotations

import os
from pathlib import Path

from actors.runtime.direct import FOLDER_VARIABLE
from services.machine.log_file import FILE_VARIABLE

#: Ray opens its temp folder to everybody (0777), so it has one of its own inside ours, which stays closed.
RAY_FOLDER = "r"
#: Replicas that an instance's block of ports has room for, HTTP and gRPC each.
HTTP_REPLICAS = 40

#: The longest that Ray takes, 24 days. At 0 or less its GCS prints without a pause.
NEVER_MS = 2**31 - 1
#: Of each file that Ray logs to, and of the one before it: the temp folder is memory on many systems.
RAY_LOG_BYTES = 4 * 1024 * 1024
RAY_LOGS_KEPT = 1
#: Serve keeps a leaving replica open this long, so that HAProxy has been told (0.1 s to gather, then a reload of
#: under a second). Ray's 30 s are for cloud load balancers, and make every redeploy and serve.shutdown() take that long.
DEREGISTER_S = 3
#: HAProxy's buffer, two a connection under way. To be able to send a request again it copies the whole of it, whatever the
#: request's size: 7 us more of each at 64 KiB. 64 alerts of Prometheus are 33 kB.
RESEND_BYTES = 36 * 1024
#: Between two bytes of a client, and between two requests of one connection (Prometheus keeps them for a minute).
CLIENT_QUIET_S = 75
#: How long the process that looks after HAProxy may take to start: 3 s on a quiet machine, more than 5 at a load of 13.
PROXY_START_S = 40
#: A worker that HAProxy reloaded away may finish long streams so long; then it goes.
OLD_PROXY_S = 60


def serve_environment(
    data_dir: Path,
    private_dir: Path,
    first_port: int,
    *,
    middleware: str | None = None,
    doorkeeper: str | None = None,
) -> dict[str, str]:
    """The settings of Ray and Serve, which are read from the environment when Serve is imported, so every process
    of an instance must have the same. `first_port` is the first of a block of BLOCK free ones.

    `middleware` ("package.module.function") is called in every replica and must return a list of Starlette
    Middleware, which stand before Serve's own request handling: the hot route is answered there. `doorkeeper` is
    called in Serve's controller before it starts who looks after HAProxy.
    """
    front = private_dir / "s"  # one letter: Serve adds /<56 characters>/ to it, HAProxy allows 97 in all
    http_replicas = first_port + 10
    grpc_replicas = http_replicas + HTTP_REPLICAS
    environment = {
        # Loopback, a token, no telemetry.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        # Ray starts workers at nice 15: behind everything else on the machine, at the moment when all of it shouts.
        "RAY_worker_niceness": "0",
        FOLDER_VARIABLE: str(private_dir),
        FILE_VARIABLE: str(data_dir / "log" / "llm-im.log"),
        "RAY_AUTH_TOKEN_PATH": str(private_dir / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_START_HOOK": "actors.runtime.cluster.lean_head",
        # On SIGTERM `ray start` waits up to 30 s for work to move to other nodes. There are none.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Ray's own measurements of itself: nobody reads them, any local user could, and they cost every process a little.
        "RAY_enable_metrics_collection": "0",
        # Ray writes statistics of its event loops every minute: 190 MB a day of an idle instance.
        "RAY_event_stats": "0",
        "RAY_event_stats_print_interval_ms": str(NEVER_MS),
        # Read by every process of Ray, for its own log and for the files that take its output.
        "RAY_ROTATION_MAX_BYTES": str(RAY_LOG_BYTES),
        "RAY_ROTATION_BACKUP_COUNT": str(RAY_LOGS_KEPT),
        # Serve behind HAProxy: 3 x the default proxy (docs/decisions/0010-haproxy-wrapper.md).
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(first_port + 1),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(first_port + 2),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http_replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http_replicas + HTTP_REPLICAS - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc_replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc_replicas + HTTP_REPLICAS - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DEREGISTER_S),
        # HAProxy; what no setting reaches is in services/machine/haproxy.py.
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(private_dir / "haproxy"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(front / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(front / "a"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(front),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(front / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(front / "m"),
        # Serve's own request metrics cost a datagram a request, parsed in Python. Without them, without logging and
        # with one thread: 8,000 -> 11,000 empty requests/s on two cores, one replica.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, (os.cpu_count() or 1) // 4)),
        # A killed gateway's requests go to another one, unseen by their senders: Prometheus does not send again. Safe,
        # because the same alert twice is one; what is not is in haproxy.send_once. HAProxy sends again what fits its buffer.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(RESEND_BYTES),
        # A dead HAProxy is started again by Doorkeeper (services/wiring/serve_app.py) in a tenth of a second. Were it of no use,
        # Serve notices at the third look: at Ray's 10 s nobody answered for 27 s, at 1 s for 5 s.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # Who looks after HAProxy imports Serve while everything else starts: on a busy machine Ray's 5 s made Serve throw
        # that away and begin again, and the start failed.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(PROXY_START_S),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(CLIENT_QUIET_S),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(OLD_PROXY_S),
    }
    if middleware:
        environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = middleware
    if doorkeeper:
        environment["RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH"] = doorkeeper
    return environment
