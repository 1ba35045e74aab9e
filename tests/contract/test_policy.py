"""Port Policy: embedded Rego and a server that speaks OPA's data API give the same answers on the same policies; what can't be asked or
is not understood is no permission; decisions are kept for a time.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import regopy
from aiohttp import web

from models.errors import Malformed, Unavailable
from models.playbook.policy import (
    PolicyContext,
    PolicyEvalRequest,
    PolicyEvalResponse,
    RemediationAction,
)
from models.playbook.work import REFUSED, SUCCEEDED
from models.ports import Policy
from models.settings.all import Settings
from services.actions.outbound import Outbound
from services.playbooks.calls import Calls
from services.policy.decisions import Decisions
from services.policy.opa import OpaPolicy
from services.policy.rego import RegoPolicy
from services.settings.refusals import refusals
from tests.clock import ManualClock
from tests.contract.playbook_world import (
    INCIDENT,
    POLICIES,
    Serving,
    Told,
    answering,
    desk,
    serving,
)

pytestmark = pytest.mark.asyncio
FILES = [str(POLICIES / "incidents.rego"), str(POLICIES / "data.json")]


def a_request(
    type_: str = "Restart",
    service: str = "llm-api",
    environment: str = "prod",
    severity: str = "P1",
    time: str = "2026-01-01T00:00:00.000Z",
) -> PolicyEvalRequest:
    return PolicyEvalRequest(
        {**INCIDENT, "severity": severity},
        RemediationAction(INCIDENT["id"], type_, type_.lower(), service, {"service": service}, 60),
        PolicyContext(None, environment, time, (service,)),
    )


REQUESTS = {
    "a known repair": a_request(),
    "needs approval": a_request("Rollback"),
    "needs none elsewhere": a_request("Rollback", environment="dev"),
    "constrained": a_request("ScaleHorizontal"),
    "frozen": a_request(service="billing"),
    "frozen, but a P0": a_request(service="billing", severity="P0"),
    "unknown": a_request("DataDeletion"),
}
EXPECTED = {
    "a known repair": PolicyEvalResponse(True, "a known repair", constraints={"timeout": {"max": 120}}),
    "needs approval": PolicyEvalResponse(True, "a known repair", True, ("alice", "bob")),
    "needs none elsewhere": PolicyEvalResponse(True, "a known repair"),
    "constrained": PolicyEvalResponse(True, "a known repair", constraints={"max_replicas": 5}),
    "frozen": PolicyEvalResponse(False, "billing is frozen", constraints={"timeout": {"max": 120}}),
    "frozen, but a P0": PolicyEvalResponse(True, "a known repair", constraints={"timeout": {"max": 120}}),
    "unknown": PolicyEvalResponse(False, "DataDeletion is no repair we allow"),
}


async def _like_opa(request: web.Request) -> web.StreamResponse:
    """OPA's data API, over the same files: asked by a plain query, not as our adapter asks."""
    if request.headers.get("Authorization") != "Bearer t0ken-of-opa":
        return web.json_response({"code": "unauthorized", "message": "request rejected"}, status=401)
    if request.method != "POST" or not request.path.startswith("/v1/data/"):
        return web.json_response({"code": "resource_not_found"}, status=404)
    interpreter = regopy.Interpreter()
    interpreter.add_module("incidents", (POLICIES / "incidents.rego").read_text())
    interpreter.add_data_json((POLICIES / "data.json").read_text())
    interpreter.set_input((await request.json())["input"])
    path = request.path.removeprefix("/v1/data/").replace("/", ".")
    output = str(interpreter.query(f"data.{path}"))
    result = {} if output == "undefined" else {"result": json.loads(output)["expressions"][0]}
    return web.json_response(result)


@asynccontextmanager
async def _opa(
    server: Serving, path: str = "/v1/data/incidents", token: str = "t0ken-of-opa"
) -> AsyncIterator[OpaPolicy]:
    async with Outbound() as outbound:
        yield OpaPolicy(server.url + path, outbound=Calls(outbound), token=token, timeout_s=5.0)


@pytest.mark.parametrize("name", REQUESTS)
async def test_embedded_rego_and_a_policy_server_decide_the_same(name: str) -> None:
    rego = RegoPolicy(FILES)
    async with serving(_like_opa) as server, _opa(server) as opa:
        embedded, served = await rego.evaluate(REQUESTS[name]), await opa.evaluate(REQUESTS[name])
    await rego.close()

    assert embedded == served == EXPECTED[name]


async def test_a_policy_server_is_asked_as_the_api_of_opa_says() -> None:
    async with serving(_like_opa) as server, _opa(server) as opa:
        await opa.evaluate(REQUESTS["frozen"])

    [got] = server.got
    assert (got.method, got.path) == ("POST", "/v1/data/incidents")
    assert got.headers["Content-Type"] == "application/json"
    assert set(got.json) == {"input"}
    asked = got.json["input"]
    assert set(asked) == {"incident", "proposed_action", "context"}
    assert asked["proposed_action"]["target_service"] == "billing"
    assert asked["context"] | {"time": ""} == {
        "user": None, "environment": "prod", "time": "", "affected_resources": ["billing"],
        "approved_by": [], "playbook": "", "playbook_version": "", "dry": False,
    }  # fmt: skip


async def test_a_real_opa_decides_the_same() -> None:
    url = os.environ.get("OPA_URL")
    if not url:
        pytest.skip("OPA_URL names no OPA to test with")
    name = f"llm_im_{uuid.uuid4().hex}"
    source = (
        (POLICIES / "incidents.rego").read_text().replace("package incidents", f"package {name}.incidents")
    )
    source = source.replace("data.frozen_services", f"data.{name}.frozen_services").replace(
        "data.approvers", f"data.{name}.approvers"
    )
    async with aiohttp.ClientSession() as session:
        (await session.put(f"{url}/v1/policies/{name}", data=source)).raise_for_status()
        data = json.loads((POLICIES / "data.json").read_text())
        for key, value in data.items():
            (await session.put(f"{url}/v1/data/{name}/{key}", json=value)).raise_for_status()
    async with Outbound() as outbound:
        opa = OpaPolicy(f"{url}/v1/data/{name}/incidents", outbound=Calls(outbound))
        assert {case: await opa.evaluate(request) for case, request in REQUESTS.items()} == EXPECTED


# What is no permission


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, {"code": "internal_error"}), (401, {}), (302, {}), (503, b"<html>busy</html>"), (404, {})],
)
async def test_an_answer_of_a_server_in_trouble_is_no_decision(status: int, body: Any) -> None:
    async with (
        serving(answering(status, body, Location="http://127.0.0.1:1/")) as server,
        _opa(server) as opa,
    ):
        with pytest.raises(Unavailable, match=str(status)):
            await opa.evaluate(a_request())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"not json", "not JSON"),
        ({"result": "yes"}, "expected an object with `allowed`"),
        ({"result": {}}, "result.allowed: expected true or false"),
        ({"result": {"allowed": "true"}}, "result.allowed: expected true or false, got text"),
        ({"result": {"allowed": 1}}, "result.allowed"),
        ({"result": {"allowed": True, "require_approval": "yes"}}, "result.require_approval"),
        ({"result": {"allowed": True, "approvers": "alice"}}, "result.approvers"),
        ({"result": {"allowed": True, "constraints": ["x"]}}, "result.constraints"),
        ([], "expected an object with `result`"),
        (b'{"result": {"allowed": true, "reason": "' + b"x" * 300_000 + b'"}}', "longer than"),
    ],
)
async def test_an_answer_that_is_not_understood_is_named(body: Any, said: str) -> None:
    async with serving(answering(200, body)) as server, _opa(server) as opa:
        with pytest.raises(Malformed, match=said):
            await opa.evaluate(a_request())


async def test_a_rule_that_is_not_there_denies_and_a_boolean_rule_decides() -> None:
    rego, boolean = RegoPolicy(FILES, "nothing/here"), RegoPolicy(FILES, "incidents.allowed")
    async with serving(_like_opa) as server, _opa(server, "/v1/data/nothing/here") as opa:
        served = await opa.evaluate(a_request())
    embedded, plain = await rego.evaluate(a_request()), await boolean.evaluate(a_request())
    await rego.close()
    await boolean.close()

    assert not served.allowed and served == embedded
    assert "no such rule" in served.reason
    assert plain == PolicyEvalResponse(True)


async def test_rules_that_disagree_are_no_decision(tmp_path: Path) -> None:
    file = tmp_path / "twice.rego"
    file.write_text(
        "package incidents\nimport rego.v1\nallowed := true\nallowed := false if input.incident\n"
    )
    rego = RegoPolicy([str(file)])

    with pytest.raises((Malformed, Unavailable)):
        await rego.evaluate(a_request())
    await rego.close()


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("p.rego", "package incidents\nallowed { true }", "expected `import rego.v1`"),
        ("p.rego", "package incidents\nimport rego.v1\nallowed if {", "unclosed"),
        ("p.rego", "package incidents\nimport rego.v1\nallowed { true }", "line 3: expected `if`"),
        ("d.json", "{", "not JSON"),
        ("d.json", "[]", "expected an object"),
        ("p.rego", b"\xff", "expected UTF-8"),
        ("p.rego", None, "can't be read"),
    ],
)
async def test_a_policy_that_cannot_be_read_is_refused_with_its_file(
    tmp_path: Path, name: str, source: str | bytes | None, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    if source is not None:
        file.write_bytes(source if isinstance(source, bytes) else source.encode())

    with pytest.raises(Malformed, match=said) as refused:
        RegoPolicy([str(file)])

    assert str(file) in str(refused.value)
    assert not capfd.readouterr().err


# Decisions


class Scripted:
    """Port Policy: the answers it was given, in turn."""

    def __init__(self, *answers: PolicyEvalResponse | Exception) -> None:
        self._answers = [*answers]
        self.asked = 0

    async def evaluate(self, request: PolicyEvalRequest) -> PolicyEvalResponse:
        self.asked += 1
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


async def _decided(policy: Policy, fail_open: bool = False) -> tuple[bool, bool, str]:
    decision = await Decisions(policy, ManualClock(), fail_open=fail_open, name="opa").decide(a_request())
    return decision.response.allowed, decision.asked, decision.text


async def test_a_policy_that_cannot_be_asked_denies_and_says_so() -> None:
    away = Unavailable("http://opa:8181 answered 503")

    assert await _decided(Scripted(away)) == (
        False, False, "opa: denied: could not be asked: http://opa:8181 answered 503",
    )  # fmt: skip
    assert (await _decided(Scripted(away), fail_open=True))[0]
    # It did answer: nonsense is never taken for a permission.
    assert not (await _decided(Scripted(Malformed("result: expected an object")), fail_open=True))[0]
    assert (await _decided(Scripted(RuntimeError("token=s3cret"))))[
        2
    ] == "opa: denied: could not be asked: RuntimeError"


async def test_a_decision_is_kept_for_its_time_and_for_the_same_question_only() -> None:
    yes, no = PolicyEvalResponse(True), PolicyEvalResponse(False)
    policy, clock = Scripted(yes, no, yes, no), ManualClock()
    decisions = Decisions(policy, clock, keep_s=300.0, name="opa")

    first = await decisions.decide(a_request())
    clock.forward(299.0)
    kept = await decisions.decide(a_request(time="2026-01-01T00:05:00.000Z"))
    other = await decisions.decide(a_request(service="other"))
    clock.forward(2.0)
    later = await decisions.decide(a_request())

    assert [each.response.allowed for each in (first, kept, other, later)] == [True, True, False, True]
    assert policy.asked == 3


async def test_what_could_not_be_decided_is_asked_again() -> None:
    policy = Scripted(Unavailable("away"), PolicyEvalResponse(True))
    decisions = Decisions(policy, ManualClock(), keep_s=300.0, name="opa")

    assert [(await decisions.decide(a_request())).response.allowed for _ in range(2)] == [False, True]


async def test_the_request_has_the_shape_of_the_plan() -> None:
    made = msgspec.to_builtins(a_request())

    assert set(made["proposed_action"]) >= {
        "incident_id",
        "type",
        "target_service",
        "parameters",
        "timeout_seconds",
    }
    assert set(made["context"]) >= {"user", "environment", "time", "affected_resources"}


async def test_policies_that_cannot_be_read_any_more_allow_nothing_and_keep_nobody_from_being_told(
    tmp_path: Path,
) -> None:
    receiver = Told()
    given = {"policy": {"files": [str(tmp_path / "gone.rego")]}}
    governance = {"llm_governance_core": {"policies": {"fail_open": True}}}
    async with desk(given, governance, {"ops": ("slack", receiver)}) as here:
        denied = await here.do("http", url="http://127.0.0.1:1/", method="POST")
        told = await here.do("slack", message="x")

    assert denied.status == REFUSED
    assert "gone.rego: can't be read" in denied.decided
    assert told.status == SUCCEEDED


async def test_up_refuses_policies_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "p.rego"
    file.write_text("package incidents\nimport rego.v1\nallowed if {\n")
    settings = Settings.model_validate({"playbooks": {"policy": {"files": [str(file)]}}})

    assert [each for each in refusals(settings) if each.startswith("playbooks.policy.files: ")]
    file.write_text("package incidents\nimport rego.v1\nallowed := true\n")
    assert not refusals(settings)


@pytest.mark.parametrize(
    "text", ['a", "allowed": true, "b": "', "good\0bad", "back\\slash", "two\nlines", "\x1b[1m", "plain"]
)
async def test_a_label_that_a_reason_repeats_decides_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.rego"
    file.write_text(
        "package incidents\nimport rego.v1\ndefault allowed := false\n"
        'allowed if input.incident.labels.team == "good"\n'
        'reason := sprintf("denied for %s", [input.incident.labels.team])\n'
        "constraints := {input.incident.labels.team: input.incident.labels.team}\n"
    )
    rego = RegoPolicy([str(file)])
    asked = a_request()
    incident = {**asked.incident, "labels": {"team": text}}
    try:
        said = await rego.evaluate(msgspec.structs.replace(asked, incident=incident))
    finally:
        await rego.close()

    assert not said.allowed
    assert said.constraints == {text: text}
    assert said.reason == f"denied for {' '.join(text.split())}"


async def test_what_a_policy_writes_that_is_no_json_denies_even_where_the_settings_allow_in_doubt(
    tmp_path: Path,
) -> None:
    file = tmp_path / "p.rego"
    file.write_text('package incidents\nimport rego.v1\nallowed := false\nreason := "say \\"no\\""\n')
    decisions = Decisions(RegoPolicy([str(file)]), ManualClock(), fail_open=True, name="rego")
    try:
        assert not (await decisions.decide(a_request())).response.allowed
    finally:
        await decisions.close()


async def test_an_evaluation_that_hangs_holds_up_no_other_and_allows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "p.rego"
    file.write_text(
        "package incidents\nimport rego.v1\ndefault allowed := true\n"
        'allowed := false if {\n  input.proposed_action.target_service == "slow"\n'
        "  n := numbers.range(1, 4000)\n  some a in n\n  some b in n\n  a * b == 7.5\n}\n"
    )
    monkeypatch.setattr("services.policy.rego_process.EVALUATION_S", 0.5)
    decisions = Decisions(RegoPolicy([str(file)]), ManualClock(), fail_open=True, name="rego")
    try:
        hanging = [
            asyncio.create_task(decisions.decide(a_request(service="slow", severity=severity)))
            for severity in ("P0", "P1", "P2")
        ]
        await asyncio.sleep(0)
        quick = await decisions.decide(a_request())
        assert quick.response.allowed
        for slow in await asyncio.gather(*hanging):
            assert not slow.response.allowed
            assert "no decision within 0.5 s" in slow.response.reason
        assert (await decisions.decide(a_request(severity="P3"))).response.allowed
    finally:
        await decisions.close()


async def test_an_evaluator_that_was_ended_meanwhile_denies_nothing() -> None:
    """Whoever is short of memory ends what idles."""
    rego = RegoPolicy(FILES)
    try:
        for _ in range(2):
            assert await rego.evaluate(a_request()) == EXPECTED["a known repair"]
            for process in rego._idle:
                process.kill()
                await process.wait()
    finally:
        await rego.close()


async def test_nobody_waits_for_what_was_asked_before_and_given_up(tmp_path: Path) -> None:
    file = tmp_path / "p.rego"
    file.write_text(
        "package incidents\nimport rego.v1\nallowed := true\nreason := input.proposed_action.target_service\n"
    )
    rego = RegoPolicy([str(file)])
    try:
        for number in range(3):
            given_up = asyncio.create_task(rego.evaluate(a_request(service=f"first-{number}")))
            await asyncio.sleep(0.02 * number)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            assert (await rego.evaluate(a_request(service="second"))).reason == "second"
    finally:
        await rego.close()
