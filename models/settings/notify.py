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
    """The webhook that notifications go to: a POST with Alertmanager's webhook v4 body."""

    url: Secret | None = Field(
        None,
        description='URL to POST notifications to, `http://` or `https://`, used exactly as written. None, "none" or empty: no notifications are sent. Secret.',
    )
    timeout: Duration = Field(
        10.0, le=60, description="Longest time for one attempt, from connecting to the end of the response."
    )
    max_alerts: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Most alerts in one body; `truncatedAlerts` counts the rest.",
        json_schema_extra=LIVE,
    )
    external_url: str = Field(
        "", description="Base URL of links in notifications. Empty: no links.", json_schema_extra=LIVE
    )

    @field_validator("url", mode="before")
    @classmethod
    def _may_be_none(cls, value: object) -> object:
        # An empty variable counts as unset; "none" turns notifications off, whatever the file says.
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
    """How long to wait before the first notification, so that alerts arriving together are sent as one."""

    P0: Duration = Field(0.0, description="Before the first notification of a P0.", json_schema_extra=LIVE)
    P1: Duration = Field(
        0.0,
        description="The same for P1, and for incidents that have not been classified.",
        json_schema_extra=LIVE,
    )
    P2: Duration = Field(30.0, description="The same for P2.", json_schema_extra=LIVE)
    P3: Duration = Field(120.0, description="The same for P3.", json_schema_extra=LIVE)
    P4: Duration = Field(300.0, description="The same for P4.", json_schema_extra=LIVE)


class Notify(Section):
    """How notifications are sent and retried."""

    enabled: bool = Field(
        True,
        description="`false`: no notifications are sent, whatever webhook is set. `llm-im up --no-notify` sets it for one start, for example for a [restore drill](operate.md#test-a-restore).",
    )
    webhook: Webhook = Webhook()
    wait: Wait = Wait()
    interval: Duration = Field(
        60.0,
        description='Shortest time between two notifications of one incident; a rise in severity does not wait. A `resolved` waits too, and if the alerts fire again meanwhile, neither is sent. "0s": every resolve and every reopening is sent at once.',
        json_schema_extra=LIVE,
    )
    retry_first: Duration = Field(
        1.0, description="Wait before the first retry. Doubles each time.", json_schema_extra=LIVE
    )
    retry_max: Duration = Field(300.0, description="Longest wait between retries.", json_schema_extra=LIVE)
    give_up_after: Duration = Field(
        86400.0,
        description="A notification that has failed for this long is given up, and the timeline records it.",
        json_schema_extra=LIVE,
    )
    responders: int = Field(1, ge=1, le=16, description="Number of responder processes (`responder-0` ...).")
    concurrency: int = Field(
        32, ge=1, le=1000, description="Most calls in flight from each responder to each receiver."
    )

    @property
    def why_off(self) -> str:
        """Why no notifications are sent, or "" if they are."""
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
