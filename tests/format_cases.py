"""The samples of tests/data/payloads: one file a format, `cases` in the order in which they are sent, and what is `refused`.

body          JSON, or text for another content type; beside it headers, content_type, path, as they differ from the rule
status        of the answer; answer: what is in it among other things
firing        [alertname, service, summary, severity] of each alert that fires afterwards
why           a regular expression of the reason
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from services.ingest.formats.json_format import JsonFormat
from services.ingest.formats.table import all_formats

FOLDER = Path(__file__).parent / "data" / "payloads"
#: Those whose samples are not of one sender: tests/api/test_any_json.py has them.
OTHERS = {"mapped", "events"}
WEBHOOKS = {
    name: kind for name, kind in all_formats().items() if issubclass(kind, JsonFormat) and name not in OTHERS
}


@cache
def samples(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))  # type: ignore[no-any-return]


def raw(body: object) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
