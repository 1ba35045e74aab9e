"""TLS at the front door, which HAProxy ends: what it is told, and how it gets new certificates while it runs.

Written into the instance's private folder by launch.py, before HAProxy starts for the first time:

    <private>/tls/front.pem    certificate, chain and key in one file, as HAProxy wants them
    <private>/tls/ca.pem       who signs the certificates of clients
    <private>/tls/front.json   all the rest of it: `Front`
    <private>/tls/local        HAProxy listens here too, in clear text, for the user that runs it: gateways and `llm-im` on this machine
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import Malformed, Unavailable
from services.machine.front import FOLDER, LOCAL, authority
from services.machine.instance import write_private

if TYPE_CHECKING:
    from models.settings.tls import Tls
    from services.machine.tls import Loaded

FRONT, CERTIFICATE, AUTHORITIES = "front.json", "front.pem", "ca.pem"
#: HAProxy answers its admin socket between two requests.
ADMIN_TIMEOUT_S = 5.0
#: How HAProxy writes what it lets in. Its default is "TLSv1.2" in 2.8; said, so that another one changes nothing.
_VERSIONS = {"1.2": "TLSv1.2", "1.3": "TLSv1.3"}
_VERIFY = {"ask": "optional", "require": "required"}


@dataclass(frozen=True, slots=True)
class Front:
    """What services/machine/haproxy.py is told of TLS. `secret` proves to gateways that a header comes from HAProxy."""

    certificate: str
    authorities: str
    verify: str
    min_version: str
    local: str
    secret: str
    #: What it was made from (models/settings/tls.py), for who watches the files.
    tls: dict[str, object]


def write(private_dir: Path, tls: Tls, loaded: Loaded) -> Front:
    """Begin the folder of an instance."""
    folder = private_dir / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    given = {
        each: getattr(tls, each)
        for each in ("cert_file", "key_file", "client_ca_file", "client_certificates", "min_version")
    }
    front = Front(
        str(folder / CERTIFICATE),
        str(folder / AUTHORITIES) if loaded.authorities else "",
        _VERIFY.get(tls.client_certificates, "none"),
        _VERSIONS[tls.min_version],
        str(folder / LOCAL),
        secrets.token_hex(32),
        given,
    )
    replace_files(front, loaded)
    write_private(folder / FRONT, json.dumps(asdict(front)))
    return front


def read(private_dir: Path | str) -> Front | None:
    """The folder's, None for an instance without TLS."""
    try:
        return Front(**json.loads((Path(private_dir) / FOLDER / FRONT).read_text()))
    except FileNotFoundError:
        return None


def replace_files(front: Front, loaded: Loaded) -> None:
    """What an HAProxy that starts reads from now on."""
    write_private(Path(front.certificate), _combined(loaded).decode())
    if front.authorities:
        write_private(Path(front.authorities), loaded.authorities.decode())


async def swap(admin_socket: str, front: Front, loaded: Loaded) -> None:
    """Have HAProxy use these for connections from now on; those that are open go on. Raises Unavailable with what it said."""
    replace_files(front, loaded)
    given = [("ssl cert", front.certificate, _combined(loaded))]
    if front.authorities:
        given.append(("ssl ca-file", front.authorities, loaded.authorities))
    for kind, name, content in given:
        # An earlier one may have been left half done.
        await _say(admin_socket, f"abort {kind} {name}\n".encode())
        # An empty line would end it.
        text = b"\n".join(line for line in content.splitlines() if line.strip())
        said = await _say(admin_socket, f"set {kind} {name} <<\n".encode() + text + b"\n\n")
        if "ransaction" not in said:
            raise Unavailable(f"HAProxy does not take {name}: {said[:200]}")
        said = await _say(admin_socket, f"commit {kind} {name}\n".encode())
        if "Success" not in said:
            raise Unavailable(f"HAProxy does not use {name}: {said[:200]}")


async def keep(front: Front, admin_socket: Callable[[], str], tell: Callable[[str], object]) -> None:
    """swap() whenever the files have changed. Does not return. `tell` gets what HAProxy has against them."""
    from models.settings.tls import Tls
    from services.machine.tls import LOOK_S, Watch

    tls = Tls.model_validate(front.tls)
    watch: Watch | None = None
    while True:
        try:
            if watch is None:
                watch = Watch(tls, time.time())
                # HAProxy may have been started long ago, from files before these.
                watch.again()
            if (loaded := await asyncio.to_thread(watch.look, time.time())) is not None:
                await swap(admin_socket(), front, loaded)
        except (Unavailable, OSError) as error:
            assert watch is not None
            watch.again()
            tell(str(error))
        except Malformed:
            pass  # at the start of this process alone, and gateways tell it
        await asyncio.sleep(LOOK_S)


async def _say(admin_socket: str, command: bytes) -> str:
    try:
        async with asyncio.timeout(ADMIN_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(admin_socket)
            try:
                writer.write(command)
                return (await reader.read()).decode("utf-8", "replace").strip()
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise Unavailable(
            f"HAProxy does not answer its admin socket: {error or 'no answer in time'}"
        ) from error


def _combined(loaded: Loaded) -> bytes:
    return loaded.chain.rstrip() + b"\n" + loaded.key.rstrip() + b"\n"


def private_folder() -> str:
    """The instance's, of a process of it; "" outside of one."""
    from actors.runtime.direct import FOLDER_VARIABLE

    return os.environ.get(FOLDER_VARIABLE, "")


async def knock(host: str, port: int, tls: Front | None) -> tuple[str, bytes]:
    """What is wrong with the front port's answer, "" when it is as it should be, and the certificate that it presents (DER), b"" in clear
    text. Raises OSError. Where every client needs a certificate, we have none: TLS is begun there, and the answer comes through HAProxy's
    own socket of this machine."""
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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
