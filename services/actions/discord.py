"""Discord by a channel's webhook: one message an incident, edited as it changes. An edit is noticed by nobody, so what comes later
is also said in a short message of its own; a resolve is not.

What an answer means beside services/actions/http_call.py: a 429 says in its body how long to wait, to the millisecond.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from models.ports import ActionResult
from services.actions.channel import HttpChannel, json_bytes
from services.actions.http_call import Answer, Attempt, bounded_wait, with_ref
from services.actions.plain_text import cut, cut_line, for_discord, length
from services.actions.wording import Said

#: Discord's limits: of a message, and of an embed's title, text, field, fields, and all of them together.
CONTENT_CHARS, TITLE_CHARS, TEXT_CHARS, FIELD_CHARS, FIELDS_MAX, EMBED_CHARS = 2000, 256, 4096, 1024, 25, 6000
#: By severity, worst first; and when it is over.
COLORS, COLOR_OVER = (0xB60205, 0xD93F0B, 0xE8A33D, 0x5B8DEF, 0x8A8F98), 0x2DA44E
#: Discord's own code: the message was deleted.
UNKNOWN_MESSAGE = 10008
_MENTION = re.compile(r"<@(&?)!?(\d{15,22})>")


class DiscordChannel(HttpChannel):
    refs = re.compile(r"\d{1,25}")

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        super().__init__(name, given, escape=for_discord)
        self._url, _, self._query = given["url"].partition("?")
        self._mention = given["mention"]

    def body(self, said: Said) -> bytes:
        return json_bytes(self._message(said))

    async def send(self, attempt: Attempt, said: Said) -> ActionResult:
        if said.ref:
            answer = await attempt.call(
                "PATCH", self._at(f"/messages/{quote(said.ref, safe='')}"), self.body(said)
            )
            if answer.ok:
                if said.is_over:
                    return with_ref(answer.result, said.ref)
                short = {"content": self._content(said, f"**{for_discord(said.reason)}** {said.title}"),
                         "allowed_mentions": self._allowed(said)}  # fmt: skip
                again = await attempt.call("POST", self._at("", "wait=true"), json_bytes(short))
                return with_ref(_result(again), said.ref)
            if answer.status != 404 or answer.json.get("code") != UNKNOWN_MESSAGE:
                return _result(answer)
            if said.is_over:
                return replace(
                    answer.result,
                    ok=True,
                    detail=f"{answer.result.detail}: the message was deleted, nothing to update",
                )
        url = self._at("", "wait=true")
        answer = await attempt.call("POST", url, self.body(said))
        if not answer.ok:
            return _result(answer)
        if not (made := answer.text_of("id")):
            return attempt.refused(answer, url, "the answer names no message", reached=True)
        return with_ref(answer.result, made)

    def _at(self, path: str, query: str = "") -> str:
        asked = "&".join(each for each in (self._query, query) if each)
        return f"{self._url}{path}{'?' if asked else ''}{asked}"

    def _message(self, said: Said) -> dict[str, object]:
        embed: dict[str, object] = {
            "title": cut_line(said.title, TITLE_CHARS),
            "color": COLOR_OVER if said.is_over else COLORS[said.severity],
        }
        if said.link:
            embed["url"] = said.link
        left = EMBED_CHARS - length(str(embed["title"]))
        fields = []
        for name, value in said.fields[:FIELDS_MAX]:
            shown = cut_line(value or "-", FIELD_CHARS // 4)
            left -= length(name) + length(shown)
            fields.append({"name": name, "value": shown, "inline": True})
        if fields:
            embed["fields"] = fields
        if said.text:
            embed["description"] = cut(said.text, min(TEXT_CHARS, left))
        return {
            "content": self._content(said, ""),
            "embeds": [embed],
            "allowed_mentions": self._allowed(said),
        }

    def _content(self, said: Said, text: str) -> str:
        whom = "" if said.is_over else (said.mention or self._mention)
        words = [each if _is_mention(each) else for_discord(each) for each in whom.split()]
        return cut_line(" ".join([*words, *([text] if text else [])]), CONTENT_CHARS)

    def _allowed(self, said: Said) -> dict[str, object]:
        """Only those that the operator named are told; nothing that stands in an alert mentions anybody."""
        whom = "" if said.is_over else (said.mention or self._mention)
        found = _MENTION.findall(whom)
        words = set(whom.split())
        return {
            "parse": ["everyone"] if words & {"@here", "@everyone"} else [],
            "users": [each for role, each in found if not role],
            "roles": [each for role, each in found if role],
        }


def _is_mention(word: str) -> bool:
    return word in ("@here", "@everyone") or _MENTION.fullmatch(word) is not None


def _result(answer: Answer) -> ActionResult:
    wait_s = answer.json.get("retry_after")
    if answer.status == 429 and isinstance(wait_s, int | float):
        return replace(answer.result, retry_after_s=max(answer.result.retry_after_s, bounded_wait(wait_s)))
    return answer.result
