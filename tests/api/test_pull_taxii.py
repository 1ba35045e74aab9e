"""TAXII 2.1 collections that are polled: medallion's, and a server that says what none should."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from models.control.polls import Polls
from models.errors import Unavailable
from services.ingest.sources.taxii import EMPTY_MAX, TaxiiPoll, TaxiiPolls
from tests.api.gateway_in_process import System, system
from tests.peers.collecting import fires, needs_of, running, until
from tests.peers.taxii import PASSWORD, USER, indicator, medallion
from tests.receivers.api import serving

pytestmark = pytest.mark.asyncio


def polls(ours: System, url: str, collector: str = "collector-0", **more: Any) -> TaxiiPolls:
    row = {"name": "feed", "url": url, "interval": 0.05, **more}
    return TaxiiPolls(needs_of(ours, collector, pull={"taxii": [row]}))


def titles(alerts: list[dict[str, Any]]) -> list[str]:
    return sorted(each["annotations"]["summary"].removeprefix("Indicator: ") for each in alerts)


def at(second: int) -> str:
    return f"2026-02-01T00:00:{second:02d}.000000Z"


async def test_a_collection_is_read_page_by_page_and_on_from_there_when_server_and_collector_were_killed(
    tmp_path: Path,
) -> None:
    # Seven were added in the same moment, and a page has three.
    first = [(indicator(number, f"ioc {number}"), at(number // 7)) for number in range(8)]
    async with system() as ours, medallion(tmp_path, first) as peer:
        known: dict[str, Any] = {"username": USER, "password": PASSWORD, "page": 3}
        async with running(polls(ours, peer.collection, **known)) as source:
            await fires(ours, {each["id"] for each, _at in first}, "stix_id")
            peer.kill()
            await until(lambda: "127.0.0.1" in source.why_away)
        ended = (indicator(2, "ioc 2", revoked=True, modified="2026-01-02T00:00:00.000Z"), at(20))
        await peer.start([*first, ended, (indicator(9, "ioc 9"), at(21))])

        async with running(polls(ours, peer.collection, "collector-1", **known)) as source:
            wanted = {each["id"] for each, _at in first} - {ended[0]["id"]} | {indicator(9, "")["id"]}
            await fires(ours, wanted, "stix_id")
            await until(lambda: not source.why_away)

        await ours.gateway.station.tail.follow()
        decisions = [each["labels"]["stix_id"] for each in await ours.alerts()]
        assert len(decisions) == len(set(decisions))
        assert ours.gateway.station.tail.state.of(Polls).polls["taxii/feed"].cursor == at(21)


async def test_a_wrong_password_is_told_without_it(tmp_path: Path) -> None:
    async with system() as ours, medallion(tmp_path, []) as peer:
        source = polls(ours, peer.collection, username=USER, password="not-the-password")
        async with running(source):
            await until(lambda: "answered 401" in source.why_away, lambda: source.why_away)
            assert "not-the-password" not in source.why_away


class Scripted:
    """Pages by what is asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.pages: list[tuple[object, dict[str, str]]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        assert request.headers["Accept"] == "application/taxii+json;version=2.1"
        assert request.path == "/collections/1/objects/"
        said, headers = self.pages.pop(0) if self.pages else ({}, {})
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        return web.Response(body=body, headers=headers)

    def page(self, numbers: range, first: str, last: str, **more: Any) -> None:
        objects = [indicator(number, f"ioc {number}") for number in numbers]
        self.pages.append(
            (
                {"objects": objects, **more},
                {"X-TAXII-Date-Added-First": first, "X-TAXII-Date-Added-Last": last},
            )
        )


async def taken(source: TaxiiPolls) -> TaxiiPoll:
    [fetcher] = source.fetchers
    assert isinstance(fetcher, TaxiiPoll)
    await fetcher.lease.take()
    return fetcher


async def test_within_a_poll_the_cursor_moves_only_past_what_was_all_seen() -> None:
    peer = Scripted()
    async with system() as ours, serving(peer.handle) as place:
        fetcher = await taken(
            polls(ours, f"http://{place}/collections/1/", added_after="2026-01-01T00:00:00Z")
        )
        peer.page(range(0, 2), at(1), at(1), more=True, next="n")
        peer.pages.append((b"no page", {}))
        with pytest.raises(Unavailable, match="expected a TAXII"):
            await fetcher.fetch()
        # More may have been added in that very moment.
        assert fetcher.lease.cursor == ""

        peer.page(range(0, 4), at(1), at(2), more=True, next="n")
        peer.pages.append((b"{", {}))
        with pytest.raises(Unavailable):
            await fetcher.fetch()
        assert fetcher.lease.cursor == at(1)

        peer.page(range(2, 4), at(2), at(2), more=True)
        peer.page(range(4, 6), at(3), at(3))
        await fetcher.fetch()
        assert fetcher.lease.cursor == at(3)

        assert [(each.get("added_after"), each.get("next")) for each in peer.asked] == [
            ("2026-01-01T00:00:00Z", None),
            ("2026-01-01T00:00:00Z", "n"),
            ("2026-01-01T00:00:00Z", None),
            ("2026-01-01T00:00:00Z", "n"),
            (at(1), None),
            (at(2), None),
        ]
        assert titles(await ours.alerts()) == [f"ioc {number}" for number in range(6)]


async def test_a_server_that_never_says_where_is_left_and_what_it_gave_is_kept() -> None:
    peer = Scripted()
    async with system() as ours, serving(peer.handle) as place:
        fetcher = await taken(polls(ours, f"http://{place}/collections/1"))
        peer.pages.append(({"objects": [indicator(1, "one")]}, {}))
        with pytest.raises(Unavailable, match="X-TAXII-Date-Added-Last"):
            await fetcher.fetch()
        peer.pages.append(({"more": True}, {}))
        with pytest.raises(Unavailable, match="not where"):
            await fetcher.fetch()

        assert titles(await ours.alerts()) == ["one"]


@pytest.mark.parametrize("is_empty", [True, False])
async def test_a_next_that_never_ends_is_left(is_empty: bool) -> None:
    asked = 0

    async def handle(_request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        said = (
            {"objects": [], "next": str(asked)}
            if is_empty
            else {"objects": [indicator(1, "one")], "next": "n"}
        )
        headers = {"X-TAXII-Date-Added-First": at(1), "X-TAXII-Date-Added-Last": at(1)}
        return web.json_response({"more": True, **said}, headers=headers)

    async with system() as ours, serving(handle) as place:
        fetcher = await taken(polls(ours, f"http://{place}/collections/1"))
        async with asyncio.timeout(10.0):
            with pytest.raises(Unavailable, match="again and again"):
                await fetcher.fetch()
        assert asked == (EMPTY_MAX + 1 if is_empty else 2)


async def test_what_cannot_be_read_in_a_page_is_a_dead_letter_and_the_rest_of_it_is_taken() -> None:
    peer = Scripted()
    async with system() as ours, serving(peer.handle) as place:
        fetcher = await taken(polls(ours, f"http://{place}/collections/1"))
        wrong = b'{"type":"indicator","type":"x"}'
        body = b'{"objects":[%b,%b]}' % (wrong, json.dumps(indicator(1, "one")).encode())
        peer.pages.append((body, {"X-TAXII-Date-Added-Last": at(1)}))

        await fetcher.fetch()

        assert fetcher.lease.cursor == at(1)
        assert titles(await ours.alerts()) == ["one"]
        letters = await ours.letters(2)
        assert {each.payload for each in letters} == {body, b'{"objects":[%b]}' % wrong}  # type: ignore[attr-defined]
