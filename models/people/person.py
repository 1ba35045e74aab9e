"""A person, and the ways in which that person is reached. Names are what schedules and policies use; addresses are known only to
who follows the people (models/people/roster.py), and never stand in an incident."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from models.errors import Malformed, TooLarge
from models.people.words import check_line, check_name

#: Ways to reach one person: a chat, a mail, a telephone, and as many spare ones.
CONTACTS_MAX = 10
#: Characters of an address: the longest that mail knows.
ADDRESS_MAX = 320
FULL_NAME_MAX = 200
UTC = "UTC"


class Contact(msgspec.Struct, frozen=True, array_like=True):
    """One way: by a receiver of the settings (notify.receivers), at an address in that receiver's own terms. "" is whatever the receiver
    is set to, as for a PagerDuty service of that person alone."""

    receiver: str
    address: str = ""


class Person(msgspec.Struct, frozen=True, array_like=True):
    """Somebody who can be told. All `contacts` are used at once."""

    name: str
    full_name: str = ""
    contacts: tuple[Contact, ...] = ()
    time_zone: str = UTC

    def ways(self) -> Iterator[tuple[str, Contact]]:
        """The contacts, each by a name that says nothing of its address: that of its receiver, numbered from the second on."""
        seen: dict[str, int] = {}
        for contact in self.contacts:
            count = seen[contact.receiver] = seen.get(contact.receiver, 0) + 1
            yield contact.receiver if count == 1 else f"{contact.receiver}:{count}", contact


def check_person(person: Person) -> None:
    """Raises Malformed, TooLarge, naming the field. Whether receivers and time zones exist is for others to say."""
    where = f"people.{person.name}"
    check_name("people", person.name)
    check_line(f"{where}.full_name", person.full_name, FULL_NAME_MAX)
    if len(person.contacts) > CONTACTS_MAX:
        raise TooLarge(f"{where}.contacts: {len(person.contacts)} (limit: {CONTACTS_MAX})")
    for index, contact in enumerate(person.contacts):
        check_name(f"{where}.contacts[{index}].receiver", contact.receiver)
        check_line(f"{where}.contacts[{index}].address", contact.address, ADDRESS_MAX)
    if len(set(person.contacts)) < len(person.contacts):
        raise Malformed(f"{where}.contacts: the same contact stands there twice")
