"""A program that takes Alertmanager's webhook body, version 4, signed."""

from __future__ import annotations

import hashlib
import hmac

from aiohttp import web

from tests.receivers.api import SECRET, Api, Call


class WebhookApi(Api):
    settings = {
        "type": "webhook",
        "url": f"http://user:{SECRET}@{{place}}/hook?token={SECRET}",
        "signing_key": f"key-{SECRET}",
        "headers": {"X-Extra": SECRET},
    }
    keeps = finds = False

    async def answer(self, call: Call) -> web.Response:
        body = call.json
        self.expect(body["version"] == "4" and body["status"] in ("firing", "resolved"), "version, status")
        self.expect(body["alerts"], "alerts")
        self.expect(
            {"receiver", "groupKey", "groupLabels", "commonLabels", "truncatedAlerts"} <= body.keys(),
            "fields",
        )
        mark = hmac.new(f"key-{SECRET}".encode(), call.body, hashlib.sha256).hexdigest()
        self.expect(call.headers.get("X-LLM-IM-Signature") == f"v1={mark}", "signature")
        self.expect(call.headers.get("X-Extra") == SECRET, "headers")
        return web.Response()
