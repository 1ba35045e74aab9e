"""The table of what is muted: by incident, then by series, each by what; and by silence, which series it mutes. Used by
models/shard/mutes.py."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping

import msgspec

from models.alerts.muted import NOTHING, MutedBy

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[MutedBy, bytes]])


class MutedSeries:
    """By what each muted series is muted. Only firing ones are in it."""

    def __init__(self) -> None:
        self._incidents: dict[bytes, dict[int, MutedBy]] = {}
        self._silences: dict[str, dict[int, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._incidents)

    def __iter__(self) -> Iterator[bytes]:
        """The incidents of which something is muted."""
        return iter(self._incidents)

    def __contains__(self, incident: bytes) -> bool:
        return incident in self._incidents

    def of(self, incident: bytes) -> Mapping[int, MutedBy]:
        """The muted series of an incident."""
        return self._incidents.get(incident, {})

    def by(self, incident: bytes, number: int) -> MutedBy:
        """By what a series of an incident is muted."""
        return self._incidents.get(incident, {}).get(number, NOTHING)

    def silenced_by(self, silence: str) -> Collection[int]:
        return self._silences.get(silence, {}).keys()

    def put(self, incident: bytes, number: int, by: MutedBy) -> None:
        """A series is muted by this from now on; by NOTHING: it is not muted any more."""
        here = self._incidents.setdefault(incident, {})
        for each in here.pop(number, NOTHING).silences:
            silenced = self._silences[each]
            del silenced[number]
            if not silenced:
                del self._silences[each]
        if by:
            here[number] = by
            for each in by.silences:
                self._silences.setdefault(each, {})[number] = None
        if not here:
            del self._incidents[incident]

    def drop(self, incident: bytes) -> None:
        """Nothing of an incident is muted any more."""
        for number in [*self.of(incident)]:
            self.put(incident, number, NOTHING)

    def record(self, incident: bytes) -> bytes | None:
        """What is muted of an incident, for a snapshot."""
        groups: dict[MutedBy, array[int]] = {}
        for number, by in self.of(incident).items():
            groups.setdefault(by, array("I")).append(number)
        return _encoder.encode([(by, each.tobytes()) for by, each in groups.items()]) if groups else None

    def load(self, incident: bytes, record: bytes) -> None:
        for by, numbers in _decoder.decode(record):
            for number in array("I", numbers):
                self.put(incident, number, by)
