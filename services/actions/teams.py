"""Microsoft Teams by a workflow's webhook: an adaptive card each time. A workflow can't change what it sent.

What an answer means beside services/actions/http_call.py: the connectors that workflows replaced answer 200 and say in the text
that the delivery failed, with the status that Teams gave them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from models.ports import ActionResult
from services.actions.answers import FINAL
from services.actions.channel import HttpChannel, json_bytes
from services.actions.http_call import Attempt
from services.actions.plain_text import cut_bytes, cut_line, for_markdown
from services.actions.wording import Said

#: Teams takes 28 KB with what it adds itself; this much is left for ours.
BODY_BYTES = 24_000
#: Of one field's value, and of the title: a card is no place for a log.
FIELD_CHARS, TITLE_CHARS = 500, 300
#: How the text is shortened until the card fits.
_TEXT_BYTES = (16_000, 8_000, 2_000, 200)
#: A container's style, by severity; and when it is over.
_STYLES, _STYLE_OVER = ("attention", "attention", "warning", "accent", "default"), "good"
#: How a connector says what Teams answered it.
_INNER_STATUS = re.compile(r"HTTP error (\d{3})")


class TeamsChannel(HttpChannel):
    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        super().__init__(name, given, escape=for_markdown)
        self._url = given["url"]

    def body(self, said: Said) -> bytes:
        for size in _TEXT_BYTES:
            data = json_bytes(_message(said, cut_bytes(said.text, size)))
            if len(data) <= BODY_BYTES:
                break
        return data

    async def send(self, attempt: Attempt, said: Said) -> ActionResult:
        answer = await attempt.call("POST", self._url, self.body(said))
        if answer.ok and "failed" in answer.text.lower():
            found = _INNER_STATUS.search(answer.text)
            status = int(found[1]) if found else 0
            return attempt.refused(
                answer, self._url, answer.text, final=status in FINAL, reached=status >= 500
            )
        return answer.result


def _message(said: Said, text: str) -> dict[str, object]:
    head = {
        "type": "TextBlock",
        "text": cut_line(said.title, TITLE_CHARS),
        "weight": "Bolder",
        "size": "Medium",
        "wrap": True,
    }
    style = _STYLE_OVER if said.is_over else _STYLES[said.severity]
    parts: list[dict[str, object]] = [{"type": "Container", "style": style, "bleed": True, "items": [head]}]
    if said.fields:
        facts = [{"title": name, "value": cut_line(value, FIELD_CHARS)} for name, value in said.fields]
        parts.append({"type": "FactSet", "facts": facts})
    # A paragraph each: a single line feed is no line break in a card.
    parts += [{"type": "TextBlock", "text": line, "wrap": True, "spacing": "Small"} for line in _lines(text)]
    card: dict[str, object] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": parts,
    }
    if said.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open the incident", "url": said.link}]
    content = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [content]}


#: Blocks of text in a card; the rest stays in the last one.
_LINES_MAX = 30


def _lines(text: str) -> list[str]:
    lines = [line for line in text.split("\n") if line.strip()]
    return lines[: _LINES_MAX - 1] + (
        ["\n\n".join(lines[_LINES_MAX - 1 :])] if len(lines) >= _LINES_MAX else []
    )
