"""The front port's address: where it listens, and where this machine calls it. For gateways, the launcher and the CLI."""

from __future__ import annotations

#: Who listens everywhere is called at loopback of the same family: an address to listen on is none to call.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound

#: Of an instance's private folder: what HAProxy is told of TLS (services/machine/front_tls.py), and the unix socket at which it listens for
#: this user. Here, because each command of the CLI asks.
FOLDER, LOCAL = "tls", "local"


def called_at(host: str) -> str:
    """The address under which this machine calls what listens on `host`."""
    return _EVERYWHERE.get(host, host)


def authority(host: str, port: int) -> str:
    """`host:port` as URLs and Host headers write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
