"""Who is on call: rotations, hours, overrides and gaps, and both nights of the year on which clocks change."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import Malformed, TooLarge
from models.people.oncall import CUTS_MAX, Duty, on_call, shifts
from models.people.schedule import DAYS, Hours, Layer, Override, Schedule, check_schedule

BERLIN = ZoneInfo("Europe/Berlin")
ALL_DAYS = tuple(range(len(DAYS)))
WEEKDAYS = (0, 1, 2, 3, 4)
#: The last Sundays of March and October: at 02:00 clocks go forward, at 03:00 back.
SPRING, AUTUMN = datetime(2026, 3, 29), datetime(2026, 10, 25)
HOUR, DAY = 3600.0, 86400.0


def local(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def schedule(*layers: Layer) -> Schedule:
    return Schedule("primary", "Europe/Berlin", layers)


def layer(*people: str, every_s: float = 7 * DAY, starts: str = "2026-01-05T09:00", hours: tuple[Hours, ...] = (), name: str = "a") -> Layer:  # fmt: skip
    return Layer(name, people, every_s, starts, hours)


def person(found: Duty | None) -> str | None:
    return None if found is None else found.person


def who(plan: Schedule, when: str, *overrides: Override, fold: int = 0) -> str | None:
    return person(on_call(plan, overrides, local(when, fold=fold), BERLIN))


def test_turns_change_at_the_same_time_of_day_all_year() -> None:
    plan = schedule(layer("ana", "ben"))

    assert who(plan, "2026-01-05T08:59") is None
    assert who(plan, "2026-01-05T09:00") == "ana"
    assert [who(plan, f"2026-01-12T{time}") for time in ("08:59", "09:00")] == ["ana", "ben"]
    # Summer time has begun: still at nine.
    assert [who(plan, f"2026-03-30T{time}") for time in ("08:59", "09:00")] == ["ben", "ana"]
    assert [who(plan, f"2026-10-26T{time}") for time in ("08:59", "09:00")] == ["ben", "ana"]


def test_a_turn_over_the_night_of_a_clock_change_is_an_hour_shorter_or_longer() -> None:
    plan = schedule(layer("ana", "ben", every_s=DAY, starts="2026-01-01T20:00"))

    for day, hours in ((SPRING, 23.0), (AUTUMN, 25.0)):
        begins = local(f"{(day - timedelta(days=1)).date()}T20:00")
        first, second = shifts(plan, (), begins, begins + 30 * HOUR, BERLIN)
        assert (first.ends_at - first.starts_at) / HOUR == hours
        assert person(first.duty) != person(second.duty)


def test_a_handover_in_the_hour_that_comes_twice_happens_once() -> None:
    plan = schedule(layer("ana", "ben", every_s=DAY, starts="2026-10-20T02:30"))

    before = who(plan, "2026-10-25T02:29")
    after = [
        who(plan, "2026-10-25T02:30"),
        who(plan, "2026-10-25T02:00", fold=1),
        who(plan, "2026-10-25T02:45", fold=1),
    ]
    assert len(set(after)) == 1 and after[0] != before


def test_a_handover_in_the_hour_that_does_not_exist_happens_all_the_same() -> None:
    plan = schedule(layer("ana", "ben", every_s=DAY, starts="2026-03-20T02:30"))
    begins = local("2026-03-28T12:00")

    found = shifts(plan, (), begins, begins + DAY, BERLIN)

    assert len(found) == 2
    # 02:30 does not exist: half an hour after the jump.
    assert found[1].starts_at == datetime(2026, 3, 29, 1, 30, tzinfo=UTC).timestamp()


def test_the_first_layer_that_has_somebody_counts_and_hours_may_cross_midnight() -> None:
    nights = Hours(WEEKDAYS, 18 * 60, 8 * 60)
    plan = schedule(layer("night", hours=(nights,), name="nights"), layer("day", name="days"))

    assert who(plan, "2026-02-02T17:59") == "day"  # a Monday
    assert [who(plan, f"2026-02-03T{time}") for time in ("02:00", "07:59", "08:00")] == [
        "night",
        "night",
        "day",
    ]
    # Friday's night ends on Saturday, and the weekend has none of its own.
    assert [who(plan, f"2026-02-07T{time}") for time in ("07:59", "08:00", "20:00")] == [
        "night",
        "day",
        "day",
    ]
    assert on_call(plan, (), local("2026-02-03T02:00"), BERLIN) == Duty("night", layer="nights")


def test_an_override_wins_and_of_two_the_one_made_last() -> None:
    plan = schedule(layer("ana"))
    one = Override("1", "primary", "ben", local("2026-02-02T10:00"), local("2026-02-02T12:00"), 1.0, "ana")
    two = Override("2", "primary", "cleo", local("2026-02-02T11:00"), local("2026-02-02T13:00"), 2.0, "ana")

    found = [
        who(plan, f"2026-02-02T{time}", one, two) for time in ("09:59", "10:00", "11:00", "12:30", "13:00")
    ]

    assert found == ["ana", "ben", "cleo", "cleo", "ana"]


def test_a_gap_is_told_with_its_ends() -> None:
    plan = schedule(layer("ana", hours=(Hours(WEEKDAYS, 9 * 60, 17 * 60),)))
    begins = local("2026-02-06T12:00")  # a Friday

    found = shifts(plan, (), begins, begins + 4 * DAY, BERLIN)

    assert [person(each.duty) for each in found[:3]] == ["ana", None, "ana"]
    assert (found[1].starts_at, found[1].ends_at) == (local("2026-02-06T17:00"), local("2026-02-09T09:00"))


def test_a_stretch_with_too_many_handovers_is_refused() -> None:
    plan = schedule(layer("ana", "ben", every_s=HOUR))

    with pytest.raises(TooLarge, match="handovers"):
        shifts(plan, (), local("2026-02-01T00:00"), local("2026-02-01T00:00") + (CUTS_MAX + 2) * HOUR, BERLIN)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (layer(), "people: expected at least one"),
        (layer("ana", every_s=1800.0), "every: expected whole hours"),
        (layer("ana", every_s=5400.0), "every: expected whole hours"),
        (layer("ana", starts="soon"), "starts: expected a local time"),
        (layer("ana", starts="2026-01-05T09:00+01:00"), "without an offset"),
        (layer("ana", starts="0001-01-01T00:00"), "expected a year"),
        (layer("ana", hours=(Hours((), 0, 60),)), "hours.days"),
        (layer("ana", hours=(Hours((7,), 0, 60),)), "hours.days"),
        (layer("ana", hours=(Hours((0,), 0, 1441),)), "expected times"),
    ],
)
def test_what_is_wrong_with_a_layer_is_said_by_its_field(wrong: Layer, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        check_schedule(schedule(wrong))


# -- laws ------------------------------------------------------------------------------------------------------

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "UTC",
    "America/St_Johns",
)
FIRST, LAST = local("2026-01-01T00:00"), local("2026-12-31T00:00")


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    starts = datetime(2026, 1, 1) + timedelta(minutes=30 * draw(st.integers(0, 2 * 24 * 300)))
    hours = draw(
        st.lists(
            st.builds(
                Hours,
                st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
                st.integers(0, 1439),
                st.integers(1, 1440),
            ),
            max_size=2,
        )
    )
    every_s = HOUR * draw(st.sampled_from((1, 6, 12, 24, 36, 168)))
    people = tuple(draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4)))
    return Layer("l", people, every_s, starts.isoformat(), tuple(hours))


@st.composite
def overrides(draw: st.DrawFn) -> Override:
    begins = draw(st.floats(FIRST, LAST))
    ends = begins + draw(st.floats(1.0, 20 * DAY))
    return Override(
        str(draw(st.integers(0, 9))), "primary", "z", begins, ends, float(draw(st.integers(0, 9))), "x"
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(layers(), min_size=1, max_size=3),
    st.lists(overrides(), max_size=3),
    st.sampled_from(ZONES),
    # The weeks of the changes, and any.
    st.one_of(
        st.floats(FIRST, LAST), st.floats(-2 * DAY, DAY).map(lambda off: SPRING.timestamp() + off), st.floats(-2 * DAY, DAY).map(lambda off: AUTUMN.timestamp() + off),
    ),
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20),
)  # fmt: skip
def test_shifts_have_no_holes_and_agree_with_who_is_on_call_at_every_instant(
    made: list[Layer], others: list[Override], zone_name: str, begins: float, shares: list[float]
) -> None:
    zone, plan = ZoneInfo(zone_name), Schedule("primary", zone_name, tuple(made))
    ends = begins + 2 * DAY

    found = shifts(plan, others, begins, ends, zone)

    assert found[0].starts_at == begins and found[-1].ends_at == ends
    assert all(one.ends_at == two.starts_at for one, two in itertools.pairwise(found))
    assert all(one.duty != two.duty for one, two in itertools.pairwise(found))
    moments = [at for share in shares if (at := begins + share * (ends - begins)) < ends]
    for moment in [*moments, *(each.starts_at for each in found)]:
        [holding] = [each for each in found if each.starts_at <= moment < each.ends_at]
        assert holding.duty == on_call(plan, others, moment, zone)
        if any(each.holds(moment) for each in others):
            assert holding.duty is not None and holding.duty.override


@settings(max_examples=50, deadline=None)
@given(layers(), st.sampled_from(ZONES), st.floats(FIRST, LAST))
def test_people_take_turns_in_their_order(made: Layer, zone_name: str, begins: float) -> None:
    zone = ZoneInfo(zone_name)
    always = Layer("l", ("a", "b", "c"), made.every_s, made.starts)

    found = [
        each.duty for each in shifts(Schedule("p", zone_name, (always,)), (), begins, begins + 3 * DAY, zone)
    ]
    names = [person(each) for each in found if each is not None]

    # A turn of an hour can fall into the hour that does not exist, and lasts no time then.
    steps = {(ord(str(two)) - ord(str(one))) % 3 for one, two in itertools.pairwise(names)}
    assert steps <= {1} if made.every_s > HOUR else steps <= {1, 2}
