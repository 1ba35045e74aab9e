"""A program that takes a POST: Alertmanager's webhook body, or JSON by the operator's template, signed where it has a key.

How answers are understood: services/actions/http_call.py.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import msgspec

from models.errors import Malformed, Refused
from models.incidents.incident import IncidentState, IncidentType
from models.incidents.notification import RESOLVED, AlertFacts, Facts, Note
from models.ports import ActionResult
from services.actions.http_call import HttpCall
from services.actions.webhook_body import note_body, webhook_body
from services.actions.wording import NOTE, TEST, Wording, marked, variables

SIGNATURE = "X-LLM-IM-Signature"
#: The incident of a note that is about none.
NO_INCIDENT = bytes(16)


class WebhookChannel:
    """Port Channel."""

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        self.name = name
        self.wording = Wording(given, name=name)
        self._url = given["url"]
        self._external_url = given.get("external_url") or ""
        self._template = given.get("body") or ""
        self._signing_key = given.get("signing_key") or ""
        secrets = [given.get("password") or "", self._signing_key]
        headers = {**_authorization(given), **given.get("headers", {})}
        self._http = HttpCall(
            timeout_s=given["timeout"], headers=headers, secrets=secrets, ca_file=given.get("ca_file") or ""
        )

    def render(self, facts: Facts) -> bytes:
        """Raises Refused when the operator's template makes no JSON of these facts."""
        if not self._template:
            return webhook_body(facts, external_url=self._external_url, receiver=self.name)
        return self._by_template(facts)

    async def act(self, key: str, facts: Facts, trace: str | None = None) -> ActionResult:
        try:
            body = self.render(facts)
        except Refused as error:
            # Not final: the template may be mended while we try again.
            return ActionResult(ok=False, detail=f"the template of the body failed: {error}", reached=False)
        return await self._post(key, body, trace)

    async def say(self, key: str, note: Note, trace: str | None = None) -> ActionResult:
        note = marked(note, self.name)
        if self._template:
            return await self.act(key, facts_of_note(note, self.name), trace)
        return await self._post(key, note_body(note, receiver=self.name), trace)

    async def close(self) -> None:
        await self._http.close()

    async def _post(self, key: str, body: bytes, trace: str | None) -> ActionResult:
        headers = {SIGNATURE: signature(self._signing_key, body)} if self._signing_key else {}
        answer = await self._http.attempt(key, trace).call("POST", self._url, body, headers=headers)
        return answer.result

    def _by_template(self, facts: Facts) -> bytes:
        from models.playbook.template import render

        said = self.wording.of(facts)
        text = render(
            self._template, {**variables(facts, said.link, self.name), "title": said.title, "text": said.text}
        )
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Malformed(f"what it makes is no JSON: {error}") from None
        return text.encode()


def signature(key: str, body: bytes) -> str:
    """What stands in the header: `v1=` and the HMAC-SHA256 of the body, in hex."""
    return "v1=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def facts_of_note(note: Note, receiver: str) -> Facts:
    """A note as a notification of one alert, for the operator's template."""
    title = note.title or note.text.partition("\n")[0]
    labels = {"alertname": title, "severity": note.severity.name}
    alert = AlertFacts(
        labels, {"summary": title, "description": note.text}, "", 0.0, 0.0, 0.0, not note.resolves
    )
    return Facts(
        reason=RESOLVED if note.resolves else TEST if note.is_test else NOTE,
        incident_id=note.incident_id or NO_INCIDENT,
        tenant="",
        service="",
        title=title,
        description=note.text,
        severity=note.severity,
        type=IncidentType.UNKNOWN,
        state=IncidentState.RESOLVED if note.resolves else IncidentState.DETECTED,
        created_at=0.0,
        resolved_at=0.0,
        group_labels={"alertname": title},
        common_labels=labels,
        common_annotations=alert.annotations,
        alerts=[alert],
        total=1,
        receiver=receiver,
    )


def _authorization(given: Mapping[str, Any]) -> dict[str, str]:
    if token := given.get("bearer_token"):
        return {"Authorization": f"Bearer {token}"}
    if name := given.get("username"):
        words = base64.b64encode(f"{name}:{given['password']}".encode()).decode()
        return {"Authorization": f"Basic {words}"}
    return {}
