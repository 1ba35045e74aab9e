"""Hosts and origins: the many spellings of one, and what is none."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from models.settings.origins import Origin, _own_name, host_and_port, is_same_place, own_name, parse_origin
from models.settings.server import Server


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("localhost", ("localhost", None)),
        ("LOCALHOST.:8080", ("localhost", 8080)),
        ("a.example:", ("a.example", None)),
        ("[0:0::1]:80", ("::1", 80)),
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
    ],
)
def test_a_host_has_one_spelling(text: str, place: tuple[str, int | None]) -> None:
    assert host_and_port(text) == place


@pytest.mark.parametrize(
    "text",
    ["", ".", ":80", "a b", "a/b", "a@b", "user@localhost", "localhost:80:80", "localhost:99999", "[::1", "::1", "[localhost]",
     "localhost#", "localhost,evil.example", "evil.example\\.localhost", "ä.example"],
)  # fmt: skip
def test_what_is_no_host_is_none(text: str) -> None:
    assert host_and_port(text) is None and own_name(text) is None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "127.9.9.9",
        "192.0.2.1",
        "[::1]:8080",
        "[fe80::1]",
        "localhost",
        "LocalHost:1",
        "a.localhost",
    ],
)
def test_addresses_and_the_names_of_this_machine_are_nobody_elses(host: str) -> None:
    assert own_name(host) == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "127.1",
        "0x7f.0.0.1",
    ],
)
def test_other_names_may_be_anybodys(host: str) -> None:
    assert own_name(host) == host


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8080", "LOCALHOST:8080"),
        ("http://LOCALHOST:8080", "localhost:8080"),
        ("https://a.example", "a.example:443"),
        ("https://a.example:443", "a.example"),
        ("HTTPS://a.example", "a.example."),
        ("http://a.example:80", "a.example"),
        ("http://[::1]:8080", "[0:0:0:0:0:0:0:1]:8080"),
    ],
)
def test_an_origin_is_the_place_that_host_names_however_both_are_written(origin: str, host: str) -> None:
    parsed = parse_origin(origin)

    assert parsed is not None and is_same_place(parsed, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://a.example", "a.example:443"),
        ("https://a.example", "a.example:80"),
        ("http://localhost:8080", "localhost"),
        ("http://localhost:1", "localhost:8080"),
        ("http://a.example.evil", "a.example"),
        ("ftp://a.example", "a.example"),
        ("http://a.example", ""),
    ],
)
def test_another_host_or_port_is_another_place(origin: str, host: str) -> None:
    parsed = parse_origin(origin)

    assert parsed is not None and not is_same_place(parsed, host)


@pytest.mark.parametrize(
    "text", ["", "null", "*", "a.example", "http://", "http://a/b", "://a", "http://a b", "http://u@a"]
)
def test_what_is_no_origin_is_none(text: str) -> None:
    assert parse_origin(text) is None


def test_an_origin_is_written_as_a_browser_writes_it() -> None:
    written = [parse_origin(each) for each in ("HTTPS://A.example:443", "http://[0::1]:8080", "app://x:1")]

    assert [each.text for each in written if each] == ["https://a.example", "http://[::1]:8080", "app://x:1"]
    assert written[0] == Origin("https", "a.example", 443)


@pytest.mark.parametrize(
    ("field", "value"),
    [("hosts", "https://a.example"), ("hosts", "a.example:80"), ("hosts", "a.example:"), ("hosts", ""), ("origins", "a.example"),
     ("origins", "*"), ("origins", "https://a.example/"), ("origins", "null")],
)  # fmt: skip
def test_a_setting_that_is_no_host_or_origin_is_refused_with_what_was_expected(
    field: str, value: str
) -> None:
    with pytest.raises(ValidationError, match=r"expected (names of hosts|origins) such as"):
        Server.model_validate({field: [value]})


def test_what_is_too_long_for_a_host_is_not_remembered() -> None:
    before = _own_name.cache_info().currsize

    assert own_name("a" * 60_000) is None
    assert _own_name.cache_info().currsize == before
