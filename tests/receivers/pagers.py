"""PagerDuty's Events API v2, Opsgenie's alert API and Splunk On-Call's REST endpoint, as documented."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.receivers.api import SECRET, Api, Call, said


class PagerDutyApi(Api):
    settings = {"type": "pagerduty", "routing_key": f"{SECRET}{'0' * 20}", "api_url": "http://{place}"}

    async def answer(self, call: Call) -> web.Response:
        self.expect((call.method, call.path) == ("POST", "/v2/enqueue"), f"{call.method} {call.path}")
        event = call.json
        if len(event.get("routing_key", "")) != 32:
            return said({"status": "invalid event", "message": "Event object is invalid",
                         "errors": ["Length of 'routing_key' is incorrect (should be 32 characters)"]}, 400)  # fmt: skip
        self.expect(event["event_action"] in ("trigger", "acknowledge", "resolve"), event["event_action"])
        self.expect_text(event, "dedup_key", 255)
        payload = event.get("payload", {})
        if event["event_action"] == "trigger":
            self.expect_text(payload, "summary", 1024)
            self.expect_text(payload, "source", 1024)
            self.expect(payload["severity"] in ("critical", "error", "warning", "info"), payload["severity"])
        key = event["dedup_key"]
        state: dict[str, Any] = self.made.setdefault(key, {"open": False, "pages": 0})
        if event["event_action"] == "trigger" and not state["open"]:
            state |= {"open": True, "pages": state["pages"] + 1}
        elif event["event_action"] == "resolve":
            state["open"] = False
        return said({"status": "success", "message": "Event processed", "dedup_key": key}, 202)


class OpsgenieApi(Api):
    settings = {
        "type": "opsgenie",
        "api_key": SECRET,
        "api_url": "http://{place}",
        "responders": ["team:Platform", "user:ana@example.org"],
        "tags": ["llm"],
    }

    async def answer(self, call: Call) -> web.Response:
        if call.headers.get("Authorization") != f"GenieKey {SECRET}":
            return said({"message": "Could not authenticate"}, 401)
        taken = {"result": "Request will be processed", "took": 0.1, "requestId": "43a29c5c"}
        if call.path == "/v2/alerts":
            self.expect(call.method == "POST", call.method)
            alert = call.json
            self.expect_text(alert, "message", 130)
            self.expect_text(alert, "alias", 512)
            self.expect_text(alert, "description", 15000, least=0)
            self.expect(alert["priority"] in ("P1", "P2", "P3", "P4", "P5"), alert["priority"])
            self.expect(sum(len(k) + len(v) for k, v in alert["details"].items()) <= 8000, "details")
            self.expect(len(alert.get("entity", "")) <= 512, "entity")
            self.expect(
                all(("username" in each) == (each["type"] == "user") for each in alert["responders"]),
                "responders",
            )
            state = self.made.setdefault(alert["alias"], {"open": False, "pages": 0})
            if not state["open"]:
                state |= {"open": True, "pages": state["pages"] + 1}
            return said(taken, 202)
        _v2, _alerts, alias, verb = call.path.strip("/").split("/")
        self.expect(
            call.query.get("identifierType") == "alias", "identifierType: an id is expected otherwise"
        )
        self.expect(
            (call.method, verb)
            in {("POST", "close"), ("POST", "acknowledge"), ("POST", "notes"), ("PUT", "priority")},
            verb,
        )
        if verb == "notes":
            self.expect_text(call.json, "note", 25000)
        if verb == "close":
            self.made.setdefault(unquote(alias), {})["open"] = False
        return said(taken, 202)


class VictorOpsApi(Api):
    settings = {
        "type": "victorops",
        "api_key": SECRET,
        "routing_key": "database",
        "api_url": "http://{place}/generic/20131114/alert",
    }

    async def answer(self, call: Call) -> web.Response:
        self.expect(call.path == f"/generic/20131114/alert/{SECRET}/database", call.path)
        message = call.json
        kinds = ("CRITICAL", "WARNING", "ACKNOWLEDGEMENT", "INFO", "RECOVERY")
        self.expect(message["message_type"] in kinds, message["message_type"])
        self.expect_text(message, "entity_id", 512)
        self.expect_text(message, "entity_display_name", 512)
        self.expect_text(message, "state_message", 20480, least=0)
        state: dict[str, Any] = self.made.setdefault(message["entity_id"], {"open": False, "pages": 0})
        if message["message_type"] in ("CRITICAL", "WARNING") and not state["open"]:
            state |= {"open": True, "pages": state["pages"] + 1}
        elif message["message_type"] == "RECOVERY":
            state["open"] = False
        return said({"result": "success", "entity_id": message["entity_id"]})
