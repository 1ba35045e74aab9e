"""What only a Redis across a network can suffer: cuts on either side of a commit, late requests, replicas that lag, a
server that is full, read-only, restarted, slow, silent, or set up to forget."""

from __future__ import annotations

import errno
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from models.errors import Full, Malformed, OutcomeUnknown, Unavailable
from models.ports import ArchiveQuery, DeadLetter, Mark
from services.stores.redis import lane
from services.stores.redis.archive import RedisArchive
from services.stores.redis.dead_letters import RedisDeadLetters
from services.stores.redis.delivery import RedisDeliveryIds
from services.stores.redis.log import APPEND, RedisEventLog
from services.stores.redis.options import RedisOptions, parse_url
from services.stores.redis.server import Server as RedisServer
from services.stores.redis.server import refusals
from tests.clock import ManualClock
from tests.contract.conftest import PARTITION, Chain
from tests.contract.proxy import Proxy
from tests.contract.redis_peers import DURABLE, Server, wait_until
from tests.contract.test_archive import incident
from tests.contract.trouble import Trouble, opened_once_it_may, refused, seqs
from tests.ports import free_port

Logs = Callable[..., RedisEventLog]
PREFIXES = iter(range(1, 1_000_000))


@pytest_asyncio.fixture
async def logs() -> AsyncIterator[Logs]:
    """Opens logs under one new prefix and closes them at the end."""
    prefix = f"trouble-{next(PREFIXES)}"
    opened: list[RedisEventLog] = []

    def log(server: Server | Proxy, **options: object) -> RedisEventLog:
        url = f"redis://127.0.0.1:{server.port}/0"
        opened.append(RedisEventLog(RedisOptions(url, prefix=prefix, **options), PARTITION))  # type: ignore[arg-type]
        return opened[-1]

    yield log
    for each in opened:
        await each.close()


@pytest_asyncio.fixture
async def proxy(redis_server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(redis_server.port) as found:
        yield found


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A Redis that the test may break."""
    server = Server(tmp_path / "redis", *DURABLE).start()
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture
def server(redis_server: Server) -> Server:
    return redis_server


class TestRedis(Trouble):
    APPEND = APPEND.sha
    PUT = "ZADD"
    CRASH = signal.SIGKILL
    REFUSED = f"Error {errno.ECONNREFUSED} connecting"
    IMPATIENT = {"timeout_s": 0.3, "replica_timeout_s": 0.1}
    VANISHED = {"timeout_s": 0.4, "connect_timeout_s": 0.2, "replica_timeout_s": 0.1}
    HALF_OPEN = {"timeout_s": 1.0, "replica_timeout_s": 0.1}

    def archive(self, at: Proxy) -> RedisArchive:
        return RedisArchive(
            RedisOptions(f"redis://127.0.0.1:{at.port}", prefix=f"cut-{next(PREFIXES)}"), PARTITION
        )

    def forget(self, server: Server, log: RedisEventLog) -> None:
        for key in server.client().keys(f"{log._log.split(':')[0]}:*"):
            server.client().delete(key)

    async def lose(self, server: Server, log: RedisEventLog, append: Callable[[], Awaitable[None]]) -> None:
        before = server.client().dump(log._log)
        assert before is not None
        await append()
        server.client().restore(log._log, 0, before, replace=True)

    def give_up_soon(self, patch: pytest.MonkeyPatch) -> None:
        """Its options say it all."""

    def look_before_use(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(lane, "IDLE_BEFORE_PING_S", 0.0)

    async def connect_both(self, log: RedisEventLog) -> None:
        await log.read(0)  # over a connection of its own


# --- a server in trouble ---


@pytest.mark.asyncio
async def test_a_server_that_forgot_the_scripts_is_given_them_again(
    logs: Logs, redis_server: Server, chain: Chain
) -> None:
    log = logs(redis_server)
    epoch = (await log.open("a", 0.0, 10.0)).epoch

    redis_server.client().script_flush()
    await log.append(epoch, 1, chain.next())
    redis_server.client().script_flush()

    assert await seqs(log) == [1]


@pytest.mark.asyncio
async def test_a_full_redis_keeps_nothing_of_an_append_and_lets_leases_and_truncation_through(
    logs: Logs, own_server: Server, chain: Chain
) -> None:
    log = logs(own_server)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next(20, size=1000))
    own_server.client().config_set("maxmemory", "1mb")
    own_server.client().config_set("maxmemory-policy", "noeviction")

    full = [
        await refused(log.append(epoch, 21, chain.next())),
        await refused(log.put_records(epoch, 1, [("a", b"1"), ("b", b"1")])),
        await refused(RedisDeliveryIds(log._writer._options, PARTITION).add([("id", 1.0, b"")])),
    ]
    chain.back_to(20)
    await log.renew(epoch, 50.0)
    for generation in (1, 2):
        await log.close_snapshot(epoch, Mark(generation, 20, chain.digests[20], 1, b""))
    await log.truncate(epoch, 20)
    epoch = (await log.open("a", 1.0, 10.0)).epoch
    own_server.client().config_set("maxmemory", "100mb")
    await log.append(epoch, 21, chain.next())

    assert [type(each) for each in full] == [Full, Full, Full]
    assert [page async for page in log.records(2)] == []
    assert await seqs(log) == [21]


@pytest.mark.asyncio
async def test_a_primary_made_a_replica_takes_nothing_and_is_left_alone_until_it_is_one_again(
    logs: Logs, own_server: Server, redis_server: Server, chain: Chain
) -> None:
    log = logs(own_server)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next())
    client = own_server.client()
    client.config_set("replica-serve-stale-data", "yes")
    client.execute_command("REPLICAOF", "127.0.0.1", 1)  # nobody is there: the data stays

    read_only = [await refused(log.append(epoch, 2, chain.next())) for _attempt in range(2)]
    chain.back_to(1)
    client.execute_command("REPLICAOF", "NO", "ONE")
    await log.append(epoch, 2, chain.next())

    assert [type(each) for each in read_only] == [Unavailable, Unavailable]
    assert "replica" in str(read_only[1])
    assert await seqs(log) == [1, 2]


@pytest.mark.asyncio
async def test_half_a_second_of_latency_only_makes_it_slow(logs: Logs, proxy: Proxy, chain: Chain) -> None:
    log = logs(proxy)
    proxy.delay_s = 0.25
    epoch = (await log.open("a", 0.0, 60.0)).epoch
    await log.append(epoch, 1, chain.next(3))
    await log.put_records(epoch, 1, [("a", b"1")])
    await log.close_snapshot(epoch, Mark(1, 3, chain.digests[3], 1, b""))

    assert await seqs(log) == [1, 2, 3]
    assert [page async for page in log.records(1)] == [[("a", b"1")]]


# --- a server that would forget ---


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("appendonly", "no", "yes"),
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ],
)
async def test_a_redis_that_would_forget_what_was_acknowledged_is_refused_by_the_name_of_its_setting(
    logs: Logs, own_server: Server, name: str, value: str, right: str
) -> None:
    own_server.client().config_set(name, value)
    log = logs(own_server)

    refusal = await refused(log.open("a", 0.0, 10.0))
    volatile = await logs(own_server, allow_volatile=True).open("a", 0.0, 10.0)
    own_server.client().config_set(name, right)
    mended = await log.open("a", 1.0, 10.0)

    assert isinstance(refusal, Unavailable)
    assert f"{name} is '{value}', expected '{right}'" in str(refusal)
    assert "state.redis.allow_volatile" in str(refusal)
    assert mended.epoch == volatile.epoch + 1


def test_policies_that_drop_only_keys_with_an_end_drop_none_of_ours() -> None:
    durable = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "volatile-lru"}

    assert refusals(durable, 0, fails_over=False) == []


def test_a_redis_that_fails_over_must_wait_for_a_replica_and_refuse_writes_without_one() -> None:
    durable = {"appendonly": "yes", "appendfsync": "always"}

    (none_waited_for,) = refusals(durable, 0, fails_over=True)
    (none_needed,) = refusals(durable, 1, fails_over=True)

    assert none_waited_for.startswith("state.redis.replicas is 0")
    assert none_needed.startswith("min-replicas-to-write is ''")
    assert refusals({**durable, "min-replicas-to-write": "1"}, 1, fails_over=True) == []


@pytest.mark.asyncio
async def test_a_redis_that_hides_its_settings_is_refused_and_says_what_to_allow(
    logs: Logs, own_server: Server
) -> None:
    own_server.client().execute_command(
        "ACL", "SETUSER", "ours", "on", ">secret-word", "~*", "+@all", "-config"
    )
    url = f"redis://ours:secret-word@127.0.0.1:{own_server.port}"
    log = RedisEventLog(RedisOptions(url), PARTITION)
    volatile = RedisEventLog(RedisOptions(url, allow_volatile=True), PARTITION)

    refusal = await refused(log.open("a", 0.0, 10.0))

    assert "CONFIG GET" in str(refusal)
    assert (await volatile.open("a", 0.0, 10.0)).epoch == 1
    for each in (log, volatile):
        await each.close()


@pytest.mark.asyncio
async def test_a_user_that_may_only_what_operate_md_lists_is_enough(own_server: Server, chain: Chain) -> None:
    document = (Path(__file__).parents[2] / "docs" / "operate.md").read_text("utf-8")
    (line,) = re.findall(r"^ACL SETUSER llm-im on >PASSWORD (.+)$", document, flags=re.MULTILINE)
    own_server.client().execute_command("ACL", "SETUSER", "llm-im", "on", ">word", *line.split())
    options = RedisOptions(f"redis://llm-im:word@127.0.0.1:{own_server.port}")
    log, archive = RedisEventLog(options, PARTITION), RedisArchive(options, PARTITION)
    ids = RedisDeliveryIds(options, PARTITION)
    letters = RedisDeadLetters(options, max_bytes=10_000, max_age_s=60, clock=ManualClock())
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next(3))
    await log.renew(epoch, 20.0)
    for generation in (1, 2):
        await log.put_records(epoch, generation, [("a", b"1")])
        await log.close_snapshot(epoch, Mark(generation, 3, chain.digests[3], 1, b""))
    await log.truncate(epoch, 3)
    await archive.put([incident(1), incident(2)])
    await ids.add([("id", 1.0, b"")])
    await letters.add([DeadLetter(1000.0, "default", "door", "why", b"{")])

    assert (await log.stats())["disk_bytes"] > 0
    assert [page async for page in log.records(2)] == [[("a", b"1")]]
    assert (
        len((await archive.page(ArchiveQuery("default", 5, services=("api",), types=("outage",)))).items) == 2
    )
    assert await archive.drop_before(9999.0, 5) == 2
    assert await ids.drop_before(2.0) == 1
    assert len(await letters.page(0, 5)) == 1
    for each in (log, archive, ids, letters):
        await each.close()


@pytest.mark.asyncio
async def test_a_wrong_password_is_unavailable_and_no_message_holds_it(own_server: Server) -> None:
    options = RedisOptions(f"redis://ours:wrong-word@127.0.0.1:{own_server.port}")
    log = RedisEventLog(options, PARTITION)

    refusal = await refused(log.open("a", 0.0, 10.0))

    assert isinstance(refusal, Unavailable)
    assert "wrong-word" not in f"{refusal} {refusal.__cause__} {options!r} {options.address!r}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://host", "expected redis://"),
        ("redis+sentinel://a,b", "service name is missing"),
        ("redis+cluster://a/3", "database 0 only"),
        ("redis://a,b", "several hosts"),
        ("redis://:pass-word@a:99999", "host can't be read"),
        ("redis://a/x", "must be a number"),
        ("redis://a?tls=yes", "'tls' is not known"),
        ("redis://us:1#pass-word@a", "within user and password write .* # .* %23"),
        ("redis://us:1?pass-word=2@a", "within user and password write"),
        ("redis://us:1/pass-word@a/0", "within user and password write"),
        ("redis://us:pass-word@[::1", "expected redis://"),
        ("redis://us:pass-word\u2100@a", "expected redis://"),
    ],
)
def test_a_url_that_can_not_be_read_says_what_was_expected_without_the_password(url: str, why: str) -> None:
    with pytest.raises(Malformed, match=why) as refusal:
        parse_url(url)

    assert "pass-word" not in str(refusal.value)


def test_urls_name_hosts_ports_service_and_credentials() -> None:
    found = parse_url(
        "rediss+sentinel://us%40er:p%3Aw@one,two:5/main/2?ssl_ca_certs=/ca.pem&sentinel_password=x"
    )

    assert (found.kind, found.tls, found.service, found.db) == ("sentinel", True, "main", 2)
    assert found.hosts == (("one", 26379), ("two", 5))
    assert (found.username, found.password) == ("us@er", "p:w")
    assert parse_url("redis://[::1]").hosts == (("::1", 6379),)


@pytest.mark.asyncio
async def test_tls_is_spoken_and_a_certificate_of_a_stranger_refused(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate to test with")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=redis", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port()
    server = Server(
        tmp_path / "redis", *DURABLE, "--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file",
        str(key), "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no",
    )  # fmt: skip
    known = RedisEventLog(RedisOptions(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"), PARTITION)
    strange = RedisEventLog(RedisOptions(f"rediss://127.0.0.1:{port}"), PARTITION)
    try:
        server.start()
        opened = await known.open("a", 0.0, 10.0)
        refusal = await refused(strange.open("b", 100.0, 10.0))
    finally:
        for each in (known, strange):
            await each.close()
        server.stop(signal.SIGKILL)

    assert opened.epoch == 1
    assert isinstance(refusal, Unavailable) and "certificate" in str(refusal)


# --- replicas ---


@pytest.mark.asyncio
async def test_an_append_is_answered_once_its_replicas_have_it_and_unknown_when_they_do_not(
    logs: Logs, own_server: Server, chain: Chain, tmp_path: Path
) -> None:
    replica = Server(tmp_path / "replica", *DURABLE, "--replicaof", f"127.0.0.1 {own_server.port}").start()
    try:
        client = own_server.client()
        client.config_set("min-replicas-to-write", 1)
        wait_until(lambda: client.info("replication")["slave0"]["state"] == "online", "the replica")
        log = logs(own_server, replicas=1, replica_timeout_s=1.0)
        # `online` is the primary's word: the replica is asked for what it has once it loaded what it was sent.
        epoch = (await opened_once_it_may(log)).epoch
        await log.append(epoch, 1, chain.next())
        there = replica.client().hget(log._log, "last_seq")

        assert replica.process is not None
        replica.process.send_signal(signal.SIGSTOP)
        unknown = await refused(log.append(epoch, 2, chain.next()))
        not_opened = await refused(log.open("a", 1.0, 10.0))
        replica.stop(signal.SIGKILL)
        wait_until(lambda: client.info("replication")["connected_slaves"] == 0, "the replica's end")
        none = await refused(log.open("a", 2.0, 10.0))
        replica.start()
        again = await opened_once_it_may(log)

        assert there == b"1"
        assert isinstance(unknown, OutcomeUnknown) and "0 of 1 replicas" in str(unknown)
        assert isinstance(not_opened, Unavailable) and "0 of 1 replicas" in str(not_opened)
        assert isinstance(none, Unavailable) and "NOREPLICAS" in str(none)
        assert again.last_seq == 2
    finally:
        replica.stop(signal.SIGKILL)


@pytest.mark.asyncio
async def test_an_append_whose_replicas_may_not_be_asked_for_counts_as_of_unknown_outcome(
    own_server: Server, chain: Chain
) -> None:
    client = own_server.client()
    client.execute_command("ACL", "SETUSER", "ours", "on", ">word", "~*", "+@all")
    url = f"redis://ours:word@127.0.0.1:{own_server.port}"
    log = RedisEventLog(RedisOptions(url, replicas=1, allow_volatile=True, replica_timeout_s=0.1), PARTITION)
    alone = RedisEventLog(RedisOptions(url), PARTITION)
    epoch = (await alone.open("a", 0.0, 10.0)).epoch
    log._token = alone._token
    client.execute_command("ACL", "SETUSER", "ours", "-wait")

    refusal = await refused(log.append(epoch, 1, chain.next()))

    assert isinstance(refusal, OutcomeUnknown)
    assert "WAIT was refused" in str(refusal)
    assert await alone.last_seq() == 1
    for each in (log, alone):
        await each.close()


@pytest.mark.asyncio
async def test_a_redis_that_can_tell_what_replicas_have_synced_is_asked_that(
    logs: Logs, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def newer(*_arguments: object, **_more: object) -> RedisServer:
        return RedisServer((7, 2), waitaof=True)

    monkeypatch.setattr(lane, "look_at", newer)

    refusal = await refused(logs(own_server, replicas=1, replica_timeout_s=0.1).open("a", 0.0, 10.0))

    # Debian's does not know it; a newer one (REDIS_SERVER) has no replica that could answer.
    assert "WAITAOF was refused" in str(refusal) or "appendonly = yes on the replicas" in str(refusal)
