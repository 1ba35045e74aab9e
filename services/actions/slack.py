"""Slack: one message an incident by the Web API, updated as it changes, with a thread below it; or a message each time by an
incoming webhook, which can't change what it sent.

What an answer means beside services/actions/http_call.py: the Web API says `"ok": false` in a 200. Of those errors some speak of
this one message (final), some of Slack's own trouble (somebody may have got it), and all others of settings or rights that may be
mended while we try again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.ports import ActionResult
from models.shard.telling import GREW
from services.actions.channel import HttpChannel, json_bytes
from services.actions.http_call import Answer, Attempt, with_ref
from services.actions.plain_text import cut, cut_line, for_slack
from services.actions.wording import Said

#: Slack's limits: of a message's text (40,000 are cut silently, from 4,000 on it is discouraged), a section, a field, fields in a section.
TEXT_CHARS, SECTION_CHARS, FIELD_CHARS, FIELDS_MAX = 4000, 3000, 2000, 10
#: By severity, worst first; and when it is over.
COLORS, COLOR_OVER = ("#b60205", "#d93f0b", "#e8a33d", "#5b8def", "#8a8f98"), "#2da44e"
#: What a person may write to mention somebody, as Slack writes it. All else is text.
_MENTIONS = {f"@{name}": f"<!{name}>" for name in ("here", "channel", "everyone")}
_MENTION = re.compile(r"<@[UW][A-Z0-9]+>|<!subteam\^S[A-Z0-9]+>|<!(?:here|channel|everyone)>")

#: Errors that speak of the message, which will not change.
_FINAL = frozenset(
    {"invalid_blocks", "invalid_blocks_format", "invalid_attachments", "msg_too_long", "msg_blocks_too_long", "no_text", "too_many_attachments",
     "invalid_arguments", "invalid_arg_name", "invalid_array_arg", "invalid_json", "json_not_object", "invalid_metadata_format"}
)  # fmt: skip
#: Errors of Slack itself: what it did before is not known.
_IN_DOUBT = frozenset({"internal_error", "fatal_error", "request_timeout", "service_unavailable"})
#: The message that should be updated can't be: another takes its place.
_GONE = frozenset(
    {"message_not_found", "cant_update_message", "edit_window_closed", "channel_not_found", "is_inactive"}
)
#: Errors that speak of the channel or person that one message is for, where others may be well.
_OF_PLACE = frozenset(
    {"channel_not_found", "not_in_channel", "is_archived", "is_inactive", "user_not_found", "user_disabled",
     "cannot_dm_bot", "channel_not_allowed", "restricted_action_read_only_channel"}
)  # fmt: skip
#: How long to wait where Slack limits the rate without saying for how long.
RATE_LIMITED_S = 30.0


class SlackChannel(HttpChannel):
    refs = re.compile(r"[A-Z0-9]+:\d+\.\d+")

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        token, self._hook = given["token"], given["url"] or ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        super().__init__(name, given, escape=for_slack, headers=headers)
        self._api = given["api_url"].rstrip("/")
        self._channel = given["channel"]
        self._mention = given["mention"]
        self._broadcast = given["broadcast"]

    def body(self, said: Said) -> bytes:
        return json_bytes(self._opening(said))

    async def send(self, attempt: Attempt, said: Said) -> ActionResult:
        if self._hook:
            return await self._post_to_hook(attempt, said)
        channel, _, ts = said.ref.partition(":")
        if ts:
            changed, result = await self._ask(
                attempt, "chat.update", {"channel": channel, "ts": ts, **self._message(said)}
            )
            if result.ok:
                return with_ref(await self._reply(attempt, said, channel, ts), said.ref)
            if changed.text_of("error") not in _GONE:
                return result
        answer, result = await self._ask(attempt, "chat.postMessage", self._opening(said))
        if not result.ok:
            is_of_place = bool(said.channel) and answer.text_of("error") in _OF_PLACE
            return replace(result, of_place=is_of_place)
        return with_ref(result, f"{answer.text_of('channel')}:{answer.text_of('ts')}")

    async def _reply(self, attempt: Attempt, said: Said, channel: str, ts: str) -> ActionResult:
        """What is new, in the thread: an update alone would be noticed by nobody."""
        text = f"*{for_slack(said.reason)}* {said.title}"
        reply = {
            **self._message(said),
            "text": self._with_mention(text, said),
            "channel": channel,
            "thread_ts": ts,
            "reply_broadcast": self._broadcast and not said.is_over and said.reason != GREW,
        }
        _answer, result = await self._ask(attempt, "chat.postMessage", reply)
        return result

    async def _ask(
        self, attempt: Attempt, method: str, message: Mapping[str, object]
    ) -> tuple[Answer, ActionResult]:
        url = f"{self._api}/{method}"
        answer = await attempt.call(
            "POST", url, json_bytes(message), media_type="application/json; charset=utf-8"
        )
        if not answer.ok or answer.json.get("ok") is True:
            return answer, answer.result
        error = answer.text_of("error") or "the answer is not one of Slack's"
        wait_s = RATE_LIMITED_S if error in ("ratelimited", "rate_limited") else 0.0
        refused = attempt.refused(
            answer, url, error, final=error in _FINAL, retry_after_s=wait_s, reached=error in _IN_DOUBT
        )
        return answer, refused

    async def _post_to_hook(self, attempt: Attempt, said: Said) -> ActionResult:
        answer = await attempt.call("POST", self._hook, self.body(said))
        if answer.ok and answer.text.strip() not in ("ok", ""):
            return attempt.refused(answer, self._hook, answer.text)
        return answer.result

    def _opening(self, said: Said) -> dict[str, object]:
        where = said.channel or self._channel
        return {**({"channel": where} if where and not self._hook else {}), **self._message(said)}

    def _message(self, said: Said) -> dict[str, object]:
        title = f"<{said.link}|{said.title}>" if said.link else said.title
        blocks: list[dict[str, object]] = []
        if said.fields:
            fields = [_mrkdwn(f"*{name}*\n{value}", FIELD_CHARS) for name, value in said.fields[:FIELDS_MAX]]
            blocks.append({"type": "section", "fields": fields})
        if said.text:
            blocks.append({"type": "section", "text": _mrkdwn(said.text, SECTION_CHARS)})
        color = COLOR_OVER if said.is_over else COLORS[said.severity]
        return {
            "text": self._with_mention(f"*{title}*", said),
            "attachments": [
                {"color": color, "fallback": cut_line(said.plain_title, TEXT_CHARS), "blocks": blocks}
            ]
            if blocks
            else [],
            # Nothing in an alert makes Slack look up names, or fetch pages.
            "parse": "none",
            "link_names": False,
            "unfurl_links": False,
            "unfurl_media": False,
        }

    def _with_mention(self, text: str, said: Said) -> str:
        whom = "" if said.is_over else _mentions(said.mention or self._mention)
        return cut_line(f"{whom} {text}" if whom else text, TEXT_CHARS)


def _mrkdwn(text: str, limit: int) -> dict[str, object]:
    return {"type": "mrkdwn", "text": cut(text, limit)}


def _mentions(words: str) -> str:
    return " ".join(
        word if _MENTION.fullmatch(word) else _MENTIONS.get(word) or for_slack(word) for word in words.split()
    )
