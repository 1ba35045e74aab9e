"""`llm-im` in a pseudo-terminal: colours and widths, questions, Ctrl-C, completion by a real shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.incident_server import IncidentServer, identity, incident
from tests.cli.terminal import ROOT, Terminal
from tests.cli.test_outputs import NAUGHTY


@pytest.fixture(autouse=True)
def held(incidents: IncidentServer, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incidents.hold(incident(1, severity="P0"), incident(2), incident(3, severity="P4"))
    monkeypatch.setenv("LLM_IM_URL", incidents.url)
    monkeypatch.delenv("NO_COLOR", raising=False)


# What it looks like


def test_severity_has_a_colour_on_a_terminal() -> None:
    terminal = Terminal("incidents", "list")

    assert terminal.end() == 0
    assert "\x1b[1;37;41mP0" in terminal.seen
    assert "000000000001  P0   Triaged" in terminal.plain


def test_no_color_is_respected() -> None:
    terminal = Terminal("incidents", "list", NO_COLOR="1")

    assert terminal.end() == 0
    assert ";41m" not in terminal.seen
    assert "000000000001  P0   Triaged" in terminal.plain


@pytest.mark.parametrize("columns", [80, 200])
def test_lines_fit_the_terminal(incidents: IncidentServer, columns: int) -> None:
    incidents.hold(*(incident(10 + n, title=t * 9, service=t * 5) for n, t in enumerate(NAUGHTY)))

    terminal = Terminal("incidents", "list", columns=columns)

    assert terminal.end() == 0
    lines = terminal.plain.splitlines()
    assert len(lines) == 1 + len(incidents.incidents)
    assert max(cell_len(line) for line in lines) == columns
    assert not [c for c in terminal.plain if c != "\n" and not c.isprintable() and c not in "\u200c\u200d"]


def test_a_pipe_gets_no_colour_and_whole_ids() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "incidents", "list"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FORCE_COLOR": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "\x1b" not in done.stdout
    assert identity(1) in done.stdout


def test_letters_that_the_locale_has_not_are_written_otherwise(incidents: IncidentServer) -> None:
    incidents.hold(incident(1, title="h\u00e4llo"))

    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "incidents", "list"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "h\\xe4llo" in done.stdout
    assert done.stderr == ""


def test_a_pipe_that_closes_early_is_no_traceback(incidents: IncidentServer) -> None:
    incidents.hold(*(incident(n) for n in range(10, 2000)))

    done = subprocess.run(
        f"{sys.executable} -m services.cli incidents list -n 2000 | head -1", shell=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.startswith("ID")
    assert done.stderr == ""


# Questions


def test_several_are_asked_about_before_they_end(incidents: IncidentServer) -> None:
    terminal = Terminal("incidents", "resolve", identity(1), identity(2))
    terminal.until("Resolve all 2 incidents? [y/N]")
    assert not incidents.posted

    terminal.type("y\n")

    assert terminal.end() == 0
    assert "2 of 2 incidents resolved" in terminal.plain


def test_a_question_stays_out_of_the_pipe(incidents: IncidentServer, elsewhere: Path) -> None:
    script = f"{sys.executable} -m services.cli incidents ack --where severity=P4 --json > found.json"
    terminal = Terminal(command=["/bin/sh", "-c", script])
    terminal.until("Acknowledge this incident? [y/N]")

    terminal.type("y\n")

    assert terminal.end() == 0
    assert json.loads((elsewhere / "found.json").read_text())["id"] == identity(3)


@pytest.mark.parametrize("answer", ["n\n", "\n", "what\n", "\x04"])
def test_anything_but_yes_changes_nothing(incidents: IncidentServer, answer: str) -> None:
    terminal = Terminal("incidents", "resolve", identity(1), identity(2))
    terminal.until("[y/N]")

    terminal.type(answer)

    assert terminal.end() == 1
    assert "nothing was changed" in terminal.plain
    assert not incidents.posted


def test_ctrl_c_at_a_question_changes_nothing(incidents: IncidentServer) -> None:
    terminal = Terminal("incidents", "close", "--where", "severity=P4")
    terminal.until("Close this incident? [y/N]")

    terminal.type("\x03")

    assert terminal.end() == 130
    assert "Traceback" not in terminal.plain
    assert not incidents.posted


def test_ids_from_a_pipe_are_asked_about_on_the_terminal(incidents: IncidentServer) -> None:
    terminal = Terminal("incidents", "resolve", "-", piped=[identity(1), identity(2), identity(3)])
    terminal.until("Resolve all 3 incidents? [y/N]")

    terminal.type("yes\n")

    assert terminal.end() == 0
    assert len(incidents.posted) == 1


def test_one_incident_and_yes_ask_nothing(incidents: IncidentServer) -> None:
    assert Terminal("incidents", "resolve", identity(1)).end() == 0
    assert Terminal("incidents", "resolve", identity(2), identity(3), "--yes").end() == 0
    assert len(incidents.posted) == 2


def test_a_comment_is_written_in_the_editor(incidents: IncidentServer, elsewhere: Path) -> None:
    editor = elsewhere / "editor"
    editor.write_text('#!/bin/sh\ncat "$1" > seen\nprintf "rolled back\\n# a note\\nto 1.4\\n" > "$1"\n')
    editor.chmod(0o755)

    terminal = Terminal("incidents", "comment", identity(1), EDITOR=str(editor))

    assert terminal.end() == 0
    assert incidents.posted[0].body == {"text": "rolled back\nto 1.4"}
    assert "an empty text changes nothing" in (elsewhere / "seen").read_text()


@pytest.mark.parametrize(
    ("editor", "told"), [("false", "exit code 1"), ("true", "the text is empty"), ("/no", "set EDITOR")]
)
def test_an_editor_that_gives_nothing_changes_nothing(
    incidents: IncidentServer, editor: str, told: str
) -> None:
    terminal = Terminal("incidents", "comment", identity(1), EDITOR=editor, VISUAL="")

    assert terminal.end() != 0
    assert told in terminal.plain
    assert not incidents.posted


# Watching


def test_ctrl_c_ends_watch_cleanly(incidents: IncidentServer) -> None:
    incidents.tell("c1", 1, "rolled back")
    terminal = Terminal("incidents", "watch")
    terminal.until("rolled back")

    terminal.type("\x03")

    assert terminal.end() == 130
    assert "Traceback" not in terminal.plain
    assert "Aborted" not in terminal.plain


def test_list_watch_draws_what_is_new_and_gives_the_screen_back(incidents: IncidentServer) -> None:
    terminal = Terminal("incidents", "list", "--watch", lines=10)
    terminal.until("000000000001")
    incidents.hold(*(incident(n, title="Newer") for n in range(10, 30)))
    terminal.until("and 16 more")

    terminal.type("\x03")

    assert terminal.end() == 130
    assert terminal.seen.count("\x1b[?1049h") == terminal.seen.count("\x1b[?1049l") == 1
    assert "\x1b[?25h" in terminal.seen.split("\x1b[?1049h")[1]
    assert "Traceback" not in terminal.plain


def test_list_watch_outlives_a_server_that_is_away(incidents: IncidentServer) -> None:
    from tests.cli.incident_server import Answer

    terminal = Terminal("incidents", "list", "--watch", columns=160)
    terminal.until("000000000001")
    incidents.next_answers = [Answer(503, {"detail": "shard/0001 does not answer"})]
    terminal.until("shard/0001 does not answer")

    terminal.type("\x03")

    assert terminal.end() == 130


def test_list_watch_into_a_pipe_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "incidents", "list", "--watch"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "in scripts, use: llm-im incidents watch" in done.stderr


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_calls_back(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "completion", shell],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "_LLM_IM_COMPLETE=complete_" + shell in done.stdout
    assert "llm-im" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["incidents", "ac"], {"ack"}),
        (["incidents", "list", "-o", "w"], {"wide"}),
        (["incidents", "show", "019ab000-0002"], {identity(2)}),
        (["comp"], {"completion"}),
    ],
)
def test_bash_completes_commands_values_and_ids(elsewhere: Path, line: list[str], expected: set[str]) -> None:
    shim = elsewhere / "bin" / "llm-im"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m services.cli "$@"\n')
    shim.chmod(0o755)
    words = " ".join(f"'{word}'" for word in ["llm-im", *line])
    script = f"""
        eval "$(llm-im completion bash)"
        COMP_WORDS=({words}); COMP_CWORD={len(line)}; COMP_LINE="llm-im {" ".join(line)}"; COMP_POINT=${{#COMP_LINE}}
        function=$(complete -p llm-im | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $function llm-im
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """

    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{shim.parent}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert set(done.stdout.split()) == expected
