"""A responder looks up who is meant at the moment when they are told, and says by names what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from actors.control_tail import ControlTail
from actors.paging import Paging
from models.control.slots import Slots
from models.errors import Busy, Unavailable
from models.incidents.incident import IncidentState, IncidentType, Severity
from models.incidents.notification import Facts
from models.metrics import Meter
from models.people.person import Contact, Person
from models.people.policy import Level, Policy, Target
from models.people.roster import ChangePeople
from models.people.schedule import Hours, Layer, Override, Schedule
from models.ports import ActionResult, Channel
from models.shard.effects import Act
from models.shard.escalation import Page, Paged
from models.shard.escalation_state import OVER
from services.stores.memory.log import MemoryEventLog
from services.stores.memory.store import MemoryStore
from tests.clock import ManualClock

pytestmark = pytest.mark.asyncio

#: A Monday, 12:00.
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()
OK = ActionResult(True, "200")
ANA = Person(
    "ana", "", (Contact("sms", "+34600"), Contact("sms", "+34601"), Contact("mail", "ana@example.org"))
)
BEN = Person("ben", "", (Contact("sms", "+49170"),))
MUTE = Person("mute")
LOST = Person("lost", "", (Contact("fax", "1"),))
WEEK = Schedule("primary", "UTC", (Layer("week", ("ana",), 604800.0, "2026-01-05T09:00"),))
NIGHTS = Schedule(
    "nights", "UTC", (Layer("n", ("ana",), 86400.0, "2026-01-05T09:00", (Hours((0,), 1200, 480),)),)
)
FACTS = Facts(
    "level 1 of p", bytes(16), "default", "api", "Down", "", Severity.P0, IncidentType.UNKNOWN, IncidentState.TRIAGED,
    0.0, 0.0, {}, {}, {}, [], 0,
)  # fmt: skip


class Responder:
    """Paging over people who are in a log, and what it sent. `answers` by address; an exception is raised."""

    def __init__(self, *levels: Iterable[str], answers: Mapping[str, Any] | None = None) -> None:
        store, self.clock, self.meter = MemoryStore(), ManualClock(NOON), Meter("responder-0")
        self.tail = ControlTail(MemoryEventLog(store, "control"))
        made = tuple(Level(tuple(Target(*each.split(":")) for each in level)) for level in levels)
        self.change(
            ChangePeople(
                "ada", [ANA, BEN, MUTE, LOST], [WEEK, NIGHTS], [], [Policy("p", made)] if made else []
            )
        )
        self.slots()
        self.sent: list[Act] = []
        self.answers = answers or {}
        receivers: dict[str, Any] = dict.fromkeys(("sms", "mail", "ops"), object())
        self.paging = Paging(receivers, self.tail, self.clock, self.meter)

    def change(self, message: ChangePeople) -> None:
        state = self.tail.state
        for event in state.decide(message, self.clock.now()):
            state.apply(event, self.clock.now())

    def slots(self) -> None:

        for event in self.tail.state.of(Slots).begin(1):
            self.tail.state.apply(event, NOON)

    async def page(self, level: int = 0, **more: Any) -> Paged:
        async def send(_channel: Channel, act: Act) -> ActionResult:
            self.sent.append(act)
            answer = self.answers.get(act.facts.to.strip("+"), OK)
            if isinstance(answer, Exception):
                raise answer
            found: ActionResult = answer
            return found

        asked = Page(bytes(16), "default", 1, 0, "p", level, "i-page-1", FACTS)
        return await self.paging.page(msgspec.structs.replace(asked, **more), send)


async def test_who_is_on_call_is_told_by_all_contacts_under_keys_without_addresses() -> None:
    responder = Responder(["schedule:primary"])

    paged = await responder.page()

    assert paged.told == ["ana:sms", "ana:sms:2", "ana:mail"] and not paged.failed and not paged.missed
    assert [each.facts.to for each in responder.sent] == ["+34600", "+34601", "ana@example.org"]
    assert [each.key for each in responder.sent] == [
        "i-page-1-ana.sms-0",
        "i-page-1-ana.sms.2-0",
        "i-page-1-ana.mail-0",
    ]


async def test_an_override_of_this_moment_counts() -> None:
    responder = Responder(["schedule:primary"])
    responder.change(
        ChangePeople("ada", overrides=[Override("o", "primary", "ben", NOON - 1, NOON + 1, NOON, "ada")])
    )

    assert (await responder.page()).told == ["ben:sms"]


async def test_who_is_meant_twice_is_told_once_and_a_receiver_stands_for_itself() -> None:
    responder = Responder(["schedule:primary", "person:ana", "receiver:ops"])

    assert (await responder.page()).told == ["ana:sms", "ana:sms:2", "ana:mail", "*:ops"]


async def test_who_was_told_by_an_earlier_try_is_left_alone() -> None:
    responder = Responder(["person:ana"])

    paged = await responder.page(done=["ana:sms", "ana:mail"], attempt=1)

    assert paged.told == ["ana:sms:2"] and responder.sent[0].key.endswith("-1")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("schedule:nights", "nobody is on call in schedule:nights"),
        ("person:mute", "mute has no contacts"),
        ("person:lost", "lost: there is no receiver fax"),
        ("receiver:fax", "receiver:fax: there is no receiver fax"),
    ],
)
async def test_it_says_why_nobody_could_be_found(target: str, why: str) -> None:
    paged = await Responder([target]).page()

    assert (paged.told, paged.missed, paged.again) == ([], [why], False)


async def test_a_policy_that_is_gone_tells_nobody_and_says_so() -> None:
    assert (await Responder().page()).missed == ["policy p does not exist any more"]


async def test_what_failed_is_said_without_the_address_and_tried_again_unless_it_is_final() -> None:
    refused = ActionResult(False, "550 <ANA@example.org> is unknown", final=True)
    wait = ActionResult(False, "429", retry_after_s=7.0)
    responder = Responder(
        ["person:ana"], answers={"ana@example.org": refused, "34600": wait, "34601": Busy("all lines", 3.0)}
    )

    paged = await responder.page()

    assert paged.failed == ["ana by sms: 429", "ana by sms:2: all lines", "ana by mail: 550 <***> is unknown"]
    assert (paged.again, paged.retry_after_s, paged.final) == (True, 3.0, ["ana:mail"])


async def test_who_hears_of_the_end_is_who_was_told_if_still_there() -> None:
    responder = Responder(["person:ben"])

    paged = await responder.page(OVER, only=["ana:sms:2", "ana:fax", "zoe:sms", "*:ops"])

    assert paged.told == ["ana:sms:2", "*:ops"] and not paged.missed


async def test_while_nobody_knows_who_there_is_it_is_asked_again() -> None:
    responder = Responder(["person:ana"])
    responder.tail.state = type(responder.tail.state)()

    with pytest.raises(Unavailable, match="not known yet"):
        await responder.page()
