"""Which addresses a stranger's URL may lead to."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from pydantic import ValidationError

from models.response.guard import Allowed, why_refused
from models.settings.all import Settings

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]
REFUSED = {
    "a loopback address": ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.2"],
    "a link-local address": ["169.254.1.1", "fe80::1", "fe80::1%eth0"],
    "a cloud's metadata service": ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "100.100.100.200", "168.63.129.16"],
    "a multicast address": ["224.0.0.1", "239.1.1.1", "ff02::1", "::ffff:224.0.0.1"],
    "no host's address": ["0.0.0.0", "::"],
    "a private or reserved address": ["10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "0.1.2.3", "fd00::1", "fec0::1", "2001:db8::1", "2001:0:7f00:1::", "64:ff9b:1::a00:1", "::ffff:10.0.0.1"],
}  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_called(address: str) -> None:
    assert why_refused("host", ip_address(address), Allowed()) == ""


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, each) for kind, found in REFUSED.items() for each in found]
)
def test_all_others_are_refused_by_what_they_are(kind: str, address: str) -> None:
    assert why_refused("host", ip_address(address), Allowed()).endswith(f" is {kind}")


@pytest.mark.parametrize("address", [each for found in REFUSED.values() for each in found])
def test_an_address_that_is_allowed_by_its_number_is_called(address: str) -> None:
    v4, v6 = Allowed.of(["0.0.0.0/0"]), Allowed.of(["::/0"])

    assert "" in (why_refused("host", ip_address(address), v4), why_refused("host", ip_address(address), v6))


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        ".",
        "*.",
        "http://host",
        "host:80",
        "10.0.0.0/33",
        "a b",
        "127.1",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "ü.example",
        "*.*.a",
        "a/b",
    ],
)
def test_an_entry_that_is_no_place_is_refused_and_named(entry: str) -> None:
    with pytest.raises(ValidationError, match="expected an address"):
        Settings.model_validate({"outbound": {"allow": [entry]}})
