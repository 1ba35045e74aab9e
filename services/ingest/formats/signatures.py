"""HMAC signatures of webhooks. Used by the formats whose senders sign (github.py, sentry.py, pagerduty_webhook.py)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from models.errors import Unauthorized
from models.settings.secrets import Secret
from services.ingest.arrival import Sender
from services.ingest.formats.format import Request


def signed_by(secret: Secret, request: Request, header: str, given: Iterable[str], who: str) -> Sender:
    """The sender, when one of the signatures `given` is the HMAC-SHA256 of the body as it was sent. Raises Unauthorized."""
    wanted = hmac.new(secret.get_secret_value().encode(), request.body, hashlib.sha256).hexdigest().encode()
    found = [each.encode("latin-1", "replace") for each in given]
    # All of them, so that the time tells nothing.
    if not any([hmac.compare_digest(wanted, each) for each in found]):
        what = "is not that of this body" if any(found) else "is missing"
        raise Unauthorized(f"{header}: the signature {what}")
    return Sender(who)


def header_of(request: Request, name: str) -> str:
    return request.headers.get(name.lower().encode(), b"").decode("latin-1").strip()
