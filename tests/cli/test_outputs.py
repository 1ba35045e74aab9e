"""The forms of a list: for a person, a spreadsheet, a program, a pipe."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from services.cli.commands.incidents import list as listing
from services.cli.commands.incidents.list import COLUMNS
from services.cli.shared import output, terminal
from tests.cli.conftest import Run
from tests.cli.incident_server import IncidentServer, alert, identity, incident

#: Titles as they come from outside: what steers a terminal, what is wide, what runs from right to left.
NAUGHTY = [
    "\x1b[2J\x1b]0;pwned\x07\x1b[31mred",
    "\x9b31m eight-bit CSI",
    "a\rb\x08c\x00d\x7fe",
    "\u202eright to left override",
    "two\nlines\u2028three",
    "日本語のタイトル",
    "👩‍💻🚒 emoji 🇩🇪",
    "שלום עולם مرحبا",
    "می‌خواهم",
    "[bold]markup[/bold] :fire:",
    "e\u0301\u0301\u0301 combining",
    "\ud83d lone surrogate",
]


def test_csv_has_names_whole_ids_and_raw_values(run: Run, incidents: IncidentServer) -> None:
    incidents.hold(
        incident(
            1,
            title='a, "b"',
            assignees=["alice", "bob"],
            acknowledged={"by": "carol", "at": "2026-01-31T12:00:30.000Z", "until": None},
            resolution={"root_cause": "x;=cmd|' /C calc'!A0"},
            resolved_at="2026-01-31T12:05:00.000Z",
        )
    )

    raw = run("incidents", "list", "-o", "csv").output
    found = list(csv.DictReader(io.StringIO(raw)))

    assert raw.startswith('"id","severity",') and '"x;=cmd|' in raw, (
        "a spreadsheet that splits at ; sees one cell"
    )
    assert found == [
        {
            "id": identity(1), "severity": "P1", "state": "Triaged", "created_at": "2026-01-31T12:00:00.000Z",
            "updated_at": "2026-01-31T12:01:00.000Z", "alerts_firing": "1", "alerts": "2", "type": "Performance",
            "impact": "major", "assignees": "alice, bob", "acknowledged": "carol", "service": "llm-api", "title": 'a, "b"',
            "acknowledged_at": "2026-01-31T12:00:30.000Z", "resolved_at": "2026-01-31T12:05:00.000Z", "owner": "alice, bob",
            "alertname": "HighLatency", "root_cause": "x;=cmd|' /C calc'!A0",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("title", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "＝1", "＋1", "－1", "＠1"])
def test_a_spreadsheet_runs_no_title_as_a_formula(run: Run, incidents: IncidentServer, title: str) -> None:
    incidents.hold(incident(1, title=title))

    (found,) = csv.DictReader(io.StringIO(run("incidents", "list", "-o", "csv").output))

    assert found["title"] == f"'{title}"


@pytest.mark.parametrize("title", NAUGHTY)
@pytest.mark.parametrize("form", ["table", "wide", "csv", "json", "id"])
def test_no_title_steers_the_terminal(run: Run, incidents: IncidentServer, title: str, form: str) -> None:
    incidents.hold(incident(1, title=title, service=title, impact=title, assignees=[title]))

    result = run("incidents", "list", "-o", form)

    assert result.exit_code == 0
    assert not [c for c in result.output if c != "\n" and not c.isprintable() and c not in "\u200c\u200d"]
    if form != "json":
        assert len(result.output.splitlines()) == (1 if form == "id" else 2)


def test_show_and_timeline_and_verbs_are_plain_too(run: Run, incidents: IncidentServer) -> None:
    incidents.hold(incident(1, title=NAUGHTY[0], description=NAUGHTY[0], classified_by=NAUGHTY[0]))
    incidents.change(identity(1), NAUGHTY[0], NAUGHTY[0])

    for words in (["show"], ["timeline"], ["timeline", "-o", "csv"], ["ack"], ["alerts", "-o", "wide"]):
        assert "\x1b" not in run("incidents", words[0], identity(1), *words[1:]).output


def test_json_holds_texts_as_they_are(run: Run, incidents: IncidentServer) -> None:
    incidents.hold(*(incident(number, title=title) for number, title in enumerate(NAUGHTY)))

    found = json.loads(run("incidents", "list", "--json").output)

    assert {each["title"] for each in found["items"]} == set(NAUGHTY)


@pytest.mark.parametrize("count", [0, 1, 1000])
@pytest.mark.parametrize("form", ["table", "wide", "csv", "id", "json"])
def test_none_one_and_a_thousand(run: Run, incidents: IncidentServer, count: int, form: str) -> None:
    incidents.hold(*(incident(number) for number in range(count)))

    result = run("incidents", "list", "-n", "1000", "-o", form)

    lines = result.output.splitlines()
    heads = {"table": 1, "wide": 1, "csv": 1, "id": 0, "json": 0}[form]
    if form == "json":
        assert len(json.loads(result.output)["items"]) == count
    elif count == 0 and form in ("table", "wide"):
        assert lines == ["no open incidents"]
    else:
        assert len(lines) == count + heads


def test_more_than_was_asked_for_is_told_beside_the_output(run: Run, incidents: IncidentServer) -> None:
    incidents.hold(*(incident(number) for number in range(3)))

    result = run("incidents", "list", "-n", "2", "-o", "id")

    assert result.stdout == f"{identity(2)}\n{identity(1)}\n"
    assert result.stderr == "there are more than these 2: --limit\n"


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_table_fits_and_never_cuts_ids_states_or_numbers(columns: int) -> None:
    from rich.cells import cell_len

    rows = [
        incident(number, id=f"{number:012}", title=title * 4, service=title * 3)
        for number, title in enumerate(NAUGHTY[5:9])
    ]

    lines = output.table(COLUMNS, rows, False, columns).plain.splitlines()

    assert all(cell_len(line) <= max(columns, 72) for line in lines)
    for row, line in zip(rows, lines[1:]):
        assert line.startswith(row["id"])
        assert row["state"] in line
        assert "1/2" in line or columns < 160, "it is left out where there is no room, never cut"


@pytest.mark.parametrize(
    ("wide", "room", "left_out"),
    [
        (False, None, {"CHANGED", "TYPE", "IMPACT"}),
        (False, 200, {"CHANGED", "TYPE", "IMPACT"}),
        (False, 80, {"CHANGED", "TYPE", "IMPACT", "FIRING", "DUE", "TITLE"}),
        (True, None, set()),
        (True, 80, {"CHANGED", "TYPE", "IMPACT", "FIRING", "DUE"}),
    ],
)
def test_what_a_terminal_has_no_room_for_is_left_out_and_wide_gives_the_title_room(
    wide: bool, room: int | None, left_out: set[str]
) -> None:
    row = incident(
        1, title="Pod checkout/worker-7f9 is in waiting state CrashLoopBackOff " * 2, assignees=["alice"]
    )

    head, line = output.table(COLUMNS, [row], wide, room).plain.splitlines()

    names = {each.name.upper() for each in COLUMNS if each.cell is not None}
    assert names - set(head.split()) == left_out
    assert ("Pod checkout/worker-7f9 is in waiting state CrashLoopBackOff"[:57] in line) is (
        wide or room != 80
    )


def test_what_is_late_is_overdue(run: Run, incidents: IncidentServer) -> None:
    now = datetime.now(UTC)
    due = {
        "acknowledge_due_at": (now - timedelta(seconds=32)).isoformat(),
        "resolve_due_at": (now + timedelta(seconds=3630)).isoformat(),
    }
    incidents.hold(incident(1, due=due, update_due_at=(now - timedelta(minutes=5)).isoformat()))

    listed, shown = run("incidents", "list").output, run("incidents", "show", identity(1)).output

    assert re.search(r"overdue by 3\ds", listed)
    assert re.search(r"ack by .*\(overdue by 3\ds\)", shown) and re.search(r"resolve by .*\(in 1h\)", shown)
    assert re.search(r"next update .*\(overdue by 5m", shown)


def test_the_list_shows_what_is_open_worst_first_unless_it_is_asked_for_more(
    run: Run, incidents: IncidentServer
) -> None:
    incidents.hold(*(incident(number, state="Closed") for number in range(1, 1200)))
    incidents.hold(incident(0, severity="P0"))

    def ids_of(*words: str) -> list[str]:
        return run("incidents", "list", "-o", "id", *words).stdout.split()

    assert ids_of() == ids_of("--open") == [identity(0)]
    assert dict(incidents.asked[-1].query)["sort"] == "severity"
    assert len(ids_of("--all")) == len(ids_of("state=Closed")) == len(ids_of("--state", "closed")) == 50
    assert "sort" not in dict(incidents.asked[-1].query)
    assert run("incidents", "list", "--all", "--open").exit_code == 2
    closed = run("incidents", "list", "service=nothing-like-it")
    assert (closed.stdout, closed.stderr) == (
        "no open incidents like that\n",
        "resolved and closed ones: --all\n",
    )


def test_a_sort_that_is_none_is_a_usage_error_and_the_orders_are_the_servers(
    run: Run, incidents: IncidentServer
) -> None:
    from models.incidents.filters import Sort

    assert run("incidents", "list", "--sort", "severty").exit_code == 2
    assert not incidents.asked
    assert run("incidents", "list", "--sort", "-Created_At").exit_code == 0
    assert {each.value for each in listing.Sort} == {each.value for each in Sort}


def test_show_puts_alerts_that_fire_first_with_the_senders_link(run: Run, incidents: IncidentServer) -> None:
    link = "http://prometheus.example:9090/graph?g0.expr=" + "x" * 300
    incidents.hold(incident(1))
    ended = [{**alert(number), "firing": False} for number in range(1, 80)]
    incidents.alerts = [*ended, {**alert(99), "generator_url": link}]

    shown = run("incidents", "show", identity(1)).output
    listed = run("incidents", "alerts", identity(1), "-n", "2", "-o", "id").stdout.split()

    alerts = shown[shown.index("Alerts") :]
    assert alerts.index("host=h99") < alerts.index("host=h1")
    assert f"link: {link}\n" in alerts
    assert listed == [f"{99:016x}", f"{1:016x}"]


def test_columns_stand_below_each_other_whatever_the_script() -> None:
    from rich.cells import cell_len

    rows = [incident(number, service=title, title="TITLE") for number, title in enumerate(NAUGHTY)]

    lines = output.table(COLUMNS, rows, False, None).plain.splitlines()

    assert {cell_len(line[: line.rindex("TITLE")]) for line in lines} == {cell_len(lines[0]) - len("TITLE")}


def test_formatting_that_scripts_need_stays() -> None:
    assert terminal.plain("می‌خواهم 👩‍💻") == "می‌خواهم 👩‍💻"
    assert terminal.plain("a\u200bb\u2066c") == "a\ufffdb\ufffdc"


def test_show_says_who_works_on_it_what_is_due_and_what_belongs_together(
    run: Run, incidents: IncidentServer
) -> None:
    incidents.hold(
        incident(
            1, assignees=["alice"], roles={"commander": "bob"}, merged_into=identity(2), split_from=identity(3),
            acknowledged={"by": "carol", "at": "2026-01-31T12:00:00.000Z", "until": "2099-01-31T12:00:00.000Z"},
            due={"acknowledge_due_at": None, "resolve_due_at": "2026-01-31T13:00:00.000Z"},
            said={"severity": "P1", "incident_type": None, "impact": None},
            judged={"severity": "P3", "incident_type": "Performance", "impact": "minor"},
            parts=[{"incident": identity(4), "is_open": True, "severity": "P2", "pending": "merge"}],
            updates=[{"at": "2026-01-31T12:00:00.000Z", "by": "dave", "audience": "customers", "text": "soon",
                      "next_due_at": None}],
            update_due_at="2099-01-31T12:00:00.000Z", related_incidents=[identity(5)],
            resolution={"resolved_at": "2026-01-31T12:00:00.000Z", "resolved_by": "erin", "notes": "rolled back",
                        "resolution_method": "Manual", "root_cause": "rollout"},
        )
    )  # fmt: skip

    told = run("incidents", "show", identity(1)).output

    for words in (
        "P1  (set by hand or a playbook; classified as P3)", "by carol", "until 2099-01-31T12:00:00.000Z (in ", "commander bob",
        "2026-01-31T13:00:00.000Z  (", "to customers, ", "by dave: soon", f"parent        {identity(2)}",
        f"{identity(4)}  P2 open, merge pending", f"split from    {identity(3)}", f"linked        {identity(5)}",
        "by erin (Manual)", "root cause    rollout", "notes         rolled back", "version       1",
    ):  # fmt: skip
        assert words in told


def test_stats_are_told_in_lines(run: Run, incidents: IncidentServer) -> None:
    result = run("stats", "service=llm-api", "--window", "7d")

    assert incidents.asked[0].query == [("service", "llm-api"), ("window", "604800s")]
    assert "by service             others 3\n" in result.output
    assert "  time to acknowledge  p50 1m  p90 2m  p99 2m  (of 2)\n" in result.output
    assert "  time to resolve      -\n" in result.output
    assert "(99.0% repeats)" in result.output


@pytest.mark.parametrize(
    ("text", "details", "told"),
    [
        ("P2 Data -> P1 Data", {"reason": "customers see it"}, "P2 Data -> P1 Data (customers see it)"),
        ("We are on it", {"audience": "customers"}, "We are on it (to customers)"),
        ("built anew", {"method": "Manual", "root_cause": "old index"}, "built anew (root cause: old index)"),
        ("by ann", {"until": "2026-01-31T12:00:00Z"}, "by ann (until 2026-01-31T12:00:00Z)"),
        ("Detected -> Triaged: seen", {"reason": "seen"}, "Detected -> Triaged: seen"),
        ("\x1b[2J", {"reason": "\x1b[2J\n"}, "\ufffd[2J (\ufffd[2J )"),
    ],
)
def test_a_timeline_says_why_to_whom_and_until_when(
    run: Run, incidents: IncidentServer, text: str, details: dict[str, str], told: str
) -> None:
    entry = {"timestamp": "2026-01-31T12:00:00.000Z", "event_type": "Kind", "actor": "ann",
             "description": text, "metadata": details}  # fmt: skip
    held = incident(1)
    incidents.hold(held)
    incidents.timelines[held["id"]] = [entry]

    assert told in run("incidents", "timeline", held["id"]).stdout
    assert told in run("incidents", "show", held["id"]).stdout
