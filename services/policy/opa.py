"""Policy by an OPA server, or what speaks its data API: POST {"input": ...} to the URL of a rule, {"result": ...} back.

https://www.openpolicyagent.org/docs/rest-api#get-a-document-with-input: no `result` means that the rule is undefined.
"""

from __future__ import annotations

import msgspec

from models.errors import Malformed, Refused, Unavailable
from models.playbook.policy import PolicyEvalRequest, PolicyEvalResponse, denied, response_of
from services.actions.outbound import place_of
from services.playbooks.calls import Calls

#: A decision is small; an answer that is longer is none.
ANSWER_MAX = 256 * 1024
TIMEOUT_S = 5.0


class OpaPolicy:
    """Port Policy."""

    def __init__(self, url: str, *, outbound: Calls, token: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """`url` is the whole URL of the document: `http://opa:8181/v1/data/incidents`. Owns nothing: `outbound` is closed by
        who made it."""
        self._url = url
        self._outbound = outbound
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    async def evaluate(self, request: PolicyEvalRequest) -> PolicyEvalResponse:
        place = place_of(self._url)
        try:
            answer = await self._outbound.call(
                "POST",
                self._url,
                headers=self._headers,
                body=msgspec.json.encode({"input": request}),
                timeout_s=self._timeout_s,
                max_bytes=ANSWER_MAX,
                trusted=True,
            )
        except Refused as error:
            raise Unavailable(str(error)) from error
        if answer.status != 200:
            # Not even its text: an error of OPA's may repeat the input.
            raise Unavailable(f"{place} answered {answer.status}")
        if answer.cut:
            raise Malformed(f"{place}: the answer is longer than {ANSWER_MAX} bytes")
        try:
            decoded = msgspec.json.decode(answer.body)
        except msgspec.DecodeError:
            raise Malformed(f"{place}: the answer is not JSON") from None
        if not isinstance(decoded, dict):
            raise Malformed(f"{place}: expected an object with `result`")
        if "result" not in decoded:
            return denied("the policy has no such rule, or none that holds")
        return response_of(decoded["result"])

    async def close(self) -> None:
        """It has nothing of its own."""
