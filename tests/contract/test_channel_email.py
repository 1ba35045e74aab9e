"""Mail keeps the promise of port Channel, against a real SMTP server with STARTTLS. The promise: tests/contract/test_channels.py."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from actors.runtime.clock import SystemClock
from actors.targets import Targets
from models.incidents.incident import Severity
from models.incidents.notification import RESOLVED, Facts, Note
from models.ports import Channel
from models.response.breaker import BreakerRule
from models.response.target import Limits
from models.settings.receivers import RECEIVER_TYPES, given_of
from models.settings.secrets import revealed
from services.actions.table import ACTIONS
from tests.facts import some_facts
from tests.ports import free_port
from tests.receivers.table import HOSTILE, hostile

pytestmark = pytest.mark.asyncio

PASSWORD = "s3cr3t-passw0rd"
KEY = "0190a5f4-1-0"


@dataclass
class Post:
    """What a server got, and how it answers."""

    place: int = 0
    mails: list[Envelope] = field(default_factory=list)
    was_encrypted: list[bool] = field(default_factory=list)
    on_rcpt: Callable[[str], str] = lambda address: "250 OK"
    on_data: Callable[[], str] = lambda: "250 Message accepted for delivery"
    hangs_at_data: bool = False

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:  # fmt: skip
        answer = self.on_rcpt(address)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.hangs_at_data:
            await asyncio.sleep(60)
        answer = self.on_data()
        if answer.startswith("250"):
            self.mails.append(envelope)
            assert server.transport is not None
            self.was_encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return answer

    def parsed(self, number: int = -1) -> EmailMessage:
        content = self.mails[number].original_content
        assert content is not None
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        return message


@asynccontextmanager
async def a_server(
    certificate: tuple[Path, Path] | None = None, *, password: str = "", at_once: bool = False
) -> AsyncIterator[Post]:
    """An SMTP server with STARTTLS where it has a certificate (`at_once`: encrypted from the start), and a login where it has a
    password."""
    post = Post()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)

    def authenticate(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        good = isinstance(data, LoginPassword) and data.login == b"im" and data.password == password.encode()
        return AuthResult(success=good, handled=good)

    about: dict[str, Any] = {"authenticator": authenticate, "auth_required": True} if password else {}
    if context is not None and not at_once:
        about |= {"tls_context": context, "require_starttls": True}
    if at_once:
        about |= {"auth_require_tls": False}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(post, hostname="mx.example.org", loop=loop, **about),
        "127.0.0.1",
        0,
        ssl=context if at_once else None,
    )
    post.place = server.sockets[0].getsockname()[1]
    try:
        yield post
    finally:
        server.close()


def opened(port: int, **settings: object) -> Channel:
    written = {"type": "email", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "Incidents <im@example.org>",
               "to": ["ana@example.org", "bo@example.org"], "timeout": 5, **settings}  # fmt: skip
    checked = RECEIVER_TYPES["email"].model_validate(written)
    given: Any = revealed({**given_of(checked), "external_url": "https://im.example"})
    return ACTIONS["email"].open("mail", given)


def later(ref: str, reason: str, **values: object) -> Facts:
    return msgspec.structs.replace(some_facts(), ref=ref, reason=reason, **values)


# -- what arrives -----------------------------------------------------------------------------------------------


async def test_a_mail_arrives_encrypted_and_after_a_login(certificate: tuple[Path, Path]) -> None:
    async with a_server(certificate, password=PASSWORD) as post:
        channel = opened(
            post.place, tls="starttls", ca_file=str(certificate[0]), username="im", password=PASSWORD
        )
        result = await channel.act(KEY, some_facts())

    mail = post.parsed()
    text = mail.get_body(("plain",))
    assert result.ok and post.was_encrypted == [True], result
    assert post.mails[0].mail_from == "im@example.org"
    assert post.mails[0].rcpt_tos == ["ana@example.org", "bo@example.org"]
    assert (mail["Subject"], mail["From"]) == ("[P1] LLM API is down", "Incidents <im@example.org>")
    assert (
        text is not None
        and "Down (firing)" in text.get_content()
        and "https://im.example/ui/incidents/" in text.get_content()
    )
    assert (mail["Auto-Submitted"], mail["Importance"]) == ("auto-generated", "high")


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_a_server_that_is_encrypted_from_the_start(certificate: tuple[Path, Path]) -> None:
    async with a_server(certificate, password=PASSWORD, at_once=True) as post:
        channel = opened(post.place, tls="tls", ca_file=str(certificate[0]), username="im", password=PASSWORD)
        result = await channel.act(KEY, some_facts())

    assert result.ok and post.was_encrypted == [True]


async def test_what_arrives_is_what_the_dry_run_shows_but_for_its_date_and_name() -> None:
    async with a_server() as post:
        channel = opened(post.place)
        shown = {channel.render(some_facts()) for _ in range(2)}
        assert post.mails == []
        await channel.act(KEY, some_facts())

    content = post.mails[0].original_content
    assert content is not None
    own = [line for line in content.splitlines(keepends=True) if line.startswith((b"Date:", b"Message-ID:"))]
    assert len(own) == 2
    assert {b"".join(line for line in content.splitlines(keepends=True) if line not in own)} == shown


async def test_all_mails_of_an_incident_are_one_thread_and_a_try_again_is_the_same_mail() -> None:
    async with a_server() as post:
        channel = opened(post.place)
        first = await channel.act("incident-1-0", some_facts())
        await channel.act("incident-1-1", some_facts())
        await channel.act("incident-2-0", later(first.ref, "severity changed", severity=Severity.P0))
        await channel.act("incident-3-0", later(first.ref, RESOLVED, resolved_at=1.7e9 + 60))

    mails = [post.parsed(number) for number in range(4)]
    ids = [mail["Message-ID"] for mail in mails]
    assert len({mail["References"] for mail in mails}) == 1 and mails[0]["References"].startswith(
        "<69696969-"
    )
    assert ids[0] == ids[1] == first.ref and len(set(ids)) == 3
    assert [mail["Subject"][:10] for mail in mails[2:]] == ["[P0] LLM A", "[RESOLVED]"]


async def test_a_note_goes_where_it_says_and_a_test_says_that_it_is_one() -> None:
    async with a_server() as post:
        channel = opened(post.place)
        said = await channel.say("run-1", Note("switched", title="Failover", channel="cy@example.org"))
        wrong = await channel.say("run-2", Note("switched", channel="#incidents"))
        tested = await channel.say("test-1", Note("Does this arrive?", title="Hello", is_test=True))

    assert said.ok and tested.ok and (wrong.ok, wrong.final) == (False, True)
    assert post.mails[0].rcpt_tos == ["cy@example.org"]
    assert post.parsed()["Subject"] == "[TEST] Hello"


@pytest.mark.parametrize("text", [HOSTILE, "x\r\nBcc: evil@example.org\r\n\r\nhello", "😀" * 50_000, "\x00"])
async def test_hostile_texts_make_no_header_and_no_markup(text: str) -> None:
    async with a_server() as post:
        result = await opened(post.place).act(KEY, hostile(text))

    mail = post.parsed()
    html = mail.get_body(("html",))
    assert result.ok and post.mails[0].rcpt_tos == ["ana@example.org", "bo@example.org"]
    assert mail["Bcc"] is None and set(mail.keys()) == {
        "Subject", "From", "To", "References", "In-Reply-To", "Auto-Submitted", "Importance", "Date", "Message-ID",
        "MIME-Version", "Content-Type",
    }  # fmt: skip
    assert html is not None and "<script" not in html.get_content() and "\u202e" not in html.get_content()


async def test_a_text_that_is_too_long_is_cut_and_says_so() -> None:
    async with a_server() as post:
        channel = opened(post.place, text="{{ labels.long }}{{ labels.long }}")
        result = await channel.act(KEY, some_facts(common_labels={"long": "word " * 6_000}))
        again = await channel.say("k", Note("x" * 200_000))

    body = post.parsed().get_body(("plain",))
    assert result.ok and again.ok and body is not None
    assert len(body.get_content()) < 110_000 and "…" in body.get_content()


# -- what an answer means ---------------------------------------------------------------------------------------


async def test_without_encryption_nothing_is_sent(certificate: tuple[Path, Path]) -> None:
    async with a_server() as post:
        result = await opened(post.place, tls="starttls").act(KEY, some_facts())

    assert (result.ok, result.final, result.reached, post.mails) == (False, False, False, [])
    assert "STARTTLS" in result.detail


async def test_a_server_that_is_not_trusted_gets_nothing(certificate: tuple[Path, Path]) -> None:
    async with a_server(certificate, password=PASSWORD) as post:
        channel = opened(post.place, tls="starttls", username="im", password=PASSWORD)
        result = await channel.act(KEY, some_facts())

    assert (result.ok, result.final, result.reached, post.mails) == (False, False, False, [])


async def test_a_login_that_is_refused_is_tried_again_and_tells_no_password(
    certificate: tuple[Path, Path],
) -> None:
    async with a_server(certificate, password="another") as post:
        channel = opened(
            post.place, tls="starttls", ca_file=str(certificate[0]), username="im", password=PASSWORD
        )
        result = await channel.act(KEY, some_facts())

    assert (result.ok, result.final, result.reached) == (False, False, False)
    assert "refused the login: 535" in result.detail and PASSWORD not in result.detail


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("451 try later", False),
        ("452 mailbox full", False),
        ("550 spam", True),
        ("552 too big", True),
        ("554 no", True),
    ],
)
async def test_a_mail_that_is_refused_for_good_is_final(answer: str, final: bool) -> None:
    async with a_server() as post:
        post.on_data = lambda: answer
        result = await opened(post.place).act(KEY, some_facts())

    assert (result.ok, result.final, result.reached) == (False, final, False)
    assert answer[:3] in result.detail


@pytest.mark.parametrize("answer", ["450 greylisted", "550 no such user"])
async def test_recipients_that_are_all_refused_are_tried_again(answer: str) -> None:
    async with a_server() as post:
        post.on_rcpt = lambda address: answer
        result = await opened(post.place).act(KEY, some_facts())

    assert (result.ok, result.final, result.reached) == (False, False, False)
    assert answer in result.detail


@pytest.mark.parametrize(("to", "of_place"), [("", False), ("ana@example.org", True)])
async def test_one_person_without_an_address_is_no_fault_of_the_mail_server(to: str, of_place: bool) -> None:
    targets = Targets(SystemClock(), limits=Limits(breaker=BreakerRule(failures=1, share=0.0)))
    async with a_server() as post:
        post.on_rcpt = lambda address: "550 no such user"
        channel = opened(post.place)
        result = await targets.call("receiver:mail", lambda: channel.act(KEY, some_facts(to=to)))

    assert (result.ok, result.final, result.of_place) == (False, False, of_place)
    assert bool(targets.why_broken("receiver:mail")) is not of_place


async def test_one_recipient_that_is_refused_keeps_no_other_from_being_told() -> None:
    async with a_server() as post:
        post.on_rcpt = lambda address: "550 no such user" if address.startswith("bo@") else "250 OK"
        result = await opened(post.place).act(KEY, some_facts())

    assert result.ok and "1 of 2 recipients were refused" in result.detail
    assert post.mails[0].rcpt_tos == ["ana@example.org"]


async def test_a_server_that_hangs_is_given_up_in_time_and_may_have_got_it() -> None:
    async with a_server() as post:
        post.hangs_at_data = True
        async with asyncio.timeout(10):
            result = await opened(post.place, timeout=0.5).act(KEY, some_facts())

    assert (result.ok, result.final, result.reached) == (False, False, True)
    assert "no answer within 0.5 s" in result.detail


async def test_a_server_that_never_greets_has_got_nothing() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(10):
        result = await opened(port, timeout=0.3).act(KEY, some_facts())
    server.close()

    assert (result.ok, result.final, result.reached) == (False, False, False)


async def test_nobody_listening_is_tried_again_and_has_reached_nobody() -> None:
    channel = opened(free_port())

    result = await channel.act(KEY, some_facts())
    await channel.close()
    await channel.close()

    assert (result.ok, result.final, result.reached) == (False, False, False)
    assert result.detail.startswith("smtp://127.0.0.1:")
