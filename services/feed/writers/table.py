"""The brokers that can be written to, one row each. A new one is a file beside this and a row here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from models.settings.messaging import Messaging
from services.feed.writers.writer import Writer

#: "module:Class", imported only when the settings ask for it: each needs a client library.
WRITERS = {
    "kafka": "services.feed.writers.kafka:KafkaWriter",
    "nats": "services.feed.writers.nats:NatsWriter",
    "rabbitmq": "services.feed.writers.rabbitmq:RabbitWriter",
}


def open_writer(messaging: Messaging, password: str | None, name: str) -> Writer:
    """The one for the broker of the settings, not connected yet. `name` is what the broker is told of us."""
    assert messaging.backend is not None
    module, _, kind = WRITERS[messaging.backend].partition(":")
    return cast("Writer", getattr(import_module(module), kind)(messaging, password, name))
