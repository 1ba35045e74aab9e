"""The ports of one machine: whether one is taken, and by whom, and a free block for the parts of an instance. Called by
services/machine/launch.py."""

from __future__ import annotations

import errno
import random
import socket

from models.errors import Refused, Unavailable
from services.machine.environment import HTTP_REPLICAS
from services.machine.processes import holder_of

#: Ports of our own choice, below the kernel's ephemeral range (32768 on), in blocks of one instance each.
#: Blocks, because a stale HAProxy must never meet a replica of another instance on a port it knows.
FIRST_PORT, LAST_PORT, BLOCK = 20_000, 29_900, 100
PORTS_TRIED = 50


def refuse_taken_port(host: str, port: int, setting: str = "server.http_port") -> None:
    """Raises Refused, naming who holds the port as far as that can be read."""
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise Refused(
            f"server.http_host {host}: {error.strerror}; expected an address of this machine"
        ) from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as HAProxy does: TIME_WAIT is no holder
        try:
            probe.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise Refused(
                    f"server.http_host {host} is not an address of this machine; to list them: ip address"
                ) from error
            holder = holder_of(port)
            raise Refused(
                f"can't listen on {host}:{port}: {holder or error.strerror}. Stop it, or choose another port with "
                f"the setting {setting} (LLM_IM_{setting.upper().replace('.', '__')})"
            ) from error


def free_block() -> int:
    """The first of BLOCK ports of which those that Ray takes without asking again are free."""
    for _ in range(PORTS_TRIED):
        first = random.randrange(FIRST_PORT, LAST_PORT, BLOCK)
        fixed = (first + 1, first + 2, first + 10, first + 10 + HTTP_REPLICAS)
        if all(_is_free(port) for port in fixed):
            return first
    raise Unavailable(f"found no free block of ports between {FIRST_PORT} and {LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
