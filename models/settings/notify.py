"""How notifications are sent, and tried again."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from models.settings.processes import RESPONDER, SHARD
from models.settings.secrets import Secret
from models.settings.values import (
    LIVE,
    NONE,
    Duration,
    Section,
    wrong_url,
)


class Webhook(Section):
    """The first response: Alertmanager's webhook v4 body, sent by POST."""

    url: Secret | None = Field(
        None,
        description='Where notices are POSTed, `http://` or `https://`, sent as it is written; none, "none" or empty: nobody '
        "is told. A secret.",
    )
    timeout: Duration = Field(10.0, le=60, description="One try, from connecting to the end of the answer.")
    max_alerts: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Alerts shown in one body; `truncatedAlerts` counts the rest.",
        json_schema_extra=LIVE,
    )
    external_url: str = Field(
        "", description="What links in a notice begin with; empty: no links.", json_schema_extra=LIVE
    )

    @field_validator("url", mode="before")
    @classmethod
    def _may_be_none(cls, value: object) -> object:
        # A variable that is empty counts as unset; "none" says that nobody is told, whatever the file says.
        return None if isinstance(value, str) and value.strip().lower() in ("", NONE) else value

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: Secret | None) -> Secret | None:
        if value is not None and (wrong := wrong_url(value.get_secret_value())):
            raise ValueError(wrong)
        return value

    @field_validator("external_url")
    @classmethod
    def _is_link(cls, value: str) -> str:
        if value and (wrong := wrong_url(value)):
            raise ValueError(wrong)
        return value


class Wait(Section):
    """How long to wait before the first notice, so that a group is told of once."""

    P0: Duration = Field(0.0, description="Before the first notice of a P0.", json_schema_extra=LIVE)
    P1: Duration = Field(
        0.0, description="The same for P1, and for an incident nobody judged.", json_schema_extra=LIVE
    )
    P2: Duration = Field(30.0, description="The same for P2.", json_schema_extra=LIVE)
    P3: Duration = Field(120.0, description="The same for P3.", json_schema_extra=LIVE)
    P4: Duration = Field(300.0, description="The same for P4.", json_schema_extra=LIVE)


class Notify(Section):
    """How notices are sent, and tried again."""

    enabled: bool = Field(
        True,
        description="`false`: nobody is told, whatever webhook is set; `llm-im up --no-notify` says so for one start, as for a "
        "[restore drill](operate.md#test-a-restore).",
    )
    webhook: Webhook = Webhook()
    wait: Wait = Wait()
    interval: Duration = Field(
        60.0,
        description="Least time between two notices of one incident, but for a rise in severity. An end waits for it; when the "
        'alerts fire again meanwhile, nobody is told of either. "0s": every end and every reopening is told at once.',
        json_schema_extra=LIVE,
    )
    retry_first: Duration = Field(
        1.0, description="Wait before the first retry; doubles each time.", json_schema_extra=LIVE
    )
    retry_max: Duration = Field(300.0, description="Longest wait between retries.", json_schema_extra=LIVE)
    give_up_after: Duration = Field(
        86400.0,
        description="A notice nobody takes for this long is given up, and the timeline says so.",
        json_schema_extra=LIVE,
    )
    responders: int = Field(1, ge=1, le=16, description="Responder actors, `responder-0` ...")
    concurrency: int = Field(
        32, ge=1, le=1000, description="Calls under way at once from each responder to each receiver."
    )

    @property
    def why_off(self) -> str:
        """Why nobody is told of incidents, "" when somebody is."""
        if not self.enabled:
            return "notify.enabled is false (up --no-notify)"
        return "" if self.webhook.url is not None else "no notify.webhook.url is set"

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        webhook, wait = self.webhook, self.wait
        if kind == RESPONDER:
            return {
                "webhook_url": webhook.url,
                "webhook_timeout_s": webhook.timeout,
                "webhook_external_url": webhook.external_url,
                "concurrency": self.concurrency,
            }
        if kind == SHARD:
            return {
                "notify": not self.why_off,
                "wait_s": (wait.P0, wait.P1, wait.P2, wait.P3, wait.P4),
                "interval_s": self.interval,
                "retry_first_s": self.retry_first,
                "retry_max_s": self.retry_max,
                "give_up_after_s": self.give_up_after,
                "webhook_max_alerts": webhook.max_alerts,
            }
        return {}
