"""Sections `people` and `policies`: people, schedules, overrides and escalation policies as they are changed, and the shape of the policies by
itself, which is all that shards follow. What they are stands in models/people/."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from models.control.section import ONLY, Section
from models.errors import Stale
from models.partition.event import Event
from models.people.person import Person
from models.people.policy import Outline, Policy
from models.people.roster import (
    OVERRIDE_KEPT_S,
    ChangePeople,
    Entry,
    PeopleChanged,
    PoliciesOutlined,
    Roster,
    check_entry,
    check_whole,
    key_of,
)
from models.people.schedule import Override, Schedule
from models.wire import Wire


class People(Section):
    """A record for each entry by tenant and key, and one of the rest. `version` grows with each change; an entry has the one at which it
    was changed last."""

    name = "people"
    events = (PeopleChanged,)
    messages = (ChangePeople,)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        self.version = 0
        self._rosters: dict[str, Roster] = {}
        self._changed: dict[tuple[str, str], int] = {}

    def of(self, tenant: str) -> Roster:
        """For looking: everything of a tenant."""
        return self._rosters.get(tenant) or Roster()

    def version_of(self, key: str, tenant: str) -> int:
        """At which version an entry was changed last; 0: there is none."""
        return self._changed.get((tenant, key), 0)

    # -- deciding --

    def decide(self, message: Wire, now: float) -> list[Event]:
        """What comes of a change; nothing for a repeat. Raises Malformed, TooLarge, Conflict, Stale."""
        assert isinstance(message, ChangePeople)
        before = self.of(message.tenant)
        wanted: list[Entry] = [
            *message.people,
            *message.schedules,
            *message.overrides,
            *message.policies,
        ]
        news = [each for each in wanted if before.get(key_of(each)) != each]
        gone = [key for key in dict.fromkeys(message.removed) if before.get(key) is not None]
        if not news and not gone:
            return []
        for key, version in message.expects.items():
            if self.version_of(key, message.tenant) != version:
                raise Stale(f"{key} was changed meanwhile: read it again")
        after = before.copy()
        for each in news:
            check_entry(each)
            after.put(each)
        for key in gone:
            after.drop(key)
        for override in [*after.overrides.values()]:
            # What is over goes with what it was about; what is not over keeps its person from going.
            is_past = override.ends_at <= now and override.person not in after.people
            if override.schedule not in after.schedules or is_past:
                after.drop(key_of(override))
                gone.append(key_of(override))
        check_whole(after)
        changed = PeopleChanged(
            message.actor,
            now,
            [each for each in news if isinstance(each, Person)],
            [each for each in news if isinstance(each, Schedule)],
            [each for each in news if isinstance(each, Override) and key_of(each) not in gone],
            [each for each in news if isinstance(each, Policy)],
            gone,
            message.tenant,
        )
        outlines = _outlines(after, message.tenant)
        if outlines == _outlines(before, message.tenant):
            return [changed]
        return [changed, PoliciesOutlined(outlines, message.tenant)]

    # -- folding --

    def apply(self, event: Event, now: float) -> None:
        """Fold one event in; overrides that have been over for OVERRIDE_KEPT_S are forgotten with it."""
        assert isinstance(event, PeopleChanged)
        self._touch(ONLY)
        self.version += 1
        tenant = event.tenant
        roster = self._rosters.setdefault(tenant, Roster({}, {}, {}, {}))
        news: list[Entry] = [*event.people, *event.schedules, *event.overrides, *event.policies]
        for entry in news:
            self._touch(_record(tenant, key_of(entry)))
            roster.put(entry)
            self._changed[tenant, key_of(entry)] = self.version
        old = [
            key_of(each) for each in roster.overrides.values() if each.ends_at + OVERRIDE_KEPT_S <= event.at
        ]
        for key in [*event.removed, *old]:
            self._touch(_record(tenant, key))
            roster.drop(key)
            self._changed.pop((tenant, key), None)

    def capture(self, key: bytes) -> bytes | None:
        if key == ONLY:
            return _encoder.encode(self.version)
        tenant, _, its = key.decode().rpartition("/")
        found = self.of(tenant).get(its)
        if found is None:
            return None
        return _encoder.encode((self._changed[tenant, its], found))

    def load(self, key: bytes, record: bytes) -> None:
        if key == ONLY:
            self.version = _version_decoder.decode(record)
            return
        tenant, _, its = key.decode().rpartition("/")
        changed, found = _decoders[its.partition(":")[0]].decode(record)
        self._rosters.setdefault(tenant, Roster({}, {}, {}, {})).put(found)
        self._changed[tenant, its] = changed


class Policies(Section):
    """The shape of all tenants' policies, in one record."""

    name = "policies"
    events = (PoliciesOutlined,)

    def __init__(self, touch: Callable[[bytes], None]) -> None:
        super().__init__(touch)
        self.version = 0
        self.all: dict[str, list[Outline]] = {}

    def apply(self, event: Event, now: float) -> None:
        assert isinstance(event, PoliciesOutlined)
        self._touch(ONLY)
        self.version += 1
        self.all[event.tenant] = event.outlines

    def capture(self, key: bytes) -> bytes | None:
        return _encoder.encode((self.version, self.all)) if self.version else None

    def load(self, key: bytes, record: bytes) -> None:
        self.version, self.all = _policies_decoder.decode(record)


def _outlines(roster: Roster, tenant: str) -> list[Outline]:
    return [
        msgspec.structs.replace(roster.policies[name].outline, tenant=tenant)
        for name in sorted(roster.policies)
    ]


def _record(tenant: str, key: str) -> bytes:
    return f"{tenant}/{key}".encode()


_encoder = msgspec.msgpack.Encoder()
_version_decoder = msgspec.msgpack.Decoder(int)
_policies_decoder = msgspec.msgpack.Decoder(tuple[int, dict[str, list[Outline]]])
_decoders: dict[str, msgspec.msgpack.Decoder[tuple[int, Entry]]] = {
    "person": msgspec.msgpack.Decoder(tuple[int, Person]),
    "schedule": msgspec.msgpack.Decoder(tuple[int, Schedule]),
    "override": msgspec.msgpack.Decoder(tuple[int, Override]),
    "policy": msgspec.msgpack.Decoder(tuple[int, Policy]),
}
