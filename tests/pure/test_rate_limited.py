"""What a sender that is too fast is told, in the words of each API."""

from __future__ import annotations

import json

import pytest

from models.errors import Busy, RateLimited
from models.settings.all import Settings
from services.ingest.formats.answers import Answer, refusal_of
from services.ingest.formats.format import Shared
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats

FORMATS = open_formats(Shared(Remembered("default", ("service",), 1000, 1024), Settings()))
ERROR = RateLimited("ci sends more than 10/s, which its token may", 1.2, "sender", 10, 1)


def refused(name: str) -> Answer:
    return FORMATS[name].refused(refusal_of(ERROR))


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_says_when_to_come_again_and_what_is_allowed(name: str) -> None:
    answer = refused(name)

    headers = dict(answer.headers)
    # Alertmanager, which Grafana has within, would drop its notification at 429.
    assert answer.status == (503 if name in ("alertmanager-webhook", "grafana") else 429)
    # Rounded up: a second is too soon.
    assert headers[b"retry-after"] == b"2"
    assert headers[b"ratelimit-policy"] == b'"sender";q=10;w=1'
    assert headers[b"ratelimit"] == b'"sender";r=0;t=2'


def test_pagerduty_and_opsgenie_say_it_as_theirs_do() -> None:
    pagerduty, opsgenie = refused("pagerduty"), refused("opsgenie")

    assert json.loads(pagerduty.body)["status"] == "throttle exceeded"
    assert json.loads(opsgenie.body)["message"] == "You are making too many requests!"
    assert dict(opsgenie.headers)[b"x-ratelimit-state"] == b"THROTTLED"


def test_who_waits_for_what_is_busy_waits_for_this_too() -> None:
    assert isinstance(ERROR, Busy) and ERROR.retry_after_s == 1.2
