"""Alertmanagers that are polled: a real one, and a server that says what no healthy one would."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from models.errors import Conflict, Unavailable
from services.ingest.sources.alertmanager import AlertmanagerPolls
from services.ingest.sources.alertmanager_instances import Instances
from services.ingest.sources.fetching import Fetchers
from tests.api.conftest import ALERTMANAGER
from tests.api.gateway_in_process import System, system
from tests.peers.collecting import fires, needs_of, running, until
from tests.ports import free_port
from tests.receivers.api import serving

pytestmark = pytest.mark.asyncio

CONFIG = """
route: {receiver: nobody}
receivers: [{name: nobody}]
inhibit_rules: [{source_matchers: [alertname="Root"], target_matchers: [alertname="Leaf"]}]
"""
QUICK = {"interval": 0.05}


class Real:
    """Debian's Alertmanager, which can be killed and started again."""

    def __init__(self, folder: Path, *more: str) -> None:
        """`more`: arguments, for one of a cluster."""
        if shutil.which(ALERTMANAGER) is None:
            pytest.skip(f"{ALERTMANAGER} is not installed: apt-get install {ALERTMANAGER}")
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._more = more or ("--cluster.listen-address=",)
        (folder / "alertmanager.yml").write_text(CONFIG)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    ALERTMANAGER,
                    f"--config.file={self._folder / 'alertmanager.yml'}",
                    f"--storage.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    *self._more,
                ],
                stderr=log,
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def post(self, path: str, body: object) -> Any:
        return self._asked(
            urllib.request.Request(
                self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
        )

    def get(self, path: str) -> Any:
        return self._asked(urllib.request.Request(self.url + path))

    def _asked(self, request: urllib.request.Request) -> Any:
        """Once it listens."""
        for _ in range(200):
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    said = answer.read()
                    return json.loads(said) if said else None
            except OSError:
                time.sleep(0.05)
        raise AssertionError((self._folder / "log").read_text())

    def fire(self, *names: str, over: bool = False) -> None:
        ends = datetime.now(UTC) + timedelta(seconds=-1 if over else 3600)
        self.post("/api/v2/alerts", [{**labelled(name), "endsAt": ends.isoformat()} for name in names])


@contextlib.asynccontextmanager
async def real(folder: Path, *more: str) -> AsyncIterator[Real]:
    peer = Real(folder, *more)
    peer.start()
    try:
        yield peer
    finally:
        peer.kill()


def labelled(name: str) -> dict[str, Any]:
    return {
        "labels": {"alertname": name, "service": "llm-api", "severity": "critical"},
        "annotations": {"summary": f"{name} is wrong"},
        "startsAt": "2026-01-31T12:00:00Z",
    }


def polls(ours: System, url: str, collector: str = "collector-0", **more: Any) -> AlertmanagerPolls:
    row = {"name": "prod", "url": url, **QUICK, **more}
    return AlertmanagerPolls(needs_of(ours, collector, pull={"alertmanager": [row]}))


async def polled(source: Fetchers, times: int) -> None:
    """Wait for so many more polls."""
    [fetcher] = source.fetchers
    done, fetch = 0, fetcher.fetch

    async def counted() -> None:
        nonlocal done
        try:
            await fetch()
        finally:
            done += 1

    fetcher.fetch = counted  # type: ignore[method-assign]
    await until(lambda: done >= times, lambda: fetcher.why_away)
    fetcher.fetch = fetch  # type: ignore[method-assign]


async def test_what_is_on_the_list_of_a_real_alertmanager_fires_and_what_left_it_is_resolved(
    tmp_path: Path,
) -> None:
    async with system() as ours, real(tmp_path) as peer:
        await asyncio.to_thread(peer.fire, "Root", "Leaf", "Down")
        silence = {
            "matchers": [{"name": "alertname", "value": "Down", "isRegex": False}],
            "startsAt": datetime.now(UTC).isoformat(),
            "endsAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
            "createdBy": "ann",
            "comment": "known",
        }
        silenced = (await asyncio.to_thread(peer.post, "/api/v2/silences", silence))["silenceID"]
        async with running(polls(ours, peer.url, settle=0)) as source:
            await fires(ours, {"Root", "Leaf", "Down"})
            await polled(source, 2)
            found = {each["labels"]["alertname"]: each["annotations"] for each in await ours.alerts()}
            assert found["Down"]["summary"] == "Down is wrong"
            assert found["Down"]["polled_from"] == "alertmanager/prod"
            assert (found["Down"]["alertmanager_state"], found["Down"]["silenced_by"]) == (
                "suppressed",
                silenced,
            )
            assert "inhibited_by" in found["Leaf"] and "alertmanager_state" not in found["Root"]

            await asyncio.to_thread(peer.fire, "Root", over=True)

            await fires(ours, {"Leaf", "Down"})
            assert source.why_away == ""
        assert not await ours.dead_letters.page(0, 10)


async def test_an_alert_that_came_by_its_webhook_too_is_the_same_one(tmp_path: Path) -> None:
    async with system() as ours, real(tmp_path) as peer:
        group = {"receiver": "x", "groupKey": "g", "alerts": [{**labelled("Down"), "status": "firing"}]}
        assert (await ours.post("/v1/events/alertmanager-webhook", group)).status == 202
        await asyncio.to_thread(peer.fire, "Down")

        async with running(polls(ours, peer.url)) as source:
            await polled(source, 2)

        [found] = await ours.alerts()
        assert found["annotations"]["polled_from"] == "alertmanager/prod"


async def test_one_that_is_killed_and_starts_anew_with_an_empty_list_resolves_nothing(tmp_path: Path) -> None:
    async with system() as ours, real(tmp_path) as peer:
        await asyncio.to_thread(peer.fire, "Down")
        async with running(polls(ours, peer.url)) as source:
            await fires(ours, {"Down"})
            peer.kill()
            await until(lambda: "127.0.0.1" in source.why_away)
            peer.start()
            await until(lambda: not source.why_away, lambda: source.why_away)

            await polled(source, 4)

            assert await ours.names() == {"Down"}


class Balancer:
    """One address in front of several. `choose` says who answers a path; by its clock one of `old` has run for an hour longer."""

    def __init__(self, *behind: Real) -> None:
        self.behind = behind
        self.old: set[Real] = set()
        self.choose: Callable[[str], Real] = lambda _path: behind[0]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        peer = self.choose(request.path)
        try:
            async with ClientSession() as session, session.get(peer.url + request.path_qs) as answer:
                body, status = await answer.read(), answer.status
        except OSError:
            return web.Response(status=502)
        date = format_datetime(datetime.now(UTC) + timedelta(hours=peer in self.old), usegmt=True)
        return web.Response(status=status, body=body, content_type="application/json", headers={"Date": date})


async def test_one_that_has_just_started_behind_the_same_address_resolves_nothing(tmp_path: Path) -> None:
    async with (
        system() as ours,
        real(tmp_path / "old") as old,
        real(tmp_path / "new") as new,
        serving((balancer := Balancer(old, new)).handle) as place,
    ):
        balancer.old.add(old)
        await asyncio.to_thread(old.fire, "Down")
        await asyncio.to_thread(new.get, "/api/v2/status")
        turns, chance = itertools.count(), random.Random(5)
        ways: list[Callable[[str], Real]] = [
            lambda _path: balancer.behind[next(turns) % 2],
            lambda path: balancer.behind[next(turns) % 2] if path.endswith("/status") else new,
            # It answers one status of five, and not before something is about to be resolved.
            lambda path: old if path.endswith("/status") and next(turns) % 5 != 4 else new,
            lambda _path: chance.choice(balancer.behind),
            lambda path: new if path.endswith("/alerts") or next(turns) > 3 else old,
        ]
        for way in ways:
            [fetcher] = polls(ours, f"http://{place}", settle=60).fetchers
            await fetcher.lease.take()
            balancer.choose = lambda _path: old
            await fetcher.fetch()
            assert await ours.names() == {"Down"}
            turns = itertools.count()
            balancer.choose = way
            for _ in range(12):
                await fetcher.fetch()
                assert await ours.names() == {"Down"}, ways.index(way)
            await fetcher.lease.release()
            await fetcher.close()

        # When it has run for long enough, and still nobody has the alert, it is over.
        await asyncio.to_thread(old.fire, "Down", over=True)
        balancer.old.add(new)
        balancer.choose = ways[0]
        [fetcher] = polls(ours, f"http://{place}", settle=60).fetchers
        await fetcher.lease.take()
        for _ in range(4):
            await fetcher.fetch()
        assert await ours.names() == {"Down"}, "two answer here, and nobody knows which of them is right"
        ours.clock.ahead_s += 61
        await fetcher.lease.take()
        await fetcher.fetch()
        assert await ours.names() == set()
        await fetcher.close()


async def test_one_that_is_started_anew_between_two_polls_has_nothing_told_twice(tmp_path: Path) -> None:
    async with (
        system() as ours,
        real(tmp_path) as peer,
        serving((balancer := Balancer(peer)).handle) as place,
    ):
        [fetcher] = polls(ours, f"http://{place}", settle=60).fetchers
        await fetcher.lease.take()
        balancer.old.add(peer)
        await asyncio.to_thread(peer.fire, "Down")
        await fetcher.fetch()
        await asyncio.to_thread(peer.kill)
        peer.start()
        await asyncio.to_thread(peer.get, "/api/v2/status")
        balancer.old.clear()
        for _ in range(4):
            await fetcher.fetch()
        assert await ours.names() == {"Down"}
        # Prometheus sends it again, and then its end.
        await asyncio.to_thread(peer.fire, "Down")
        await fetcher.fetch()
        await asyncio.to_thread(peer.fire, "Down", over=True)
        balancer.old.add(peer)
        ours.clock.ahead_s += 61
        await fetcher.lease.take()
        for _ in range(2):
            await fetcher.fetch()
        assert await ours.names() == set()

        [incident] = (await ours.get("/v1/incidents")).items
        timeline = (await ours.get(f"/v1/incidents/{incident['id']}/timeline")).items
        kinds = [each["event_type"] for each in timeline]
        assert kinds.count("Resolved") == 1 and "Reopened" not in kinds, kinds
        await fetcher.close()


async def test_a_member_of_its_cluster_that_has_just_started_may_answer_next(tmp_path: Path) -> None:
    first = f"127.0.0.1:{free_port()}"
    second = (f"--cluster.listen-address=127.0.0.1:{free_port()}", f"--cluster.peer={first}")
    async with (
        real(tmp_path / "a", f"--cluster.listen-address={first}") as one,
        real(tmp_path / "b", *second) as other,
    ):
        said: dict[str, Any] = {}
        for _ in range(200):
            said = await asyncio.to_thread(one.get, "/api/v2/status")
            if len(said["cluster"].get("peers", ())) == 2:
                break
            await asyncio.sleep(0.05)
        other.kill()
    status = {**said, "uptime": "2026-01-31T12:00:00Z"}
    started = datetime.fromisoformat("2026-01-31T12:00:00+00:00").timestamp()
    now = time.time()
    young, old, alone = Instances(300.0), Instances(300.0), Instances(300.0)

    assert young.saw(json.dumps(status).encode(), now, 0.0) and not young.is_one(0.0)
    status["cluster"] = {**said["cluster"], "status": "ready"}
    assert old.saw(json.dumps(status).encode(), now + 3600, 0.0) and old.is_one(0.0)
    assert not alone.saw(json.dumps({"uptime": status["uptime"]}).encode(), started + 299, 0.0)
    assert alone.is_one(0.0)


class Scripted:
    """A server that says what it is told to."""

    def __init__(self) -> None:
        self.alerts: Any = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.uptime = "2026-01-01T00:00:00Z"
        self.asked: list[str] = []
        self.at: list[float] = []
        self.authorization = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        self.at.append(time.monotonic())
        self.authorization = request.headers.get("Authorization", "")
        if request.path.endswith("/status"):
            return web.json_response({"uptime": self.uptime})
        body = self.alerts if isinstance(self.alerts, bytes) else json.dumps(self.alerts).encode()
        return web.Response(status=self.status, body=body, headers=self.headers)

    def has(self, *names: str) -> None:
        self.alerts = [
            {**labelled(name), "fingerprint": name, "status": {"state": "active"}} for name in names
        ]


#: A status, a body, and what is told.
NO_LISTS: list[tuple[int, object, str]] = [
    (500, [], "answered 500"),
    (204, b"", "answered 204"),
    (302, [], "answered 302"),
    (200, b'[{"labels":{"alertname":"Dow', "expected a JSON array"),
    (200, {"status": "success", "data": []}, "expected a JSON array"),
    (200, [{"labels": "none"}], "part of its list can't be read"),
    (401, b"no such token: s3cret-token", "answered 401: no such token: ***"),
]


async def test_an_answer_that_is_no_whole_list_resolves_nothing() -> None:
    peer = Scripted()
    async with system() as ours, serving(peer.handle) as place:
        source = polls(ours, f"http://{place}", token="s3cret-token", settle=0)
        [fetcher] = source.fetchers
        await fetcher.lease.take()
        peer.has("Down")
        await fetcher.fetch()
        for status, said, why in NO_LISTS:
            peer.status, peer.alerts = status, said
            for _ in range(3):
                with pytest.raises(Unavailable, match=re.escape(why)):
                    await fetcher.fetch()
            assert await ours.names() == {"Down"}, why
        peer.status = 200
        peer.has()
        await fetcher.fetch()
        assert await ours.names() == {"Down"}, "what could not be read counts as no list that lacks it"
        await fetcher.fetch()
        assert await ours.names() == set()
        await fetcher.close()
        assert peer.authorization == "Bearer s3cret-token"


async def test_one_empty_list_between_full_ones_resolves_nothing() -> None:
    peer = Scripted()
    peer.has("Down", "Slow")
    async with system() as ours, serving(peer.handle) as place:
        [fetcher] = polls(ours, f"http://{place}", settle=0).fetchers
        await fetcher.lease.take()
        for names in (("Down", "Slow"), (), ("Down", "Slow"), ("Slow",), ("Slow", "Down"), ()):
            peer.has(*names)
            await fetcher.fetch()
            assert await ours.names() == {"Down", "Slow"}
        await fetcher.fetch()
        assert await ours.names() == set()


async def test_whoever_polls_next_resolves_what_left_the_list_meanwhile_and_only_its_own() -> None:
    peer = Scripted()
    peer.has("Down", "Slow")
    async with system() as ours, serving(peer.handle) as place:
        other = {"receiver": "x", "groupKey": "g", "alerts": [{**labelled("Others"), "status": "firing"}]}
        await ours.post("/v1/events/alertmanager-webhook", other)
        async with running(polls(ours, f"http://{place}", settle=0)):
            await fires(ours, {"Down", "Slow", "Others"})
        peer.has("Slow")

        async with running(polls(ours, f"http://{place}", "collector-1", settle=0)):
            await fires(ours, {"Slow", "Others"})


async def test_what_it_asks_for_and_how_long_it_waits() -> None:
    peer = Scripted()
    async with system() as ours, serving(peer.handle) as place:
        source = polls(
            ours,
            f"http://{place}/prefix/",
            matchers=['team="llm api"'],
            username="ann",
            password="secret",
        )
        async with running(source):
            await until(lambda: peer.asked)
            assert peer.asked[0].startswith("/prefix/api/v2/alerts?active=true&silenced=true&inhibited=true")
            assert "&filter=team" in peer.asked[0]
            assert peer.authorization == "Basic YW5uOnNlY3JldA=="
            peer.status, peer.headers = 503, {"Retry-After": "100"}
            await until(lambda: "503" in source.why_away)
            asked = len(peer.asked)
            await asyncio.sleep(0.3)
            assert len(peer.asked) == asked


async def test_an_alert_that_is_refused_is_a_dead_letter_once_and_the_others_are_taken() -> None:
    peer = Scripted()
    peer.has("Down")
    peer.alerts.append({"labels": {"alertname": "x" * 100_000}, "fingerprint": "bad"})
    async with system() as ours, serving(peer.handle) as place:
        async with running(polls(ours, f"http://{place}")) as source:
            await fires(ours, {"Down"})
            await polled(source, 3)
        assert len(await ours.letters()) == 1


async def test_two_collectors_never_poll_at_once_and_the_second_goes_on_where_the_first_was_killed() -> None:
    peer = Scripted()
    peer.has("Down")
    async with system() as ours, serving(peer.handle) as place:
        first = polls(ours, f"http://{place}", "collector-a")
        second = polls(ours, f"http://{place}", "collector-b")
        for each in (*first.fetchers, *second.fetchers):
            each.lease.lease_s = 1.0
        await first.start()
        await until(lambda: not first.why_away)
        async with running(second):
            [waiting] = second.fetchers
            await until(lambda: "collector-a" in waiting.elsewhere, lambda: second.why_away)
            assert second.why_away == ""
            # As SIGKILL would: nothing is released.
            [task] = [each._task for each in first.fetchers]
            assert task is not None
            task.cancel()
            peer.asked.clear()

            await until(lambda: not waiting.elsewhere and peer.asked, lambda: waiting.elsewhere)

            assert await ours.names() == {"Down"}


async def test_an_error_page_that_shows_the_request_is_told_without_the_password() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403, text=f"forbidden: {request.headers['Authorization']}")

    async with system() as ours, serving(handle) as place:
        source = polls(ours, f"http://{place}", username="ada", password="s3cr3t")
        async with running(source):
            await until(lambda: "forbidden" in source.why_away)
            assert source.why_away.endswith("forbidden: Basic ***")


async def test_what_was_read_under_a_lease_that_ran_out_is_not_stored() -> None:
    """The process stood still between reading the list and storing it, and another one polls by now."""

    async def handle(request: web.Request) -> web.StreamResponse:
        ours.clock.ahead_s += 31.0
        return web.json_response([labelled("Over")])

    async with system() as ours, serving(handle) as place:
        [fetcher] = polls(ours, f"http://{place}").fetchers
        await fetcher.lease.take()
        with pytest.raises(Conflict):
            await fetcher.fetch()
        assert await ours.alerts() == []
