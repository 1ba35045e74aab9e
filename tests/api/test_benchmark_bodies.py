"""What benchmarks.formats sends is taken: each format's bodies, signed where it signs, open as many series as they have events, and say
something new of the same when they change."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.bodies import Bodies
from benchmarks.senders import MANY, MAPPING, SECRET, events_of
from services.ingest.formats.heartbeat import HeartbeatFormat
from services.ingest.formats.table import all_formats
from tests.api.gateway_in_process import system

FORMS = [name for name in all_formats() if name not in ("alertmanager", HeartbeatFormat.name)]
SETTINGS: dict[str, Any] = {
    "mappings": [MAPPING],
    "github_secret": SECRET,
    "sentry_secret": SECRET,
    "pagerduty_secret": SECRET,
}


@pytest.mark.asyncio
async def test_what_the_benchmark_of_formats_sends_is_taken_and_opens_as_many_series_as_it_has_events() -> (
    None
):
    wrong = []
    async with system(formats=SETTINGS) as ours:
        for name in FORMS:
            events, batch = events_of(name), 8 if name in MANY else 1
            before = len(await ours.alerts())
            # The same alerts twice, the second time with something new: a change of PagerDuty's is another alert each time.
            for kind in ("repeats", "changing"):
                bodies = Bodies(kind, 8, batch, run_id="1", passes=1, format=name)
                for sent in bodies.build():
                    signed = dict([sent.headers.strip().split(": ")]) if sent.headers else {}
                    answer = await ours.post(events.path, sent.body, headers={**events.headers, **signed})
                    if (
                        answer.status not in (200, 202)
                        or len(json.loads(answer.body).get("items", "x" * batch)) != batch
                    ):
                        wrong.append(f"{name}: {answer.status} {answer.body!r}")
            opened = len(await ours.alerts()) - before
            if opened != (16 if name == "pagerduty-change" else 8):
                wrong.append(f"{name}: {opened} series")

    assert not wrong
