"""How a request that can't be read becomes dead letters, and a dead letter a request again. Used by dead_letters.py and replay.py.

Formats whose items can be read alone have a letter for each item. The others have one for the request, which names its items: what
stands around an item often says the half of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl, urlencode

import msgspec

from models.alerts.matchers import MatcherTuple
from models.control.tokens import without_secrets
from models.ports import DeadLetter
from services.ingest.arrival import Sender
from services.ingest.formats.format import Format, Request
from services.ingest.formats.reading import Fault

#: Of how a request came, no more is kept: real ones have a few hundred bytes.
PATH_CHARS = 2048
QUERY_BYTES = 4096
HEADER_BYTES = 1024
HEADERS_MAX = 32
PLACE_CHARS = 300
SENDER_CHARS = 256
#: Items that one letter may name; more of a request become another letter.
ITEMS_MAX = 1000
#: Items whose reasons a letter tells.
REASONS_TOLD = 10
_SECRET = re.compile(r"token|secret|passw|api.?key|auth|sig", re.IGNORECASE)


class Came(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a letter's request came: all but its body and type that its format looks at.

    match  the matchers that its sender's alerts must match
    items  which items of it could not be read, from 0; none: all of it
    """

    path: str = ""
    method: str = "POST"
    query: bytes = b""
    headers: dict[bytes, bytes] = {}
    sender_id: str = ""
    match: tuple[MatcherTuple, ...] = ()
    items: tuple[int, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Came)


def letters_of(
    at: float, tenant: str, form: Format, request: Request, faults: Sequence[Fault], max_payload_bytes: int
) -> Iterator[DeadLetter]:
    """The letters of what is wrong with a request. Holds no secret of ours."""
    came = Came(
        request.path[:PATH_CHARS],
        request.method,
        _plain(request.query),
        _headers(form, request),
        request.sender.id,
        request.sender.match,
    )
    items = [fault for fault in faults if fault.index >= 0]
    apart = form.keeps_items(request) or len(request.body) > max_payload_bytes
    for fault in faults:
        if fault.index < 0 or apart:
            yield _letter(at, tenant, form, request, came, [fault], fault.raw, max_payload_bytes)
    if not apart:
        for first in range(0, len(items), ITEMS_MAX):
            some = items[first : first + ITEMS_MAX]
            named = msgspec.structs.replace(came, items=tuple(fault.index for fault in some))
            yield _letter(at, tenant, form, request, named, some, request.body, max_payload_bytes)


def came_of(letter: DeadLetter) -> Came:
    """How a letter came; of one that an older version kept, or that is damaged, nothing is known."""
    try:
        return _decoder.decode(letter.request)
    except msgspec.MsgspecError:
        return Came()


def request_of(letter: DeadLetter, came: Came, form: Format, as_other: bool) -> Request:
    """A letter as a request to a format. `as_other`: it came by another one."""
    path, headers, content_type = came.path, came.headers, letter.content_type
    if as_other or not path:
        path = form.path
    if not form.takes_type(content_type, headers) and form.content_types:
        content_type = form.content_types[0] if as_other or not content_type else content_type
    return Request(
        path,
        letter.payload,
        letter.at,
        "POST" if as_other else came.method,
        came.query,
        headers,
        content_type,
        Sender(letter.sender or "anonymous", came.sender_id, came.match),
        letter.place,
        is_letter=True,
    )


def still(came: Came, faults: Sequence[Fault]) -> tuple[bytes, str]:
    """What a letter keeps of how it came and why, when only `faults` of it are left."""
    named = tuple(fault.index for fault in faults if fault.index >= 0)
    if len(named) > ITEMS_MAX:
        named = came.items
    return _encoder.encode(msgspec.structs.replace(came, items=named)), reason_of(faults)


def reason_of(faults: Sequence[Fault]) -> str:
    """Why these can't be read, in one text."""
    if len(faults) == 1:
        return faults[0].message
    words = "; ".join(f"item {fault.index}: {fault.message}" for fault in faults[:REASONS_TOLD])
    more = len(faults) - REASONS_TOLD
    return f"{words}; and {more} more" if more > 0 else words


def _letter(
    at: float,
    tenant: str,
    form: Format,
    request: Request,
    came: Came,
    faults: Sequence[Fault],
    payload: bytes,
    max_payload_bytes: int,
) -> DeadLetter:
    # Some senders have their token in the body. Before the cut, which might leave most of one.
    raw = without_secrets(payload)
    numbers = [str(fault.index) for fault in faults if fault.index >= 0]
    item = f"item{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else ""
    return DeadLetter(
        at,
        tenant,
        form.name,
        _told(reason_of(faults)),
        raw[:max_payload_bytes],
        request.content_type,
        truncated=len(raw) > max_payload_bytes,
        sender=request.sender.name[:SENDER_CHARS],
        place=_told(", ".join(filter(None, (request.place, item))))[:PLACE_CHARS],
        request=_encoder.encode(came),
    )


def _told(text: str) -> str:
    return without_secrets(text.encode("utf-8", "replace")).decode()


def _plain(query: bytes) -> bytes:
    """A query without what is secret in it."""
    if len(query) > QUERY_BYTES:
        return b""
    if not _SECRET.search(query.decode("latin-1")):
        return without_secrets(query)
    named = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    kept = [(name, value) for name, value in named if not _SECRET.search(name)]
    return without_secrets(urlencode(kept, encoding="latin-1").encode("latin-1"))


def _headers(form: Format, request: Request) -> dict[bytes, bytes]:
    """The headers that a format looks at."""
    found: dict[bytes, bytes] = {}
    for name in form.rereads():
        if name.endswith(b"-"):
            found.update((each, value) for each, value in request.headers.items() if each.startswith(name))
        elif name in request.headers:
            found[name] = request.headers[name]
    kept = [(name, without_secrets(value)) for name, value in found.items() if len(value) <= HEADER_BYTES]
    return dict(kept[:HEADERS_MAX])
