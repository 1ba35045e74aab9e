"""The checker itself: it takes what a log could have done, and finds what none could."""

from __future__ import annotations

import random

import pytest

from tests.contract.linearizability import (
    NEVER,
    Append,
    LastSeq,
    Open,
    Operation,
    Read,
    Release,
    Renew,
    What,
    check,
)

A, B, C = (b"a",), (b"b",), (b"c",)
TAKEN = Open("one", 0.0, 10.0, epoch=1, last_seq=0)


def in_turn(*whats: What) -> list[Operation]:
    """Each begins after the one before ended."""
    return [Operation("one", what, number, number + 0.5) for number, what in enumerate(whats)]


def holds(history: list[Operation]) -> bool:
    return check(history).is_linearizable


# --- histories that a log could have ---


def test_an_empty_history_is_one() -> None:
    assert holds([])


def test_what_one_writer_does_in_turn_is_read_as_it_was_written() -> None:
    assert holds(
        in_turn(
            TAKEN, Append(1, 1, A), Append(1, 2, B + C), Read(0, A + B + C), Read(1, B + C), Read(3, ()), LastSeq(3)
        )
    )  # fmt: skip


def test_a_read_beside_an_append_may_come_before_it_or_after() -> None:
    before = in_turn(TAKEN)
    append = Operation("one", Append(1, 1, A), 1.0, 3.0)

    for found in (A, ()):
        assert holds([*before, append, Operation("two", Read(0, found), 1.5, 2.0)])


def test_an_append_that_was_cut_off_may_have_happened_at_any_later_time_or_never() -> None:
    taken = in_turn(TAKEN)
    cut_off = Operation("one", Append(1, 1, A), 1.0, NEVER)

    found_by_others: list[list[What]] = [
        [Read(0, ()), Read(0, A)],
        [Read(0, A), Read(0, A)],
        [Read(0, ()), Read(0, ())],
        [Open("one", 5.0, 10.0, epoch=2, last_seq=1), Append(2, 2, B), Read(0, A + B)],
        [Open("one", 5.0, 10.0, epoch=2, last_seq=0), Append(2, 1, B), Read(0, B)],
    ]
    for found in found_by_others:
        after = [Operation("two", what, 10 + n, 10.5 + n) for n, what in enumerate(found)]
        assert holds([*taken, cut_off, *after])


def test_the_old_writer_is_refused_and_the_next_goes_on_where_the_log_ends() -> None:
    assert holds(
        in_turn(
            TAKEN, Append(1, 1, A), Open("two", 10.0, 10.0, epoch=2, last_seq=1), Append(1, 2, B, fenced=True),
            Renew(1, 30.0, fenced=True), Append(2, 2, C), Read(0, A + C),
        )
    )  # fmt: skip


def test_a_lease_keeps_others_out_until_it_ends_or_is_given_up() -> None:
    owned, two = Open("two", 9.9, 10.0, owned=True), Open("two", 9.9, 10.0, epoch=2)

    assert holds(in_turn(TAKEN, owned, Release(1), two, Release(1), Open("one", 5.0, 1.0, owned=True)))
    assert holds(in_turn(TAKEN, Renew(1, 50.0), Open("two", 49.0, 10.0, owned=True)))
    assert holds(in_turn(TAKEN, Open("one", 1.0, 10.0, epoch=2)))


def test_an_open_that_was_cut_off_may_be_why_the_writer_before_it_is_fenced() -> None:
    cut_off = Operation("two", Open("two", 11.0, 10.0), 1.0, NEVER)

    assert holds([*in_turn(TAKEN, LastSeq(0), Append(1, 1, A, fenced=True)), cut_off])
    assert holds([*in_turn(TAKEN, LastSeq(0), Open("one", 30.0, 1.0, epoch=3)), cut_off])


# --- histories that none could have ---


def test_an_acknowledged_append_that_is_lost_is_found() -> None:
    assert not holds(in_turn(TAKEN, Append(1, 1, A), Open("one", 1.0, 10.0, epoch=2, last_seq=0)))
    assert not holds(in_turn(TAKEN, Append(1, 1, A), Append(1, 2, B), Read(0, A)))
    assert not holds(in_turn(TAKEN, Append(1, 1, A), Read(0, ())))


def test_a_read_that_goes_back_behind_an_earlier_one_is_found() -> None:
    taken = in_turn(TAKEN)
    slow = Operation("one", Append(1, 1, A), 1.0, 9.0)
    new, old = Operation("two", Read(0, A), 2.0, 3.0), Operation("three", Read(0, ()), 4.0, 5.0)

    assert not holds([*taken, slow, new, old])
    assert holds([*taken, slow, new, Operation("three", Read(0, ()), 2.5, 5.0)])


def test_two_writers_of_one_epoch_are_found() -> None:
    assert not holds(in_turn(TAKEN, Open("two", 20.0, 10.0, epoch=1)))
    both = [Operation("two", Open("two", 0.0, 10.0, epoch=1), 0.0, 0.5)]
    assert not holds([*in_turn(TAKEN), *both])


def test_an_epoch_that_nobody_took_is_found() -> None:
    assert not holds(in_turn(TAKEN, Open("one", 1.0, 10.0, epoch=3)))


def test_an_append_that_was_refused_but_is_visible_is_found() -> None:
    # What was refused with nothing kept is no operation; what was fenced is one that leaves the log as it was.
    assert not holds(in_turn(TAKEN, Read(0, A)))
    assert not holds(in_turn(TAKEN, Open("one", 1.0, 1.0, epoch=2), Append(1, 1, A, fenced=True), Read(0, A)))


def test_an_append_of_an_old_epoch_that_was_taken_is_found() -> None:
    taken_over = (TAKEN, Open("two", 20.0, 10.0, epoch=2))

    assert not holds(in_turn(*taken_over, Append(1, 1, A)))
    cut_off = Operation("one", Append(1, 1, A), 0.6, NEVER)
    assert not holds([*in_turn(*taken_over, Read(0, ()), Read(0, A)), cut_off])


def test_a_refusal_of_the_writer_whose_turn_it_is_is_found() -> None:
    assert not holds(in_turn(TAKEN, Append(1, 1, A, fenced=True)))
    assert not holds(in_turn(TAKEN, Renew(1, 5.0, fenced=True)))
    assert not holds(in_turn(TAKEN, Release(1), Open("two", 1.0, 1.0, owned=True)))


def test_a_lease_that_is_not_kept_to_is_found() -> None:
    assert not holds(in_turn(TAKEN, Open("two", 9.0, 10.0, epoch=2)))


@pytest.mark.parametrize("found", [B + A, A + A, A + B + C, B, A + C])
def test_frames_in_another_order_doubled_missing_or_of_nobody_are_found(found: tuple[bytes, ...]) -> None:
    assert not holds(in_turn(TAKEN, Append(1, 1, A), Append(1, 2, B), Read(0, found)))


def test_half_of_an_append_is_found() -> None:
    assert not holds(
        [*in_turn(TAKEN, Read(0, A)), Operation("one", Append(1, 1, A + B), 0.6, NEVER)],
    )


def test_the_verdict_says_how_far_it_came_and_what_does_not_fit() -> None:
    verdict = check(in_turn(TAKEN, Append(1, 1, A), Append(1, 2, B), LastSeq(1)))

    assert "the first 3 of 4 can be explained; then the log ends at 2, epoch 1 of one" in verdict.why
    assert "LastSeq(last_seq=1)" in verdict.why


# --- both, by chance ---


@pytest.mark.parametrize("seed", range(20))
def test_operations_that_took_effect_within_their_time_are_taken_and_one_wrong_answer_is_found(
    seed: int,
) -> None:
    chance = random.Random(seed)
    history, frames = made_up(chance)

    assert holds(history)

    # Frames are met once only: a read that lacks the first it could not lack explains nothing.
    place = next(n for n, each in enumerate(history) if isinstance(each.what, Read) and each.what.frames)
    spoilt = history[place]
    assert isinstance(spoilt.what, Read)
    wrong = Read(spoilt.what.after, (*spoilt.what.frames[:-1], b"of nobody"))
    history[place] = Operation(spoilt.who, wrong, spoilt.began, spoilt.ended)
    assert len(frames) > 20 and not holds(history)


def made_up(chance: random.Random) -> tuple[list[Operation], list[bytes]]:
    """A log that does one thing at a time, asked by many at once: an operation begins some time before it happens and
    ends some time after it, or is cut off."""
    log: list[bytes] = []
    epoch, held = 0, {}
    history: list[Operation] = []
    for at in range(400):
        who = chance.choice("abcd")
        cut_off = chance.random() < 0.1
        what: What
        if who not in held or chance.random() < 0.03:
            epoch += 1
            held[who] = epoch
            what = Open("one", float(at), 1.0, epoch, len(log))
        elif chance.random() < 0.4:
            after = chance.randrange(len(log) + 1)
            what = Read(after, tuple(log[after:]))
        else:
            frames = tuple(b"%d/%d" % (at, number) for number in range(chance.randrange(1, 4)))
            fenced = held[who] != epoch
            what = Append(held[who], len(log) + 1, frames, fenced)
            cut_off = cut_off and not fenced
            if not fenced:
                log += frames
        ended = NEVER if cut_off else at + chance.random() * 5
        if cut_off and isinstance(what, Open):
            what = Open("one", float(at), 1.0)
        if not (cut_off and isinstance(what, Read)):
            history.append(Operation(who, what, at - chance.random() * 5, ended))
    return history, log
