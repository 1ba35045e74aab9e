"""The front port's address: where it listens, and where this machine calls it. For gateways, the launcher and the CLI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from services.machine.front_tls import Front

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


async def knock(host: str, port: int, tls: Front | None) -> tuple[str, bytes]:
    """What is wrong with the front port's answer, "" when it is as it should be, and the certificate that it presents (DER), b"" in clear
    text. Raises OSError. Where every client needs a certificate, we have none: TLS is begun there, and the answer comes through HAProxy's
    own socket of this machine."""
    import asyncio  # which commands of the CLI do without

    certificate = b""
    if tls is None:
        reader, writer = await asyncio.open_connection(host, port)
    else:
        reader, writer = await asyncio.open_connection(host, port, ssl=_unverified())
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
        if tls.verify == "required":
            writer.close()
            reader, writer = await asyncio.open_unix_connection(tls.local)
    try:
        place = authority(host, port)
        writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % place.encode())
        line = await reader.readline()
    finally:
        writer.close()
    why = "" if line.startswith(b"HTTP/1.1 200") else f"it answers {line.decode('latin-1').strip()!r}"
    return why, certificate


def _unverified() -> ssl.SSLContext:
    """For asking ourselves whether we answer: nothing is told, and an expired certificate is an answer too."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
