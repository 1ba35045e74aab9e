"""What all brokers have in common. Used by kafka.py, nats.py and rabbitmq.py beside it, and by who reads and writes."""

from __future__ import annotations

import ssl

from models.errors import Malformed, Unavailable
from models.settings.messaging import Messaging

CONNECT_S = 5.0
#: Characters of a broker's own words.
WORDS_MAX = 300


def brokers_of(messaging: Messaging) -> str:
    """The brokers, for a person."""
    return ", ".join(f"{host}:{port}" for host, port in messaging.places)


def tls_of(messaging: Messaging) -> ssl.SSLContext | None:
    """How to connect by TLS. Raises Malformed for files that can't be used."""
    if not messaging.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=messaging.tls_ca)
        if messaging.tls_cert:
            context.load_cert_chain(messaging.tls_cert, messaging.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise Malformed(f"messaging.tls_ca, tls_cert or tls_key can't be used: {error}") from None
    return context


def refused(why: object, where: str) -> Unavailable:
    """A broker's refusal in our words. Its own never hold what it was sent."""
    text = " ".join(str(why).split()) or type(why).__name__
    return Unavailable(f"{where}: {text[:WORDS_MAX]}")
