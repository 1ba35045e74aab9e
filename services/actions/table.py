"""All types of receivers by name, ours and those that other packages add, and the receivers of one responder. Used by
services/wiring/bootstrap.py.

A package adds a type by an entry point of group GROUP: an ActionKind, under the name that `kind` of the receiver bears.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, cast

import structlog

from actors.responder import DEADLINE_S
from models.ports import Channel
from models.settings.secrets import MASKED
from services.actions.discord import DiscordChannel
from services.actions.email import EmailChannel
from services.actions.github import GitHubChannel
from services.actions.jira import JiraChannel
from services.actions.kind import ActionKind
from services.actions.opsgenie import OpsgenieChannel
from services.actions.pagerduty import PagerDutyChannel
from services.actions.servicenow import ServiceNowChannel
from services.actions.slack import SlackChannel
from services.actions.teams import TeamsChannel
from services.actions.victorops import VictorOpsChannel
from services.actions.webhook import WebhookChannel
from services.wiring.extensions import extended

log = structlog.get_logger()

GROUP = "llm_incident_manager.actions"
ACTIONS: dict[str, ActionKind] = {
    "webhook": ActionKind(WebhookChannel),
    "email": ActionKind(EmailChannel),
    "slack": ActionKind(SlackChannel),
    "teams": ActionKind(TeamsChannel),
    "discord": ActionKind(DiscordChannel),
    "pagerduty": ActionKind(PagerDutyChannel),
    "opsgenie": ActionKind(OpsgenieChannel),
    "victorops": ActionKind(VictorOpsChannel),
    "jira": ActionKind(JiraChannel),
    "servicenow": ActionKind(ServiceNowChannel),
    "github": ActionKind(GitHubChannel),
}


class Actions:
    """The receivers of one responder. `by_name` is one object for good, and changes with the settings.

    A receiver that is not configured any more stays until the process ends: what it was told of, it can still be told the
    end of.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        """`given` are a responder's settings (models/settings/notify.py): the receivers with their secrets, and as they look
        when they are masked. One that can't be opened is named in the log and skipped."""
        self.by_name: dict[str, Channel] = {}
        self._kinds = extended(GROUP, ActionKind, ACTIONS)
        self._given: dict[str, Mapping[str, Any]] = {}
        #: Those that were replaced, until what they were sending is over.
        self._ending: set[asyncio.Task[None]] = set()
        self._ca_file = given["outbound_ca_file"]
        self._secrets = _secrets_of(given["receivers"], given["changed_receivers"])
        self._use(given["receivers"])

    @property
    def typed(self) -> Mapping[str, tuple[str, Channel]]:
        """The receivers by name, each with its type: a view that changes with the settings."""
        return _Typed(self.by_name, self._given)

    def take(self, given: Mapping[str, Any]) -> None:
        """Use the changed settings. A secret arrives masked, and is known from the start by its mask."""
        self._use(cast(Mapping[str, Mapping[str, Any]], self._unmasked(given["changed_receivers"])))

    def _use(self, receivers: Mapping[str, Mapping[str, Any]]) -> None:
        for name, given in receivers.items():
            if self._given.get(name) == given:
                continue
            self._given[name] = given
            try:
                ca_file = given.get("ca_file") or self._ca_file
                channel = self._kinds[given["action"]].open(name, {**given, "ca_file": ca_file})
            except Exception as error:  # noqa: BLE001  # one receiver's fault is no other's; its text may hold a secret
                log.error("receiver can't be set up, skipped", name=name, why=type(error).__name__)
                continue
            if name in self.by_name:
                task = asyncio.get_running_loop().create_task(_close_later(self.by_name[name]))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
            self.by_name[name] = channel

    def _unmasked(self, value: object) -> object:
        if isinstance(value, str):
            return self._secrets.get(value, value)
        if isinstance(value, Mapping):
            return {name: self._unmasked(each) for name, each in value.items()}
        return [self._unmasked(each) for each in value] if isinstance(value, list | tuple) else value


class _Typed(Mapping[str, tuple[str, Channel]]):
    def __init__(self, channels: Mapping[str, Channel], given: Mapping[str, Mapping[str, Any]]) -> None:
        self._channels = channels
        self._given = given

    def __getitem__(self, name: str) -> tuple[str, Channel]:
        return self._given[name]["action"], self._channels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    def __len__(self) -> int:
        return len(self._channels)


async def _close_later(channel: Channel) -> None:
    await asyncio.sleep(DEADLINE_S)
    await channel.close()


def _secrets_of(plain: object, masked: object) -> dict[str, str]:
    """Each secret by its mask, from the same settings with and without them."""
    if isinstance(plain, str) and isinstance(masked, str):
        return {masked: plain} if plain != masked and masked.startswith(MASKED) else {}
    found: dict[str, str] = {}
    if isinstance(plain, Mapping) and isinstance(masked, Mapping):
        for name in plain:
            found |= _secrets_of(plain[name], masked[name])
    elif isinstance(plain, list | tuple) and isinstance(masked, list | tuple):
        for each, its_mask in zip(plain, masked, strict=True):
            found |= _secrets_of(each, its_mask)
    return found
