"""Trace contexts as the W3C standard has them, and which incidents a shard keeps one for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from actors import traces
from actors.runtime.untraced import NoTracer, NotRecorded
from actors.traces import Traces
from models.incidents.incident import IncidentState, IncidentType, Severity
from models.partition.event import Event
from models.settings.telemetry import Telemetry
from models.shard.assembly import decode_message
from models.shard.effects import Act, Archive, Classify, Effect
from models.shard.events import AlertsObserved, CallAnswered, IncidentStateChanged, NotificationOwed
from models.shard.messages import (
    ActionOutcome,
    AlertsArrived,
    Classification,
    Classified,
    Done,
    PeerMessageArrived,
    Tick,
    encode,
)
from models.shard.openings import OverflowMemberAdded
from models.shard.shard import Step
from models.trace import (
    TRACESTATE_MAX_BYTES,
    Attribute,
    Kind,
    context_of,
    headers_of,
    is_sampled,
    trace_id_of,
)
from tests.facts import some_facts

ROOT = Path(__file__).resolve().parents[2]
IDS = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
TRACE = f"00-{IDS}-01"
ONE, OTHER = b"1" * 16, b"2" * 16


def of(traceparent: str, *states: str) -> str | None:
    headers = [(b"host", b"x"), (b"traceparent", traceparent.encode("latin-1"))]
    return context_of(headers + [(b"tracestate", state.encode("latin-1")) for state in states])


# -- the context -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (f"00-{IDS}-01", f"00-{IDS}-01"),
        (f"00-{IDS}-00", f"00-{IDS}-00"),
        (f"00-{IDS}-03", f"00-{IDS}-03"),
        (f"00-{IDS}-ff", f"00-{IDS}-03"),  # flags that nobody has defined are not passed on
        (f"cc-{IDS}-01", f"00-{IDS}-01"),  # a version to come says this much as we do
        (f"cc-{IDS}-01-what-the-future-brings", f"00-{IDS}-01"),
    ],
)
def test_a_traceparent_is_read(given: str, kept: str) -> None:
    assert of(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "",
        "garbage",
        f"ff-{IDS}-01",
        f"00-{IDS}-01-more",
        f"cc-{IDS}-01.more",
        f"00-{IDS}-01 ",
        f"00-{IDS}-01\n",
        f"00-{IDS.upper()}-01",
        f"00-{IDS}-1",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        "\xff" * 55,
        "0" * 60_000,
    ],
)
def test_a_traceparent_that_is_none_is_passed_over(given: str) -> None:
    assert of(given) is None


def test_two_traceparents_are_none() -> None:
    header = (b"traceparent", TRACE.encode())

    assert context_of([header, header]) is None


@given(st.lists(st.tuples(st.sampled_from([b"traceparent", b"tracestate", b"x"]), st.binary(max_size=80))))
def test_no_header_whatever_is_an_error(headers: list[tuple[bytes, bytes]]) -> None:
    trace = context_of(headers)

    assert trace is None or headers_of(trace)


def test_tracestates_of_several_headers_are_one() -> None:
    trace = of(TRACE, "a=1, b=2 ", "c=3")

    assert trace is not None
    assert headers_of(trace) == {"traceparent": TRACE, "tracestate": "a=1, b=2,c=3"}


@pytest.mark.parametrize("state", ["", "x" * (TRACESTATE_MAX_BYTES + 1), "a=\xff", "a=1\r\nx: y"])
def test_a_tracestate_that_cannot_be_passed_on_leaves_the_trace(state: str) -> None:
    assert of(TRACE, state) == TRACE


def test_a_tracestate_without_a_traceparent_is_nothing() -> None:
    assert context_of([(b"tracestate", b"a=1")]) is None


def test_a_context_says_its_id_and_whether_it_is_recorded() -> None:
    assert trace_id_of(TRACE) == IDS[:32] and trace_id_of(None) is None
    assert is_sampled(TRACE) and is_sampled(f"00-{IDS}-03 a=1")
    assert not is_sampled(f"00-{IDS}-00 a=01") and not is_sampled(f"00-{IDS}-02")


def test_with_telemetry_off_a_context_is_passed_on_and_nothing_is_wanted() -> None:
    tracer = NoTracer()

    with tracer.span("x", TRACE) as span:
        assert span.trace == TRACE
    assert not tracer.wants(TRACE)


def test_messages_of_a_program_without_traces_are_read() -> None:
    message = AlertsArrived(b"c", "default", "v1", [], [], [], False, None, IDS[:32])

    assert decode_message(encode(message)) == message


# -- a shard's traces --------------------------------------------------------------------------------------


class Recorder(NoTracer):
    """Port Tracer: remembers names and attributes; every span of a sampled trace is number n of it."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, dict[str, Attribute]]] = []

    def wants(self, trace: str | None) -> bool:
        return trace is not None and is_sampled(trace)

    def span(
        self,
        name: str,
        parent: str | None,
        attributes: Mapping[str, Attribute] | None = None,
        *,
        kind: Kind = "internal",
        since: float | None = None,
    ) -> NotRecorded:
        assert self.wants(parent)
        self.spans.append((name, dict(attributes or {})))
        return NotRecorded(f"00-{IDS[:32]}-{len(self.spans):016x}-01")


def arrived(trace: str | None) -> AlertsArrived:
    return AlertsArrived(
        b"c", "default", "v1", [b"k"], [1.0], [b""], trace_id=trace_id_of(trace), trace=trace
    )


def step(*events: Event) -> Step:
    return Step(list(events), [], Done())


def joined(incident: bytes) -> Event:
    return OverflowMemberAdded(incident, "group", "title")


def question(incident: bytes) -> Classify:
    return Classify(incident, "default", "s", "", "", "", {}, {}, [], 1)


def act(incident: bytes) -> Act:
    return Act(incident, 1, 0, "webhook", "webhook", "k", some_facts())


def traces_of(effects: Sequence[Effect]) -> list[str | None]:
    return [getattr(effect, "trace", None) for effect in effects]


REPEAT = (AlertsObserved(b"", b""), CallAnswered(b"c", b"", None))
FIRST = f"00-{IDS[:32]}-{1:016x}-01"


def test_what_an_incident_owes_goes_on_in_the_span_that_caused_it() -> None:
    found = Traces(recorder := Recorder(), "shard/0000")

    found.durable(arrived(TRACE), step(joined(ONE)), 1.0)

    assert traces_of(found.on([question(ONE), act(ONE), act(OTHER), Archive([ONE])])) == [
        FIRST, FIRST, None, None,
    ]  # fmt: skip
    (name, about) = recorder.spans[0]
    assert name == "commit"
    assert (about["llm_im.partition"], about["llm_im.alerts"]) == ("shard/0000", 1)


def test_repeats_make_no_span_and_leave_no_trace() -> None:
    found = Traces(recorder := Recorder(), "shard/0000")

    found.durable(arrived(TRACE), step(*REPEAT), 1.0)

    assert recorder.spans == [] and traces_of(found.on([act(ONE)])) == [None]


def test_a_trace_that_is_not_recorded_is_passed_on_without_a_span() -> None:
    found = Traces(recorder := Recorder(), "shard/0000")

    found.durable(arrived(f"00-{IDS}-00"), step(joined(ONE)), 1.0)

    assert recorder.spans == [] and traces_of(found.on([act(ONE)])) == [f"00-{IDS}-00"]


def test_what_a_message_from_another_incident_brings_is_part_of_its_trace() -> None:
    found = Traces(Recorder(), "shard/0000")
    told = PeerMessageArrived("default", OTHER, 1, ONE, b"", TRACE)

    found.durable(told, step(joined(ONE)), 1.0)

    assert found.id_of(told) == IDS[:32] and traces_of(found.on([act(ONE)])) == [FIRST]


@pytest.mark.parametrize("other", [Tick(), arrived(None)], ids=["time", "another request"])
def test_an_incident_that_another_cause_ends_has_left_its_trace(other: Tick | AlertsArrived) -> None:
    found = Traces(Recorder(), "shard/0000")
    found.durable(arrived(TRACE), step(joined(ONE)), 1.0)
    ended = IncidentStateChanged(
        ONE, IncidentState.TRIAGED, IncidentState.RESOLVED, "system", "ended", "Automated"
    )

    found.durable(other, step(ended, NotificationOwed(ONE, 2, "resolved", 1.0)), 2.0)

    assert traces_of(found.on([act(ONE)])) == [None]


def test_a_series_that_another_request_brings_leaves_an_incident_its_trace() -> None:
    found = Traces(Recorder(), "shard/0000")
    found.durable(arrived(TRACE), step(joined(ONE)), 1.0)

    found.durable(arrived(None), step(joined(ONE)), 2.0)

    assert traces_of(found.on([act(ONE)])) == [FIRST]


def test_answers_bear_the_trace_of_what_was_asked() -> None:
    found = Traces(Recorder(), "shard/0000")
    found.durable(arrived(TRACE), step(joined(ONE)), 1.0)
    one, other = (
        Classification(each, Severity.P1, IncidentType.UNKNOWN, "", "", 1.0, 1) for each in (ONE, OTHER)
    )

    assert found.id_of(ActionOutcome(ONE, 1, 0, True, "")) == IDS[:32]
    assert found.id_of(Classified([one])) == IDS[:32]
    assert found.id_of(Classified([one, other])) is None
    assert found.id_of(ActionOutcome(OTHER, 1, 0, True, "")) is None


def test_the_incidents_remembered_are_bounded_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "TRACES_MAX", 3)
    found = Traces(NoTracer(), "shard/0000")
    incidents = [bytes([number]) * 16 for number in range(5)]
    for incident in incidents:
        found.durable(arrived(TRACE), step(joined(incident)), 1.0)

    assert traces_of(found.on([act(incident) for incident in incidents])) == [None, None, TRACE, TRACE, TRACE]


# -- its settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:4318",
        "grpc://a:4317",
        "http://",
        "http://user:secret@a",
        "http://a/?key=secret",
        "http://a b",
    ],
)
def test_an_endpoint_that_is_none_or_holds_a_secret_is_refused_without_being_told(endpoint: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Telemetry(endpoint=endpoint)

    assert "telemetry.headers" in refused.value.errors()[0]["msg"]
    assert "secret" not in refused.value.errors()[0]["msg"].replace("put secrets into", "")


@pytest.mark.parametrize(
    "headers", [{"a b": "x"}, {"": "x"}, {"a": "s3cret\r\nb: c"}, {"a": ""}, {"a": "s3cret\xff"}]
)
def test_headers_that_could_not_be_sent_are_refused_without_being_told(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        Telemetry.model_validate({"headers": headers})

    assert "s3cret" not in refused.value.errors()[0]["msg"]


def test_headers_are_masked_wherever_settings_are_shown() -> None:
    telemetry = Telemetry.model_validate({"headers": {"authorization": "Bearer s3cret"}})

    assert "s3cret" not in repr(telemetry) + telemetry.model_dump_json()


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        (
            "import actors.shard, actors.classifier, actors.responder, services.actions.webhook",
            "opentelemetry",
        ),
        # FastAPI itself imports OpenTelemetry's API, which is small.
        ("import services.wiring.gateway", "opentelemetry.sdk"),
    ],
)
def test_without_telemetry_no_process_imports_what_exports_it(program: str, absent: str) -> None:
    program += (
        "; import sys; from models.settings.all import Settings; from services.wiring import bootstrap;"
        "bootstrap.open_tracer(Settings(), 'a');"
        f"assert not [name for name in sys.modules if name.startswith({absent!r})]"
    )

    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)
