"""What a format costs an alert beside Alertmanager's own: bodies of 64 alerts where a body may have so many, else 64 bodies of one.

Reading alone, in this process: a body to its Reading, as services/ingest/intake.py does it, by CPU time. Alerts that were met before,
as most are, and alerts that are new. What follows (lines, shards, the log) is the same for all formats, so that the ratio at a gateway
is nearer to 1 than the one here.

python -m benchmarks.formats [--quick] [NAME...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS
from benchmarks.own import say, write
from models.settings.all import Settings
from services.ingest.formats.format import Format, Request, Shared
from services.ingest.formats.json_format import JsonFormat
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats
from tests.format_cases import raw, samples

ALERTS = 64
ROUNDS = 200
OWN = "alertmanager"
#: How to put many events into one body, where a sender does.
MANY: dict[str, Callable[[list[Any]], Any]] = {
    "alertmanager-webhook": lambda events: {**events[0], "alerts": [e["alerts"][0] for e in events]},
    "grafana": lambda events: {**events[0], "alerts": [e["alerts"][0] for e in events]},
    "otlp-logs": lambda events: {"resourceLogs": [e["resourceLogs"][0] for e in events]},
    **dict.fromkeys(
        (
            "llm-sentinel",
            "llm-shield",
            "llm-edge-agent",
            "llm-governance",
            "cloudevents",
            "zabbix",
            "falco",
            "datadog",
        ),
        lambda events: events,
    ),
}


def own_alert(number: int) -> dict[str, Any]:
    labels = {
        "alertname": "ModelSlow",
        "service": "llm-api",
        "instance": f"gateway-{number}",
        "severity": "warning",
    }
    said = {"summary": "p99 over 20 s", "runbook_url": "https://runbooks.example.com/slow"}
    return {
        "labels": labels,
        "annotations": said,
        "startsAt": "2026-01-31T12:00:00Z",
        "endsAt": "2026-01-31T12:05:00Z",
    }


def event_of(name: str, number: int, new: int) -> Any:
    """The first sample of a format that opens something, as one of many: each with another name in all its texts."""
    case = next(
        case for case in samples(name)["cases"] if case["firing"] and not isinstance(case["body"], str)
    )
    text = json.dumps(case["body"])
    name_of_it = case["firing"][0][0]
    return json.loads(
        text.replace(
            json.dumps(name_of_it)[1:-1],
            f"{name_of_it} {chr(97 + number % 26)}{chr(97 + number // 26)}x{new}",
        )
    )


def bodies(name: str, new: int = 0) -> list[bytes]:
    if name == OWN:
        alerts = [own_alert(number) for number in range(ALERTS)]
        for each in alerts:
            each["labels"]["new"] = str(new)
        return [raw(alerts)]
    events = [event_of(name, number, new) for number in range(ALERTS)]
    return [raw(MANY[name](events))] if name in MANY else [raw(each) for each in events]


def opened() -> dict[str, Format]:
    settings = Settings.model_validate({})
    return open_formats(Shared(Remembered("default", tuple(settings.grouping.service_labels)), settings))


def read(form: Format, body: bytes) -> int:
    request = Request(form.path, body, 1769864400.0, content_type="application/json")
    if form.prepares:
        asyncio.run(form.prepare(request))
    return len(form.read(request).places)


def cost(form: Format, given: list[list[bytes]]) -> tuple[float, int]:
    """Microseconds an alert, and how many alerts a round is. `prepare` looks things up only for ends, of which there are none."""
    requests = [
        [Request(form.path, body, 1769864400.0, content_type="application/json") for body in round_]
        for round_ in given
    ]
    alerts, begun = 0, time.process_time()
    for round_ in requests:
        for request in round_:
            alerts += len(form.read(request).places)
    return (time.process_time() - begun) / max(alerts, 1) * 1e6, alerts // len(requests)


def everything(names: list[str], rounds: int) -> list[dict[str, object]]:
    forms = opened()
    found: list[dict[str, object]] = []
    own = 0.0, 0.0
    for name in [OWN, *(each for each in names if each != OWN)]:
        form = forms[name]
        same = bodies(name)
        for body in same:
            read(form, body)
        known, alerts = cost(form, [same] * rounds)
        fresh, _ = cost(form, [bodies(name, new) for new in range(1, max(rounds // 10, 3))])
        if name == OWN:
            own = known, fresh
        ratio = own[0] / known
        say(
            f"{name}: {known:.1f} us an alert met before, {fresh:.1f} a new one; {ratio:.2f} x {OWN}; {len(same)} requests, {alerts} alerts"
        )
        found.append(
            {
                "format": name,
                "known_us": known,
                "new_us": fresh,
                "requests": len(same),
                "alerts": alerts,
                "ratio": ratio,
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these formats")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    every = [
        name
        for name, form in opened().items()
        if isinstance(form, JsonFormat) and name not in ("mapped", "events", "email")
    ]
    found = everything(arguments.names or every, ROUNDS // 10 if arguments.quick else ROUNDS)
    write("formats", found, arguments.results)


if __name__ == "__main__":
    main()
