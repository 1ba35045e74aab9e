"""Jira (both versions of its REST API), ServiceNow's Table API and GitHub's issues, as documented."""

from __future__ import annotations

import base64
import re
from typing import Any

from aiohttp import web

from tests.receivers.api import SECRET, Api, Call, said
from tests.receivers.chats import LINK


class JiraApi(Api):
    settings = {
        "type": "jira",
        "url": "http://{place}",
        "user": "im@example.org",
        "token": SECRET,
        "project": "OPS",
    }
    final = frozenset({413})
    version = "3"
    authorization = "Basic " + base64.b64encode(f"im@example.org:{SECRET}".encode()).decode()
    search = "search/jql"

    async def answer(self, call: Call) -> web.Response:
        if call.headers.get("Authorization") != self.authorization:
            return said({"errorMessages": ["Client must be authenticated"]}, 401)
        self.expect(call.path.startswith(f"/rest/api/{self.version}/"), call.path)
        path = call.path.removeprefix(f"/rest/api/{self.version}/")
        if path == self.search:
            self.expect(call.query.get("fields"), "without fields there are only ids")
            label = re.search(r'labels = "([^"]+)"', call.query["jql"])
            self.expect(label, call.query["jql"])
            found = [{"id": "1", "key": key, "fields": {}} for key, each in self.made.items()
                     if label and label[1] in each["labels"]]  # fmt: skip
            return said({"issues": found[:1], "isLast": True})
        if path == "issue":
            fields = call.json["fields"]
            self.expect(
                fields["project"] == {"key": "OPS"} and fields["issuetype"] == {"name": "Task"}, "fields"
            )
            self.expect_text(fields, "summary", 255)
            self.expect("\n" not in fields["summary"], "a summary has one line")
            self.expect(all(" " not in label for label in fields["labels"]), "labels have no spaces")
            self._check_text(fields["description"])
            key = f"OPS-{len(self.made) + 1}"
            self.made[key] = {"open": True, "labels": fields["labels"], "comments": 0}
            return said({"id": "10000", "key": key, "self": "http://x"}, 201)
        _issue, key, *rest = path.split("/")
        if key not in self.made:
            return said(
                {"errorMessages": ["Issue does not exist or you do not have permission to see it."]}, 404
            )
        return self._about(self.made[key], call, rest)

    def _about(self, issue: dict[str, Any], call: Call, rest: list[str]) -> web.Response:
        way = {"id": "31", "name": "Done"} if issue["open"] else {"id": "11", "name": "Reopen"}
        category = {True: "new", False: "done"}
        match call.method, rest:
            case "GET", []:
                return said(
                    {"fields": {"status": {"name": "x", "statusCategory": {"key": category[issue["open"]]}}}}
                )
            case "GET", ["transitions"]:
                to = {"statusCategory": {"key": category[not issue["open"]]}}
                here = {
                    "id": "99",
                    "name": "Stay",
                    "to": {"statusCategory": {"key": category[issue["open"]]}},
                }
                return said({"transitions": [here, {**way, "to": to}]})
            case "POST", ["transitions"]:
                if call.json["transition"]["id"] != way["id"]:
                    return said(
                        {
                            "errorMessages": [
                                "It seems that you have tried to perform an illegal workflow operation."
                            ]
                        },
                        400,
                    )
                issue["open"] = not issue["open"]
                return web.Response(status=204)
            case "POST", ["comment"]:
                self._check_text(call.json["body"])
                issue["comments"] += 1
                return said({"id": "1"}, 201)
        return said({"errorMessages": []}, 405)

    def _check_text(self, text: Any) -> None:
        """Atlassian's document format."""
        self.expect(text["type"] == "doc" and text["version"] == 1, "doc")
        [paragraph] = text["content"]
        for part in paragraph["content"]:
            self.expect(part["type"] in ("text", "hardBreak"), part["type"])
            if part["type"] == "text":
                self.expect_text(part, "text", 32767)
                self.expect("marks" not in part and "\n" not in part["text"], "marks")


class JiraDataCenterApi(JiraApi):
    settings = {
        "type": "jira",
        "url": "http://{place}",
        "token": SECRET,
        "project": "OPS",
        "api_version": "2",
    }
    version = "2"
    authorization = f"Bearer {SECRET}"
    search = "search"

    def _check_text(self, text: Any) -> None:
        """Wiki markup."""
        self.expect_text({"text": text}, "text", 32767)

    def pinged(self) -> list[str]:
        bodies = [call.json for call in self.changes]
        texts = [str(each.get("body") or each.get("fields", {}).get("description")) for each in bodies]
        return [
            found
            for text in texts
            for found in re.findall(r"(?<!\\)\[~|(?<!\\)\{code|(?<!\\)!http", text.replace("\\\\", "\\"))
        ]


class ServiceNowApi(Api):
    settings = {
        "type": "servicenow",
        "url": "http://{place}",
        "username": "im",
        "password": SECRET,
        "assignment_group": "Ops",
    }
    final = frozenset({413})

    async def answer(self, call: Call) -> web.Response:
        if call.headers.get("Authorization") != "Basic " + base64.b64encode(f"im:{SECRET}".encode()).decode():
            return said({"error": {"message": "User Not Authenticated"}, "status": "failure"}, 401)
        self.expect(call.headers.get("Accept") == "application/json", "XML is answered otherwise")
        self.expect(call.path.startswith("/api/now/table/incident"), call.path)
        made = call.path.removeprefix("/api/now/table/incident").strip("/")
        if call.method == "GET":
            name, _, value = call.query["sysparm_query"].partition("^")[0].partition("=")
            found = [
                {"sys_id": each["sys_id"], "state": each["state"]}
                for each in self.made.values()
                if each[name] == value
            ]
            return said({"result": found[-1:]})
        record = call.json
        if call.method == "POST":
            self.expect_text(record, "short_description", 160)
            self.expect_text(record, "description", 4000)
            self.expect_text(record, "correlation_id", 100)
            self.expect(record["impact"] in "123" and record["urgency"] in "123", "impact, urgency")
            sys_id = f"{len(self.made):032x}"
            self.made[sys_id] = {**record, "sys_id": sys_id, "state": "1", "open": True}
            return said({"result": self._shown(call, sys_id)}, 201)
        self.expect(call.method == "PATCH", call.method)
        if made not in self.made:
            return said({"error": {"message": "No Record found"}, "status": "failure"}, 404)
        if record.get("state") == "6":
            self.expect(record.get("close_code") and record.get("close_notes"), "a resolve needs both")
            self.expect_text(record, "close_notes", 4000)
        if "work_notes" in record:
            self.expect_text(record, "work_notes", 4000)
        self.made[made] |= record
        self.made[made]["open"] = self.made[made]["state"] in ("1", "2", "3")
        return said({"result": self._shown(call, made)})

    def _shown(self, call: Call, sys_id: str) -> dict[str, Any]:
        fields = call.query.get("sysparm_fields", "").split(",")
        return {name: value for name, value in self.made[sys_id].items() if fields == [""] or name in fields}

    def pinged(self) -> list[str]:
        return [found for call in self.changes for found in re.findall(r"\[code\]", call.body.decode())]


class GitHubApi(Api):
    settings = {
        "type": "github",
        "repository": "example/ops",
        "token": SECRET,
        "api_url": "http://{place}",
        "labels": ["incident"],
    }
    final = frozenset({413})

    async def answer(self, call: Call) -> web.Response:
        if call.headers.get("Authorization") != f"Bearer {SECRET}":
            return said({"message": "Bad credentials"}, 401)
        self.expect(call.headers.get("X-GitHub-Api-Version") == "2022-11-28", "version")
        self.expect(call.headers.get("User-Agent"), "GitHub refuses requests without User-Agent")
        self.expect(call.path.startswith("/repos/example/ops/issues"), call.path)
        rest = call.path.removeprefix("/repos/example/ops/issues").strip("/").split("/")
        if rest == [""] and call.method == "GET":
            self.expect(call.query["state"] == "all" and int(call.query["per_page"]) <= 100, "query")
            return web.json_response(
                [{"number": int(n), "body": each["body"]} for n, each in self.made.items()]
            )
        message = call.json
        if rest == [""]:
            self.expect_text(message, "title", 256)
            self.expect_text(message, "body", 65536)
            number = str(len(self.made) + 1)
            self.made[number] = {"open": True, "body": message["body"], "comments": 0}
            return said({"number": int(number), "state": "open"}, 201)
        if rest[0] not in self.made:
            return said({"message": "Not Found"}, 404)
        if rest[1:] == ["comments"]:
            self.expect_text(message, "body", 65536)
            self.made[rest[0]]["comments"] += 1
            return said({"id": 1}, 201)
        self.expect(call.method == "PATCH" and message["state"] in ("open", "closed"), "PATCH")
        self.made[rest[0]]["open"] = message["state"] == "open"
        return said({"number": int(rest[0])})

    def pinged(self) -> list[str]:
        found = []
        for call in self.changes:
            for text in (str(call.json.get("title", "")), str(call.json.get("body", ""))):
                # A mention is an @ before a name; a reference a # before a number.
                found += re.findall(r"@[\w-]+|#\d+", text)
            found += LINK.findall(str(call.json.get("body", "")))
        return found
