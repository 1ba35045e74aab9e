"""The files of the web page: how they are served, and that nothing is asked for them and nothing is in them that the policy forbids."""

from __future__ import annotations

import gzip
import re

import pytest

from services.web.page import FOLDER, POLICY
from tests.api.gateway_in_process import Reply, System, system
from tests.api.test_guard import guarded

__all__ = ["guarded"]

ON_SHARED = pytest.mark.asyncio(loop_scope="module")


async def got(ours: System, path: str, method: str = "GET", **headers: str) -> Reply:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return await ours.request(method, path, [b""], given)


async def files(ours: System) -> list[str]:
    page = await got(ours, "/")
    return sorted(set(re.findall(r'"(/ui/files/[^"]+)"', page.body.decode())))


@pytest.mark.parametrize(
    "path", ["/", "/ui", "/ui/", "/ui/incidents", "/ui/incidents/01a20993-901b-7483-ab53-7cb8d1609881"]
)
@ON_SHARED
async def test_every_address_of_the_page_is_the_page(shared: System, path: str) -> None:
    answer = await got(shared, path)

    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"


@ON_SHARED
async def test_all_files_are_there_with_their_types_and_kept_for_ever(shared: System) -> None:
    types = {
        "js": "text/javascript",
        "css": "text/css",
        "svg": "image/svg+xml",
        "webmanifest": "application/manifest+json",
    }
    found = {path: await got(shared, path) for path in await files(shared)}

    modules = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.js")}
    assert modules <= {path.split("/", 4)[4] for path in found}
    for path, answer in found.items():
        assert answer.status == 200, path
        assert answer.headers["content-type"].partition(";")[0] == types[path.rpartition(".")[2]]
        assert "immutable" in answer.headers["cache-control"]


@ON_SHARED
async def test_what_a_browser_has_already_is_not_sent_again(shared: System) -> None:
    for path in ("/ui/incidents", (await files(shared))[0]):
        plain = await got(shared, path)
        packed = await got(shared, path, accept_encoding="gzip, br")
        again = await got(shared, path, if_none_match=f'W/{plain.headers["etag"]}, "x"')
        packed_again = await got(shared, path, accept_encoding="gzip", if_none_match=packed.headers["etag"])
        other = await got(shared, path, accept_encoding="gzip", if_none_match=plain.headers["etag"])

        assert (packed.headers["content-encoding"], gzip.decompress(packed.body)) == ("gzip", plain.body)
        # Strong tags: other bytes have another one.
        assert packed.headers["etag"] != plain.headers["etag"]
        assert [each.status for each in (again, packed_again, other)] == [304, 304, 200]
        assert again.body == b"" and again.headers["etag"] == plain.headers["etag"]


@ON_SHARED
async def test_head_has_the_headers_alone_and_other_methods_are_refused(shared: System) -> None:
    head, whole, sent = (
        await got(shared, "/", "HEAD"),
        await got(shared, "/"),
        await got(shared, "/ui", "POST"),
    )

    assert (head.status, head.body, head.headers) == (200, b"", whole.headers)
    assert (sent.status, sent.headers["allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize(
    "path", ["/ui/files/0000000000000000/page.js", "/ui/files/../page.py", "/ui/files/%2e%2e/page.py", "/uix"]
)
@ON_SHARED
async def test_nothing_else_is_served(shared: System, path: str) -> None:
    assert (await got(shared, path)).status == 404


@pytest.mark.asyncio
async def test_the_files_need_no_token_and_what_they_ask_does(guarded: tuple[System, str]) -> None:
    ours, admin = guarded
    opened = [await got(ours, "/"), *[await got(ours, path) for path in await files(ours)]]
    asked = await got(ours, "/v1/whoami")
    known = await got(ours, "/v1/whoami", authorization=f"Bearer {admin}")

    assert {each.status for each in opened} == {200}
    assert asked.status == 401
    assert (known.json["name"], known.json["is_proven"]) == ("admin", True)
    assert known.json["scopes"] == ["admin", "read", "respond"]


@pytest.mark.asyncio
async def test_without_tokens_the_caller_is_who_they_say() -> None:
    async with system() as ours:
        found = (await got(ours, "/v1/whoami", x_actor="ana")).json

    assert (found["name"], found["is_proven"]) == ("ana", False)


@pytest.mark.asyncio
async def test_the_page_can_be_switched_off_and_links_of_notifications_still_lead_somewhere() -> None:
    async with system(server={"web_page": False}) as ours:
        incident = "01a20993-901b-7483-ab53-7cb8d1609881"
        link = await got(ours, f"/ui/incidents/{incident}")
        assert (link.status, link.headers["location"]) == (307, f"/v1/incidents/{incident}")
        assert [(await got(ours, path)).status for path in ("/", "/ui", "/ui/incidents")] == [404, 404, 404]


def test_the_files_need_nothing_that_the_policy_forbids() -> None:
    """No HTML made of text, no code made of text, no inline script or style, nothing from elsewhere."""
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc=|javascript:[^`]|https?://(?!www\.w3\.org/2000/svg)"
    )
    for path in FOLDER.rglob("*"):
        if path.suffix in (".js", ".css", ".svg", ".html", ".webmanifest"):
            found = [line for line in path.read_text("utf-8").splitlines() if forbidden.search(line)]
            assert not found, (path, found)
    page = (FOLDER / "index.html").read_text("utf-8")
    assert not re.search(r"<style|style=|<script(?![^>]* src=)| on\w+=", page)


@ON_SHARED
async def test_no_answer_of_the_api_is_taken_for_a_page(shared: System) -> None:
    answers = [await got(shared, path) for path in ("/v1/incidents", "/nothing", "/metrics", "/openapi.json")]

    assert {each.headers["x-content-type-options"] for each in answers} == {"nosniff"}
