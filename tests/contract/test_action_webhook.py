"""What every action by HTTP sends and understands, against a real local server; and the webhook's body beside Alertmanager's
own. The promise of all actions: tests/contract/test_actions.py."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from models import VERSION
from models.incidents.incident import Incident
from models.incidents.notification import facts_of
from models.incidents.query import AlertView
from models.ports import ActionResult
from services.actions.http_call import HttpCall
from services.actions.outbound import MAX_ANSWER_BYTES
from services.actions.webhook_body import webhook_body
from tests.ports import free_port

pytestmark = pytest.mark.asyncio

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ALERTMANAGER = shutil.which("prometheus-alertmanager")


def a_certificate(folder: Path) -> ssl.SSLContext:
    """One that nobody trusts."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1",
               "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@asynccontextmanager
async def a_server(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A receiver on a free port; yields host:port."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Post:
    """POSTs to one URL, as every channel by HTTP does."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._url, self._http = url, HttpCall(timeout_s=timeout_s)

    async def post(self, key: str, body: bytes, trace: str | None = None) -> ActionResult:
        return (await self._http.attempt(key, trace).call("POST", self._url, body)).result

    async def close(self) -> None:
        await self._http.close()


async def act_once(
    handler: Handler, *, path: str = "/hook", userinfo: str = "", timeout_s: float = 5.0
) -> ActionResult:
    async with a_server(handler) as place:
        action = Post(f"http://{userinfo}{place}{path}", timeout_s=timeout_s)
        try:
            return await action.post("key-1", b'{"a":1}')
        finally:
            await action.close()


def answering(status: int, text: str = "", headers: dict[str, str] | None = None) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return handler


async def test_a_notification_arrives_as_json_with_its_key_and_our_name() -> None:
    got: list[tuple[str, bytes, dict[str, str]]] = []

    async def handler(request: web.Request) -> web.Response:
        got.append((request.method, await request.read(), dict(request.headers)))
        return web.Response()

    result = await act_once(handler)

    assert (result.ok, result.final) == (True, False)
    [(method, body, headers)] = got
    assert (method, body) == ("POST", b'{"a":1}')
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "key-1"
    assert headers["User-Agent"] == f"llm-incident-manager/{VERSION}"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        (as_written, as_written)
        for as_written in (
            "/hook?sig=a%2Fb", "/a%2Fb/%7Euser/../x;p=1?e=%C3%BC&empty=&q=a+b%20c!*()'", "/%zz?%", "/hook?a=%25&b=%26", "/?x=%2f",
        )
    ] + [("?x=1", "/?x=1"), ("/\u00fc?q=\u00fc", "/%C3%BC?q=%C3%BC")]
    + [("/\u00fc/../a%2Fb?sig=a%2Fb&q=%7E", "/%C3%BC/../a%2Fb?sig=a%2Fb&q=%7E")],
)  # fmt: skip
async def test_the_url_is_sent_as_it_is_written(path: str, sent: str) -> None:
    got: list[str] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append((await reader.readline()).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    action = Post(f"http://127.0.0.1:{port}{path}")

    result = await action.post("k", b"{}")
    await action.close()
    server.close()

    assert result.ok
    assert got == [f"POST {sent} HTTP/1.1\r\n"]


async def test_userinfo_of_the_url_logs_in() -> None:
    got: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        got.append(request.headers.get("Authorization"))
        return web.Response()

    await act_once(handler, userinfo="someone:hunter%4022@")

    assert got == ["Basic " + base64.b64encode(b"someone:hunter@22").decode()]


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_2xx_is_done(status: int) -> None:
    assert (await act_once(answering(status))).ok


@pytest.mark.parametrize(
    "status", [401, 402, 403, 404, 405, 408, 410, 421, 425, 429, 451, 500, 501, 503, 599]
)
async def test_what_does_not_concern_this_body_is_tried_again(status: int) -> None:
    result = await act_once(answering(status, "come back"))

    assert (result.ok, result.final) == (False, False)
    assert f"answered {status}: come back" in result.detail


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_concerns_this_body_is_final(status: int) -> None:
    result = await act_once(answering(status, "no\nsuch\x00place"))

    assert (result.ok, result.final) == (False, True)
    assert f"answered {status}: no such place" in result.detail


@pytest.mark.parametrize(
    ("status", "reached"),
    [
        (301, False),
        (400, False),
        (401, False),
        (404, False),
        (429, False),
        (408, True),
        (500, True),
        (504, True),
    ],
)
async def test_a_refusal_has_reached_nobody_and_what_failed_behind_it_may_have(
    status: int, reached: bool
) -> None:
    assert (await act_once(answering(status))).reached is reached


async def test_a_certificate_that_is_not_trusted_is_tried_again_and_has_reached_nobody(
    tmp_path: Path,
) -> None:
    async with a_server(answering(200), tls=a_certificate(tmp_path)) as place:
        action = Post(f"https://{place}/hook")
        result = await action.post("k", b"{}")
        await action.close()

    assert (result.ok, result.final, result.reached) == (False, False, False)
    assert "Certificate" in result.detail


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_named_failure_and_not_followed(status: int) -> None:
    paths: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere?token=abcd"})

    result = await act_once(handler)

    assert paths == ["/hook"]
    assert (result.ok, result.final) == (False, False)
    assert "redirect" in result.detail and "abcd" not in result.detail


async def test_retry_after_is_kept_in_seconds_or_as_a_date() -> None:
    seconds = await act_once(answering(429, "slow", {"Retry-After": "17"}))
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    dated = await act_once(answering(503, "", {"Retry-After": date}))
    odd = await act_once(answering(503, "", {"Retry-After": "soon-ish"}))
    endless = await act_once(answering(503, "", {"Retry-After": "9" * 40}))

    assert seconds.retry_after_s == 17
    assert 50 <= dated.retry_after_s <= 61
    assert odd.retry_after_s == 0
    assert endless.retry_after_s == 86_400


async def test_a_receiver_that_never_answers_is_given_up_in_time() -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    started = time.monotonic()
    result = await act_once(handler, timeout_s=0.2)

    assert (result.ok, result.final, result.reached) == (False, False, True)
    assert "no answer within 0.2 s" in result.detail
    assert time.monotonic() - started < 3


async def test_nobody_listening_is_tried_again() -> None:
    port = free_port()
    action = Post(f"http://user:passw0rd@127.0.0.1:{port}/hook?token=s3cr3t")

    result = await action.post("k", b"{}")
    await action.close()

    assert (result.ok, result.final, result.reached) == (False, False, False)
    assert result.detail.startswith(f"http://127.0.0.1:{port}: ")
    assert "passw0rd" not in result.detail and "s3cr3t" not in result.detail


async def test_a_connection_cut_in_mid_answer_is_tried_again() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    action = Post(f"http://127.0.0.1:{port}/")

    result = await action.post("k", b"{}")
    await action.close()
    server.close()

    assert (result.ok, result.final, result.reached) == (False, False, True)


async def test_an_endless_answer_is_read_no_further_than_the_bound() -> None:
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=400)
        await response.prepare(request)
        while sent < 1 << 30:
            await response.write(b"x" * 65536)
            sent += 65536
        return response

    result = await act_once(handler)

    assert result.final
    assert len(result.detail) < 400
    assert sent < MAX_ANSWER_BYTES + (32 << 20)  # what socket buffers hold, not the gigabyte


async def test_a_dripping_answer_after_a_2xx_is_still_a_success() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"o")
        await asyncio.sleep(60)
        return response

    assert (await act_once(handler, timeout_s=0.3)).ok


@pytest.mark.parametrize("url", ["http://", "http://[::1", "ftp://host/x", "http://host:99999/tok3n"])
async def test_a_url_that_cannot_be_used_is_not_repeated_and_reaches_nobody(url: str) -> None:
    action = Post(url)

    result = await action.post("k", b"{}")
    await action.close()

    assert not result.ok
    assert "tok3n" not in result.detail
    assert (result.final, result.reached) == (False, False)


async def test_an_ipv6_receiver_is_told_as_urls_write_it() -> None:
    action = Post("http://[::1]:1/hook")

    result = await action.post("k", b"{}")
    await action.close()

    assert result.detail.startswith("http://[::1]:1: ")


async def test_a_receiver_that_echoes_our_secrets_does_not_bring_them_into_the_detail() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(
            status=403, text=f"bad {request.url} {request.path_qs} s3cr3t/tok+en {'pad ' * 40}"
        )

    result = await act_once(
        handler, path="/services/T0000/abcdefghijklmnop?token=s3cr3t%2Ftok%2Ben", userinfo="someone:hunter22@"
    )

    for secret in ("s3cr3t", "abcdefghijklmnop", "hunter22", "someone"):
        assert secret not in result.detail


async def test_closing_twice_is_safe_and_many_acts_share_the_action() -> None:
    async with a_server(answering(200)) as place:
        action = Post(f"http://{place}/")
        results = await asyncio.gather(*(action.post(f"k{n}", b"{}") for n in range(50)))
        await action.close()
        await action.close()

    assert all(result.ok for result in results)


@pytest.mark.skipif(ALERTMANAGER is None, reason="prometheus-alertmanager is not installed")
async def test_our_body_is_alertmanagers_own_field_for_field(tmp_path: Path) -> None:
    bodies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def handler(request: web.Request) -> web.Response:
        bodies.put_nowait(await request.json())
        return web.Response()

    labels = [
        {"alertname": 'Do"wn', "service": "llm-api", "instance": "a", "zone": "ü"},
        {"alertname": 'Do"wn', "service": "llm-api", "instance": "b"},
    ]
    notes = [{"summary": "down", "note": "1"}, {"summary": "down", "note": "2"}]
    # One that began before group_wait is sent at once, without the second.
    starts_at = round(time.time() + 60, 3)
    async with a_server(handler) as place:
        theirs = await _from_alertmanager(tmp_path, place, bodies, labels, notes, starts_at)

    incident = Incident(
        id=b"i" * 16, slot=0, tenant="default", service="llm-api", group_key="", title="", description="", source="",
        group_labels={"alertname": "Do\"wn", "service": "llm-api"}, labels={}, annotations={},
        created_at=1.0, updated_at=1.0, firing=2,
    )  # fmt: skip
    alerts = [
        AlertView(b"i" * 16, label, note, "http://prom/g", "", starts_at, 0.0, starts_at, firing=True)
        for label, note in zip(labels, notes, strict=True)
    ]
    ours = json.loads(
        webhook_body(
            facts_of(incident, alerts, reason="opened", max_alerts=9),
            external_url=theirs["externalURL"],
            receiver="hook",
        )
    )
    del ours["incident"]
    for said in (ours, theirs):
        said["alerts"].sort(key=lambda alert: alert["fingerprint"])
    assert ours == theirs


async def _from_alertmanager(
    tmp_path: Path,
    place: str,
    bodies: asyncio.Queue[dict[str, Any]],
    labels: list[dict[str, str]],
    notes: list[dict[str, str]],
    starts_at: float,
) -> dict[str, Any]:
    """The body Debian's Alertmanager sends to the server at `place` for these alerts."""
    config = {
        "route": {"receiver": "hook", "group_by": ["alertname", "service"], "group_wait": "300ms"},
        "receivers": [{"name": "hook", "webhook_configs": [{"url": f"http://{place}/"}]}],
    }
    (tmp_path / "am.yml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [str(ALERTMANAGER), f"--config.file={tmp_path}/am.yml", f"--storage.path={tmp_path}/data",
               f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]  # fmt: skip
    with (tmp_path / "am.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        posted = [
            {
                "labels": label,
                "annotations": note,
                "generatorURL": "http://prom/g",
                "startsAt": _iso(starts_at),
            }
            for label, note in zip(labels, notes, strict=True)
        ]
        async with aiohttp.ClientSession() as session:
            for _ in range(100):
                try:
                    async with session.post(
                        f"http://127.0.0.1:{port}/api/v2/alerts", json=posted
                    ) as response:
                        assert response.status == 200, await response.text()
                        break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)
        async with asyncio.timeout(15):
            return await bodies.get()
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)


def _iso(at: float) -> str:
    seconds, milliseconds = divmod(round(at * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}Z"
