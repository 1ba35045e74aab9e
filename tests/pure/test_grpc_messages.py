"""Alerts as protobuf messages: what is known of them in whatever order, and their acknowledgements as bytes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.alerts.alert import Content
from models.errors import Malformed, TooLarge
from models.settings.all import Settings
from models.shard.messages import Decision
from services.ingest.doors.grpc.alerts import acks, written
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.items import ALERTS_MAX
from services.ingest.formats.json_arrays import SLICE_ALERTS
from services.ingest.formats.llm_sentinel import LlmSentinelFormat
from services.ingest.formats.llm_shield import LlmShieldFormat
from services.ingest.formats.proto import PROTO, MessagesRead, cut, joined
from services.ingest.formats.remembered import Remembered
from services.ingest.submit import Receipt
from services.proto import incident_pb2 as pb

LABELS = {"region": "eu", "zone": "a", "model": "m-1"}
NOW = 1_769_860_900.0


def sentinel() -> LlmSentinelFormat:
    return LlmSentinelFormat(Shared(Remembered("default", ("service",)), Settings()))


def sent(*names: str, alert_id: str = "a-1", value: str = "m-1") -> bytes:
    """An alert whose labels are written in this order."""
    alert = pb.AlertMessage(alert_id=alert_id, description="slow answers", affected_services=["api"])
    pairs = {**LABELS, "model": value}
    return alert.SerializeToString() + b"".join(
        pb.AlertMessage(labels={name: pairs[name]}).SerializeToString() for name in names
    )


def read(form: LlmSentinelFormat, *messages: bytes) -> MessagesRead:
    found = form.read(Request(form.path, joined(messages), NOW, content_type=PROTO))
    assert isinstance(found, MessagesRead)
    return found


def test_an_alert_is_known_in_whatever_order_its_labels_are_written() -> None:
    form = sentinel()
    (first,) = read(form, sent("region", "zone", "model")).memories
    for order in (("zone", "model", "region"), ("model", "region", "zone"), ("region", "zone", "model")):
        reading = read(form, sent(*order))

        assert reading.memories[0] is first, order
        assert reading.ids == ["a-1"]


def test_another_value_is_another_alert() -> None:
    form = sentinel()
    (first,) = read(form, sent("region", "zone", "model")).memories

    (other,) = read(form, sent("zone", "model", "region", value="m-2")).memories

    assert other.key != first.key


def test_of_one_alert_two_orders_are_remembered_at_most() -> None:
    form = sentinel()
    for order in (("zone", "model", "region"), ("model", "region", "zone"), ("region", "zone", "model")):
        read(form, sent(*order))
        read(form, sent(*reversed(order)))

    assert len(form._messages._young) <= 2


def test_acknowledgements_as_bytes_say_what_those_as_objects_do() -> None:
    form = sentinel()
    plain = [sent("zone", alert_id=f"a-{number}") for number in range(4)]
    one = bytes(range(16))
    for messages, ids in (
        (plain, [one, one, b"\xff" * 16, one]),
        (plain, [one, b"", one, one]),
        ([*plain[:3], sent("zone", alert_id="ü" * 90)], [one] * 4),
        ([*plain[:3], sent("zone", alert_id="")], [one] * 4),
    ):
        reading = read(form, *messages)
        decisions = [Decision.REPEATED, Decision.OPENED, Decision.DUPLICATE, Decision.CHANGED]
        receipt = Receipt([*decisions], ids, {})

        expected = acks(reading, receipt)

        assert [pb.AlertAck.FromString(each) for each in written(reading, receipt)] == expected


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 16_383, 16_384, 70_000])
def test_a_batch_is_cut_into_its_messages_whatever_their_size(size: int) -> None:
    messages = [b"x" * size, b"y", b"z" * size]

    assert cut(joined(messages)) == ("", messages)
    assert cut(b"\x0a\x02id" + joined(messages)) == ("id", messages)
    for end in (1, 2):
        if size > 1:
            with pytest.raises(Malformed):
                cut(joined(messages)[:-end])


@pytest.mark.parametrize("field", [b"\x12\x00", b"\x0a\x00", b"\x08\x00"])
def test_a_batch_of_more_fields_than_alerts_are_allowed_is_not_cut_to_its_end(field: bytes) -> None:
    with pytest.raises(TooLarge):
        cut(field * (ALERTS_MAX + 2) + b"\xff")  # what comes behind is not looked at


def test_alerts_are_counted_not_messages() -> None:
    services = pb.AlertMessage(description="x", affected_services=[f"s{n}" for n in range(1000)])
    raw = services.SerializeToString()
    form = sentinel()

    steps = form.steps(Request(form.path, joined([raw] * 50), NOW, content_type=PROTO))
    most = 0
    for count, _ in enumerate(steps, 1):
        most = count

    assert most >= 49_000 // max(SLICE_ALERTS, 1000)
    with pytest.raises(TooLarge, match="alerts in one request"):
        read(form, *[raw] * (ALERTS_MAX // 1000 + 1))


def steps_of(form: LlmSentinelFormat, *messages: bytes) -> int:
    """How many turns others get while these are read."""
    return sum(1 for _ in form.steps(Request(form.path, joined(messages), NOW, content_type=PROTO)))


def test_a_large_message_is_read_in_steps() -> None:
    many_labels = pb.AlertMessage(description="x", labels={f"label{n:06}": "" for n in range(45_000)})
    long_texts = pb.AlertMessage(
        description="x" * 20_000, affected_services=[f"s{n}" for n in range(200)], labels={"a": "b" * 16_000}
    )

    assert steps_of(sentinel(), many_labels.SerializeToString()) >= 2
    # Each of its alerts counts as much as the message is large.
    assert steps_of(sentinel(), long_texts.SerializeToString()) >= 200 * 36_000 / 4096 / SLICE_ALERTS / 2


def test_of_very_many_labels_the_first_by_name_are_taken_as_of_their_json() -> None:
    pairs = {f"label{n:03}": "x" for n in range(100)}
    form = sentinel()
    by_json = form.read(
        Request(form.path, msgspec.json.encode({"severity": "P1", "description": "x", "labels": pairs}), NOW)
    )

    by_proto = read(
        form, pb.AlertMessage(severity=pb.SEVERITY_P1, description="x", labels=pairs).SerializeToString()
    )

    assert by_proto.memories[0] is by_json.memories[0]


def test_the_alerts_of_a_message_are_made_again_by_reading_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    form = sentinel()
    raw = pb.AlertMessage(
        description="x", affected_services=[f"s{n}" for n in range(500)]
    ).SerializeToString()
    first = read(form, raw, sent("region"))
    bodies = [first.body(column) for column in range(len(first.memories))]
    parsed: list[bytes] = []
    parse = form._messages._parsed

    def counted(message: bytes) -> object:
        parsed.append(message)
        return parse(message)

    monkeypatch.setattr(form._messages, "_parsed", counted)

    again = read(form, raw, sent("region"))

    assert [again.body(column) for column in range(len(again.memories))] == bodies
    assert parsed == [raw, sent("region")]


@pytest.mark.parametrize("by_json", [True, False])
def test_what_services_share_is_bounded(by_json: bool) -> None:
    form = sentinel()
    # 250 kB in each of 1,000 alerts.
    notes = {f"n{number}": "x" * 50_000 for number in range(5)}
    given: dict[str, Any] = {
        "description": "x",
        "affected_services": [f"s{n}" for n in range(1000)],
        "annotations": notes,
    }
    if by_json:
        body = msgspec.json.encode([{**given, "severity": "P1"}, {"severity": "P1", "description": "fine"}])
        found = form.read(Request(form.path, body, NOW))
    else:
        large = pb.AlertMessage(**given).SerializeToString()
        found = read(form, large, pb.AlertMessage(description="fine").SerializeToString())

    assert [fault.index for fault in found.faults] == [0]
    assert "affected_services: 1000 of them" in found.faults[0].message
    assert len(found.memories) == 1


def test_of_very_many_services_each_alert_names_some() -> None:
    form = sentinel()
    names = [f"service-number-{n}" for n in range(1000)]

    found = read(form, pb.AlertMessage(description="x", affected_services=names).SerializeToString())

    content = msgspec.msgpack.decode(found.body(999), type=Content)
    assert not found.faults
    assert content.labels["service"] == names[999]
    assert content.annotations["affected_services"].endswith("service-number-99 and 900 more")


def test_a_batch_that_becomes_very_many_bytes_is_refused_as_a_whole() -> None:
    texts = {"a": "x" * 60_000}
    raw = pb.AlertMessage(
        description="x", affected_services=[f"s{n}" for n in range(200)], annotations=texts
    ).SerializeToString()

    assert not read(sentinel(), raw).faults
    with pytest.raises(TooLarge, match="send fewer"):
        read(sentinel(), *[raw] * 7)


def test_an_incident_of_very_many_empty_assets_is_soon_read() -> None:
    form = LlmShieldFormat(Shared(Remembered("default", ("service",)), Settings()))
    raw = pb.SecurityIncident(
        id="i",
        threat_type=pb.THREAT_TYPE_MALICIOUS_ACCESS,
        severity=pb.SECURITY_SEVERITY_CRITICAL,
        affected_assets=[pb.Asset(name="db"), *[pb.Asset()] * 100_000],
    ).SerializeToString()

    said = form._messages._values(pb.SecurityIncident.FromString(raw))

    assert len(said["affected_assets"]) == 1000  # type: ignore[arg-type]
    assert not form.read(Request(form.path, joined([raw]), NOW, content_type=PROTO)).faults
