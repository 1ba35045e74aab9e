"""Laws of bodies that came before (services/ingest/formats/known_bodies.py): a gateway that knows them reads what one reads that keeps
none of them, whatever else came meanwhile, by whomever it is sent, and whatever settings and rules have changed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest

from models.alerts.alert import Content
from models.errors import IncidentManagerError
from models.settings.all import Settings
from services.ingest.arrival import ANONYMOUS, Sender
from services.ingest.formats.format import Format, Request, Shared
from services.ingest.formats.known_bodies import (
    BODY_MAX_BYTES,
    KnownAlert,
    KnownBodies,
    KnownBody,
    body_digest,
)
from services.ingest.formats.remembered import Remembered
from services.ingest.formats.table import open_formats
from services.ingest.formats.webhook import WebhookFormat
from services.ingest.rules import Rules, wanted_of
from tests.format_cases import FOLDER, WEBHOOKS, raw, samples

NOW = 1769864400.0
BOUND = Sender("bound", "id", (("service", "=", "chat-api"),))
MAPPING = {"name": "any", "when": "check", "alertname": "check", "service": "app", "severity": "level"}
PLAIN: dict[str, Any] = {"formats": {"mappings": [MAPPING]}}
#: Settings under which every format says something else: of the severities, or of what is a service.
OTHER: dict[str, Any] = {
    "formats": {
        "mappings": [{**MAPPING, "service": "'other'"}],
        "severities": {name: dict.fromkeys(("", "critical", "error", "p1"), "P4") for name in WEBHOOKS},
    }
}
RULE = {"name": "all in one", "service": "one"}


class Asked(NamedTuple):
    """A request, as a sample has it."""

    form: str
    path: str
    body: bytes
    headers: dict[bytes, bytes]
    content_type: str


def asked() -> Iterator[Asked]:
    """Every sample, posted to its format, and to the one that recognises it."""
    for name, kind in WEBHOOKS.items():
        for case in [*samples(name)["cases"], *samples(name)["refused"]]:
            headers = {key.lower().encode(): value.encode() for key, value in case.get("headers", {}).items()}
            content_type = case.get("content_type", "application/json")
            found = Asked(name, case.get("path", kind.path), raw(case["body"]), headers, content_type)
            yield found
            if "path" not in case:
                yield found._replace(form="events", path="/v1/events")
    yield Asked(
        "mapped", "/v1/events/mapped", b'{"check":"disk","app":"db","level":"error"}', {}, "application/json"
    )


ASKED = [*asked()]


class Gateway:
    """What reads in a gateway; with `max_bytes` 0 no body is ever kept."""

    def __init__(self, given: dict[str, Any] = PLAIN, max_bytes: int | None = None) -> None:
        settings = Settings.model_validate(given)
        bodies = KnownBodies() if max_bytes is None else KnownBodies(max_bytes)
        remembered = Remembered("default", tuple(settings.grouping.service_labels))
        self.shared = Shared(remembered, settings, bodies=bodies)
        self.forms = open_formats(self.shared)

    def take(self, given: dict[str, Any]) -> None:
        """Go by other settings, as services/wiring/station.py does."""
        self.shared.settings = Settings.model_validate(given)
        relabelling, filters = wanted_of(self.shared.settings).compiled({})
        self.shared.remembered.go_by(Rules(relabelling, filters) if relabelling or filters else None)

    def read(self, sent: Asked, sender: Sender = ANONYMOUS, now: float = NOW) -> object:
        """All that a reading says, or why there is none."""
        form = self.forms[sent.form]
        request = Request(
            sent.path, sent.body, now, headers=sent.headers, content_type=sent.content_type, sender=sender
        )
        try:
            if form.handshake(request) is not None:
                return None
            if form.prepares:
                with pytest.raises(StopIteration):
                    form.prepare(request).send(None)
            reading = form.read(request)
        except IncidentManagerError as error:
            return type(error), str(error)
        columns = range(len(reading.places))
        return (
            reading.count,
            reading.places,
            reading.ends,
            reading.said,
            reading.note,
            [(fault.index, fault.message, fault.raw) for fault in reading.faults],
            [(memory.key, memory.slot, memory.starts, memory.source) for memory in reading.memories],
            [
                [drop.name for drop in memory.ruled.drops] if memory.ruled is not None else None
                for memory in reading.memories
            ],
            [msgspec.msgpack.decode(reading.body(column), type=Content) for column in columns],
            [reading.said_end(column) for column in columns],
        )

    def keeps(self, sent: Asked) -> bool:
        form: Format = self.forms[sent.form]
        assert isinstance(form, WebhookFormat)
        return form.knows(
            Request(sent.path, sent.body, NOW, headers=sent.headers, content_type=sent.content_type)
        )


def test_what_every_format_opens_is_known_when_it_comes_a_third_time() -> None:
    ours = Gateway()
    kept, met = set(), set()
    for sent in ASKED:
        if not isinstance(ours.forms[sent.form], WebhookFormat) or (sent.form, sent.path, sent.body) in met:
            continue
        met.add((sent.form, sent.path, sent.body))
        ours.read(sent)
        assert not ours.keeps(sent), sent
        ours.read(sent)
        if ours.keeps(sent):
            kept.add(sent.form)

    # Alertmanager's groups have a memory of their own, and a change ends an hour after it came.
    assert kept == {*WEBHOOKS, "mapped", "events"} - {"alertmanager-webhook", "grafana", "pagerduty-change"}


@pytest.mark.parametrize("seed", range(2))
def test_a_gateway_that_knows_bodies_reads_what_one_reads_that_keeps_none(seed: int) -> None:
    chance = random.Random(seed)
    ours, theirs = Gateway(), Gateway(max_bytes=0)
    # Few at a time, so that the same comes again soon; between them settings, rules and senders change.
    for _ in range(25):
        some = chance.sample(ASKED, 6)
        given = chance.choice([PLAIN, OTHER, {**PLAIN, "ingest": {"relabel": [RULE]}}])
        ours.take(given)
        theirs.take(given)
        for at in range(20):
            sent, sender = chance.choice(some), chance.choice([ANONYMOUS, ANONYMOUS, BOUND, Sender("a", "1")])

            assert ours.read(sent, sender, NOW + at) == theirs.read(sent, sender, NOW + at), sent


@pytest.mark.parametrize("name", WEBHOOKS)
def test_what_is_known_is_read_anew_under_other_settings_and_rules_and_by_who_is_bound(name: str) -> None:
    for sent in (each for each in ASKED if each.form == name):
        ours, ruled = Gateway(), {**OTHER, "ingest": {"relabel": [RULE]}}
        for _ in range(3):
            ours.read(sent)
        for given, sender in ((PLAIN, BOUND), (OTHER, ANONYMOUS), (ruled, ANONYMOUS), (PLAIN, ANONYMOUS)):
            fresh = Gateway()
            fresh.take(given)
            wanted = fresh.read(sent, sender)
            ours.take(given)

            assert [ours.read(sent, sender) for _ in range(3)] == [wanted] * 3, (sent, given, sender)


def test_a_reading_of_a_known_body_shares_nothing_with_the_next() -> None:
    ours = Gateway()
    sent = next(each for each in ASKED if each.form == "falco" and ours.keeps(each) is False)
    for _ in range(3):
        ours.read(sent)
    assert ours.keeps(sent)
    form = ours.forms["falco"]
    assert isinstance(form, WebhookFormat)
    request = Request(sent.path, sent.body, NOW, content_type=sent.content_type)
    known = ours.shared.bodies.find(form.digest_of(request), ours.shared.settings)
    assert known is not None
    first, again = (form.content(known.alerts[0]) for _ in range(2))
    first.labels["service"] = first.annotations["summary"] = "changed"

    assert form.content(known.alerts[0]) == again != first


def test_an_event_without_a_key_is_another_one_each_time_unless_its_sender_sends_it_again() -> None:
    event = {
        "routing_key": "r" * 32,
        "event_action": "trigger",
        "payload": {"summary": "down", "source": "db", "severity": "error"},
    }
    ours = Gateway()
    sent = Asked("pagerduty", "/v2/enqueue", raw(event), {}, "application/json")
    notes = {str(ours.read(sent, now=NOW + at)[4]) for at in range(4)}  # type: ignore[index]
    assert len(notes) == 4 and not ours.keeps(sent)

    # As a message of a queue may have it: a key that says nothing.
    empty = sent._replace(headers={b"idempotency-key": b""})
    notes = {str(ours.read(empty, now=NOW + at)[4]) for at in range(4)}  # type: ignore[index]
    assert len(notes) == 4 and not ours.keeps(empty)

    again = sent._replace(headers={b"idempotency-key": b"one"})
    other = sent._replace(headers={b"idempotency-key": b"two"})
    notes = {str(ours.read(each, now=NOW + at)[4]) for at in range(4) for each in (again, other)}  # type: ignore[index]

    assert len(notes) == 2 and ours.keeps(again)


def test_what_ended_is_not_opened_under_the_labels_of_before() -> None:
    """A key that was ended stands for something else when it comes again."""

    def event(action: str, source: str) -> Asked:
        payload = {"summary": "down", "source": source, "severity": "error"}
        said = {"routing_key": "r" * 32, "event_action": action, "dedup_key": "k", "payload": payload}
        return Asked("pagerduty", "/v2/enqueue", raw(said), {}, "application/json")

    ours, theirs = Gateway(), Gateway(max_bytes=0)
    first, other, end = event("trigger", "db"), event("trigger", "web"), event("resolve", "db")
    for sent in (first, first, first, other, other, other, end, other, first, first, end, first, other):
        assert ours.read(sent) == theirs.read(sent)


def known(size: int, note: str = "") -> KnownBody:
    return KnownBody((KnownAlert(b"x" * size, b""),), (), note)


def test_what_is_kept_has_room_for_so_many_bytes_and_the_newest_stay() -> None:
    bodies, settings = KnownBodies(max_bytes=10_000), object()
    bodies.find(b"", settings)
    for number in range(100):
        bodies.keep(b"%d" % number, known(1000), settings)
        # What is asked for stays.
        assert bodies.find(b"0", settings) is not None

    found = [number for number in range(100) if bodies.find(b"%d" % number, settings) is not None]
    assert 99 in found and len(found) <= 2 * 10_000 // known(1000).size
    bodies.keep(b"large", known(10_001), settings)
    assert bodies.find(b"large", settings) is None


def test_nothing_is_kept_that_was_read_under_other_settings() -> None:
    bodies, before, now = KnownBodies(), object(), object()
    bodies.find(b"a", before)
    bodies.find(b"a", now)
    bodies.keep(b"a", known(1), before)
    assert bodies.find(b"a", now) is None

    bodies.keep(b"a", known(1), now)
    assert bodies.find(b"a", now) is not None
    assert bodies.find(b"a", before) is None


def test_a_digest_is_of_all_that_matters_and_of_where_each_part_ends() -> None:
    said: tuple[object, ...] = ("falco", "POST", "/v1/events/falco", b"", "application/json", [])
    found = {
        body_digest(said, b"{}"),
        body_digest(said, b"{} "),
        body_digest((*said[:3], b"a", *said[4:]), b"{}"),
        body_digest((*said[:3], b"", "application/jso", []), b"n{}"),
        body_digest((*said[:5], [(b"a", b"b")]), b"{}"),
        body_digest((*said[:5], [(b"ab", b"")]), b"{}"),
    }

    assert len(found) == 6
    assert body_digest(said, b"{}") in found


def test_letters_and_large_bodies_are_not_looked_for() -> None:
    form = Gateway().forms["falco"]
    assert isinstance(form, WebhookFormat)
    request = Request(form.path, b" " * BODY_MAX_BYTES, NOW)

    assert form.digest_of(request)
    assert not form.digest_of(msgspec.structs.replace(request, is_letter=True))
    assert not form.digest_of(msgspec.structs.replace(request, body=b" " * (BODY_MAX_BYTES + 1)))


def test_every_sample_is_asked() -> None:
    assert {each.form for each in ASKED} == {
        *(path.stem for path in FOLDER.glob("*.json")),
        "events",
        "mapped",
    }
    assert all(json.dumps(each.content_type) for each in ASKED)
