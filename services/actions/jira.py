"""Jira: one issue an incident, with a comment as it changes, and a transition when it is over or begins again.

Jira takes no idempotency key. An issue bears the incident's id as a label, and before one is made it is looked for: an answer that was
lost makes no second issue. (Its search lags by some seconds; no retry comes sooner than that by much.)
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from models.ports import ActionResult
from services.actions.channel import FINAL_OF_TICKETS, HttpChannel, json_bytes
from services.actions.http_call import Answer, Attempt, with_ref
from services.actions.plain_text import as_it_is, cut, cut_line, for_wiki
from services.actions.wording import Said

#: Jira's limits, in characters.
SUMMARY_CHARS, TEXT_CHARS = 255, 32_000
#: The category of statuses in which an issue is over.
DONE = "done"
_JSON = {"Accept": "application/json"}


class JiraChannel(HttpChannel):
    opens = True
    final = FINAL_OF_TICKETS
    refs = re.compile(r"[A-Z][A-Z0-9_]*-\d+")

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        self._is_cloud = given["api_version"] == "3"
        # The document format of version 3 holds text as text; the wiki markup of version 2 does not.
        super().__init__(
            name,
            given,
            escape=as_it_is if self._is_cloud else for_wiki,
            headers={"Authorization": _authorization(given["user"], given["token"]), **_JSON},
            secrets=[given["token"]],
        )
        self._api = f"{given['url'].rstrip('/')}/rest/api/{given['api_version']}"
        self._given = given

    def body(self, said: Said) -> bytes:
        """Of the issue, or of the comment below it."""
        if said.ref:
            return self._comment(said)
        given = self._given
        fields: dict[str, Any] = {
            **given["fields"],
            "project": {"key": given["project"]},
            "issuetype": {"name": given["issue_type"]},
            "summary": cut_line(said.plain_title, SUMMARY_CHARS),
            "description": self._text(said),
            "labels": [*given["labels"], _label(said)],
        }
        if given["priorities"]:
            fields["priority"] = {"name": given["priorities"][said.severity]}
        return json_bytes({"fields": fields})

    async def send(self, attempt: Attempt, said: Said) -> ActionResult:
        key, looked = (said.ref, None) if said.ref else await self._find(attempt, said)
        if looked is not None and not looked.ok:
            return looked.result
        if key:
            done = await self._change(attempt, said, key)
            if done is not None:
                return done
        if said.is_over:
            return ActionResult(ok=True, detail="there is no issue to resolve")
        answer = await attempt.call("POST", f"{self._api}/issue", self.body(_new(said)))
        if not answer.ok:
            return answer.result
        if not (made := answer.text_of("key")):
            return attempt.refused(answer, self._api, "the answer names no issue", reached=True)
        return with_ref(answer.result, made)

    async def _find(self, attempt: Attempt, said: Said) -> tuple[str, Answer]:
        """The key of the issue that was made for it before, "" if none was."""
        jql = f'project = "{self._given["project"]}" AND labels = "{_label(said)}" ORDER BY created DESC'
        asked = urlencode({"jql": jql, "fields": "status", "maxResults": 1})
        path = "search/jql" if self._is_cloud else "search"
        answer = await attempt.call("GET", f"{self._api}/{path}?{asked}")
        issues = answer.json.get("issues")
        first = issues[0] if isinstance(issues, list) and issues else {}
        return str(first.get("key", "")) if isinstance(first, dict) else "", answer

    async def _change(self, attempt: Attempt, said: Said, key: str) -> ActionResult | None:
        """Brings an issue to where the incident is, and says so below it. None: it is gone."""
        issue = f"{self._api}/issue/{quote(key, safe='')}"
        seen = await attempt.call("GET", f"{issue}?fields=status")
        if seen.status == 404:
            return None
        if not seen.ok:
            return seen.result
        status = _inner(_inner(seen.json.get("fields"), "status"), "statusCategory").get("key")
        if (status == DONE) != said.is_over and not said.is_acknowledged:
            moved = await self._move(attempt, issue, over=said.is_over)
            if not moved.ok:
                return moved
        # Last, because it is the one that a repeat would do twice.
        answer = await attempt.call("POST", f"{issue}/comment", self._comment(said))
        return with_ref(answer.result, key) if answer.ok else answer.result

    async def _move(self, attempt: Attempt, issue: str, *, over: bool) -> ActionResult:
        url = f"{issue}/transitions"
        answer = await attempt.call("GET", url)
        if not answer.ok:
            return answer.result
        name = self._given["resolve_transition" if over else "reopen_transition"]
        there = [each for each in answer.json.get("transitions") or [] if isinstance(each, dict)]
        for each in there:
            leads_to = _inner(_inner(each, "to"), "statusCategory").get("key")
            if each.get("name", "").casefold() == name.casefold() if name else (leads_to == DONE) == over:
                return (
                    await attempt.call("POST", url, json_bytes({"transition": {"id": str(each.get("id"))}}))
                ).result
        if not name and not over:
            return answer.result  # there is no way back: the comment says that it began again
        wanted = f"transition {name!r}" if name else "transition to a status that counts as done"
        names = ", ".join(str(each.get("name")) for each in there) or "none"
        return attempt.refused(answer, url, f"the issue has no {wanted} now; it has {names}")

    def _comment(self, said: Said) -> bytes:
        return json_bytes({"body": self._text(said, f"{said.title} ({said.reason})\n")})

    def _text(self, said: Said, head: str = "") -> object:
        text = cut(
            "\n".join([f"{head}{said.all_text}", *([said.link] if said.link else [])]).strip(), TEXT_CHARS
        )
        return _document(text) if self._is_cloud else text


def _new(said: Said) -> Said:
    return replace(said, ref="")


def _label(said: Said) -> str:
    return "llm-im-" + "".join(c if c.isalnum() or c in "-_." else "-" for c in said.identity)[:200]


def _authorization(user: str, token: str) -> str:
    if not user:
        return f"Bearer {token}"
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


def _inner(of: object, name: str) -> dict[str, Any]:
    found = of.get(name) if isinstance(of, dict) else None
    return found if isinstance(found, dict) else {}


def _document(text: str) -> dict[str, object]:
    """Text in Atlassian's document format: a paragraph of lines. An empty text node is refused, so there is none."""
    parts: list[dict[str, object]] = []
    for number, line in enumerate(text.split("\n")):
        if number:
            parts.append({"type": "hardBreak"})
        if line:
            parts.append({"type": "text", "text": line})
    return {"type": "doc", "version": 1, "content": [{"type": "paragraph", "content": parts}]}
