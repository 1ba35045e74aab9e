"""A package of somebody else's, installed for one test: a module and its entry points, as pip would leave them."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, group: str, points: dict[str, str], code: str
) -> None:
    """`points` by name to object; "{module}" in them is the module that `code` becomes."""
    site, module = folder / name, f"toy_{name}"
    about = site / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (site / f"{module}.py").write_text(dedent(code))
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point} = {value.format(module=module)}" for point, value in points.items()]
    (about / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, module, raising=False)
