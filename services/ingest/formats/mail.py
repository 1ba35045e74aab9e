"""Mail as alerts: a message as text (message/rfc822, what a mail server pipes to curl), or its parts as JSON. The subject without its
marks is what stays the same; [RESOLVED], RECOVERY and the like end what the same subject began.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Callable, Iterable, Mapping
from email.message import EmailMessage
from email.utils import parseaddr
from itertools import count

from models.errors import Malformed
from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat, stable_name

#: What changes in a subject from one mail to the next: dates, times, amounts. A mail has nothing else to be known by, so a number that
#: is part of a name (db1, web-02), and an address, stay: or the recovery of one host would end the alerts of all.
_NUMBERS = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?|(?<![\w.-])(?!(?:\d{1,3}\.){3}\d)\d+(?:[.,:]\d+)*%?"
)
#: Headers of a mail are at the top of its text; a MIME tree deeper than this is an attack.
PARTS_MAX = 50
TEXT_CHARS = 16 * 1024
#: Bytes of a mail that are read: its text stands in front of what is attached.
MAIL_BYTES = 256 * 1024
#: Characters of a header that are read: a line of mail has no more, and the standard library takes a minute for 100,000.
HEADER_CHARS = 998
_REPLY = re.compile(r"^(?:(?:re|fwd?|aw|wg)\s*:\s*)+", re.IGNORECASE)
_OVER = re.compile(
    r"\b(?:(?:is|was|has) )?(resolved|recovery|recovered|cleared|closed|back to normal|ok)\b|\b(is up)\b|\A\W*up\b(?=\s*[:\]!])",
    re.IGNORECASE,
)
_FIRES = re.compile(
    r"\b(?:(?:is|was|has) )?(firing|problem|triggered|alert|alerting|critical|crit|warning|warn|down|error|failed|failure|emergency"
    r"|disaster|info|unknown)\b",
    re.IGNORECASE,
)
_MARKS = re.compile(r"^\s*(?:\[[^\]]{0,60}\]\s*)+")
_NOISE = re.compile(r"[*\[\]:!]+")
_NAMED = re.compile(
    r"^[ \t]*(service|severity|priority|status)[ \t]*[:=][ \t]*(\S[^\r\n]{0,120})",
    re.IGNORECASE | re.MULTILINE,
)
#: The importance of X-Priority.
_X_PRIORITY = {"1": "P1", "2": "P1", "3": "", "4": "P3", "5": "P4"}


class EmailFormat(WebhookFormat):
    name = "email"
    path = "/v1/events/email"
    content_types = ("application/json", "message/rfc822")
    summary = "Mail: a message as text, or subject, message and sender as JSON"
    shape = "subject and sender or from"
    severities = {"down": "P1", "error": "P2", "failed": "P2", "failure": "P2", "": "P2"}

    def parsed(self, request: Request) -> object:
        if request.content_type != "message/rfc822":
            return super().parsed(request)
        return _mail(request.body)

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        return self.each([(body, "")], self._message)

    def _message(self, mail: Fields) -> Draft:
        subject = _REPLY.sub("", mail.need("subject")[:HEADER_CHARS]).strip()
        text = mail.text("text", "body", "message", "stripped-text", "body-plain", "plain")[:TEXT_CHARS]
        written = mail.text("from", "sender")[:HEADER_CHARS]
        sender = parseaddr(written)[1] or written
        said = {name.lower(): value.strip() for name, value in _NAMED.findall(text)}
        # Of several words the worst; those of no level come last.
        words = sorted(
            (found[1] for found in _FIRES.finditer(subject)), key=lambda word: self.level(word) or "P9"
        )
        over = bool(_OVER.search(subject)) or said.get("status", "").lower() in ("resolved", "ok", "closed")
        bare = _OVER.sub(" ", _FIRES.sub(" ", _MARKS.sub("", subject)))
        name = stable_name(" ".join(_NOISE.sub(" ", bare).split()), _NUMBERS) or stable_name(
            subject, _NUMBERS
        )
        return self.alert(
            name,
            said.get("service") or sender,
            title=subject,
            text=text,
            severity=said.get("severity")
            or said.get("priority")
            or mail.text("priority")
            or next(iter(words), ""),
            resolved=over,
            labels={"mail_from": sender},
            notes={"message_id": mail.text("message_id", "message-id"), "to": mail.text("to")},
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        if not isinstance(body, dict):
            return headers.get(b"content-type", b"").startswith(b"message/rfc822")
        return "subject" in body and bool({"sender", "from"} & body.keys()) and "specversion" not in body


class _Short(email.policy.EmailPolicy):
    """The default policy, with the beginning of each header."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:HEADER_CHARS]


_SHORT = _Short()


def _factory() -> Callable[..., EmailMessage]:
    """Makes the parts of one mail. Raises Malformed past PARTS_MAX, while it is being read: 100,000 of them take 20 s."""
    parts = count(1)

    def part(policy: email.policy.EmailPolicy | None = None) -> EmailMessage:
        if next(parts) > PARTS_MAX:
            raise Malformed(f"the mail: over {PARTS_MAX} parts")
        return EmailMessage(policy)

    return part


def _mail(raw: bytes) -> dict[str, object]:
    """A mail's subject, text and sender. Raises Malformed."""
    try:
        policy = _SHORT.clone(message_factory=_factory())
        mail = email.message_from_bytes(raw[:MAIL_BYTES], policy=policy)
        assert isinstance(mail, EmailMessage)
        best = mail.get_body(("plain", "html"))
        text = best.get_content() if best is not None else ""
        found: dict[str, object] = {
            "subject": _clean(mail["subject"]),
            "from": _clean(mail["from"]),
            "to": _clean(mail["to"]),
            "message_id": _clean(mail["message-id"]),
            "priority": _X_PRIORITY.get(_clean(mail["x-priority"])[:1], ""),
            "text": _clean(text),
        }
        return found
    except Malformed:
        raise
    except Exception as error:  # noqa: BLE001 - the standard library raises whatever it stumbles over in a broken mail
        raise Malformed(f"the mail: can't be read: {type(error).__name__}") from None


def _clean(value: object) -> str:
    return "" if value is None else str(value).encode("utf-8", "replace").decode()
