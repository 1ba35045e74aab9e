"""The guarded client: where a URL that somebody else wrote may lead, against real local servers and a resolver that lies."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from models.response.guard import Allowed
from services.actions.outbound import LOOKUPS_MAX, CallFailed, CallRefused, Outbound
from tests.contract.test_action_webhook import a_certificate, a_server, answering
from tests.ports import free_port

pytestmark = pytest.mark.asyncio


class Names(AbstractResolver):
    """Each name has its answers in turn; the last one stays."""

    def __init__(self, **names: list[list[str]]) -> None:
        self._names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self._names[host]
        now = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in now
        ]

    async def close(self) -> None:
        pass


class Hits:
    """A server that counts who came."""

    def __init__(self) -> None:
        self.count = 0

    async def serve(self, request: web.Request) -> web.Response:
        self.count += 1
        return web.Response(text="secrets of the machine")


PRIVATE = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST.:{port}/",
    "http://someone@127.0.0.1:{port}/",
    "http://example.org@127.0.0.1:{port}/",
    "http://example.org%2f@127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7f000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/latest/meta-data/",
    "http://10.0.0.1/",
    "http://224.0.0.1/",
    "http://１２７.０.０.１:{port}/",
    "http://①②⑦.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.org/",
    "http://127.0.0.1:{port}#@example.org/",
]


@pytest.mark.parametrize("url", PRIVATE)
async def test_a_strangers_url_reaches_no_private_address_however_it_is_spelled(url: str) -> None:
    hits = Hits()
    async with a_server(hits.serve) as place, Outbound(timeout_s=3) as outbound:
        with pytest.raises((CallRefused, CallFailed)) as refused:
            await outbound.call("GET", url.format(port=place.partition(":")[2]))

    assert hits.count == 0
    assert getattr(refused.value, "reached", False) is False


async def test_the_same_address_is_called_when_the_settings_trust_the_url() -> None:
    hits = Hits()
    async with a_server(hits.serve) as place, Outbound() as outbound:
        answer = await outbound.call("GET", f"http://{place}/", trusted=True)

    assert (answer.status, answer.text, hits.count) == (200, "secrets of the machine", 1)


@pytest.mark.parametrize(
    "entry",
    ["127.0.0.1", "127.0.0.0/8", "hooks.example.org", ".example.org", "*.example.org", "Hooks.Example.ORG."],
)
async def test_what_the_operator_allows_is_called(entry: str) -> None:
    names = Names(hooks_example_org=[["127.0.0.1"]])
    hits = Hits()
    async with a_server(hits.serve) as place, Outbound(allow=Allowed.of([entry]), resolver=names) as outbound:
        await outbound.call("GET", f"http://hooks.example.org:{place.partition(':')[2]}/")

    assert hits.count == 1


@pytest.mark.parametrize("entry", ["example.org", ".hooks.example.org", "notexample.org", "10.0.0.0/8"])
async def test_an_entry_allows_only_what_it_names(entry: str) -> None:
    names = Names(hooks_example_org=[["127.0.0.1"]])
    hits = Hits()
    async with a_server(hits.serve) as place, Outbound(allow=Allowed.of([entry]), resolver=names) as outbound:
        with pytest.raises(CallRefused, match=r"loopback address.*\[outbound\] allow"):
            await outbound.call("GET", f"http://hooks.example.org:{place.partition(':')[2]}/")

    assert hits.count == 0


#: Of the loopback addresses, one that nobody here listens at.
_ONLY_ANOTHER = Allowed.of(["127.0.0.2"])


async def test_a_name_that_turns_private_after_it_was_judged_is_not_looked_up_again() -> None:
    # Nobody answers at the allowed one: only which one is tried matters.
    names = Names(rebind_test=[["127.0.0.2"], ["127.0.0.1"]])
    hits = Hits()
    async with (
        a_server(hits.serve) as place,
        Outbound(allow=_ONLY_ANOTHER, timeout_s=0.5, resolver=names) as outbound,
    ):
        url = f"http://rebind.test:{place.partition(':')[2]}/"
        with pytest.raises(CallFailed):
            await outbound.call("GET", url)
        assert names.asked == ["rebind.test"]

    async with (
        a_server(hits.serve) as place,
        Outbound(allow=_ONLY_ANOTHER, timeout_s=0.5, resolver=names) as outbound,
    ):
        with pytest.raises(CallRefused, match=r"127\.0\.0\.1 is a loopback address"):
            await outbound.call("GET", f"http://rebind.test:{place.partition(':')[2]}/")

    assert hits.count == 0


async def test_of_a_names_addresses_only_the_good_ones_are_tried() -> None:
    names = Names(mixed_test=[["127.0.0.1", "127.0.0.2"]])
    hits = Hits()
    async with (
        a_server(hits.serve) as place,
        Outbound(allow=_ONLY_ANOTHER, timeout_s=0.5, resolver=names) as outbound,
    ):
        with pytest.raises(CallFailed):
            await outbound.call("GET", f"http://mixed.test:{place.partition(':')[2]}/")

    assert hits.count == 0


async def test_a_connection_of_a_trusted_url_is_not_used_by_a_strangers() -> None:
    names = Names(inside_test=[["127.0.0.1"]])
    hits = Hits()
    async with a_server(hits.serve) as place, Outbound(resolver=names) as outbound:
        url = f"http://inside.test:{place.partition(':')[2]}/"
        await outbound.call("GET", url, trusted=True)
        with pytest.raises(CallRefused):
            await outbound.call("GET", url)

    assert hits.count == 1


async def test_a_redirect_to_a_private_address_is_an_answer_and_nothing_more() -> None:
    hits = Hits()
    async with a_server(hits.serve) as inside:
        to = answering(302, "", {"Location": f"http://{inside}/"})
        async with a_server(to) as place, Outbound(allow=Allowed.of([place.partition(":")[0]])) as outbound:
            answer = await outbound.call("GET", f"http://{place}/")

    assert (answer.status, hits.count) == (302, 0)


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    hits, proxy = Hits(), Hits()
    async with a_server(hits.serve) as place, a_server(proxy.serve) as other, Outbound() as outbound:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{other}/")
        await outbound.call("GET", f"http://{place}/", trusted=True)

    assert (hits.count, proxy.count) == (1, 0)


@pytest.mark.parametrize("entry", ["metadata.test", ".test"])
async def test_a_name_does_not_open_the_metadata_service(entry: str) -> None:
    names = Names(metadata_test=[["169.254.169.254"]])
    async with Outbound(allow=Allowed.of([entry]), resolver=names, timeout_s=0.5) as outbound:
        with pytest.raises(CallRefused, match="metadata service"):
            await outbound.call("GET", "http://metadata.test/")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        "unix:///run/docker.sock",
        "//127.0.0.1/",
        "127.0.0.1",
        "",
    ],
)
async def test_only_http_is_spoken(url: str) -> None:
    async with Outbound(timeout_s=1) as outbound:
        with pytest.raises((CallFailed, CallRefused)):
            await outbound.call("GET", url)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_a_request_arrives_as_it_was_given_and_its_answer_comes_back(method: str) -> None:
    got: list[tuple[str, str, bytes, str | None]] = []

    async def handler(request: web.Request) -> web.Response:
        got.append((request.method, request.path_qs, await request.read(), request.headers.get("X-Key")))
        return web.Response(status=409, text="no", headers={"X-Reason": "taken"})

    async with a_server(handler) as place, Outbound() as outbound:
        answer = await outbound.call(
            method,  # type: ignore[arg-type]
            f"http://{place}/a%2Fb?c=d",
            headers={"X-Key": "k"},
            body=b"body",
            trusted=True,
        )

    assert got == [(method, "/a%2Fb?c=d", b"body", "k")]
    assert (answer.status, answer.headers["x-reason"], answer.text, answer.cut) == (409, "taken", "no", False)


@pytest.mark.parametrize(("size", "cut"), [(99, False), (100, False), (101, True), (100_000, True)])
async def test_an_answer_over_its_bound_is_cut_and_says_so(size: int, cut: bool) -> None:
    async with a_server(answering(200, "x" * size)) as place, Outbound() as outbound:
        answer = await outbound.call("GET", f"http://{place}/", max_bytes=100, trusted=True)

    assert (len(answer.body), answer.cut) == (min(size, 100), cut)


async def test_a_header_with_a_line_break_is_not_sent() -> None:
    hits = Hits()
    async with a_server(hits.serve) as place, Outbound() as outbound:
        with pytest.raises(CallFailed) as failed:
            await outbound.call("GET", f"http://{place}/", headers={"X-A": "b\r\nX-C: s3cret"}, trusted=True)

    assert (hits.count, failed.value.reached) == (0, False)
    assert "s3cret" not in str(failed.value)


@pytest.fixture
def private_ca(tmp_path: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Key and certificate of 127.0.0.1, and the authority that signed them."""

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=tmp_path)

    run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=our authority", "-days", "1",
        "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    run(
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=127.0.0.1",
        "-keyout",
        "key.pem",
        "-out",
        "request.pem",
    )
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1")
    run("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "1",
        "-extfile", "names", "-out", "certificate.pem")  # fmt: skip
    yield tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "ca.pem"


async def test_a_private_authority_is_trusted_when_it_is_named(private_ca: tuple[Path, Path, Path]) -> None:
    key, certificate, authority = private_ca
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with a_server(answering(200), tls=context) as place:
        async with Outbound(ca_file=str(authority)) as outbound:
            assert (await outbound.call("GET", f"https://{place}/", trusted=True)).status == 200
        async with Outbound() as outbound:
            with pytest.raises(CallFailed, match="Certificate"):
                await outbound.call("GET", f"https://{place}/", trusted=True)


async def test_a_file_of_certificates_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with Outbound(ca_file=str(tmp_path / "no.pem")) as outbound:
        with pytest.raises(CallFailed, match=r"no\.pem can't be used: No such file") as failed:
            await outbound.call("GET", "https://127.0.0.1/", trusted=True)

    assert not failed.value.reached


async def test_a_name_of_another_certificate_is_not_spoken_to(tmp_path: Path) -> None:
    names = Names(hooks_example_org=[["127.0.0.1"]])
    context = a_certificate(tmp_path)
    async with a_server(answering(200), tls=context) as place:
        outbound = Outbound(ca_file=str(tmp_path / "certificate.pem"), resolver=names)
        async with outbound:
            with pytest.raises(CallFailed) as failed:
                await outbound.call(
                    "GET", f"https://hooks.example.org:{place.partition(':')[2]}/", trusted=True
                )

    assert not failed.value.reached


async def test_nobody_there_has_reached_nobody_and_silence_may_have() -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with a_server(silent) as place, Outbound(timeout_s=0.2) as outbound:
        with pytest.raises(CallFailed, match=r"no answer within 0\.2 s") as silence:
            await outbound.call("GET", f"http://{place}/", trusted=True)
        with pytest.raises(CallFailed) as nobody:
            await outbound.call("GET", f"http://127.0.0.1:{free_port()}/", trusted=True)

    assert (silence.value.reached, nobody.value.reached) == (True, False)


async def test_changed_settings_count_from_the_next_look_up_on() -> None:
    hits = Hits()
    async with a_server(hits.serve) as place, Outbound() as outbound:
        with pytest.raises(CallRefused):
            await outbound.call("GET", f"http://{place}/")
        outbound.take({"outbound_allow": ["127.0.0.1"]})
        await outbound.call("GET", f"http://{place}/")

    assert hits.count == 1


async def test_strangers_names_that_nobody_answers_for_hold_up_no_receiver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, answered = socket.getaddrinfo, threading.Event()

    def slow(host: str, *more: object, **others: object) -> object:
        if host.endswith(".silent.test"):
            answered.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return real(host, *more, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    hits = Hits()
    try:
        async with a_server(hits.serve) as place, Outbound(timeout_s=15) as outbound:
            waiting = [
                asyncio.create_task(outbound.call("GET", f"http://n{n}.silent.test/"))
                for n in range(LOOKUPS_MAX * 2)
            ]
            await asyncio.sleep(0)
            await outbound.call("GET", f"http://localhost:{place.partition(':')[2]}/", trusted=True)
            assert hits.count == 1 and not any(task.done() for task in waiting)
            answered.set()
            ended = await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        answered.set()

    assert all(isinstance(each, CallFailed) and not each.reached for each in ended)
