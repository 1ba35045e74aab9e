"""Action webhook: Alertmanager's webhook body, POSTed to one URL. How answers are understood: services/actions/http_post.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.incidents.notification import Facts
from models.ports import ActionResult
from services.actions.http_post import HttpPost
from services.actions.kind import ActionKind
from services.actions.webhook_body import webhook_body


class WebhookAction:
    """Port Action."""

    def __init__(self, url: str, *, timeout_s: float = 10.0, external_url: str = "") -> None:
        """`external_url` is what links begin with, and may be changed while it runs; "" for none."""
        self.external_url = external_url
        self._post = HttpPost(url, timeout_s=timeout_s)

    def render(self, facts: Facts) -> bytes:
        return webhook_body(facts, external_url=self.external_url)

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        return await self._post.post(key, self.render(facts), trace)

    async def close(self) -> None:
        await self._post.close()


def _open(given: Mapping[str, Any]) -> WebhookAction | None:
    if not given["webhook_url"]:
        return None
    return WebhookAction(
        given["webhook_url"],
        timeout_s=given["webhook_timeout_s"],
        external_url=given["webhook_external_url"],
    )


def _take(action: WebhookAction, given: Mapping[str, Any]) -> None:
    action.external_url = given["webhook_external_url"]


ACTION = ActionKind(_open, _take)
