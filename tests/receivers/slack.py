"""Slack's Web API (chat.postMessage, chat.update) and an incoming webhook, as documented at docs.slack.dev."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from tests.receivers.api import SECRET, Api, Call, said


def check_message(api: Api, message: dict[str, Any]) -> None:
    api.expect_text(message, "text", 4000)
    api.expect(message.get("parse") == "none", "parse: chat.update defaults to client")
    api.expect(message.get("unfurl_links") is False and message.get("unfurl_media") is False, "unfurls")
    for attachment in message.get("attachments", []):
        blocks = attachment["blocks"]
        api.expect(1 <= len(blocks) <= 50, "1 to 50 blocks")
        for block in blocks:
            api.expect(block["type"] == "section", "section")
            if "text" in block:
                api.expect_text(block["text"], "text", 3000)
            api.expect("text" in block or block.get("fields"), "a section needs text or fields")
            api.expect(len(block.get("fields", [])) <= 10, "10 fields")
            for each in block.get("fields", []):
                api.expect(each["type"] == "mrkdwn", "mrkdwn")
                api.expect_text(each, "text", 2000)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [each for name, inner in value.items() for each in ([inner] if name == "text" and isinstance(inner, str) else _texts(inner))]  # fmt: skip
    return [each for inner in value for each in _texts(inner)] if isinstance(value, list) else []


class SlackApi(Api):
    settings = {
        "type": "slack",
        "token": f"xoxb-{SECRET}",
        "channel": "#incidents",
        "api_url": "http://{place}/api",
    }
    finds = False

    def __init__(self) -> None:
        super().__init__()
        self.posted: list[dict[str, Any]] = []
        self.updated: list[dict[str, Any]] = []

    async def answer(self, call: Call) -> web.Response:
        self.expect(call.method == "POST", call.method)
        if call.headers.get("Authorization") != f"Bearer xoxb-{SECRET}":
            return said({"ok": False, "error": "invalid_auth"})
        message = call.json
        check_message(self, message)
        if call.path == "/api/chat.postMessage":
            self.posted.append(message)
            self.expect(message.get("channel"), "channel")
            if "thread_ts" in message:
                self.expect(message["thread_ts"] in self.made, "thread_ts is no message's")
                self.expect(message["channel"] == "C024BE91L", "a thread's channel")
            ts = f"1700000000.{len(self.posted):06}"
            if "thread_ts" not in message:
                self.made[ts] = message
            return said({"ok": True, "channel": "C024BE91L", "ts": ts, "message": {"text": message["text"]}})
        if call.path == "/api/chat.update":
            self.expect(message.get("channel", "").startswith("C0"), "chat.update takes a channel's id only")
            if message.get("ts") not in self.made:
                return said({"ok": False, "error": "message_not_found"})
            self.made[message["ts"]] = message
            self.updated.append(message)
            return said(
                {"ok": True, "channel": message["channel"], "ts": message["ts"], "text": message["text"]}
            )
        return said({"ok": False, "error": "unknown_method"})

    def pinged(self) -> list[str]:
        """A mention is <!..>, <@..> or <#..>; any other link is to the incident."""
        return [found for call in self.changes for text in _texts(call.json)
                for found in re.findall(r"<[^>]*>", text) if not found.startswith("<https://im.example/")]  # fmt: skip


class SlackHookApi(SlackApi):
    settings = {"type": "slack", "url": f"http://{{place}}/services/T000/B000/{SECRET}"}
    keeps = False

    async def answer(self, call: Call) -> web.Response:
        self.expect(call.path == f"/services/T000/B000/{SECRET}", call.path)
        self.expect("channel" not in call.json, "a webhook has its channel")
        check_message(self, call.json)
        return web.Response(text="ok")
