"""Writes a small log with every event type, as this version writes it: `python -m tests.data.logs.make`.

One folder a released version, kept for ever: tests/pure/test_released_logs.py replays them all. Make a new one when
a version is released; never make an old one anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from models import VERSION
from models.alerts.inhibition import Inhibitor
from models.alerts.series import FREE
from models.control.control import ControlState
from models.control.events import CopyBegan, CopyEnded, PartitionsBegan, SettingsChanged, StoreMoved
from models.control.heartbeats import Heartbeat, HeartbeatHeard, RemoveHeartbeat, SetHeartbeat
from models.control.issuing import CreateToken, RevokeToken, RotateToken, TokensSeen
from models.control.model_versions import (
    AskTraining,
    Counted,
    FailTraining,
    KeepModel,
    PromoteModel,
    RollBackModel,
    ShadowModel,
)
from models.control.playbooks import ApplyPlaybook, RemovePlaybook, SetPlaybookMode
from models.control.polls import MoveCursor, ReleasePoll, TakePoll
from models.control.silences import ExpireSilence, SetSilence, Silence
from models.control.slots import Slots
from models.incidents.incident import Handling, Incident, IncidentType, Notification, Severity
from models.incidents.relation import Cause, Part, Relation
from models.incidents.verbs import (
    Acknowledge,
    AnyVerb,
    ApproveRun,
    Assign,
    Comment,
    Create,
    HoldRun,
    Label,
    Link,
    Merge,
    Reclassify,
    Resolve,
    Split,
    Unlink,
    Unmerge,
    Update,
)
from models.learned.evaluate import Evaluation, Figures
from models.learned.model import Head, Model, encode_model
from models.partition.event import Event
from models.partition.frames import NO_DIGEST, encode_frame
from models.people.person import Contact, Person
from models.people.policy import Level, Outline, Policy, Target
from models.people.roster import ChangePeople
from models.people.schedule import Layer, Override, Schedule
from models.playbook.playbook import Approval, PlannedAction, Trigger
from models.playbook.playbook import encode as encode_book
from models.playbook.run_events import RunStarted
from models.playbook.schedule import next_due
from models.playbook.work import (
    FAILED,
    SUCCEEDED,
    Capture,
    Do,
    Done,
    Enter,
    IncidentEffect,
    Work,
    encode_done,
)
from models.routes.route import ReceiverRow, Route
from models.shard.edge_messages import (
    AnswerEdge,
    AskEdge,
    CheckEdge,
    ConfigureEdge,
    ConnectEdge,
    DeliverEdge,
    DisconnectEdge,
    ReportEdge,
)
from models.shard.escalation import Page, Paged, PoliciesChanged
from models.shard.heartbeats import Beats, HeartbeatsChanged
from models.shard.inhibitors import InhibitorsChanged
from models.shard.known_silences import SilencesChanged
from models.shard.relations import Related
from models.shard.shard import Shard
from models.shard.slot_transfer import arrived, by_slot, leaving
from models.shard.verification import Recheck, Rechecked
from models.topology.events import IncidentNews
from models.topology.graph import Dependency, Service
from models.topology.messages import (
    DeclareTopology,
    IncidentsHeard,
    RemoveDependency,
    RemoveSource,
    SetDependency,
    Tick,
    TopologyMessage,
)
from models.topology.topology import TOPOLOGY, Topology
from tests.runs import RunStory, act, book, offered, step
from tests.scenario import SETTINGS, ZERO, Story, alert, at

HERE = Path(__file__).parent


def story() -> list[tuple[float, list[Event]]]:
    """(now, events) of each frame of a shard's log in which everything happens once."""
    told = RunStory(settings=msgspec.structs.replace(SETTINGS, acknowledge_within_s=(600.0,) * 5))
    frames: list[tuple[float, list[Event]]] = []
    seen = [0]

    def frame() -> None:
        events = [event for _at, event in told.events[seen[0] :]]
        seen[0] = len(told.events)
        if events:
            frames.append((told.now, events))

    def each(*steps: object) -> None:
        frame()

    one, two = alert("llm-api", "Down", "a"), alert("llm-api", "Down", "b", severity="critical", ends=50)
    told.restart(at(0))
    frame()
    each(told.push(at(0), one, delivery="default/v1/key-1"))
    each(told.classify(at(0), Severity.P1))
    each(told.receive(at(0.5), ok=False))
    each(told.push(at(1), one, two))
    each(told.classify(at(1), Severity.P0))
    each(told.push(at(2), one, two))
    each(told.tick(at(3)))
    each(told.receive(at(4)))
    each(told.push(at(5), alert("llm-api", "Down", "a", summary="worse – ünïcode")))
    each(told.push(at(6), alert("vector-db", "Slow", ends=5)))
    each(told.push(at(7), *[alert("billing", f"Alert{number}", severity="info") for number in range(4)]))
    each(told.classify(at(7), Severity.P4))
    each(told.push(at(8), alert("billing", "Alert0", severity="info", ends=8)))
    each(told.hear(at(10), at(4)))
    each(told.tick(at(55)))
    each(told.push(at(56), alert("llm-api", "Down", "a", ends=56)))
    for second in (57, 58):
        if told.sent():
            each(told.receive(at(second)))
    each(told.push(at(60), two.ended(300)))
    each(told.push(at(61), two.ended(61)))
    while told.sent():
        each(told.receive(at(62)))
    each(told.tick(at(200)))
    each(told.archive(at(201)))
    # A long body is compressed.
    each(told.push(at(202), alert("gpu-pool", "Hot", runbook="read this first; " * 500)))
    frame()
    _people(told, frame)
    # The clock was an hour ahead for a moment.
    each(told.push(at(4003 + 3600), alert("gpu-pool", "Hot", "b")))
    each(told.tick(at(4004)))
    frame()
    _muted(told, frame)
    _routed(told, frame)
    _repaired(told, frame)
    _watched(told, frame)
    _edge(told, frame)
    _clocked(told, frame)
    _paged(told, frame)
    _related(told, frame)
    # A slot goes to another partition and comes back.
    slot, identities = next(iter(by_slot(told.shard).items()))
    for event in [*leaving(told.shard, slot, identities, 2)]:
        for moved in (event, arrived(event)):
            told.shard.apply(moved, told.now)
            frames.append((told.now, [moved]))
    return frames


def topology_story() -> list[list[Event]]:
    """The events of each frame of the topology partition's log in which everything happens once."""
    topology = Topology()
    topology.epoch = 1
    told: list[list[Event]] = []

    def each(second: float, message: TopologyMessage) -> None:
        topology.seq += 1
        step = topology.handle(message, at(second))
        assert step.reply is None
        told.append([*step.events])

    def news(name: str, second: float, *, is_open: bool = True) -> IncidentNews:
        return IncidentNews(name.encode().ljust(16, b"."), name, f"{name} is slow", 2, is_open, at(second))

    services, links = [Service("web"), Service("db")], [Dependency("web", "api")]
    each(1, DeclareTopology("cmdb", services, links, "ada"))
    each(2, SetDependency("manual", Dependency("api", "db", "database"), "ada"))
    each(3, SetDependency("manual", Dependency("db", "disk"), "ada"))
    each(4, RemoveDependency("manual", "db", "disk", "ada"))
    both = [news("db", 10), news("api", 12)]
    each(12, IncidentsHeard("shard/0000", 7, b"digest..", both))
    over = [news("db", 10, is_open=False), news("api", 12, is_open=False)]
    each(20, IncidentsHeard("shard/0000", 9, b"digest..", over))
    each(7200, DeclareTopology("cmdb", services, links, "ada"))
    each(7201, RemoveSource("cmdb", "ada"))
    each(30 * 86400, Tick())
    return told


SEVERITY_FIGURES = Figures(
    30, 0.9, 0.8, 0.6, 0.5, 0.9, 0.8, 0.7, 0.95, 0.05, [("P1", "P1", 27), ("P2", "P1", 3)]
)


def tiny_model() -> bytes:
    """A model that knows one word."""
    head = Head(("P0", "P1"), np.ones((1, 2), np.float32), np.zeros(2, np.float32), 1.0)
    return encode_model(Model(np.array([7], np.uint32), np.ones(1, np.float32), 1.0, {"severity": head}))


def control_story() -> list[list[Event]]:
    """The events of each frame of the control partition's log in which everything happens once."""
    state = ControlState()
    told: list[list[Event]] = []

    def each(events: list[Event]) -> None:
        for event in events:
            state.apply(event, at(0))
        told.append(events)

    admin, sender = "00" * 6, "11" * 6
    each(state.of(Slots).begin(2))
    each(state.decide(CreateToken(admin, "admin", ["admin"], b"a" * 32, 0.0, "local:root"), at(2)))
    each(
        state.decide(CreateToken(sender, "sender", ["ingest:v1", "read"], b"s" * 32, 3600.0, "admin"), at(3))
    )
    each(state.decide(RotateToken(sender, b"t" * 32, 60.0, "admin"), at(4)))
    each(state.decide(TokensSeen({sender: at(5)}), at(5)))
    each(state.decide(RevokeToken(sender, "admin"), at(6)))
    changed = SettingsChanged("start-1", "admin", {"logging.level": "DEBUG"}, "{}", b"", b"", "DEBUG")
    each(state.decide(changed, at(7)))
    for partitions in (3, 2):
        each(state.of(Slots).reshard(partitions))
        each(state.of(Slots).resharded())
    silence = SetSilence("s1", [("service", "=", "api")], at(9), at(99), "ada", "deploy")
    each([*state.decide(silence, at(9))])
    each([*state.decide(ExpireSilence("s1", "ada"), at(10))])
    heal = book("heal", [step("fix", act())])
    applied = ApplyPlaybook(heal.name, heal.version, heal.digest, encode_book(heal), "name: heal", "ada")
    each([*state.decide(applied, at(11))])
    each([*state.decide(SetPlaybookMode("heal", "paused", "ada"), at(12))])
    each([*state.decide(RemovePlaybook("heal", "ada"), at(13))])
    beat = Heartbeat("backup", 60.0, 5.0, "db", Severity.P1)
    each([*state.decide(SetHeartbeat(beat, "ada"), at(14))])
    each([*state.decide(HeartbeatHeard("backup"), at(15))])
    each([*state.decide(RemoveHeartbeat("backup", "ada"), at(16))])
    each([*state.decide(TakePoll("alertmanager/main", "collector-0", 30.0), at(17))])
    each([*state.decide(MoveCursor("alertmanager/main", 1, "cursor"), at(18))])
    each([*state.decide(ReleasePoll("alertmanager/main", "collector-0"), at(19))])
    ana = Person("ana", "Ana", (Contact("mail", "ana@example.org"),))
    week = Schedule("primary", "UTC", (Layer("week", ("ana",), 604800.0, "2026-01-05T09:00"),))
    shift = Override("o1", "primary", "ana", at(0), at(3600), at(20), "ada", "dentist")
    policy = Policy("critical", (Level((Target("schedule", "primary"),)),), 1, (Target("receiver", "ops"),))
    each([*state.decide(ChangePeople("ada", [ana], [week], [shift], [policy]), at(20))])
    for number, (name, version) in enumerate((("t1", 1), ("t2", 2)), 21):
        each([*state.decide(AskTraining(name, "ada", "default"), at(number))])
        found = Evaluation({"severity": SEVERITY_FIGURES}, "service", 4, 0.7)
        kept = KeepModel(
            name, tiny_model(), 1.5, Counted(60, 20, 30), found, {"type": "0 with 3 examples or more"}
        )
        each([*state.decide(kept, at(number))])
        each([*state.decide(PromoteModel(version, "ada", "default", "better"), at(number))])
    each([*state.decide(RollBackModel(2, "ada", "default", "worse after all"), at(23))])
    each([*state.decide(ShadowModel(2, "ada", "default"), at(24))])
    each([*state.decide(AskTraining("t3", "schedule", "default"), at(25))])
    each([*state.decide(FailTraining("t3", "too few"), at(26))])
    each([CopyBegan("sqlite (./var)")])
    each([CopyEnded()])
    each([PartitionsBegan(["shard/0000", "shard/0001"])])
    each([StoreMoved("SQLite in /srv/other", at(8), "local:root")])
    return told


def _people(told: Story, frame: Callable[[], None]) -> None:
    """What people do, once each, after the shard's other work."""

    def do(second: float, verb: AnyVerb, about: bytes = b"", by: str = "ann") -> bytes:
        found = told.do(at(second), verb, about, by=by, reason="as agreed").id
        frame()
        told.carry(at(second))
        frame()
        return found

    for incident in told.open_incidents():
        do(299, Resolve(notes="nobody minds"), incident.id)
    told.push(at(300), *[alert("search", "Slow", instance) for instance in "abc"])
    told.classify(at(300), Severity.P2)
    one = next(each.id for each in told.shard.state.incidents.values() if each.service == "search")
    two = do(301, Create("search", "Results are old", assignees=["bob"]))
    do(302, Acknowledge(until=at(310)), one)
    told.tick(at(311))
    do(312, Assign(["ann"], [], {"commander": "ann"}), one)
    do(313, Comment("It began with the deployment – ünïcode"), one)
    do(314, Label({"team": "ml"}, ["severity"]), one)
    do(315, Reclassify(Severity.P1, IncidentType.DATA, "major"), one, by="bob")
    do(316, Update("customers", "We are on it", next_due_at=at(320)), one)
    told.tick(at(321))
    do(322, Link(two), one)
    do(323, Unlink(two), one)
    do(324, Merge(two), one)
    do(325, Merge(two), one)
    do(326, Merge(b"\1" * 16), one)
    do(327, Unmerge(two), one)
    made = do(328, Split([alert("search", "Slow", "a").key[:16]], title="Only a"), one)
    told.tick(at(301 + 3600))
    do(4000, Resolve(root_cause="an old index", notes="built anew"), one)
    do(4002, Resolve(), made)
    frame()


def _related(told: Story, frame: Callable[[], None]) -> None:
    """The correlator says what an incident belongs to, twice; it waits as a symptom, and then no more."""
    told.shard.take_settings(msgspec.structs.replace(told.shard.settings, mute_symptoms=True))
    begin = told.now - ZERO
    told.push(at(begin + 1), alert("symptom", "Slow"))
    told.classify(at(begin + 1), Severity.P3)
    frame()
    incident = next(each for each in told.open_incidents() if each.service == "symptom")
    cause = Cause("db", 0.9, ["it began 40 s before what depends on it"], b"d" * 16, "db is slow")
    relation = Relation(b"s" * 16, Part.SYMPTOM, 2, [cause], cause.incident_id, at(begin + 60))
    for number in (1, 2):
        told.tell(at(begin + 1 + number), Related("default", incident.id, number, relation))
        frame()
    told.tick(at(begin + 61))
    frame()


def _muted(told: Story, frame: Callable[[], None]) -> None:
    """A silence begins and ends, and another shard says what inhibits."""
    quiet = Silence("s1", (("service", "=", "quiet"),), at(4000), at(4010), "ada", "deploy", at(4000))
    told.tell(at(4005), SilencesChanged(1, [quiet], whole=True))
    frame()
    told.push(at(4006), alert("quiet", "Slow"))
    told.classify(at(4006), Severity.P0)
    frame()
    told.tick(at(4011))
    frame()
    source = Inhibitor("default", "down", ("a",), "00" * 8, "Down (node)")
    told.tell(at(4012), InhibitorsChanged("shard/0001", 1, 0, 2, [source], [], whole=True))
    frame()


def _routed(told: Story, frame: Callable[[], None]) -> None:
    """Several receivers are told of an incident, one of them of no end, and another incident is discarded. Who reads the log
    has other settings: what routes chose is in it."""
    route = Route(
        receivers=("webhook", "pager", "quiet"),
        routes=(Route(name="noise", services=("watchdog",), receivers=(), discards=True),),
    )
    receivers = {name: ReceiverRow(sends_resolved=name != "quiet") for name in route.receivers}
    receivers |= {"pager": ReceiverRow(fallback="spare"), "spare": ReceiverRow()}
    told.shard.take_settings(msgspec.structs.replace(SETTINGS, route=route, receivers=receivers))
    told.push(at(4020), alert("watchdog", "Watchdog"), alert("routed", "Down"))
    told.classify(at(4020), Severity.P0)
    frame()
    told.told(at(4021), ref="7")
    frame()
    told.push(at(4030), alert("routed", "Down").ended(4030))
    told.told(at(4031))
    frame()
    told.push(at(4040), alert("unheard", "Down"))
    told.classify(at(4040), Severity.P0)
    told.receive(at(4041), by="pager", ok=False, final=True, reached=False)
    told.told(at(4042))
    frame()


def _repaired(told: RunStory, frame: Callable[[], None]) -> None:
    """A playbook asks, repairs two things, fails, rolls back, and another resolves the incident, so that a third does not run."""
    told.shard.take_settings(msgspec.structs.replace(SETTINGS, playbooks=True, notify=False))
    repair = [act("a", rollback=act("undo")), act("b")]
    heal = book(
        "heal",
        [
            step("ask", kind="approval", approval=Approval(message="restart?")),
            step("fix", *repair, for_each="pods"),
            step("done", act("resolve", changes=False), tolerates=True),
        ],
        priority=1,
    )
    later = book("later", [step("fix", act())])
    told.offer(at(4040), offered(heal), offered(later))
    frame()
    told.push(at(4041), alert("repaired", "Down"))
    told.classify(at(4041), Severity.P0)
    frame()
    (run,) = [each for each in told.happened(RunStarted) if isinstance(each, RunStarted)]
    for paused in (True, False):
        told.do(at(4042), HoldRun(run.run, paused), run.incident_id)
    told.do(at(4043), ApproveRun(run.run), run.incident_id)
    frame()
    told.perform(at(4044), _repairs)
    frame()


def _watched(told: RunStory, frame: Callable[[], None]) -> None:
    """What a playbook repaired is watched: its check is done again, another incident of the service opens, the review is due."""
    watched = msgspec.structs.replace(
        SETTINGS,
        playbooks=True,
        notify=False,
        max_open=50,
        verify_watch_s=30.0,
        verify_every_s=10.0,
        review_after_s=40.0,
    )
    told.shard.take_settings(watched)
    check = PlannedAction("health_check", {"endpoint": "http://watched/health"})
    told.offer(at(4100), offered(book("restart", [step("fix", act(), check)])))
    down = alert("watched", "Down", ends=5000)
    told.push(at(4102), down)
    told.classify(at(4102), Severity.P1)
    told.perform(at(4103))
    frame()
    told.push(at(4104), down.ended(4104))
    told.push(at(4105), alert("watched", "CacheCold", severity="info"))
    frame()
    told.ticks(at(4106), at(4116))
    for _when, effect in [*told.asked]:
        if isinstance(effect, Recheck):
            done = encode_done(Done(SUCCEEDED))
            told.tell(at(4117), Rechecked(effect.incident_id, effect.number, effect.key, done))
    told.ticks(at(4118), at(4150))
    frame()


def _edge(told: RunStory, frame: Callable[[], None]) -> None:
    """An edge agent connects, says how it is, is asked for things, stays away, and what is long over is forgotten."""
    tenant, agent, stream = "default", "edge-1", b"s" * 16
    told.shard.take_settings(msgspec.structs.replace(SETTINGS, edge_offline_after_s=30.0))
    for message in (
        ConnectEdge(tenant, agent, "gateway-1", stream),
        ReportEdge(tenant, agent, stream, "healthy", "all is well", ["llm-api"], ["restart"], 1),
        AskEdge(
            tenant, agent, "run.1.0.0-0", "run.1.0.0-0", b"\1" * 16, "restart", "llm-api", {"pods": "3"}, 60.0
        ),
        ConfigureEdge(tenant, agent, {"level": "debug"}, "ann"),
        CheckEdge(tenant, agent, "check-1", "llm-api", "ann"),
        DeliverEdge(tenant, agent, stream, "run.1.0.0-0"),
        DeliverEdge(tenant, agent, stream, config=2),
        DeliverEdge(tenant, agent, stream, check="check-1"),
        AnswerEdge(tenant, agent, "run.1.0.0-0", "succeeded", "restarted", {"pods": "3"}),
        ReportEdge(tenant, agent, stream, "degraded", "slow", ["llm-api"], ["restart"], 2, "check-1"),
    ):
        told.tell(at(4200), message)
        frame()
    told.ticks(at(4200 + 60), at(4200 + 61))
    frame()
    told.tell(at(4300), DisconnectEdge(tenant, agent, stream, "its connection broke"))
    told.ticks(at(4300 + 300), at(4300 + 301))
    frame()
    told.tick(at(4300 + 86_400))
    frame()


def _clocked(told: RunStory, frame: Callable[[], None]) -> None:
    """A playbook runs by the clock, and is left out while it runs; a heartbeat is missed, and heard again."""
    told.shard.take_settings(msgspec.structs.replace(SETTINGS, playbooks=True, max_open=1000))
    begun = told.now - ZERO
    timer = book("sweep", [step("sweep", act("http_call"))], trigger=Trigger(schedule="0 * * * *"))
    told.offer(at(begun + 1), offered(timer, since=at(begun)))
    due = next_due("0 * * * *", told.now) - ZERO
    told.tick(at(due))
    told.tick(at(due + 3600))
    told.perform(at(due + 3601))
    frame()
    beat = Heartbeat("backup", 60.0, 5.0, "db", Severity.P1, began=True)
    told.tell(at(due + 3610), HeartbeatsChanged([beat], whole=True))
    told.tell(at(due + 3611), Beats("default", ["backup"]))
    told.tick(at(due + 3700))
    told.tell(at(due + 3701), Beats("default", ["backup"]))
    frame()


def _paged(told: RunStory, frame: Callable[[], None]) -> None:
    """People are paged by a policy, by one that is not there at first, while it is muted, and until they acknowledge or nobody does."""
    begun = told.now - ZERO + 10
    route = Route(escalation="critical")
    told.shard.take_settings(msgspec.structs.replace(SETTINGS, route=route, max_open=1000))
    told.push(at(begun), alert("paged", "Down"))
    told.classify(at(begun), Severity.P0)
    told.tick(at(begun + 1))
    told.tell(at(begun + 2), PoliciesChanged(1, [Outline("critical", (60.0,), 0, True)]))
    told.tick(at(begun + 3))
    frame()
    pages = [effect for _at, effect in told.asked if isinstance(effect, Page)]
    told.tell(
        at(begun + 4), Paged(pages[0].incident_id, 1, 0, ["ana:mail"], ["ben by sms: 503"], ["nobody"], True)
    )
    silence = Silence(
        "s9", (("service", "=", "paged"),), at(begun + 5), at(begun + 90), "ada", "deploy", ZERO
    )
    told.tell(at(begun + 5), SilencesChanged(9, [silence]))
    told.ticks(at(begun + 60), at(begun + 65))
    told.ticks(at(begun + 90), at(begun + 92))
    frame()
    told.push(at(begun + 100), alert("paged-too", "Down"))
    told.classify(at(begun + 100), Severity.P0)
    found = next(each for each in told.open_incidents() if each.service == "paged-too")
    told.do(at(begun + 101), Acknowledge(), found)
    frame()


def _repairs(work: Work, _again: bool) -> Done:
    """`b` fails at the second item; what is done last resolves the incident."""
    if isinstance(work, Enter):
        return Done(SUCCEEDED, items=("one", "two"))
    if isinstance(work, Do) and work.action.type == "b" and work.context.index:
        return Done(FAILED, "no such pod", final=True)
    if isinstance(work, Do) and work.action.type == "resolve":
        effects = (IncidentEffect("task", "write it up", at(9000)), IncidentEffect("resolve", "repaired"))
        return Done(SUCCEEDED, captures=(Capture("logs", "text/plain", "line"),), effects=effects)
    return Done(SUCCEEDED)


def summary(shard: Shard) -> dict[str, object]:
    """What must come of replaying a log, in words and numbers that outlive changes of the records."""
    table = shard.state.series
    return {
        "incidents": {
            identity.hex(): _incident(found) for identity, found in sorted(shard.state.incidents.items())
        },
        "series": {
            str(number): [
                table.keys[number].hex(),
                table.status[number],
                table.starts[number],
                table.opened[number],
                repr(table.ends[number]),
                table.seen[number],
                table.repeats[number],
                table.content(number).labels,
                table.content(number).annotations.get("summary", ""),
            ]
            for number in range(table.used)
            if table.status[number] != FREE
        },
        "open": shard.state.open_count,
        "no_expiry_before": shard.state.no_expiry_before,
        "calls": sorted(call.hex() for call in shard.state.calls),
    }


def _incident(incident: Incident) -> dict[str, object]:
    return {
        "group": incident.group_key,
        "title": incident.title,
        "state": str(incident.state),
        "severity": incident.severity.name,
        "type": str(incident.type),
        "firing": incident.firing,
        "reopened": incident.reopened,
        "created_at": incident.created_at,
        "resolved_at": incident.resolved_at,
        "overflow": incident.overflow,
        "notice": [
            incident.notification_of("webhook").number,
            incident.notification_of("webhook").reason,
            incident.notification_of("webhook").attempt,
            incident.notification_of("webhook").told,
        ],
        **(
            {"receivers": {name: _told(each) for name, each in incident.notifications.items()}}
            if incident.notifications.keys() - {"webhook"}
            else {}
        ),
        "timeline": [[line.kind, line.actor, line.text] for line in incident.timeline],
        # Logs of 0.1.0 have none of it, and their summaries were written before it was there.
        **({} if incident.handling is None else {"handling": _handling(incident, incident.handling)}),
    }


def _told(notification: Notification) -> list[object]:
    return [notification.number, notification.reason, notification.sure, notification.ref, notification.seen]


def _handling(incident: Incident, handling: Handling) -> dict[str, object]:
    acknowledged = handling.acknowledged
    return {
        "acknowledged": None
        if acknowledged is None
        else [acknowledged.by, acknowledged.at, acknowledged.until],
        "assignees": incident.assignees,
        "roles": handling.roles,
        "said": [
            str(each)
            for each in (handling.override.severity, handling.override.type, handling.override.impact)
        ],
        "related": [each.hex() for each in handling.related],
        "merged_into": handling.merged_into.hex(),
        "parts": {each.hex(): [part.is_open, part.severity.name] for each, part in handling.children.items()},
        "split_from": handling.split_from.hex(),
        "owed": len(handling.owed),
        "updates": [[each.audience, each.text] for each in handling.updates],
        "version": incident.version,
    }


def write(folder: Path) -> None:
    """One JSON line a frame (partition, seq, base64 of its bytes), and the summary of what it comes to."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    shard = Shard("shard/0000", SETTINGS)
    digest = NO_DIGEST
    for seq, (now, events) in enumerate(story(), 1):
        stored, digest = encode_frame(seq, now, "default", "trace-1" if seq == 2 else None, events, digest)
        lines.append(
            json.dumps({"partition": "shard/0000", "seq": seq, "frame": base64.b64encode(stored).decode()})
        )
        for event in events:
            shard.apply(event, now)
    digest = NO_DIGEST
    for seq, events in enumerate(control_story(), 1):
        stored, digest = encode_frame(seq, at(seq), "default", None, events, digest)
        lines.append(
            json.dumps({"partition": "control", "seq": seq, "frame": base64.b64encode(stored).decode()})
        )
    digest = NO_DIGEST
    for seq, events in enumerate(topology_story(), 1):
        stored, digest = encode_frame(seq, at(seq), "", None, events, digest)
        lines.append(
            json.dumps({"partition": TOPOLOGY, "seq": seq, "frame": base64.b64encode(stored).decode()})
        )
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "summary.json").write_text(
        json.dumps(summary(shard), indent=1, ensure_ascii=False) + "\n", "utf-8"
    )


if __name__ == "__main__":
    target = HERE / f"v{VERSION}"
    if target.exists():
        raise SystemExit(
            f"{target} is there already: a released log is never made anew (delete it before its release)"
        )
    write(target)
    print(f"wrote {target}")
