"""What `llm-im incidents VERB` asks the server, and what a person and a script learn of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from services.cli.shared import run_verb
from tests.cli.conftest import Run
from tests.cli.incident_server import Answer, IncidentServer, alert, identity, incident

ONE, TWO, THREE = identity(1), identity(2), identity(3)
#: Words of the command line, and the request that they make.
ONE_EACH: list[tuple[list[str], str, dict[str, Any]]] = [
    (["ack", ONE], "acknowledge", {}),
    (["ack", ONE, "--for", "2h", "-r", "mine"], "acknowledge", {"for": "7200s", "reason": "mine"}),
    (["ack", ONE, "--until", "2099-01-31T12:00:00Z"], "acknowledge", {"until": "2099-01-31T12:00:00Z"}),
    (["unack", ONE, "-r", "off"], "unacknowledge", {"reason": "off"}),
    (["assign", ONE, "--me", "--to", "bob", "--remove", "carol"], "assign", {"add": ["bob", "alice"], "remove": ["carol"]}),
    (["assign", ONE, "--role", "commander=bob", "--role", "scribe="], "assign", {"roles": {"commander": "bob", "scribe": ""}}),
    (["comment", ONE, "-m", "-rolled back"], "comment", {"text": "-rolled back"}),
    (["label", ONE, "team=a=b", "env-", "-r", "x"], "label", {"set": {"team": "a=b"}, "remove": ["env"], "reason": "x"}),
    (["severity", ONE, "p0"], "reclassify", {"severity": "P0"}),
    (["severity", ONE, "--type", "data", "--impact", "all"], "reclassify", {"incident_type": "Data", "impact": "all"}),
    (["severity", ONE, "--clear", "severity", "--clear", "type"], "reclassify", {"clear": ["severity", "incident_type"]}),
    (["link", ONE, TWO], "link", {"incident": TWO}),
    (["unlink", ONE, TWO], "unlink", {"incident": TWO}),
    (["merge", ONE, TWO, "-r", "same"], "merge", {"incident": TWO, "reason": "same"}),
    (["unmerge", ONE, TWO], "unmerge", {"incident": TWO}),
    (["split", ONE, "00ff", "00fe", "--title", "Other"], "split", {"alerts": ["00ff", "00fe"], "title": "Other"}),
    (["update", ONE, "-a", "customers", "-m", "soon", "--next", "30m"], "update",
     {"audience": "customers", "text": "soon", "next_due_in": "1800s"}),
    (["resolve", ONE], "resolve", {"method": "Manual"}),
    (["resolve", ONE, "-c", "rollout", "-m", "back to 1.4", "--method", "automated"], "resolve",
     {"method": "Automated", "root_cause": "rollout", "notes": "back to 1.4"}),
    (["reopen", ONE, "-r", "again"], "reopen", {"reason": "again"}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def held(incidents: IncidentServer) -> None:
    incidents.hold(incident(1), incident(2, severity="P2"), incident(3, service="db", severity="P3"))


# One incident


@pytest.mark.parametrize(
    ("words", "verb", "body"),
    ONE_EACH,
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_verb_is_one_request(
    run: Run, incidents: IncidentServer, words: list[str], verb: str, body: dict[str, Any]
) -> None:
    result = run("incidents", *words)

    assert result.exit_code == 0, result.output
    (asked,) = incidents.posted
    assert (asked.path, asked.body) == (f"/v1/incidents/{ONE}/{verb}", body)
    assert asked.headers["x-actor"] == "alice"
    assert "if-match" not in asked.headers


def test_what_became_of_it_is_told_in_a_line(run: Run) -> None:
    assert run("incidents", "ack", ONE).output == f"{ONE}  acknowledged  P1 Investigating  HighLatency\n"


def test_one_that_was_open_is_not_called_reopened(run: Run) -> None:
    assert run("incidents", "reopen", ONE).output == f"{ONE}  needed no change  P1 Triaged  HighLatency\n"

    several = run("incidents", "reopen", ONE, TWO, "--yes")

    assert several.stdout == f"{ONE}  needed no change\n{TWO}  needed no change\n"
    assert several.stderr == "0 of 2 incidents reopened, 2 needed no change\n"


def test_json_is_the_incident_after_it(run: Run) -> None:
    assert json.loads(run("incidents", "ack", ONE, "--json").output)["state"] == "Investigating"


def test_create_sends_what_was_given_and_tells_the_id(run: Run, incidents: IncidentServer) -> None:
    result = run("incidents", "create", "-s", "llm-api", "-t", "Wrong language", "--severity", "p2", "--type", "data",
                 "-m", "since 9", "-l", "team=a", "--to", "bob", "--impact", "all")  # fmt: skip

    assert result.exit_code == 0
    assert re.match(r"[0-9a-f-]{36}  created  P2 ", result.output)
    assert incidents.posted[0].path == "/v1/incidents"
    assert incidents.posted[0].body == {
        "service": "llm-api", "title": "Wrong language", "severity": "P2", "incident_type": "Data", "impact": "all",
        "description": "since 9", "labels": {"team": "a"}, "assignees": ["bob"],
    }  # fmt: skip


def test_texts_come_from_a_file_or_stdin(run: Run, incidents: IncidentServer, elsewhere: Path) -> None:
    (elsewhere / "note.txt").write_text("two\nlines\n")

    run("incidents", "comment", ONE, "-F", "note.txt")
    run("incidents", "comment", ONE, "-F", "-", stdin="from a pipe\n")

    assert [each.body["text"] for each in incidents.posted] == ["two\nlines", "from a pipe"]


@pytest.mark.parametrize(
    "words",
    [
        ["ack"],
        ["ack", ONE, "--for", "2h", "--until", "2099-01-31T12:00:00Z"],
        ["ack", ONE, "--for", "soon"],
        ["ack", ONE, "--where", "severity=P1"],
        ["ack", ONE, TWO, "--if-version", "1"],
        ["ack", "--where", "state=~.*"],
        ["assign", ONE],
        ["assign", ONE, "--role", "commander"],
        ["comment", ONE],
        ["comment", ONE, "-m", " "],
        ["comment", ONE, "-m", "a", "-F", "b"],
        ["comment", ONE, "-F", "no such file"],
        ["label", ONE],
        ["label", ONE, "=x"],
        ["severity", ONE],
        ["severity", ONE, "P0", "P1"],
        ["severity", ONE, "P7"],
        ["severity", ONE, "--type", "Network"],
        ["severity", ONE, "--clear", "title"],
        ["link", ONE],
        ["merge", ONE, ONE],
        ["merge", ONE, TWO, THREE, "--if-version", "1"],
        ["split", ONE],
        ["update", ONE, "-m", "x", "--next", "later"],
        ["create", "-s", "a", "-t", "b", "-l", "team"],
        ["ack", "-"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_changes_nothing(run: Run, incidents: IncidentServer, words: list[str]) -> None:
    result = run("incidents", *words, stdin="")

    assert result.exit_code == 2
    assert result.stderr.startswith("llm-im: ")
    assert not incidents.posted


# Refusals


def test_a_conflict_says_what_to_do_instead(run: Run) -> None:
    result = run("incidents", "close", ONE)

    assert result.exit_code == 6
    assert f"409: it is Triaged: resolve it first; try: llm-im incidents resolve {ONE}" in result.stderr


def test_a_change_by_somebody_else_is_told_with_their_name(run: Run, incidents: IncidentServer) -> None:
    incidents.change(ONE, "bob\x1b[31m", "severity P1 to P0")

    result = run("incidents", "resolve", ONE, "--if-version", "1")

    assert result.exit_code == 6
    assert "somebody changed it in the meantime (now version 2), last bob\ufffd[31m, " in result.stderr
    assert f"severity P1 to P0; check before you repeat it: llm-im incidents show {ONE}" in result.stderr
    assert incidents.posted[0].headers["if-match"] == '"1"'
    assert incidents.incidents[ONE]["state"] == "Triaged"


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (400, 1, "text: too long"),
        (401, 7, "give a token: --token-file, LLM_IM_TOKEN_FILE, LLM_IM_TOKEN, or llm-im context add"),
        (403, 7, "give a token"),
        (404, 5, "llm-im incidents list"),
        (409, 6, f"llm-im incidents show {ONE}"),
        (422, 1, "text: too long"),
        (429, 4, "text: too long"),
        (500, 1, "text: too long"),
        (503, 4, "text: too long"),
    ],
)
def test_every_refusal_has_an_exit_code_and_words(
    run: Run, incidents: IncidentServer, status: int, code: int, told: str
) -> None:
    incidents.next_answers = [Answer(status, {"title": "No", "detail": "text: too long"})]

    result = run("incidents", "comment", ONE, "-m", "x")

    assert result.exit_code == code
    assert told in result.stderr


def test_an_answer_that_is_none_of_ours_is_no_traceback(run: Run, incidents: IncidentServer) -> None:
    incidents.next_answers = [Answer(200, b"<html>")]

    result = run("incidents", "ack", ONE)

    assert result.exit_code == 1
    assert "answered 200: <html>" in result.stderr


@pytest.mark.parametrize("body", [[], {}, {"items": 1}, "text"])
def test_a_stranger_at_the_url_is_told(run: Run, incidents: IncidentServer, body: object) -> None:
    incidents.next_answers = [Answer(200, body)]

    result = run("incidents", "list")

    assert result.exit_code == 1
    assert "answers, but not as LLM-Incident-Manager does: is the URL right?" in result.stderr


# Once, though asked twice


def test_a_lost_answer_is_asked_for_again_and_happens_once(run: Run, incidents: IncidentServer) -> None:
    incidents.lose_next = 1

    result = run("incidents", "comment", ONE, "-m", "x")

    assert result.exit_code == 0
    first, again = incidents.posted
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert incidents.versions[ONE] == 2


def test_an_answer_that_is_lost_twice_is_a_failure(run: Run, incidents: IncidentServer) -> None:
    incidents.lose_next = 2

    result = run("incidents", "comment", ONE, "-m", "x")

    assert result.exit_code == 1
    assert "without an answer" in result.stderr


def test_a_busy_server_is_asked_once_more_after_the_time_it_names(
    run: Run, incidents: IncidentServer
) -> None:
    busy = Answer(503, {"detail": "shard/0000 is recovering"}, {"Retry-After": "0.1"})
    incidents.next_answers = [busy]

    assert run("incidents", "ack", ONE).exit_code == 0

    incidents.next_answers = [busy, busy]
    assert run("incidents", "ack", ONE).exit_code == 4


def test_two_commands_are_two_deeds(run: Run, incidents: IncidentServer) -> None:
    run("incidents", "comment", ONE, "-m", "x")
    run("incidents", "comment", ONE, "-m", "x")

    assert len({each.headers["idempotency-key"] for each in incidents.posted}) == 2


# Several


def test_several_are_one_request(run: Run, incidents: IncidentServer) -> None:
    result = run("incidents", "ack", ONE, TWO, ONE, "--for", "1h")

    assert result.exit_code == 0
    assert result.stdout == f"{ONE}  acknowledged\n{TWO}  acknowledged\n"
    assert result.stderr == "2 of 2 incidents acknowledged\n"
    (asked,) = incidents.posted
    assert asked.path == "/v1/incidents/bulk"
    assert asked.body == {"verb": "acknowledge", "incidents": [ONE, TWO], "body": {"for": "3600s"}}


def test_what_is_refused_of_several_is_told_and_the_rest_is_done(run: Run, incidents: IncidentServer) -> None:
    incidents.incidents[TWO]["state"] = "Resolved"

    result = run("incidents", "close", ONE, TWO)

    assert result.exit_code == 1
    assert result.stdout == f"{TWO}  closed\n"
    assert f"{ONE}: it is Triaged: resolve it first; try: llm-im incidents resolve {ONE}" in result.stderr
    assert "1 of 2 incidents closed, 1 refused" in result.stderr


def test_json_of_several_has_an_item_for_each(run: Run) -> None:
    items = json.loads(run("incidents", "close", ONE, TWO, "--json").output)["items"]

    assert [(each["incident"], each["status"]) for each in items] == [(ONE, 409), (TWO, 409)]


def test_ids_come_from_a_pipe(run: Run, incidents: IncidentServer) -> None:
    found = run("incidents", "list", "-o", "id", "--severity", "P2", "--severity", "P3")

    run("incidents", "ack", "-", stdin=found.output)

    assert incidents.posted[0].body["incidents"] == [THREE, TWO]


def test_many_go_in_batches_and_a_stop_says_what_is_not_known(run: Run, incidents: IncidentServer) -> None:
    incidents.hold(*(incident(number) for number in range(4, 200)))
    asked = [identity(number) for number in range(1, 200)]

    assert run("incidents", "ack", "-", stdin="\n".join(asked)).exit_code == 0
    assert [len(each.body["incidents"]) for each in incidents.posted] == [run_verb.BULK_MAX, 99]

    half = len(asked) - run_verb.BULK_MAX
    incidents.asked.clear()
    incidents.next_answers = [
        Answer(200, {"items": [{"incident": each, "status": 200, "detail": ""} for each in asked[:100]]}),
        Answer(503, {"detail": "shard/0001 is away"}),
    ]
    result = run("incidents", "ack", "-", stdin="\n".join(asked))
    assert result.exit_code == 4
    assert "100 of 199 incidents acknowledged" in result.stderr
    assert (
        f"shard/0001 is away; it is unknown whether the last {half} were changed: check before you repeat it"
        in result.stderr
    )


def test_merge_of_several_is_one_request_each_at_the_target(run: Run, incidents: IncidentServer) -> None:
    result = run("incidents", "merge", ONE, TWO, THREE)

    assert result.exit_code == 0
    assert result.stdout == f"{ONE}  merged with {TWO}\n{ONE}  merged with {THREE}\n"
    assert [(each.path, each.body["incident"]) for each in incidents.posted] == [
        (f"/v1/incidents/{ONE}/merge", TWO),
        (f"/v1/incidents/{ONE}/merge", THREE),
    ]


def test_split_takes_alerts_from_a_pipe_and_tells_the_new_one(run: Run, incidents: IncidentServer) -> None:
    incidents.alerts = [alert(7), alert(8), alert(9, TWO)]
    fingerprints = run("incidents", "alerts", ONE, "-o", "id").output

    result = run("incidents", "split", ONE, "-", stdin=fingerprints)

    assert incidents.posted[0].body == {"alerts": [f"{7:016x}", f"{8:016x}"]}
    assert re.match(rf"[0-9a-f-]{{36}}  split from {ONE}  ", result.output)


# All that match


def test_where_shows_what_it_means_and_changes_nothing_on_a_dry_run(
    run: Run, incidents: IncidentServer
) -> None:
    result = run("incidents", "close", "--where", "severity!=P1", "--dry-run")

    assert result.exit_code == 0
    assert result.stdout == (
        f"{THREE}  would be closed:  P3 Triaged  HighLatency\n{TWO}  would be closed:  P2 Triaged  HighLatency\n"
    )
    assert result.stderr == "nothing was changed: 2 would be closed\n"
    assert not incidents.posted


def test_a_dry_run_of_ids_reads_them_and_changes_nothing(run: Run, incidents: IncidentServer) -> None:
    assert "would be linked" in run("incidents", "link", ONE, TWO, "--dry-run").output
    assert "would be split" in run("incidents", "split", ONE, "00ff", "--dry-run").output
    would = json.loads(run("incidents", "resolve", ONE, "--dry-run", "--json").output)

    assert would["items"] == [{"incident": ONE, "verb": "resolve", "body": {"method": "Manual"}}]
    assert not incidents.posted


def test_where_needs_a_yes_where_nobody_can_be_asked(run: Run, incidents: IncidentServer) -> None:
    refused = run("incidents", "ack", "--where", "severity!=P1")

    assert refused.exit_code == 2
    assert "--where means 2 incidents: add --yes to confirm" in refused.stderr
    assert not incidents.posted

    assert run("incidents", "ack", "--where", "severity!=P1", "--yes").exit_code == 0
    assert incidents.posted[0].body["incidents"] == [THREE, TWO]


def test_where_that_means_nothing_is_a_failure(run: Run, incidents: IncidentServer) -> None:
    result = run("incidents", "ack", "--where", "severity=P4", "--yes")

    assert result.exit_code == 5
    assert "no incident matches; nothing was changed" in result.stderr


def test_where_that_means_too_many_is_refused(
    run: Run, incidents: IncidentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_verb, "WHERE_MAX", 1)

    result = run("incidents", "ack", "--where", "severity!=P1", "--yes")

    assert result.exit_code == 1
    assert "more than 1 incidents match" in result.stderr
    assert not incidents.posted
