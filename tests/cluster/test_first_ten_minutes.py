"""What docs/first-ten-minutes.md tells a newcomer to type is typed, from top to bottom, on an instance of its own and in
a terminal; what the page shows is what comes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.machine import launch
from services.machine.head import FOREIGN_SETTINGS
from tests.cli.terminal import Terminal
from tests.cluster.instance import ROOT, Cluster
from tests.ports import free_port

PAGE = (ROOT / "docs" / "first-ten-minutes.md").read_text("utf-8")
#: A block of the page: what is typed (`sh`), or what came (nothing).
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
#: Never ends by itself: it gets a window of its own, as the page says.
OTHER_WINDOW = "llm-im incidents watch\n"
#: Refused on purpose, with this exit code: the state of the incident forbids it.
MISTAKE, FORBIDDEN = 'llm-im incidents ack "$SLOW"\n', 6
#: A start takes 16 s on a busy machine; some thirty commands follow.
PATIENCE_S = 120.0
#: What differs from run to run, and what stands for it.
VARYING = (
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{12}\b", "ID"),
    (r"\b\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\b\d+[smhd]( \d+[smhd])?\b|\b[\d.]+ s\b", "SPAN"),
    (r"\bended \d+ processes", "ended N processes"),
    (r"\s+", " "),
)
#: What the page's `make` does here, and how a command that fails is told.
PREAMBLE = """
unset ${!LLM_IM_@} %(foreign)s
make() { .venv/bin/llm-im "$1" --data "$PWD/var" $2; }
trap 'echo "@@failed $? $BASH_COMMAND"' ERR
"""
#: Nothing is told of what happened before the stream began.
WATCHING = """llm-im incidents watch > watched 2>&1 &
until curl -sS %(url)s/metrics | grep -q '^llm_im_stream_clients{.*} 1'; do sleep 0.1; done
"""


def shape(line: str) -> str:
    for pattern, name in VARYING:
        line = re.sub(pattern, name, line)
    return line.strip()


def differences(shown: str, came: str) -> list[str]:
    """What the page shows and did not come, and what came and is not shown; `...` stands for anything."""
    lines = [shape(line) for line in came.splitlines() if line.strip()]
    found, may_skip = [], False
    for line in shown.splitlines():
        if line == "...":
            may_skip = True
            continue
        wanted = re.compile(".*".join(re.escape(part) for part in shape(line).split("...")))
        at = next((at for at, each in enumerate(lines) if wanted.fullmatch(each)), None)
        if at is None:
            found.append(f"shown, and did not come: {line}")
            continue
        if at and not may_skip:
            found.append(f"came, and is not shown: {lines[:at]}")
        del lines[: at + 1]
        may_skip = False
    return found if may_skip or not lines else [*found, f"came, and is not shown: {lines}"]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Cluster]:
    """What a checkout is after its `.venv` was made; nothing runs yet."""
    program = tmp_path / ".venv" / "bin" / "llm-im"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m services.cli "$@"\n')
    program.chmod(0o755)
    yield Cluster(tmp_path / "var", free_port())
    launch.stop(tmp_path / "var", progress=lambda _text: None)


def test_the_first_ten_minutes_can_be_typed_and_show_what_the_page_shows(
    instance: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = PAGE.replace("http://127.0.0.1:8080", instance.url)
    script = [PREAMBLE % {"foreign": " ".join(FOREIGN_SETTINGS)}]
    shown: list[tuple[str, str]] = []  # after which typed block, or that of the other window; what is shown
    typed, end = 0, 0
    for block in BLOCK.finditer(page):
        kind, text = block.groups()
        if kind == "sh":
            told = text.replace("make up", f"make up '--port {instance.port}'")
            told = WATCHING % {"url": instance.url} if text == OTHER_WINDOW else told
            script.append(f"echo '@@typed {typed}'\n{told}")
            typed, end = typed + 1, block.end()
        elif not kind:
            follows = page[end : block.start()].isspace()
            shown.append((str(typed - 1) if follows else OTHER_WINDOW, text))
    script.append("echo '@@typed end'; kill %1; wait\n")
    (tmp_path / "typed.sh").write_text("\n".join(script))
    monkeypatch.chdir(tmp_path)

    window = Terminal(
        command=["/bin/bash", "typed.sh"], patience_s=PATIENCE_S, columns=120,
        HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path), LOGNAME="ana",
    )  # fmt: skip
    window.end()

    came = dict(re.findall(r"@@typed (\w+)\n(.*?)(?=@@typed|\Z)", window.plain, re.DOTALL))
    came[OTHER_WINDOW] = (tmp_path / "watched").read_text()
    failed = re.findall(r"@@failed (\d+) (.*)\n", window.plain)
    assert failed == [(str(FORBIDDEN), MISTAKE.strip())], window.plain
    assert MISTAKE in PAGE and OTHER_WINDOW in dict(shown) and len(shown) >= 15
    for after, text in shown:
        seen = re.sub(r"@@failed.*\n", "", came[after])
        assert not differences(text, seen), f"{text}\n--- came:\n{seen}"
    assert launch.running(instance.data) is None
