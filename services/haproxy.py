"""The HAProxy that Ray Serve runs, made fit for a front door: launch.py writes a wrapper that runs this file.

Ray 2.60 renders its HAProxy config from a fixed template that no setting reaches (docs/decisions/0010-haproxy-wrapper.md):
metrics and stats on every address, an admin socket anyone may write to, no limit for slow senders, and its own
502/503/504 sent as a bare 500. Serve starts whatever `RAY_SERVE_HAPROXY_BINARY_PATH` names, so that name is a
wrapper which runs `main` below: tighten the config file in place, then become the real binary by exec. The pid and
the arguments stay what Serve expects, so its reloads (`-sf <old pid> -x <socket>`) work unchanged.

Run as a script by `python -I -S`: standard library only, nothing of ours is imported.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

#: Headers that take longer than this are a sender who holds a connection for nothing: HAProxy answers 408.
#: It does not bound a body; the handler that reads the body has its own deadline.
SLOW_HEADERS_S = 30
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
OURS = re.compile(r"^\s*(timeout (http-request|tunnel)|option http-buffer-request)\b")
#: Until Serve has named its replicas (a start, and each restart of HAProxy) every path is unknown. A sender drops what
#: is answered 404 for good, so it hears the 503 of `error_file`.
NO_ROUTE = re.compile(r"^\s*http-request return status 404\b.*-/routes")
TRY_AGAIN = "http-request deny deny_status 503"
#: Of what a killed gateway leaves unanswered only this is not sent to another one (RAY_SERVE_HAPROXY_RETRY_ON): a comment,
#: or a new incident, would be there twice. Alerts are told by their content, anything else by its Idempotency-Key.
SEND_ONCE = (
    "http-request disable-l7-retry if METH_POST !{ path /api/v2/alerts /v1/alerts } "
    "!{ req.hdr(idempotency-key) -m found }"
)
ERROR_FILE = re.compile(r"^(\s*errorfile\s+50[234]\s+)\S+$")


def harden(config: str, *, front_host: str, error_file: str) -> str:
    """Ray's config with our limits. Safe to apply twice. Raises ValueError when a listener is left that is not ours.

    `front_host` is where the front door listens; replicas and everything else stay on loopback.
    """
    lines: list[str] = []
    section = ""
    for line in config.splitlines():
        if SECTION.match(line):
            section = line.strip()
        if section in UNWANTED_SECTIONS or LOGGING.match(line) or line.strip() == SEND_ONCE:
            continue
        bind = BIND.match(line)
        if bind:
            host = front_host if section in FRONT_SECTIONS else "127.0.0.1"
            line = f"{bind[1]}{host}:{bind[3]}{bind[4]}"
        elif line.lstrip().startswith("stats socket "):
            line = line.replace(" mode 666 ", " mode 600 ")
        elif error := ERROR_FILE.match(line):
            line = error[1] + error_file
        elif NO_ROUTE.match(line):
            line = f"    {TRY_AGAIN}"
        elif OURS.match(line) and section == "defaults":
            continue
        lines.append(line)
        if bind and section == HTTP_SECTION:
            lines.append(f"    {SEND_ONCE}")
        if section == "defaults" and line.strip() == "defaults":
            lines.append(f"    timeout http-request {SLOW_HEADERS_S}s")
            lines.append(f"    timeout tunnel {QUIET_TUNNEL_S}s")
            # Whole requests, or a buffer of them, go to a gateway: only what HAProxy has whole can it send again to
            # another one when the first was killed (RAY_SERVE_HAPROXY_RETRY_ON, services/launch_environment.py).
            lines.append("    option http-buffer-request")
    hardened = "\n".join(lines) + "\n"
    _check(hardened)
    return hardened


def main(arguments: list[str]) -> None:
    """`haproxy.py BINARY FRONT_HOST ERROR_FILE -- <what Serve passed>`; does not return."""
    binary, front_host, error_file, separator, *passed = arguments
    if separator != "--":
        raise SystemExit("haproxy.py: expected BINARY FRONT_HOST ERROR_FILE -- ARGUMENTS")
    if "-f" in passed:
        path = Path(passed[passed.index("-f") + 1])
        hardened = harden(path.read_text(), front_host=front_host, error_file=error_file)
        if not os.path.exists(error_file):
            Path(error_file).write_bytes(UNAVAILABLE)
        replacement = path.with_name(f"{path.name}.{os.getpid()}")
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
