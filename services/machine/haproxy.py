"""The HAProxy that Ray Serve runs, made fit for a front door: launch.py writes a wrapper that runs this file.

Ray 2.60 renders its HAProxy config from a fixed template that no setting reaches (docs/decisions/0010-haproxy-wrapper.md):
metrics and stats on every address, an admin socket anyone may write to, no limit for slow senders, and its own
502/503/504 sent as a bare 500. Serve starts whatever `RAY_SERVE_HAPROXY_BINARY_PATH` names, so that name is a
wrapper which runs `main` below: tighten the config file in place, then become the real binary by exec. The pid and
the arguments stay what Serve expects, so its reloads (`-sf <old pid> -x <socket>`) work unchanged.

Run as a script by `python -I -S`: standard library only, nothing of ours is imported.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Headers that take longer than this are a sender who holds a connection for nothing: HAProxy answers 408. They fit a
#: packet or two.
SLOW_HEADERS_S = 10
#: A body, or as much of it as a buffer holds. The handler that reads the rest has its own deadline (server.body_timeout).
SLOW_BODY_S = 30
#: Connections at once. An idle one costs some kilobytes; one that sends headers a buffer (launch_environment.RESEND_BYTES) for
#: SLOW_HEADERS_S at most.
CONNECTIONS_MAX = 16_384
#: Pipes for spliced data, two open files each. HAProxy would keep room for half a pipe a connection; without one it copies.
PIPES_MAX = 200
#: Open files of a connection, and those beside: listeners, checks, the admin socket, pipes, a reload's.
FILES_EACH = 2
FILES_SPARE = 1000
#: One address (of IPv6 a /64, which is what one customer has) has at most this part of them: the rest are others'.
SHARE_OF_ONE = 0.5
#: Connections of the port for probes, and how long an idle one lasts: a probe takes a moment.
PROBES_MAX = 128
PROBE_S = 2
PROBE_PATHS = "/health/live /health/ready /-/healthy /-/ready"
#: A WebSocket may be quiet this long. Without it `timeout client` would cut quiet streams.
QUIET_TUNNEL_S = 3600
#: What a sender hears when no replica answers. Sending again is safe: a repeat is told by its content.
UNAVAILABLE_BODY = b'{"error":"unavailable","message":"no gateway answered; send it again"}'
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(UNAVAILABLE_BODY), UNAVAILABLE_BODY)
)

#: Sections that only listen for people and scrapers. Serve reads its statistics over the admin socket, and our
#: metrics come from one place, so nothing of ours needs these ports.
UNWANTED_SECTIONS = ("frontend prometheus", "listen stats")
#: Sections whose `bind` is the front door itself.
HTTP_SECTION = "frontend http_frontend"
FRONT_SECTIONS = (HTTP_SECTION, "frontend grpc_frontend")
SECTION = re.compile(r"^(global|defaults|frontend|backend|listen)\b.*")
BIND = re.compile(r"^(\s*bind\s+)(\S*):(\d+)(.*)$")
OPEN_DOOR = re.compile(r"\bmode 666\b|\bbind\s+\*?:\d")
#: One line a request, to a syslog on port 514 that nobody runs.
LOGGING = re.compile(r"^\s*(log\s|no log\b|option httplog\b|option log-health-checks\b|log-format-sd\b)")
#: What we say in `defaults`, whatever Ray's template says.
OURS = re.compile(r"^\s*timeout (http-request|tunnel)\b")
MAXCONN = re.compile(r"^\s*maxconn\s")
#: How http_frontend finds its backend, which the port for probes does alike.
ROUTE = re.compile(r"^\s*(acl is_\S+ path(_beg)?|use_backend|default_backend)\s")
USE = re.compile(r"^\s*use_backend (\S+) if")
#: Until Serve has named its replicas (a start, and each restart of HAProxy) every path is unknown. A sender drops what
#: is answered 404 for good, so it hears the 503 of `error_file`.
TRY_AGAIN = "http-request deny deny_status 503"
NO_ROUTE = re.compile(rf"^\s*(http-request return status 404\b.*-/routes|{TRY_AGAIN}$)")
#: An EventSource ends for ever by any answer but 200 and its own type (HTML, 9.2.3). One that can't be served now is sent an
#: empty stream, after which it comes back by itself, and where it stood with it.
STREAM_RETRY_MS = 2000
STREAM = "{ path_reg ^/+v1/+stream/+incidents/*$ } { req.hdr(accept) -i -m sub text/event-stream }"
COME_BACK = (
    "http-request return status 200 content-type text/event-stream hdr Cache-Control no-store "
    f'string "retry: {STREAM_RETRY_MS}\\n\\n"'
)
#: What we put in stands between these, so that it can be taken out again.
BEGIN, END = "# llm-im:", "# llm-im."
#: What a client's certificate is passed on in (services/ingest/certificates.py): the secret of this start, and the certificate.
CLIENT_HEADER = "x-llm-im-client"
ERROR_FILE = re.compile(r"^(\s*errorfile\s+50[234]\s+)\S+$")


def send_once(alert_paths: Sequence[str]) -> str:
    """Of what a killed gateway leaves unanswered only this is not sent to another one (RAY_SERVE_HAPROXY_RETRY_ON): a comment,
    or a new incident, would be there twice. Alerts are told by their content, anything else by its Idempotency-Key."""
    paths = "|".join(re.sub(r"\{\w+\}", "[^/]+", path).strip("/").replace("/", "/+") for path in alert_paths)
    alerts = f"!{{ path_reg ^/+({paths})/*$ }} " if paths else ""
    return f"http-request disable-l7-retry if METH_POST {alerts}!{{ req.hdr(idempotency-key) -m found }}"


def harden(
    config: str,
    *,
    front_host: str,
    error_file: str,
    alert_paths: Sequence[str] = (),
    probe_port: int | None = None,
    connections: int = CONNECTIONS_MAX,
    tls: Mapping[str, str] | None = None,
) -> str:
    """Ray's config with our limits. Safe to apply twice. Raises ValueError when a listener is left that is not ours.

    `front_host` is where the front door and the port for probes listen; replicas and everything else stay on loopback.
    `alert_paths` are those where alerts are posted, whatever their format. `tls` is services/machine/front_tls.py's `Front`.
    """
    lines: list[str] = []
    routes: list[str] = []
    section = ""
    for line in _without_ours(config):
        if SECTION.match(line):
            section = line.strip()
        if section in UNWANTED_SECTIONS or LOGGING.match(line):
            continue
        bind = BIND.match(line)
        if bind:
            host = front_host if section in FRONT_SECTIONS else "127.0.0.1"
            line = f"{bind[1]}{host}:{bind[3]}{bind[4].partition(' ssl ')[0]}"
            if tls and section == HTTP_SECTION:
                line += _tls_options(tls)
        elif line.lstrip().startswith("stats socket "):
            line = line.replace(" mode 666 ", " mode 600 ")
        elif error := ERROR_FILE.match(line):
            line = error[1] + error_file
        elif NO_ROUTE.match(line):
            lines += _ours(f"{COME_BACK} if {STREAM}")
            line = f"    {TRY_AGAIN}"
        elif (OURS.match(line) and section == "defaults") or (MAXCONN.match(line) and section == "global"):
            continue
        elif section == HTTP_SECTION and ROUTE.match(line):
            routes.append(line)
            if use := USE.match(line):
                lines += _ours(f"{COME_BACK} if {STREAM} {{ nbsrv({use[1]}) eq 0 }}")
        lines.append(line)
        if line.strip() == "global":
            lines += _ours(f"maxconn {connections + PROBES_MAX}", f"maxpipes {PIPES_MAX}")
        elif section == "defaults" and line.strip() == "defaults":
            lines += _ours(*DEFAULTS)
        elif bind and section == HTTP_SECTION:
            lines += _ours(*_front(connections, alert_paths), *(_tls_rules(tls) if tls else ()))
    if probe_port is not None:
        lines += _ours(*_probes(front_host, probe_port, routes))
    hardened = "\n".join(lines) + "\n"
    _check(hardened)
    return hardened


DEFAULTS = (
    f"timeout http-request {SLOW_HEADERS_S}s",
    f"timeout tunnel {QUIET_TUNNEL_S}s",
    # Nobody here asks for HTTP/2 in clear text, and a second way to say a request is a second way to say two things.
    "option disable-h2-upgrade",
)


def _front(connections: int, alert_paths: Sequence[str]) -> list[str]:
    """The front door's own bounds and rules."""
    return [
        f"maxconn {connections}",
        "stick-table type ipv6 size 100k expire 1m store conn_cur",
        "tcp-request connection track-sc0 src,ipmask(32,64)",
        f"tcp-request connection reject if {{ sc0_conn_cur gt {int(connections * SHARE_OF_ONE)} }}",
        # Who asks, for the log lines of who was refused.
        "option forwardfor",
        # Whole requests, or a buffer of them, go to a gateway: only what HAProxy has whole can it send again to
        # another one when the first was killed (RAY_SERVE_HAPROXY_RETRY_ON, services/machine/environment.py).
        f"http-request wait-for-body time {SLOW_BODY_S}s",
        send_once(alert_paths),
        f"http-request set-var(txn.stream) bool(true) if {STREAM}",
        # Whoever made them: HAProxy when no gateway answers, Serve when one has no place left.
        f"http-after-response set-header Content-Type text/event-stream if {FAILED_STREAM}",
        f"http-after-response set-header Cache-Control no-store if {FAILED_STREAM}",
        f"http-after-response set-status 200 if {FAILED_STREAM}",
    ]


def _tls_options(tls: Mapping[str, str]) -> str:
    """Of the front door's `bind`. HTTP/1.1 as in clear text: what bounds connections bounds requests too."""
    options = f" ssl crt {tls['certificate']} ssl-min-ver {tls['min_version']} alpn http/1.1"
    if tls["authorities"]:
        options += f" ca-file {tls['authorities']} verify {tls['verify']}"
    return options


def _tls_rules(tls: Mapping[str, str]) -> list[str]:
    return [
        # For this user's own processes, which prove nothing to each other by certificates.
        f"bind unix@{tls['local']} mode 600",
        f"http-request del-header {CLIENT_HEADER}",
        # A token says more than the certificate of a connection that a proxy may share among its clients.
        f'http-request set-header {CLIENT_HEADER} "{tls["secret"]} %[ssl_c_der,base64]" '
        "if { ssl_c_used } { ssl_c_verify 0 } !{ req.hdr(authorization) -m found }",
    ]


FAILED_STREAM = "{ var(txn.stream) -m bool } { status 502 503 504 }"


def _probes(host: str, port: int, routes: list[str]) -> list[str]:
    """A frontend that has room when the front door has none."""
    return [
        "frontend probes",
        f"bind {host}:{port}",
        f"maxconn {PROBES_MAX}",
        f"timeout client {PROBE_S}s",
        f"timeout http-request {PROBE_S}s",
        f"timeout http-keep-alive {PROBE_S}s",
        f'http-request return status 404 content-type text/plain string "only probes are answered here\\n" '
        f"if !{{ path {PROBE_PATHS} }}",
        *(each.strip() for each in routes),
    ]


def _ours(*lines: str) -> list[str]:
    return [f"    {BEGIN}", *(f"    {line}" for line in lines), f"    {END}"]


def _without_ours(config: str) -> list[str]:
    lines: list[str] = []
    inside = False
    for line in config.splitlines():
        if line.strip() == BEGIN:
            inside = True
        elif line.strip() == END:
            inside = False
        elif not inside:
            lines.append(line)
    return lines


def connections_of(files: int) -> int:
    """How many connections this many open files are enough for: HAProxy does not start with more."""
    return max(1, min(CONNECTIONS_MAX, (files - FILES_SPARE) // FILES_EACH))


def main(arguments: list[str]) -> None:
    """`haproxy.py BINARY FRONT_HOST PROBE_PORT ERROR_FILE ALERT_PATHS TLS -- <what Serve passed>`; PROBE_PORT 0 is none, the paths
    are joined by commas, TLS is the file that says how (services/machine/front_tls.py), "" for clear text. Does not return."""
    binary, front_host, probe_port, error_file, alert_paths, tls_file, separator, *passed = arguments
    if separator != "--":
        raise SystemExit(
            "haproxy.py: expected BINARY FRONT_HOST PROBE_PORT ERROR_FILE ALERT_PATHS TLS -- ARGUMENTS"
        )
    if "-f" in passed:
        path = Path(passed[passed.index("-f") + 1])
        _soft, files = resource.getrlimit(resource.RLIMIT_NOFILE)
        hardened = harden(
            path.read_text(),
            front_host=front_host,
            error_file=error_file,
            alert_paths=alert_paths.split(","),
            probe_port=int(probe_port) or None,
            connections=CONNECTIONS_MAX if files == resource.RLIM_INFINITY else connections_of(files),
            tls=json.loads(Path(tls_file).read_text()) if tls_file else None,
        )
        if not os.path.exists(error_file):
            Path(error_file).write_bytes(UNAVAILABLE)
        replacement = path.with_name(f"{path.name}.{os.getpid()}")
        # It holds the secret that proves HAProxy to gateways.
        replacement.touch(mode=0o600)
        replacement.write_text(hardened)
        os.replace(replacement, path)
    # The admin socket and its relatives are made by HAProxy itself: nobody else may open them, whatever the mode.
    os.umask(0o077)
    os.execv(binary, [binary, *passed])


def _check(config: str) -> None:
    """A template of another Ray may say these things in other words: better no start than an open door."""
    for line in config.splitlines():
        if OPEN_DOOR.search(line):
            raise ValueError(f"Ray's HAProxy template has changed, this line is still open: {line.strip()}")


if __name__ == "__main__":
    main(sys.argv[1:])
