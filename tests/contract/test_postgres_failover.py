"""A standby that takes over, and TLS: PostgreSQL as operators set it up."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import Fenced, IncidentManagerError, Unavailable
from services.stores.postgres.log import PostgresEventLog
from services.stores.postgres.options import SYNCHRONOUS, PostgresOptions
from tests.contract.conftest import PARTITION, Chain
from tests.contract.postgres_peers import NOBODY, USER, Server, as_nobody, programs
from tests.contract.redis_peers import wait_until
from tests.contract.trouble import opened_once_it_may, refused, seqs


@pytest.fixture
def primary() -> Iterator[Server]:
    server = Server(wal_level="replica", max_wal_senders="4")
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def standby(primary: Server) -> Iterator[Server]:
    """One that the primary waits for."""
    server = Server()
    if os.geteuid() == 0:
        os.chown(server.folder, NOBODY, NOBODY)
    subprocess.run(
        [programs() / "pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", USER, "-D", server.data,
         "--checkpoint=fast", "--no-sync", "-R"],
        check=True, capture_output=True, cwd=server.folder, **as_nobody(),  # type: ignore[call-overload]
    )  # fmt: skip
    try:
        server.start()
        primary.set("synchronous_standby_names", "*")
        wait_until(
            lambda: primary.ask("SELECT sync_state FROM pg_stat_replication") == [("sync",)], "the standby"
        )
        yield server
    finally:
        server.remove()


@pytest.mark.asyncio
async def test_a_failover_to_the_standby_that_was_waited_for_loses_nothing_acknowledged(
    primary: Server, standby: Server, chain: Chain
) -> None:
    both = PostgresOptions(
        f"postgresql://{USER}@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
        "?target_session_attrs=read-write",
        replication=SYNCHRONOUS,
    )
    log = PostgresEventLog(both, PARTITION)
    epoch = (await log.open("a", 0.0, 10.0)).epoch
    on_the_standby = PostgresEventLog(PostgresOptions(standby.url), PARTITION)
    read_only = await refused(on_the_standby.open("b", 1.0, 10.0))
    acknowledged = 0

    async def write() -> None:
        nonlocal acknowledged
        while True:
            await log.append(epoch, chain.seq + 1, chain.next(3, size=500))
            acknowledged = chain.seq

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.5)
    primary.stop(signal.SIGQUIT)
    await asyncio.wait([writing])
    standby.ask("SELECT pg_promote()")
    # Alone it would wait for no standby, and is refused where one is asked for.
    alone = await refused(log.open("a", 100.0, 10.0))
    successor = PostgresEventLog(PostgresOptions(standby.url), PARTITION)
    opened = await opened_once_it_may(successor)

    assert isinstance(writing.exception(), IncidentManagerError)
    assert type(read_only) is Unavailable and "accepts no writes" in str(read_only)
    assert type(alone) is Unavailable and "synchronous_standby_names" in str(alone)
    assert 0 < acknowledged <= opened.last_seq <= acknowledged + 3
    assert await seqs(successor) == list(range(1, opened.last_seq + 1))
    for each in (log, on_the_standby, successor):
        await each.close()


@pytest.mark.asyncio
async def test_the_writer_before_a_failover_is_fenced_after_it(
    primary: Server, standby: Server, chain: Chain
) -> None:
    old = PostgresEventLog(
        PostgresOptions(
            f"postgresql://{USER}@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
            "?target_session_attrs=read-write"
        ),
        PARTITION,
    )
    epoch = (await old.open("a", 0.0, 10.0)).epoch
    await old.append(epoch, 1, chain.next())
    primary.stop(signal.SIGQUIT)
    standby.ask("SELECT pg_promote()")
    new = PostgresEventLog(PostgresOptions(standby.url), PARTITION)
    opened = await opened_once_it_may(new)
    await asyncio.sleep(1.1)  # idle for so long, a connection is asked whether it lives

    with pytest.raises(Fenced):
        await old.append(epoch, 2, chain.next())
    chain.back_to(1)
    await new.append(opened.epoch, 2, chain.next())

    assert await seqs(new) == [1, 2]
    for each in (old, new):
        await each.close()


@pytest.mark.asyncio
async def test_tls_is_spoken_and_a_certificate_of_a_stranger_refused(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate to test with")
    built = subprocess.run(
        [programs() / "pg_config", "--configure"], check=True, capture_output=True, text=True
    )
    if "openssl" not in built.stdout:
        pytest.skip("this PostgreSQL was built without TLS: POSTGRES_BIN names another")
    server = Server()
    try:
        server.create()
        certificate, key = server.data / "server.crt", server.data / "server.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=postgres",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
            check=True, capture_output=True, cwd=server.folder, **as_nobody(),  # type: ignore[call-overload]
        )  # fmt: skip
        shutil.copy(certificate, tmp_path / "ca.pem")
        server.settings["ssl"] = "on"
        server.start()
        verified = f"{server.url}?sslmode=verify-full&sslrootcert="
        known = PostgresEventLog(PostgresOptions(f"{verified}{tmp_path / 'ca.pem'}"), PARTITION)
        strange = PostgresEventLog(PostgresOptions(f"{verified}system"), PARTITION)
        opened = await known.open("a", 0.0, 10.0)
        refusal = await refused(strange.open("b", 100.0, 10.0))
        spoken = server.ask("SELECT bool_or(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                            " WHERE application_name = 'llm-im'")  # fmt: skip
        for each in (known, strange):
            await each.close()
    finally:
        server.remove()

    assert opened.epoch == 1
    assert spoken == [(True,)]
    assert isinstance(refusal, Unavailable) and "certificate" in str(refusal)
