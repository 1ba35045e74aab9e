"""PagerDuty by its Events API v2: one alert an incident, whose dedup_key is the incident's id.

What an answer means beside services/actions/http_call.py: a 400 is final, unless it speaks of the routing key, which is a setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.incidents.notification import rfc3339
from models.ports import ActionResult
from services.actions.channel import HttpChannel, json_bytes
from services.actions.http_call import Attempt, with_ref
from services.actions.plain_text import cut, cut_line
from services.actions.wording import Said

#: PagerDuty's limits: of a summary and a dedup_key. A whole event may have 512 KB; ours is far below.
SUMMARY_CHARS, DEDUP_KEY_CHARS = 1024, 255
#: Of the text among the details.
TEXT_CHARS = 16_000
#: Its words for our severities, worst first.
SEVERITIES = ("critical", "error", "warning", "warning", "info")


class PagerDutyChannel(HttpChannel):
    opens = True

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        super().__init__(name, given, secrets=[given["routing_key"]])
        self._key = given["routing_key"]
        self._url = given["api_url"].rstrip("/") + "/v2/enqueue"

    def body(self, said: Said) -> bytes:
        event: dict[str, object] = {
            "routing_key": self._key,
            "event_action": "resolve"
            if said.is_over
            else "acknowledge"
            if said.is_acknowledged
            else "trigger",
            "dedup_key": said.identity[:DEDUP_KEY_CHARS],
            "payload": {
                "summary": cut_line(said.plain_title, SUMMARY_CHARS),
                "source": cut_line(said.service, SUMMARY_CHARS) or "llm-incident-manager",
                "severity": SEVERITIES[said.severity],
                **({"timestamp": rfc3339(said.started_at)} if said.started_at else {}),
                **({"component": said.service} if said.service else {}),
                **({"class": said.type} if said.type else {}),
                "custom_details": {**dict(said.fields), "Text": cut(said.text, TEXT_CHARS)},
            },
            "client": "LLM-Incident-Manager",
        }
        if said.link:
            event |= {"client_url": said.link, "links": [{"href": said.link, "text": "The incident"}]}
        return json_bytes(event)

    async def send(self, attempt: Attempt, said: Said) -> ActionResult:
        answer = await attempt.call("POST", self._url, self.body(said))
        if not answer.ok:
            is_our_setting = answer.status == 400 and "routing_key" in answer.text.lower().replace(" ", "_")
            return replace(answer.result, final=False) if is_our_setting else answer.result
        if answer.json.get("status", "success") != "success":
            return attempt.refused(answer, self._url, answer.text)
        return with_ref(answer.result, answer.text_of("dedup_key") or said.identity)
