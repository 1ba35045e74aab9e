"""The shape of everything that crosses a process or reaches the disk, and Appendix A's way of writing it."""

from __future__ import annotations

import msgspec


class Wire(msgspec.Struct, frozen=True, array_like=True, tag=True, tag_field="wire"):
    """A message, reply, event or effect: an array with its name first. Fields are only added at the end, with a default."""


def tag_of(kind: type[Wire]) -> bytes:
    """The name that a type bears on the wire: its first one, also where it was renamed since."""
    return str(kind.__struct_config__.tag).encode()
