"""Mail by SMTP: one each time, all those of an incident in one thread.

What an answer means:
    accepted for at least one recipient      taken; the detail names how many were refused
    5xx after the text of the mail, 552      final: the server speaks of this mail, which will not change
    all else                                 try again: also a refused recipient or login, which is mended meanwhile
A time limit or a cut connection while a mail is handed over may have reached somebody anyway. A try again bears the same Message-ID,
by which mail programs drop the second one.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from models.incidents.incident import Severity
from models.incidents.notification import Facts, Note
from models.ports import ActionResult
from models.settings.channels.email import address_of, is_address
from services.actions.plain_text import cut, cut_line, for_html, one_line
from services.actions.wording import Said, Wording

if TYPE_CHECKING:
    import aiosmtplib

#: A subject; and a text, far below what any server takes.
SUBJECT_CHARS, TEXT_CHARS = 200, 100_000
#: Characters of what a server says that are kept as detail.
DETAIL_CHARS = 200
#: How long a server may take to say goodbye after it took a mail.
GOODBYE_S = 2.0
_EXCEEDED_STORAGE = 552
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._-]")


class EmailChannel:
    """Port Channel."""

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        self.name = name
        self.wording = Wording(given, name=name)
        self._given = given
        self._to: list[str] = list(given["to"])
        self._from = address_of(given["sender"])
        self._domain = self._from.partition("@")[2]
        host = given["host"]
        self._place = f"smtp://{f'[{host}]' if ':' in host else host}:{given['port']}"

    def render(self, facts: Facts) -> bytes:
        """The mail without what each sending has of its own: its Date and its Message-ID."""
        return self._mail(self.wording.of(facts), self._to)

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        # The last part of the key is the attempt: each of them is the same mail.
        return await self._send(key.rpartition("-")[0] or key, self.wording.of(facts))

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        return await self._send(key, self.wording.of_note(note, key))

    async def close(self) -> None:
        """There is nothing to let go of: a connection lasts for one mail."""

    def _mail(self, said: Said, to: list[str], own: Mapping[str, str] | None = None) -> bytes:
        mail = EmailMessage(policy=SMTP)
        mail["Subject"] = cut_line(said.plain_title, SUBJECT_CHARS)
        mail["From"] = self._given["sender"]
        mail["To"] = ", ".join(to)
        if self._given["reply_to"]:
            mail["Reply-To"] = self._given["reply_to"]
        # The thread's root is no mail: none of ours depends on another one having arrived.
        thread = f"<{_NOT_IN_AN_ID.sub('-', said.identity)}@{self._domain}>"
        mail["References"] = thread
        mail["In-Reply-To"] = thread
        mail["Auto-Submitted"] = "auto-generated"
        if said.severity <= Severity.P1 and not said.is_over:
            mail["Importance"] = "high"
        for name, value in (own or {}).items():
            mail[name] = value
        text = "\n\n".join(each for each in (said.all_text, said.link) if each) or said.title
        mail.set_content(cut(text, TEXT_CHARS) + "\n")
        mail.add_alternative(_html(said), subtype="html")
        # Chosen by chance otherwise; nothing can hold its own digest.
        mail.set_boundary("=_" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32])
        return mail.as_bytes()

    async def _send(self, mail_id: str, said: Said) -> ActionResult:
        import aiosmtplib

        to = [said.channel] if said.channel else self._to
        if not all(map(is_address, to)):
            return self._failed("expected an address to send to, as in ana@example.org", final=True)
        own = {
            "Date": formatdate(usegmt=True),
            "Message-ID": f"<{_NOT_IN_AN_ID.sub('-', f'{mail_id}.{self.name}')}@{self._domain}>",
        }
        mail = self._mail(said, to, own)
        given = self._given
        begun = False
        server = None
        try:
            async with asyncio.timeout(given["timeout"]):
                server = aiosmtplib.SMTP(
                    hostname=given["host"],
                    port=given["port"],
                    username=given["username"] or None,
                    password=given["password"] or None,
                    use_tls=given["tls"] == "tls",
                    start_tls=given["tls"] == "starttls",
                    cert_bundle=given.get("ca_file") or None,
                    timeout=given["timeout"],
                )
                await server.connect()
                begun = True
                refused, answer = await server.sendmail(self._from, to, mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            first = error.recipients[0] if error.recipients else None
            said_so = f"{first.code} {first.message}" if first else ""
            return self._failed(
                f"refused all recipients: {self._cleaned(said_so)}", of_place=bool(said.channel)
            )
        except aiosmtplib.SMTPDataError as error:
            return self._failed(
                f"refused the mail: {error.code} {self._cleaned(error.message)}", final=error.code >= 500
            )
        except aiosmtplib.SMTPResponseException as error:
            what = (
                "refused the login" if isinstance(error, aiosmtplib.SMTPAuthenticationError) else "answered"
            )
            final = error.code == _EXCEEDED_STORAGE
            return self._failed(f"{what}: {error.code} {self._cleaned(error.message)}", final=final)
        except TimeoutError:
            return self._failed(f"no answer within {given['timeout']:g} s", reached=begun)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            # The library's own words where it has some, as for a server without STARTTLS.
            words = self._cleaned(str(error)) if not isinstance(error, OSError | ValueError) else ""
            return self._failed(_fault(error) + (f": {words}" if words else ""), reached=begun)
        finally:
            if server is not None:
                await _goodbye(server)
        detail = f"{self._place} took it: {self._cleaned(answer)}"
        if refused:
            detail += f"; {len(refused)} of {len(to)} recipients were refused"
        return ActionResult(ok=True, detail=detail, ref=own["Message-ID"])

    def _failed(
        self, why: str, *, final: bool = False, reached: bool = False, of_place: bool = False
    ) -> ActionResult:
        detail = f"{self._place}: {why}"
        return ActionResult(ok=False, detail=detail, final=final, reached=reached, of_place=of_place)

    def _cleaned(self, said: str) -> str:
        for secret in (self._given["password"], self._given["username"]):
            if secret:
                said = said.replace(secret, "***")
        return one_line(said)[:DETAIL_CHARS]


async def _goodbye(server: aiosmtplib.SMTP) -> None:
    """Part from a server; a mail that it took stays taken."""
    import aiosmtplib

    try:
        async with asyncio.timeout(GOODBYE_S):
            if server.is_connected:
                await server.quit()
    except (aiosmtplib.SMTPException, OSError, TimeoutError):
        pass
    finally:
        server.close()


def _fault(error: Exception) -> str:
    words = getattr(error, "strerror", None) or getattr(error.__cause__, "strerror", None)
    name = type(error).__name__
    return f"{name} ({words})" if isinstance(words, str) and words else name


def _html(said: Said) -> str:
    rows = "".join(
        f"<tr><td>{for_html(name)}</td><td><b>{for_html(value)}</b></td></tr>" for name, value in said.fields
    )
    text = for_html(cut(said.text, TEXT_CHARS)).replace("\n", "<br>\n")
    link = f'<p><a href="{for_html(said.link)}">Open the incident</a></p>' if said.link else ""
    return (
        f"<html><body><h3>{for_html(said.title)}</h3>\n"
        + (f"<table>{rows}</table>\n" if rows else "")
        + f"<p>{text}</p>\n{link}</body></html>\n"
    )
