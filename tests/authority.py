"""A certificate authority of a test's own, and what it issues."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """The files of a certificate."""

    cert: Path
    key: Path
    raw: bytes

    @property
    def sha256(self) -> str:
        return x509.load_der_x509_certificate(self.raw).fingerprint(hashes.SHA256()).hex()


@dataclass
class Authority:
    """`ca.pem` in its folder, and what issue() writes there."""

    folder: Path
    name: str = "tests"
    key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True, parents=True)
        made = self._signed(self.name, self.key, [], 1.0, is_authority=True)
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    @property
    def file(self) -> Path:
        return self.folder / "ca.pem"

    def issue(
        self, name: str, *, file: str = "", days: float = 90.0, uri: str = "", dns: str = "localhost"
    ) -> Issued:
        """A certificate for `name` and loopback, good for so many days; negative: it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(dns), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        if uri:
            names.append(x509.UniformResourceIdentifier(uri))
        made = self._signed(name, key, names, days)
        cert, key_file = self.folder / f"{file or name}.pem", self.folder / f"{file or name}.key"
        cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        key_file.chmod(0o600)
        return Issued(cert, key_file, made.public_bytes(serialization.Encoding.DER))

    def _signed(
        self, name: str, key: Key, names: list[x509.GeneralName], days: float, *, is_authority: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY + min(days, 0) * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())
