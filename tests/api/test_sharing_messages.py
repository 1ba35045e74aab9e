"""Requests of many senders at once share messages to a shard (services/ingest/line.py): each gets its own answer, whoever dies
or gives up meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from actors.runtime.local import LocalCluster
from models.alerts.alert import Content
from models.errors import Busy, Conflict, IncidentManagerError, Unavailable
from models.partition.sharding import SlotMap
from models.shard.assembly import decode_message
from models.shard.messages import AlertsArrived, AlertsReply, Decision, Failed, Reply, encode
from services.ingest import line
from services.ingest.arrival import ANONYMOUS, Arrival, Sender
from services.ingest.formats.reading import Reading
from services.ingest.formats.remembered import Memory
from services.ingest.line import MESSAGE_ALERTS_MAX, ShardLine
from services.ingest.submit import Receipt, Submitter
from tests.api.gateway_in_process import MemoryStores, SettableClock, SqliteStores, System, alert, system

pytestmark = pytest.mark.asyncio

SHARD = "shard-0000"
V1 = "/v1/alerts"
#: What the end of a test's name asks of the shard below.
WORDS = {"open": Decision.OPENED, "join": Decision.JOINED, "again": Decision.REPEATED, "late": Decision.LATE,
         "bad": Decision.UNREADABLE, "other": Decision.COLLIDED}  # fmt: skip


class OddShard:
    """An actor that decides by the name of a key, so that a test sees whose answer is whose. Keys named `body` it knows once it
    has met their body."""

    def __init__(self) -> None:
        self.messages: list[AlertsArrived] = []
        self.calls = 0
        self.known: set[bytes] = set()
        #: The number of the first call that it does not answer.
        self.away_from = 10**9
        #: Calls wait for it.
        self.open = asyncio.Event()
        self.open.set()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def tell(self, payload: bytes) -> bytes:
        self.calls += 1
        number = self.calls
        await self.open.wait()
        if number >= self.away_from:
            raise Unavailable("away")
        encoded = msgspec.msgpack.decode(payload, type=list[bytes])
        return msgspec.msgpack.encode([encode(self._reply(decode_message(each))) for each in encoded])

    def _reply(self, message: object) -> Reply:
        assert isinstance(message, AlertsArrived)
        assert len(message.keys) == len(message.ends) == len(message.bodies)
        self.messages.append(message)
        if any(key.startswith(b"refused") for key in message.keys):
            return Failed("Refused", "no")
        found = bytes(map(self._decide, message.keys, message.bodies))
        alike = len(set(found)) == 1
        ids = [key.ljust(16)[:16] for key in message.keys] if message.want_ids else []
        return AlertsReply(found[:1] if alike else found, ids)

    def _decide(self, key: bytes, body: bytes) -> Decision:
        word = key.rstrip(b"\0").decode().rpartition(" ")[2]
        if word == "body" and not body and key not in self.known:
            return Decision.BODY_WANTED
        self.known.add(key)
        return WORDS.get(word, Decision.JOINED)


class Sending:
    """Requests to one odd shard, made by hand."""

    def __init__(self, *, hold_s: float = 5.0, max_alerts: int = 100_000) -> None:
        self.clock = SettableClock()
        self.cluster = LocalCluster()
        self.shard = OddShard()
        self.line = ShardLine(SHARD, self.cluster, self.clock, hold_s=hold_s, max_alerts=max_alerts)
        self.submitter = Submitter([self.line], SlotMap.even(1))

    async def start(self) -> Sending:
        await self.cluster.start(SHARD, lambda _host: self.shard)
        return self

    def send(
        self,
        *names: str,
        ends: float = 60.0,
        said: bytes = b"",
        known: bool = False,
        **more: object,
    ) -> asyncio.Future[Receipt]:
        now = self.clock.now()
        memories = [Memory(name.encode().ljust(32, b"\0"), 0, 0.0, known) for name in names]
        reading = Reading(
            len(names),
            [*range(len(names))],
            memories,
            [now + ends] * len(names),
            lambda column: msgspec.msgpack.encode(Content({"n": names[column]}, {}, 0.0, "", "test")),
            [],
            lambda _column: b"",
            said,
        )
        fields = {"tenant": "default", "format": "v1", "sender": ANONYMOUS, "received_at": now, **more}
        return asyncio.ensure_future(
            self.submitter.submit(reading, msgspec.convert(fields, Arrival, from_attributes=True))
        )

    @property
    def sizes(self) -> list[int]:
        """Alerts in each message."""
        return [len(message.keys) for message in self.shard.messages]

    async def busy(self) -> None:
        """Until as many calls are under way as there may be, so that what is sent now waits together."""
        self.shard.open.clear()
        self.filling = [self.send(f"filling {number} again") for number in range(1)]
        await until(lambda: self.shard.calls == 1)
        self.filling += [self.send("filling 1 again")]
        await until(lambda: self.shard.calls == 2)

    async def flow(self) -> None:
        """Let the shard answer."""
        self.shard.open.set()
        await asyncio.gather(*self.filling)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


def only(receipt: Receipt) -> Decision | IncidentManagerError | None:
    """What became of the one alert of a request."""
    return receipt.errors.get(0) or receipt.decisions[0]


async def test_what_waits_together_travels_together_and_each_gets_its_own_answer() -> None:
    ours = await Sending().start()
    await ours.busy()
    words = ["open", "join", "again", "late", "bad", "other"]
    sent = [(word, ours.send(f"{number} {word}")) for number in range(30) for word in words]

    await ours.flow()

    for word, answer in sent:
        found = only(await answer)
        if word == "bad":
            assert isinstance(found, IncidentManagerError)
        elif word == "other":
            assert isinstance(found, Conflict)
        else:
            assert found is WORDS[word]
    assert ours.sizes == [1, 1, 180]
    assert ours.line.alerts == 0


async def test_requests_of_many_alerts_get_what_is_theirs_of_a_shared_reply() -> None:
    ours = await Sending().start()
    await ours.busy()
    shapes = [("open",), ("join", "again", "late"), ("again",) * 7, ("late", "open")]
    sent = [(shape, ours.send(*(f"{at} {word}" for at, word in enumerate(shape)))) for shape in shapes * 20]

    await ours.flow()

    for shape, answer in sent:
        assert (await answer).decisions == [WORDS[word] for word in shape]
    assert ours.sizes == [1, 1, 13 * 20]


async def test_an_answer_that_is_the_same_for_all_is_everybodys() -> None:
    ours = await Sending().start()
    await ours.busy()
    sent = [ours.send(f"{number} again", f"{number}b again", known=True) for number in range(9)]

    await ours.flow()

    for answer in sent:
        assert (await answer).decisions == [Decision.REPEATED] * 2
    assert ours.sizes == [1, 1, 18]


async def test_incident_ids_come_to_who_asked_for_them() -> None:
    ours = await Sending().start()
    await ours.busy()
    sent = {name: ours.send(name, want_ids=True) for name in ("a", "b", "c")}
    plain = ours.send("d")

    await ours.flow()

    for name, answer in sent.items():
        assert (await answer).incident_ids == [name.encode().ljust(16, b"\0")]
    assert (await plain).incident_ids == []
    assert ours.sizes == [1, 1, 3, 1]


async def test_a_body_that_is_wanted_is_sent_by_whose_it_is_and_nobody_else_waits() -> None:
    ours = await Sending().start()
    await ours.busy()
    first, wanted, last = (
        ours.send("a", known=True),
        ours.send("b body", "c", known=True),
        ours.send("d", known=True),
    )

    await ours.flow()

    assert (await wanted).decisions == [Decision.JOINED] * 2
    assert only(await first) is only(await last) is Decision.JOINED
    assert ours.sizes == [1, 1, 4, 1]
    assert ours.shard.messages[-1].bodies[0]


@pytest.mark.parametrize(
    "apart",
    [
        {"delivery_id": "once"},
        {"trace": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"},
        {"said": b"\x01"},
        {"ends": 0.0},
    ],
    ids=["a delivery", "a trace", "a claim", "an end"],
)
async def test_what_depends_on_its_request_goes_alone_and_nothing_overtakes_it(
    apart: dict[str, object],
) -> None:
    ours = await Sending().start()
    await ours.busy()
    before = [ours.send("a"), ours.send("b")]
    alone = ours.send("c late", **apart)  # type: ignore[arg-type]
    behind = [ours.send("d"), ours.send("e")]

    await ours.flow()
    await asyncio.gather(*before, alone, *behind)

    assert ours.sizes == [1, 1, 2, 1, 2]
    message = ours.shard.messages[3]
    assert message.delivery_id == (None if "delivery_id" not in apart else "default/v1/once")
    assert message.trace == apart.get("trace") and message.said == apart.get("said", b"")
    assert only(await alone) is Decision.LATE


async def test_another_sender_format_or_tenant_has_a_message_of_its_own() -> None:
    ours = await Sending().start()
    await ours.busy()
    who = [
        {"sender": Sender("a", "1")},
        {"sender": Sender("b", "2")},
        {"format": "alertmanager"},
        {"tenant": "t"},
    ]
    sent = [ours.send(f"{number}", **more) for number in range(3) for more in who]  # type: ignore[arg-type]

    await ours.flow()
    await asyncio.gather(*sent)

    assert ours.sizes == [1, 1, 3, 3, 3, 3]
    assert [(each.sender, each.door, each.tenant) for each in ours.shard.messages[2:]] == [
        ("a", "v1", "default"),
        ("b", "v1", "default"),
        ("anonymous", "alertmanager", "default"),
        ("anonymous", "v1", "t"),
    ]


async def test_a_message_is_received_when_the_first_of_its_requests_was() -> None:
    ours = await Sending().start()
    await ours.busy()
    sent = [ours.send("a", received_at=ours.clock.now() - ago) for ago in (0.1, 0.3, 0.2)]

    await ours.flow()
    await asyncio.gather(*sent)

    message = ours.shard.messages[-1]
    assert abs(ours.clock.now() - 0.3 - message.received_at) < 0.2


async def test_a_message_stays_below_its_bound() -> None:
    ours = await Sending().start()
    await ours.busy()
    part = MESSAGE_ALERTS_MAX // 2 - 1
    sent = [ours.send(*(f"{number} {at}" for at in range(part))) for number in range(5)]
    whole = ours.send(*(f"large {at}" for at in range(2 * MESSAGE_ALERTS_MAX + 1)))

    await ours.flow()
    await asyncio.gather(*sent, whole)

    assert max(ours.sizes) == MESSAGE_ALERTS_MAX
    assert (await whole).decisions == [Decision.JOINED] * (2 * MESSAGE_ALERTS_MAX + 1)
    assert ours.line.alerts == 0


async def test_a_refused_message_fails_its_own_and_no_other() -> None:
    ours = await Sending().start()
    await ours.busy()
    refused = ours.send("refused", delivery_id="x")
    good = ours.send("a")

    await ours.flow()

    assert isinstance(only(await refused), IncidentManagerError)
    assert only(await good) is Decision.JOINED


async def test_a_shard_that_dies_in_the_middle_is_asked_again_by_the_same_call() -> None:
    ours = await Sending().start()
    await ours.busy()
    sent = [(word, ours.send(f"{number} {word}")) for number in range(5) for word in ("open", "join", "late")]
    ours.shard.away_from = 3
    ours.shard.open.set()
    await until(lambda: ours.shard.calls > 4)
    ours.shard.away_from = 10**9

    for word, answer in sent:
        assert only(await answer) is WORDS[word]
    assert sorted(ours.sizes) == [1, 1, 15]


async def test_who_gives_up_leaves_the_others_their_own_answers() -> None:
    ours = await Sending(hold_s=5.0).start()
    await ours.busy()
    early = [ours.send("0 open"), ours.send("1 late", "2 again")]
    await asyncio.sleep(0)
    ours.clock.ahead_s += 3.0
    late = [ours.send("3 join"), ours.send("4 open", "5 late")]
    ours.shard.away_from = 3
    ours.shard.open.set()
    # All four are in one message by now, which can't be delivered.
    await until(lambda: ours.shard.calls > 4)
    ours.clock.ahead_s += 3.0

    for answer in early:
        assert all(isinstance(error, Unavailable) for error in (await answer).errors.values())
    assert not any(answer.done() for answer in late)
    ours.shard.away_from = 10**9

    assert (await late[0]).decisions == [Decision.JOINED]
    assert (await late[1]).decisions == [Decision.OPENED, Decision.LATE]
    # The message is what it was: a part of it would be something else under the same call id.
    assert ours.sizes == [1, 1, 6]
    assert ours.line.alerts == 0


async def test_a_request_whose_task_is_cancelled_costs_no_other_its_answer() -> None:
    ours = await Sending().start()
    await ours.busy()
    gone, stays = ours.send("a open"), ours.send("b late")
    await asyncio.sleep(0)
    gone.cancel()

    await ours.flow()

    assert only(await stays) is Decision.LATE
    assert ours.line.alerts == 0


async def test_past_its_bound_a_line_is_busy_for_who_comes_then() -> None:
    ours = await Sending(max_alerts=4).start()
    await ours.busy()
    taken = [ours.send("a"), ours.send("b")]
    await asyncio.sleep(0)
    over = await ours.send("c")

    await ours.flow()

    assert isinstance(only(over), Busy)
    assert [only(await each) for each in taken] == [Decision.JOINED] * 2
    assert only(await ours.send("d")) is Decision.JOINED


# -- with real shards ----------------------------------------------------------------------------------------


def mixed(number: int) -> Sequence[dict[str, object]]:
    """A request of up to four alerts on both shards, some of them wrong."""
    good = [
        alert(f"A{number}-{at}", "api" if (number + at) % 3 else "db", n=str(at))
        for at in range(1 + number % 4)
    ]
    return good if number % 5 else [*good, {"labels": {}}]


async def test_hundreds_at_once_are_each_told_what_became_of_their_own(stored: System) -> None:
    sent = [mixed(number) for number in range(200)]

    answers = await asyncio.gather(*(stored.post(V1, alerts) for alerts in sent))

    for number, (alerts, answer) in enumerate(zip(sent, answers, strict=True)):
        assert answer.status == (202 if number % 5 else 207)
        for item, given in zip(answer.items, alerts, strict=True):
            if not given["labels"]:
                assert item["status"] == 400
                continue
            assert item["decision"] in ("opened", "joined")
            incident = await stored.get(f"/v1/incidents/{item['incident_id']}")
            assert incident.json["labels"]["service"] == given["labels"]["service"]  # type: ignore[index]
    again = await asyncio.gather(*(stored.post(V1, alerts) for alerts in sent))
    assert {item["decision"] for answer in again for item in answer.items if item["status"] == 202} == {
        "repeated"
    }


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_crash_in_the_middle_loses_nothing_and_doubles_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliveries with an id among them are answered as what they were."""
    # Within one process nobody hears of a crash: the call is waited for.
    monkeypatch.setattr(line, "CALL_TIMEOUT_S", 0.3)
    stores = MemoryStores() if kind == "memory" else SqliteStores(tmp_path)
    async with system(stores, server={"hold": 60.0}) as stored:
        await crashed_in_the_middle(stored)


async def crashed_in_the_middle(stored: System) -> None:
    sent = [mixed(number) for number in range(150)]
    ids = {number: {"Idempotency-Key": f"k{number}"} for number in range(0, 150, 7)}
    sending = [
        asyncio.ensure_future(stored.post(V1, alerts, headers=ids.get(number, {})))
        for number, alerts in enumerate(sent)
    ]
    for shard in stored.shards * 2:
        await asyncio.sleep(0.01)
        await stored.crash(shard)
        await stored.cluster.restart(shard)
    answers = await asyncio.gather(*sending)
    await stored.ready()

    assert {answer.status for answer in answers} <= {202, 207}
    wanted = {str(each["labels"]["alertname"]) for alerts in sent for each in alerts if each["labels"]}  # type: ignore[index]
    assert await stored.names() == wanted
    shown = await stored.alerts()
    assert len(shown) == len(wanted)
    for number, headers in ids.items():
        repeated = await stored.post(V1, sent[number], headers=headers)
        told = {item.get("decision") for item in repeated.items} - {None}
        assert told == {"duplicate"} or number % 5 == 0
        assert [item.get("incident_id") for item in repeated.items] == [
            item.get("incident_id") for item in answers[number].items
        ]
