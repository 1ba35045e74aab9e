"""The promise of port Channel, kept by every channel by HTTP, each against a local server that checks what it is sent against the
documented API (tests/receivers). A channel that is new needs a line in tests/receivers/table.py. What they say:
tests/contract/test_channel_words.py. Mail: tests/contract/test_channel_email.py.
"""

import asyncio
import ssl
import time
from pathlib import Path

import pytest
from aiohttp import web

from models.incidents.incident import Severity
from models.incidents.notification import Note
from models.ports import REF_MAX, ActionResult
from models.settings.all import Settings
from models.shard.telling import GREW
from services.actions.table import ACTIONS, Actions
from tests.contract.test_actions import given
from tests.facts import some_facts
from tests.ports import free_port
from tests.receivers.api import SECRET, serving
from tests.receivers.chats import DiscordApi
from tests.receivers.slack import SlackApi
from tests.receivers.table import (
    CHANNELS,
    DELETABLE,
    KEY,
    OPENING,
    answering,
    later,
    opened,
    over,
    receiving,
    settings_of,
)

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=CHANNELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_every_type_of_receiver_keeps_the_promise() -> None:
    assert {str(api.settings["type"]) for api in CHANNELS.values()} | {"email"} == set(ACTIONS)


async def test_a_responder_has_every_receiver_of_the_settings() -> None:
    receivers = {name.replace(" ", "-"): settings_of(name, "127.0.0.1:1") for name in CHANNELS}
    notify = {
        "receivers": receivers,
        "route": {"receivers": ["slack"]},
        "webhook": {"external_url": "https://im.example/"},
    }

    actions = Actions(given(Settings.model_validate({"notify": notify})))

    for name in CHANNELS:
        channel = actions.by_name[name.replace(" ", "-")]
        assert type(channel) is type(opened(name, "127.0.0.1:1"))
        assert b"LLM API is down" in channel.render(some_facts())


@pytest.mark.parametrize(("own", "shared"), [(True, False), (False, True), (False, False)])
async def test_a_certificate_is_trusted_by_the_receivers_settings_or_by_those_of_all(
    certificate: tuple[Path, Path], own: bool, shared: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    path = str(certificate[0])
    async with serving(answering(200), tls=context) as place:
        receiver = {"type": "webhook", "url": f"https://{place}/", **({"ca_file": path} if own else {})}
        notify = {"receivers": {"ops": receiver}, "route": {"receivers": ["ops"]}}
        outbound = {"ca_file": path} if shared else {}
        channel = Actions(given(Settings.model_validate({"notify": notify, "outbound": outbound}))).by_name[
            "ops"
        ]
        result = await channel.act(KEY, some_facts())
        await channel.close()

    assert (result.ok, result.final, result.reached) == (own or shared, False, own or shared)


# -- what arrives -----------------------------------------------------------------------------------------------


async def test_an_opening_arrives_as_the_api_wants_it_and_as_the_dry_run_shows(name: str) -> None:
    async with receiving(name) as (api, channel):
        result = await channel.act(KEY, some_facts())

        assert (result.ok, result.final, api.wrong) == (True, False, [])
        assert [call.body for call in api.changes] == [channel.render(some_facts())]
        assert api.changes[0].headers["Idempotency-Key"] == KEY
        assert "traceparent" not in api.changes[0].headers


async def test_a_trace_goes_along(name: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with receiving(name) as (api, channel):
        await channel.act(KEY, some_facts(), trace)

    assert {call.headers.get("traceparent") for call in api.calls} == {trace}


async def test_a_dry_run_sends_nothing_and_is_the_same_each_time(name: str) -> None:
    async with receiving(name) as (api, channel):
        bodies = {channel.render(some_facts()) for _ in range(3)} | {opened(name, "x:1").render(some_facts())}

        assert api.calls == []
    [body] = bodies
    assert b"LLM API is down" in body and b"opened" in body


async def test_an_incident_is_opened_changed_and_resolved_as_one(name: str) -> None:
    async with receiving(name) as (api, channel):
        first = await channel.act("i-1-0", some_facts())
        second = await channel.act(
            "i-2-0", later(some_facts(), first.ref, "severity changed", severity=Severity.P0)
        )
        third = await channel.act("i-3-0", over(some_facts(), second.ref))

    assert [each.ok for each in (first, second, third)] == [True, True, True], (first, second, third)
    assert api.wrong == []
    if api.keeps:
        assert first.ref and first.ref == second.ref and len(first.ref) <= REF_MAX
        assert len(api.made) == 1
    if name in OPENING:
        assert api.open_ones() == []


@pytest.mark.parametrize("name", OPENING)
async def test_a_resolve_finds_what_was_opened_though_its_name_was_lost(name: str) -> None:
    async with receiving(name) as (api, channel):
        await channel.act("i-1-0", some_facts())
        was_open = api.open_ones()
        result = await channel.act("i-2-0", over(some_facts()))

    assert result.ok and api.wrong == []
    assert len(was_open) == 1 and api.open_ones() == []


@pytest.mark.parametrize("name", OPENING)
async def test_a_resolve_of_what_was_never_opened_opens_nothing(name: str) -> None:
    async with receiving(name) as (api, channel):
        result = await channel.act("i-1-0", over(some_facts()))

    assert result.ok and api.open_ones() == [] and api.wrong == []


@pytest.mark.parametrize("name", OPENING)
async def test_one_that_begins_again_is_open_again(name: str) -> None:
    async with receiving(name) as (api, channel):
        first = await channel.act("i-1-0", some_facts())
        await channel.act("i-2-0", over(some_facts(), first.ref))
        result = await channel.act("i-3-0", later(some_facts(), first.ref, "reopened"))

    assert result.ok and api.wrong == []
    assert len(api.open_ones()) == 1


@pytest.mark.parametrize("name", OPENING)
async def test_an_answer_that_was_lost_makes_no_second_one(name: str) -> None:
    async with receiving(name) as (api, channel):
        api.loses_answers = True
        lost = await channel.act("i-1-0", some_facts())
        api.loses_answers = False
        again = await channel.act("i-1-1", some_facts())

    assert (lost.ok, lost.final, lost.reached) == (False, False, True)
    assert again.ok and api.wrong == []
    assert len(api.made) == 1 and [each.get("pages", 1) for each in api.made.values()] == [1]


@pytest.mark.parametrize("name", DELETABLE)
async def test_what_was_deleted_there_is_made_anew(name: str) -> None:
    async with receiving(name) as (api, channel):
        first = await channel.act("i-1-0", some_facts())
        api.made.clear()
        second = await channel.act("i-2-0", later(some_facts(), first.ref, "severity changed"))

    assert second.ok and second.ref
    assert len(api.made) == 1 and api.wrong == []


@pytest.mark.parametrize("ref", ["C024BE91L:1700000000.000001", "OPS-1", "12", "0" * 32, "../../x", "<a@b>"])
async def test_a_name_that_a_receiver_of_another_type_gave_is_as_good_as_none(name: str, ref: str) -> None:
    async with receiving(name) as (api, channel):
        result = await channel.act("i-1-0", later(some_facts(), ref, "severity changed"))

    assert result.ok and api.wrong == []
    assert len(api.made) == 1 or not api.keeps


@pytest.mark.parametrize("name", DELETABLE)
async def test_a_resolve_of_what_was_deleted_there_is_done(name: str) -> None:
    async with receiving(name) as (api, channel):
        first = await channel.act("i-1-0", some_facts())
        api.made.clear()
        result = await channel.act("i-2-0", over(some_facts(), first.ref))

    assert result.ok and api.wrong == []


# -- what an answer means ---------------------------------------------------------------------------------------


async def test_what_is_tried_again_and_what_is_final(name: str) -> None:
    statuses = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504)
    async with receiving(name) as (api, channel):
        found = {}
        for status in statuses:
            api.instead = answering(status, headers={"Retry-After": "7"})
            result = await channel.act(KEY, some_facts())
            found[status] = (result.ok, result.final, result.reached, result.retry_after_s)

        assert found == {
            each: (False, each in api.final, each >= 500 or each == 408, 7.0) for each in statuses
        }
        assert len(api.changes) == len(statuses)


@pytest.mark.parametrize("name", ["jira", "jira data center", "servicenow", "github"])
@pytest.mark.parametrize("status", [400, 404, 429, 503])
async def test_a_lookup_that_fails_opens_nothing_and_is_tried_again(name: str, status: int) -> None:
    channel = None
    changed: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        if request.method != "GET":
            changed.append(request.path)
        return web.Response(status=status, headers={"Retry-After": "9"})

    async with serving(handler) as place:
        channel = opened(name, place)
        result = await channel.act(KEY, some_facts())
        await channel.close()

    assert (result.ok, result.final, result.retry_after_s, changed) == (False, False, 9.0, [])


async def test_a_receiver_that_hangs_is_given_up_in_time_and_may_have_got_it(name: str) -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with receiving(name, timeout=0.3) as (api, channel):
        api.instead = hang
        async with asyncio.timeout(10):
            result = await channel.act(KEY, some_facts())

    assert (result.ok, result.final, result.reached) == (False, False, True)
    assert "no answer within" in result.detail


async def test_nobody_listening_is_tried_again_and_has_reached_nobody(name: str) -> None:
    channel = opened(name, f"127.0.0.1:{free_port()}")

    result = await channel.act(KEY, some_facts())
    await channel.close()

    assert (result.ok, result.final, result.reached) == (False, False, False)
    assert SECRET not in result.detail


async def test_a_redirect_is_not_followed(name: str) -> None:
    elsewhere: list[str] = []

    async def other(request: web.Request) -> web.Response:
        elsewhere.append(request.path)
        return web.Response()

    async with serving(other) as there, receiving(name) as (api, channel):
        api.instead = answering(307, headers={"Location": f"http://{there}/steal"})
        result = await channel.act(KEY, some_facts())

    assert (result.ok, result.final, result.reached) == (False, False, False)
    assert elsewhere == [] and "redirect" in result.detail


@pytest.mark.parametrize("status", [200, 202, 400, 403, 500])
async def test_no_secret_is_told_by_a_receiver_that_echoes_it(name: str, status: int) -> None:
    async def echo(request: web.Request) -> web.Response:
        text = f"failed {request.url} {dict(request.headers)} {SECRET} {(await request.read())[:5000]!r}"
        return web.Response(status=status, text=text)

    async with receiving(name) as (api, channel):
        api.instead = echo
        result = await channel.act(KEY, some_facts())
        told = await channel.say(KEY, Note("hello"))

    assert SECRET not in f"{result} {told} {channel!r}"


#: By channel, what it says in a 200 when it failed: whether that is final, and whether somebody may have got it.
LIES: list[tuple[str, str, bool, bool]] = [
    ("slack", '{"ok": false, "error": "channel_not_found"}', False, False),
    ("slack", '{"ok": false, "error": "invalid_blocks"}', True, False),
    ("slack", '{"ok": false, "error": "internal_error"}', False, True),
    ("slack", '{"ok": false, "error": "ratelimited"}', False, False),
    ("slack", "<html>welcome to the proxy</html>", False, False),
    ("slack by webhook", "invalid_token", False, False),
    ("teams", "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 with ContextId", False, False),
    ("teams", "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 413 with ContextId", True, False),
    ("discord", "{}", False, True),
    ("pagerduty", '{"status": "invalid event"}', False, False),
    ("victorops", '{"result": "failure", "message": "Routing key unknown"}', False, False),
    ("jira", "<html>log in</html>", False, True),
    ("servicenow", "<html>Instance Hibernating page</html>", False, False),
    ("github", "[]", False, True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "final", "reached"), LIES)
async def test_a_200_that_says_that_it_failed_is_a_failure(
    name: str, text: str, final: bool, reached: bool
) -> None:
    async with receiving(name) as (api, channel):
        api.instead = answering(200, text)
        result = await channel.act(KEY, some_facts())

    assert (result.ok, result.final, result.reached) == (False, final, reached), result


@pytest.mark.parametrize(
    ("to", "error", "of_place"),
    [("U0ANA", "user_not_found", True), ("U0ANA", "invalid_auth", False), ("", "channel_not_found", False)],
)
async def test_slack_tells_a_place_of_one_message_from_its_settings(
    to: str, error: str, of_place: bool
) -> None:
    async with receiving("slack") as (api, channel):
        api.instead = answering(200, f'{{"ok": false, "error": "{error}"}}')
        result = await channel.act(KEY, some_facts(to=to))

    assert (result.ok, result.of_place) == (False, of_place)


async def test_what_limits_the_rate_in_words_of_its_own_is_left_alone_for_so_long() -> None:
    async def wait_of(name: str, status: int, text: str = "", headers: dict[str, str] | None = None) -> float:
        async with receiving(name) as (api, channel):
            api.instead = answering(status, text, headers)
            return (await channel.act(KEY, some_facts())).retry_after_s

    assert await wait_of("slack", 200, '{"ok": false, "error": "ratelimited"}') == 30.0
    assert (
        await wait_of("discord", 429, '{"message": "limited", "retry_after": 64.57, "global": false}') == 64.6
    )
    assert await wait_of("opsgenie", 429, "", {"X-RateLimit-Period-In-Sec": "60"}) == 60.0
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 120)}
    assert 100 < await wait_of("github", 403, "", reset) <= 120


async def test_a_routing_key_that_pagerduty_does_not_know_is_no_fault_of_the_event() -> None:
    async with receiving("pagerduty", routing_key=f"{SECRET}-short") as (_api, channel):
        result = await channel.act(KEY, some_facts())

    assert (result.ok, result.final) == (False, False) and "400" in result.detail


# -- of single channels -----------------------------------------------------------------------------------------


async def test_slack_updates_its_one_message_and_says_what_is_new_in_its_thread() -> None:
    async with receiving("slack") as (api, channel):
        assert isinstance(api, SlackApi)
        first = await channel.act("i-1-0", some_facts())
        await channel.act("i-2-0", later(some_facts(), first.ref, "severity changed", severity=Severity.P0))
        await channel.act("i-3-0", over(some_facts(), first.ref))
        await channel.act("i-4-0", later(some_facts(), first.ref, GREW))

    assert first.ref == "C024BE91L:1700000000.000001"
    opening, rise, end, growth = api.posted
    assert "thread_ts" not in opening and not growth["reply_broadcast"]
    assert (rise["thread_ts"], rise["reply_broadcast"], end["reply_broadcast"]) == (
        "1700000000.000001",
        True,
        False,
    )
    assert "[P0]" in api.updated[0]["text"] and "[RESOLVED]" in api.updated[1]["text"]


async def test_discord_edits_its_one_message_and_says_shortly_what_is_new() -> None:
    async with receiving("discord") as (api, channel):
        assert isinstance(api, DiscordApi)
        first = await channel.act("i-1-0", some_facts())
        await channel.act("i-2-0", later(some_facts(), first.ref, "severity changed", severity=Severity.P0))
        await channel.act("i-3-0", over(some_facts(), first.ref))

    assert [each["content"] for each in api.short] == [r"**severity changed** [P0] LLM API is down"]
    assert "[RESOLVED]" in api.made[first.ref]["embeds"][0]["title"]


@pytest.mark.parametrize("name", ["pagerduty", "opsgenie", "victorops"])
async def test_an_acknowledgement_is_told_to_pagers_as_one(name: str) -> None:
    async with receiving(name) as (api, channel):
        first = await channel.act("i-1-0", some_facts())
        result: ActionResult = await channel.act("i-2-0", later(some_facts(), first.ref, "acknowledged"))

    call = api.changes[-1]
    assert result.ok and api.wrong == []
    assert "acknowledge" in f"{call.path} {call.body!r}".lower()
