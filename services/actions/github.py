"""GitHub Issues: one issue an incident, with comments as it changes, closed with it and opened again.

GitHub takes no idempotency key. An issue bears the incident's id in a comment that nobody sees, and before one is made it is looked for
among those that changed since the incident began: an answer that was lost makes no second issue.

What an answer means beside services/actions/http_call.py: a 403 or 429 without calls left says in a header when there are more.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from models.incidents.notification import rfc3339
from models.ports import ActionResult
from services.actions.channel import FINAL_OF_TICKETS, HttpChannel, json_bytes
from services.actions.http_call import Answer, Attempt, bounded_wait, with_ref
from services.actions.plain_text import cut, cut_line, for_github, without_mentions
from services.actions.wording import Said

#: GitHub's limits, in characters: a body may have 65,536.
TITLE_CHARS, BODY_CHARS = 256, 60_000
#: Issues that are looked through for one that was made before, and the bytes of an answer with so many long ones.
LOOKED_AT, LOOKED_AT_BYTES = 30, 8 * 1024 * 1024
#: A clock of ours may be ahead of theirs.
_LOOK_BACK_S = 3600.0
_GONE = (404, 410)


class GitHubChannel(HttpChannel):
    opens = True
    final = FINAL_OF_TICKETS
    refs = re.compile(r"\d{1,20}")

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        headers = {
            "Authorization": f"Bearer {given['token']}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        super().__init__(name, given, escape=for_github, headers=headers)
        self._issues = f"{given['api_url'].rstrip('/')}/repos/{given['repository']}/issues"
        self._given = given

    def body(self, said: Said) -> bytes:
        """Of the issue, or of the comment below it."""
        if said.ref:
            return json_bytes({"body": _text(said, f"**{said.title}** ({for_github(said.reason)})\n\n")})
        issue: dict[str, object] = {
            "title": cut_line(without_mentions(said.plain_title), TITLE_CHARS),
            "body": f"{_text(said)}\n\n{_mark(said)}",
        }
        if self._given["labels"]:
            issue["labels"] = self._given["labels"]
        if self._given["assignees"]:
            issue["assignees"] = self._given["assignees"]
        return json_bytes(issue)

    async def send(self, attempt: Attempt, said: Said) -> ActionResult:
        made = said.ref
        if not made:
            looked, made = await self._find(attempt, said)
            if not looked.ok:
                return _result(looked)
        if made:
            url = f"{self._issues}/{quote(made, safe='')}"
            state = {"state": "closed", "state_reason": "completed"} if said.is_over else {"state": "open"}
            answer = await attempt.call("PATCH", url, json_bytes(state))
            if answer.ok:
                # Last, because it is the one that a repeat would do twice.
                answer = await attempt.call("POST", f"{url}/comments", self.body(replace(said, ref=made)))
            if answer.ok or answer.status not in _GONE:
                return with_ref(_result(answer), made)
        if said.is_over:
            return ActionResult(ok=True, detail="there is no issue to close")
        answer = await attempt.call("POST", self._issues, self.body(replace(said, ref="")))
        if not answer.ok:
            return _result(answer)
        if not (number := answer.text_of("number")):
            return attempt.refused(answer, self._issues, "the answer names no issue", reached=True)
        return with_ref(answer.result, number)

    async def _find(self, attempt: Attempt, said: Said) -> tuple[Answer, str]:
        """The number of the issue that was made for it before, "" if none was."""
        asked: dict[str, object] = {
            "state": "all",
            "sort": "created",
            "direction": "desc",
            "per_page": LOOKED_AT,
        }
        if said.started_at:
            asked["since"] = rfc3339(said.started_at - _LOOK_BACK_S)
        answer = await attempt.call("GET", f"{self._issues}?{urlencode(asked)}", max_bytes=LOOKED_AT_BYTES)
        mark = _mark(said)
        for issue in answer.value if answer.ok and isinstance(answer.value, list) else ():
            if (
                isinstance(issue, dict)
                and mark in str(issue.get("body") or "")
                and isinstance(issue.get("number"), int)
            ):
                return answer, str(issue["number"])
        return answer, ""


def _text(said: Said, head: str = "") -> str:
    fields = "\n".join(f"- **{name}:** {value}" for name, value in said.fields)
    parts = [f"{head}{said.text}" if said.text or not head else head.strip(), fields, said.link]
    return cut("\n\n".join(each for each in parts if each), BODY_CHARS)


def _mark(said: Said) -> str:
    identity = "".join(c for c in said.identity if c.isalnum() or c in "-_.:")
    return f"<!-- llm-im {identity.replace('--', '-')} -->"


def _result(answer: Answer) -> ActionResult:
    wait_s = 0.0
    if answer.status in (403, 429) and answer.headers.get("x-ratelimit-remaining") == "0":
        reset = answer.headers.get("x-ratelimit-reset", "")
        wait_s = bounded_wait(float(reset[:12]) - time.time()) if reset.isdigit() else 0.0
    return replace(answer.result, retry_after_s=max(answer.result.retry_after_s, wait_s))
