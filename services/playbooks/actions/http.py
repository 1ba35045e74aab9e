"""Action http: one request to a URL. The key goes along as Idempotency-Key. URLs of playbooks may hold what came with an alert, so
they are guarded: public addresses, and what `[outbound] allow` names.
"""

from __future__ import annotations

import msgspec

from models.playbook.catalog import CATALOG
from models.playbook.parameters import Http
from models.playbook.work import Capture, Done
from services.actions.outbound import place_of
from services.playbooks.calls import host_target
from services.playbooks.expecting import statuses_of, why_unexpected
from services.playbooks.kind import Asked, PlaybookAction, failed, succeeded
from services.playbooks.tools import Tools

#: Of an answer: outputs and capture together keep less.
ANSWER_MAX = 256 * 1024
#: Statuses that concern this one request: it will not be taken later either.
_FINAL = frozenset({400, 405, 410, 413, 414, 415, 422})
_HEADERS_MAX = 50


def _check(tools: Tools, asked: Asked, params: Http) -> str:
    if not params.url.startswith(("http://", "https://")):
        return "url: expected an http:// or https:// URL"
    if len(params.headers) > _HEADERS_MAX:
        return f"headers: expected at most {_HEADERS_MAX}"
    try:
        statuses_of(params.expect)
    except ValueError as error:
        return str(error)
    return ""


async def _call(tools: Tools, asked: Asked, params: Http) -> Done:
    headers = {"Idempotency-Key": asked.key, **params.headers}
    body: bytes | None = None
    if params.body is not None:
        if isinstance(params.body, str):
            body = params.body.encode("utf-8", "replace")
        else:
            body = msgspec.json.encode(params.body)
        if "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = (
                "text/plain; charset=utf-8" if isinstance(params.body, str) else "application/json"
            )
    answer = await tools.outbound.call(
        params.method, params.url, headers=headers, body=body, timeout_s=asked.timeout_s, max_bytes=ANSWER_MAX
    )
    outputs = {"status": answer.status, "body": _decoded(answer.body)}
    captures: tuple[Capture, ...] = ()
    if params.capture:
        media_type = answer.headers.get("content-type", "text/plain")
        captures = (Capture(f"answer of {place_of(params.url)}", media_type, answer.text, answer.cut),)
    wrong = why_unexpected(answer, params.expect, params.contains)
    if not wrong:
        return succeeded(f"{place_of(params.url)} answered {answer.status}", outputs, captures=captures)
    return failed(
        f"{place_of(params.url)} {wrong}",
        final=answer.status in _FINAL,
        reached=answer.status >= 500 or answer.status < 400,
        outputs=outputs,
        captures=captures,
    )


def _decoded(body: bytes) -> object:
    """JSON as data, anything else as text."""
    try:
        decoded: object = msgspec.json.decode(body)
        return decoded
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")


ACTION = PlaybookAction(
    CATALOG["http"], _call, _check, calls=lambda _tools, _asked, params: host_target(params.url)
)
