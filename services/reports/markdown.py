"""A report as Markdown (GitHub's), to be pasted into an issue or a wiki. Texts of strangers make no link, no markup and mention nobody."""

from __future__ import annotations

from collections.abc import Sequence

from services.actions.plain_text import clean, for_github
from services.reports.document import Block, Heading, Table, Text


def as_markdown(document: Sequence[Block]) -> str:
    """The document, with a line end behind it."""
    return "\n\n".join(map(_written, document)) + "\n"


def _written(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_line(block.text)}"
        case Text():
            return for_github(clean(block.text)).strip().replace("\n", "  \n")
        case Table():
            rows = [block.columns, *block.rows]
            head, *rest = [f"| {' | '.join(map(_line, row))} |" for row in rows]
            return "\n".join([head, "|" + " --- |" * len(block.columns), *rest])


def _line(text: str) -> str:
    return for_github(" ".join(clean(text).split()))
