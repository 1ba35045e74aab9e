"""All types of receivers, and what a receiver may be called. Each type is a file in models/settings/channels/."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Tag

from models.settings.channels.base import ReceiverBase
from models.settings.channels.discord import DiscordReceiver
from models.settings.channels.email import EmailReceiver
from models.settings.channels.github import GitHubReceiver
from models.settings.channels.jira import JiraReceiver
from models.settings.channels.opsgenie import OpsgenieReceiver
from models.settings.channels.other import OtherReceiver
from models.settings.channels.pagerduty import PagerDutyReceiver
from models.settings.channels.servicenow import ServiceNowReceiver
from models.settings.channels.slack import SlackReceiver
from models.settings.channels.teams import TeamsReceiver
from models.settings.channels.victorops import VictorOpsReceiver
from models.settings.channels.webhook import WebhookReceiver


def _type_of(value: object) -> object:
    return value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)


#: One receiver as one writes it: `type` says which class it is. A type is added here and in RECEIVER_TYPES.
Receiver = Annotated[
    Annotated[WebhookReceiver, Tag("webhook")]
    | Annotated[EmailReceiver, Tag("email")]
    | Annotated[SlackReceiver, Tag("slack")]
    | Annotated[TeamsReceiver, Tag("teams")]
    | Annotated[DiscordReceiver, Tag("discord")]
    | Annotated[PagerDutyReceiver, Tag("pagerduty")]
    | Annotated[OpsgenieReceiver, Tag("opsgenie")]
    | Annotated[VictorOpsReceiver, Tag("victorops")]
    | Annotated[JiraReceiver, Tag("jira")]
    | Annotated[ServiceNowReceiver, Tag("servicenow")]
    | Annotated[GitHubReceiver, Tag("github")]
    | Annotated[OtherReceiver, Tag("other")],
    Discriminator(_type_of),
]
#: By the name in `type`.
RECEIVER_TYPES: dict[str, type[ReceiverBase]] = {
    "webhook": WebhookReceiver,
    "email": EmailReceiver,
    "slack": SlackReceiver,
    "teams": TeamsReceiver,
    "discord": DiscordReceiver,
    "pagerduty": PagerDutyReceiver,
    "opsgenie": OpsgenieReceiver,
    "victorops": VictorOpsReceiver,
    "jira": JiraReceiver,
    "servicenow": ServiceNowReceiver,
    "github": GitHubReceiver,
    "other": OtherReceiver,
}

#: More receivers are no configuration that a person wrote.
RECEIVERS_MAX = 500
#: A name is part of an idempotency key, of metrics and of paths.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def wrong_name(name: str) -> str:
    """What is wrong with a receiver's name, "" if nothing is."""
    if _NAME.fullmatch(name):
        return ""
    return f"{name[:80]!r}: expected a name of at most 63 letters, digits, dots, dashes and underscores"


def action_of(receiver: ReceiverBase) -> str:
    """The name of its type among the actions (services/actions/table.py)."""
    return receiver.kind if isinstance(receiver, OtherReceiver) else str(getattr(receiver, "type"))  # noqa: B009


def given_of(receiver: ReceiverBase) -> dict[str, object]:
    """What an action is opened with: its own fields; what another package's type takes, as if these were fields of it."""
    fields = {"action": action_of(receiver), **receiver.model_dump()}
    if isinstance(receiver, OtherReceiver):
        fields |= {**receiver.settings, **receiver.secrets}
    return fields
