"""Who bears a client certificate, by `[[server.tls.clients]]`. Whoever ended TLS has checked that it is good; here is looked up whose
it is.

HAProxy passes a certificate on in a header, with a secret that is made at each start: whoever else reaches a gateway's own port on
loopback does not know it, and HAProxy drops what a client says under that name (services/machine/haproxy.py).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

from models.errors import Unauthorized
from models.settings.tls import WHICH, TlsClient

#: As HAProxy writes it (CLIENT_HEADER in services/machine/haproxy.py).
CLIENT_HEADER = b"x-llm-im-client"
#: Characters of a common name that are told: ours to bound, as whoever signs may write what they like.
NAME_CHARS = 100


class Bearer(NamedTuple):
    """A certificate whose client is known, and when it expires, seconds since the epoch."""

    client: TlsClient
    until: float


class Certificates:
    """One gateway's. `secret` is HAProxy's of this start, "" where none stands in front."""

    def __init__(self, clients: Iterable[TlsClient], secret: str) -> None:
        self._secret = (secret or secrets.token_hex(32)).encode()
        self.take(clients)

    def take(self, clients: Iterable[TlsClient]) -> None:
        """Go by these from now on."""
        self._clients = {client.key: client for client in clients}

    def vouched(self, certificate: bytes) -> Mapping[bytes, bytes]:
        """The headers that stand for a certificate (DER) which TLS of our own has checked."""
        return {CLIENT_HEADER: self._secret + b" " + base64.b64encode(certificate)}

    def proven(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        """The certificate that whoever ended TLS says was presented, as base64; None without one."""
        secret, _, certificate = headers.get(CLIENT_HEADER, b"").partition(b" ")
        if not certificate or not hmac.compare_digest(secret, self._secret):
            return None
        return certificate

    def bearer(self, certificate: bytes) -> Bearer:
        """Whose a certificate (base64 of its DER) is. Raises Unauthorized when no setting names it."""
        try:
            raw = base64.b64decode(certificate, validate=True)
            read = x509.load_der_x509_certificate(raw)
            names = _names(read)
        except (ValueError, binascii.Error, x509.InvalidVersion, x509.ExtensionNotFound):
            raise Unauthorized("the client certificate can't be read; give a token") from None
        fingerprint = sha256(raw).hexdigest()
        names["sha256"] = [fingerprint]
        for which in WHICH:
            for name in names.get(which, ()):
                if (client := self._clients.get((which, name))) is not None:
                    return Bearer(client, read.not_valid_after_utc.timestamp())
        called = next(iter(names["common_name"]), "without a common name")[:NAME_CHARS]
        raise Unauthorized(
            f"no entry of server.tls.clients names this client certificate ({called!r}, sha256 {fingerprint}), "
            "and there is no token: add an entry, or give a token"
        )


def _names(read: x509.Certificate) -> dict[str, list[str]]:
    found = {
        "common_name": [str(each.value) for each in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    }
    try:
        said = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    found["dns"] = said.get_values_for_type(x509.DNSName)
    found["uri"] = said.get_values_for_type(x509.UniformResourceIdentifier)
    return found
