"""What of many backups is kept, which one holds a time, and how days of ids are cut."""

from __future__ import annotations

import pytest

from models.backup import (
    Across,
    Backup,
    Part,
    Snapshot,
    Until,
    backup_id,
    before,
    covering,
    day_of,
    expired,
    time_of,
)
from models.errors import Conflict, Malformed, NotFound
from models.incidents.incident import Handling, Incident, IncidentType, Severity, Verdict, incident_id

DAY_S = 86_400.0


def backup(cut_at: float, first_at: float) -> Backup:
    snapshot = Snapshot(1, 10, b"", 1, b"", first_at)
    parts = [Part("control", 1, None, 2, b"", cut_at), Part("shard/0000", 1, snapshot, 20, b"", cut_at)]
    return Backup(1, backup_id(cut_at), "0", "memory", cut_at, 1.0, parts)


def test_an_id_sorts_by_time_and_says_it_to_the_microsecond() -> None:
    assert backup_id(1_700_000_000.25) == "20231114T221320.250000Z"
    assert time_of("20231114T221320.250000Z") == 1_700_000_000.25
    assert backup_id(999_999_999.0) < backup_id(1_000_000_000.5) < backup_id(1_000_000_001.0)


def test_what_is_no_id_is_told_with_what_was_expected() -> None:
    with pytest.raises(Malformed, match="--at: 'latest' is not a backup id; see `llm-im backup list`"):
        time_of("latest")


@pytest.mark.parametrize(
    ("whole", "others", "gone"),
    [
        ([1, 2, 8, 9], [], [1, 2]),
        ([1, 2], [], [1]),
        ([1], [], []),
        ([2], [1, 3, 9], [1, 3]),
        ([], [1, 9], [1]),
    ],
)
def test_older_ones_go_but_the_newest_whole_one_stays(
    whole: list[int], others: list[int], gone: list[int]
) -> None:
    def ids(days: list[int]) -> list[str]:
        return [backup_id(day * DAY_S) for day in days]

    assert expired(ids(whole), ids(others), 10 * DAY_S, 5 * DAY_S) == ids(gone)


def test_a_time_is_found_in_the_first_backup_that_holds_it() -> None:
    known = [backup(300.0, 250.0), backup(100.0, 50.0), backup(310.0, 250.0)]

    assert covering(known, 60.0).cut_at == 100.0
    assert covering(known, 260.0).cut_at == 300.0
    assert covering(known, 305.0).cut_at == 310.0


def test_a_time_between_backups_is_told_with_those_beside_it() -> None:
    with pytest.raises(NotFound) as told:
        covering([backup(100.0, 50.0), backup(300.0, 250.0)], 200.0)

    assert f"{backup_id(100.0)} goes up to 1970-01-01T00:01:40.000Z" in str(told.value)
    assert f"{backup_id(300.0)} begins at 1970-01-01T00:04:10.000Z" in str(told.value)
    with pytest.raises(NotFound, match="there is none at all"):
        covering([], 200.0)


def test_a_backup_reaches_from_its_youngest_snapshot_to_its_moment() -> None:
    found = backup(100.0, 50.0)

    Until(at=50.0).check(found)
    Until(at=100.0).check(found)
    Until(seqs={"control": 0, "shard/0000": 10}).check(found)
    for until in (Until(at=49.9), Until(at=100.1), Until(seqs={"shard/0000": 9}), Until(seqs={"control": 3})):
        with pytest.raises(NotFound):
            until.check(found)


def test_a_day_begins_and_ends_where_ids_of_its_incidents_do() -> None:
    at = 20_000 * DAY_S
    inside = [incident_id(5, at + second, 1, 1, "key") for second in (0.0, 1.0, DAY_S - 0.001)]
    outside = incident_id(5, at + DAY_S, 1, 1, "key")
    first, end = day_of(inside[0])

    assert {day_of(each) for each in inside} == {(first, end)}
    assert all(first <= each < end for each in inside)
    assert day_of(outside)[0] == end
    assert before(first) < first and int.from_bytes(first, "big") - int.from_bytes(before(first), "big") == 1


def test_ids_at_both_ends_of_time_have_a_day() -> None:
    first, _end = day_of(bytes(16))
    assert (first, before(first)) == (bytes(16), b"")
    first, end = day_of(b"\xff" * 16)
    assert first < end == b"\xff" * 16


def incident(name: bytes, sent: int = 0, heard: dict[bytes, tuple[int, str]] | None = None) -> Incident:
    judged = Verdict(Severity.P2, IncidentType.UNKNOWN, "")
    handling = Handling(judged, owed_number=sent, heard=heard or {})
    return Incident(
        name * 16, 0, "default", "api", "key", {}, "title", "", "test", {}, {}, 1.0, 1.0, handling=handling
    )


def test_a_message_that_was_heard_but_never_sent_shows_that_partitions_are_not_of_one_time() -> None:
    across = Across()
    across.add("shard/0000", [incident(b"a", sent=2)])
    across.add("shard/0001", [incident(b"b", heard={b"a" * 16: (2, ""), b"z" * 16: (7, "")})])
    across.check()  # who is archived says nothing any more

    across.add("shard/0002", [incident(b"c", heard={b"a" * 16: (3, "")})])

    with pytest.raises(Conflict, match=r"in shard/0002 has received message 3 .* shard/0000 has only 2"):
        across.check()
