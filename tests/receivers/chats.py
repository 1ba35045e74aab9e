"""Microsoft Teams' workflows and Discord's webhooks, as documented."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from tests.receivers.api import SECRET, Api, Call, said

#: A link or an image of Markdown, whose brackets are not escaped.
LINK = re.compile(r"(?<!\\)\[[^\]\\]*(?<!\\)\]\(")


class TeamsApi(Api):
    settings = {
        "type": "teams",
        "url": f"http://{{place}}/workflows/abc/triggers/manual/paths/invoke?sig={SECRET}",
    }
    keeps = finds = False

    async def answer(self, call: Call) -> web.Response:
        self.expect(call.query.get("sig") == SECRET, "sig")
        self.expect(len(call.body) <= 28 * 1024, f"{len(call.body)} bytes, 28 KB at most")
        message = call.json
        self.expect(message.get("type") == "message", "type")
        [attachment] = message["attachments"]
        self.expect(attachment["contentType"] == "application/vnd.microsoft.card.adaptive", "contentType")
        card = attachment["content"]
        self.expect((card["type"], card["version"]) == ("AdaptiveCard", "1.4"), "card")
        self.expect("entities" not in card.get("msteams", {}), "mentions")
        for part in card["body"]:
            self.expect(part["type"] in ("TextBlock", "Container", "FactSet"), part["type"])
            if part["type"] == "TextBlock":
                self.expect_text(part, "text", 28_000)
        return web.Response(status=202)

    def pinged(self) -> list[str]:
        texts = [call.body.decode() for call in self.changes]
        return [
            found
            for text in texts
            for found in re.findall(r"<at>", text) + LINK.findall(text.replace("\\\\", "\\"))
        ]


class DiscordApi(Api):
    settings = {
        "type": "discord",
        "url": f"http://{{place}}/api/webhooks/223704706495545344/{SECRET}?thread_id=99",
    }
    finds = False

    def __init__(self) -> None:
        super().__init__()
        self.short: list[dict[str, Any]] = []

    async def answer(self, call: Call) -> web.Response:
        base = f"/api/webhooks/223704706495545344/{SECRET}"
        self.expect(call.query.get("thread_id") == "99", "thread_id")
        message = call.json
        self.expect(message["allowed_mentions"].get("parse") in ([], ["everyone"]), "allowed_mentions")
        self.expect(len(message.get("content", "")) <= 2000, "content")
        self.expect(message.get("content") or message.get("embeds"), "an empty message")
        for embed in message.get("embeds", []):
            self.expect_text(embed, "title", 256)
            parts = [embed["title"], embed.get("description", "")]
            if "description" in embed:
                self.expect_text(embed, "description", 4096)
            self.expect(len(embed.get("fields", [])) <= 25, "25 fields")
            for each in embed.get("fields", []):
                self.expect_text(each, "name", 256)
                self.expect_text(each, "value", 1024)
                parts += [each["name"], each["value"]]
            self.expect(sum(len(each.encode("utf-16-le")) // 2 for each in parts) <= 6000, "6000 in all")
        if call.method == "POST":
            self.expect(call.path == base, call.path)
            self.expect(call.query.get("wait") == "true", "without wait there is no id")
            made = str(1234567890000 + len(self.calls))
            if "embeds" in message:
                self.made[made] = message
            else:
                self.short.append(message)
            return said({"id": made, "type": 0, "content": message.get("content", "")})
        self.expect(call.method == "PATCH", call.method)
        known = call.path.removeprefix(f"{base}/messages/")
        if known not in self.made:
            return said({"message": "Unknown Message", "code": 10008}, 404)
        self.made[known] = message
        return said({"id": known})

    def pinged(self) -> list[str]:
        found = []
        for call in self.changes:
            allowed = call.json["allowed_mentions"]
            found += [*allowed["parse"], *allowed.get("users", []), *allowed.get("roles", [])]
            found += re.findall(r"@(?:everyone|here)|(?<!\\)<@", call.json.get("content", ""))
            found += LINK.findall(call.body.decode().replace("\\\\", "\\"))
        return found
