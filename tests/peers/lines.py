"""Files of JSON lines, by which a test and its peer talk. Imports little: a peer is to start fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Without a last line that is not whole yet."""
    return [json.loads(each) for each in file.read_text().split("\n")[:-1] if each]


def write_line(file: Path, said: object) -> None:
    """In one piece: a kill leaves no half line, except at the very end."""
    with file.open("a") as out:
        out.write(f"{json.dumps(said)}\n")
