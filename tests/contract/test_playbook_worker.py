"""Port Worker: conditions, loops, templates, policy, and what may leave it. The kinds of actions have files beside this one."""

from __future__ import annotations

import asyncio
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from models.playbook.playbook import PlannedAction
from models.playbook.work import (
    APPROVAL,
    CAPTURE_MAX,
    FAILED,
    OUTPUTS_MAX,
    REFUSED,
    SKIPPED,
    SUCCEEDED,
    WAIT,
    Choose,
    Context,
    Do,
    Done,
    Enter,
    IncidentEffect,
    decode_done,
    encode_done,
)
from models.ports import ActionResult
from services.actions.table import ACTIONS
from services.playbooks import worker
from tests.clock import ManualClock
from tests.contract.playbook_world import (
    INCIDENT,
    POLICIES,
    Desk,
    Told,
    answering,
    desk,
    serving,
)
from tests.extension import install

pytestmark = pytest.mark.asyncio
LOOPBACK = ("127.0.0.0/8",)


def context(**more: Any) -> Context:
    return Context(INCIDENT, more.pop("variables", {}), more.pop("steps", {}), **more)


# Conditions, loops, choices


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("", SUCCEEDED),
        ("{{ steps.automated_remediation.status == 'failed' }}", SUCCEEDED),
        ("{{ steps.automated_remediation.status == 'success' }}", SKIPPED),
        ("incident.severity in ['P0', 'P1']", SUCCEEDED),
        ("variables.missing", FAILED),
        ("{{ ", FAILED),
        ("'x' * 10 ** 10", FAILED),
        ("incident.__class__", FAILED),
    ],
)
async def test_a_step_is_entered_when_its_condition_holds(condition: str, status: str) -> None:
    steps = {"automated_remediation": {"status": "failed", "outputs": {}}}
    async with desk() as here:
        done = await here.worker.work(Enter("e1", "escalate", condition, "", context(steps=steps)))

    assert done.status == status
    assert done.final == (status == FAILED)


async def test_a_loop_has_its_items_and_its_bound() -> None:
    async with desk() as here:
        items = await here.worker.work(
            Enter("e1", "s", "", "variables.hosts", context(variables={"hosts": ["a", {"b": 1}]}))
        )
        text = await here.worker.work(Enter("e2", "s", "", "'abc'", context()))
        many = await here.worker.work(
            Enter("e3", "s", "", "variables.n", context(variables={"n": [0] * 1001}))
        )

    assert items.items == ("a", {"b": 1})
    assert (text.status, text.detail) == (FAILED, "s: for_each: expected a list, not str")
    assert many.status == FAILED
    assert "at most 1000" in many.detail


async def test_a_loop_over_what_can_not_be_kept_fails() -> None:
    async with desk() as here:
        for expression in ("[9999999999 * 9999999999]", "['\ud800']"):
            done = await here.worker.work(Enter(expression, "s", "", expression, context()))

            assert done.status == FAILED
            decode_done(encode_done(done))


@pytest.mark.parametrize("answer", ['{"id": 99999999999999999999999}', "[" * 600 + "]" * 600])
async def test_an_answer_that_can_not_be_kept_is_no_reason_to_call_again(answer: str) -> None:
    async with serving(answering(200, answer.encode())) as server, desk(allow=LOOPBACK) as here:
        done = await here.do("http", method="POST", url=server.url)

    assert done.status == SUCCEEDED
    assert done.outputs["body"] == "[cut]"
    assert len(server.got) == 1
    decode_done(encode_done(done))


async def test_of_expressions_those_that_hold_are_chosen_and_a_broken_one_is_named() -> None:
    expressions = (
        "incident.severity == 'P1'",
        "incident.nothing == 1",
        "incident.labels.service == 'other'",
        "true",
    )
    async with desk() as here:
        done = await here.worker.work(Choose("c1", expressions, context()))

    assert done.items == (0, 3)
    assert "expression 1" in done.detail


# Parameters


async def test_parameters_are_rendered_and_typed() -> None:
    async with desk() as here:
        done = await here.do("wait", duration="{{ variables.pause }}", variables={"pause": "{{ 30 }}s"})

    assert (done.status, done.wait_s) == (WAIT, 30.0)


@pytest.mark.parametrize(
    ("type_", "params", "said"),
    [
        ("wait", {"duration": "soon"}, "wait: duration: expected a duration"),
        ("wait", {}, "wait: duration: expected, and not given"),
        ("wait", {"duration": "1s", "durration": "2s"}, "wait: durration: there is no such parameter"),
        ("logs_capture", {"query": "{}", "max_lines": "many"}, "max_lines: expected int, got str"),
        ("health_check", {"endpoint": "{{ incident.metadata.health_url }}"}, "health_check: endpoint: template: there is no 'health_url'"),
        ("health_check", {"endpoint": "{{ 'x' * 10 ** 10 }}"}, "health_check: endpoint: template"),
        ("health_check", {"endpoint": "http://x/", "timeout": "0s"}, "timeout: expected more than 0 s"),
        ("health_check", {"endpoint": "ftp://x/"}, "expected an http:// or https:// URL"),
        ("health_check", {"endpoint": "http://x/", "expect": "ok"}, "expect: expected a status"),
        ("scale", {"replicas": 3, "by": 1}, "not both"),
        ("traffic_shift", {"weights": {"a": -1}}, "weights: expected"),
        ("nonsense", {}, "there is no action 'nonsense' here"),
    ],
)  # fmt: skip
async def test_a_wrong_action_is_named_and_never_tried_again(
    type_: str, params: dict[str, Any], said: str
) -> None:
    async with desk({"loki": {"url": "http://127.0.0.1:1"}, "services": {"llm-api": {}}}) as here:
        done = await here.do(type_, params=params)

    assert (done.status, done.final, done.reached) == (FAILED, True, False)
    assert said in done.detail


# Once, and again


async def test_a_question_that_is_under_way_is_joined_and_one_that_was_answered_is_not_done_again() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.StreamResponse:
        arrived.set()
        await go.wait()
        return web.json_response({"n": 1})

    async with serving(slow) as server, desk(allow=LOOPBACK) as here:
        one = asyncio.create_task(here.do("http", key="k", url=server.url, method="POST"))
        await arrived.wait()
        two = asyncio.create_task(here.do("http", key="k", url=server.url, method="POST", again=True))
        await asyncio.sleep(0)
        one.cancel()  # who goes away cancels nobody else's
        go.set()
        done = await two
        later = await here.do("http", key="k", url=server.url, method="POST", again=True)

    assert done == later
    assert len(server.got) == 1
    assert server.got[0].headers["Idempotency-Key"] == "k"


async def test_answers_are_remembered_within_a_bound_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "REMEMBERED_MAX_BYTES", 2500)
    async with serving(answering(200, {"text": "x" * 1000})) as server, desk(allow=LOOPBACK) as here:
        for key in ("k1", "k2", "k3", "k3", "k2", "k1"):
            await here.do("http", url=server.url, method="POST", key=key)

    # k1 was forgotten, and is asked for anew.
    assert [got.headers["Idempotency-Key"] for got in server.got] == ["k1", "k2", "k3", "k1"]


async def test_what_is_marked_once_is_not_repeated_when_nobody_can_tell() -> None:
    async with serving(answering()) as server, desk(allow=LOOPBACK) as here:
        done = await here.do("http", url=server.url, method="POST", once=True, again=True)

    assert (done.status, done.final, done.reached) == (FAILED, True, True)
    assert not server.got


async def test_an_action_that_hangs_is_ended_at_its_time() -> None:
    never = asyncio.Event()

    async def hangs(_request: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    async with serving(hangs) as server, desk(allow=LOOPBACK) as here:
        done = await here.do(
            "http", url=server.url, method="POST", timeout="{{ variables.t }}", variables={"t": "50ms"}
        )
        never.set()

    assert (done.status, done.final, done.reached) == (FAILED, False, True)


# Policy and the house rules


def _policy(**more: Any) -> dict[str, Any]:
    return {"policy": {"files": [str(POLICIES / "incidents.rego"), str(POLICIES / "data.json")]}, **more}


def _hook(url: str) -> dict[str, Any]:
    return {"services": {"*": {"by": "http", "url": url + "/{action}"}}}


async def test_policy_allows_denies_constrains_and_asks_for_approval() -> None:
    async with serving(answering()) as server, desk(_policy(**_hook(server.url))) as here:
        allowed = await here.do("service_restart")
        frozen = await here.do("service_restart", service="billing")
        scaled = await here.do("scale", replicas=50)
        unapproved = await here.do("rollback")
        approved = await here.do("rollback", approved_by=("bob",), approved_digest=unapproved.digest)

    assert (allowed.status, allowed.decided) == (
        SUCCEEDED,
        "rego: allowed, with timeout constrained: a known repair",
    )
    assert (frozen.status, frozen.final, frozen.decided) == (REFUSED, True, "rego: denied: billing is frozen")
    assert "billing is frozen" in frozen.detail
    assert scaled.status == SUCCEEDED
    assert (unapproved.status, unapproved.approvers) == (APPROVAL, ("alice", "bob"))
    assert approved.status == SUCCEEDED
    assert [(got.path, got.json["parameters"].get("replicas")) for got in server.got] == [
        ("/restart", None), ("/scale", 5), ("/rollback", None),
    ]  # fmt: skip


_APPROVED = {
    "llm_edge_agent": {"remediation": {"require_approval": ["ScaleHorizontal", "HttpCall", "Rollback"]}}
}


async def test_an_approval_holds_for_what_was_approved_and_for_nothing_else() -> None:
    def labelled(replicas: int) -> dict[str, Any]:
        return {
            "incident": {"labels": {"replicas": str(replicas)}},
            "replicas": "{{ incident.labels.replicas }}",
        }

    async with serving(answering()) as server, desk(_hook(server.url), _APPROVED) as here:
        asked = await here.do("scale", **labelled(3))
        yes: dict[str, Any] = {"approved_by": ("bob",), "approved_digest": asked.digest}
        changed = await here.do("scale", **labelled(300), **yes)
        elsewhere = await here.do("scale", **labelled(3), service="billing", **yes)
        another = await here.do("rollback", **yes)
        untold = await here.do("scale", **labelled(3), approved_by=("bob",))
        nothing_yet = len(server.got)
        kept = await here.do("scale", **labelled(3), **yes)
        again = await here.do("scale", **labelled(3), attempt=1, **yes)
        approved_anew = await here.do(
            "scale", **labelled(300), approved_by=("ann",), approved_digest=changed.digest
        )

    assert (asked.status, asked.reached) == (APPROVAL, False)
    assert "service=llm-api, replicas=3)" in asked.detail
    assert changed.status == elsewhere.status == another.status == untold.status == APPROVAL
    assert "has changed since" in changed.detail
    assert "replicas=300)" in changed.detail
    assert "service=billing" in elsewhere.detail
    assert nothing_yet == 0
    assert kept.status == again.status == approved_anew.status == SUCCEEDED
    assert [got.json["parameters"]["replicas"] for got in server.got] == [3, 3, 300]


async def test_what_is_approved_is_what_the_policy_makes_of_it() -> None:
    """It bounds more tightly once somebody approved: then that is what must be approved."""

    async def judge(request: web.Request) -> web.StreamResponse:
        approved = (await request.json())["input"]["context"]["approved_by"]
        constraints = {"max_replicas": 5 if approved else 9}
        return web.json_response({"result": {
            "allowed": True, "require_approval": not approved, "approvers": ["ann"], "constraints": constraints,
        }})  # fmt: skip

    async with serving(judge) as opa, serving(answering()) as server:
        governance = {"enabled": True, "endpoint": opa.url + "/v1/data/x"}
        async with desk(_hook(server.url), {"llm_governance_core": governance}) as here:
            asked = await here.do("scale", replicas=50)
            tighter = await here.do("scale", replicas=50, approved_by=("ann",), approved_digest=asked.digest)
            done = await here.do("scale", replicas=50, approved_by=("ann",), approved_digest=tighter.digest)

    assert "replicas=9)" in asked.detail
    assert (tighter.status, tighter.approvers) == (APPROVAL, ("ann",))
    assert "replicas=5)" in tighter.detail
    assert done.status == SUCCEEDED
    assert [got.json["parameters"]["replicas"] for got in server.got] == [5]


async def test_what_was_perhaps_done_once_is_not_approved_and_done_again_when_it_changed() -> None:
    async with serving(answering()) as server, desk(integrations=_APPROVED, allow=LOOPBACK) as here:
        asked = await here.do("http", url=server.url, method="POST", once=True)
        done = await here.do(
            "http", url=server.url + "/other", method="POST", once=True, again=True,
            approved_by=("bob",), approved_digest=asked.digest,
        )  # fmt: skip

    assert (done.status, done.final, done.reached) == (FAILED, True, True)
    assert "changed since" in done.detail
    assert not server.got


async def test_what_is_asked_to_be_approved_shows_no_secret_and_is_short() -> None:
    async with desk(
        {"services": {"*": {"by": "http", "url": "http://127.0.0.1:1/{action}", "token": "settings-s3cret"}}},
        _APPROVED,
    ) as here:
        asked = await here.do(
            "http",
            url="https://ann:hidden1@example.com/x?api_key=hidden2&mode=drain",
            method="POST",
            headers={"X-Own": "hidden3"},
            body={"password": "hidden4 too", "max_tokens": 4096, "note": "as settings-s3cret says\nnew line"},
        )
        long = await here.do(
            "http", url="https://example.com/" + "x" * 5000, method="POST", body=["y" * 900] * 9
        )

    for told in ("example.com/x?api_key=***&mode=drain", "X-Own", '"max_tokens": 4096', "as *** says"):
        assert told in asked.detail
    assert "hidden" not in asked.detail
    assert "\n" not in asked.detail
    assert len(long.detail) < 600


async def test_a_bound_of_a_policy_holds_for_what_a_playbook_leaves_out() -> None:
    constraints: dict[str, Any] = {"max_replicas": 5}
    opa = answering(200, {"result": {"allowed": True, "constraints": constraints}})
    async with serving(opa) as policy, serving(answering()) as server:
        governance = {"llm_governance_core": {"enabled": True, "endpoint": f"{policy.url}/v1/data/incidents"}}
        async with desk(_hook(server.url), governance) as here:
            by = await here.do("scale", by=50)
            to = await here.do("scale", replicas=50)

    assert (by.status, to.status) == (REFUSED, SUCCEEDED)
    assert "policy bounds replicas, which the action does not give" in by.detail
    assert [got.json["parameters"]["replicas"] for got in server.got] == [5]


async def test_a_constraint_that_is_not_understood_refuses() -> None:
    async with serving(
        answering(200, {"result": {"allowed": True, "constraints": {"window": "night"}}})
    ) as opa:
        governance = {"llm_governance_core": {"enabled": True, "endpoint": opa.url + "/v1/data/incidents"}}
        async with serving(answering()) as server, desk(_hook(server.url), governance) as here:
            done = await here.do("service_restart")

    assert done.status == REFUSED
    assert "policy constrains window" in done.detail
    assert not server.got


async def test_a_policy_server_that_is_away_denies_and_the_action_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOVERNANCE_TOKEN", "governance-t0ken")
    policies: dict[str, Any] = {"fail_open": False}
    governance = {
        "enabled": True, "endpoint": "http://127.0.0.1:1/v1/data/x", "auth_token_env": "GOVERNANCE_TOKEN", "policies": policies,
    }  # fmt: skip
    async with serving(answering()) as server:
        async with desk(_hook(server.url), {"llm_governance_core": governance}) as here:
            denied = await here.do("service_restart")
            unchanged = await here.do("severity_increase", to="P0")
        policies["fail_open"] = True
        async with desk(_hook(server.url), {"llm_governance_core": governance}) as here:
            opened = await here.do("service_restart")

    assert (denied.status, denied.final, denied.reached) == (FAILED, False, False)
    assert denied.decided.startswith("opa: denied: could not be asked: http://127.0.0.1:1")
    assert unchanged.status == SUCCEEDED
    assert unchanged.decided == ""
    assert opened.status == SUCCEEDED
    assert "fail_open is on" in opened.decided
    assert len(server.got) == 1


async def test_the_token_of_the_policy_server_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOVERNANCE_TOKEN", "governance-t0ken")
    async with serving(answering(200, {"result": True})) as opa, serving(answering()) as server:
        governance = {
            "enabled": True,
            "endpoint": opa.url + "/v1/data/x",
            "auth_token_env": "GOVERNANCE_TOKEN",
        }
        async with desk(_hook(server.url), {"llm_governance_core": governance}) as here:
            assert (await here.do("service_restart")).status == SUCCEEDED

    assert opa.got[0].headers["Authorization"] == "Bearer governance-t0ken"
    assert opa.got[0].json["input"]["proposed_action"]["type"] == "Restart"


@pytest.mark.parametrize(
    ("type_", "params", "status", "said"),
    [
        ("service_restart", {}, SUCCEEDED, ""),
        ("scale", {"replicas": 2}, SUCCEEDED, ""),
        ("rollback", {}, APPROVAL, "the settings require approval"),
        ("config_change", {"data": {"a": "b"}}, REFUSED, "allowed_actions"),
        ("http", {"url": "http://127.0.0.1:1/", "method": "POST"}, REFUSED, "allowed_actions"),
        (
            "http",
            {"url": "http://127.0.0.1:1/", "method": "POST", "stands_for": "UserBanning"},
            APPROVAL,
            "approval",
        ),
        ("http", {"url": "http://127.0.0.1:1/"}, FAILED, "127.0.0.1"),  # changes nothing, so it is anybody's
        ("isolate", {}, APPROVAL, "auto_isolate is off"),
        ("severity_increase", {"to": "P0"}, SUCCEEDED, ""),
    ],
)
async def test_the_rules_of_shield_and_edge_hold(
    type_: str, params: dict[str, Any], status: str, said: str
) -> None:
    rules = {
        "llm_edge_agent": {"remediation": {
            "allowed_actions": ["Restart", "Rollback", "ScaleHorizontal", "isolate", "UserBanning"], "require_approval": ["Rollback"],
        }},
        "llm_shield": {"actions": {"auto_isolate": False, "require_approval_for": ["DataDeletion", "UserBanning"]}},
    }  # fmt: skip
    async with serving(answering()) as server, desk(_hook(server.url), rules) as here:
        done = await here.do(type_, params=params)

    assert done.status == status
    assert said in done.detail


async def test_the_retry_limit_and_the_timeout_of_the_settings_hold() -> None:
    never = asyncio.Event()

    async def hangs(_request: web.Request) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    rules = {"llm_edge_agent": {"remediation": {"retry_limit": 1, "timeout": "50ms"}}}
    async with serving(hangs) as server, desk(_hook(server.url), rules) as here:
        first = await here.do("service_restart", attempt=1)
        second = await here.do("service_restart", attempt=2)
        never.set()

    assert "not done within 0.05 s" in first.detail or "no answer within 0.05 s" in first.detail
    assert first.final and first.detail.endswith("(no further try: retry_limit is 1)")
    assert (second.final, second.detail) == (True, "service_restart: not tried again: retry_limit is 1")
    assert len(server.got) == 1


async def test_a_dry_run_asks_policy_and_does_nothing() -> None:
    async with serving(answering()) as server, desk(_policy(**_hook(server.url))) as here:
        fine = await here.do("service_restart", dry=True)
        frozen = await here.do("service_restart", service="billing", dry=True)
        unknown = await here.do("slack", message="x", dry=True)

    assert (fine.status, fine.reached, fine.effects) == (SUCCEEDED, False, ())
    assert frozen.status == REFUSED
    assert unknown.status == FAILED
    assert not server.got


# What leaves it


async def test_what_leaves_is_bounded_and_holds_no_secret(tmp_path: Path) -> None:
    program = tmp_path / "talks"
    program.write_text(
        '#!/bin/sh\necho "{\\"token\\": \\"$TOKEN\\"}"\nhead -c 3000000 /dev/zero | tr "\\0" "x" >&2\nexit 3\n'
    )
    program.chmod(0o755)
    given = {"path": str(program), "secrets": {"TOKEN": "s3cret-of-the-script"}, "output_kib": 4096}
    huge = {"items": ["x" * 1000 for _ in range(200)], "small": 1}
    async with (
        serving(answering(200, huge)) as server,
        desk({"scripts": {"talks": given}}, allow=LOOPBACK) as here,
    ):
        first = await here.do("script", script="talks", key="k")
        talked = await here.do("script", script="talks", key="k", again=True)
        got = await here.do("http", url=server.url, capture=True)

    for done in (talked, got):
        assert len(json.dumps(done.outputs)) <= OUTPUTS_MAX + 1000
        assert sum(len(each.text.encode()) for each in done.captures) <= CAPTURE_MAX
        assert decode_done(encode_done(done)) == done
    # Also what is remembered.
    assert talked == first
    assert talked.outputs["json"] == {"token": "***"}
    assert talked.captures[0].cut
    assert "s3cret" not in repr(talked)
    assert got.outputs["body"] == "[cut]"
    assert got.outputs["cut"] is True


async def test_a_bug_of_a_package_is_an_answer_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        from models.playbook.catalog import ActionSpec
        from models.playbook.parameters import Params
        from services.playbooks.kind import PlaybookAction

        async def _do(tools, asked, params):
            raise RuntimeError("token=s3cret")

        ACTION = PlaybookAction(ActionSpec(Params, "Breaks."), _do)
    """
    install(
        tmp_path,
        monkeypatch,
        "broken",
        "llm_incident_manager.playbook_actions",
        {"broken": "{module}:ACTION"},
        code,
    )
    async with desk() as here:
        done = await here.do("broken")

    assert (done.status, done.detail) == (FAILED, "failed with RuntimeError, which is a bug")


# The incident's own


async def _effects(here: Desk, type_: str, incident: Any = None, **params: Any) -> Any:
    done: Done = await here.do(type_, incident=incident, params=params)
    return (
        [(each.what, each.value, each.due_at) for each in done.effects]
        if done.status == SUCCEEDED
        else done.detail
    )


async def test_actions_upon_the_incident_are_effects_of_the_shard() -> None:
    async with desk(clock=ManualClock(1_700_000_000.0)) as here:
        assert await _effects(here, "severity_increase", **{"from": "P1", "to": "P0"}) == [
            ("severity", "P0", 0.0)
        ]
        assert await _effects(here, "severity_increase") == [("severity", "P0", 0.0)]
        assert (
            await _effects(here, "severity_increase", {"severity": "P0"}, **{"from": "P1", "to": "P0"}) == []
        )
        assert (
            await _effects(here, "severity_increase", {"severity": "P3"}, **{"from": "P1", "to": "P0"}) == []
        )
        assert "expected P0 to P4" in await _effects(here, "severity_increase", to="P9")
        assert await _effects(here, "assign", to="{{ incident.assignees }}") == [("assign", "alice", 0.0)]
        assert await _effects(here, "assign", to=["carol", "dave, carol"]) == [("assign", "carol,dave", 0.0)]
        assert await _effects(here, "comment", text="tried") == [("comment", "tried", 0.0)]
        assert await _effects(here, "incident_resolve", method="automated", notes="healed") == [
            ("resolve", "healed", 0.0)
        ]
        task = "Write the post-incident review (postmortem-template-v1)"
        assert await _effects(
            here, "schedule_postmortem", due_date="+24h", template="postmortem-template-v1"
        ) == [("task", task, 1_700_086_400.0)]
        assert "due_date: expected" in await _effects(here, "schedule_postmortem", due_date="soon")


# Telling people


async def test_an_action_of_a_receivers_type_says_it_there() -> None:
    slack, pager, other = Told(), Told(), Told()
    channels = {
        "ops": ("slack", slack),
        "platform-oncall": ("pagerduty", pager),
        "second": ("pagerduty", other),
    }
    async with desk(channels=channels) as here:
        paged = await here.do(
            "pagerduty",
            severity="critical",
            service="platform-oncall",
            message="{{ incident.title }}",
            key="k1",
        )
        said = await here.do(
            "slack", channel="#incidents", mention="@oncall", template="ID: {{ incident.id }}\n"
        )
        noted = await here.do("slack_notification", channel="#incidents", message="done")
        doubtful = await here.do("pagerduty_escalate", policy="critical-escalation")
        chosen = await here.do("pagerduty_escalate", policy="critical-escalation", receiver="second")
        missing = await here.do("email", message="x")
        unknown = await here.do("slack", message="x", receiver="nowhere")

    assert [paged.status, said.status, noted.status, chosen.status] == [SUCCEEDED] * 4
    assert paged.outputs == {"ref": "m1", "receiver": "platform-oncall"}
    [(key, note)] = pager.notes
    assert (key, note.text, note.severity, note.incident_id.hex()[-2:]) == ("k1", "llm-api is down", 0, "aa")
    first = slack.notes[0][1]
    assert (first.channel, first.mention, first.text) == ("#incidents", "@oncall", f"ID: {INCIDENT['id']}")
    assert "expected one of platform-oncall, second" in doubtful.detail
    assert other.notes[0][1].severity == 0
    assert 'add one with type = "email"' in missing.detail
    assert "there is no slack receiver 'nowhere' (there are: ops)" in unknown.detail


@pytest.mark.parametrize(
    ("type_", "params", "opens"),
    [
        ("pagerduty", {}, True),
        ("pagerduty_escalate", {}, True),
        ("pagerduty", {"resolves": True}, False),
        ("slack", {}, False),
    ],
)
async def test_a_receiver_at_which_something_was_opened_is_named_with_what_it_calls_it(
    type_: str, params: dict[str, Any], opens: bool
) -> None:
    pager, slack = Told(), Told()
    pager.opens = True
    async with desk(channels={"night": ("pagerduty", pager), "ops": ("slack", slack)}) as here:
        done = await here.do(type_, message="help", params=params)
        pager.result = slack.result = ActionResult(ok=False, detail="no", final=True)
        failed = await here.do(type_, message="help", params=params)

    assert done.status == SUCCEEDED
    assert done.effects == ((IncidentEffect("told", "night", ref="m1"),) if opens else ())
    assert failed.effects == ()


async def test_what_opens_something_is_what_has_tickets_and_pages() -> None:
    opening = {"pagerduty", "opsgenie", "victorops", "jira", "servicenow", "github"}

    assert {name for name, kind in ACTIONS.items() if getattr(kind.open, "opens", False)} == opening


# Other packages' kinds


async def test_a_package_adds_a_kind_of_action(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(__file__).parents[2] / "examples" / "sample_action"
    code, about = (
        (package / "sample_action.py").read_text(),
        tomllib.loads((package / "pyproject.toml").read_text()),
    )
    points = about["project"]["entry-points"]["llm_incident_manager.playbook_actions"]
    points = {name: value.replace("sample_action:", "{module}:") for name, value in points.items()}
    install(
        tmp_path,
        monkeypatch,
        "sample",
        "llm_incident_manager.playbook_actions",
        points,
        code,
    )
    async with serving(answering()) as server, desk(allow=LOOPBACK) as here:
        done = await here.do("feature_flag", url=server.url, flag="long-context", on="{{ 1 == 2 }}", key="k9")
        wrong = await here.do("feature_flag", flag="x")

    assert done.status == SUCCEEDED
    assert (server.got[0].json, server.got[0].headers["Idempotency-Key"]) == (
        {"flag": "long-context", "on": False},
        "k9",
    )
    assert "url: expected, and not given" in wrong.detail


async def test_what_the_worker_answers_to_a_planned_action_can_be_asked_from_bytes() -> None:
    async with desk() as here:
        work = Do("k", "s", 0, 0, PlannedAction("wait", {"duration": 5}), context())
        assert (await here.worker.work(work)).wait_s == 5.0
