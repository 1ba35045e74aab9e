"""How notifications are sent, and tried again."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator, model_validator

from models.incidents.incident import WEBHOOK
from models.routes.route import ReceiverRow, Route
from models.settings.channels.base import ReceiverBase
from models.settings.channels.webhook import WebhookReceiver
from models.settings.processes import RESPONDER, SHARD
from models.settings.receivers import RECEIVERS_MAX, Receiver, action_of, given_of, wrong_name
from models.settings.routes import RootRoute, RouteSettings, check, tree_of
from models.settings.secrets import Secret, masked_values
from models.settings.values import (
    LIVE,
    NONE,
    Duration,
    Section,
    WrongAt,
    wrong_url,
)


class Webhook(Section):
    """The receiver `webhook`: a POST with Alertmanager's webhook v4 body. With further receivers, write it as one of them."""

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
        "",
        description="Base URL of links in the notifications of all receivers. Empty: no links.",
        json_schema_extra=LIVE,
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
    route: RootRoute = RootRoute()
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
    receivers: dict[str, Receiver] = Field(
        {},
        max_length=RECEIVERS_MAX,
        description='Who may be told, by name: `[notify.receivers.ops] type = "webhook"`, and what [its type](notifications.md#receivers) takes. A secret that was not there at the start needs a restart.',
        json_schema_extra=LIVE,
    )
    routes: list[RouteSettings] = Field(
        [],
        description="Who is told of what: a list of [routes](notifications.md#routes), asked in their order.",
        json_schema_extra=LIVE,
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Notify:
        for name in self.receivers:
            if wrong := wrong_name(name):
                raise WrongAt("receivers", wrong)
        if WEBHOOK in self.receivers and self.webhook.url is not None:
            there = "there is a receiver webhook already, which notify.webhook.url makes; use one of them"
            raise WrongAt("receivers.webhook", there)
        known = self.all_receivers
        for name, each in known.items():
            if each.fallback and each.fallback not in known:
                there = f"there is no receiver {each.fallback!r}; there are {', '.join(sorted(known))}"
                raise WrongAt(f"receivers.{name}.fallback", there)
            if name in _fallbacks_of(name, known):
                raise WrongAt(
                    f"receivers.{name}.fallback", "expected another than itself, also by way of others"
                )
        check(self.route, self.routes, known)
        if known and not self.root_receivers and not self.route.discard:
            names = ", ".join(sorted(known))
            wanted = f"expected who is told of what no route takes, one or more of {names}"
            raise WrongAt("route.receivers", wanted)
        return self

    @property
    def all_receivers(self) -> dict[str, ReceiverBase]:
        """Every receiver by its name, the one of notify.webhook among them."""
        found: dict[str, ReceiverBase] = dict(self.receivers)
        webhook = self.webhook
        if webhook.url is not None:
            found[WEBHOOK] = WebhookReceiver.model_construct(
                url=webhook.url, timeout=webhook.timeout, max_alerts=webhook.max_alerts
            )
        return found

    @property
    def root_receivers(self) -> tuple[str, ...]:
        """Who is told of what no route takes."""
        named = tuple(self.route.receivers)
        return named or ((WEBHOOK,) if WEBHOOK in self.all_receivers else ())

    @property
    def tree(self) -> Route:
        """The routes, each with what it inherits."""
        return tree_of(self.route, self.routes, self.root_receivers)

    @property
    def why_off(self) -> str:
        """Why no notifications are sent, or "" if they are."""
        if not self.enabled:
            return "notify.enabled is false (up --no-notify)"
        return "" if self.all_receivers else "no notify.webhook.url and no notify.receivers are set"

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        wait, receivers = self.wait, self.all_receivers
        if kind == RESPONDER:
            given = {
                name: {**given_of(each), "external_url": self.webhook.external_url}
                for name, each in receivers.items()
            }
            # What changes while it runs goes through the log: there a secret is masked, and the responder knows it by that.
            return {
                "receivers": given,
                "changed_receivers": masked_values(given),
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
                "receivers": {
                    name: ReceiverRow(
                        action_of(each),
                        each.max_alerts,
                        each.send_resolved,
                        each.fallback,
                        each.fallback_after,
                    )
                    for name, each in receivers.items()
                },
                "route": self.tree,
            }
        return {}


def _fallbacks_of(name: str, receivers: Mapping[str, ReceiverBase]) -> list[str]:
    """Who stands in for a receiver, one for the other; one that comes twice ends it."""
    found: list[str] = []
    while (row := receivers.get(name)) is not None and row.fallback and row.fallback not in found:
        found.append(name := row.fallback)
    return found
