"""What the formats of other senders share that are posted as JSON: where a token may stand, how they answer, what /openapi.json and
`llm-im formats list` say of them, and by what a body without a name is known. webhook.py builds on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qs

from services.ingest.formats.answers import Answer, Refusal, problem
from services.ingest.formats.format import Request
from services.ingest.formats.items import ListFormat
from services.ingest.formats.openapi import (
    PARAMETERS,
    PROBLEM,
    REFUSALS,
    RETRY_AFTER,
    USED,
    Description,
    Json,
    answer,
    ref,
)
from services.ingest.formats.paths import paths_of
from services.ingest.formats.reading import Reading
from services.ingest.formats.received import received
from services.ingest.submit import Receipt

Item = TypeVar("Item")
Posted = TypeVar("Posted")


class JsonFormat(ListFormat[Item, Posted]):
    """A format of another sender."""

    wants_ids = True
    finds_token = True
    end_field = "the end"
    end_too_early = "the end: expected a time after the start"
    #: What /openapi.json and `llm-im formats list` say of it.
    summary: ClassVar[str]
    #: The same of its further paths.
    summaries: ClassVar[Mapping[str, str]] = {}
    #: The fields by which a body without a name is recognised, in words.
    shape: ClassVar[str]
    #: The sender's severity words, in lower case, with their levels.
    severities: ClassVar[Mapping[str, str]] = {}

    def default_end(self, now: float) -> float:
        expires_after_s = self.shared.settings.lifecycle.expires_after
        return math.inf if expires_after_s is None else now + expires_after_s

    def refused(self, refusal: Refusal) -> Answer:
        return problem(refusal, self.path)

    async def stored(self, reading: Reading, receipt: Receipt) -> Answer:
        return await received(reading, receipt, self.name)

    def token_of(self, request: Request) -> str:
        """`?token=`, for senders that can be given nothing but a URL."""
        return parse_qs(request.query.decode("latin-1")).get("token", [""])[0]

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a body without a name is of this format. No two formats may say so of one."""
        return False

    @classmethod
    def describe(cls) -> Description:
        own, *more = (
            (path, {method.lower(): operation_of(cls, method, path) for method in methods})
            for path, methods in paths_of(cls).items()
        )
        return Description(own[1], more_paths=dict(more))


def operation_of(kind: type[JsonFormat[Any, Any]], method: str, path: str) -> Json:
    """What /openapi.json says of a path: how to answer is ours, what to send is the sender's affair."""
    received_, problem_ = ref("Received"), {"content": PROBLEM}
    body: Json = {"required": True, "content": {each: {"schema": {}} for each in kind.content_types}}
    name = f"{method}{path}".lower()
    inputs = [
        {
            "name": word,
            "in": "path",
            "required": True,
            "description": "What it is about.",
            "schema": {"type": "string"},
        }
        for word in re.findall(r"\{(\w+)\}", path)
    ]
    return {
        "tags": ["formats"],
        "summary": kind.summaries.get(path, kind.summary),
        "description": "docs/formats.md says how to point its sender here.",
        "operationId": re.sub(r"\W+", "_", name).strip("_"),
        "parameters": [*inputs, *PARAMETERS],
        **({"requestBody": body} if method == "POST" else {}),
        "responses": {
            "202": answer("All are stored.", received_),
            "207": answer("Some are stored; each item says.", received_),
            "400": {
                "description": "Nothing can be read; it says which field, and what was expected.",
                **problem_,
            },
            **{code: {"description": words, **problem_} for code, words in REFUSALS.items()},
            "422": answer(USED, received_),
            "503": {
                "description": "Some or all could not be stored: sending again is safe.",
                "headers": RETRY_AFTER,
                **problem_,
            },
        },
    }
