"""What only a PostgreSQL across a network can suffer: cuts on either side of a commit, late statements, locks, standbys,
a server that is read-only, restarted, killed, slow, silent, or set up to forget."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import psycopg
import pytest
import pytest_asyncio

from models.errors import Broken, Malformed, OutcomeUnknown, Unavailable
from models.ports import ArchiveQuery, EventLog, Mark, Opened
from services.stores.postgres import pool, snapshots
from services.stores.postgres import schema as postgres_schema
from services.stores.postgres.archive import PostgresArchive
from services.stores.postgres.dead_letters import PostgresDeadLetters
from services.stores.postgres.delivery import PostgresDeliveryIds
from services.stores.postgres.log import PostgresEventLog
from services.stores.postgres.options import PostgresOptions
from services.stores.postgres.server import refusals, server_of
from tests.clock import ManualClock
from tests.contract.conftest import NUMBERS, PARTITION, Chain
from tests.contract.postgres_peers import Server, url
from tests.contract.proxy import Proxy
from tests.contract.test_archive import incident
from tests.contract.test_dead_letters import letter
from tests.contract.trouble import Trouble, opened_once_it_may, refused, seqs

Logs = Callable[..., PostgresEventLog]
APPEND = "INSERT INTO appends"


@pytest_asyncio.fixture
async def logs() -> AsyncIterator[Logs]:
    """Opens logs in one new schema and closes them at the end."""
    schema = f"trouble_{next(NUMBERS)}"
    opened: list[PostgresEventLog] = []

    def log(server: Server | Proxy, **options: object) -> PostgresEventLog:
        given = PostgresOptions(url(server.port), schema=schema, **options)  # type: ignore[arg-type]
        opened.append(PostgresEventLog(given, PARTITION))
        return opened[-1]

    yield log
    for each in opened:
        await each.close()


@pytest_asyncio.fixture
async def proxy(postgres_server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(postgres_server.port) as found:
        yield found


@pytest.fixture(scope="module")
def shared_own_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.remove()


@pytest.fixture
def own_server(shared_own_server: Server) -> Server:
    """A PostgreSQL that the test may break, with the settings it began with."""
    if shared_own_server.process is None:
        shared_own_server.start()
    shared_own_server.ask("ALTER SYSTEM RESET ALL")
    shared_own_server.ask("SELECT pg_reload_conf()")
    return shared_own_server


@pytest.fixture
def server(postgres_server: Server) -> Server:
    return postgres_server


class TestPostgres(Trouble):
    APPEND = APPEND
    PUT = "COMMIT"
    CRASH = signal.SIGQUIT
    REFUSED = "refused"
    IMPATIENT = {"timeout_s": 0.3}
    VANISHED = {"timeout_s": 0.3, "connect_timeout_s": 1.0}
    HALF_OPEN = {"timeout_s": 2.0}

    def archive(self, at: Proxy) -> PostgresArchive:
        return PostgresArchive(PostgresOptions(url(at.port), schema=f"cut_{next(NUMBERS)}"), PARTITION)

    def forget(self, server: Server, log: PostgresEventLog) -> None:
        server.ask(f"DELETE FROM {log._writer._options.schema}.logs")

    async def lose(
        self, server: Server, log: PostgresEventLog, append: Callable[[], Awaitable[None]]
    ) -> None:
        await append()
        schema = log._writer._options.schema
        server.ask(f"DELETE FROM {schema}.appends WHERE first_seq = 2")
        server.ask(f"UPDATE {schema}.logs SET last_seq = 1")

    def give_up_soon(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr("services.stores.postgres.lane.GRACE_S", 0.1)
        patch.setattr(pool, "GRACE_S", 0.1)

    def look_before_use(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(pool, "IDLE_BEFORE_CHECK_S", 0.0)

    async def connect_both(self, log: PostgresEventLog) -> None:
        # Both at once and long enough that each has a connection of its own, none of them still being made.
        await asyncio.gather(
            *(lane.read(lambda _connection: time.sleep(0.3)) for lane in (log._writer, log._reader))
        )

    async def open_again(self, log: EventLog) -> Opened:
        # The pool still holds connections that are mute.
        return await opened_once_it_may(log)


# --- outcome unknown ---


@pytest.mark.asyncio
@pytest.mark.parametrize(("trouble", "kept"), [("before", 0), ("after", 1)])
async def test_a_connection_cut_during_the_commit_leaves_the_outcome_unknown(
    logs: Logs, proxy: Proxy, chain: Chain, trouble: str, kept: int
) -> None:
    log = logs(proxy)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next())
    proxy.hurt(trouble, "COMMIT")

    with pytest.raises(OutcomeUnknown):
        await log.close_snapshot(epoch, Mark(1, 1, chain.digests[1], 1, b""))

    assert len(await log.marks()) == kept


@pytest.mark.asyncio
async def test_a_connection_cut_before_the_commit_was_sent_kept_nothing_and_the_log_goes_on(
    logs: Logs, proxy: Proxy, chain: Chain
) -> None:
    log = logs(proxy)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    proxy.hurt("after", "INSERT INTO records")

    refusal = await refused(log.put_records(epoch, 1, [("a", b"1")]))
    await log.append(epoch, 1, chain.next())

    assert type(refusal) is Unavailable
    assert (await log.stats())["record_bytes"] == 0


# --- a server in trouble ---


@pytest.mark.asyncio
async def test_a_large_snapshot_that_was_never_closed_is_dropped_by_a_slow_server_too(
    logs: Logs, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "DROP_SLICE", 200)
    before = logs(postgres_server)
    epoch = (await before.open("a", 0.0, 10.0)).epoch
    await before.put_records(epoch, 1, [(f"key-{number}", b"x") for number in range(1200)])
    schema = before._writer._options.schema
    postgres_server.ask(
        f"CREATE FUNCTION {schema}.slowly() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.001); RETURN OLD; END $$"
    )
    postgres_server.ask(
        f"CREATE TRIGGER slowly BEFORE DELETE ON {schema}.records FOR EACH ROW EXECUTE FUNCTION {schema}.slowly()"
    )

    again = await logs(postgres_server, timeout_s=1.0).open("a", 1.0, 10.0)

    assert again.epoch == epoch + 1
    assert postgres_server.ask(f"SELECT count(*) FROM {schema}.records") == [(0,)]


@pytest.mark.asyncio
async def test_a_session_that_an_administrator_ends_is_made_anew(
    logs: Logs, postgres_server: Server, chain: Chain
) -> None:
    log = logs(postgres_server)
    await log.open("a", 0.0, 10.0)
    await log.last_seq()
    postgres_server.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'llm-im'"
    )

    assert await log.last_seq() == 0


@pytest.mark.asyncio
async def test_a_server_that_takes_no_writes_is_left_alone_until_it_does(
    logs: Logs, own_server: Server, chain: Chain
) -> None:
    log = logs(own_server)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next())
    own_server.set("default_transaction_read_only", "on")

    read_only = [await refused(log.append(epoch, 2, chain.next())) for _attempt in range(3)]
    chain.back_to(1)
    with psycopg.connect(own_server.url, autocommit=True) as client:
        client.execute("SET default_transaction_read_only = off")
        client.execute("ALTER SYSTEM RESET default_transaction_read_only")
        client.execute("SELECT pg_reload_conf()")
    for _attempt in range(50):
        if own_server.ask("SHOW default_transaction_read_only") == [("off",)]:
            break
        await asyncio.sleep(0.02)
    await log.append(epoch, 2, chain.next())

    assert [type(each) for each in read_only] == [Unavailable] * 3
    assert "default_transaction_read_only" in str(read_only[-1])
    assert await seqs(log) == [1, 2]


@pytest.mark.asyncio
async def test_half_a_second_of_latency_only_makes_it_slow_and_an_append_is_one_round_trip(
    logs: Logs, proxy: Proxy, chain: Chain
) -> None:
    log = logs(proxy)
    epoch = (await log.open("a", 0.0, 60.0)).epoch
    proxy.delay_s = 0.25

    begun = time.monotonic()
    await log.append(epoch, 1, chain.next(3))
    took_s = time.monotonic() - begun
    await log.renew(epoch, 70.0)
    proxy.delay_s = 0.0

    assert 0.5 <= took_s < 1.0
    assert await seqs(log) == [1, 2, 3]


@pytest.mark.asyncio
async def test_who_vanished_in_the_middle_of_a_transaction_keeps_the_next_writer_out_for_a_bounded_time(
    logs: Logs, proxy: Proxy, postgres_server: Server, chain: Chain
) -> None:
    log = logs(proxy, timeout_s=0.5)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    proxy.hurt(
        "vanish", "SELECT epoch, token, owner"
    )  # the row's lock is taken, and nobody ends the transaction

    refusal = await refused(log.put_records(epoch, 1, [("a", b"1")]))
    async with asyncio.timeout(5.0):
        opened = await logs(postgres_server).open("a", 1.0, 10.0)

    assert isinstance(refusal, Unavailable)
    assert opened.epoch == 2


@pytest.mark.asyncio
async def test_a_server_that_hangs_while_it_lives_is_found_in_bounded_time(
    logs: Logs, own_server: Server, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.stores.postgres.lane.GRACE_S", 0.1)
    log = logs(own_server, timeout_s=0.3)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    # A lock that somebody holds: the server itself gives the statement up.
    with psycopg.connect(own_server.url) as client:
        client.execute(f"SELECT 1 FROM {log._writer._options.schema}.logs FOR UPDATE")
        waited = await refused(log.append(epoch, 1, chain.next()))
        client.rollback()

    chain.back_to(0)
    await log.append(epoch, 1, chain.next())

    assert type(waited) is Unavailable and "statement timeout" in str(waited)


@pytest.mark.asyncio
async def test_a_writer_that_stopped_within_a_transaction_does_not_keep_the_next_one_out(
    logs: Logs, postgres_server: Server, chain: Chain
) -> None:
    log = logs(postgres_server, timeout_s=0.5)
    await log.open("a", 0.0, 10.0)

    def stop_within(connection: pool.Connection) -> None:
        log._own(connection, 1)
        time.sleep(1.0)

    stopped = asyncio.create_task(log._writer.write(stop_within))
    await asyncio.sleep(0.2)
    await asyncio.sleep(0.5)
    opened = await logs(postgres_server).open("a", 1.0, 10.0)
    ended = await asyncio.wait_for(asyncio.gather(stopped, return_exceptions=True), 10)

    assert opened.epoch == 2
    assert isinstance(ended[0], Unavailable)


@pytest.mark.asyncio
async def test_what_stood_still_within_a_transaction_is_read_again_and_a_write_is_unavailable(
    logs: Logs, postgres_server: Server
) -> None:
    log = logs(postgres_server, timeout_s=0.3)
    await log.open("a", 0.0, 10.0)
    stops = iter([0.6, 0.0, 0.6])

    def stop_once(connection: pool.Connection) -> object:
        time.sleep(next(stops))
        return connection.execute("SELECT 1").fetchone()

    found = await log._reader.read(stop_once)
    refusal = await refused(log._writer.write(stop_once))

    assert found == (1,)
    assert type(refusal) is Unavailable


# --- other transactions ---


@pytest.mark.asyncio
async def test_a_transaction_that_meets_another_one_is_done_again(
    logs: Logs, postgres_server: Server, chain: Chain
) -> None:
    log = logs(postgres_server)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    met = 0

    def conflicts(connection: pool.Connection) -> int:
        nonlocal met
        met += 1
        if met < 3:
            # What CockroachDB and YugabyteDB say under load, from a real server.
            connection.execute("DO $$ BEGIN RAISE EXCEPTION 'met' USING ERRCODE = '40001'; END $$")
        return met

    done = await log._writer.write(conflicts)
    met = -1000
    refusal = await refused(log._writer.write(conflicts))
    await log.append(epoch, 1, chain.next())

    assert done == 3
    assert type(refusal) is Unavailable and "8 times" in str(refusal)


# --- tables ---


@pytest.mark.asyncio
async def test_many_that_come_first_at_once_make_the_tables_once(postgres_server: Server) -> None:
    schema = f"first_{next(NUMBERS)}"
    # Each with options of its own, so that each has a pool of its own as another process would.
    opened = [
        PostgresEventLog(PostgresOptions(postgres_server.url, schema, max_connections=number + 2), f"shard/{number:04d}")
        for number in range(6)
    ]  # fmt: skip

    epochs = await asyncio.gather(*(log.open("a", 0.0, 10.0) for log in opened))
    for log in opened:
        await log.close()

    assert [each.epoch for each in epochs] == [1] * 6
    newest = max(number for number, _server, _text in postgres_schema.scripts())
    assert postgres_server.ask(f"SELECT version FROM {schema}.migrations WHERE place = 1") == [(newest,)]


@pytest.mark.asyncio
async def test_where_tables_are_made_outside_transactions_a_row_is_the_lock_and_a_crash_in_the_middle_resumes(
    postgres_server: Server,
) -> None:
    schema = f"elsewhere_{next(NUMBERS)}"
    with psycopg.connect(postgres_server.url, autocommit=True) as client:
        client.execute(f"CREATE SCHEMA {schema}")
        client.execute(f"CREATE TABLE {schema}.logs (partition text)")  # a crash after the first statement
        client.execute(f"DROP TABLE {schema}.logs")
        for _again in range(2):
            postgres_schema.migrate(client, "yugabytedb", schema)
            client.execute(f"UPDATE {schema}.migrations SET version = 0 WHERE place = 1")
        postgres_schema.migrate(client, "yugabytedb", schema)

    log = PostgresEventLog(PostgresOptions(postgres_server.url, schema), PARTITION)
    assert (await log.open("a", 0.0, 10.0)).epoch == 1
    await log.close()


@pytest.mark.asyncio
async def test_a_user_that_owns_nothing_but_its_schema_is_enough(
    postgres_server: Server, chain: Chain
) -> None:
    schema = f"owned_{next(NUMBERS)}"
    postgres_server.ask(f"CREATE ROLE {schema} LOGIN")
    postgres_server.ask(f"CREATE SCHEMA {schema} AUTHORIZATION {schema}")
    log = PostgresEventLog(PostgresOptions(url(postgres_server.port, user=schema), schema), PARTITION)

    epoch = (await log.open("a", 0.0, 10.0)).epoch
    await log.append(epoch, 1, chain.next())

    assert await log.last_seq() == 1
    assert (await log.stats())["disk_bytes"] > 0
    await log.close()


@pytest.mark.asyncio
async def test_tables_of_a_newer_program_are_refused(logs: Logs, postgres_server: Server) -> None:
    log = logs(postgres_server)
    await log.open("a", 0.0, 10.0)
    await log.close()
    postgres_server.ask(f"UPDATE {log._writer._options.schema}.migrations SET version = 99 WHERE place = 1")

    refusal = await refused(logs(postgres_server).open("a", 1.0, 10.0))

    assert isinstance(refusal, Broken)
    assert "a newer program made it" in str(refusal)


# --- a server that would forget ---


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
async def test_a_postgresql_that_would_forget_what_was_acknowledged_is_refused_by_the_name_of_its_setting(
    logs: Logs, own_server: Server, name: str
) -> None:
    own_server.set(name, "off")
    log = logs(own_server)

    refusal = await refused(log.open("a", 0.0, 10.0))
    volatile = await logs(own_server, allow_volatile=True).open("a", 0.0, 10.0)
    own_server.set(name, "on")
    mended = await log.open("a", 1.0, 10.0)

    assert isinstance(refusal, Unavailable)
    assert f"{name} is 'off', expected 'on'" in str(refusal)
    assert "state.postgres.allow_volatile" in str(refusal)
    assert mended.epoch == volatile.epoch + 1


@pytest.mark.asyncio
async def test_synchronous_replication_without_a_standby_is_refused_by_name(
    logs: Logs, own_server: Server
) -> None:
    refusal = await refused(logs(own_server, replication="synchronous").open("a", 0.0, 10.0))

    assert isinstance(refusal, Unavailable)
    assert "synchronous_standby_names is ''" in str(refusal)


@pytest.mark.asyncio
async def test_a_commit_that_no_standby_confirmed_counts_as_of_unknown_outcome(
    logs: Logs, own_server: Server, chain: Chain
) -> None:
    log = logs(own_server)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    own_server.set("synchronous_standby_names", "away")
    waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

    appending = asyncio.create_task(log.append(epoch, 1, chain.next()))
    while own_server.ask(f"SELECT count(*) {waiting}") == [(0,)]:
        await asyncio.sleep(0.01)
    own_server.ask(f"SELECT pg_cancel_backend(pid) {waiting}")
    unknown = await refused(appending)
    own_server.set("synchronous_standby_names", "")

    assert isinstance(unknown, OutcomeUnknown) and "synchronous replication" in str(unknown)
    assert (await log.open("a", 1.0, 10.0)).last_seq == 1


def test_levels_of_synchronous_commit_that_wait_for_no_standby_are_refused_where_one_is_asked_for() -> None:
    durable = {"fsync": "on", "full_page_writes": "on", "synchronous_standby_names": "*"}

    assert refusals({**durable, "synchronous_commit": "local"}, "") == []
    (local,) = refusals({**durable, "synchronous_commit": "local"}, "synchronous")
    assert local.startswith("synchronous_commit is 'local'")


@pytest.mark.asyncio
async def test_a_server_that_is_no_cockroachdb_is_refused_where_one_is_asked_for(
    logs: Logs, postgres_server: Server
) -> None:
    refusal = await refused(logs(postgres_server, cockroach=True).open("a", 0.0, 10.0))

    assert 'state.backend is "cockroachdb", but the server says it is PostgreSQL' in str(refusal)


@pytest.mark.parametrize(
    ("version", "server"),
    [
        ("PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu", "postgresql"),
        ("PostgreSQL 11.2-YB-2.20.1.3-b0 on x86_64-pc-linux-gnu, compiled by clang", "yugabytedb"),
        ("CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu, built 2024/05/15)", "cockroachdb"),
    ],
)
def test_servers_are_told_apart_by_what_they_say(version: str, server: str) -> None:
    assert server_of(version) == server


# --- who may connect ---


@pytest.mark.asyncio
async def test_a_wrong_password_or_database_is_unavailable_and_no_message_holds_the_password(
    own_server: Server,
) -> None:
    hba = own_server.data / "pg_hba.conf"
    trusting = hba.read_text()
    own_server.ask("SELECT 1")
    found: list[BaseException] = []
    for text, place in (("host all all all scram-sha-256\n", "postgres"), (trusting, "nowhere")):
        hba.write_text(text)
        if text is trusting:
            own_server.stop()
            own_server.start()
        else:
            own_server.ask("SELECT pg_reload_conf()")
            await asyncio.sleep(0.2)
        options = PostgresOptions(f"postgresql://llm_im:wrong-word@127.0.0.1:{own_server.port}/{place}")
        log = PostgresEventLog(options, PARTITION)
        found.append(await refused(log.open("a", 0.0, 10.0)))
        await log.close()
        assert "wrong-word" not in f"{found[-1]} {found[-1].__cause__} {options!r}"

    assert [type(each) for each in found] == [Unavailable, Unavailable]
    assert "password authentication failed" in str(found[0])
    assert '"nowhere" does not exist' in str(found[1])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"url": "http://pass-word@h"}, "state.postgres.url: expected postgresql://"),
        ({"url": "postgresql://us:pass-word%@h/d"}, "state.postgres.url: within user and password write .* %25"),
        ({"url": "postgresql://us:a@pass-word@h/d"}, "state.postgres.url: within user and password write"),
        ({"url": "postgresql://us:1/pass-word@h/d"}, "state.postgres.url: within user and password write"),
        ({"url": "postgresql://us:pass-word@[::1/d"}, "state.postgres.url: expected postgresql://"),
        ({"url": "postgresql://h", "schema": "Ours; DROP"}, "state.postgres.schema_name"),
        ({"url": "postgresql://h", "replication": "multi-region"}, "state.replication: this store offers 'synchronous'"),
        ({"url": "postgresql://h", "replication": "synchronous", "cockroach": True}, "offers 'multi-region'"),
    ],
)  # fmt: skip
def test_options_that_can_not_be_used_say_what_was_expected_without_the_password(
    given: dict[str, object], why: str
) -> None:
    with pytest.raises(Malformed, match=why) as refusal:
        PostgresOptions(**given).check()  # type: ignore[arg-type]

    assert "pass-word" not in str(refusal.value)


@pytest.mark.asyncio
async def test_a_process_has_no_more_connections_than_it_may(postgres_server: Server) -> None:
    schema = f"few_{next(NUMBERS)}"
    options = PostgresOptions(
        f"{postgres_server.url}?application_name={schema}", schema=schema, max_connections=2
    )
    readers = [PostgresArchive(options, f"shard/{number:04d}") for number in range(6)]

    for _again in range(5):
        await asyncio.gather(*(reader.page(ArchiveQuery("default", 5)) for reader in readers))
    during = postgres_server.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", schema)
    for reader in readers:
        await reader.close()

    assert during in ([(1,)], [(2,)])
    for _attempt in range(50):
        if not postgres_server.ask("SELECT 1 FROM pg_stat_activity WHERE application_name = %s", schema):
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("connections were left open")


# --- what text can not hold ---


@pytest.mark.asyncio
async def test_a_nul_in_a_senders_words_stops_nothing(postgres_server: Server) -> None:
    options = PostgresOptions(postgres_server.url, schema=f"nul_{next(NUMBERS)}")
    archive, ids = PostgresArchive(options, PARTITION), PostgresDeliveryIds(options, PARTITION)
    letters = PostgresDeadLetters(options, max_bytes=10_000, max_age_s=60, clock=ManualClock())

    await archive.put([incident(1, service="a\0b", record=b"whole\0")])
    await ids.add([("id\0", 1.0, b"answer")])
    await letters.add([letter(reason="no\0")])

    found = await archive.page(ArchiveQuery("default", 5, services=("a\0b",)))
    assert [each.record for each in found.items] == [b"whole\0"]
    assert await ids.seen(["id\0"]) == {"id\0": b"answer"}
    assert [each.reason for each in await letters.page(0, 5)] == ["no\ufffd"]
    for each in (archive, ids, letters):
        await each.close()
