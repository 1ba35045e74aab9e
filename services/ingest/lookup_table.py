"""CSV files that relabelling looks labels up in: the first column is looked up, each other column is a label. Read by rules.py, and by
whoever checks settings."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from models.alerts.relabel import Table
from models.errors import Malformed

#: A line for each of 100,000 services; every gateway holds it in memory.
BYTES_MAX = 8 * 1024 * 1024
ROWS_MAX = 100_000
#: Columns of a file, and characters of what one cell says: labels are repeated in every alert.
COLUMNS_MAX = 32
CELL_CHARS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells whether a file has changed."""

    size: int
    changed_ns: int
    inode: int


def stamp_of(path: str) -> Stamp | None:
    """None for what is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino)


def read_table(path: str) -> Table:
    """The rows by what their first column says; a cell that is empty gives no label. Raises Malformed with the file and the line.
    Never repeats what stands there: the file may be one that its reader should not see."""
    lines = _lines(path)
    rows = csv.reader(lines, strict=True)
    found: dict[str, dict[str, str]] = {}
    seen_at: dict[str, int] = {}
    try:
        header = next((each for each in rows if each), [])
        names = [each.strip() for each in header]
        _check_header(path, rows.line_num, names)
        for row in rows:
            if not row or row == [""]:
                continue
            at = f"{path}: line {rows.line_num}"
            if len(row) != len(names):
                raise Malformed(f"{at}: expected {len(names)} columns as in the header, it has {len(row)}")
            key, *cells = (each.strip() for each in row)
            if not key:
                raise Malformed(f"{at}: expected something in the first column, which is looked up")
            if key in found:
                raise Malformed(f"{at}: line {seen_at[key]} has the same first column")
            if max(map(len, row)) > CELL_CHARS_MAX:
                raise Malformed(f"{at}: a cell has over {CELL_CHARS_MAX} characters")
            if len(found) >= ROWS_MAX:
                raise Malformed(f"{at}: over {ROWS_MAX} rows")
            found[key] = {name: cell for name, cell in zip(names[1:], cells, strict=True) if cell}
            seen_at[key] = rows.line_num
    except csv.Error as error:
        raise Malformed(f"{path}: line {rows.line_num}: {error}") from None
    return found


def _lines(path: str) -> list[str]:
    try:
        if not Path(path).is_file():
            raise Malformed(f"{path}: there is no such file")
        with open(path, "rb") as source:
            data = source.read(BYTES_MAX + 1)
    except OSError as error:
        raise Malformed(f"{path}: can't be read: {error.strerror}") from None
    if len(data) > BYTES_MAX:
        raise Malformed(f"{path}: over {BYTES_MAX // 1024 // 1024} MiB")
    try:
        # With a mark in front, as spreadsheets write it.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Malformed(f"{path}: line {line}: expected UTF-8") from None
    if "\0" in text:
        raise Malformed(f"{path}: line {text.count(chr(10), 0, text.index(chr(0))) + 1}: expected text")
    return text.splitlines(keepends=True)


def _check_header(path: str, line: int, names: list[str]) -> None:
    at = f"{path}: line {max(line, 1)}"
    if len(names) < 2:
        raise Malformed(
            f"{at}: expected a header with two columns or more, separated by commas: what is looked up, then labels"
        )
    if len(names) > COLUMNS_MAX:
        raise Malformed(f"{at}: over {COLUMNS_MAX} columns")
    if not all(names[1:]):
        raise Malformed(f"{at}: expected the name of a label in each column of the header but the first")
    if len({*names[1:]}) < len(names) - 1:
        raise Malformed(f"{at}: two columns of the header have one name")
