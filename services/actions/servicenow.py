"""ServiceNow by its Table API: one record an incident, with work notes as it changes, resolved with it.

A record bears the incident's id as its correlation_id, and before one is made it is looked for: an answer that was lost makes no
second record.

What an answer means beside services/actions/http_call.py: an instance that sleeps answers 200 with a page of HTML. What names no record
is a failure.
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
from services.actions.plain_text import cut, cut_line, for_servicenow
from services.actions.wording import Said

#: ServiceNow's limits, in characters.
SHORT_CHARS, TEXT_CHARS, CORRELATION_CHARS = 160, 4000, 100
#: Only the name of the record is answered: a whole one may be longer than what is read.
_BRIEFLY = "?sysparm_fields=sys_id"
#: States of an incident.
IN_PROGRESS, RESOLVED, CLOSED, CANCELED = "2", "6", "7", "8"


class ServiceNowChannel(HttpChannel):
    opens = True
    final = FINAL_OF_TICKETS
    refs = re.compile(r"[0-9a-f]{32}")

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        token = given["token"]
        basic = base64.b64encode(f"{given['username']}:{given['password']}".encode()).decode()
        super().__init__(
            name,
            given,
            escape=for_servicenow,
            headers={
                "Authorization": f"Bearer {token}" if token else f"Basic {basic}",
                "Accept": "application/json",
            },
            secrets=[given["password"] or ""],
        )
        self._table = f"{given['url'].rstrip('/')}/api/now/table/{given['table']}"
        self._given = given

    def body(self, said: Said) -> bytes:
        """Of the new record, or of what is changed in it."""
        given = self._given
        severity = {
            "impact": str(given["impact"][said.severity]),
            "urgency": str(given["urgency"][said.severity]),
        }
        if said.is_over:
            return json_bytes(
                {
                    "state": RESOLVED,
                    "close_code": given["close_code"],
                    "close_notes": cut(self._text(said), TEXT_CHARS),
                }
            )
        if said.ref:
            note = {"work_notes": cut(f"{said.title} ({said.reason})\n{self._text(said)}", TEXT_CHARS)}
            return json_bytes(note if said.is_acknowledged else {**note, **severity})
        record = {
            **given["fields"],
            "short_description": cut_line(said.title, SHORT_CHARS),
            "description": cut(self._text(said), TEXT_CHARS),
            "correlation_id": said.identity[:CORRELATION_CHARS],
            "correlation_display": "LLM-Incident-Manager",
            **severity,
        }
        if given["assignment_group"]:
            record["assignment_group"] = given["assignment_group"]
        return json_bytes(record)

    async def send(self, attempt: Attempt, said: Said) -> ActionResult:
        made, state, answer = await self._find(attempt, said)
        if not answer.ok:
            return answer.result
        if made:
            if said.is_over and state in (RESOLVED, CLOSED, CANCELED):
                return with_ref(
                    replace(answer.result, detail=f"{answer.result.detail}: it is resolved already"), made
                )
            if state not in (CLOSED, CANCELED):
                return await self._change(attempt, said, made, state)
        if said.is_over:
            return ActionResult(ok=True, detail="there is no record to resolve")
        answer = await attempt.call("POST", self._table + _BRIEFLY, self.body(replace(said, ref="")))
        return self._result(attempt, answer)

    async def _change(self, attempt: Attempt, said: Said, made: str, state: str) -> ActionResult:
        url = f"{self._table}/{quote(made, safe='')}"
        said = replace(said, ref=made)
        if state == RESOLVED:
            # It began again: the record goes on with it.
            answer = await attempt.call("PATCH", url + _BRIEFLY, json_bytes({"state": IN_PROGRESS}))
            if not answer.ok:
                return answer.result
        return self._result(attempt, await attempt.call("PATCH", url + _BRIEFLY, self.body(said)))

    async def _find(self, attempt: Attempt, said: Said) -> tuple[str, str, Answer]:
        """The record that was made for it before, "" if none was, and its state. One that was closed for good is none."""
        query = (
            f"sys_id={said.ref}"
            if said.ref
            else f"correlation_id={_plain(said.identity)[:CORRELATION_CHARS]}^ORDERBYDESCsys_created_on"
        )
        asked = urlencode({"sysparm_query": query, "sysparm_fields": "sys_id,state", "sysparm_limit": 1})
        answer = await attempt.call("GET", f"{self._table}?{asked}")
        records = answer.json.get("result")
        if not answer.ok or not isinstance(records, list):
            refused = attempt.refused(answer, self._table, answer.text) if answer.ok else answer.result
            return "", "", Answer(refused)
        first = records[0] if records and isinstance(records[0], dict) else {}
        return str(first.get("sys_id", "")), str(first.get("state", "")), answer

    def _result(self, attempt: Attempt, answer: Answer) -> ActionResult:
        if not answer.ok:
            return answer.result
        record = answer.json.get("result")
        made = str(record.get("sys_id") or "") if isinstance(record, dict) else ""
        return with_ref(answer.result, made) if made else attempt.refused(answer, self._table, answer.text)

    def _text(self, said: Said) -> str:
        return "\n".join([said.all_text, *([said.link] if said.link else [])]).strip() or said.title


def _plain(identity: str) -> str:
    """Nothing that its query language reads as more than a value."""
    return identity.replace("^", "")
