"""What every channel by HTTP says: hostile texts, templates, notes and tests. What they promise beside: tests/contract/test_channels.py."""

import json

import pytest

from models.incidents.notification import Note
from tests.facts import some_facts
from tests.receivers.table import CHANNELS, HOSTILE, KEY, OPENING, hostile, later, opened, over, receiving

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=CHANNELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("text", [HOSTILE, HOSTILE * 500, "&<>" * 30_000, "😀" * 50_000, "\x00"])
async def test_hostile_texts_arrive_within_all_limits_and_mention_nobody(name: str, text: str) -> None:
    if name == "webhook":
        pytest.skip("a body for programs holds what the alerts hold, all of it")
    async with receiving(name) as (api, channel):
        first = await channel.act("i-1-0", hostile(text))
        second = await channel.act("i-2-0", later(hostile(text), first.ref, "severity changed"))
        third = await channel.act("i-3-0", over(hostile(text), second.ref))
        said = await channel.say("k", Note(text, title=text))

    assert [each.ok for each in (first, second, third, said)] == [True] * 4, (first, second, third, said)
    assert api.wrong == [] and api.pinged() == []


async def test_what_was_cut_says_so(name: str) -> None:
    if name == "webhook":
        pytest.skip("a body for programs is not cut: max_alerts bounds it, and truncatedAlerts says so")
    async with receiving(name, text="{{ labels.long }}") as (api, channel):
        result = await channel.act(KEY, some_facts(common_labels={"long": "x" * 65_000}))

    assert result.ok and api.wrong == []
    assert "…" in json.dumps(api.changes[0].json, ensure_ascii=False)


async def test_a_runbook_can_be_opened(name: str) -> None:
    """No escape stands in its URL, whatever the channel's markup is."""
    annotations = {"runbook_url": "https://wiki.example/a_b_c/*d*/@e?x=[1]#part"}
    async with receiving(name) as (api, channel):
        result = await channel.act(KEY, some_facts(common_annotations=annotations))

    assert result.ok and api.wrong == [] and api.pinged() == []
    expected = (
        "a_b_c/*d*/@e?x=[1]#part"
        if name == "webhook"
        else "https://wiki.example/a%5Fb%5Fc/%2Ad%2A/%40e?x=%5B1%5D#part"
    )
    assert expected in api.changes[0].body.decode()


async def test_facts_without_anything_optional_can_be_told(name: str) -> None:
    bare = some_facts(
        title="",
        service="",
        description="",
        group_labels={},
        common_labels={},
        common_annotations={},
        alerts=[],
        total=0,
    )
    async with receiving(name) as (api, channel):
        result = await channel.act(KEY, bare)

    assert result.ok and [each for each in api.wrong if each != "alerts"] == []


# -- templates and notes ----------------------------------------------------------------------------------------


async def test_the_operators_words_take_the_place_of_ours(name: str) -> None:
    if name == "webhook":
        settings = {"body": '{"what": {{ title | tojson }}, "more": {{ text | tojson }}}'}
    else:
        settings = {}
    async with receiving(
        name, title="ALERT {{ incident.title }}", text="Call {{ labels.service }} now", **settings
    ) as (api, channel):
        await channel.act(KEY, some_facts())

    sent = api.changes[0].body.decode()
    assert "ALERT LLM API is down" in sent and "Call llm-api now" in sent


async def test_a_template_that_fails_keeps_nobody_from_being_told(name: str) -> None:
    if name == "webhook":
        pytest.skip("a body by a template has no other form: see below")
    async with receiving(name, title="{{ nothing.there }}", text="{{ 'x' * 10**10 }}") as (api, channel):
        result = await channel.act(KEY, some_facts())

    sent = api.changes[0].body.decode()
    assert result.ok and api.wrong == []
    assert "LLM API is down" in sent and "The template of the title failed" in sent.replace("\\\\", "")


@pytest.mark.parametrize("body", ["{{ nothing }}", "{% if true %}no json{% endif %}"])
async def test_a_body_that_is_no_json_is_not_sent_and_said(body: str) -> None:
    async with receiving("webhook", body=body) as (api, channel):
        result = await channel.act(KEY, some_facts())

    assert (result.ok, result.final, result.reached, api.calls) == (False, False, False, [])
    assert "the template of the body failed" in result.detail


async def test_a_mention_in_the_operators_template_is_one_and_in_a_label_is_none() -> None:
    async with receiving("slack", text="<!here> look: {{ labels.team }}") as (api, channel):
        await channel.act(KEY, some_facts(common_labels={"team": "<!channel>"}))

    assert api.pinged() == ["<!here>"]


@pytest.mark.parametrize(
    ("name", "mention", "found"),
    [
        ("slack", "@here <!subteam^S012AB3CD>", {"<!here>", "<!subteam^S012AB3CD>"}),
        ("slack by webhook", "<@U024BE7LH>", {"<@U024BE7LH>"}),
        ("discord", "@everyone", {"everyone", "@everyone"}),
        ("discord", "<@&165511591545143296>", {"165511591545143296", "<@"}),
    ],
)
async def test_whom_the_settings_mention_is_told_until_it_is_over(
    name: str, mention: str, found: set[str]
) -> None:
    async with receiving(name, mention=mention) as (api, channel):
        await channel.act("i-1-0", some_facts())
        told = set(api.pinged())
        api.calls.clear()
        await channel.act("i-2-0", over(some_facts()))

    assert told == found and api.pinged() == []


async def test_a_note_is_said(name: str) -> None:
    async with receiving(name) as (api, channel):
        result = await channel.say(
            "run-1-step", Note("The model was switched", title="Failover", incident_id=b"i" * 16)
        )

    assert result.ok and api.wrong == []
    assert b"Failover" in api.changes[0].body and b"The model was switched" in api.changes[0].body


@pytest.mark.parametrize("name", OPENING)
async def test_a_note_can_end_what_was_opened_for_its_incident(name: str) -> None:
    async with receiving(name) as (api, channel):
        await channel.act("i-1-0", some_facts())
        result = await channel.say(
            "run-1-step", Note("The restart helped", incident_id=b"i" * 16, resolves=True)
        )

    assert result.ok and api.wrong == []
    assert len(api.made) == 1 and api.open_ones() == []


async def test_a_test_says_that_it_is_one_and_leaves_nothing_open(name: str) -> None:
    async with receiving(name) as (api, channel):
        result = await channel.say("test-1", Note("Does this arrive?", title="Hello", is_test=True))

    assert result.ok and api.wrong == []
    assert b"test" in api.changes[0].body.lower()
    if name in OPENING:
        assert len(api.made) == 1 and api.open_ones() == []


async def test_closing_is_safe_twice_and_before_anything_was_sent(name: str) -> None:
    channel = opened(name, "127.0.0.1:1")

    await channel.close()
    await channel.close()
