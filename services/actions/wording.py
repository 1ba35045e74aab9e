"""What a receiver is told, in words: from the facts of a notification, or from a note, by the receiver's templates or by our own
defaults. Used by every channel for people; each then puts it into its own form.

The words are in the channel's markup already, with everything that came from alerts escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import msgspec

from models.alerts.alert import fingerprint
from models.errors import Refused
from models.incidents.incident import Severity
from models.incidents.notification import FIRING, RESOLVED, AlertFacts, Facts, Note, rfc3339
from services.actions.plain_text import as_it_is, clean, cut_line, one_line, plain_url, short

Escape = Callable[[str], str]

#: Where people look at an incident (services/web); programs read /v1/incidents.
PAGE = "/ui/incidents"
#: Alerts that the default text lists one by one; more are counted. A screen of a phone shows no more.
ALERTS_LISTED = 10
#: Of a description within the default text: two paragraphs.
DESCRIPTION_CHARS = 2000
#: Of what probably caused it: two lines of a phone.
CAUSE_CHARS = 300
#: Of a note: what the longest channel takes.
NOTE_CHARS = 30_000
#: Labels of one alert in the default text, those that not all alerts share.
LABELS_LISTED = 8
#: A title is one line; no channel shows more of it.
TITLE_CHARS = 250
#: Annotations that people look for first, where all alerts share them.
LINKS = {"Runbook": ("runbook_url", "runbook"), "Dashboard": ("dashboard_url", "dashboard")}
#: What a note's reason is, where a notification has why it is sent.
NOTE, TEST = "note", "test"
#: The reason that acknowledges at a pager.
ACKNOWLEDGED = "acknowledged"


@dataclass(frozen=True, slots=True)
class Said:
    """What to tell one receiver. `identity` is the incident's UUID, or the key of a note that is about none. `fields` are short facts by name, and
    are empty when the operator's template is the text. `ref` is what the receiver called what it was told before. `channel` and
    `mention` are the receiver's own words, unescaped."""

    title: str
    #: The same without the channel's markup, for where a receiver takes plain text only.
    plain_title: str
    text: str
    fields: tuple[tuple[str, str], ...]
    link: str
    severity: Severity
    is_over: bool
    reason: str
    identity: str
    service: str = ""
    type: str = ""
    started_at: float = 0.0
    ref: str = ""
    channel: str = ""
    mention: str = ""

    @property
    def is_acknowledged(self) -> bool:
        """Whether it says that somebody is on it."""
        return self.reason == ACKNOWLEDGED

    @property
    def all_text(self) -> str:
        """Fields and text together, for a channel that has one place for all."""
        lines = [f"{name}: {each}" for name, each in self.fields]
        return "\n".join([*lines, *([""] if lines and self.text else []), self.text]).strip("\n")

    def over(self, ref: str) -> Said:
        """The same when it is over: what was opened as `ref` is to be closed."""
        return replace(self, is_over=True, ref=ref, reason=RESOLVED)


class Wording:
    """Of one receiver."""

    def __init__(
        self, given: Mapping[str, Any], *, name: str = "", escape: Callable[[str], str] = as_it_is
    ) -> None:
        """`given`: the receiver's settings, plain; `title`, `text` and `external_url` are used. `escape` makes a text harmless in
        the channel's markup."""
        self.name = name
        self.escape = escape
        self._title = str(given.get("title") or "")
        self._text = str(given.get("text") or "")
        self._base = str(given.get("external_url") or "").rstrip("/")

    def of(self, facts: Facts) -> Said:
        """Of a notification. The same facts give the same words. A template that fails never keeps anybody from being told: the
        default is used, and says so."""
        identity = str(UUID(bytes=facts.incident_id))
        link = f"{self._base}{PAGE}/{identity}" if self._base else ""
        context = variables(facts, link, self.name) if self._title or self._text else {}
        title, title_trouble = _rendered(self._title, context, self.escape)
        plain = title if self.escape is as_it_is else _rendered(self._title, context, as_it_is)[0]
        text, text_trouble = _rendered(self._text, context, self.escape)
        trouble = [f"(The template of the {what} failed: {why})"
                   for what, why in (("title", title_trouble), ("text", text_trouble)) if why]  # fmt: skip
        if text is None:
            text = "\n".join(self._lines(facts))
        return Said(
            title=cut_line(one_line(title or ""), TITLE_CHARS) or self._default_title(facts, self.escape),
            plain_title=cut_line(one_line(plain or ""), TITLE_CHARS) or self._default_title(facts, as_it_is),
            text="\n".join([text, *map(self.escape, trouble)]).strip("\n"),
            fields=() if self._text and not text_trouble else tuple(self._fields(facts)),
            link=link,
            severity=facts.severity,
            is_over=facts.is_over,
            reason=one_line(short(facts.reason, TITLE_CHARS)),
            identity=identity,
            service=one_line(short(facts.service)),
            type=facts.type.value,
            started_at=facts.created_at,
            ref=facts.ref,
            channel=one_line(facts.to),
        )

    def of_note(self, note: Note, key: str) -> Said:
        """Of what a playbook or a person wants said, under its idempotency key."""
        note = marked(note, self.name)
        identity = str(UUID(bytes=note.incident_id)) if note.incident_id else one_line(key)
        text = short(note.text, NOTE_CHARS).strip()
        title = one_line(short(note.title or text.partition("\n")[0], TITLE_CHARS)) or "Note"
        text = text or title
        return Said(
            title=self.escape(title),
            plain_title=title,
            text=self.escape(text),
            fields=(),
            link=f"{self._base}{PAGE}/{identity}" if self._base and note.incident_id else "",
            severity=note.severity,
            is_over=note.resolves,
            reason=TEST if note.is_test else NOTE,
            identity=identity,
            channel=one_line(note.channel),
            mention=one_line(note.mention),
        )

    def _default_title(self, facts: Facts, escape: Escape) -> str:
        mark = "RESOLVED" if facts.is_over else facts.severity.name
        name = (
            one_line(short(facts.title, TITLE_CHARS))
            or one_line(short(facts.service, TITLE_CHARS))
            or "Incident"
        )
        return f"[{mark}] {escape(name)}"

    def _fields(self, facts: Facts) -> Iterator[tuple[str, str]]:
        yield "Severity", facts.severity.name
        if facts.service:
            yield "Service", self.escape(one_line(short(facts.service)))
        yield "Type", facts.type.value
        yield "State", facts.state.value
        yield "Alerts", _count(facts)
        if facts.cause:
            yield "Looks like", self.escape(one_line(short(facts.cause, CAUSE_CHARS)))
        yield "Started", _time(facts.created_at)
        if facts.is_over and facts.resolved_at:
            yield "Resolved", _time(facts.resolved_at)
        yield "Reason", self.escape(one_line(short(facts.reason, TITLE_CHARS)))
        for name, keys in LINKS.items():
            found = [facts.common_annotations[key] for key in keys if key in facts.common_annotations]
            if found and (url := plain_url(found[0])):
                yield name, self.escape(url)

    def _lines(self, facts: Facts) -> Iterator[str]:
        description = short(facts.description, DESCRIPTION_CHARS).strip()
        if description and description != facts.title:
            yield self.escape(description)
        for alert in facts.alerts[:ALERTS_LISTED]:
            yield f"• {self._alert(alert, facts)}"
        more = facts.total - min(len(facts.alerts), ALERTS_LISTED)
        if more > 0:
            yield f"… and {more:,} more {'alert' if more == 1 else 'alerts'}"

    def _alert(self, alert: AlertFacts, facts: Facts) -> str:
        """`Down (firing, instance=a): the summary`."""
        own = [f"{name}={short(label)}" for name, label in sorted(alert.labels.items())
               if name != "alertname" and facts.common_labels.get(name) != label]  # fmt: skip
        about = [FIRING if alert.firing and not facts.is_over else RESOLVED, *own[:LABELS_LISTED]]
        name = short(alert.labels.get("alertname") or "alert")
        notes = alert.annotations
        summary = notes.get("summary") or notes.get("description") or ""
        line = f"{name} ({', '.join(about)})" + (f": {short(summary)}" if summary else "")
        return self.escape(one_line(line))


def marked(note: Note, receiver: str) -> Note:
    """The same note; a test says that it is one."""
    if not note.is_test:
        return note
    title = note.title or note.text.partition("\n")[0]
    text = (
        f"{note.text}\nThis is a test of receiver {receiver}: nothing happened, and there is nothing to do."
    )
    return msgspec.structs.replace(note, title=f"[TEST] {title}", text=text)


def variables(facts: Facts, link: str, name: str = "") -> dict[str, Any]:
    """What a template can name."""
    ended = rfc3339(facts.resolved_at) if facts.resolved_at else ""
    return {
        "incident": {
            "id": str(UUID(bytes=facts.incident_id)),
            "title": facts.title,
            "description": facts.description,
            "severity": facts.severity.name,
            "type": facts.type.value,
            "state": facts.state.value,
            "service": facts.service,
            "tenant": facts.tenant,
            "probable_cause": facts.cause,
            "created_at": rfc3339(facts.created_at),
            "resolved_at": ended,
            "labels": dict(facts.common_labels),
            "annotations": dict(facts.common_annotations),
            "metadata": {**facts.common_labels, **facts.common_annotations},
        },
        "alerts": [
            {
                "status": FIRING if alert.firing and not facts.is_over else RESOLVED,
                "labels": dict(alert.labels),
                "annotations": dict(alert.annotations),
                "starts_at": rfc3339(alert.starts_at),
                "ends_at": rfc3339(alert.ends_at) if alert.ends_at else "",
                "generator_url": alert.generator_url,
                "fingerprint": fingerprint(alert.labels),
            }
            for alert in facts.alerts
        ],
        "total": facts.total,
        "reason": facts.reason,
        "status": RESOLVED if facts.is_over else FIRING,
        "receiver": facts.receiver or name,
        "to": facts.to,
        "group_labels": dict(facts.group_labels),
        "labels": dict(facts.common_labels),
        "annotations": dict(facts.common_annotations),
        "link": link,
    }


def _rendered(template: str, context: Mapping[str, Any], escape: Escape) -> tuple[str | None, str]:
    """What an operator's template makes, None for the default; and what is wrong with it."""
    if not template:
        return None, ""
    # Here, because the library costs 30 ms and few have a template.
    from models.playbook.template import render

    try:
        return clean(render(template, context, written=lambda text: escape(clean(text)))), ""
    except Refused as error:
        return None, str(error)


def _count(facts: Facts) -> str:
    firing = 0 if facts.is_over else sum(1 for alert in facts.alerts if alert.firing)
    if facts.total > len(facts.alerts):
        return f"{facts.total:,}"
    if not facts.total:
        return "none"
    ended = facts.total - firing
    return ", ".join(
        [*([f"{firing:,} firing"] if firing else []), *([f"{ended:,} resolved"] if ended else [])]
    )


def _time(at: float) -> str:
    """2026-11-30 11:05:00 UTC."""
    return rfc3339(at)[:19].replace("T", " ") + " UTC" if at > 0 else "unknown"
