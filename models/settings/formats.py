"""How the formats of other senders are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from models.settings.processes import GATEWAY
from models.settings.secrets import Secret
from models.settings.values import LIVE, Section

#: Each is tried on a body that has no name, one after the other.
MAPPINGS_MAX = 100

Level = Literal["P0", "P1", "P2", "P3", "P4"]


class JsonMapping(Section):
    """How any JSON becomes alerts. All but `name` are [JMESPath](https://jmespath.org) expressions."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$", description="Its path is `/v1/events/mapped/NAME`."
    )
    when: str = Field(
        "", description="True for a body of `/v1/events` that this is for. Empty: it must be named."
    )
    each: str = Field("", description="The list of alerts in a body. Empty: the body is one alert.")
    alertname: str = Field(description="What the alert is called; the same when it ends.")
    service: str = Field(description="The service; the same when it ends.")
    title: str = Field("", description="One line for a person.")
    description: str = Field("", description="More for a person.")
    severity: str = Field("", description="The severity, in the sender's words.")
    status: str = Field(
        "",
        description="What says whether it fires. `resolved`, `ok`, `closed`, `recovered`, `up` and `false` end it.",
    )
    starts_at: str = Field("", description="When it began.")
    ends_at: str = Field("", description="When it ended.")
    url: str = Field("", description="A link to it.")
    labels: dict[str, str] = Field({}, description="Further labels; the same when it ends.")
    annotations: dict[str, str] = Field({}, description="Further annotations.")


class Formats(Section):
    """How alerts of [other senders](formats.md) are read."""

    severities: dict[str, dict[str, Level]] = Field(
        {},
        description='What a sender\'s severities mean, by format: `{ datadog = { error = "P0" } }`. Words in lower case; `""` for an alert that names none. What is not there is as in [the table](formats.md#severities).',
        json_schema_extra=LIVE,
    )
    mappings: list[JsonMapping] = Field(
        [],
        max_length=MAPPINGS_MAX,
        description="JSON that no format knows; see [a mapping](formats.md#a-mapping).",
        json_schema_extra=LIVE,
    )
    github_secret: Secret | None = Field(
        None,
        description="Secret of GitHub's webhook. With it only requests with its signature are taken, and need no token. Secret.",
    )
    sentry_secret: Secret | None = Field(
        None, description="Client secret of Sentry's integration; likewise. Secret."
    )
    pagerduty_secret: Secret | None = Field(
        None, description="Signing secret of PagerDuty's webhook v3; likewise. Secret."
    )
    sns_topics: list[str] = Field(
        [],
        description="ARNs of Amazon SNS topics. What Amazon signed for one of them needs no token, and no other topic is taken. Empty: any topic, with a token.",
    )

    @field_validator("severities")
    @classmethod
    def _in_lower_case(cls, value: dict[str, dict[str, Level]]) -> dict[str, dict[str, Level]]:
        return {name: {word.lower(): level for word, level in table.items()} for name, table in value.items()}

    @field_validator("sns_topics")
    @classmethod
    def _are_topics(cls, value: list[str]) -> list[str]:
        for arn in value:
            if not arn.startswith("arn:aws") or arn.count(":") != 5:
                raise ValueError(
                    f"expected ARNs such as arn:aws:sns:eu-west-1:123456789012:alarms, not {arn!r}"
                )
        return value

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind != GATEWAY:
            return {}
        return {
            "github_secret": self.github_secret,
            "sentry_secret": self.sentry_secret,
            "pagerduty_secret": self.pagerduty_secret,
        }
