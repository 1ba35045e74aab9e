"""Action webhook: Alertmanager's webhook body, POSTed to one URL. How answers are understood: services/actions/http_post.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.incidents.notification import Facts, Note
from models.ports import ActionResult
from services.actions.http_post import HttpPost
from services.actions.kind import ActionKind
from services.actions.webhook_body import note_body, webhook_body


class WebhookAction:
    """Port Channel."""

    def __init__(
        self, url: str, *, receiver: str = "webhook", timeout_s: float = 10.0, external_url: str = ""
    ) -> None:
        """`external_url` is what links begin with; "" for none."""
        self.external_url = external_url
        self._receiver = receiver
        self._post = HttpPost(url, timeout_s=timeout_s)

    def render(self, facts: Facts) -> bytes:
        return webhook_body(facts, external_url=self.external_url, receiver=self._receiver)

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        return await self._post.post(key, self.render(facts), trace)

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        return await self._post.post(key, note_body(note, receiver=self._receiver), trace)

    async def close(self) -> None:
        await self._post.close()


def _open(name: str, given: Mapping[str, Any]) -> WebhookAction:
    return WebhookAction(
        given["url"], receiver=name, timeout_s=given["timeout"], external_url=given["external_url"]
    )


ACTION = ActionKind(_open)
