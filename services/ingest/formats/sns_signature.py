"""Amazon's signature on messages of SNS, by the certificate that a message names, and the confirmation of a subscription. Used by sns.py.

A message says itself where its certificate is and which link confirms it: both are asked for only over https of
sns.REGION.amazonaws.com, without following a redirect, and never more than RESPONSE_MAX_BYTES are read.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from models.errors import Busy, Unauthorized
from services.actions.outbound import CallFailed, Outbound
from services.ingest.formats.values import Fields

HOST = re.compile(r"sns\.[a-z0-9-]{1,32}\.amazonaws\.com(\.cn)?")
CERTIFICATE = re.compile(r"/SimpleNotificationService-[0-9a-f]{16,64}\.pem")
#: SNS waits 15 s for an answer.
TIMEOUT_S = 5.0
RESPONSE_MAX_BYTES = 64 * 1024
#: One a region, and the next when it is replaced.
CERTIFICATES_MAX = 64
#: Questions to Amazon at a time: anybody can send a message that names another certificate.
QUESTIONS_MAX = 4
_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")

Get = Callable[[str], Awaitable[bytes]]


async def get(url: str) -> bytes:
    """What is at an address that was checked before. Raises Busy: SNS sends again."""
    place = urlsplit(url).hostname
    try:
        # Trusted: Amazon's host by its certificate, which in a private network of theirs has a private address.
        async with Outbound(timeout_s=TIMEOUT_S) as outbound:
            answer = await outbound.call("GET", url, max_bytes=RESPONSE_MAX_BYTES, trusted=True)
    except CallFailed:
        raise Busy(f"{place} can't be asked", retry_after_s=30.0) from None
    if answer.status != 200:
        raise Busy(f"{place} answers {answer.status}")
    return answer.body


class SnsSignatures:
    """One a format. `get` asks Amazon."""

    def __init__(self, get: Get = get) -> None:
        self._get = get
        self._certificates: dict[str, x509.Certificate] = {}
        self._questions = 0

    async def check(self, message: Fields, now: float) -> None:
        """Raises Unauthorized when Amazon did not sign this, Busy when that can't be seen now."""
        url = message.text("SigningCertURL", "SigningCertUrl")
        _refuse_elsewhere(url, "SigningCertURL", CERTIFICATE)
        if "?" in url or "#" in url:  # one certificate under many addresses would push the others out
            raise Unauthorized("SigningCertURL: expected no query")
        certificate = self._certificates.get(url)
        if certificate is None:
            certificate = _certificate(await self._ask(url))
            if len(self._certificates) >= CERTIFICATES_MAX:
                self._certificates.clear()
            self._certificates[url] = certificate
        if (
            not certificate.not_valid_before_utc
            <= datetime.fromtimestamp(now, UTC)
            <= certificate.not_valid_after_utc
        ):
            raise Unauthorized("SigningCertURL: the certificate is not valid now")
        key = certificate.public_key()
        try:
            if not isinstance(key, rsa.RSAPublicKey):
                raise Unauthorized("SigningCertURL: expected a certificate with an RSA key")
            signature = base64.b64decode(message.text("Signature"), validate=True)
            digest = hashes.SHA256() if message.text("SignatureVersion") == "2" else hashes.SHA1()  # noqa: S303 - version 1 is SHA-1
            key.verify(signature, _signed(message), padding.PKCS1v15(), digest)
        except (InvalidSignature, binascii.Error, ValueError):
            raise Unauthorized("Signature: it is not Amazon's of this message") from None

    async def confirm(self, message: Fields) -> None:
        """Open the link that confirms a subscription. check() comes first."""
        url = message.text("SubscribeURL")
        _refuse_elsewhere(url, "SubscribeURL", re.compile("/?"))
        await self._ask(url)

    async def _ask(self, url: str) -> bytes:
        if self._questions >= QUESTIONS_MAX:
            raise Busy(f"{QUESTIONS_MAX} questions to Amazon are under way already", retry_after_s=1.0)
        self._questions += 1
        try:
            return await self._get(url)
        finally:
            self._questions -= 1


def _refuse_elsewhere(url: str, name: str, path: re.Pattern[str]) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Unauthorized(f"{name}: expected a URL") from None
    good = (
        parts.scheme == "https"
        and HOST.fullmatch(parts.netloc)
        and port is None
        and path.fullmatch(parts.path)
    )
    if not good:
        raise Unauthorized(f"{name}: expected https://sns.REGION.amazonaws.com, got {url[:120]!r}")


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise Unauthorized("SigningCertURL: there is no certificate") from None


def _signed(message: Fields) -> bytes:
    """What Amazon signs: names and values, one a line, as they are."""
    names = _NOTIFICATION if message.text("Type") == "Notification" else _CONFIRMATION
    values = ((name, message.get(name)) for name in names)
    return "".join(f"{name}\n{value}\n" for name, value in values if isinstance(value, str)).encode(
        "utf-8", "replace"
    )
