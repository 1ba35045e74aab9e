"""The files of `[server.tls]`: read and checked as one, told apart when they change, made into what asyncio listens with.

A new pair is taken only whole: a certificate that does not fit its key, or has expired, is refused with its file and the reason, and what
was good before stays in use.
"""

from __future__ import annotations

import datetime
import os
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from models.errors import Malformed
from models.settings.tls import Tls

T = TypeVar("T")

#: Below so many days, health and the log say that a certificate has to be renewed. Authorities that renew by themselves do so
#: a month before; people need some working days.
SOON_DAYS = 14
DAY_S = 86400.0
#: A chain has three or four certificates, a bundle of authorities some hundreds: more is not what was meant.
FILE_MAX_BYTES = 1024 * 1024
#: How often files are looked at. One that changed is taken when it is the same at the next look: certificate and key are two files.
LOOK_S = 2.0

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Files that were good together. `until`: when the certificate expires, seconds since the epoch."""

    chain: bytes
    key: bytes
    authorities: bytes
    until: float

    @property
    def certificate(self) -> bytes:
        """The first of the chain, as DER: what a client sees."""
        return x509.load_pem_x509_certificate(self.chain).public_bytes(Encoding.DER)


def load(tls: Tls, now: float) -> Loaded:
    """What the settings name. Raises Malformed, which names the setting, the file and what is wrong with it."""
    assert tls.cert_file is not None and tls.key_file is not None
    chain = _bytes_of("cert_file", tls.cert_file)
    key = _bytes_of("key_file", tls.key_file)
    certificates = _parsed(
        "cert_file", tls.cert_file, lambda: x509.load_pem_x509_certificates(chain), "certificate"
    )
    first = certificates[0]
    if b"ENCRYPTED" in key:
        raise _wrong("key_file", tls.key_file, "it has a passphrase, which nobody could type at a restart")
    private = _parsed("key_file", tls.key_file, lambda: load_pem_private_key(key, None), "private key")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != first.public_key().public_bytes(*form):
        raise _wrong("key_file", tls.key_file, f"it is not the key of the certificate in {tls.cert_file}")
    until = first.not_valid_after_utc
    if until.timestamp() <= now:
        raise _wrong("cert_file", tls.cert_file, f"it expired on {_day(until)}")
    if first.not_valid_before_utc.timestamp() > now:
        raise _wrong("cert_file", tls.cert_file, f"it is not valid before {_day(first.not_valid_before_utc)}")
    authorities = b""
    if tls.client_ca_file is not None:
        path = tls.client_ca_file
        authorities = _bytes_of("client_ca_file", path)
        known = _parsed(
            "client_ca_file", path, lambda: x509.load_pem_x509_certificates(authorities), "certificate"
        )
        if all(each.not_valid_after_utc.timestamp() <= now for each in known):
            raise _wrong("client_ca_file", path, f"it expired on {_day(known[0].not_valid_after_utc)}")
    return Loaded(chain, key, authorities, until.timestamp())


def notices(tls: Tls, now: float) -> list[str]:
    """What is not wrong yet, or no reason not to start."""
    if not tls.is_on:
        return []
    assert tls.key_file is not None
    found = []
    try:
        mode = os.stat(tls.key_file).st_mode
        if mode & stat.S_IROTH:
            found.append(
                f"server.tls.key_file: every user of this machine can read {tls.key_file}: chmod o-r {tls.key_file}"
            )
        if soon := expiry_notice(load(tls, now).until, now):
            found.append(f"server.tls.cert_file: {tls.cert_file}: {soon}")
    except (OSError, Malformed):
        return found
    return found


def expiry_notice(until: float, now: float) -> str:
    """What to say of a certificate that expires then; "" while there is time."""
    left = days_left(until, now)
    if left >= SOON_DAYS:
        return ""
    day = datetime.datetime.fromtimestamp(until, datetime.UTC)
    if left <= 0:
        return f"the certificate expired on {_day(day)}: clients refuse it; renew it"
    return f"the certificate expires on {_day(day)}, in {left:.0f} days: renew it"


def days_left(until: float, now: float) -> float:
    """Negative once it has expired."""
    return (until - now) / DAY_S


def server_context(tls: Tls, loaded: Loaded) -> ssl.SSLContext:
    """What an HTTP/2 server of these files listens with. Raises Malformed when a file has changed since."""
    assert tls.cert_file is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    # Old certificates must not live on in sessions that are taken up again.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    except (ssl.SSLError, OSError) as error:
        raise _wrong("cert_file", tls.cert_file, str(error)) from None
    if tls.asks_clients:
        context.load_verify_locations(cadata=loaded.authorities.decode("ascii", "ignore"))
        wanted = tls.client_certificates == "require"
        context.verify_mode = ssl.CERT_REQUIRED if wanted else ssl.CERT_OPTIONAL
    return context


class Watch:
    """Looks at the files again and again. `fault` says why what there is now can't be used, "" when it is in use."""

    def __init__(self, tls: Tls, now: float) -> None:
        """Raises Malformed, as load()."""
        self.tls = tls
        self._taken = self._seen = _stamp(tls)
        self.loaded = load(tls, now)
        self._given: Loaded | None = self.loaded
        self.fault = ""

    def look(self, now: float) -> Loaded | None:
        """What the files hold, if that changed since it was last given and can be used; else None."""
        stamp = _stamp(self.tls)
        if stamp == self._taken:
            return None
        if stamp != self._seen:
            # Being written: it has to be the same at two looks.
            self._seen = stamp
            return None
        self._taken = stamp
        try:
            found = load(self.tls, now)
        except Malformed as error:
            self.fault = str(error)
            return None
        self.fault = ""
        self.loaded = found
        if found == self._given:
            return None
        self._given = found
        return found

    def again(self) -> None:
        """What was given last could not be put to use: give it again."""
        self._taken = ()
        self._given = None


def _stamp(tls: Tls) -> Stamp:
    found: list[tuple[int, int, int] | None] = []
    for path in (tls.cert_file, tls.key_file, tls.client_ca_file):
        try:
            said = os.stat(path) if path else None
        except OSError:
            said = None
        found.append((said.st_mtime_ns, said.st_ino, said.st_size) if said else None)
    return tuple(found)


def _bytes_of(setting: str, path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            found = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise _wrong(setting, path, error.strerror or str(error)) from None
    if len(found) > FILE_MAX_BYTES:
        raise _wrong(setting, path, f"it has over {FILE_MAX_BYTES} bytes: no file of certificates")
    return found


def _parsed(setting: str, path: str, parse: Callable[[], T], what: str) -> T:
    try:
        return parse()
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise _wrong(
            setting, path, f"it holds no {what} as PEM ({str(error).partition('.')[0][:100]})"
        ) from None


def _wrong(setting: str, path: str, why: str) -> Malformed:
    return Malformed(f"server.tls.{setting}: {path}: {why}")


def _day(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d}"
