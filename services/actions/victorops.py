"""Splunk On-Call (VictorOps) by its REST endpoint: one incident an incident, whose entity_id is the incident's id.

What an answer means beside services/actions/http_call.py: a failure may come as a 200 that says `"result": "failure"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from models.ports import ActionResult
from services.actions.channel import HttpChannel, json_bytes
from services.actions.http_call import Attempt, with_ref
from services.actions.plain_text import cut, cut_line
from services.actions.wording import Said

#: Its limits, in characters: of an entity_id, and of a message (20,480 bytes, as others have found).
ENTITY_CHARS, DISPLAY_CHARS, MESSAGE_CHARS = 512, 512, 20_000
#: Its words for our severities, worst first: INFO pages nobody.
TYPES = ("CRITICAL", "CRITICAL", "CRITICAL", "WARNING", "INFO")


class VictorOpsChannel(HttpChannel):
    opens = True

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        super().__init__(name, given, secrets=[given["api_key"]])
        place = given["api_url"].rstrip("/")
        self._url = f"{place}/{quote(given['api_key'], safe='')}/{quote(given['routing_key'], safe='')}"

    def body(self, said: Said) -> bytes:
        kind = (
            "RECOVERY"
            if said.is_over
            else "ACKNOWLEDGEMENT"
            if said.is_acknowledged
            else TYPES[said.severity]
        )
        message: dict[str, object] = {
            "message_type": kind,
            "entity_id": said.identity[:ENTITY_CHARS],
            "entity_display_name": cut_line(said.plain_title, DISPLAY_CHARS),
            "state_message": cut(said.all_text, MESSAGE_CHARS),
            "monitoring_tool": "LLM-Incident-Manager",
        }
        if said.started_at:
            message["state_start_time"] = int(said.started_at)
        if said.service:
            message["host_name"] = said.service
        if said.link:
            message |= {"alert_url": said.link, "vo_annotate.u.Incident": said.link}
        return json_bytes(message)

    async def send(self, attempt: Attempt, said: Said) -> ActionResult:
        answer = await attempt.call("POST", self._url, self.body(said))
        if not answer.ok:
            return answer.result
        if answer.json.get("result", "success") != "success":
            return attempt.refused(answer, self._url, answer.text_of("message") or answer.text)
        return with_ref(answer.result, answer.text_of("entity_id") or said.identity[:ENTITY_CHARS])
