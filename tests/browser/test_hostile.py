"""Whatever anybody writes into an alert, an incident, a silence, a heartbeat, a playbook or a name is shown as it was written, and does nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.api.gateway_in_process import System, system
from tests.api.test_playbooks import Recorder, known
from tests.browser.conftest import Desk

pytestmark = pytest.mark.asyncio(loop_scope="session")

#: As people and programs write them, by what they would break out of.
NAUGHTY = [
    "<script>hit()</script>",
    "<img src=x onerror=hit()>",
    '"><svg onload=hit()>',
    "'><iframe srcdoc='<script>parent.hit()</script>'></iframe>",
    "<math><mtext></mtext><mglyph><style><!--</style><img src onerror=hit()>",
    "</title></textarea></style></script><script>hit()</script>",
    "<a href=javascript:hit()>x</a>",
    "javascript:hit()//",
    "jAvAsCrIpT\t:hit()",
    "data:text/html,<script>hit()</script>",
    "{{constructor.constructor('hit()')()}} ${hit()} #{hit()} <%= hit() %>",
    "&lt;script&gt; &amp; &#60;img&#62; &quot;",
    "\" onmouseover=hit() x=\"",
    "`-hit()-` \\u003cscript\\u003ehit()",
    "__proto__ constructor toString hasOwnProperty",
    "../../../../etc/passwd?x=%2e%2e#/ui/../v1/tokens",
    "\u202eevil\u202c \u2066rtl\u2069 \u200f\u200e",
    "Z\u0351\u036b\u0343a\u0334l\u0338g\u0335o\u0334 \U0001f4a3\U0001f469\u200d\U0001f469\u200d\U0001f467 \ufeff\u200b",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \uff1cscript\uff1e",
    "x" * 900,
    "-1e999 NaN null undefined [object Object]",
    "%00 %0d%0aSet-Cookie: x=1",
    "a line\nand \\ another \\n\"\ttab",
]  # fmt: skip
BOOK = """
name: naughty
version: "1"
severity_trigger: [P0]
metadata: {description: %s}
steps:
  - id: fix
    type: remediation
    approval: {within: 30m, message: %s}
    actions:
      - {type: service_restart, service: x, method: rolling}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ours() -> AsyncIterator[System]:
    async with system(worker=Recorder(), playbooks={"enabled": True}) as started:
        yield started


async def put(ours: System, path: str, body: object) -> None:
    answer = await ours.request(
        "PUT", path, [json.dumps(body).encode()], [(b"content-type", b"application/json")]
    )
    assert answer.status in (200, 201), answer


async def fill(ours: System) -> list[str]:
    """All of it into every field that takes it. The ids of the incidents."""
    all_of_it = "\n".join(NAUGHTY)
    answer = await ours.post(
        "/v1/playbooks", {"source": BOOK % (json.dumps(NAUGHTY[0]), json.dumps(" ".join(NAUGHTY[:9])))}
    )
    assert answer.status == 200, answer.body
    await known(ours, "naughty")
    incidents, taken = [], 0
    for number, text in enumerate(NAUGHTY):
        line = " ".join(text.split())
        alert = {
            "labels": {"alertname": text, "service": f"{text}{number}", "team": text, text[:200]: text},
            "annotations": {"summary": text, "description": text, "runbook_url": text, text[:200]: all_of_it},
            "generator_url": text,
            "source": text[:60],
        }
        answer = await ours.post("/v1/alerts", [alert], headers={"X-Actor": "x"})
        assert answer.status == 202, answer
        incident = str(answer.items[0]["incident_id"])
        incidents.append(incident)
        path = f"/v1/incidents/{incident}"
        for verb, body in (
            ("comment", {"text": text}),
            ("assign", {"add": [line[:128]], "roles": {line[:128]: line[:128]}, "reason": line}),
            ("label", {"set": {"note": line}, "reason": line}),
            ("update", {"audience": line[:128], "text": text}),
            ("reclassify", {"impact": line[:128], "reason": line}),
        ):
            done = await ours.post(f"{path}/{verb}", body)
            taken += done.status == 200
            assert done.status in (200, 400), (verb, done.body)
        answer = await ours.post("/v1/silences", {"matchers": [f"team={json.dumps(text, ensure_ascii=False)}"], "duration": "1h", "comment": text, "force": True})  # fmt: skip
        assert answer.status == 201, answer
    # A name that is too odd is refused.
    assert taken > 4.5 * len(NAUGHTY)
    for text in NAUGHTY:
        assert (await ours.post(f"/v1/incidents/{incidents[0]}/comment", {"text": text})).status == 200
    for name in ("a<b>hit()</b>", "'\"><img src=x onerror=hit()>"):
        await put(ours, f"/v1/heartbeats/x{len(name)}", {"interval": "1h", "service": name, "runbook": "javascript:hit()", "labels": {"x": name}})  # fmt: skip
    for incident in incidents[:2]:
        answer = await ours.post(
            f"/v1/incidents/{incident}/runs", {"playbook": "naughty", "reason": NAUGHTY[1]}
        )
        assert answer.status == 201, answer
    answer = await ours.post(
        f"/v1/incidents/{incidents[2]}/resolve", {"root_cause": NAUGHTY[1], "notes": all_of_it}
    )
    assert answer.status == 200, answer
    return incidents


async def test_what_others_wrote_is_text_on_every_page(ours: System, desk: Desk) -> None:
    incidents = await fill(ours)
    reader = await desk.reader(ours, "/ui/incidents?state=any&sort=created_at", name="<b>'\"")
    page = reader.page
    await expect(page.locator("li.row")).to_have_count(len(NAUGHTY))
    shown = await page.locator("li.row a.title").all_text_contents()
    listed = (await ours.get("/v1/incidents?sort=created_at")).items
    assert shown == [each["title"] for each in listed] and len(set(shown)) == len(NAUGHTY)

    # As a matcher it means itself and nothing else.
    for number in (3, 13, 16, len(NAUGHTY) - 1):
        await reader.go(f"/ui/incidents/{incidents[number]}")
        await reader.button("Silence").click()
        await expect(reader.dialog.locator(".preview")).to_contain_text("Mutes 1 of")
    # The first has a note of each; others have links, and an end.
    for number in (7, 2, 9, 0):
        await reader.go(f"/ui/incidents/{incidents[number]}")
        await expect(page.locator(".lines .line").first).to_be_visible()
        await page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        await _is_clean(page)
    written = await page.locator(".line.by-person .prose").all_text_contents()
    assert set(NAUGHTY) <= set(written)
    await reader.button("Who would be told now?").click()
    for path in ("/ui/silences", "/ui/runs", "/ui/heartbeats", "/ui/oncall", "/ui/status", "/ui/situations"):
        await reader.go(path)
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        await expect(page.get_by_text("Loading…")).to_have_count(0)
        await _is_clean(page)
    await reader.go("/ui/runs")
    await page.locator("li.run.waits").first.get_by_role("button", name="Approve…").click()
    await expect(reader.dialog.locator(".message")).to_contain_text(NAUGHTY[0])
    await _is_clean(page)


async def test_an_address_of_the_page_is_only_read(ours: System, desk: Desk) -> None:
    reader = await desk.reader(ours)
    for path in (
        "/ui/incidents?text=<img src=x onerror=hit()>&service=<script>hit()</script>&match=javascript:hit()",
        "/ui/incidents?type=<img src=x onerror=hit()>&created_after=\"><svg onload=hit()>",
        "/ui/<script>hit()</script>",
        "/ui/incidents/01a20993-901b-7483-ab53-7cb8d1609881?x=<script>hit()</script>",
        "/ui//evil.example/%2e%2e",
    ):  # fmt: skip
        await reader.go(path)
        await expect(reader.page.get_by_role("heading", level=1).first).to_be_attached()
        await _is_clean(reader.page)


async def test_the_browser_itself_would_refuse_what_got_in(ours: System, desk: Desk) -> None:
    reader = await desk.reader(ours, "/ui/status")
    await expect(reader.page.get_by_role("heading", level=1)).to_be_visible()
    tried = await reader.page.evaluate("""async () => {
        const found = {};
        try { document.body.innerHTML = '<b>x</b>'; found.html = 'taken'; } catch (error) { found.html = error.name; }
        try { await fetch('http://127.0.0.1:9/x'); found.elsewhere = 'taken'; } catch (error) { found.elsewhere = error.name; }
        const script = document.createElement('script');
        try { script.textContent = 'hit()'; document.body.append(script); } catch (error) { found.script = error.name; }
        const picture = document.createElement('img');
        picture.src = 'https://evil.example/x.png';
        document.body.append(picture);
        await new Promise((resolve) => setTimeout(resolve, 100));
        const hits = window.hits;
        window.hits = [];
        return { ...found, hit: hits.includes('hit'), told: hits.map((each) => each.split(':')[0]) };
    }""")
    desk.faults.clear()

    assert (tried["html"], tried["elsewhere"], tried["hit"]) == ("TypeError", "TypeError", False)
    assert {"require-trusted-types-for", "connect-src", "img-src"} <= set(tried["told"])


async def _is_clean(page) -> None:  # type: ignore[no-untyped-def]
    """Nothing that was written became an element, and no link leads to a script."""
    assert (
        await page.locator(
            "#page img, #page script, #page iframe, #page math, #page style, #page b b, #page svg[onload]"
        ).count()
        == 0
    )
    links = await page.evaluate(
        "[...document.querySelectorAll('[href],[src]')].map((each) => each.href || each.src).filter((each) => typeof each === 'string')"
    )
    assert [each for each in links if not each.startswith(("http://", "https://"))] == []
    assert await page.evaluate("window.hits") == []
