"""What docs/first-ten-minutes.md tells a newcomer to type works, in that order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cluster.instance import ROOT, Cluster

PAGE = (ROOT / "docs" / "first-ten-minutes.md").read_text("utf-8")
#: Blocks that start or stop a system, switch its tokens on, or do not end by themselves.
LEFT_OUT = ("make ", "export PATH", "tokens create", "incidents watch")
#: The mistake on purpose, and its exit code: its state forbids it.
MISTAKE, FORBIDDEN = 'llm-im incidents ack "$SLOW"\n', 6


def test_the_first_ten_minutes_can_be_typed(cluster: Cluster, tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    typed = [block for block in blocks if not any(words in block for words in LEFT_OUT)]
    assert len(blocks) - len(typed) == 5 and MISTAKE in typed
    program = tmp_path / "llm-im"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m services.cli "$@"\n')
    program.chmod(0o755)
    script = ["set -eu"]
    for block in typed:
        told = block.replace("http://127.0.0.1:8080", cluster.url)
        if block == MISTAKE:
            told = f"code=0; {told.strip()} || code=$?; test $code = {FORBIDDEN}\n"
        script.append(told)

    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("LLM_IM_")},
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LLM_IM_URL": cluster.url,
            "XDG_CONFIG_HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (
        "it is Resolved and can't be acknowledged: reopen it first; try: llm-im incidents reopen"
        in done.stderr
    )
    for shown in ("HighLatency (llm-api)", "EmbeddingDrift (vector-db)", "commander", "rolled back"):
        assert shown in done.stdout
