"""Bodies of other senders' formats, made of their samples: many alerts that differ, and the same with something new in each. Used by
benchmarks.bodies in the generator's process, and by benchmarks.formats.

Which fields tell alerts apart, and which say something new of the same alert, is found out by reading a sample with a field changed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from models.alerts.alert import Content
from models.errors import IncidentManagerError
from models.settings.all import Settings
from services.ingest.formats.format import Format, Request, Shared
from services.ingest.formats.reading import Reading
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats
from tests.format_cases import samples

#: The formats that take many events a body, and under which name; "" for a plain array.
MANY = {
    "alertmanager-webhook": "alerts",
    "grafana": "alerts",
    "otlp-logs": "resourceLogs",
    "stix": "objects",
    "taxii": "objects",
    "mapped": "events",
    **dict.fromkeys(("llm-sentinel", "llm-shield", "llm-edge-agent", "llm-governance", "cloudevents"), ""),
    **dict.fromkeys(("zabbix", "falco", "datadog", "events", "v1"), ""),
}
#: Samples of formats whose tests have none that fits.
SAMPLES: dict[str, list[Any]] = {
    "v1": [
        {
            "labels": {"alertname": "ModelSlow", "service": "llm-api", "instance": "gateway"},
            "annotations": {"summary": "p99 over 20 s", "description": "gateway answers slowly"},
        }
    ],
    # Those of the tests name two services each, of which each has an alert of its own.
    "llm-sentinel": [
        {
            "alert_id": "sentinel-1",
            "source": "llm-sentinel",
            "timestamp": 1769850000,
            "type": "Performance",
            "severity": "P1",
            "labels": {"model": "gpt"},
            "description": "p99 latency over 4 s",
            "affected_services": ["chat-api"],
        }
    ],
    "mapped": [
        {
            "events": [
                {"check": "queue depth", "app": "prompts", "level": "high", "id": "q", "text": "it grows"}
            ]
        }
    ],
}
MAPPING = {
    "name": "benchmark",
    "when": "events[0].check",
    "each": "events",
    "alertname": "check",
    "service": "app",
    "title": "text",
    "severity": "level",
    "labels": {"id": "id"},
}
#: How those who sign a body write that: the header, and what stands before the digest.
SIGNED = {
    "github": ("X-Hub-Signature-256", "sha256="),
    "sentry": ("Sentry-Hook-Signature", ""),
    "pagerduty-webhook": ("X-PagerDuty-Signature", "v1="),
}
SECRET = "a-secret-of-the-benchmark"
#: What a system is started with, as own() wants it.
SETTINGS = {
    "FORMATS__MAPPINGS": json.dumps([MAPPING]),
    **{f"FORMATS__{name}_SECRET": SECRET for name in ("GITHUB", "SENTRY", "PAGERDUTY")},
}
#: Groups that the alerts of a format are in.
GROUPS = 20
NOW = time.time()
_WORD, _GROUP_WORD, _NUMBER, _NEWS = "qseries", "qgroup", 987_654_321, "1" * 18
#: In a path through JSON: the text there is JSON itself.
_WITHIN = "(json)"
Path = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Events:
    """A sample as text, with marks where it changes, between what a body of several begins and ends with."""

    name: str
    path: str
    headers: dict[str, str]
    takes_many: bool
    before: str
    event: str
    after: str

    def body(self, numbers: range, news: Callable[[int], str]) -> bytes:
        """The alerts of these numbers, each with what is new in it, 18 digits or none."""
        each = (
            # Some formats say the same of one alert: each has its own.
            self.event.replace(_WORD, f"{_letters(number)}-{self.name}")
            .replace(_GROUP_WORD, _letters(number % GROUPS))
            .replace(str(_NUMBER), str(100_000_000 + number))
            .replace(_NEWS, news(number))
            for number in numbers
        )
        return f"{self.before}{','.join(each)}{self.after}".encode()

    def signature(self, body: bytes) -> str:
        """The header line that signs a body, "" where nobody does."""
        if self.name not in SIGNED:
            return ""
        header, before = SIGNED[self.name]
        return f"{header}: {before}{hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}\r\n"


def opened() -> dict[str, Format]:
    """Every format, as a gateway has it."""
    settings = Settings.model_validate({"formats": {"mappings": [MAPPING]}})
    return open_formats(Shared(Remembered("default", tuple(settings.grouping.service_labels)), settings))


def read(form: Format, body: bytes, headers: dict[str, str] | None = None) -> Reading:
    """A body as services/ingest/intake.py reads it."""
    named = {name.lower().encode(): value.encode() for name, value in (headers or {}).items()}
    request = Request(form.path, body, NOW, headers=named, content_type="application/json")
    if form.prepares:
        # For what fires there is nothing to wait for.
        with suppress(StopIteration):
            form.prepare(request).send(None)
    return form.read(request)


@cache
def events_of(name: str) -> Events:
    """The first sample of a format that is one alert that fires."""
    path = opened()[name].path
    for sample, headers in _samples(name):
        if (alert := _alert(opened()[name], sample, headers)) is None:
            continue
        within: Path = (MANY[name], 0) if MANY.get(name) else ()
        marked = _marked(name, sample, headers, alert, within)
        if marked is None:
            continue
        before, after = "", ""
        if MANY.get(name):
            before, _, after = json.dumps({**marked, MANY[name]: ["@"]}).partition('"@"')
            marked = marked[MANY[name]][0]
        elif name in MANY:
            before, after = "[", "]"
        return Events(name, path, headers, name in MANY, before, json.dumps(marked), after)
    raise RuntimeError(f"{name}: no sample is one alert that fires")


def _samples(name: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """Bodies of one event each, with their headers."""
    cases: list[dict[str, Any]] = [{"body": body} for body in SAMPLES.get(name, [])]
    if not cases:
        cases = [
            case
            for case in samples("falco" if name == "events" else name)["cases"]
            if case["firing"] and not isinstance(case["body"], str) and "path" not in case
        ]
    for case in cases:
        body, headers = case["body"], case.get("headers", {})
        if MANY.get(name):
            yield from (({**body, MANY[name]: [each]}, headers) for each in body.get(MANY[name], ()))
        else:
            yield from ((each, headers) for each in (body if isinstance(body, list) else [body]))


def _alert(form: Format, body: Any, headers: dict[str, str]) -> Content | None:
    """The one alert of a body that fires; None when it is anything else."""
    try:
        reading = read(form, json.dumps(body).encode(), headers)
    except IncidentManagerError:
        return None
    if reading.faults or reading.count != 1 or reading.ends_at(0, NOW):
        return None
    return msgspec.msgpack.decode(reading.body(0), type=Content)


def _marked(name: str, body: Any, headers: dict[str, str], alert: Content, within: Path) -> Any:
    """A sample with marks: what tells alerts apart, what tells their groups apart if there is such a thing, and what is news."""
    apart: list[tuple[int, Path]] = []
    groups: list[Path] = []
    news: list[Path] = []
    for path, is_text in _leaves(body):
        if path[: len(within)] != within:
            continue
        # One after the other: a format that ends alerts by a key goes by that alone.
        form = opened()[name]
        _alert(form, body, headers)
        one, two = (_alert(form, _with(body, path, mark), headers) for mark in (_WORD, _GROUP_WORD))
        if one and two and (not is_text or one.labels != two.labels) and one.labels != alert.labels:
            names = [one.labels.get(each) == alert.labels.get(each) for each in ("alertname", "service")]
            apart.append((-sum(names), path))
            if is_text and not all(names):
                groups.append(path)
        one, two = (_alert(form, _with(body, path, mark), headers) for mark in (_NEWS, _NEWS[:-1] + "2"))
        if one and two and one.labels == two.labels == alert.labels and one != two:
            news.append(path)
    if not apart:
        return None
    first = min(apart, key=lambda each: each[0])[1]
    body = _with(body, first, _WORD)
    if group := next((path for path in groups if path != first), None):
        body = _with(body, group, _GROUP_WORD)
    # Of a sender whose every body is another alert, what is new is that.
    at = next((path for path in news if path not in (first, group)), None)
    return _with(body, at or next(path for _, path in apart if path not in (first, group)), _NEWS)


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, bool]]:
    """The paths of texts and of whole numbers, and whether it is a text."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(each, (*path, name))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _leaves(each, (*path, place))
    elif isinstance(value, str) and value.startswith('{"'):
        yield from _leaves(json.loads(value), (*path, _WITHIN))
    elif isinstance(value, str | int) and not isinstance(value, bool):
        yield path, isinstance(value, str)


def _with(value: Any, path: Path, mark: str) -> Any:
    """A copy of a JSON value with a mark behind the text at a path, or _NUMBER in the place of a number."""
    if not path:
        return (
            _NUMBER if isinstance(value, int) else f"{value} {mark}" if mark.isdigit() else f"{value}-{mark}"
        )
    name, *rest = path
    if name == _WITHIN:
        return json.dumps(_with(json.loads(value), tuple(rest), mark))
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[name] = _with(copy[name], tuple(rest), mark)
    return copy


def _letters(number: int) -> str:
    """A number in letters: a name that is made of a sentence leaves digits out."""
    return "".join(chr(97 + number // 26**place % 26) for place in range(4))
