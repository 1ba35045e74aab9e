"""A file that a docstring or a comment names is there: a name that is no longer true sends the reader nowhere."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: A name such as services/wiring/bootstrap.py; in capitals it stands for the reader's own.
NAMED = re.compile(r"(?<![\w*{}./-])[\w/.-]*\w\.py\b")


def tracked() -> list[str]:
    found = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in found.stdout.split() if (ROOT / name).exists()]


def words_of(source: str) -> list[str]:
    """Its docstrings, and what stands behind a #."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    said = [ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [each for each in said if each] + re.findall(r"(?:^|\s)#.*", source)


def test_a_file_that_a_docstring_or_a_comment_names_is_there() -> None:
    """By its path from the root, or by its bare name where it is in the same folder."""
    files = tracked()
    wrong = []
    for file in files:
        beside = str(Path(file).parent)
        wrong += [
            f"{file}: {name}"
            for words in words_of((ROOT / file).read_text("utf-8"))
            for name in NAMED.findall(words)
            if "NAME" not in name and name not in files and f"{beside}/{name}" not in files
        ]

    assert wrong == []
