"""What all answers have in common: HEAD, packing, no keeping; and paths with a slash too many."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import zstandard
from fastapi import FastAPI
from starlette.responses import Response, StreamingResponse
from starlette.testclient import TestClient

from models import VERSION
from services.api.answers import Answers, packing_of
from services.api.auth import OPEN_PATHS
from tests.api.gateway_in_process import Reply, System, alert, system
from tests.api.test_guard import every_route

GETS = sorted({path for method, path, _scope in every_route() if method == "GET"} | OPEN_PATHS)
on_filled = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled() -> AsyncIterator[System]:
    """A system with some incidents."""
    async with system() as ours:
        await ours.post("/v1/alerts", [alert(f"Down{number}", service=f"s{number}") for number in range(50)])
        yield ours


async def path_of(ours: System, path: str) -> str:
    listed = (await ours.get("/v1/incidents?limit=1")).json
    identity = listed["items"][0]["id"]
    return (
        path.replace("{incident_id}", identity)
        .replace("{token_id}", "0" * 12)
        .replace("{silence_id}", identity)
    )


async def ask(ours: System, method: str, path: str, **headers: str) -> Reply:
    async with asyncio.timeout(20):
        return await ours.request(
            method,
            path,
            [b""],
            [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        )


@pytest.mark.parametrize("path", [each for each in GETS if "stream" not in each])
@on_filled
async def test_head_is_get_without_the_body(filled: System, path: str) -> None:
    path = await path_of(filled, path)

    head, got = await ask(filled, "HEAD", path), await ask(filled, "GET", path)

    assert (head.status, head.body) == (got.status, b"")
    assert head.headers.get("content-type") == got.headers.get("content-type")
    if path not in ("/metrics", "/health/ready"):
        assert head.headers == got.headers


@on_filled
async def test_head_of_a_stream_ends(filled: System) -> None:
    head = await ask(filled, "HEAD", "/v1/stream/incidents", accept="text/event-stream")

    assert (head.status, head.headers["content-type"].split(";")[0], head.body) == (
        200,
        "text/event-stream",
        b"",
    )
    assert not filled.gateway.tails._watches


@pytest.mark.parametrize(
    "path", ["/v1/incidents/bulk", "/v1/config/reload", "/v1/nothing", "/v1/incidents/none"]
)
@on_filled
async def test_head_of_what_can_not_be_read_is_refused(filled: System, path: str) -> None:
    head = await ask(filled, "HEAD", path)

    assert head.status == (await ask(filled, "GET", path)).status >= 400
    assert head.body == b""


def test_head_does_not_read_a_long_answer_to_its_end() -> None:
    made = []

    async def pages() -> AsyncIterator[bytes]:
        for number in range(1000):
            made.append(number)
            yield b"x" * 1000
            await asyncio.sleep(0)

    app = FastAPI()
    app.add_middleware(Answers)
    app.add_api_route("/long", lambda: StreamingResponse(pages(), media_type="application/json"))
    answer = TestClient(app).head("/long")

    assert answer.status_code == 200 and not answer.content
    assert len(made) < 1000


# Packing


@pytest.mark.parametrize(
    ("accept", "packing"),
    [
        ("", ""), ("identity", ""), ("gzip", "gzip"), ("GZIP", "gzip"), ("x-gzip", "gzip"), ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"), ("gzip, deflate, br", "gzip"), ("br", ""), ("*", "zstd"), ("*;q=0", ""),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"), ("gzip;q=0, *", "zstd"), ("zstd;q=0, *", "gzip"), ("gzip;q=0", ""),
        ("gzip;q=0.1, identity;q=0.5", ""), ("gzip ; q=0.5", "gzip"), ("gzip;q=x", ""), (",,;=,", ""), ("deflate, gzip;q=nan", ""),
    ],
)  # fmt: skip
def test_the_packing_that_is_liked_best_is_taken(accept: str, packing: str) -> None:
    assert packing_of(accept) == packing


def unpacked(answer: Reply) -> bytes:
    packing = answer.headers.get("content-encoding")
    if packing == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(answer.body)
    return gzip.decompress(answer.body) if packing == "gzip" else answer.body


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize(
    "path", ["/api/v2/alerts", "/api/v2/alerts/groups", "/v1/incidents", "/v1/alerts", "/openapi.json"]
)
@on_filled
async def test_a_read_is_packed_for_who_takes_it(filled: System, path: str, packing: str) -> None:
    plain = await ask(filled, "GET", path)
    packed = await ask(filled, "GET", path, accept_encoding=packing)

    assert packed.headers["content-encoding"] == packing
    assert len(packed.body) < len(plain.body) / 3
    # What is sent as it is read has its own end.
    assert packed.headers.get("content-length") in (None, str(len(packed.body)))
    assert json.loads(unpacked(packed)) == plain.json
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert "content-encoding" not in plain.headers


@on_filled
async def test_metrics_are_packed_and_say_what_runs(filled: System) -> None:
    page = unpacked(await ask(filled, "GET", "/metrics", accept_encoding="gzip;q=1.0,*;q=0.1")).decode()

    (line,) = [each for each in page.splitlines() if each.startswith("llm_im_build_info{")]
    assert f'version="{VERSION}"' in line and line.endswith(" 1")


@on_filled
async def test_a_short_answer_is_sent_as_it_is(filled: System) -> None:
    for path in ("/health/live", "/v1/nothing", "/api/v2/receivers"):
        assert "content-encoding" not in (await ask(filled, "GET", path, accept_encoding="gzip")).headers


@on_filled
async def test_a_new_tokens_secret_and_a_stream_are_not_packed(filled: System) -> None:
    def app() -> TestClient:
        made = FastAPI()
        made.add_middleware(Answers)
        made.add_api_route(
            "/secret", lambda: Response(b"x" * 9000, media_type="application/json"), methods=["POST"]
        )
        made.add_api_route("/events", lambda: Response(b"data: x\n\n" * 900, media_type="text/event-stream"))
        made.add_api_route("/picture", lambda: Response(b"x" * 9000, media_type="image/png"))
        return TestClient(made)

    asked = app()
    answers = [asked.post("/secret"), asked.get("/events"), asked.get("/picture")]

    assert not [each for each in answers if "content-encoding" in each.headers]


def test_an_answer_in_parts_is_packed_as_it_comes_and_a_version_becomes_a_weak_one() -> None:
    text = json.dumps(list(range(200_000))).encode()

    def app() -> FastAPI:
        async def parts() -> AsyncIterator[bytes]:
            for start in range(0, len(text), 300_000):
                yield text[start : start + 300_000]

        made = FastAPI()
        made.add_middleware(Answers)
        made.add_api_route(
            "/parts",
            lambda: StreamingResponse(parts(), media_type="application/json", headers={"ETag": '"7"'}),
        )
        made.add_api_route(
            "/whole", lambda: Response(text, media_type="application/json", headers={"ETag": '"7"'})
        )
        return made

    asked = TestClient(app())
    for path in ("/parts", "/whole"):
        answer = asked.get(path, headers={"Accept-Encoding": "gzip"})

        assert answer.content == text
        assert (answer.headers["content-encoding"], answer.headers["etag"]) == ("gzip", 'W/"7"')
        assert asked.get(path, headers={"Accept-Encoding": "identity"}).headers["etag"] == '"7"'


# Keeping


@pytest.mark.parametrize("path", [each for each in GETS if "stream" not in each])
@on_filled
async def test_nobody_keeps_an_answer(filled: System, path: str) -> None:
    answer = await ask(filled, "GET", await path_of(filled, path))

    assert answer.headers["cache-control"] == "no-store"


# Paths


@pytest.mark.parametrize(
    "path", ["//api/v2/alerts", "/api/v2/alerts/", "///api//v2/alerts//", "//v1/alerts", "/v1/alerts/"]
)
@on_filled
async def test_a_slash_too_many_leads_to_the_same_place(filled: System, path: str) -> None:
    posted = await filled.post(path, [alert("Slash", service="slash")])
    read = await ask(filled, "GET", f"{path}?limit=1000")

    assert posted.status in (200, 202)
    assert (read.status, b"Slash" in read.body) == (200, True)


@pytest.mark.parametrize(
    "path", ["//v1/incidents/", "/health/live/", "//-/ready", "/v1/stats/", "/metrics/", "//openapi.json"]
)
@on_filled
async def test_other_paths_take_it_too(filled: System, path: str) -> None:
    assert (await ask(filled, "GET", path)).status == 200


@pytest.mark.parametrize(
    "path", ["/v1/incidents/x/../../tokens", "/v1", "//v1//", "/v1/incidents;/", "/v1/ incidents"]
)
@on_filled
async def test_what_is_another_path_stays_one(filled: System, path: str) -> None:
    assert (await ask(filled, "GET", path)).status in (400, 404)
