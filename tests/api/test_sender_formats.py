"""Every sender's format end to end: what its samples open fires with title, service and severity, what they end is over, and what
can't be read is refused with the field and what was expected. The samples are tests/data/payloads/NAME.json.
"""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from models.alerts.alert import service_of
from tests.api.gateway_in_process import JSON, System, another_gateway, system
from tests.format_cases import FOLDER, WEBHOOKS, raw, samples


async def firing(ours: System) -> Counter[tuple[str, ...]]:
    """alertname, service, summary and severity of all that fires."""
    names = ours.settings.grouping.service_labels
    found: Counter[tuple[str, ...]] = Counter()
    for each in await ours.alerts():
        labels: dict[str, str] = each["labels"]
        notes: dict[str, str] = each["annotations"]
        said = (
            labels["alertname"],
            service_of(labels, names),
            notes.get("summary", ""),
            notes.get("severity", ""),
        )
        found[said] += 1
    return found


def test_each_format_has_samples_and_each_sample_has_a_format() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(WEBHOOKS)
    assert not [name for name in WEBHOOKS if not samples(name)["cases"] or not samples(name)["refused"]]


@pytest.mark.asyncio
async def test_what_a_sender_opens_fires_and_what_it_ends_is_over() -> None:
    wrong = []
    # One system for all: what an earlier format left firing is not counted.
    async with system() as ours:
        for name, kind in WEBHOOKS.items():
            before = await firing(ours)
            for place, case in enumerate(samples(name)["cases"]):
                answer = await ours.post(
                    case.get("path", kind.path),
                    raw(case["body"]),
                    content_type=case.get("content_type", JSON),
                    headers=case.get("headers", {}),
                )
                said = json.loads(answer.body)
                status, wanted = case.get("status", 202), case.get("answer", {})
                if answer.status != status or {key: said.get(key) for key in wanted} != wanted:
                    wrong.append(f"{name} {place}: {answer.status} {answer.body!r}")
                elif (found := await firing(ours) - before) != Counter(map(tuple, case["firing"])):
                    wrong.append(f"{name} {place}: {found}")

    assert not wrong


@pytest.mark.asyncio
async def test_what_cannot_be_read_is_refused_with_the_field_and_what_was_expected() -> None:
    wrong = []
    async with system() as ours:
        for name, kind in WEBHOOKS.items():
            status = samples(name).get("refused_status", 400)
            for case in samples(name)["refused"]:
                answer = await ours.post(kind.path, raw(case["body"]))
                words = str(json.loads(answer.body)).replace('\\"', '"')
                if answer.status != status or not re.search(case["why"], words):
                    wrong.append(f"{name}: {answer.status} {words}, not {case['why']}")

        assert not wrong
        assert not await firing(ours)


@pytest.mark.asyncio
async def test_what_comes_again_is_answered_as_a_gateway_answers_that_never_met_it() -> None:
    wrong = []
    async with system() as ours, another_gateway(ours) as fresh:
        for name, kind in WEBHOOKS.items():
            for place, case in enumerate(samples(name)["cases"]):
                path, body, headers = case.get("path", kind.path), raw(case["body"]), case.get("headers", {})
                if name.startswith("pagerduty"):
                    # Of an event without a key it makes one up, the same for the same delivery.
                    headers = {**headers, "idempotency-key": f"{name} {place}"}
                content_type = case.get("content_type", JSON)
                _first, second, third, other = [
                    await to.post(path, body, content_type=content_type, headers=headers)
                    for to in (ours, ours, ours, fresh)
                ]
                if case["firing"] and not (second == third == other):
                    wrong.append(f"{name} {place}: {second}, {third}, {other}")

    assert not wrong
