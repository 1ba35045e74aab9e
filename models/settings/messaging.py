"""Message queues that alerts are read from, and that what happens to incidents is written to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from models.settings.processes import ANNOUNCER, COLLECTOR
from models.settings.secrets import Secret
from models.settings.values import LATER, AbsolutePath, Duration, Section, WrongAt

#: Ports of the three, where an address names none.
PORTS = {"kafka": 9092, "nats": 4222, "rabbitmq": 5672}
#: RabbitMQ over TLS.
AMQPS_PORT = 5671
#: Processes that read one queue. Each has a core's worth of work at some 50,000 alerts/s.
COLLECTORS_MAX = 32

_BROKER = re.compile(r"(?:(?P<scheme>[a-z+]+)://)?(?P<place>[^/@\s]+?)(?::(?P<port>\d{1,5}))?/?")
_SCHEMES = {"kafka": (), "nats": ("nats", "tls"), "rabbitmq": ("amqp", "amqps")}
#: What is done with a topic, by a word of its name.
_WORDS = {word: re.compile(rf"(?:^|[._-]){word}(?:$|[._-])") for word in ("ingest", "process", "orchestrate")}


class Messaging(Section):
    """A queue that alerts are read from, and events of incidents written to: [queues](queues.md)."""

    backend: Literal["kafka", "nats", "rabbitmq"] | None = Field(
        None,
        description="The broker: Kafka, NATS JetStream or RabbitMQ. None: no queue is read or written.",
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
        description="Topics, subjects or queues. Alerts are read from the one with `ingest` in its name, or the only other one. Events of all incidents are written to the one with `process` in its name, those of playbooks and notifications also to the one with `orchestrate`.",
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
    tls_ca: AbsolutePath | None = Field(
        None,
        description="PEM file with the certificates that the server's must be signed by. None: the system's.",
    )
    tls_cert: AbsolutePath | None = Field(
        None, description="PEM file with our own certificate, if the server asks for one."
    )
    tls_key: AbsolutePath | None = Field(None, description="PEM file with its key.")

    @model_validator(mode="after")
    def _fits(self) -> Messaging:
        if self.backend is None:
            return self
        for broker in self.brokers:
            if wrong := _wrong_broker(broker, self.backend):
                raise WrongAt("brokers", wrong)
        for word in _WORDS:
            if len(self._named(word)) > 1:
                raise WrongAt("topics", f"expected at most one with {word} in its name")
        if self._others and (self._named("ingest") or len(self._others) > 1):
            raise WrongAt(
                "topics",
                "expected exactly one with ingest in its name, as in incidents.ingest, or only one beside those with "
                "process or orchestrate in theirs",
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

    def _named(self, word: str) -> list[str]:
        return [each for each in self.topics if self._word_of(each) == word]

    @property
    def _others(self) -> list[str]:
        return self._named("")

    @staticmethod
    def _word_of(topic: str) -> str:
        return next((word for word, found in _WORDS.items() if found.search(topic)), "")

    @property
    def ingest(self) -> str:
        """The topic, subject or queue that is read, "" when none is."""
        return next(iter([*self._named("ingest"), *self._others]), "")

    @property
    def process(self) -> str:
        """The one that all events of incidents are written to, "" when none is."""
        return next(iter(self._named("process")), "")

    @property
    def orchestrate(self) -> str:
        """The one that events of playbooks and notifications are written to, "" when none is."""
        return next(iter(self._named("orchestrate")), "")

    @property
    def is_read(self) -> bool:
        return self.backend is not None and bool(self.ingest)

    @property
    def is_written(self) -> bool:
        return self.backend is not None and bool(self.process or self.orchestrate)

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
        return {"messaging_password": self.password} if kind in (COLLECTOR, ANNOUNCER) else {}


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
