"""Message queues that alerts are read from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from models.settings.processes import COLLECTOR
from models.settings.secrets import Secret
from models.settings.values import LATER, Duration, Section, WrongAt

#: Ports of the three, where an address names none.
PORTS = {"kafka": 9092, "nats": 4222, "rabbitmq": 5672}
#: RabbitMQ over TLS.
AMQPS_PORT = 5671
#: Processes that read one queue. Each has a core's worth of work at some 50,000 alerts/s.
COLLECTORS_MAX = 32

_BROKER = re.compile(r"(?:(?P<scheme>[a-z+]+)://)?(?P<place>[^/@\s]+?)(?::(?P<port>\d{1,5}))?/?")
_SCHEMES = {"kafka": (), "nats": ("nats", "tls"), "rabbitmq": ("amqp", "amqps")}
_INGEST = re.compile(r"(?:^|[._-])ingest(?:$|[._-])")


class Messaging(Section):
    """A queue that alerts are read from: [queues](queues.md)."""

    backend: Literal["kafka", "nats", "rabbitmq"] | None = Field(
        None,
        description="What to read from: Kafka, NATS JetStream or RabbitMQ. None: no queue is read.",
    )
    brokers: list[str] = Field(
        [],
        max_length=100,
        description="Addresses, `host:port`; for RabbitMQ they are tried in turn. User and password are settings of their own.",
    )
    topics: list[str] = Field(
        ["incidents.ingest"],
        min_length=1,
        max_length=10,
        description="The topic, subject or queue that is read: the one with `ingest` in its name, or the only one. The plan's `incidents.process` and `incidents.orchestrate` may be named, but nothing is written to them yet.",
    )
    consumer_group: str = Field(
        "llm-incident-manager",
        pattern=r"^[A-Za-z0-9_-]{1,100}$",
        description="Consumer group (Kafka) or durable consumer (NATS): what was read is remembered under it. Give each system that is to get all messages its own.",
    )
    collectors: int = Field(
        1,
        ge=1,
        le=COLLECTORS_MAX,
        description="Processes that read, with Kafka: each gets some of the topic's partitions. NATS and RabbitMQ keep no order among several readers.",
    )
    format: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)?$",
        description="[Format](formats.md) of messages that name none in a header `format`. None: recognised by their shape, as `POST /v1/events` does.",
    )
    user: str | None = Field(None, min_length=1, max_length=256, description="User name. None: none is sent.")
    password: Secret | None = Field(
        None, description="Password of `user`; with NATS and no user, the token. Secret."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="How Kafka is told user and password."
    )
    virtual_host: str = Field("/", min_length=1, max_length=256, description="RabbitMQ's virtual host.")
    tls: bool = Field(False, description="Whether to connect by TLS.")
    tls_ca: str | None = Field(
        None,
        description="PEM file with the certificates that the server's must be signed by. None: the system's.",
    )
    tls_cert: str | None = Field(
        None, description="PEM file with our own certificate, if the server asks for one."
    )
    tls_key: str | None = Field(None, description="PEM file with its key.")

    @model_validator(mode="after")
    def _fits(self) -> Messaging:
        if self.backend is None:
            return self
        for broker in self.brokers:
            if wrong := _wrong_broker(broker, self.backend):
                raise WrongAt("brokers", wrong)
        if len(self._ingest) != 1:
            raise WrongAt(
                "topics",
                "expected exactly one with ingest in its name, as in incidents.ingest, or only one at all",
            )
        if self.collectors > 1 and self.backend != "kafka":
            raise WrongAt(
                "collectors",
                f"expected 1 with {self.backend}: it keeps no order among several readers, and an end might overtake its beginning",
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise WrongAt("tls_cert", "expected tls_cert and tls_key together")
        if not self.tls and (self.tls_ca or self.tls_cert):
            raise WrongAt("tls", "expected true, because tls_ca or tls_cert is set")
        if self.user and self.password is None:
            raise WrongAt("password", "expected one, because user is set")
        return self

    @property
    def _ingest(self) -> list[str]:
        return (
            self.topics if len(self.topics) == 1 else [each for each in self.topics if _INGEST.search(each)]
        )

    @property
    def ingest(self) -> str:
        """The topic, subject or queue that is read."""
        return self._ingest[0]

    @property
    def places(self) -> list[tuple[str, int]]:
        """Host and port of each broker."""
        assert self.backend is not None
        port = AMQPS_PORT if self.backend == "rabbitmq" and self.tls else PORTS[self.backend]
        found = []
        for broker in self.brokers:
            match = _BROKER.fullmatch(broker)
            assert match is not None
            found.append((match["place"], int(match["port"] or port)))
        return found

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        return {"messaging_password": self.password} if kind == COLLECTOR else {}


class Worker(Section):
    """How much of a queue is in memory at once."""

    concurrency: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Most messages of one partition, subject or queue that are being stored at once.",
    )
    prefetch: int = Field(
        500,
        ge=1,
        le=100_000,
        description="Most messages that a collector holds which are not acknowledged yet.",
    )
    heartbeat_interval: Duration | None = Field(None, json_schema_extra=LATER)


def _wrong_broker(broker: str, backend: str) -> str:
    """What is wrong with an address, "" if nothing is. Never repeats one that may hold a password."""
    if "@" in broker:
        return "expected host:port without user and password: they belong to messaging.user and messaging.password"
    match = _BROKER.fullmatch(broker)
    if match is None or not 0 < int(match["port"] or 1) < 65536:
        return f"expected host:port, as in broker-1:{PORTS[backend]}, not {broker[:100]!r}"
    if match["scheme"] and match["scheme"] not in _SCHEMES[backend]:
        return f"expected host:port, not {match['scheme']}://, because backend is {backend}"
    return ""
