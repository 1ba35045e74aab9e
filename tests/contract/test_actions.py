"""The promise of port Channel, kept by the webhook and by a channel that another package adds. All of ours have more to keep:
tests/contract/test_channels.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog.testing
from aiohttp import web

from actors.responder import ResponderActor
from models.ports import Channel
from models.settings.all import Settings
from models.settings.processes import RESPONDER
from models.settings.secrets import holds_secret, revealed
from models.shard.assembly import decode_message
from models.shard.effects import Act
from models.shard.messages import ActionOutcome
from services.actions.kind import ActionKind
from services.actions.table import ACTIONS, GROUP, Actions
from tests.api.test_responder import HOST
from tests.contract.test_action_webhook import Handler, a_server, answering
from tests.extension import install
from tests.facts import some_facts
from tests.ports import free_port

pytestmark = pytest.mark.asyncio

#: What stands in a URL and must never be told.
SECRET = "s3cr3t-t0ken"
TIMEOUT_S = 0.3


def webhook(place: str) -> Settings:
    url = f"http://user:{SECRET}@{place}/hook?token={SECRET}"
    return Settings.model_validate({"notify": {"webhook": {"url": url, "timeout": TIMEOUT_S}}})


def toy(place: str) -> Settings:
    url = f"http://user:{SECRET}@{place}/hook?token={SECRET}"
    settings, secrets = {"prefix": ""}, {"url": url}
    receiver = {
        "type": "other",
        "kind": "toy",
        "settings": settings,
        "secrets": secrets,
        "timeout": TIMEOUT_S,
    }
    notify = {"receivers": {"toy": receiver}, "route": {"receivers": ["toy"]}}
    return Settings.model_validate({"notify": notify})


#: By the action's name, the settings that send it to a receiver at host:port, with SECRET wherever it takes one.
STANDS: dict[str, Callable[[str], Settings]] = {"webhook": webhook}

#: Somebody else's action: a line of text.
TOY = """
    from services.actions.http_call import HttpCall
    from services.actions.kind import ActionKind

    class ToyAction:
        def __init__(self, url, timeout_s, prefix=""):
            self._url, self._http = url, HttpCall(timeout_s=timeout_s)
            self.prefix = prefix

        def render(self, facts):
            return f"{self.prefix}{facts.severity.name} {facts.service}: {facts.title} ({facts.reason})".encode()

        async def act(self, key, facts, trace=None):
            return await self._post(key, self.render(facts), trace)

        async def say(self, key, note, trace=None):
            return await self._post(key, note.text.encode(), trace)

        async def _post(self, key, body, trace):
            attempt = self._http.attempt(key, trace)
            return (await attempt.call("POST", self._url, body, media_type="text/plain")).result

        async def close(self):
            await self._http.close()

    ACTION = ActionKind(lambda name, given: ToyAction(given["url"], given["timeout"], given["prefix"]))
"""


@pytest.fixture(params=["webhook", "toy"])
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An action's name; the last one is another package's, installed for the test."""
    if request.param == "toy":
        install(tmp_path, monkeypatch, "toypager", GROUP, {"toy": "{module}:ACTION"}, TOY)
        monkeypatch.setitem(STANDS, "toy", toy)
    return str(request.param)


def opened(name: str, place: str) -> Channel:
    """The action, as a responder's process opens it."""
    return Actions(given(STANDS[name](place))).by_name[name]


def given(settings: Settings) -> dict[str, Any]:
    """What a responder is given, as it travels to its process."""
    plain = revealed(settings.given_to(RESPONDER))
    return msgspec.msgpack.decode(msgspec.msgpack.encode(plain))  # type: ignore[no-any-return]


async def outcome(name: str, handler: Handler, key: str = "key-1", **facts: object) -> Any:
    async with a_server(handler) as place:
        action = opened(name, place)
        try:
            return await action.act(key, some_facts(**facts))
        finally:
            await action.close()


async def test_no_receiver_is_there_by_default() -> None:
    assert Actions(given(Settings())).by_name == {}


async def test_a_success_arrives_with_its_idempotency_key_and_what_the_dry_run_shows(name: str) -> None:
    got: list[tuple[bytes, str | None]] = []

    async def handler(request: web.Request) -> web.Response:
        got.append((await request.read(), request.headers.get("Idempotency-Key")))
        return web.Response()

    result = await outcome(name, handler)

    assert (result.ok, result.final) == (True, False)
    assert got == [(opened(name, "127.0.0.1:1").render(some_facts()), "key-1")]


@pytest.mark.parametrize("reason", ["opened", "resolved", "severity changed"])
async def test_a_dry_run_of_the_same_facts_is_the_same_and_needs_no_receiver(name: str, reason: str) -> None:
    facts = some_facts(reason=reason)

    first, second = (opened(name, "127.0.0.1:1").render(facts) for _ in range(2))

    assert first == second
    assert b"LLM API is down" in first and reason.encode() in first


async def test_facts_without_anything_optional_and_with_odd_letters_can_be_worded(name: str) -> None:
    odd = 'ü"\\\n\x00\u200b😀'
    bare = some_facts(
        title=odd,
        description="",
        group_labels={},
        common_labels={},
        common_annotations={},
        alerts=[],
        total=0,
    )

    assert opened(name, "127.0.0.1:1").render(bare)


@pytest.mark.parametrize(
    ("status", "final", "reached"),
    [
        (400, True, False),
        (401, False, False),
        (404, False, False),
        (408, False, True),
        (413, True, False),
        (422, True, False),
        (429, False, False),
        (500, False, True),
        (503, False, True),
    ],
)
async def test_what_is_tried_again_and_what_is_final(
    name: str, status: int, final: bool, reached: bool
) -> None:
    result = await outcome(name, answering(status, headers={"Retry-After": "7"}))

    assert (result.ok, result.final, result.reached, result.retry_after_s) == (False, final, reached, 7.0)


async def test_a_receiver_that_hangs_is_given_up_in_time_and_may_have_got_it(name: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with asyncio.timeout(10):
        result = await outcome(name, handler)

    assert (result.ok, result.final, result.reached) == (False, False, True)


async def test_nobody_listening_is_tried_again_and_has_reached_nobody(name: str) -> None:
    action = opened(name, f"127.0.0.1:{free_port()}")

    result = await action.act("k", some_facts())
    await action.close()

    assert (result.ok, result.final, result.reached) == (False, False, False)
    assert SECRET not in result.detail


@pytest.mark.parametrize("status", [400, 403, 500])
async def test_no_secret_is_told_by_a_receiver_that_echoes_it(name: str, status: int) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text=f"bad {request.url} {request.path_qs} {SECRET}")

    assert SECRET not in (await outcome(name, handler)).detail


async def test_closing_is_safe_twice_and_before_anything_was_sent(name: str) -> None:
    action = opened(name, "127.0.0.1:1")

    await action.close()
    await action.close()


async def test_a_responder_acts_at_the_receiver_that_the_effect_names(name: str) -> None:
    async with a_server(answering(200)) as place:
        responder = ResponderActor(HOST, {"somebody": opened(name, place)})
        effect = Act(b"i" * 16, 1, 0, name, "somebody", "k", some_facts())
        said = decode_message(await responder.act(msgspec.msgpack.encode(effect)))
        await responder.stop()

    assert isinstance(said, ActionOutcome) and said.ok


# -- settings -------------------------------------------------------------------------------------------------


async def test_a_changed_link_is_in_what_the_webhook_says_next() -> None:
    actions = Actions(given(webhook("127.0.0.1:1")))
    before = actions.by_name["webhook"].render(some_facts())

    changed = {"notify": {"webhook": {"url": "http://a", "external_url": "https://im.example/"}}}
    told = Settings.model_validate(changed).given_to(RESPONDER)
    # As a change travels: without secrets.
    actions.take({name: value for name, value in told.items() if not holds_secret(value)})

    after = actions.by_name["webhook"].render(some_facts())
    assert b"https://im.example/v1/incidents/" in after and b"https://im.example" not in before


async def test_another_packages_action_that_fails_costs_the_webhook_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        from services.actions.kind import ActionKind
        ACTION = ActionKind(lambda name, given: 1 / 0)
    """
    install(tmp_path, monkeypatch, "broken", GROUP, {"broken": "{module}:ACTION"}, code)
    both = webhook("127.0.0.1:1").model_dump(exclude_defaults=True)
    both["notify"]["receivers"] = {"theirs": {"type": "other", "kind": "broken"}}

    with structlog.testing.capture_logs() as logs:
        actions = Actions(given(Settings.model_validate(both)))

    assert set(actions.by_name) == {"webhook"}
    assert [(each["event"], each["name"]) for each in logs] == [
        ("receiver can't be set up, skipped", "theirs")
    ]


async def test_a_receiver_that_comes_with_a_reload_uses_a_secret_of_the_start_and_one_that_went_stays() -> (
    None
):
    async with a_server(answering(200)) as place:
        before = {"ops": {"type": "webhook", "url": f"http://{place}/one?token={SECRET}"}}
        after = {"dev": {**before["ops"], "max_alerts": 7}}
        started, changed = (
            Settings.model_validate({"notify": {"receivers": table, "route": {"receivers": [*table]}}})
            for table in (before, after)
        )
        actions = Actions(given(started))
        receivers = actions.by_name

        told = changed.given_to(RESPONDER)
        live = {name: value for name, value in told.items() if not holds_secret(value)}
        assert SECRET not in repr(live)
        actions.take(live)
        results = [await receivers[name].act("k", some_facts()) for name in ("ops", "dev")]
        for channel in receivers.values():
            await channel.close()

    assert [each.ok for each in results] == [True, True]


async def test_a_package_cannot_stand_in_for_the_webhook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "rival", GROUP, {"webhook": "{module}:ACTION"}, TOY)

    action = opened("webhook", "127.0.0.1:1")

    assert action.render(some_facts()).startswith(b"{")
    assert isinstance(ACTIONS["webhook"], ActionKind)
