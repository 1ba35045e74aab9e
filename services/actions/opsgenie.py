"""Opsgenie: one alert an incident, whose alias is the incident's id. Creating it again changes nothing but a count, so what comes
later is added as a note, and a changed severity as its priority.

What an answer means beside services/actions/http_call.py: a request is taken with 202 before it is carried out. A 429 says in a header
of its own how long its window is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from models.ports import ActionResult
from services.actions.answers import seconds_of
from services.actions.channel import HttpChannel, json_bytes
from services.actions.http_call import Answer, Attempt, with_ref
from services.actions.plain_text import cut, cut_line
from services.actions.wording import Said

#: Opsgenie's limits, in characters.
MESSAGE_CHARS, DESCRIPTION_CHARS, NOTE_CHARS, ENTITY_CHARS, ALIAS_CHARS = 130, 15_000, 25_000, 512, 512
DETAILS_CHARS, TAG_CHARS = 8000, 50
SOURCE = "LLM-Incident-Manager"
#: How long a window of its rate limit is: in seconds.
_PERIOD = "x-ratelimit-period-in-sec"


class OpsgenieChannel(HttpChannel):
    opens = True

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        super().__init__(name, given, headers={"Authorization": f"GenieKey {given['api_key']}"})
        self._url = given["api_url"].rstrip("/") + "/v2/alerts"
        self._responders = [_responder(each) for each in given["responders"]]
        self._tags = [cut_line(each, TAG_CHARS) for each in given["tags"]]

    def body(self, said: Said) -> bytes:
        if said.is_over:
            return json_bytes({"source": SOURCE, "note": cut(f"{said.title}\n{said.all_text}", NOTE_CHARS)})
        if said.is_acknowledged:
            return json_bytes({"source": SOURCE, "note": said.plain_title})
        alert: dict[str, object] = {
            "message": cut_line(said.plain_title, MESSAGE_CHARS),
            "alias": said.identity[:ALIAS_CHARS],
            "description": cut("\n".join([said.text, said.link]).strip(), DESCRIPTION_CHARS),
            "details": _within(said.fields, DETAILS_CHARS),
            "source": SOURCE,
            "priority": _priority(said),
        }
        if said.service:
            alert["entity"] = cut_line(said.service, ENTITY_CHARS)
        if self._responders:
            alert["responders"] = self._responders
        if self._tags:
            alert["tags"] = self._tags
        return json_bytes(alert)

    async def send(self, attempt: Attempt, said: Said) -> ActionResult:
        if said.is_over or said.is_acknowledged:
            verb = "close" if said.is_over else "acknowledge"
            return _result(await attempt.call("POST", self._of(said, verb), self.body(said)), said)
        answer = await attempt.call("POST", self._url, self.body(said))
        if answer.ok and said.ref:
            answer = await attempt.call(
                "PUT", self._of(said, "priority"), json_bytes({"priority": _priority(said)})
            )
        if answer.ok and said.ref:
            note = {"source": SOURCE, "note": cut(f"{said.title}\n{said.all_text}", NOTE_CHARS)}
            answer = await attempt.call("POST", self._of(said, "notes"), json_bytes(note))
        return _result(answer, said)

    def _of(self, said: Said, what: str) -> str:
        return f"{self._url}/{quote(said.identity[:ALIAS_CHARS], safe='')}/{what}?identifierType=alias"


def _result(answer: Answer, said: Said) -> ActionResult:
    if answer.ok:
        return with_ref(answer.result, said.identity[:ALIAS_CHARS])
    if answer.status == 429 and not answer.result.retry_after_s:
        return replace(answer.result, retry_after_s=seconds_of(answer.headers.get(_PERIOD)))
    return answer.result


def _priority(said: Said) -> str:
    """P1 is its worst."""
    return f"P{said.severity + 1}"


def _responder(words: str) -> dict[str, str]:
    kind, _, name = words.partition(":")
    return {"type": kind, "username" if kind == "user" else "name": name.strip()}


def _within(fields: tuple[tuple[str, str], ...], limit: int) -> dict[str, str]:
    """As many as fit."""
    kept: dict[str, str] = {}
    for name, value in fields:
        limit -= len(name) + len(value)
        if limit < 0:
            break
        kept[name] = value
    return kept
