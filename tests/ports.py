"""Ports of loopback for the servers that tests start. Asking the kernel for a free one and closing it again is a race: the
next process that asks may be given the same. Here a process has a block of ports to itself, whether it is a worker of
pytest-xdist or somebody else's test run on this machine.
"""

from __future__ import annotations

import functools
import itertools
import socket
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
#: Below the kernel's ephemeral range (32768 on), and below the blocks of our own instances (services/machine/ports.py).
FIRST_PORT, LAST_PORT = 10_000, 19_999
#: More than one process has in use at a time: a port is given again only after all others of the block.
BLOCK = 200


def free_port(span: int = 0) -> int:
    """A port on which nobody listens and that no other test is given meanwhile; `span` above it nobody listens either."""
    _, ports = _block()
    for port in itertools.islice(ports, BLOCK):
        if _is_free(port) and (not span or _is_free(port + span)):
            return port
    raise RuntimeError("every port of this process' block is in use")


@functools.cache
def _block() -> tuple[socket.socket, Iterator[int]]:
    """The first block that nobody has. Its first port, bound and never listened on, is the claim: the kernel gives it up with
    the process, however that ends."""
    for first in range(FIRST_PORT, LAST_PORT, BLOCK):
        claim = socket.socket()
        try:
            claim.bind((LOOPBACK, first))
        except OSError:
            claim.close()
            continue
        return claim, itertools.cycle(range(first + 1, first + BLOCK))
    raise RuntimeError(f"every block of ports between {FIRST_PORT} and {LAST_PORT} is in use")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
