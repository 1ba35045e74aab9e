"""What a message of RabbitMQ says of itself, as far as it can be read. Used by services/ingest/sources/rabbitmq.py.

RabbitMQ hardly looks at the routing key, the properties and the headers of a message: names that are no UTF-8, times of the year 9,000,000
and a thousand tables in each other pass through it. The client library ends its connection over one of these, without a word of which
message it was, and it comes again on the next connection, before all others.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pamqp.header import ContentHeader

#: Bytes of a value in a table of headers, by its type; the others say their length.
_SIZES = {ord(kind): size for kind, size in zip("tbBsuIilLfdDTV", (1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 5, 8, 0))}
_TEXTS, _LONG = b"Sx", b"SxAF"


def take_any_header() -> None:
    """Have the client library leave out what it can't read, and headers that are no texts; what is no UTF-8 of other texts is escaped
    (PEP 383). Safe to call twice."""
    from pamqp import decode
    from pamqp.header import ContentHeader

    decode.METHODS["shortstr"] = _short_text
    ContentHeader.unmarshal = _unmarshal  # type: ignore[assignment, method-assign]


def _short_text(data: bytes) -> tuple[int, str]:
    end = 1 + data[0]
    return end, data[1:end].decode("utf-8", "surrogateescape")


def _unmarshal(header: ContentHeader, data: bytes) -> None:
    from pamqp import decode

    header.class_id, header.weight, header.body_size = struct.unpack_from(">HHQ", data)
    size, flags = header._get_flags(data[12:])
    at, properties = 12 + size, header.properties
    for name in properties.attributes():
        if not flags & properties.flags[name]:
            continue
        kind = properties.amqp_type(name)
        if kind == "shortstr":
            size = 1 + data[at]
        elif kind == "table":
            size = 4 + int.from_bytes(data[at : at + 4], "big")
        else:
            size = 8 if kind == "timestamp" else 1
        raw = data[at : at + size]
        at += size
        try:
            setattr(properties, name, texts_of(raw[4:]) if kind == "table" else decode.by_type(raw, kind)[1])
        except (ValueError, OverflowError, OSError):
            setattr(properties, name, None)


def texts_of(table: bytes) -> dict[str, str | bytes]:
    """The texts of a table of headers by their names; as bytes those that are no UTF-8."""
    found: dict[str, str | bytes] = {}
    at = 0
    while at < len(table):
        name = table[at + 1 : at + 1 + table[at]]
        at += 1 + len(name)
        kind = table[at : at + 1]
        at += 1
        size = _SIZES.get(kind[0]) if kind else None
        if size is None:
            if not kind or kind not in _LONG:
                break  # nobody knows where the next one begins
            size = int.from_bytes(table[at : at + 4], "big")
            at += 4
            if kind in _TEXTS:
                value = table[at : at + size]
                try:
                    found[name.decode("utf-8", "replace")] = value.decode()
                except UnicodeDecodeError:
                    found[name.decode("utf-8", "replace")] = value
        at += size
    return found
