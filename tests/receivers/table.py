"""The table of receivers of the tests, and channels that are opened at them as a responder opens them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from models.incidents.incident import IncidentState
from models.incidents.notification import RESOLVED, AlertFacts, Facts
from models.ports import Channel
from models.settings.receivers import RECEIVER_TYPES, action_of, given_of
from models.settings.secrets import revealed
from services.actions.table import ACTIONS
from tests.facts import some_facts
from tests.receivers.api import Api, serving
from tests.receivers.chats import DiscordApi, TeamsApi
from tests.receivers.pagers import OpsgenieApi, PagerDutyApi, VictorOpsApi
from tests.receivers.slack import SlackApi, SlackHookApi
from tests.receivers.tickets import GitHubApi, JiraApi, JiraDataCenterApi, ServiceNowApi
from tests.receivers.webhooks import WebhookApi

CHANNELS: dict[str, type[Api]] = {
    "webhook": WebhookApi,
    "slack": SlackApi,
    "slack by webhook": SlackHookApi,
    "teams": TeamsApi,
    "discord": DiscordApi,
    "pagerduty": PagerDutyApi,
    "opsgenie": OpsgenieApi,
    "victorops": VictorOpsApi,
    "jira": JiraApi,
    "jira data center": JiraDataCenterApi,
    "servicenow": ServiceNowApi,
    "github": GitHubApi,
}
#: Where something stays open until it is told of the end.
OPENING = ("pagerduty", "opsgenie", "victorops", "jira", "jira data center", "servicenow", "github")
#: Where what was made has a life of its own: it can be deleted there.
DELETABLE = ("slack", "discord", "jira", "jira data center", "github", "servicenow")
KEY = "0190a5f4-1-0"

HOSTILE = (
    "<!channel> <!here> <@U024BE7LH> @everyone @here <@80351110224678912> <@&165511591545143296> @octocat #1 GH-2 "
    "[click](http://evil.example) ![x](http://evil.example/p.png) [~admin] {code}x{code} !http://evil.example/p.png! "
    "[code]<script>alert(1)</script>[/code] <at>Ana</at> \x00\x07\x1b[31m \u202egnp.exe \ud83d\ude00 ü 😀 `x` **b** \\"
)


def hostile(text: str) -> Facts:
    labels = {"alertname": text, "service": text, text[:50]: text}
    alert = AlertFacts(labels, {"summary": text, "description": text}, text, 1.7e9, 0.0, 1.7e9, True)
    return some_facts(
        title=text, description=text, service=text, group_labels=labels, common_labels=labels, common_annotations=alert.annotations,
        alerts=[alert] * 100, total=5000,
    )  # fmt: skip


def settings_of(name: str, place: str, **settings: object) -> dict[str, object]:
    """Of a receiver, as one writes them."""
    written = {key: value.replace("{place}", place) if isinstance(value, str) else value
               for key, value in CHANNELS[name].settings.items()}  # fmt: skip
    return {**written, **settings}


def opened(name: str, place: str, **settings: object) -> Channel:
    """The channel as a responder opens it."""
    checked = RECEIVER_TYPES[CHANNELS[name].settings["type"]].model_validate(
        settings_of(name, place, **settings)
    )
    plain = revealed({**given_of(checked), "external_url": "https://im.example/"})
    # As it travels to its process.
    return ACTIONS[action_of(checked)].open("ops", msgspec.msgpack.decode(msgspec.msgpack.encode(plain)))


@asynccontextmanager
async def receiving(name: str, **settings: object) -> AsyncIterator[tuple[Api, Channel]]:
    api = CHANNELS[name]()
    async with serving(api.handle) as place:
        channel = opened(name, place, **settings)
        try:
            yield api, channel
        finally:
            await channel.close()


def answering(status: int, text: str = "", headers: dict[str, str] | None = None) -> Any:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return handler


def later(facts: Facts, ref: str, reason: str, **values: object) -> Facts:
    return msgspec.structs.replace(facts, ref=ref, reason=reason, **values)


def over(facts: Facts, ref: str = "") -> Facts:
    return later(facts, ref, RESOLVED, state=IncidentState.RESOLVED, resolved_at=1.7e9 + 600)
