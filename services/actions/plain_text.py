"""Texts of alerts made harmless for a channel: cleaned, cut with a note, and escaped for the channel's markup.

Whoever can send an alert writes what stands in its labels. None of it may ping a channel, hide text, or break a message.
"""

from __future__ import annotations

import re
from html import escape as _html

#: Of one label, annotation or title within a message: a name or a sentence, not a log.
VALUE_CHARS = 1000
#: Of a URL that is shown.
URL_CHARS = 500
#: Marks that turn the reading direction: a text with them reads as something else than it is.
_BIDI = "".join(map(chr, [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
#: Control characters but for line feed and tab, marks of direction, halves of pairs, and what is no character.
_UNWANTED = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\ud800-\udfff\ufeff\ufffe\uffff]")
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
#: What a cut may leave of an escape: the start of `&amp;`, or a backslash without what it escapes.
_HALF_AN_ESCAPE = re.compile(r"(&[a-z0-9#]{0,6}|\\+)\Z")
#: Behind a character that would begin a mention or a reference: invisible, and then it begins nothing.
_BREAK = "\u200b"

_URL = re.compile(r"https?://[!-~]+")
_MARKUP_IN_URL = re.compile(r"[\\`*_~|\[\]<>{}^!@+]")
_MARKDOWN = re.compile(r"[\\`*_~|\[\]<>]")
_LINE_MARKS = re.compile(r"^(\s*)(#|-(?=\s)|\+(?=\s)|(?=\d+[.)]\s))", re.MULTILINE)
_MENTIONS = re.compile(r"@(?=[\w-])|#(?=\d)|(?<=[Gg][Hh])-(?=\d)")
_WIKI = re.compile(r"[\\{}\[\]!|~^*_+]")
#: A journal field of ServiceNow shows what is within [code] as HTML.
_CODE_TAG = re.compile(r"\[(?=/?\s*code\])", re.IGNORECASE)


def clean(text: str) -> str:
    """The text without characters that no reader can see and some receivers refuse. Line ends become line feeds."""
    return _UNWANTED.sub("", _LINE_ENDS.sub("\n", text))


def one_line(text: str) -> str:
    """The text on one line."""
    return " ".join(clean(text).split())


def length(text: str) -> int:
    """Its length as receivers count that were written in Java or JavaScript: never below the number of characters."""
    return len(text) + sum(1 for each in text if each > "\uffff") if not text.isascii() else len(text)


def cut(text: str, limit: int, note: str = "") -> str:
    """At most `limit` long, counted by `length`. What is cut off ends with "…" and, where there is room, `note` or how much is missing."""
    size = length(text)
    if size <= limit:
        return text
    end = f"\n… {note or f'cut: {size - limit:,} characters more'}" if limit >= 200 else "…"
    return _first(text, limit - length(end)) + end


def cut_line(text: str, limit: int) -> str:
    """At most `limit` long, counted by `length`, on one line: "…" where it was cut."""
    return text if length(text) <= limit else _first(text, limit - 1) + "…"


def cut_bytes(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, ending with "…" where it was cut."""
    data = text.encode()
    if len(data) <= limit:
        return text
    return _HALF_AN_ESCAPE.sub("", data[: max(limit - 3, 0)].decode("utf-8", "ignore")) + "…"


def short(text: str, limit: int = VALUE_CHARS) -> str:
    """A label, annotation or title, cleaned and ready to be escaped: at most `limit` long, with "…" where it was cut. What is far
    beyond the limit costs nothing."""
    kept = clean(text[: 2 * limit])
    return kept if length(kept) <= limit and len(text) <= 2 * limit else _first(kept, limit - 1) + "…"


def plain_url(url: str) -> str:
    """The same URL without characters that a markup reads as its own: what escapes them would break it. "" for what is no URL,
    or too long to be read."""
    if len(url) > URL_CHARS or not _URL.fullmatch(url):
        return ""
    return _MARKUP_IN_URL.sub(lambda found: f"%{ord(found[0]):02X}", url)


def _first(text: str, limit: int) -> str:
    kept = text[: max(limit, 0)]
    while length(kept) > limit:
        kept = kept[: len(kept) - (length(kept) - limit + 1) // 2]
    return _HALF_AN_ESCAPE.sub("", kept)


# -- one for each markup: what it is given is shown as it is --------------------------------------------------------


def as_it_is(text: str) -> str:
    return text


def for_slack(text: str) -> str:
    """Nothing in it is a mention, a link or a date."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def for_markdown(text: str) -> str:
    """No link, no image, no formatting."""
    return _LINE_MARKS.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", text))


def for_discord(text: str) -> str:
    """As Markdown; nobody is mentioned, whatever the message may mention."""
    return for_markdown(text).replace("@", f"@{_BREAK}")


def for_github(text: str) -> str:
    """As Markdown, with without_mentions()."""
    return without_mentions(for_markdown(text))


def without_mentions(text: str) -> str:
    """Nobody is mentioned on GitHub, and no other issue is told that it was."""
    return _MENTIONS.sub(rf"\g<0>{_BREAK}", text)


def for_wiki(text: str) -> str:
    """Jira's wiki markup: no macro, link, mention or image."""
    return _WIKI.sub(r"\\\g<0>", text)


def for_servicenow(text: str) -> str:
    return _CODE_TAG.sub(f"[{_BREAK}", text)


def for_html(text: str) -> str:
    return _html(text)
