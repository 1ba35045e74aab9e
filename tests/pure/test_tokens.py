"""What API tokens may be, what the control partition decides about them, and which secret is good when."""

from __future__ import annotations

import base64
import re

import msgspec
import pytest

from models.control.control import (
    ControlMessage,
    ControlState,
    decode_message,
    encode_message,
)
from models.control.issuing import CreateToken, IssuedTokens, RevokeToken, RotateToken, TokensSeen
from models.control.tokens import (
    ADMIN,
    EXPIRED_SHOWN_S,
    KEY_BYTES,
    OVERLAP_MAX_S,
    READ,
    RESPOND,
    TOKENS_MAX,
    USE_KEPT_S,
    check,
    digest_of,
    every_scope,
    granted,
    presented,
    refuse_unknown,
    secret_of,
    written,
)
from models.errors import Conflict, Malformed, NotFound, Refused, Unauthorized
from models.partition.event import Event

NOW = 1_800_000_000.0
SCOPES = every_scope(["alertmanager", "v1"])
ADMINS = written(b"\x01" * 6, b"\x01" * KEY_BYTES)


class Control:
    """A control partition without a log: what is decided is applied, and kept for a replay."""

    def __init__(self, *, empty: bool = False) -> None:
        self.state = ControlState()
        self.events: list[Event] = []
        self.now = NOW
        if not empty:
            self.create("admin", ADMIN, made=ADMINS)

    def tell(self, message: ControlMessage) -> list[Event]:
        events = self.state.decide(decode_message(encode_message(message)), self.now)
        for event in events:
            self.state.apply(event, self.now)
        self.events += events
        return events

    def create(
        self, name: str, *scopes: str, lifetime_s: float = 0.0, made: tuple[str, str] | None = None
    ) -> tuple[str, str]:
        """(id, secret)."""
        number = len(self.events) + 2
        made = made or written(number.to_bytes(6, "big"), number.to_bytes(KEY_BYTES, "big"))
        self.tell(CreateToken(made[0], name, list(scopes), digest_of(made[1]), lifetime_s, "tester"))
        return made

    def rotate(self, token_id: str, overlap_s: float = 0.0) -> str:
        secret = secret_of(token_id, (len(self.events) + 1000).to_bytes(KEY_BYTES, "big"))
        self.tell(RotateToken(token_id, digest_of(secret), overlap_s, "tester"))
        return secret

    def lets_in(self, secret: str) -> bool:
        try:
            check(self.state.tokens, secret, self.now)
        except Unauthorized:
            return False
        return True


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


# Secrets


def test_a_secret_names_its_token_and_holds_256_bits() -> None:
    token_id, secret = written(b"\xab" * 6, b"\xff" * KEY_BYTES)

    assert token_id == "abababababab"
    assert re.fullmatch(r"llmim_abababababab_[\w-]{43}", secret)


def test_what_is_kept_of_a_secret_does_not_contain_it() -> None:
    control = Control()

    kept = msgspec.msgpack.encode(control.events) + repr(control.state.tokens).encode()

    assert ADMINS[1].encode() not in kept
    assert ADMINS[1].rpartition("_")[2].encode() not in kept


@pytest.mark.parametrize(
    "header",
    [
        b"Bearer " + ADMINS[1].encode(),
        b"bearer   " + ADMINS[1].encode(),
        basic("", ADMINS[1]),
        basic("me", ADMINS[1]),
    ],
)
def test_a_secret_is_found_in_bearer_and_in_the_password_of_basic(header: bytes) -> None:
    assert presented(header) == ADMINS[1]


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Digest x",
        ADMINS[1].encode(),
        b"Basic !!",
        b"Bearer " + b"x" * 600,
        b"\xff\xfe",
        b"Basic \xff",
    ],
)
def test_a_header_that_holds_no_token_lets_nobody_in_and_is_not_repeated(header: bytes | None) -> None:
    with pytest.raises(Unauthorized) as refusal:
        check(Control().state.tokens, presented(header), NOW)

    assert ADMINS[1] not in str(refusal.value)


@pytest.mark.parametrize(
    "secret",
    ["", "llmim_", ADMINS[1][:-1], ADMINS[1] + "A", ADMINS[1][:-2] + "xx", ADMINS[1].upper(), f" {ADMINS[1]}", "ü" * 62,
     ADMINS[1].replace("010101010101", "020202020202"), ADMINS[1] + "\n"],
)  # fmt: skip
def test_a_secret_that_differs_in_anything_lets_nobody_in(secret: str) -> None:
    assert not Control().lets_in(secret)


# Scopes


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ([READ], {READ}),
        ([RESPOND], {RESPOND, READ}),
        ([ADMIN], set(SCOPES)),
        (["ingest:v1"], {"ingest:v1"}),
        (["ingest:*"], {"ingest:*", "ingest:v1", "ingest:alertmanager"}),
    ],
)
def test_who_may_respond_may_read_and_an_admin_may_everything(given: list[str], allowed: set[str]) -> None:
    assert granted(given, SCOPES) == allowed


@pytest.mark.parametrize(
    "scopes", [[], ["write"], ["ingest:"], ["ingest:kafka"], ["READ"], ["admin", "x" * 9999]]
)
def test_a_scope_that_there_is_not_is_refused_and_the_others_are_named(scopes: list[str]) -> None:
    with pytest.raises(
        Malformed, match=r"^scopes: .*ingest:alertmanager, ingest:v1, ingest:.*, read, respond, admin"
    ) as refusal:
        refuse_unknown(scopes, SCOPES)

    assert len(str(refusal.value)) < 400


def test_a_token_may_be_for_a_format_that_only_another_version_knows_but_not_for_nonsense() -> None:
    Control().create("x", "ingest:kafka", "read")

    for scopes in ([], ["write"], ["ingest:"], ["ingest:a b"], ["ingest:" + "x" * 99], ["READ"]):
        with pytest.raises(Malformed, match=r"^scopes: .*ingest:\*, read, respond, admin") as refusal:
            Control().create("y", *scopes)
        assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    "name", ["", " ", "a ", "a\nb", "\x1b[31m", "\ud800", "x" * 129, "system", "anonymous"]
)
def test_a_name_that_could_mislead_is_refused(name: str) -> None:
    with pytest.raises(Malformed, match=r"^name: "):
        ControlState().decide(CreateToken("00" * 6, name, [ADMIN], b"d", 0.0, "t"), NOW)


# What is decided


def test_the_first_token_must_be_an_admins() -> None:
    control = Control(empty=True)

    with pytest.raises(Conflict, match="admin"):
        control.create("prometheus", "ingest:*")

    assert not control.state.guarded


def test_tokens_stay_on_when_the_last_one_is_revoked() -> None:
    control = Control()

    control.tell(RevokeToken(ADMINS[0], "tester", force=True))

    assert control.state.tokens == {}
    assert control.state.guarded


def test_the_last_admin_is_revoked_by_force_only() -> None:
    control = Control()
    control.create("reader", READ)
    control.create("leaving", "admin", lifetime_s=60)
    control.now += 60

    with pytest.raises(Conflict, match="last token with the scope 'admin'"):
        control.tell(RevokeToken(ADMINS[0], "tester"))
    assert ADMINS[0] in control.state.tokens

    control.create("another", "admin")
    control.tell(RevokeToken(ADMINS[0], "tester"))
    assert ADMINS[0] not in control.state.tokens


def test_an_expired_admin_is_revoked_without_force() -> None:
    control = Control()
    leaving, _ = control.create("leaving", "admin", lifetime_s=60)
    control.now += 60

    control.tell(RevokeToken(leaving, "tester"))

    assert leaving not in control.state.tokens


def test_a_name_is_taken_as_long_as_its_token_lives() -> None:
    control = Control()
    control.create("probe", READ, lifetime_s=60)

    with pytest.raises(Conflict, match="probe"):
        control.create("probe", READ)
    control.now += 60
    control.create("probe", READ)

    assert [each.name for each in control.state.tokens.values()] == ["admin", "probe", "probe"]


def test_a_token_is_good_until_it_expires() -> None:
    control = Control()
    _id, secret = control.create("short", READ, lifetime_s=60)

    control.now += 59.9
    before = control.lets_in(secret)
    control.now += 0.1

    assert (before, control.lets_in(secret)) == (True, False)


def test_who_presents_an_expired_secret_is_told_so() -> None:
    control = Control()
    _id, secret = control.create("short", READ, lifetime_s=60)
    control.now += 60

    with pytest.raises(Unauthorized, match="'short' expired"):
        check(control.state.tokens, secret, control.now)


def test_both_secrets_are_good_during_the_overlap_and_the_new_one_after_it() -> None:
    control = Control()
    token_id, old = control.create("p", READ)

    new = control.rotate(token_id, overlap_s=60)
    during = control.lets_in(old), control.lets_in(new)
    control.now += 60

    assert during == (True, True)
    assert (control.lets_in(old), control.lets_in(new)) == (False, True)


def test_without_an_overlap_the_old_secret_ends_at_once() -> None:
    control = Control()
    token_id, old = control.create("p", READ)

    control.rotate(token_id)

    assert not control.lets_in(old)


def test_a_second_rotation_ends_the_secret_before_the_last() -> None:
    control = Control()
    token_id, oldest = control.create("p", READ)

    old = control.rotate(token_id, overlap_s=60)
    new = control.rotate(token_id, overlap_s=60)

    assert [control.lets_in(each) for each in (oldest, old, new)] == [False, True, True]


def test_an_overlap_does_not_lengthen_the_old_secrets_life_and_the_new_one_gets_a_whole_one() -> None:
    control = Control()
    token_id, old = control.create("p", READ, lifetime_s=100)
    control.now += 90

    new = control.rotate(token_id, overlap_s=3600)
    control.now += 10
    after_its_time = control.lets_in(old)
    control.now = NOW + 90 + 99.9

    assert not after_its_time
    assert control.lets_in(new)


def test_an_expired_token_can_be_rotated_unless_its_name_was_taken() -> None:
    control = Control()
    token_id, _secret = control.create("p", READ, lifetime_s=10)
    control.now += 20

    assert control.lets_in(control.rotate(token_id))

    control.now += 20
    control.create("p", READ)
    with pytest.raises(Conflict):
        control.rotate(token_id)


def test_a_revoked_token_is_good_for_nothing_with_either_secret() -> None:
    control = Control()
    token_id, old = control.create("p", READ)
    new = control.rotate(token_id, overlap_s=60)

    control.tell(RevokeToken(token_id, "tester"))

    assert not control.lets_in(old) and not control.lets_in(new)


def test_a_message_that_comes_again_changes_nothing() -> None:
    control = Control()
    create = CreateToken("aa" * 6, "p", [READ], b"d" * 32, 60.0, "tester")
    rotate = RotateToken("aa" * 6, b"e" * 32, 5.0, "tester")
    revoke = RevokeToken("aa" * 6, "tester")

    made = [len(control.tell(each)) for each in (create, create, rotate, rotate, revoke, revoke)]

    assert made == [1, 0, 1, 0, 1, 0]


def test_an_id_is_never_given_to_a_second_token() -> None:
    control = Control()

    with pytest.raises(Conflict):
        control.tell(CreateToken(ADMINS[0], "other", [READ], b"d" * 32, 0.0, "tester"))


@pytest.mark.parametrize("message", [RotateToken("00" * 6, b"d", 0.0, "t"), RevokeToken("00" * 6, "t")])
def test_a_token_that_there_is_not_is_not_found(message: ControlMessage) -> None:
    with pytest.raises(NotFound):
        Control().tell(message)


@pytest.mark.parametrize("overlap_s", [-1.0, OVERLAP_MAX_S + 1, float("nan"), float("inf")])
def test_an_overlap_out_of_bounds_is_refused(overlap_s: float) -> None:
    with pytest.raises(Malformed, match=r"^overlap: "):
        Control().tell(RotateToken(ADMINS[0], b"d", overlap_s, "t"))


@pytest.mark.parametrize("lifetime_s", [-1.0, 0.5, 1e12, float("nan"), float("inf")])
def test_a_lifetime_out_of_bounds_is_refused(lifetime_s: float) -> None:
    with pytest.raises(Malformed, match=r"^expires_in: "):
        Control().create("x", READ, lifetime_s=lifetime_s)


def test_there_are_only_so_many_tokens() -> None:
    control = Control()
    for number in range(TOKENS_MAX - 1):
        control.create(f"t{number}", READ)

    with pytest.raises(Conflict, match=str(TOKENS_MAX)):
        control.create("one more", READ)


def test_expired_tokens_are_listed_for_a_while_and_then_forgotten() -> None:
    control = Control()
    control.create("short", READ, lifetime_s=60)

    control.now += 60 + EXPIRED_SHOWN_S - 1
    control.create("another", READ)
    shown = [each.name for each in control.state.tokens.values()]
    control.now += 2
    control.create("a third", READ)

    assert "short" in shown
    assert "short" not in [each.name for each in control.state.tokens.values()]


def test_the_first_use_is_kept_at_once_and_later_ones_once_an_hour() -> None:
    control = Control()

    def seen(after_s: float) -> int:
        return len(control.tell(TokensSeen({ADMINS[0]: NOW + after_s, "ff" * 6: NOW})))

    control.now += 2 * USE_KEPT_S
    made = [seen(1), seen(60), seen(USE_KEPT_S - 60), seen(USE_KEPT_S + 2), seen(USE_KEPT_S + 2)]

    assert made == [1, 0, 0, 1, 0]
    assert control.state.tokens[ADMINS[0]].used_at == NOW + USE_KEPT_S + 2


def test_a_use_in_the_future_counts_as_now() -> None:
    control = Control()

    control.tell(TokensSeen({ADMINS[0]: NOW + 1e9}))

    assert control.state.tokens[ADMINS[0]].used_at == NOW


def test_every_change_of_who_may_come_in_is_seen_and_a_use_is_none() -> None:
    control = Control()
    versions = [control.state.token_version]
    token_id, _secret = control.create("p", READ)
    versions.append(control.state.token_version)
    control.rotate(token_id)
    versions.append(control.state.token_version)
    control.tell(TokensSeen({token_id: NOW}))
    same = control.state.token_version
    control.tell(RevokeToken(token_id, "tester"))
    versions.append(control.state.token_version)

    assert len(set(versions)) == 4
    assert same == versions[2]


def test_replay_gives_the_same_tokens() -> None:
    control = Control()
    token_id, _secret = control.create("p", READ, RESPOND, lifetime_s=1000)
    control.rotate(token_id, 10)
    other, _ = control.create("q", "ingest:v1")
    control.tell(TokensSeen({token_id: NOW}))
    control.tell(RevokeToken(other, "tester"))

    again = ControlState()
    for event in control.events:
        again.apply(event, NOW)

    assert _known(again) == _known(control.state)


def _known(state: ControlState) -> dict[str, object]:
    return {name: value for name, value in vars(state.of(IssuedTokens)).items() if name != "_touch"}


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode(["CreateToken", 1]), b"\x91\xa1x"]
)
def test_a_message_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(Refused):
        decode_message(payload)


def test_tokens_that_expired_are_shown_up_to_a_bound() -> None:
    control = Control()

    for number in range(2 * TOKENS_MAX + 10):
        control.create(f"job {number}", READ, lifetime_s=60.0)
        control.now += 61.0

    names = [token.name for token in control.state.tokens.values()]
    assert len(names) == 2 * TOKENS_MAX
    assert names[:2] == ["admin", "job 11"]
