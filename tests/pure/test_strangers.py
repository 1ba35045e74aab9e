"""Connections that have shown no token yet: how many there may be, and whose place the next one takes."""

from __future__ import annotations

import pytest

from services.ingest.doors.grpc import strangers as bounds
from services.ingest.doors.grpc.strangers import Strangers, address_of


class One:
    def __init__(self, address: str) -> None:
        self.address = address
        self.is_gone = False

    def turn_away(self) -> None:
        self.is_gone = True


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> Strangers:
    monkeypatch.setattr(bounds, "STRANGERS_MAX", 4)
    monkeypatch.setattr(bounds, "OF_ONE_MAX", 2)
    return Strangers()


def test_the_next_of_an_address_takes_the_place_of_its_own_oldest(strangers: Strangers) -> None:
    other, *these = [One("b"), One("a"), One("a"), One("a")]
    for each in (other, *these):
        strangers.add(each)

    assert [each.is_gone for each in (other, *these)] == [False, True, False, False]
    assert len(strangers) == 3


def test_the_next_of_all_takes_the_place_of_the_oldest_of_all(strangers: Strangers) -> None:
    these = [One(str(number // 2)) for number in range(6)]
    for each in these:
        strangers.add(each)

    assert [each.is_gone for each in these] == [True, True, False, False, False, False]
    assert strangers.make_room()
    assert these[2].is_gone
    assert len(strangers) == 3


def test_who_is_known_is_turned_away_no_more(strangers: Strangers) -> None:
    known = One("a")
    strangers.add(known)
    strangers.drop(known)
    strangers.drop(known)

    for _ in range(9):
        strangers.add(One("a"))
    while strangers.make_room():
        pass

    assert not known.is_gone
    assert len(strangers) == 0


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("10.1.2.3", 4000), "10.1.2.3"),
        (("::ffff:10.1.2.3", 4000, 0, 0), "10.1.2.3"),
        (("2001:db8:1:2:3:4:5:6", 4000, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 4000, 0, 3), "fe80::/64"),
        (None, ""),
        ("", ""),
        (("somewhere", 1), "somewhere"),
    ],
)
def test_an_address_is_one_customers(peer: object, address: str) -> None:
    assert address_of(peer) == address
