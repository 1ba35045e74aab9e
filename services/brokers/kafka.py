"""Kafka: what librdkafka is told, and what its errors mean."""

from __future__ import annotations

import logging
from typing import Any

from models.settings.messaging import Messaging
from services.brokers.common import brokers_of, refused


def config_of(messaging: Messaging, password: str | None, name: str) -> dict[str, Any]:
    """What a client called `name` is told of the brokers. Holds the password."""
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(f"{host}:{port}" for host, port in messaging.places),
        "client.id": name,
        "allow.auto.create.topics": False,
        "reconnect.backoff.max.ms": 5000,
    }
    protocol = "SASL_" if messaging.user else ""
    found["security.protocol"] = protocol + ("SSL" if messaging.tls else "PLAINTEXT")
    if messaging.user:
        found |= {
            "sasl.mechanism": messaging.sasl_mechanism,
            "sasl.username": messaging.user,
            "sasl.password": password or "",
        }
    if messaging.tls:
        found |= {
            key: value
            for key, value in (
                ("ssl.ca.location", messaging.tls_ca),
                ("ssl.certificate.location", messaging.tls_cert),
                ("ssl.key.location", messaging.tls_key),
            )
            if value
        }
    return found


def silent() -> logging.Logger:
    """For what librdkafka would write to stderr: what matters comes as an error too."""
    found = logging.getLogger("librdkafka")
    found.propagate = False
    if not found.handlers:
        found.addHandler(logging.NullHandler())
    return found


def in_words(messaging: Messaging, error: Any, topic: str, doing: str = "read") -> str:
    """What librdkafka says, for a person who is `doing` something with a topic; "" for what is nothing to worry about."""
    from confluent_kafka import KafkaError

    where = brokers_of(messaging)
    code, user = error.code(), messaging.user
    if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        return f"{where} does not accept user {user!r} with this password ({messaging.sasl_mechanism})"
    if code in (
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
    ):
        return f"can't reach {where}"
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return f"{where}: there is no topic {topic}. Create it, or name another in messaging.topics"
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return f"{where}: user {user!r} may not {doing} the topic {topic}"
    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return f"{where}: user {user!r} may not use the consumer group {messaging.consumer_group}"
    if code in (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET):
        return ""
    return str(refused(error.str(), where))


def is_of_one(error: Any) -> bool:
    """Whether it says something of one broker only: there may be others."""
    from confluent_kafka import KafkaError

    return bool(error.code() in (KafkaError._TRANSPORT, KafkaError._RESOLVE))
