"""Alerts as protobuf messages: what is known of them in whatever order, and their acknowledgements as bytes."""

from __future__ import annotations

import pytest

from models.errors import Malformed, TooLarge
from models.settings.all import Settings
from models.shard.messages import Decision
from services.ingest.doors.grpc.alerts import acks, written
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.items import ALERTS_MAX
from services.ingest.formats.json_arrays import SLICE_ALERTS
from services.ingest.formats.llm_sentinel import LlmSentinelFormat
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
