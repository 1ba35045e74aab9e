"""A server that is polled over HTTP. Its URL stands in the settings, so that it may lead to any address, internal ones too
(services/actions/outbound.py); redirects are not followed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from models.errors import Unavailable
from services.actions.answers import cleaned_of_secrets, seconds_of
from services.actions.outbound import Answer, CallRefused, Outbound, place_of
from services.ingest.sources.fetching import Fetcher, Later
from services.ingest.sources.lease import LEASE_S
from services.ingest.sources.source import SourceNeeds


class HttpFetcher(Fetcher):
    """`settings` has the fields of models/settings/pull.py:PolledServer, secrets as they are."""

    def __init__(
        self, needs: SourceNeeds, kind: str, settings: Mapping[str, Any], *, lease_s: float = LEASE_S
    ) -> None:
        name = f"{kind}/{settings['name']}" if settings["name"] else kind
        super().__init__(needs, name, pause_s=settings["interval"], lease_s=lease_s)
        self.settings = settings
        self.url = str(settings["url"]).rstrip("/")
        cert, key = settings.get("cert_file"), settings.get("key_file")
        self._outbound = Outbound(
            ca_file=settings.get("ca_file") or "",
            own_cert=(cert, key) if cert and key else None,
            timeout_s=settings["timeout"],
        )
        self._headers = _credentials(settings)
        # Also as they are sent: some error pages show the request.
        sent = [each.partition(" ")[2] for each in self._headers.values()]
        self._secrets = [each for each in (settings.get("token"), settings.get("password"), *sent) if each]

    async def get(self, url: str, max_bytes: int, **headers: str) -> Answer:
        """A 200 with all of its body; one that is larger than `max_bytes` is cut. Raises Later, Unavailable."""
        try:
            answer = await self._outbound.call(
                "GET", url, headers={**self._headers, **headers}, max_bytes=max_bytes, trusted=True
            )
        except CallRefused as error:
            raise Unavailable(str(error)) from None
        if answer.status == 200:
            return answer
        said = cleaned_of_secrets(answer.text, self._secrets)
        why = f"{place_of(url)} answered {answer.status}" + (f": {said}" if said else "")
        if answer.status in (429, 503) and (wait_s := seconds_of(answer.headers.get("retry-after"))):
            raise Later(why, wait_s)
        raise Unavailable(why)

    async def close(self) -> None:
        await self._outbound.close()


def _credentials(settings: Mapping[str, Any]) -> dict[str, str]:
    if token := settings.get("token"):
        return {"Authorization": f"Bearer {token}"}
    if user := settings.get("username"):
        pair = f"{user}:{settings['password']}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}
