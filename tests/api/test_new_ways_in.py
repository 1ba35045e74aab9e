"""A new format is one file and one line, and so is a new door: all else derives from the tables."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from models.errors import Broken
from models.partition.sharding import TENANT
from models.settings.server import Server
from services.ingest.arrival import Arrival, Sender
from services.ingest.doors import table as doors
from services.ingest.doors.door import Door, Needs
from services.ingest.formats import table as formats
from services.ingest.formats.format import Request
from services.machine import haproxy
from tests.api.gateway_in_process import Reply, System, system
from tests.api.pager_format import KEY, PagerFormat
from tests.extension import install

PACKAGE = """
from services.ingest.formats.format import Format
from tests.api.pager_format import KEY, PagerFormat

class Taken(PagerFormat):
    name, path = "taken", "/v1/alerts"

class Unfinished(Format):
    name, path = "unfinished", "/hooks/unfinished"
"""
EVENTS = b'{"events":[{"what":"Down","hosts":["api","db"]},{"what":7},{"what":"Slow","hosts":["api"]}]}'


class TokenPagerFormat(PagerFormat):
    """The same without signatures: its senders have tokens."""

    name = "token-pager"
    path = "/hooks/token-pager"
    is_signed = False


class QueueDoor(Door):
    """Alerts of one format from a queue in this process."""

    name = "queue"
    section = "server"
    opened: list[QueueDoor] = []

    def __init__(self, needs: Needs, section: Server) -> None:
        self._needs = needs
        self.section_given = section
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.stored: list[int] = []
        self.task: asyncio.Task[None] | None = None
        self.opened.append(self)

    async def start(self) -> None:
        self.task = asyncio.create_task(self._consume())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()

    async def _consume(self) -> None:
        form, clock = self._needs.formats["alertmanager"], self._needs.clock
        for place in range(sys.maxsize):
            body = await self.queue.get()
            request = Request("alerts", body, clock.now(), sender=Sender("queue"))
            arrival = Arrival(
                TENANT, form.name, request.sender, request.received_at, delivery_id=f"alerts-0-{place}"
            )
            with self._needs.tracer.span("queue", None, {}, kind="server") as span:
                reading, receipt = await self._needs.intake.take(form, request, arrival, span)
            assert not receipt.errors
            self.stored.append(reading.count)
            self.queue.task_done()


class UnwantedDoor(QueueDoor):
    name = "unwanted"

    @classmethod
    def is_wanted(cls, section: Any) -> bool:
        return False


@pytest.fixture
def with_pagers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, PagerFormat, TokenPagerFormat))


@pytest.fixture
def fresh() -> Iterator[None]:
    formats._third_parties.cache_clear()
    yield
    formats._third_parties.cache_clear()


def signature(signed: bytes) -> dict[str, str]:
    return {"X-Pager-Signature": hmac.new(KEY, signed, hashlib.sha256).hexdigest()}


async def post(ours: System, body: bytes, headers: dict[str, str], path: str = PagerFormat.path) -> Reply:
    return await ours.post(path, body, headers=headers)


async def names(ours: System) -> set[tuple[str, str]]:
    return {(each["labels"]["alertname"], each["labels"]["service"]) for each in await ours.alerts()}


@pytest.mark.asyncio
@pytest.mark.usefixtures("with_pagers")
async def test_a_signed_request_is_taken_without_a_token_and_answered_in_the_formats_own_words() -> None:
    async with system(auth={"required": True}) as ours:
        taken = await post(ours, EVENTS, signature(EVENTS))
        forged = await post(ours, EVENTS, signature(EVENTS + b" "))
        unsigned = await post(ours, EVENTS, {})

        assert (taken.status, taken.body) == (202, b"3 taken, 1 not")
        assert taken.headers["content-type"] == "text/plain"
        for refused in (forged, unsigned):
            assert (refused.status, refused.body) == (401, b"no: the signature is not ours")
            assert "www-authenticate" not in refused.headers
        [letter] = await ours.letters()
        assert (letter.door, letter.payload, letter.place) == ("pager", EVENTS, "item 1")  # type: ignore[attr-defined]


@pytest.mark.asyncio
@pytest.mark.usefixtures("with_pagers")
async def test_one_body_is_many_alerts_and_one_event_ends_them() -> None:
    over = EVENTS.replace(b'"hosts":["api","db"]', b'"hosts":["api","db"],"over":true')
    async with system() as ours:
        await post(ours, EVENTS, signature(EVENTS))
        assert await names(ours) == {("Down", "api"), ("Down", "db"), ("Slow", "api")}

        await post(ours, over, signature(over))

        assert await names(ours) == {("Slow", "api")}


@pytest.mark.asyncio
@pytest.mark.usefixtures("with_pagers")
async def test_a_handshake_is_answered_and_brings_no_alert() -> None:
    hello = b'{"hello":"is somebody here?"}'
    async with system() as ours:
        posted = await post(ours, hello, signature(hello))
        asked = await ours.request(
            "GET",
            f"{PagerFormat.path}?hello=you",
            [b""],
            [(name.lower().encode(), value.encode()) for name, value in signature(b"hello=you").items()],
        )
        forged = await ours.get(f"{PagerFormat.path}?hello=you")

        assert (posted.status, posted.body) == (200, b"is somebody here?")
        assert (asked.status, asked.body) == (200, b"you")
        assert forged.status == 401
        assert not await names(ours)
        page = (await ours.get("/metrics")).body.decode()
        assert (
            'llm_im_requests_refused_total{actor="gateway-test",door="pager",reason="unauthorized"} 1' in page
        )


@pytest.mark.asyncio
@pytest.mark.usefixtures("with_pagers")
async def test_what_cannot_be_read_is_refused_in_its_own_words_and_kept_only_of_who_is_known() -> None:
    async with system() as ours:
        forged = await post(ours, b"{", {})
        signed = await post(ours, b"{", signature(b"{"))
        typeless = await ours.post(PagerFormat.path, b"{", content_type="text/html", headers=signature(b"{"))

        assert forged.status == 401
        assert signed.status == 400 and signed.body.startswith(b"no: no events")
        assert typeless.status == 415
        [letter] = await ours.letters()
        assert (letter.payload, letter.content_type) == (b"{", "application/json")  # type: ignore[attr-defined]


@pytest.mark.asyncio
@pytest.mark.usefixtures("with_pagers")
async def test_methods_405_scopes_and_openapi_derive_from_the_table() -> None:
    async with system() as ours:
        put = await ours.request("PUT", PagerFormat.path, [b""], [])
        paths = (await ours.get("/openapi.json")).json["paths"]
        unknown = await ours.post("/v1/tokens", {"name": "x", "scopes": ["ingest:pagr"]})
        admin = await ours.post("/v1/tokens", {"name": "admin", "scopes": ["admin"]})
        by_admin = {"Authorization": f"Bearer {admin.json['token']}"}
        made = {
            scope: (await ours.post("/v1/tokens", {"name": scope, "scopes": [scope]}, headers=by_admin)).json
            for scope in ("ingest:token-pager", "ingest:v1", "ingest:*")
        }
        taken = {
            scope: await post(
                ours,
                EVENTS,
                {"Authorization": f"Bearer {token['token']}"},
                TokenPagerFormat.path,
            )
            for scope, token in made.items()
        }

        assert (put.status, put.headers["allow"]) == (405, "GET,POST")
        assert set(paths[PagerFormat.path]) == {"get", "post"}
        assert unknown.status == 400
        assert b"ingest:alertmanager, ingest:v1, " in unknown.body
        assert b", ingest:pager, ingest:token-pager, ingest:*" in unknown.body
        assert {scope: answer.status for scope, answer in taken.items()} == {
            "ingest:token-pager": 202,
            "ingest:v1": 403,
            "ingest:*": 202,
        }
        assert b"'ingest:token-pager'" in taken["ingest:v1"].body


@pytest.mark.usefixtures("with_pagers")
def test_a_killed_gateways_request_is_sent_again_for_every_format() -> None:
    paths = [kind.path for kind in formats.all_formats().values()]

    assert "hooks/+pager" in haproxy.send_once(paths)


@pytest.mark.asyncio
@pytest.mark.usefixtures("fresh")
async def test_a_format_of_another_package_comes_by_its_entry_point_and_a_bad_one_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {
        "pager": "{module}:PagerFormat",
        "taken": "{module}:Taken",
        "unfinished": "{module}:Unfinished",
        "renamed": "{module}:PagerFormat",
        "nothing": "{module}:KEY",
    }
    install(tmp_path, monkeypatch, "pagers", formats.EXTENSIONS, points, PACKAGE)

    with capture_logs() as logs:
        async with system() as ours:
            taken = await post(ours, EVENTS, signature(EVENTS))

    assert taken.status == 202
    skipped = {each["name"]: each["why"] for each in logs if each["event"].startswith("extension")}
    assert len([each for each in logs if each["event"].startswith("extension")]) == len(skipped)
    assert {name: why.split(" is ")[0].split(", got")[0] for name, why in skipped.items()} == {
        "taken": "/v1/alerts",
        "unfinished": "it lacks describe, refused, steps, stored",
        "renamed": "expected a subclass of Format with the name 'renamed'",
        "nothing": "expected type",
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "v1"}, "there are two of this name"),
        ({"path": "/v1/alerts"}, "/v1/alerts is the path of 'v1'"),
        ({"path": "/v1/{any}"}, "its path must match"),
        ({"name": "A b"}, "its name must match"),
    ],
)
def test_a_format_of_ours_that_cannot_be_used_keeps_everything_from_starting(
    change: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, type("Changed", (PagerFormat,), change)))

    with pytest.raises(Broken, match=words):
        formats.all_formats()


@pytest.mark.asyncio
async def test_a_door_is_opened_started_and_stopped_with_its_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "DOORS", (*doors.DOORS, QueueDoor, UnwantedDoor))
    monkeypatch.setattr(QueueDoor, "opened", [])
    async with system() as ours:
        [door] = QueueDoor.opened
        for name in ("Down", "Slow"):
            door.queue.put_nowait(b'[{"labels":{"alertname":"%s","service":"api"}}]' % name.encode())
        async with asyncio.timeout(5):
            await door.queue.join()

        assert door.section_given is ours.settings.server
        assert door.stored == [1, 1]
        assert await names(ours) == {("Down", "api"), ("Slow", "api")}
        assert list(ours.gateway.doors) == ["http", "websocket", "queue"]

    assert door.task is not None
    await asyncio.wait([door.task])
    assert door.task.cancelled()
