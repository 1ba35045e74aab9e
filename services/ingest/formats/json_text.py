"""JSON as senders write it: marks, halves of surrogate pairs, and what is wrong with it in words. Used by the formats."""

from __future__ import annotations

import re
from codecs import BOM_UTF8

import msgspec

#: Characters of a sender's text that an error repeats.
ECHO_MAX = 80
#: Characters of a parser's words that an error repeats: some echo the sender's text.
WORDS_MAX = 240
#: Escapes of surrogates looked at to find halves: about a microsecond each.
ESCAPES_MAX = 50_000
#: What JSON calls white space.
WHITE = b" \t\r\n"

_raws_decoder = msgspec.json.Decoder(list[msgspec.Raw])
#: An escape: a surrogate pair, one half of a pair (the group), or any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def without_mark(body: bytes) -> bytes:
    """A body or a line without the byte order mark that editors and shells of Windows put in front of UTF-8. Files that were
    put together may have a blank line before it."""
    text = body.lstrip(WHITE)
    return text.removeprefix(BOM_UTF8) if text.startswith(BOM_UTF8) else body


def raw_elements(array: bytes) -> list[msgspec.Raw]:
    """The elements of a JSON array, not looked into. Raises what msgspec does for no JSON."""
    try:
        return _raws_decoder.decode(array)
    except msgspec.DecodeError:
        whole = without_halves(array)
        if whole is None:
            raise
        return _raws_decoder.decode(whole)


def without_halves(raw: bytes) -> bytes | None:
    """`raw` with each half of a surrogate pair that stands alone (\\ud800) as the bytes UTF-8 forbids for it; None when
    there is none (or there are too many to look at). For msgspec such an escape is the end of all JSON around it; those bytes cost only their string."""
    if not 0 < raw.count(b"\\ud") + raw.count(b"\\uD") <= ESCAPES_MAX:
        return None
    whole = _ESCAPE.sub(
        lambda found: (
            found[0] if found[1] is None else chr(int(found[1], 16)).encode("utf-8", "surrogatepass")
        ),
        raw,
    )
    return None if whole == raw else whole


def echo(raw: bytes) -> str:
    """What a sender wrote, short enough for an error."""
    text = raw[: ECHO_MAX * 4].decode("utf-8", "replace")
    return text if len(text) <= ECHO_MAX else text[:ECHO_MAX] + "..."


def json_error(error: Exception) -> str:
    """msgspec's words for a person."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8, or half of a surrogate pair: {error.reason} (byte {error.start})"
    words = str(error)
    # Where it is stands at the end.
    return words if len(words) <= WORDS_MAX else f"{words[: WORDS_MAX // 2]}...{words[-WORDS_MAX // 2 :]}"
