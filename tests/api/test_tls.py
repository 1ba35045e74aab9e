"""TLS at the front door: a real HAProxy in front of a gateway, real certificates. Who gets in with which, and that new ones need no
restart."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from structlog.testing import capture_logs

from models.settings.tls import Tls
from services.machine import front_tls
from services.machine.front import FOLDER
from services.machine.front_tls import knock
from services.machine.tls import load
from services.proto import incident_pb2 as pb
from services.proto import incident_pb2_grpc as rpc
from services.wiring import certificates
from tests.api.front_door import FrontDoor
from tests.api.gateway_in_process import JSON, Reply, System, alert, system
from tests.authority import Authority, Issued
from tests.ports import free_port

pytestmark = pytest.mark.asyncio

PROMETHEUS = {"name": "prometheus", "common_name": "prometheus", "scopes": ["ingest:*"]}
DESK = {"name": "desk", "uri": "spiffe://tests/desk", "scopes": ["respond"]}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@contextlib.asynccontextmanager
async def secured(
    tmp_path: Path,
    authority: Authority,
    *,
    demand: str = "ask",
    clients: tuple[dict[str, Any], ...] = (PROMETHEUS, DESK),
) -> AsyncIterator[tuple[System, FrontDoor, front_tls.Front]]:
    """A gateway, and HAProxy with TLS in front of it."""
    server = authority.issue("server")
    given = {
        "cert_file": str(server.cert),
        "key_file": str(server.key),
        "client_ca_file": str(authority.file),
        "client_certificates": demand,
        "clients": list(clients),
    }
    tls = Tls.model_validate(given)
    front = front_tls.write(tmp_path, tls, load(tls, time.time()))
    async with system(server={"tls": given}, front_tls=front) as ours:
        with FrontDoor(tmp_path, with_probes=True) as door:
            door.tls_file = str(tmp_path / FOLDER / front_tls.FRONT)
            await asyncio.to_thread(door.start, [await ours.listen()])
            yield ours, door, front


def context(authority: Authority, client: Issued | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(authority.file))
    if client is not None:
        made.load_cert_chain(client.cert, client.key)
    return made


def call(
    port: int, trust: ssl.SSLContext, method: str, path: str, body: object = None, **headers: str
) -> Reply:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=trust)
    try:
        data = None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, {"Content-Type": JSON, **named})
        answer = connection.getresponse()
        return Reply(answer.status, {}, answer.read())
    finally:
        connection.close()


async def asked(
    door: FrontDoor, trust: ssl.SSLContext, method: str, path: str, body: object = None, **more: str
) -> Reply:
    return await asyncio.to_thread(call, door.port, trust, method, path, body, **more)


# Who gets in


async def test_a_certificate_is_its_bearer_with_its_scopes(tmp_path: Path, authority: Authority) -> None:
    async with secured(tmp_path, authority) as (ours, door, _):
        sender = context(authority, authority.issue("prometheus"))
        desk = context(authority, authority.issue("someone", uri="spiffe://tests/desk"))

        stored = [await asked(door, sender, "POST", "/api/v2/alerts", [alert("Slow")]) for _ in range(4)]
        forbidden = await asked(door, sender, "GET", "/v1/incidents")
        listed = await asked(door, desk, "GET", "/v1/incidents")
        (incident,) = listed.items
        acknowledged = await asked(door, desk, "POST", f"/v1/incidents/{incident['id']}/acknowledge", {})
        unsent = await asked(door, desk, "POST", "/api/v2/alerts", [alert("Slow")])
        taken = ours.gateway.hot.taken

    assert [each.status for each in stored] == [200] * 4
    assert taken, "plain requests with a certificate are answered by the protocol itself"
    assert forbidden.status == 403
    assert acknowledged.status == 200
    assert "desk" in json.dumps(acknowledged.json)
    assert unsent.status == 403


async def test_without_one_a_token_is_asked_for_and_with_a_wrong_one_there_is_no_connection(
    tmp_path: Path, authority: Authority
) -> None:
    stranger = Authority(tmp_path / "other", "other").issue("prometheus")
    async with secured(tmp_path, authority) as (_, door, _front):
        none = await asked(door, context(authority), "POST", "/api/v2/alerts", [alert("Slow")])
        live = await asked(door, context(authority), "GET", "/health/live")
        unnamed = await asked(
            door, context(authority, authority.issue("nobody")), "POST", "/api/v2/alerts", [alert("Slow")]
        )
        for wrong in (stranger, authority.issue("prometheus", days=-1)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asked(door, context(authority, wrong), "POST", "/api/v2/alerts", [alert("Slow")])

    assert none.status == 401
    assert live.status == 200
    assert unnamed.status == 401
    assert b"server.tls.clients" in unnamed.body
    assert b"nobody" in unnamed.body


async def test_a_token_counts_before_the_certificate(tmp_path: Path, authority: Authority) -> None:
    async with secured(tmp_path, authority) as (_, door, _front):
        sender = context(authority, authority.issue("prometheus"))

        found = await asked(
            door, sender, "POST", "/api/v2/alerts", [alert("Slow")], Authorization="Bearer llmim_wrong"
        )

    assert found.status == 401


async def test_nobody_says_by_a_header_that_it_has_a_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    client = authority.issue("prometheus")
    said = base64.b64encode(client.raw).decode()
    async with secured(tmp_path, authority) as (ours, door, front):
        port = await ours.listen()
        proof = f"{front.secret} {said}"

        through = await asked(
            door, context(authority), "POST", "/api/v2/alerts", [alert("Slow")], x_llm_im_client=proof
        )
        headers = [
            {},
            {"x-llm-im-client": said},
            {"x-llm-im-client": f"{'0' * 64} {said}"},
            {"x-llm-im-client": f" {said}"},
        ]
        beside = [await ours.post("/api/v2/alerts", [alert("Slow")], headers=each) for each in headers]
        by_haproxy = await ours.post("/api/v2/alerts", [alert("Slow")], headers={"x-llm-im-client": proof})
        as_token = await ours.post("/api/v2/alerts", [alert("Slow")], headers={"authorization": proof})
        assert port

    assert through.status == 401, "HAProxy drops what the client says, even with the right secret"
    assert [each.status for each in beside] == [401] * 4
    assert by_haproxy.status == 200
    assert as_token.status == 401


async def test_required_means_no_connection_without(tmp_path: Path, authority: Authority) -> None:
    async with secured(tmp_path, authority, demand="require") as (_, door, front):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asked(door, context(authority), "GET", "/health/live")
        sender = context(authority, authority.issue("prometheus"))
        stored = await asked(door, sender, "POST", "/api/v2/alerts", [alert("Slow")])
        # What a gateway does each second, and the command line on this machine: they have no certificate.
        why, presented = await knock("127.0.0.1", door.port, front)
        probe = http.client.HTTPConnection("127.0.0.1", door.probe_port, timeout=10)
        await asyncio.to_thread(probe.request, "GET", "/health/live")
        assert (await asyncio.to_thread(probe.getresponse)).status == 200
        probe.close()

    assert stored.status == 200
    assert why == ""
    assert presented


async def test_a_token_of_the_same_name_says_what_its_certificate_may_do(
    tmp_path: Path, authority: Authority
) -> None:
    by_fingerprint = authority.issue("anything")
    clients = ({"name": "grafana", "sha256": by_fingerprint.sha256.upper()}, DESK)
    async with secured(tmp_path, authority, clients=clients) as (ours, door, _):
        grafana = context(authority, by_fingerprint)
        before = await asked(door, grafana, "POST", "/api/v2/alerts", [alert("Slow")])
        await _token(ours, "admin", ["admin"])
        made = await _token(ours, "grafana", ["ingest:alertmanager"])
        with_token = await asked(door, grafana, "POST", "/api/v2/alerts", [alert("Slow")])
        await _revoke(ours, made)
        revoked = await asked(door, grafana, "POST", "/api/v2/alerts", [alert("Slow")])

    assert (before.status, with_token.status, revoked.status) == (401, 200, 401)
    assert b"grafana" in before.body


# New files


async def test_new_certificates_need_no_restart_and_cost_no_request(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.machine.tls.LOOK_S", 0.02)
    async with secured(tmp_path, authority) as (_, door, front):
        admin = str(door.folder / "a")
        told: list[str] = []
        keeper = asyncio.create_task(front_tls.keep(front, lambda: admin, told.append))
        sender = context(authority, authority.issue("prometheus"))
        is_over = False
        statuses: list[int] = []

        def load_it() -> None:
            while not is_over:
                statuses.append(call(door.port, sender, "POST", "/api/v2/alerts", [alert("Slow")]).status)

        lasting = http.client.HTTPSConnection("127.0.0.1", door.port, timeout=10, context=sender)
        await asyncio.to_thread(lasting.connect)
        senders = [asyncio.create_task(asyncio.to_thread(load_it)) for _ in range(2)]
        try:
            for _ in range(3):
                fresh = authority.issue("server")
                await _until(lambda: _presented(door, sender) == fresh.raw)  # noqa: B023 - within this turn
            await asyncio.to_thread(lasting.request, "GET", "/health/live")
            assert await asyncio.to_thread(lasting.getresponse)
            # What can't be used is not used: HAProxy is not even asked.
            (authority.folder / "server.pem").write_bytes(b"no certificate")
            await asyncio.sleep(0.2)
            assert await asyncio.to_thread(_presented, door, sender) == fresh.raw
        finally:
            is_over = True
            await asyncio.gather(*senders)
            lasting.close()
            keeper.cancel()

    assert set(statuses) == {200}
    assert told == []


async def test_clients_of_another_authority_once_its_file_says_so(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.machine.tls.LOOK_S", 0.02)
    other = Authority(tmp_path / "other", "other")
    client = context(authority, other.issue("prometheus"))
    async with secured(tmp_path, authority) as (_, door, front):
        keeper = asyncio.create_task(front_tls.keep(front, lambda: str(door.folder / "a"), print))

        def gets_in() -> bool:
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                return call(door.port, client, "POST", "/api/v2/alerts", [alert("Slow")]).status == 200
            return False

        assert not await asyncio.to_thread(gets_in)
        server_ca = authority.file.read_bytes()
        authority.file.write_bytes(server_ca + other.file.read_bytes())
        await _until(gets_in)
        keeper.cancel()


async def test_a_gateway_tells_of_files_that_it_can_not_use_and_of_days_that_are_left(
    tmp_path: Path, authority: Authority
) -> None:
    async with secured(tmp_path, authority) as (ours, door, front):
        watch = ours.gateway.certificates
        assert watch is not None
        good = authority.folder / "good.pem"
        shutil.copy(authority.folder / "server.pem", good)
        with capture_logs() as logged:
            authority.issue("other", file="other")
            shutil.copy(authority.folder / "other.pem", authority.folder / "server.pem")
            await watch.look()
            await watch.look()
            refused = watch.why_degraded()
            health = await ours.get("/health/ready")
            authority.issue("server", days=3)
            await watch.look()
            await watch.look()
            await watch.look()
            # HAProxy presents the first one still, as nobody keeps it here.
            _, presented = await knock("127.0.0.1", door.port, front)
            watch.presented(presented)
            await watch.look()
        ours.clock.ahead_s += certificates.BEHIND_S + 1
        behind = watch.why_degraded()

    events = [each["event"] for each in logged]
    assert "server.tls.key_file" in refused
    assert "not the key of the certificate" in refused
    assert refused in health.json["reasons"]["certificate"]
    assert events.count("new certificates can't be used; those before stay") == 1
    assert events.count("the certificate has to be renewed") == 1
    assert "HAProxy does not present" in behind


def _presented(door: FrontDoor, trust: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", door.port), 10) as plain,
        trust.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True) or b""


async def _until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.02)


async def _token(ours: System, name: str, scopes: list[str]) -> str:
    made = await _desk(ours).create(name, scopes, 0.0, "tests")
    return str(made.id)


async def _revoke(ours: System, token_id: str) -> None:
    await _desk(ours).revoke(token_id, "tests")


def _desk(ours: System) -> Any:
    from services.identity.tokens import TokenDesk

    return TokenDesk(ours.gateway.station.tail, ours.gateway.station.tell_control)


# gRPC


async def test_grpc_goes_by_the_same_files_and_the_same_clients(tmp_path: Path, authority: Authority) -> None:
    server, other = authority.issue("server"), Authority(tmp_path / "other", "other")
    client, nobody = authority.issue("prometheus"), authority.issue("nobody")
    async with over_grpc(authority, server, "ask") as (ours, port):
        named = await submit(port, authority, client)
        again = await submit(port, authority, None)
        unnamed = await submit(port, authority, nobody)
        by_metadata = await submit(port, authority, None, said=base64.b64encode(client.raw).decode())
        for wrong in (other.issue("prometheus"), authority.issue("late", days=-1)):
            assert await submit(port, authority, wrong) == grpc.StatusCode.UNAVAILABLE
        headers = [*ours.gateway.guard.vouched(authority.issue("desk", uri=str(DESK["uri"])).raw).items()]
        listed = await ours.request("GET", "/api/v2/alerts", [b""], headers)
        stored = {each["labels"]["service"] for each in listed.json}

    unauthenticated = grpc.StatusCode.UNAUTHENTICATED
    assert (named, again, unnamed, by_metadata) == (grpc.StatusCode.OK, *[unauthenticated] * 3)
    assert stored == {"llm-api"}


async def test_grpc_that_requires_certificates_has_no_connection_without(
    tmp_path: Path, authority: Authority
) -> None:
    async with over_grpc(authority, authority.issue("server"), "require") as (_, port):
        without = await submit(port, authority, None)
        with_one = await submit(port, authority, authority.issue("prometheus"))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            plain = await submit_on(channel)

    assert without == plain == grpc.StatusCode.UNAVAILABLE
    assert with_one == grpc.StatusCode.OK


async def test_new_certificates_reach_grpc_under_load(tmp_path: Path, authority: Authority) -> None:
    client = authority.issue("prometheus")
    async with over_grpc(authority, authority.issue("server"), "ask") as (ours, port):
        watch = ours.gateway.certificates
        assert watch is not None
        is_over, statuses = False, set()

        async def load_it() -> None:
            while not is_over:
                statuses.add(await submit(port, authority, client))

        async with _channel(port, authority, client) as lasting:
            assert await submit_on(lasting) == grpc.StatusCode.OK
            senders = [asyncio.create_task(load_it()) for _ in range(3)]
            for _ in range(5):
                fresh = authority.issue("server")
                await watch.look()
                await watch.look()
                presented = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
                assert ssl.PEM_cert_to_DER_cert(presented) == fresh.raw
            is_over = True
            await asyncio.gather(*senders)
            assert await submit_on(lasting) == grpc.StatusCode.OK

    assert statuses == {grpc.StatusCode.OK}


async def test_clients_change_while_it_runs_and_open_streams_go_by_it(
    tmp_path: Path, authority: Authority
) -> None:
    client, later = authority.issue("prometheus"), authority.issue("later")
    admin = {"name": "admin", "common_name": "admin", "scopes": ["admin"]}
    async with over_grpc(authority, authority.issue("server"), "ask", (PROMETHEUS, admin)) as (ours, port):
        before = await submit(port, authority, later)
        settings = ours.settings.model_dump(mode="json", exclude_unset=True)
        settings["server"]["tls"]["clients"] = [
            {**PROMETHEUS, "name": "later", "common_name": "later"},
            admin,
        ]
        headers = ours.gateway.guard.vouched(authority.issue("admin").raw)
        async with _channel(port, authority, client) as lasting:
            assert await submit_on(lasting) == grpc.StatusCode.OK
            stream = cast(Any, rpc.SentinelAlertsStub)(lasting).StreamAlerts()
            await stream.write(pb.AlertMessage(description="slow"))
            await stream.read()

            changed = await ours.post("/v1/config/reload", settings, headers=[*headers.items()])

            await stream.write(pb.AlertMessage(description="slow"))
            ended = await stream.code()
            gone = await submit_on(lasting)
        after = await submit(port, authority, later)

    assert changed.status == 200, changed.body
    unauthenticated = grpc.StatusCode.UNAUTHENTICATED
    assert (before, ended, gone, after) == (*[unauthenticated] * 3, grpc.StatusCode.OK)


@contextlib.asynccontextmanager
async def over_grpc(
    authority: Authority,
    server: Issued,
    demand: str,
    clients: Sequence[Mapping[str, object]] = (PROMETHEUS, DESK),
) -> AsyncIterator[tuple[System, int]]:
    port = free_port()
    tls = {
        "cert_file": str(server.cert),
        "key_file": str(server.key),
        "client_ca_file": str(authority.file),
        "client_certificates": demand,
        "clients": [*clients],
    }
    async with system(server={"grpc": True, "grpc_port": port, "tls": tls}) as ours:
        yield ours, port


def _channel(port: int, authority: Authority, client: Issued | None) -> grpc.aio.Channel:
    given = grpc.ssl_channel_credentials(
        authority.file.read_bytes(),
        client.key.read_bytes() if client else None,
        client.cert.read_bytes() if client else None,
    )
    # A channel of its own: grpcio shares connections among those that look alike.
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", given, [("grpc.use_local_subchannel_pool", 1)])


async def submit(port: int, authority: Authority, client: Issued | None, said: str = "") -> grpc.StatusCode:
    async with _channel(port, authority, client) as channel:
        return await submit_on(channel, said)


async def submit_on(channel: grpc.aio.Channel, said: str = "") -> grpc.StatusCode:
    """How a call with one alert ends."""
    message = pb.AlertMessage(
        alert_id="a-1",
        source="tests",
        severity=pb.SEVERITY_P1,
        description="slow",
        affected_services=["llm-api"],
    )
    stub = cast(Any, rpc.SentinelAlertsStub)(channel)
    metadata = [("x-llm-im-client", said)] if said else []
    try:
        await stub.SubmitAlert(message, timeout=10, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


# Programs of others

RULE = (
    "groups: [{name: g, interval: 1s, rules: [{alert: Always, expr: vector(1), labels: {service: llm-api}}]}]"
)
CONFIG = """
global: {{evaluation_interval: 1s}}
rule_files: [{rules}]
alerting:
  alertmanagers:
    - scheme: https
      tls_config: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}
      static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


async def test_prometheus_sends_by_tls_with_a_certificate_instead_of_a_token(
    tmp_path: Path, authority: Authority
) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("prometheus is not installed: make peers")
    client, port = authority.issue("prometheus"), free_port()
    rules, config = tmp_path / "rules.yaml", tmp_path / "prometheus.yaml"
    rules.write_text(RULE)
    async with secured(tmp_path, authority, demand="require") as (_ours, door, _):
        config.write_text(
            CONFIG.format(rules=rules, ca=authority.file, cert=client.cert, key=client.key, port=door.port)
        )
        process = await asyncio.create_subprocess_exec(
            prometheus, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}", "--rules.alert.resend-delay=1s",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(40):
                while not (counted := await asyncio.to_thread(_notified, port))["sent"]:
                    await asyncio.sleep(0.1)
                counted = await asyncio.to_thread(_notified, port)
        finally:
            process.terminate()
            await process.wait()

    assert counted["sent"] and not counted["errors"], counted


def _notified(port: int) -> dict[str, float]:
    """What a Prometheus says of what it sent; nothing while it starts."""
    found = {"sent": 0.0, "errors": 0.0}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.suppress(OSError), contextlib.closing(connection):
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            for name in found:
                if line.startswith(f"prometheus_notifications_{name}_total{{"):
                    found[name] += float(line.rsplit(" ", 1)[1])
    return found
